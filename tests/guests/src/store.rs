//! The xenstore, of a domain that has one.

use crate::{Result, check, value};
use alloc::format;
use core::time::Duration;
use runtime::restart::{self, Policy, Recovered};
use runtime::time;
use split_driver::store::{Store, Transaction, Watch};
use split_driver::xenstore_client::Client;

/// Bytes of one payload (`XENSTORE_PAYLOAD_MAX`, `io/xs_wire.h`).
const PAYLOAD_MAX: usize = 4096;

/// A directory larger than one payload is listed whole. Dom0 makes it, `data/many/NUMBER-` and forty `x` each, numbers from 0, since a
/// guest's own quota does not let it; then it says in `data/made` how many there are.
pub(crate) async fn directory() -> Result {
    let store = value!(runtime::store::connect());
    let mut watch = value!(store.watch("data/made").await);
    log::info!("make them");
    let count: usize = loop {
        watch.next().await;
        if value!(store.read_optional(Transaction::NONE, "data/made").await).is_some() {
            break value!(store.read_parsed(Transaction::NONE, "data/made").await);
        }
    };
    let mut names = value!(store.directory(Transaction::NONE, "data/many").await);
    let bytes: usize = names.iter().map(|name| name.len() + 1).sum();
    log::info!("{} names, {bytes} bytes", names.len());
    check!(bytes > 3 * PAYLOAD_MAX);
    check!(names.len() == count);
    names.sort_unstable();
    check!(names.iter().enumerate().all(|(number, name)| *name == format!("{number:04}-{:x<40}", "")));
    Ok(())
}

/// Lives of [`restart`], beside the first.
const LIVES: u64 = 60;
/// Nodes that are written and read all the time, and bytes of each: more than the ring holds, and less than the store's quota.
const NODES: usize = 4;
const BYTES: usize = 1900;

/// Lives that end in the middle of requests and of answers: the next one's connection works, no node is torn, and no watch is left over.
pub(crate) async fn restart() -> Result {
    log::set_max_level(log::LevelFilter::Debug);
    let recovered = restart::recovered();
    let life = recovered.as_ref().map_or(0, Recovered::lives);
    let store = value!(runtime::store::connect());
    value!(restart::keep(1, 1, Policy { in_a_row: 3, settled_after: Duration::ZERO }, |_| Ok(())));
    if let Some(mut recovered) = recovered {
        recovered.taken_over();
    }
    let mut watch = value!(store.watch("data/life").await);
    watch.next().await;
    let text = format!("{life}");
    value!(store.write(Transaction::NONE, "data/life", text.as_bytes()).await);
    check!(time::timeout(Duration::from_secs(20), watch.next()).await.is_ok());
    check!(value!(store.read(Transaction::NONE, "data/life").await) == text.as_bytes());
    for node in 0..NODES {
        let value = value!(store.read_optional(Transaction::NONE, &format!("data/node-{node}")).await);
        let whole =
            value.as_ref().is_none_or(|value| value.len() == BYTES && value.iter().all(|b| Some(b) == value.first()));
        check!(whole && value.is_some() == (life > 0));
    }
    if life == LIVES {
        return Ok(());
    }
    // The first life leaves all nodes.
    for node in 0..NODES {
        value!(store.write(Transaction::NONE, &format!("data/node-{node}"), &[b'a'; BYTES]).await);
    }
    for node in 0..NODES {
        let _tasks = [runtime::spawn(write(store.clone(), node)), runtime::spawn(read(store.clone(), node))];
    }
    let _open = value!(store.start().await);
    core::mem::forget(watch);
    time::sleep(Duration::from_micros(time::now().0 % 5000)).await;
    panic!("life {life} ends");
}

async fn write(store: Client, node: usize) {
    for letter in (b'a'..=b'z').cycle() {
        let _ = store.write(Transaction::NONE, &format!("data/node-{node}"), &[letter; BYTES]).await;
    }
}

async fn read(store: Client, node: usize) {
    loop {
        let _ = store.read(Transaction::NONE, &format!("data/node-{node}")).await;
    }
}

//! The xenstore, of a domain that has one.

use crate::{Result, check, value};
use alloc::format;
use split_driver::store::{Store, Transaction, Watch};

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

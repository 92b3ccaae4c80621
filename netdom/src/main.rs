//! netdom, the image: joins the library to the runtime, and ends the domain when asked. Floor 3.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod domain;

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::future::pending;
use domain::Domain;
use netdom::command_line;
use netdom::packet::Pool;
use runtime::memory::{self, Pages};
use runtime::shutdown::{self, Kind, Requests};
use runtime::time::{self, Duration};
use runtime::{Environment, store};
use split_driver::store::{Store, StoreError, Transaction};
use split_driver::xenstore_client::Client;

runtime::entry!(main);

/// Pages for packets: enough for a NIC's receive ring and some queues, but never so many that rings and heap go short.
const POOL_PAGES: usize = 8192;

/// How long the start has the store to itself: whatever else is asked of it delays the domain's readiness.
const HEAD_START: Duration = Duration::from_secs(1);

async fn main(environment: Environment) {
    log::info!(
        "netdom {}: {} pages, command line \"{}\"",
        env!("CARGO_PKG_VERSION"),
        environment.pages,
        environment.command_line.escape_debug()
    );
    let store = match store::connect() {
        Ok(store) => store,
        Err(error) => {
            log::error!("no xenstore: {error:?}; nothing can be done without it");
            return;
        }
    };
    let kind = serve(environment, store).await;
    log::info!("{kind:?} as asked");
    shutdown::finish(kind);
}

/// Serves until the toolstack asks for an end.
async fn serve(environment: Environment, store: Client) -> Kind {
    let (options, bad) = command_line::parse(environment.command_line);
    log::set_max_level(options.level);
    for word in &bad {
        log::error!("command line: {word}");
    }
    if bad.iter().any(|word| word.is_fatal()) {
        // The NIC on the wrong bridge would join what is to be kept apart: better no service than that one.
        let text: String = bad.iter().map(|word| format!("{word}; ")).collect();
        complain(&store, text.trim_end_matches("; ")).await;
        log::error!("not started; correct the command line and create the domain anew");
        return asked_to_end(&store).await;
    }
    let pages = POOL_PAGES.min(memory::usage().free_frames / 2);
    let pool = match Pages::new(pages) {
        Ok(pages) => Pool::new(Box::new(pages)),
        Err(_) => {
            complain(&store, "no memory for packets: give the domain more").await;
            return asked_to_end(&store).await;
        }
    };
    let domain = Rc::new(Domain::new(store, pool, options));
    runtime::spawn(Rc::clone(&domain).start());
    // A request from before the watch is not lost.
    let _late = time::timeout(HEAD_START, domain.ready()).await;
    let kind = asked_to_end(domain.store()).await;
    domain.stop().await;
    kind
}

/// Waits until the toolstack asks for an end.
async fn asked_to_end(store: &Client) -> Kind {
    match Requests::new(store.clone()).await {
        Ok(mut requests) => requests.requested().await,
        Err(error) => {
            log::error!("control/shutdown cannot be watched: {error:?}; only xl destroy ends this domain");
            pending().await
        }
    }
}

/// Puts what is wrong where the administrator looks: `data/error`.
async fn complain(store: &Client, text: &str) {
    log::error!("{text}");
    write_node(store, "data/error", text).await;
}

/// Writes a node of our own; a failure is logged.
async fn write_node(store: &Client, path: &str, value: &str) {
    match store.write(Transaction::NONE, path, value.as_bytes()).await {
        Ok(()) | Err(StoreError::Closed) => {}
        Err(error) => log::warn!("{path} not written: {error:?}"),
    }
}

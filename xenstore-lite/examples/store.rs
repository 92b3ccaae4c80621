//! A xenstore: dom0 writes a node, and reads it. Host.
//!
//!     cargo run -p xenstore-lite --example store

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::{XS_READ, XS_WRITE};
use xenstore_lite::fakes::{FakeHost, fetch, request};
use xenstore_lite::{Config, Store};

fn main() {
    let mut store = Store::new(Config::default());
    let mut host = FakeHost::default();
    let dom0 = store.connect(DomainId(0)).expect("the first connection");

    // Bytes in, as they lie in the ring; bytes out.
    for request in [request(XS_WRITE, 0, b"/local/name\0Domain-0"), request(XS_READ, 0, b"/local/name\0")] {
        let taken = store.handle_bytes(dom0, &request, &mut host).expect("it keeps to the protocol");
        assert_eq!(taken, request.len());
    }
    let answers: Vec<_> = fetch(&mut store, dom0).iter().map(|answer| answer.text()).collect();
    assert_eq!(answers, ["OK|", "Domain-0"]);
    println!("{answers:?}");
}

#[cfg(test)]
#[test]
fn it_runs() {
    main();
}

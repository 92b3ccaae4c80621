//! netback on a host: two guests on a bridge, with fakes in place of Xen. Host.
//!
//!     cargo run -p netdom --example netback --no-default-features --features fakes

use netdom::datapath::DataPath;
use netdom::fakes::{Frontend, Outgoing};
use netdom::packet::Pool;
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::time::{Duration, Instant};

fn main() {
    let xen = FakeXen::new();
    let pool = Pool::new(Box::new(FakePages::new(&xen, 1024)));
    let mut netback = DataPath::new(xen.clone(), pool, 1);

    // Two guests, each with a vif on the bridge.
    let mut guests = [Frontend::new(&xen, 1, false), Frontend::new(&xen, 2, false)];
    for guest in &mut guests {
        guest.post(16);
        netback.attach(guest.config("xenbr0", Frontend::linux_features())).expect("the vif's rings are sound");
    }

    // The first sends a frame to all: addresses, an EtherType for experiments, and text.
    let [first, second] = &mut guests;
    let frame = [&[0xff; 6], first.mac.as_slice(), &[0x88, 0xb5], &[b'.'; 46]].concat();
    assert!(first.send(&Outgoing { bytes: frame.clone(), ..Outgoing::default() }));

    // Events, then rounds, until nothing is left to do. Time is an argument.
    let mut now = Instant(0);
    loop {
        while let Some(port) = xen.next_event() {
            netback.handle_event(port, now);
        }
        if !netback.poll(now).again {
            break;
        }
        now = now + Duration::from_micros(10);
    }

    let arrived = second.arrived();
    assert_eq!(arrived.first().map(|packet| &packet.bytes), Some(&frame));
    println!("guest 2 received {} bytes, copied from grant to grant", frame.len());
}

#[cfg(test)]
#[test]
fn it_runs() {
    main();
}

//! Both ends of a ring in a page, and a frontend that lies. Host.
//!
//!     cargo run -p split-driver --example ring

use split_driver::ring::{BackRing, FrontRing, RingError};
use std::sync::atomic::{AtomicU32, Ordering};

/// A request and a response: any struct of plain words.
type Request = [u32; 2];
type Response = [u32; 1];

fn main() -> Result<(), RingError> {
    // A page that both ends can write at any time. Under Xen it is granted by one and mapped by the other.
    let page: Vec<AtomicU32> = (0..1024).map(|_| AtomicU32::new(0)).collect();
    let mut front = FrontRing::<_, Request, Response>::init(&page)?;
    let mut back = BackRing::<_, Request, Response>::attach(&page)?;

    assert!(front.push(&[20, 22]));
    assert!(front.push_and_check_notify(), "the backend waits for an event");

    // Each request is copied out once, and is not read from the page again.
    for _ in 0..back.unconsumed()? {
        let [one, other] = back.take();
        back.push(&[one.wrapping_add(other)]);
    }
    assert!(back.push_and_check_notify(), "the frontend waits for an event");
    assert_eq!(front.unconsumed()?, 1);
    assert_eq!(front.take(), [42]);

    // The frontend claims more requests than there are slots (word 0 is req_prod): the backend closes it.
    page.first().expect("a page").store(100_000, Ordering::Relaxed);
    let error = back.unconsumed().expect_err("an overrun");
    println!("20 + 22 = 42; then: {error}");
    Ok(())
}

#[cfg(test)]
#[test]
fn it_runs() {
    main().expect("both ends agree");
}

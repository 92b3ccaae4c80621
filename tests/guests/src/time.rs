//! The clock and the timers.

use crate::{Result, check};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::pending;
use core::time::Duration;
use runtime::time::{Elapsed, Instant, now, sleep, sleep_until, timeout};

/// What a timer may be late under emulation.
const SLACK: Duration = Duration::from_millis(500);

pub(crate) async fn time() -> Result {
    check!(now().0 > 0);
    check!(now().0 < 10_000_000_000);
    let mut last = now();
    for _ in 0..50_000 {
        let next = now();
        check!(next >= last);
        last = next;
    }
    for milliseconds in [0, 1, 20, 150] {
        let before = now();
        let duration = Duration::from_millis(milliseconds);
        sleep(duration).await;
        let slept = now().since(before);
        check!(slept >= duration);
        check!(slept < duration + SLACK);
    }
    sleep_until(last).await;
    check!(timeout(Duration::from_millis(5), pending::<()>()).await == Err(Elapsed));
    check!(timeout(Duration::from_millis(5), async { 3 }).await == Ok(3));
    // A deadline that never comes keeps the vCPU blocked, not busy.
    let forever = runtime::spawn(sleep_until(Instant(u64::MAX)));
    sleep(Duration::from_millis(20)).await;
    check!(!forever.is_finished());
    forever.cancel();
    order().await
}

/// Sleeps end in the order of their deadlines, also where a later one is set first, and one that is dropped is nothing.
async fn order() -> Result {
    let ended = Rc::new(RefCell::new(Vec::new()));
    for milliseconds in [40, 10, 30, 20] {
        let ended = Rc::clone(&ended);
        runtime::spawn(async move {
            sleep(Duration::from_millis(milliseconds)).await;
            ended.borrow_mut().push(milliseconds);
        });
    }
    let dropped = runtime::spawn(sleep(Duration::from_millis(15)));
    sleep(Duration::from_millis(5)).await;
    dropped.cancel();
    sleep(Duration::from_millis(60)).await;
    check!(*ended.borrow() == [10, 20, 30, 40]);
    Ok(())
}

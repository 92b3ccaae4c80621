//! The console: its log costs little and loses no time; what is typed arrives.

use crate::{Result, check};

/// A line of log costs little, however many there are.
pub(crate) fn console() -> Result {
    let before = runtime::time::now();
    for line in 0..200 {
        log::info!("flood {line}");
        log::trace!("not shown");
    }
    let each = runtime::time::now().since(before) / 200;
    check!(each.as_millis() < 50);
    let long = "x".repeat(20_000);
    let dropped = runtime::console::dropped_lines();
    runtime::console::write(&long);
    check!(runtime::console::dropped_lines() == dropped + 1);
    Ok(())
}

/// A log faster than the console daemon takes it: lines are dropped, time is not lost. For a domain made by `xl`, which has a ring.
pub(crate) async fn flood() -> Result {
    let before = runtime::time::now();
    let mut longest = core::time::Duration::ZERO;
    for line in 0..5000 {
        let start = runtime::time::now();
        log::info!("flood {line} {:>80}", "text");
        longest = longest.max(runtime::time::now().since(start));
    }
    let total = runtime::time::now().since(before);
    let dropped = runtime::console::dropped_lines();
    runtime::time::sleep(core::time::Duration::from_secs(2)).await;
    log::info!("5000 lines in {total:?}, the longest {longest:?}, {dropped} dropped");
    check!(total.as_millis() < 5000);
    check!(dropped > 0);
    check!(runtime::console::dropped_lines() == dropped);
    Ok(())
}

/// Shows what is typed, until it is `end`.
pub(crate) async fn typed() -> Result {
    log::info!("type lines");
    loop {
        let line = runtime::console::next_line().await;
        log::info!("typed: {line}");
        if line == "end" {
            return Ok(());
        }
    }
}

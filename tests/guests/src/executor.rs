//! The executor is fair, and forgets what is done.

use crate::{Result, check, value};
use alloc::rc::Rc;
use core::cell::Cell;
use core::time::Duration;
use runtime::events;
use runtime::time::{now, sleep};
use xen_pv_sys::DomainId;

pub(crate) async fn executor() -> Result {
    fairness().await?;
    cancellation().await?;
    let count = Rc::new(Cell::new(0));
    for _ in 0..2000 {
        let count = Rc::clone(&count);
        runtime::spawn(async move {
            runtime::yield_now().await;
            count.set(count.get() + 1);
        });
    }
    while count.get() < 2000 {
        runtime::yield_now().await;
    }
    check!(Rc::strong_count(&count) == 1);
    Ok(())
}

/// Tasks that are always ready take turns, and starve neither timers nor events.
async fn fairness() -> Result {
    let turns = Rc::new([const { Cell::new(0_u64) }; 3]);
    let mut tasks = alloc::vec::Vec::new();
    for index in 0..turns.len() {
        let turns = Rc::clone(&turns);
        tasks.push(runtime::spawn(async move {
            loop {
                if let Some(count) = turns.get(index) {
                    count.set(count.get() + 1);
                }
                runtime::yield_now().await;
            }
        }));
    }
    let one = value!(events::alloc_unbound(DomainId::SELF));
    let other = value!(events::bind_interdomain(DomainId::SELF, one.port()));
    let before = now();
    sleep(Duration::from_millis(30)).await;
    check!(now().since(before) < Duration::from_secs(1));
    other.notify();
    one.wait().await;
    let counts = [turns[0].get(), turns[1].get(), turns[2].get()];
    log::info!("turns {counts:?}");
    check!(counts[0] > 100);
    check!(counts.iter().max().zip(counts.iter().min()).is_some_and(|(max, min)| max - min <= 1));
    for task in tasks {
        task.cancel();
        check!(task.is_finished());
    }
    check!(Rc::strong_count(&turns) == 1);
    Ok(())
}

/// A cancelled task drops what it holds; a task that took its place is not touched by the old handle.
async fn cancellation() -> Result {
    let held = Rc::new(());
    let guard = Rc::clone(&held);
    let first = runtime::spawn(async move {
        let _guard = guard;
        core::future::pending::<()>().await;
    });
    runtime::yield_now().await;
    check!(Rc::strong_count(&held) == 2 && !first.is_finished());
    first.cancel();
    check!(Rc::strong_count(&held) == 1 && first.is_finished());
    let second = runtime::spawn(core::future::pending());
    first.cancel();
    check!(!second.is_finished());
    second.cancel();
    Ok(())
}

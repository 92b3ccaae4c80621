//! The watchdog: a hang ends in a new life, and nothing else does.

use crate::{Result, check, value};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use runtime::memory::{Pages, usage};
use runtime::restart::{self, Cause, Policy, Recovered};
use runtime::time::{now, sleep};
use runtime::watchdog;
use split_driver::memory::PageArray;
use split_driver::time::Instant;
use xen_pv_sys::PAGE_SIZE;

/// Hangs of the test `hang`, one in each of its first lives.
const HANGS: u64 = 3;

/// When the test `hang` began to hang.
static HUNG: AtomicU64 = AtomicU64::new(0);

/// Never returns, with upcalls masked as they always are.
#[inline(never)]
fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Works for so long without a turn of the executor.
fn work(duration: Duration, mut step: impl FnMut()) {
    let end = now() + duration;
    while now() < end {
        step();
    }
}

/// A domain that waits, one that works, and one that says that it works are left alone; each hang ends in a new life within two seconds.
pub(crate) async fn hang() -> Result {
    check!(watchdog::is_there());
    let recovered = restart::recovered();
    let life = recovered.as_ref().map_or(0, Recovered::lives);
    value!(restart::keep(1, 1, Policy { in_a_row: 1, settled_after: Duration::ZERO }, |out| {
        out.write(&HUNG.load(Ordering::Relaxed).to_le_bytes())
    }));
    if let Some(recovered) = recovered {
        resume(recovered)?;
    }
    check!(life <= HANGS);
    if life == HANGS {
        return Ok(());
    }
    write_all_memory()?;
    sleep(Duration::from_secs(3)).await;
    let end = now() + Duration::from_secs(3);
    while now() < end {
        runtime::yield_now().await;
    }
    work(Duration::from_secs(3), watchdog::beat);
    runtime::yield_now().await;
    work(Duration::from_millis(700), core::hint::spin_loop);
    runtime::yield_now().await;
    many_tasks().await;
    check!(restart::lives() == life);
    log::info!("life {life} hangs");
    HUNG.store(now().0, Ordering::Relaxed);
    spin();
}

/// Whatever is free: neither the watchdog's code nor its data is.
fn write_all_memory() -> Result {
    let pages = value!(Pages::new(usage().free_frames - 64));
    for index in 0..pages.len() {
        check!(pages.write(index, 0, &[0xa5; PAGE_SIZE]));
    }
    Ok(())
}

/// A turn of the executor in which many tasks take one step each.
async fn many_tasks() {
    let tasks: Vec<_> =
        (0..10).map(|_| runtime::spawn(async { work(Duration::from_millis(200), core::hint::spin_loop) })).collect();
    while tasks.iter().any(|task| !task.is_finished()) {
        runtime::yield_now().await;
    }
}

fn resume(mut recovered: Recovered) -> Result {
    let report = recovered.report();
    log::info!("{report}");
    check!(recovered.cause() == Cause::Failure && recovered.is_intact());
    check!(report.starts_with("watchdog: no turn of the executor within 1 s of CPU time"));
    let place = report.lines().find_map(|line| line.trim().strip_prefix("in 0x"));
    let place = value!(usize::from_str_radix(value!(place.ok_or("no place")), 16));
    let begin = spin as *const () as usize;
    check!((begin..begin + 64).contains(&place));
    let hung = Instant(u64::from_le_bytes(value!(recovered.bytes().try_into())));
    let (pause, _) = recovered.taken_over();
    let whole = now().since(hung);
    log::info!("the hang was over after {whole:?}, {pause:?} of which for the new life");
    check!(whole < Duration::from_secs(2));
    Ok(())
}

/// A life that fails and hangs while it ends: the NMI comes through.
pub(crate) fn after_failure() -> Result {
    value!(restart::keep(1, 1, Policy::default(), |_| spin()));
    panic!("as the test asks");
}

/// A life that hangs, and hangs again while it ends.
pub(crate) fn after_hang() -> Result {
    value!(restart::keep(1, 1, Policy::default(), |_| spin()));
    log::info!("hangs");
    spin();
}

//! The monotonic clock of the PV time page, and Xen's timer. Floor 2.
//!
//! Unsafe because it sets Xen's timer by hypercall.

use crate::events::{self, Channel, TimePage};
use crate::hypercall::{self, number};
use crate::local::Local;
use crate::time_stamp::time_stamp;
use core::cell::{Cell, OnceCell};
use core::sync::atomic::{Ordering, fence};
use split_driver::time::{Duration, Instant};
use xen_pv_sys::vcpu::{
    RunstateInfo, SetSingleshotTimer, VCPUOP_GET_RUNSTATE_INFO, VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER,
};
use xen_pv_sys::xen::VIRQ_TIMER;

mod scale;

use scale::{Reckoning, Snapshot};

static RECKONING: Local<Cell<Reckoning>> = Local::new(Cell::new(Reckoning::starting_at(0)));
/// What the timer is set to.
static ARMED: Local<Cell<Option<Instant>>> = Local::new(Cell::new(None));
static CHANNEL: Local<OnceCell<Channel>> = Local::new(OnceCell::new());

/// A consistent copy of the time page, and a time stamp that goes with it: the version is even and the same before and after both. Where the
/// counter is the CPU's own (`tsc_mode="native"`), and the host's CPUs do not count alike, a time stamp from after a move to another CPU would
/// not go with the page from before it.
fn consistent(page: &TimePage, mut time_stamp: impl FnMut() -> u64) -> (Snapshot, u64) {
    loop {
        let version = page.version.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let snapshot = Snapshot {
            time_stamp: page.time_stamp.load(Ordering::Relaxed),
            system_time: page.system_time.load(Ordering::Relaxed),
            multiplier: page.multiplier.load(Ordering::Relaxed),
            shift: page.shift.load(Ordering::Relaxed).cast_signed(),
        };
        let now = time_stamp();
        fence(Ordering::Acquire);
        if version & 1 == 0 && page.version.load(Ordering::Relaxed) == version {
            return (snapshot, now);
        }
        core::hint::spin_loop();
    }
}

/// What the time page of this vCPU says now.
fn snapshot() -> Snapshot {
    consistent(&events::shared().time, || 0).0
}

/// Xen's system time, in nanoseconds.
fn system_time() -> u64 {
    let (snapshot, now) = consistent(&events::shared().time, time_stamp);
    snapshot.system_time_at(now)
}

/// Sets the clock's zero, and takes the timer.
pub(crate) fn initialize(first_time_stamp: u64) {
    // Xen fills the page when it gives the vCPU a CPU, or at its next correction, within a second: what is there before is no time.
    while snapshot().multiplier == 0 {
        hypercall::yield_cpu();
    }
    RECKONING.set(Reckoning::starting_at(snapshot().system_time_at(first_time_stamp)));
    // SAFETY: takes no argument.
    unsafe {
        hypercall::call4::<{ number::VCPU_OP }>(VCPUOP_STOP_PERIODIC_TIMER, 0, 0, 0);
    }
    match events::bind_virq(VIRQ_TIMER) {
        Ok(channel) => {
            let _ = CHANNEL.set(channel);
        }
        Err(error) => panic!("cannot bind the timer: {error}"),
    }
}

/// The time since the domain's first instruction.
pub fn now() -> Instant {
    let mut reckoning = RECKONING.get();
    let (time, stepped) = reckoning.read(system_time());
    RECKONING.set(reckoning);
    if stepped {
        // The timer was set by the other reckoning.
        ARMED.set(None);
    }
    Instant(time)
}

/// So many cycles of the time stamp counter in nanoseconds, by the rate that the time page gives now.
pub(crate) fn nanoseconds(cycles: u64) -> u64 {
    snapshot().nanoseconds(cycles)
}

/// How long the domain's vCPU has run since Xen made it, without the time in which others had the CPU (`RUNSTATE_running`).
pub fn running() -> Duration {
    let mut info = RunstateInfo::default();
    // SAFETY: vCPU 0 and the operation's struct, which Xen fills.
    unsafe {
        hypercall::call4::<{ number::VCPU_OP }>(VCPUOP_GET_RUNSTATE_INFO, 0, (&raw mut info) as u64, 0);
    }
    let [running, ..] = info.time;
    Duration::from_nanos(running)
}

/// Sets Xen's timer for the executor's earliest deadline. One that has passed fires at once.
///
/// A timer that is set to an earlier time stays so: it fires once for nothing, which costs less than to set it anew for each deadline that
/// comes and goes, as one does with each command of a disk.
pub(crate) fn arm(deadline: Option<Instant>) {
    if let Some(channel) = CHANNEL.get()
        && channel.is_masked()
    {
        // It fired.
        ARMED.set(None);
        channel.unmask();
    }
    let Some(deadline) = deadline else {
        return;
    };
    if ARMED.get().is_some_and(|armed| armed <= deadline) {
        return;
    }
    ARMED.set(Some(deadline));
    let mut argument =
        SetSingleshotTimer { timeout_abs_ns: RECKONING.get().system_time(deadline.0), flags: 0, padding: 0 };
    // SAFETY: vCPU 0 and the operation's struct.
    unsafe {
        hypercall::call4::<{ number::VCPU_OP }>(VCPUOP_SET_SINGLESHOT_TIMER, 0, (&raw mut argument) as u64, 0);
    }
}

/// Forgets what the timer was set to, once that time has passed.
pub(crate) fn expired(now: Instant) {
    if ARMED.get().is_some_and(|armed| armed <= now) {
        ARMED.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, AtomicU64};

    #[test]
    fn a_time_stamp_of_another_cpu_is_not_reckoned_by_the_old_ones_page() {
        let page = TimePage::default();
        page.version.store(2, Ordering::Relaxed);
        page.time_stamp.store(1_000, Ordering::Relaxed);
        let asked = AtomicU32::new(0);
        let counter = AtomicU64::new(1_500);
        let (snapshot, now) = consistent(&page, || {
            // Xen moves the vCPU just before the first look at the counter: the other CPU's is a million ahead.
            if asked.fetch_add(1, Ordering::Relaxed) == 0 {
                page.version.store(4, Ordering::Relaxed);
                page.time_stamp.store(1_001_000, Ordering::Relaxed);
                counter.store(1_001_500, Ordering::Relaxed);
            }
            counter.load(Ordering::Relaxed)
        });
        assert_eq!(now.wrapping_sub(snapshot.time_stamp), 500);
    }
}

//! Counters of what the domain asks of Xen and of its devices: hypercalls, events, grant copies, register accesses. Safe code only. Floor 2.
//!
//! A count is an increment of a cell whose place is known when the code is compiled, so all are always kept. The time in register accesses
//! takes two readings of the time stamp counter an access, each a trap where Xen emulates the counter: it is measured only where
//! [`time_register_accesses`] asked for it.

use crate::local::Local;
use crate::time_stamp::time_stamp;
use core::cell::Cell;
use xen_pv_sys::xen::hypercall as number;

/// The hypercalls that a domain makes, with their names in `xen.h` (`__HYPERVISOR_*`).
const HYPERCALLS: [(u64, &str); 13] = [
    (number::CALLBACK_OP, "callback_op"),
    (number::CONSOLE_IO, "console_io"),
    (number::DOMCTL, "domctl"),
    (number::EVENT_CHANNEL_OP, "event_channel_op"),
    (number::GRANT_TABLE_OP, "grant_table_op"),
    (number::MEMORY_OP, "memory_op"),
    (number::MMUEXT_OP, "mmuext_op"),
    (number::MMU_UPDATE, "mmu_update"),
    (number::PHYSDEV_OP, "physdev_op"),
    (number::SCHED_OP, "sched_op"),
    (number::SET_TRAP_TABLE, "set_trap_table"),
    (number::UPDATE_VA_MAPPING, "update_va_mapping"),
    (number::VCPU_OP, "vcpu_op"),
];

/// What else is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// `EVTCHNOP_send`.
    Notifications,
    /// `GNTTABOP_copy`.
    CopyCalls,
    /// Their elements.
    CopyEntries,
    /// `SCHEDOP_block`: each ends in a wake-up.
    Blocks,
    RegisterReads,
    RegisterWrites,
}

/// Their names, in the order of the counts.
const NAMES: [&str; 6] = ["notifications", "copy-calls", "copy-entries", "blocks", "register-reads", "register-writes"];

static CALLS: Local<[Cell<u64>; HYPERCALLS.len()]> = Local::new([const { Cell::new(0) }; HYPERCALLS.len()]);
static OTHERS: Local<[Cell<u64>; NAMES.len()]> = Local::new([const { Cell::new(0) }; NAMES.len()]);

/// Time stamps between the beginnings and the ends of register accesses; none where nobody asked for them.
static REGISTER_CYCLES: Local<Cell<Option<u64>>> = Local::new(Cell::new(None));

/// Where a hypercall is counted. A number without a name is an error of the build.
const fn place(number: u64) -> usize {
    let mut place = 0;
    while HYPERCALLS[place].0 != number {
        place += 1;
    }
    place
}

fn increase(cell: &Cell<u64>, by: u64) {
    cell.set(cell.get().wrapping_add(by));
}

/// Counts a hypercall.
#[inline]
pub(crate) fn hypercall<const NUMBER: u64>() {
    if let Some(cell) = CALLS.get(const { place(NUMBER) }) {
        increase(cell, 1);
    }
}

/// Counts something else.
#[inline]
pub(crate) fn add(count: Count, by: usize) {
    if let Some(cell) = OTHERS.get(count as usize) {
        increase(cell, by as u64);
    }
}

/// Has the time in register accesses measured from now on.
pub(crate) fn time_register_accesses() {
    REGISTER_CYCLES.set(Some(REGISTER_CYCLES.get().unwrap_or(0)));
}

/// Makes a register access, counts it, and measures its time where that is asked for. A write is over when the CPU goes on: on hardware the
/// device may get it later; an emulated device does then all that it does upon it.
#[inline]
pub(crate) fn register_access<T>(count: Count, access: impl FnOnce() -> T) -> T {
    add(count, 1);
    let Some(cycles) = REGISTER_CYCLES.get() else {
        return access();
    };
    let begin = time_stamp();
    let result = access();
    REGISTER_CYCLES.set(Some(cycles.wrapping_add(time_stamp().wrapping_sub(begin))));
    result
}

/// The cycles of the time stamp counter that passed in register accesses; none where they are not measured.
pub(crate) fn register_cycles() -> Option<u64> {
    REGISTER_CYCLES.get()
}

/// All counts by name, the sum of all hypercalls first, then those hypercalls that were made, then the others.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, u64)> {
    let sum = CALLS.iter().map(Cell::get).fold(0, u64::wrapping_add);
    let calls = HYPERCALLS.iter().zip(CALLS.iter()).map(|((_, name), cell)| (*name, cell.get()));
    let others = NAMES.iter().copied().zip(OTHERS.iter().map(Cell::get));
    [("hypercalls", sum)].into_iter().chain(calls.filter(|(_, count)| *count != 0)).chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// The one test that touches the globals.
    #[test]
    fn what_is_counted_is_said_by_its_name() {
        hypercall::<{ number::SCHED_OP }>();
        hypercall::<{ number::GRANT_TABLE_OP }>();
        hypercall::<{ number::GRANT_TABLE_OP }>();
        add(Count::Notifications, 1);
        add(Count::CopyCalls, 2);
        add(Count::CopyEntries, 300);
        add(Count::Blocks, 3);
        assert_eq!((register_access(Count::RegisterReads, || 7), register_cycles()), (7, None));
        time_register_accesses();
        register_access(Count::RegisterWrites, core::hint::spin_loop);
        let measured = register_cycles();
        assert!(measured.is_some_and(|cycles| cycles > 0), "{measured:?}");
        // Asked for again, it goes on from there.
        time_register_accesses();
        assert_eq!(register_cycles(), measured);
        let expected = [
            ("hypercalls", 3),
            ("grant_table_op", 2),
            ("sched_op", 1),
            ("notifications", 1),
            ("copy-calls", 2),
            ("copy-entries", 300),
            ("blocks", 3),
            ("register-reads", 1),
            ("register-writes", 1),
        ];
        assert_eq!(all().collect::<Vec<_>>(), expected);
    }
}

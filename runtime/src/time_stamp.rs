//! The CPU's time stamp counter. Floor 2.
//!
//! Unsafe because it is read by an instruction that has no safe name.

/// The counter in cycles, read after the loads before it (Intel SDM, RDTSC: an LFENCE keeps the order). Xen emulates it for a PV domain unless the
/// domain has `tsc_mode="native"` or the host's counter can be trusted: then each reading is a trap.
#[inline]
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: reads a counter; neither instruction touches memory.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

//! Hypercalls through the page that Xen fills in. Floor 2.
//!
//! Unsafe because a hypercall reads and writes whatever memory its arguments point to, and can take memory away.

use crate::counts;
use core::arch::asm;
use split_driver::hypervisor::XenError;
use xen_pv_sys::sched::SCHEDOP_YIELD;

pub(crate) use xen_pv_sys::xen::hypercall as number;

/// Calls the hypercall `NUMBER`, and counts it, with up to four arguments (none here takes five).
///
/// # Safety
/// The arguments are what that hypercall asks for; pointers among them are valid for what it reads and writes.
#[inline]
pub(crate) unsafe fn call4<const NUMBER: u64>(a: u64, b: u64, c: u64, d: u64) -> isize {
    #[cfg(feature = "faults")]
    crate::faults::reach();
    counts::hypercall::<NUMBER>();
    let result: isize;
    // SAFETY: by the caller. Each entry of the page is 32 bytes, and leaves all registers but these (a debug build of Xen destroys
    // the arguments too).
    unsafe {
        asm!(
            "call oxidom_hypercall_page + {number} * 32",
            number = const NUMBER,
            inlateout("rdi") a => _,
            inlateout("rsi") b => _,
            inlateout("rdx") c => _,
            inlateout("r10") d => _,
            lateout("rax") result,
            out("rcx") _,
            out("r11") _,
            out("r8") _,
            out("r9") _,
        );
    }
    result
}

/// [`call4`] with two arguments: most hypercalls are an operation and a pointer to its arguments.
///
/// # Safety
/// As [`call4`].
#[inline]
pub(crate) unsafe fn call2<const NUMBER: u64>(a: u64, b: u64) -> isize {
    // SAFETY: by the caller.
    unsafe { call4::<NUMBER>(a, b, 0, 0) }
}

/// An operation with a pointer to its arguments, which may be written to.
///
/// # Safety
/// `T` is the C struct that this operation of this hypercall takes, and what it asks Xen to do breaks no rule of Rust.
#[inline]
pub(crate) unsafe fn operation<const NUMBER: u64, T>(operation: u64, argument: &mut T) -> Result<isize, XenError> {
    // SAFETY: by the caller.
    check(unsafe { call2::<NUMBER>(operation, core::ptr::from_mut(argument) as u64) })
}

/// A negative result as an error.
pub(crate) fn check(result: isize) -> Result<isize, XenError> {
    if result < 0 { Err(XenError::Errno(u16::try_from(result.unsigned_abs()).unwrap_or(u16::MAX))) } else { Ok(result) }
}

/// Gives the physical CPU to another vCPU for now (`SCHEDOP_yield`).
pub fn yield_cpu() {
    // SAFETY: takes no argument and touches no memory.
    unsafe { call2::<{ number::SCHED_OP }>(SCHEDOP_YIELD, 0) };
}

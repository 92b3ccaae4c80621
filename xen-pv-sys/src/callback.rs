//! `callback.h`: where Xen enters the guest. Floor 0: no behaviour.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `CALLBACKOP_register`, with [`Register`].
pub const CALLBACKOP_REGISTER: u64 = 0;
/// `CALLBACKOP_unregister`.
pub const CALLBACKOP_UNREGISTER: u64 = 1;

/// Events (`CALLBACKTYPE_event`).
pub const CALLBACKTYPE_EVENT: u16 = 0;
/// A fault on return to the guest (`CALLBACKTYPE_failsafe`).
pub const CALLBACKTYPE_FAILSAFE: u16 = 1;
/// `syscall` from user mode (`CALLBACKTYPE_syscall`).
pub const CALLBACKTYPE_SYSCALL: u16 = 2;
/// `CALLBACKTYPE_nmi`.
pub const CALLBACKTYPE_NMI: u16 = 4;
/// `CALLBACKTYPE_sysenter`.
pub const CALLBACKTYPE_SYSENTER: u16 = 5;
/// `CALLBACKTYPE_syscall32`.
pub const CALLBACKTYPE_SYSCALL32: u16 = 7;

/// [`Register::flags`]: events are masked on entry (`CALLBACKF_mask_events`).
pub const CALLBACKF_MASK_EVENTS: u16 = 1;

/// `struct callback_register`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Register {
    /// `CALLBACKTYPE_*` (`type`).
    pub kind: u16,
    /// [`CALLBACKF_MASK_EVENTS`] or 0.
    pub flags: u16,
    /// Padding of the C struct.
    pub padding: u32,
    /// Where to enter.
    pub address: u64,
}

const _: () = assert!(size_of::<Register>() == 16);

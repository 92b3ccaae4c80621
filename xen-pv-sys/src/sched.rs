//! `sched.h`. Floor 0: no behaviour.

use crate::DomainId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SCHEDOP_yield`.
pub const SCHEDOP_YIELD: u64 = 0;
/// Unmasks events and blocks until one comes (`SCHEDOP_block`).
pub const SCHEDOP_BLOCK: u64 = 1;
/// `SCHEDOP_shutdown`, with [`Shutdown`].
pub const SCHEDOP_SHUTDOWN: u64 = 2;
/// `SCHEDOP_poll`, with [`Poll`].
pub const SCHEDOP_POLL: u64 = 3;
/// `SCHEDOP_remote_shutdown`.
pub const SCHEDOP_REMOTE_SHUTDOWN: u64 = 4;
/// Says why, ahead of the shutdown (`SCHEDOP_shutdown_code`).
pub const SCHEDOP_SHUTDOWN_CODE: u64 = 5;
/// `SCHEDOP_watchdog`, with [`Watchdog`].
pub const SCHEDOP_WATCHDOG: u64 = 6;

/// `SHUTDOWN_poweroff`.
pub const SHUTDOWN_POWEROFF: u32 = 0;
/// `SHUTDOWN_reboot`.
pub const SHUTDOWN_REBOOT: u32 = 1;
/// `SHUTDOWN_suspend`.
pub const SHUTDOWN_SUSPEND: u32 = 2;
/// `SHUTDOWN_crash`.
pub const SHUTDOWN_CRASH: u32 = 3;
/// `SHUTDOWN_watchdog`.
pub const SHUTDOWN_WATCHDOG: u32 = 4;
/// `SHUTDOWN_soft_reset`.
pub const SHUTDOWN_SOFT_RESET: u32 = 5;

/// `struct sched_shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Shutdown {
    /// `SHUTDOWN_*`.
    pub reason: u32,
}

/// `struct sched_poll`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Poll {
    /// The address of an array of ports.
    pub ports: u64,
    /// How many.
    pub nr_ports: u32,
    /// Padding of the C struct.
    pub padding: u32,
    /// System time at which to give up; 0 for never.
    pub timeout: u64,
}

const _: () = assert!(size_of::<Poll>() == 24);

/// `struct sched_remote_shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoteShutdown {
    /// Who.
    pub domain_id: DomainId,
    /// Padding of the C struct.
    pub padding: u16,
    /// `SHUTDOWN_*`.
    pub reason: u32,
}

const _: () = assert!(size_of::<RemoteShutdown>() == 8);

/// `struct sched_watchdog`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Watchdog {
    /// 0 for a new one, whose id the call returns.
    pub id: u32,
    /// Seconds; 0 stops it.
    pub timeout: u32,
}

const _: () = assert!(size_of::<Watchdog>() == 8);

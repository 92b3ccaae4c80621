//! `vcpu.h`. Floor 0: no behaviour.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `VCPUOP_initialise`, with [`crate::arch_x86::VcpuGuestContext`]: once in a domain's life, then `EEXIST`.
pub const VCPUOP_INITIALISE: u64 = 0;
/// `VCPUOP_up`.
pub const VCPUOP_UP: u64 = 1;
/// `VCPUOP_down`.
pub const VCPUOP_DOWN: u64 = 2;
/// `VCPUOP_is_up`.
pub const VCPUOP_IS_UP: u64 = 3;
/// `VCPUOP_get_runstate_info`, with [`RunstateInfo`].
pub const VCPUOP_GET_RUNSTATE_INFO: u64 = 4;
/// `VCPUOP_register_runstate_memory_area`, with [`RegisterMemoryArea`].
pub const VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA: u64 = 5;
/// `VCPUOP_set_periodic_timer`.
pub const VCPUOP_SET_PERIODIC_TIMER: u64 = 6;
/// `VCPUOP_stop_periodic_timer`: a PV vCPU starts with a tick of 10 ms.
pub const VCPUOP_STOP_PERIODIC_TIMER: u64 = 7;
/// `VCPUOP_set_singleshot_timer`, with [`SetSingleshotTimer`].
pub const VCPUOP_SET_SINGLESHOT_TIMER: u64 = 8;
/// `VCPUOP_stop_singleshot_timer`.
pub const VCPUOP_STOP_SINGLESHOT_TIMER: u64 = 9;
/// `VCPUOP_register_vcpu_info`, with [`RegisterVcpuInfo`].
pub const VCPUOP_REGISTER_VCPU_INFO: u64 = 10;
/// `VCPUOP_send_nmi`.
pub const VCPUOP_SEND_NMI: u64 = 11;
/// `VCPUOP_register_vcpu_time_memory_area`, with [`RegisterMemoryArea`].
pub const VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA: u64 = 13;

/// [`SetSingleshotTimer::flags`]: fail with `ETIME` where the time is past (`VCPU_SSHOTTMR_future`).
pub const VCPU_SSHOTTMR_FUTURE: u32 = 1;

/// `RUNSTATE_running`.
pub const RUNSTATE_RUNNING: u32 = 0;
/// `RUNSTATE_runnable`.
pub const RUNSTATE_RUNNABLE: u32 = 1;
/// `RUNSTATE_blocked`.
pub const RUNSTATE_BLOCKED: u32 = 2;
/// `RUNSTATE_offline`.
pub const RUNSTATE_OFFLINE: u32 = 3;

/// `struct vcpu_runstate_info`: how long the vCPU ran and did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RunstateInfo {
    /// `RUNSTATE_*`.
    pub state: u32,
    /// Padding of the C struct.
    pub padding: u32,
    /// System time of the last change, with [`RunstateInfo::UPDATE`] while Xen writes.
    pub state_entry_time: u64,
    /// Nanoseconds in each `RUNSTATE_*`.
    pub time: [u64; 4],
}

const _: () = assert!(size_of::<RunstateInfo>() == 48);

impl RunstateInfo {
    /// `XEN_RUNSTATE_UPDATE`.
    pub const UPDATE: u64 = 1 << 63;
}

/// `struct vcpu_register_runstate_memory_area` and `struct vcpu_register_time_memory_area`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterMemoryArea {
    /// The virtual address that Xen shall write to; 0 for no more.
    pub addr: u64,
}

const _: () = assert!(size_of::<RegisterMemoryArea>() == 8);

/// `struct vcpu_set_singleshot_timer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetSingleshotTimer {
    /// System time at which [`crate::xen::VIRQ_TIMER`] is due.
    pub timeout_abs_ns: u64,
    /// [`VCPU_SSHOTTMR_FUTURE`] or 0.
    pub flags: u32,
    /// Padding of the C struct.
    pub padding: u32,
}

const _: () = assert!(size_of::<SetSingleshotTimer>() == 16);

/// `struct vcpu_register_vcpu_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterVcpuInfo {
    /// The machine frame that holds it.
    pub mfn: u64,
    /// Bytes into the page.
    pub offset: u32,
    /// Zero.
    pub rsvd: u32,
}

const _: () = assert!(size_of::<RegisterVcpuInfo>() == 16);

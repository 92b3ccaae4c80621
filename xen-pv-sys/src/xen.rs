//! `xen.h`: hypercall numbers, virtual interrupts, page-table updates, the page shared with Xen. Floor 0: no behaviour.

use crate::arch_x86::{ArchSharedInfo, ArchVcpuInfo, XEN_LEGACY_MAX_VCPUS};
use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Hypercall numbers (`__HYPERVISOR_*`): the value of `rax`, and of [`MulticallEntry::op`].
pub mod hypercall {
    /// `__HYPERVISOR_set_trap_table`.
    pub const SET_TRAP_TABLE: u64 = 0;
    /// `__HYPERVISOR_mmu_update`.
    pub const MMU_UPDATE: u64 = 1;
    /// `__HYPERVISOR_set_gdt`.
    pub const SET_GDT: u64 = 2;
    /// `__HYPERVISOR_stack_switch`.
    pub const STACK_SWITCH: u64 = 3;
    /// `__HYPERVISOR_set_callbacks`.
    pub const SET_CALLBACKS: u64 = 4;
    /// `__HYPERVISOR_fpu_taskswitch`.
    pub const FPU_TASKSWITCH: u64 = 5;
    /// `__HYPERVISOR_platform_op`.
    pub const PLATFORM_OP: u64 = 7;
    /// `__HYPERVISOR_set_debugreg`.
    pub const SET_DEBUGREG: u64 = 8;
    /// `__HYPERVISOR_get_debugreg`.
    pub const GET_DEBUGREG: u64 = 9;
    /// `__HYPERVISOR_update_descriptor`.
    pub const UPDATE_DESCRIPTOR: u64 = 10;
    /// `__HYPERVISOR_memory_op`.
    pub const MEMORY_OP: u64 = 12;
    /// `__HYPERVISOR_multicall`.
    pub const MULTICALL: u64 = 13;
    /// `__HYPERVISOR_update_va_mapping`.
    pub const UPDATE_VA_MAPPING: u64 = 14;
    /// `__HYPERVISOR_set_timer_op`.
    pub const SET_TIMER_OP: u64 = 15;
    /// `__HYPERVISOR_xen_version`.
    pub const XEN_VERSION: u64 = 17;
    /// `__HYPERVISOR_console_io`.
    pub const CONSOLE_IO: u64 = 18;
    /// `__HYPERVISOR_grant_table_op`.
    pub const GRANT_TABLE_OP: u64 = 20;
    /// `__HYPERVISOR_vm_assist`.
    pub const VM_ASSIST: u64 = 21;
    /// `__HYPERVISOR_update_va_mapping_otherdomain`.
    pub const UPDATE_VA_MAPPING_OTHERDOMAIN: u64 = 22;
    /// `__HYPERVISOR_iret`.
    pub const IRET: u64 = 23;
    /// `__HYPERVISOR_vcpu_op`.
    pub const VCPU_OP: u64 = 24;
    /// `__HYPERVISOR_set_segment_base`.
    pub const SET_SEGMENT_BASE: u64 = 25;
    /// `__HYPERVISOR_mmuext_op`.
    pub const MMUEXT_OP: u64 = 26;
    /// `__HYPERVISOR_xsm_op`.
    pub const XSM_OP: u64 = 27;
    /// `__HYPERVISOR_nmi_op`.
    pub const NMI_OP: u64 = 28;
    /// `__HYPERVISOR_sched_op`.
    pub const SCHED_OP: u64 = 29;
    /// `__HYPERVISOR_callback_op`.
    pub const CALLBACK_OP: u64 = 30;
    /// `__HYPERVISOR_event_channel_op`.
    pub const EVENT_CHANNEL_OP: u64 = 32;
    /// `__HYPERVISOR_physdev_op`.
    pub const PHYSDEV_OP: u64 = 33;
    /// `__HYPERVISOR_hvm_op`.
    pub const HVM_OP: u64 = 34;
    /// `__HYPERVISOR_sysctl`.
    pub const SYSCTL: u64 = 35;
    /// `__HYPERVISOR_domctl`.
    pub const DOMCTL: u64 = 36;
}

/// The timer of the vCPU (`VIRQ_TIMER`).
pub const VIRQ_TIMER: u32 = 0;
/// A request to dump the state, as `xl debug-keys q` makes it (`VIRQ_DEBUG`).
pub const VIRQ_DEBUG: u32 = 1;
/// Input on the emergency console (`VIRQ_CONSOLE`).
pub const VIRQ_CONSOLE: u32 = 2;
/// A domain ended or changed (`VIRQ_DOM_EXC`).
pub const VIRQ_DOM_EXC: u32 = 3;
/// The console ring has space (`VIRQ_CON_RING`).
pub const VIRQ_CON_RING: u32 = 8;
/// First number that an architecture defines (`VIRQ_ARCH_0`).
pub const VIRQ_ARCH_0: u32 = 16;
/// How many there are (`NR_VIRQS`).
pub const NR_VIRQS: u32 = 24;

/// The low two bits of [`MmuUpdate::ptr`]: a page-table entry, checked (`MMU_NORMAL_PT_UPDATE`).
pub const MMU_NORMAL_PT_UPDATE: u64 = 0;
/// An entry of the machine-to-physical table: `ptr` is the frame's machine address, `val` its pfn (`MMU_MACHPHYS_UPDATE`).
pub const MMU_MACHPHYS_UPDATE: u64 = 1;
/// As normal, and keeps the accessed and dirty bits (`MMU_PT_UPDATE_PRESERVE_AD`).
pub const MMU_PT_UPDATE_PRESERVE_AD: u64 = 2;
/// As normal, without translation of the entry for translated guests (`MMU_PT_UPDATE_NO_TRANSLATE`).
pub const MMU_PT_UPDATE_NO_TRANSLATE: u64 = 3;

/// Validates and pins a table of level 1 (`MMUEXT_PIN_L1_TABLE`).
pub const MMUEXT_PIN_L1_TABLE: u32 = 0;
/// Level 2 (`MMUEXT_PIN_L2_TABLE`).
pub const MMUEXT_PIN_L2_TABLE: u32 = 1;
/// Level 3 (`MMUEXT_PIN_L3_TABLE`).
pub const MMUEXT_PIN_L3_TABLE: u32 = 2;
/// Level 4 (`MMUEXT_PIN_L4_TABLE`).
pub const MMUEXT_PIN_L4_TABLE: u32 = 3;
/// Drops the pin (`MMUEXT_UNPIN_TABLE`).
pub const MMUEXT_UNPIN_TABLE: u32 = 4;
/// Loads the kernel's root (`MMUEXT_NEW_BASEPTR`).
pub const MMUEXT_NEW_BASEPTR: u32 = 5;
/// Flushes this vCPU's TLB (`MMUEXT_TLB_FLUSH_LOCAL`).
pub const MMUEXT_TLB_FLUSH_LOCAL: u32 = 6;
/// Flushes one page from this vCPU's TLB (`MMUEXT_INVLPG_LOCAL`).
pub const MMUEXT_INVLPG_LOCAL: u32 = 7;
/// `MMUEXT_TLB_FLUSH_MULTI`.
pub const MMUEXT_TLB_FLUSH_MULTI: u32 = 8;
/// `MMUEXT_INVLPG_MULTI`.
pub const MMUEXT_INVLPG_MULTI: u32 = 9;
/// `MMUEXT_TLB_FLUSH_ALL`.
pub const MMUEXT_TLB_FLUSH_ALL: u32 = 10;
/// `MMUEXT_INVLPG_ALL`.
pub const MMUEXT_INVLPG_ALL: u32 = 11;
/// `MMUEXT_FLUSH_CACHE`.
pub const MMUEXT_FLUSH_CACHE: u32 = 12;
/// `MMUEXT_SET_LDT`.
pub const MMUEXT_SET_LDT: u32 = 13;
/// Loads the root for user mode (`MMUEXT_NEW_USER_BASEPTR`).
pub const MMUEXT_NEW_USER_BASEPTR: u32 = 15;
/// Zeroes a page of another domain or one's own (`MMUEXT_CLEAR_PAGE`).
pub const MMUEXT_CLEAR_PAGE: u32 = 16;
/// Copies a page (`MMUEXT_COPY_PAGE`).
pub const MMUEXT_COPY_PAGE: u32 = 17;

bitflags! {
    /// The flags of `update_va_mapping` (`UVMF_*`). An address of a vCPU bitmap, where one is used, is or-ed in.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct UpdateVaMappingFlags: u64 {
        /// Flush the whole TLB (`UVMF_TLB_FLUSH`).
        const TLB_FLUSH = 1;
        /// Flush the one page (`UVMF_INVLPG`).
        const INVLPG = 2;
        /// On all vCPUs, not this one only (`UVMF_ALL`).
        const ALL = 1 << 2;
    }
}

/// `console_io`: write to Xen's own console (`CONSOLEIO_write`). Debug builds of Xen and dom0 only.
pub const CONSOLEIO_WRITE: u64 = 0;
/// `console_io`: read (`CONSOLEIO_read`).
pub const CONSOLEIO_READ: u64 = 1;

/// `vm_assist`: on (`VMASST_CMD_enable`).
pub const VMASST_CMD_ENABLE: u64 = 0;
/// `vm_assist`: off (`VMASST_CMD_disable`).
pub const VMASST_CMD_DISABLE: u64 = 1;
/// Trap and emulate writes to page tables (`VMASST_TYPE_writable_pagetables`).
pub const VMASST_TYPE_WRITABLE_PAGETABLES: u64 = 2;
/// `VMASST_TYPE_architectural_iopl`.
pub const VMASST_TYPE_ARCHITECTURAL_IOPL: u64 = 4;
/// `VMASST_TYPE_runstate_update_flag`.
pub const VMASST_TYPE_RUNSTATE_UPDATE_FLAG: u64 = 5;
/// Do not map the machine-to-physical table into user mode (`VMASST_TYPE_m2p_strict`).
pub const VMASST_TYPE_M2P_STRICT: u64 = 32;

/// An element of `mmuext_op` (`struct mmuext_op`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MmuExtOp {
    /// `MMUEXT_*`.
    pub cmd: u32,
    /// Padding of the C struct.
    pub padding: u32,
    /// A machine frame, or a linear address (`arg1.mfn`, `arg1.linear_addr`).
    pub arg1: u64,
    /// A count of entries, the address of a vCPU bitmap, or a source frame (`arg2.nr_ents`, `arg2.vcpumask`, `arg2.src_mfn`).
    pub arg2: u64,
}

const _: () = assert!(size_of::<MmuExtOp>() == 24);

/// An element of `mmu_update` (`struct mmu_update`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MmuUpdate {
    /// The machine address of the entry, with `MMU_*` in the low two bits.
    pub ptr: u64,
    /// The new content.
    pub val: u64,
}

const _: () = assert!(size_of::<MmuUpdate>() == 16);

/// One call of a `multicall` (`struct multicall_entry`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MulticallEntry {
    /// A number of [`hypercall`].
    pub op: u64,
    /// Out: what the call returned, a signed number.
    pub result: u64,
    /// The arguments.
    pub args: [u64; 6],
}

const _: () = assert!(size_of::<MulticallEntry>() == 64);

/// The clock of a vCPU, which Xen updates (`struct vcpu_time_info`). Read it again while `version` is odd or changed meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuTimeInfo {
    /// Odd while Xen writes.
    pub version: u32,
    /// Padding.
    pub pad0: u32,
    /// The TSC at which [`Self::system_time`] was right.
    pub tsc_timestamp: u64,
    /// Nanoseconds since the host booted.
    pub system_time: u64,
    /// Nanoseconds per (shifted) tick, times 2^32.
    pub tsc_to_system_mul: u32,
    /// Shift of the tick delta before the multiplication; to the right where negative.
    pub tsc_shift: i8,
    /// [`TimeFlags`].
    pub flags: u8,
    /// Padding.
    pub pad1: [u8; 2],
}

const _: () = assert!(size_of::<VcpuTimeInfo>() == 32);

bitflags! {
    /// [`VcpuTimeInfo::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TimeFlags: u8 {
        /// All vCPUs' clocks agree (`XEN_PVCLOCK_TSC_STABLE_BIT`).
        const TSC_STABLE = 1 << 0;
        /// The guest was stopped since it last cleared the bit (`XEN_PVCLOCK_GUEST_STOPPED`).
        const GUEST_STOPPED = 1 << 1;
    }
}

/// What Xen and a vCPU share (`struct vcpu_info`). Both write it: access by atomics at these offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuInfo {
    /// Not 0: an event waits.
    pub evtchn_upcall_pending: u8,
    /// Not 0: no upcall comes.
    pub evtchn_upcall_mask: u8,
    /// Padding of the C struct.
    pub padding: [u8; 6],
    /// Which words of [`SharedInfo::evtchn_pending`] have bits set.
    pub evtchn_pending_sel: u64,
    /// The architecture's part.
    pub arch: ArchVcpuInfo,
    /// The clock.
    pub time: VcpuTimeInfo,
}

const _: () = assert!(size_of::<VcpuInfo>() == 64);

/// The page that Xen and the domain share (`struct shared_info`). Both write it: access by atomics at these offsets.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SharedInfo {
    /// One for each of the first vCPUs.
    pub vcpu_info: [VcpuInfo; XEN_LEGACY_MAX_VCPUS],
    /// A bit for each event channel: pending.
    pub evtchn_pending: [u64; 64],
    /// A bit for each event channel: masked.
    pub evtchn_mask: [u64; 64],
    /// Odd while Xen writes the wall clock.
    pub wc_version: u32,
    /// Seconds since 1970 at system time 0, low word.
    pub wc_sec: u32,
    /// Nanoseconds.
    pub wc_nsec: u32,
    /// High word of the seconds.
    pub wc_sec_hi: u32,
    /// The architecture's part.
    pub arch: ArchSharedInfo,
}

const _: () = assert!(size_of::<SharedInfo>() <= crate::PAGE_SIZE);

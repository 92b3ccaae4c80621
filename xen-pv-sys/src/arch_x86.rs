//! `arch-x86/xen.h` and `arch-x86/xen-x86_64.h`: what is particular to a 64-bit PV guest. Floor 0: no behaviour.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The flat 64-bit code segment of both rings of a PV guest (`FLAT_RING3_CS64`).
pub const FLAT_RING3_CS64: u16 = 0xe033;
/// The flat 32-bit code segment (`FLAT_RING3_CS32`).
pub const FLAT_RING3_CS32: u16 = 0xe023;
/// The data segment of 64-bit code: the null selector (`FLAT_RING3_DS64`).
pub const FLAT_RING3_DS64: u16 = 0;
/// The flat 32-bit data segment (`FLAT_RING3_DS32`).
pub const FLAT_RING3_DS32: u16 = 0xe02b;
/// The stack segment of 64-bit code (`FLAT_RING3_SS64`).
pub const FLAT_RING3_SS64: u16 = 0xe02b;
/// The kernel's code segment (`FLAT_KERNEL_CS`): what `trap_info.cs` names.
pub const FLAT_KERNEL_CS: u16 = FLAT_RING3_CS64;
/// The kernel's data segment (`FLAT_KERNEL_DS`).
pub const FLAT_KERNEL_DS: u16 = FLAT_RING3_DS64;
/// The kernel's stack segment (`FLAT_KERNEL_SS`): what `stack_switch` takes.
pub const FLAT_KERNEL_SS: u16 = FLAT_RING3_SS64;

/// First address that belongs to Xen (`HYPERVISOR_VIRT_START`).
pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// First address above Xen's (`HYPERVISOR_VIRT_END`): from here on the guest may map.
pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;
/// Where Xen maps the machine-to-physical table, read-only (`MACH2PHYS_VIRT_START`).
pub const MACH2PHYS_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// Its end (`MACH2PHYS_VIRT_END`).
pub const MACH2PHYS_VIRT_END: u64 = 0xffff_8040_0000_0000;
/// How many entries it may have (`MACH2PHYS_NR_ENTRIES`).
pub const MACH2PHYS_NR_ENTRIES: u64 = (MACH2PHYS_VIRT_END - MACH2PHYS_VIRT_START) >> 3;

/// `set_segment_base`: FS (`SEGBASE_FS`).
pub const SEGBASE_FS: u64 = 0;
/// `set_segment_base`: the user's GS (`SEGBASE_GS_USER`).
pub const SEGBASE_GS_USER: u64 = 1;
/// `set_segment_base`: the kernel's GS (`SEGBASE_GS_KERNEL`).
pub const SEGBASE_GS_KERNEL: u64 = 2;
/// `set_segment_base`: load a selector into the user's GS (`SEGBASE_GS_USER_SEL`).
pub const SEGBASE_GS_USER_SEL: u64 = 3;

/// First page of the descriptor table that belongs to Xen (`FIRST_RESERVED_GDT_PAGE`).
pub const FIRST_RESERVED_GDT_PAGE: u64 = 14;
/// First descriptor that belongs to Xen (`FIRST_RESERVED_GDT_ENTRY`).
pub const FIRST_RESERVED_GDT_ENTRY: u64 = FIRST_RESERVED_GDT_PAGE * 4096 / 8;
/// How many `vcpu_info` the shared page has room for (`XEN_LEGACY_MAX_VCPUS`).
pub const XEN_LEGACY_MAX_VCPUS: usize = 32;

/// The frame's code came by `syscall`: `iret` may use `sysret` (`VGCF_in_syscall`), in [`IretContext::flags`].
pub const VGCF_IN_SYSCALL: u64 = 1 << 8;

bitflags! {
    /// `vcpu_guest_context.flags`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VcpuContextFlags: u64 {
        /// `VGCF_i387_valid`.
        const I387_VALID = 1 << 0;
        /// `VGCF_in_kernel`.
        const IN_KERNEL = 1 << 2;
        /// `VGCF_failsafe_disables_events`.
        const FAILSAFE_DISABLES_EVENTS = 1 << 3;
        /// `VGCF_syscall_disables_events`.
        const SYSCALL_DISABLES_EVENTS = 1 << 4;
        /// `VGCF_online`.
        const ONLINE = 1 << 5;
    }
}

/// One gate of the virtual interrupt table (`struct trap_info`). The list that `set_trap_table` takes ends with an address of 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TrapInfo {
    /// The exception's vector.
    pub vector: u8,
    /// Bits 0-1: privilege level that may raise it by software; bit 2 ([`TrapInfo::CLEAR_EVENTS`]): mask events on entry.
    pub flags: u8,
    /// Code selector, [`FLAT_KERNEL_CS`].
    pub cs: u16,
    /// Padding of the C struct.
    pub padding: u32,
    /// The handler.
    pub address: u64,
}

const _: () = assert!(size_of::<TrapInfo>() == 16);

impl TrapInfo {
    /// `TI_SET_IF`: mask event delivery on entry.
    pub const CLEAR_EVENTS: u8 = 1 << 2;
}

/// The frame that the `iret` hypercall pops (`struct iret_context`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct IretContext {
    pub rax: u64,
    pub r11: u64,
    pub rcx: u64,
    /// [`VGCF_IN_SYSCALL`] or 0.
    pub flags: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<IretContext>() == 72);

/// A vCPU's registers (`struct cpu_user_regs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct CpuUserRegs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub error_code: u32,
    pub entry_vector: u32,
    pub rip: u64,
    pub cs: u16,
    pub padding0: u16,
    pub saved_upcall_mask: u8,
    pub padding1: [u8; 3],
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u16,
    pub padding2: [u16; 3],
    pub es: u16,
    pub padding3: [u16; 3],
    pub ds: u16,
    pub padding4: [u16; 3],
    pub fs: u16,
    pub padding5: [u16; 3],
    pub gs: u16,
    pub padding6: [u16; 3],
}

const _: () = assert!(size_of::<CpuUserRegs>() == 200);

/// A vCPU as `VCPUOP_initialise` makes it (`struct vcpu_guest_context`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuGuestContext {
    /// An image of `FXSAVE`, where `flags` say that it is valid.
    pub fpu_ctxt: [u8; 512],
    /// [`VcpuContextFlags`].
    pub flags: u64,
    /// The registers.
    pub user_regs: CpuUserRegs,
    /// The virtual interrupt table, by vector.
    pub trap_ctxt: [TrapInfo; 256],
    /// The address of the local descriptor table.
    pub ldt_base: u64,
    /// Its entries; 0 for none.
    pub ldt_ents: u64,
    /// The machine frames of the global descriptor table.
    pub gdt_frames: [u64; 16],
    /// Its entries; 0 for Xen's own, which the `FLAT_*` selectors are of.
    pub gdt_ents: u64,
    /// The kernel's stack segment, where a trap enters the kernel from user mode.
    pub kernel_ss: u64,
    /// The kernel's stack pointer then.
    pub kernel_sp: u64,
    /// `cr0` to `cr7`; `cr3` is the kernel's root ([`pfn_to_cr3`]), `cr1` that of user mode.
    pub ctrlreg: [u64; 8],
    /// `dr0` to `dr7`.
    pub debugreg: [u64; 8],
    /// Where an upcall enters.
    pub event_callback_eip: u64,
    /// Where Xen enters when it cannot load a segment.
    pub failsafe_callback_eip: u64,
    /// Where a system call enters.
    pub syscall_callback_eip: u64,
    /// `VMASST_TYPE_*`, as bits.
    pub vm_assist: u64,
    /// The base of `%fs`.
    pub fs_base: u64,
    /// The base of `%gs` in the kernel.
    pub gs_base_kernel: u64,
    /// The base of `%gs` in user mode.
    pub gs_base_user: u64,
}

const _: () = assert!(size_of::<VcpuGuestContext>() == 5168);

/// `struct arch_vcpu_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArchVcpuInfo {
    /// The address of the last page fault: a PV guest reads it here, not from the register.
    pub cr2: u64,
    /// Makes the struct 64 bytes together with its neighbours.
    pub pad: u64,
}

const _: () = assert!(size_of::<ArchVcpuInfo>() == 16);

/// `struct arch_shared_info`: where the tools find the guest's p2m.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArchSharedInfo {
    /// The last valid pfn.
    pub max_pfn: u64,
    /// The machine frame of the root of the three-level p2m; all ones where the linear p2m is used.
    pub pfn_to_mfn_frame_list_list: u64,
    /// Why an NMI came.
    pub nmi_reason: u64,
    /// The cr3 value by which the linear p2m is mapped.
    pub p2m_cr3: u64,
    /// Where in that address space.
    pub p2m_vaddr: u64,
    /// Odd while the guest changes the mapping of the p2m.
    pub p2m_generation: u64,
}

const _: () = assert!(size_of::<ArchSharedInfo>() == 48);

/// How a page-table root's frame goes into a cr3 value (`xen_pfn_to_cr3`).
pub const fn pfn_to_cr3(frame: u64) -> u64 {
    frame << 12
}

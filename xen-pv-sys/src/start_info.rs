//! The start info page of `xen.h`: what the domain builder tells a PV guest. Floor 0: no behaviour.

use crate::{Mfn, Pfn, Port};
use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the command line, with its terminator (`MAX_GUEST_CMDLINE`).
pub const MAX_GUEST_CMDLINE: usize = 1024;

bitflags! {
    /// [`StartInfo::flags`] (`SIF_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct StartFlags: u32 {
        /// May use privileged hypercalls (`SIF_PRIVILEGED`).
        const PRIVILEGED = 1 << 0;
        /// Is the initial domain (`SIF_INITDOMAIN`).
        const INITDOMAIN = 1 << 1;
        /// The module is a multiboot module list (`SIF_MULTIBOOT_MOD`).
        const MULTIBOOT_MOD = 1 << 2;
        /// [`StartInfo::mod_start`] is a pfn (`SIF_MOD_START_PFN`).
        const MOD_START_PFN = 1 << 3;
        /// The tools can read a linear p2m (`SIF_VIRT_P2M_4TOOLS`).
        const VIRT_P2M_4TOOLS = 1 << 4;
        /// Bits of dom0's power management (`SIF_PM_MASK`).
        const PM_MASK = 0xff << 8;
    }
}

/// The start info page (`struct start_info`), whose address is in `rsi` at entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StartInfo {
    /// `xen-<version>-<platform>`, terminated.
    pub magic: [u8; 32],
    /// Pages that the domain was given.
    pub nr_pages: u64,
    /// The machine address of [`crate::xen::SharedInfo`].
    pub shared_info: u64,
    /// [`StartFlags`].
    pub flags: u32,
    /// Padding of the C struct.
    pub padding0: u32,
    /// The frame of the xenstore ring.
    pub store_mfn: Mfn,
    /// The event channel of the xenstore.
    pub store_evtchn: Port,
    /// Padding of the C struct.
    pub padding1: u32,
    /// The frame of the console ring (`console.domU.mfn`). In dom0 two 32-bit words: [`Dom0Console`].
    pub console_mfn: Mfn,
    /// The event channel of the console (`console.domU.evtchn`).
    pub console_evtchn: Port,
    /// Padding of the C struct.
    pub padding2: u32,
    /// The address of the page-table root.
    pub pt_base: u64,
    /// How many frames the first page tables take.
    pub nr_pt_frames: u64,
    /// The address of the p2m: an array of [`StartInfo::nr_pages`] machine frames.
    pub mfn_list: u64,
    /// The address of the module, or its pfn with [`StartFlags::MOD_START_PFN`]; 0 for none.
    pub mod_start: u64,
    /// Bytes of the module.
    pub mod_len: u64,
    /// The command line, terminated.
    pub cmd_line: [u8; MAX_GUEST_CMDLINE],
    /// First pfn of the p2m where it is not mapped with the kernel.
    pub first_p2m_pfn: Pfn,
    /// How many frames it takes.
    pub nr_p2m_frames: u64,
}

const _: () = assert!(size_of::<StartInfo>() == 1168);

/// What dom0 finds at the place of [`StartInfo::console_mfn`] (`console.dom0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Dom0Console {
    /// Where in the start info page the description of the video console is.
    pub info_off: u32,
    /// Its bytes.
    pub info_size: u32,
}

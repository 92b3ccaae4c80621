//! Every size, offset and constant of this crate against Debian's C headers (package `libxen-dev`). Floor 0, host only.
//!
//! One line of a table makes both sides: the number as Rust has it, and an expression that a C program prints. A second test
//! reads the sources and fails where a public item has no line here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use xen_pv_sys::*;

/// A number as C prints it, sign-extended to 64 bits.
trait Number {
    fn number(self) -> u64;
}

macro_rules! number {
    ($($type:ty),*; $value:ident => $number:expr) => {
        $(impl Number for $type { fn number(self) -> u64 { let $value = self; $number } })*
    };
}

number!(u8, u16, u32, u64, usize, i16, i32, io::xenbus::XenbusState; value => value as i64 as u64);
number!(DomainId, GrantRef; value => value.0.into());
number!(arch_x86::VcpuContextFlags, grant_table::GrantEntryFlags, grant_table::MapFlags, io::netif::HashTypes,
    io::netif::RxFlags, io::netif::TxFlags, io::pciif::PciFlags, io::xs_wire::ServerFeatures, physdev::IrqStatus, start_info::StartFlags,
    xen::TimeFlags, xen::UpdateVaMappingFlags; value => value.bits().number());
// A text of one byte, as its first character.
number!(&str; value => u64::from(value.as_bytes()[0]) * u64::from(value.len() == 1));

/// One comparison.
struct Line {
    /// The Rust path without blanks, for messages and for the test of completeness.
    rust: String,
    /// What Rust has.
    number: u64,
    /// The C expression.
    c: String,
}

macro_rules! constants {
    ($($rust:expr => $c:literal,)*) => {
        fn constants() -> Vec<Line> {
            vec![$(Line { rust: stringify!($rust).replace(' ', ""), number: $rust.number(), c: $c.into() }),*]
        }
    };
}

/// `whole`: the size too. `partial`: later headers add fields at the end, so the size is left alone.
macro_rules! layouts {
    ($($extent:ident $type:path => $c:literal { $($field:ident => $c_field:literal,)* },)*) => {
        fn layouts() -> Vec<Line> {
            let mut lines = Vec::new();
            $(
                let name = stringify!($type).replace(' ', "");
                if stringify!($extent) == "whole" {
                    lines.push(Line { rust: name.clone(), number: size_of::<$type>() as u64, c: concat!("sizeof(", $c, ")").into() });
                }
                $(
                    let rust = format!("{name}.{}", stringify!($field));
                    lines.push(Line {
                        rust: format!("{rust} offset"),
                        number: std::mem::offset_of!($type, $field) as u64,
                        c: concat!("offsetof(", $c, ", ", $c_field, ")").into(),
                    });
                    lines.push(Line {
                        rust,
                        number: size_of_field(|value: &$type| &raw const value.$field),
                        c: concat!("sizeof(((", $c, " *)0)->", $c_field, ")").into(),
                    });
                )*
            )*
            lines
        }
    };
}

/// By a pointer, not a reference: fields of packed structs have none.
fn size_of_field<Type, Field>(_: fn(&Type) -> *const Field) -> u64 {
    size_of::<Field>() as u64
}

constants! {
    DomainId::SELF => "DOMID_SELF",
    DomainId::IO => "DOMID_IO",
    DomainId::XEN => "DOMID_XEN",
    DomainId::COW => "DOMID_COW",
    DomainId::INVALID => "DOMID_INVALID",
    DomainId::IDLE => "DOMID_IDLE",
    DomainId::FIRST_RESERVED => "DOMID_FIRST_RESERVED",
    PAGE_SIZE => "1 << XEN_PAGE_SHIFT",
    arch_x86::FLAT_RING3_CS64 => "FLAT_RING3_CS64",
    arch_x86::FLAT_RING3_CS32 => "FLAT_RING3_CS32",
    arch_x86::FLAT_RING3_DS64 => "FLAT_RING3_DS64",
    arch_x86::FLAT_RING3_DS32 => "FLAT_RING3_DS32",
    arch_x86::FLAT_RING3_SS64 => "FLAT_RING3_SS64",
    arch_x86::FLAT_KERNEL_CS => "FLAT_KERNEL_CS",
    arch_x86::FLAT_KERNEL_DS => "FLAT_KERNEL_DS",
    arch_x86::FLAT_KERNEL_SS => "FLAT_KERNEL_SS",
    arch_x86::HYPERVISOR_VIRT_START => "HYPERVISOR_VIRT_START",
    arch_x86::HYPERVISOR_VIRT_END => "HYPERVISOR_VIRT_END",
    arch_x86::MACH2PHYS_VIRT_START => "MACH2PHYS_VIRT_START",
    arch_x86::MACH2PHYS_VIRT_END => "MACH2PHYS_VIRT_END",
    arch_x86::MACH2PHYS_NR_ENTRIES => "MACH2PHYS_NR_ENTRIES",
    arch_x86::SEGBASE_FS => "SEGBASE_FS",
    arch_x86::SEGBASE_GS_USER => "SEGBASE_GS_USER",
    arch_x86::SEGBASE_GS_KERNEL => "SEGBASE_GS_KERNEL",
    arch_x86::SEGBASE_GS_USER_SEL => "SEGBASE_GS_USER_SEL",
    arch_x86::FIRST_RESERVED_GDT_PAGE => "FIRST_RESERVED_GDT_PAGE",
    arch_x86::FIRST_RESERVED_GDT_ENTRY => "FIRST_RESERVED_GDT_ENTRY",
    arch_x86::XEN_LEGACY_MAX_VCPUS => "XEN_LEGACY_MAX_VCPUS",
    arch_x86::VGCF_IN_SYSCALL => "VGCF_in_syscall",
    arch_x86::VcpuContextFlags::I387_VALID => "VGCF_i387_valid",
    arch_x86::VcpuContextFlags::IN_KERNEL => "VGCF_in_kernel",
    arch_x86::VcpuContextFlags::FAILSAFE_DISABLES_EVENTS => "VGCF_failsafe_disables_events",
    arch_x86::VcpuContextFlags::SYSCALL_DISABLES_EVENTS => "VGCF_syscall_disables_events",
    arch_x86::VcpuContextFlags::ONLINE => "VGCF_online",
    arch_x86::TrapInfo::CLEAR_EVENTS => "trap_clear_events()",
    callback::CALLBACKOP_REGISTER => "CALLBACKOP_register",
    callback::CALLBACKOP_UNREGISTER => "CALLBACKOP_unregister",
    callback::CALLBACKTYPE_EVENT => "CALLBACKTYPE_event",
    callback::CALLBACKTYPE_FAILSAFE => "CALLBACKTYPE_failsafe",
    callback::CALLBACKTYPE_SYSCALL => "CALLBACKTYPE_syscall",
    callback::CALLBACKTYPE_NMI => "CALLBACKTYPE_nmi",
    callback::CALLBACKTYPE_SYSENTER => "CALLBACKTYPE_sysenter",
    callback::CALLBACKTYPE_SYSCALL32 => "CALLBACKTYPE_syscall32",
    callback::CALLBACKF_MASK_EVENTS => "CALLBACKF_mask_events",
    domctl::XEN_DOMCTL_GETDOMAININFO => "XEN_DOMCTL_getdomaininfo",
    domctl::XEN_DOMINF_DYING => "XEN_DOMINF_dying",
    domctl::XEN_DOMINF_SHUTDOWN => "XEN_DOMINF_shutdown",
    domctl::XEN_DOMINF_XS_DOMAIN => "XEN_DOMINF_xs_domain",
    elfnote::XEN_ELFNOTE_INFO => "XEN_ELFNOTE_INFO",
    elfnote::XEN_ELFNOTE_ENTRY => "XEN_ELFNOTE_ENTRY",
    elfnote::XEN_ELFNOTE_HYPERCALL_PAGE => "XEN_ELFNOTE_HYPERCALL_PAGE",
    elfnote::XEN_ELFNOTE_VIRT_BASE => "XEN_ELFNOTE_VIRT_BASE",
    elfnote::XEN_ELFNOTE_PADDR_OFFSET => "XEN_ELFNOTE_PADDR_OFFSET",
    elfnote::XEN_ELFNOTE_XEN_VERSION => "XEN_ELFNOTE_XEN_VERSION",
    elfnote::XEN_ELFNOTE_GUEST_OS => "XEN_ELFNOTE_GUEST_OS",
    elfnote::XEN_ELFNOTE_GUEST_VERSION => "XEN_ELFNOTE_GUEST_VERSION",
    elfnote::XEN_ELFNOTE_LOADER => "XEN_ELFNOTE_LOADER",
    elfnote::XEN_ELFNOTE_PAE_MODE => "XEN_ELFNOTE_PAE_MODE",
    elfnote::XEN_ELFNOTE_FEATURES => "XEN_ELFNOTE_FEATURES",
    elfnote::XEN_ELFNOTE_BSD_SYMTAB => "XEN_ELFNOTE_BSD_SYMTAB",
    elfnote::XEN_ELFNOTE_HV_START_LOW => "XEN_ELFNOTE_HV_START_LOW",
    elfnote::XEN_ELFNOTE_L1_MFN_VALID => "XEN_ELFNOTE_L1_MFN_VALID",
    elfnote::XEN_ELFNOTE_SUSPEND_CANCEL => "XEN_ELFNOTE_SUSPEND_CANCEL",
    elfnote::XEN_ELFNOTE_INIT_P2M => "XEN_ELFNOTE_INIT_P2M",
    elfnote::XEN_ELFNOTE_MOD_START_PFN => "XEN_ELFNOTE_MOD_START_PFN",
    elfnote::XEN_ELFNOTE_SUPPORTED_FEATURES => "XEN_ELFNOTE_SUPPORTED_FEATURES",
    elfnote::XEN_ELFNOTE_PHYS32_ENTRY => "XEN_ELFNOTE_PHYS32_ENTRY",
    errno::EPERM => "XEN_EPERM",
    errno::ENOENT => "XEN_ENOENT",
    errno::ESRCH => "XEN_ESRCH",
    errno::EIO => "XEN_EIO",
    errno::ENXIO => "XEN_ENXIO",
    errno::E2BIG => "XEN_E2BIG",
    errno::ENOEXEC => "XEN_ENOEXEC",
    errno::EBADF => "XEN_EBADF",
    errno::ECHILD => "XEN_ECHILD",
    errno::EAGAIN => "XEN_EAGAIN",
    errno::ENOMEM => "XEN_ENOMEM",
    errno::EACCES => "XEN_EACCES",
    errno::EFAULT => "XEN_EFAULT",
    errno::EBUSY => "XEN_EBUSY",
    errno::EEXIST => "XEN_EEXIST",
    errno::EXDEV => "XEN_EXDEV",
    errno::ENODEV => "XEN_ENODEV",
    errno::ENOTDIR => "XEN_ENOTDIR",
    errno::EISDIR => "XEN_EISDIR",
    errno::EINVAL => "XEN_EINVAL",
    errno::ENFILE => "XEN_ENFILE",
    errno::EMFILE => "XEN_EMFILE",
    errno::ENOSPC => "XEN_ENOSPC",
    errno::EROFS => "XEN_EROFS",
    errno::EMLINK => "XEN_EMLINK",
    errno::EDOM => "XEN_EDOM",
    errno::ERANGE => "XEN_ERANGE",
    errno::EDEADLK => "XEN_EDEADLK",
    errno::ENAMETOOLONG => "XEN_ENAMETOOLONG",
    errno::ENOLCK => "XEN_ENOLCK",
    errno::ENOSYS => "XEN_ENOSYS",
    errno::ENOTEMPTY => "XEN_ENOTEMPTY",
    errno::ENODATA => "XEN_ENODATA",
    errno::ETIME => "XEN_ETIME",
    errno::EBADMSG => "XEN_EBADMSG",
    errno::EOVERFLOW => "XEN_EOVERFLOW",
    errno::EILSEQ => "XEN_EILSEQ",
    errno::ENOTSOCK => "XEN_ENOTSOCK",
    errno::EMSGSIZE => "XEN_EMSGSIZE",
    errno::EOPNOTSUPP => "XEN_EOPNOTSUPP",
    errno::EADDRINUSE => "XEN_EADDRINUSE",
    errno::EADDRNOTAVAIL => "XEN_EADDRNOTAVAIL",
    errno::ENOBUFS => "XEN_ENOBUFS",
    errno::EISCONN => "XEN_EISCONN",
    errno::ENOTCONN => "XEN_ENOTCONN",
    errno::ETIMEDOUT => "XEN_ETIMEDOUT",
    errno::ECONNREFUSED => "XEN_ECONNREFUSED",
    event_channel::EVTCHNOP_BIND_INTERDOMAIN => "EVTCHNOP_bind_interdomain",
    event_channel::EVTCHNOP_BIND_VIRQ => "EVTCHNOP_bind_virq",
    event_channel::EVTCHNOP_BIND_PIRQ => "EVTCHNOP_bind_pirq",
    event_channel::EVTCHNOP_CLOSE => "EVTCHNOP_close",
    event_channel::EVTCHNOP_SEND => "EVTCHNOP_send",
    event_channel::EVTCHNOP_STATUS => "EVTCHNOP_status",
    event_channel::EVTCHNOP_ALLOC_UNBOUND => "EVTCHNOP_alloc_unbound",
    event_channel::EVTCHNOP_BIND_IPI => "EVTCHNOP_bind_ipi",
    event_channel::EVTCHNOP_BIND_VCPU => "EVTCHNOP_bind_vcpu",
    event_channel::EVTCHNOP_UNMASK => "EVTCHNOP_unmask",
    event_channel::EVTCHNOP_RESET => "EVTCHNOP_reset",
    event_channel::EVTCHN_2L_NR_CHANNELS => "EVTCHN_2L_NR_CHANNELS",
    event_channel::BIND_PIRQ_WILL_SHARE => "BIND_PIRQ__WILL_SHARE",
    event_channel::EVTCHNSTAT_CLOSED => "EVTCHNSTAT_closed",
    event_channel::EVTCHNSTAT_UNBOUND => "EVTCHNSTAT_unbound",
    event_channel::EVTCHNSTAT_INTERDOMAIN => "EVTCHNSTAT_interdomain",
    event_channel::EVTCHNSTAT_PIRQ => "EVTCHNSTAT_pirq",
    event_channel::EVTCHNSTAT_VIRQ => "EVTCHNSTAT_virq",
    event_channel::EVTCHNSTAT_IPI => "EVTCHNSTAT_ipi",
    grant_table::GNTTABOP_MAP_GRANT_REF => "GNTTABOP_map_grant_ref",
    grant_table::GNTTABOP_UNMAP_GRANT_REF => "GNTTABOP_unmap_grant_ref",
    grant_table::GNTTABOP_SETUP_TABLE => "GNTTABOP_setup_table",
    grant_table::GNTTABOP_DUMP_TABLE => "GNTTABOP_dump_table",
    grant_table::GNTTABOP_TRANSFER => "GNTTABOP_transfer",
    grant_table::GNTTABOP_COPY => "GNTTABOP_copy",
    grant_table::GNTTABOP_QUERY_SIZE => "GNTTABOP_query_size",
    grant_table::GNTTABOP_UNMAP_AND_REPLACE => "GNTTABOP_unmap_and_replace",
    grant_table::GNTTABOP_SET_VERSION => "GNTTABOP_set_version",
    grant_table::GNTTABOP_GET_STATUS_FRAMES => "GNTTABOP_get_status_frames",
    grant_table::GNTTABOP_GET_VERSION => "GNTTABOP_get_version",
    grant_table::GNTTABOP_SWAP_GRANT_REF => "GNTTABOP_swap_grant_ref",
    grant_table::GNTTABOP_CACHE_FLUSH => "GNTTABOP_cache_flush",
    grant_table::GNTST_OKAY => "GNTST_okay",
    grant_table::GNTST_GENERAL_ERROR => "GNTST_general_error",
    grant_table::GNTST_BAD_DOMAIN => "GNTST_bad_domain",
    grant_table::GNTST_BAD_GNTREF => "GNTST_bad_gntref",
    grant_table::GNTST_BAD_HANDLE => "GNTST_bad_handle",
    grant_table::GNTST_BAD_VIRT_ADDR => "GNTST_bad_virt_addr",
    grant_table::GNTST_BAD_DEV_ADDR => "GNTST_bad_dev_addr",
    grant_table::GNTST_NO_DEVICE_SPACE => "GNTST_no_device_space",
    grant_table::GNTST_PERMISSION_DENIED => "GNTST_permission_denied",
    grant_table::GNTST_BAD_PAGE => "GNTST_bad_page",
    grant_table::GNTST_BAD_COPY_ARG => "GNTST_bad_copy_arg",
    grant_table::GNTST_ADDRESS_TOO_BIG => "GNTST_address_too_big",
    grant_table::GNTST_EAGAIN => "GNTST_eagain",
    grant_table::GNTST_NO_SPACE => "GNTST_no_space",
    grant_table::GNTTAB_NR_RESERVED_ENTRIES => "GNTTAB_NR_RESERVED_ENTRIES",
    grant_table::GNTTAB_RESERVED_CONSOLE => "GNTTAB_RESERVED_CONSOLE",
    grant_table::GNTTAB_RESERVED_XENSTORE => "GNTTAB_RESERVED_XENSTORE",
    grant_table::GrantEntryFlags::PERMIT_ACCESS => "GTF_permit_access",
    grant_table::GrantEntryFlags::READONLY => "GTF_readonly",
    grant_table::GrantEntryFlags::READING => "GTF_reading",
    grant_table::GrantEntryFlags::WRITING => "GTF_writing",
    grant_table::MapFlags::DEVICE_MAP => "GNTMAP_device_map",
    grant_table::MapFlags::HOST_MAP => "GNTMAP_host_map",
    grant_table::MapFlags::READONLY => "GNTMAP_readonly",
    grant_table::MapFlags::APPLICATION_MAP => "GNTMAP_application_map",
    grant_table::MapFlags::CONTAINS_PTE => "GNTMAP_contains_pte",
    grant_table::GrantCopy::SOURCE_GRANT => "GNTCOPY_source_gref",
    grant_table::GrantCopy::DESTINATION_GRANT => "GNTCOPY_dest_gref",
    io::blkif::BLKIF_OP_READ => "BLKIF_OP_READ",
    io::blkif::BLKIF_OP_WRITE => "BLKIF_OP_WRITE",
    io::blkif::BLKIF_OP_WRITE_BARRIER => "BLKIF_OP_WRITE_BARRIER",
    io::blkif::BLKIF_OP_FLUSH_DISKCACHE => "BLKIF_OP_FLUSH_DISKCACHE",
    io::blkif::BLKIF_OP_RESERVED_1 => "BLKIF_OP_RESERVED_1",
    io::blkif::BLKIF_OP_DISCARD => "BLKIF_OP_DISCARD",
    io::blkif::BLKIF_OP_INDIRECT => "BLKIF_OP_INDIRECT",
    io::blkif::BLKIF_MAX_SEGMENTS_PER_REQUEST => "BLKIF_MAX_SEGMENTS_PER_REQUEST",
    io::blkif::BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST => "BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST",
    io::blkif::BLKIF_DISCARD_SECURE => "BLKIF_DISCARD_SECURE",
    io::blkif::BLKIF_RSP_EOPNOTSUPP => "BLKIF_RSP_EOPNOTSUPP",
    io::blkif::BLKIF_RSP_ERROR => "BLKIF_RSP_ERROR",
    io::blkif::BLKIF_RSP_OKAY => "BLKIF_RSP_OKAY",
    io::blkif::VDISK_CDROM => "VDISK_CDROM",
    io::blkif::VDISK_REMOVABLE => "VDISK_REMOVABLE",
    io::blkif::VDISK_READONLY => "VDISK_READONLY",
    io::netif::XEN_NETIF_NR_SLOTS_MIN => "XEN_NETIF_NR_SLOTS_MIN",
    io::netif::XEN_NETIF_MAX_TX_SIZE => "XEN_NETIF_MAX_TX_SIZE",
    io::netif::XEN_NETIF_EXTRA_TYPE_NONE => "XEN_NETIF_EXTRA_TYPE_NONE",
    io::netif::XEN_NETIF_EXTRA_TYPE_GSO => "XEN_NETIF_EXTRA_TYPE_GSO",
    io::netif::XEN_NETIF_EXTRA_TYPE_MCAST_ADD => "XEN_NETIF_EXTRA_TYPE_MCAST_ADD",
    io::netif::XEN_NETIF_EXTRA_TYPE_MCAST_DEL => "XEN_NETIF_EXTRA_TYPE_MCAST_DEL",
    io::netif::XEN_NETIF_EXTRA_TYPE_HASH => "XEN_NETIF_EXTRA_TYPE_HASH",
    io::netif::XEN_NETIF_EXTRA_TYPE_MAX => "XEN_NETIF_EXTRA_TYPE_MAX",
    io::netif::XEN_NETIF_EXTRA_FLAG_MORE => "XEN_NETIF_EXTRA_FLAG_MORE",
    io::netif::XEN_NETIF_GSO_TYPE_NONE => "XEN_NETIF_GSO_TYPE_NONE",
    io::netif::XEN_NETIF_GSO_TYPE_TCPV4 => "XEN_NETIF_GSO_TYPE_TCPV4",
    io::netif::XEN_NETIF_GSO_TYPE_TCPV6 => "XEN_NETIF_GSO_TYPE_TCPV6",
    io::netif::NETIF_RSP_DROPPED => "NETIF_RSP_DROPPED",
    io::netif::NETIF_RSP_ERROR => "NETIF_RSP_ERROR",
    io::netif::NETIF_RSP_OKAY => "NETIF_RSP_OKAY",
    io::netif::NETIF_RSP_NULL => "NETIF_RSP_NULL",
    io::netif::TxFlags::CSUM_BLANK => "NETTXF_csum_blank",
    io::netif::TxFlags::DATA_VALIDATED => "NETTXF_data_validated",
    io::netif::TxFlags::MORE_DATA => "NETTXF_more_data",
    io::netif::TxFlags::EXTRA_INFO => "NETTXF_extra_info",
    io::netif::RxFlags::DATA_VALIDATED => "NETRXF_data_validated",
    io::netif::RxFlags::CSUM_BLANK => "NETRXF_csum_blank",
    io::netif::RxFlags::MORE_DATA => "NETRXF_more_data",
    io::netif::RxFlags::EXTRA_INFO => "NETRXF_extra_info",
    io::netif::RxFlags::GSO_PREFIX => "NETRXF_gso_prefix",
    io::netif::HashTypes::IPV4 => "XEN_NETIF_CTRL_HASH_TYPE_IPV4",
    io::netif::HashTypes::IPV4_TCP => "XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP",
    io::netif::HashTypes::IPV6 => "XEN_NETIF_CTRL_HASH_TYPE_IPV6",
    io::netif::HashTypes::IPV6_TCP => "XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP",
    io::netif::XEN_NETIF_CTRL_HASH_ALGORITHM_NONE => "XEN_NETIF_CTRL_HASH_ALGORITHM_NONE",
    io::netif::XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ => "XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ",
    io::netif::XEN_NETIF_CTRL_TYPE_INVALID => "XEN_NETIF_CTRL_TYPE_INVALID",
    io::netif::XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS => "XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS",
    io::netif::XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS => "XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS",
    io::netif::XEN_NETIF_CTRL_TYPE_SET_HASH_KEY => "XEN_NETIF_CTRL_TYPE_SET_HASH_KEY",
    io::netif::XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE => "XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE",
    io::netif::XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE => "XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE",
    io::netif::XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING => "XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING",
    io::netif::XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM => "XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM",
    io::netif::XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE => "XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE",
    io::netif::XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING => "XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING",
    io::netif::XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING => "XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING",
    io::netif::XEN_NETIF_CTRL_STATUS_SUCCESS => "XEN_NETIF_CTRL_STATUS_SUCCESS",
    io::netif::XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED => "XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED",
    io::netif::XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER => "XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER",
    io::netif::XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW => "XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW",
    io::pciif::XEN_PCI_MAGIC => "XEN_PCI_MAGIC[0]",
    io::pciif::XEN_PCI_OP_CONF_READ => "XEN_PCI_OP_conf_read",
    io::pciif::XEN_PCI_OP_CONF_WRITE => "XEN_PCI_OP_conf_write",
    io::pciif::XEN_PCI_OP_ENABLE_MSI => "XEN_PCI_OP_enable_msi",
    io::pciif::XEN_PCI_OP_DISABLE_MSI => "XEN_PCI_OP_disable_msi",
    io::pciif::XEN_PCI_OP_ENABLE_MSIX => "XEN_PCI_OP_enable_msix",
    io::pciif::XEN_PCI_OP_DISABLE_MSIX => "XEN_PCI_OP_disable_msix",
    io::pciif::XEN_PCI_OP_AER_DETECTED => "XEN_PCI_OP_aer_detected",
    io::pciif::XEN_PCI_OP_AER_RESUME => "XEN_PCI_OP_aer_resume",
    io::pciif::XEN_PCI_OP_AER_MMIO => "XEN_PCI_OP_aer_mmio",
    io::pciif::XEN_PCI_OP_AER_SLOTRESET => "XEN_PCI_OP_aer_slotreset",
    io::pciif::XEN_PCI_OP_ENABLE_MULTI_MSI => "XEN_PCI_OP_enable_multi_msi",
    io::pciif::XEN_PCI_ERR_SUCCESS => "XEN_PCI_ERR_success",
    io::pciif::XEN_PCI_ERR_DEV_NOT_FOUND => "XEN_PCI_ERR_dev_not_found",
    io::pciif::XEN_PCI_ERR_INVALID_OFFSET => "XEN_PCI_ERR_invalid_offset",
    io::pciif::XEN_PCI_ERR_ACCESS_DENIED => "XEN_PCI_ERR_access_denied",
    io::pciif::XEN_PCI_ERR_NOT_IMPLEMENTED => "XEN_PCI_ERR_not_implemented",
    io::pciif::XEN_PCI_ERR_OP_FAILED => "XEN_PCI_ERR_op_failed",
    io::pciif::SH_INFO_MAX_VEC => "SH_INFO_MAX_VEC",
    io::pciif::PciFlags::FRONTEND_ACTIVE => "XEN_PCIF_active",
    io::pciif::PciFlags::AER_HANDLER => "XEN_PCIB_AERHANDLER",
    io::pciif::PciFlags::BACKEND_ACTIVE => "XEN_PCIB_active",
    io::ring::RING_HEADER_SIZE => "offsetof(struct netif_tx_sring, ring)",
    io::xenbus::XenbusState::Unknown => "XenbusStateUnknown",
    io::xenbus::XenbusState::Initialising => "XenbusStateInitialising",
    io::xenbus::XenbusState::InitWait => "XenbusStateInitWait",
    io::xenbus::XenbusState::Initialised => "XenbusStateInitialised",
    io::xenbus::XenbusState::Connected => "XenbusStateConnected",
    io::xenbus::XenbusState::Closing => "XenbusStateClosing",
    io::xenbus::XenbusState::Closed => "XenbusStateClosed",
    io::xenbus::XenbusState::Reconfiguring => "XenbusStateReconfiguring",
    io::xenbus::XenbusState::Reconfigured => "XenbusStateReconfigured",
    io::xs_wire::XS_CONTROL => "XS_CONTROL",
    io::xs_wire::XS_DIRECTORY => "XS_DIRECTORY",
    io::xs_wire::XS_READ => "XS_READ",
    io::xs_wire::XS_GET_PERMS => "XS_GET_PERMS",
    io::xs_wire::XS_WATCH => "XS_WATCH",
    io::xs_wire::XS_UNWATCH => "XS_UNWATCH",
    io::xs_wire::XS_TRANSACTION_START => "XS_TRANSACTION_START",
    io::xs_wire::XS_TRANSACTION_END => "XS_TRANSACTION_END",
    io::xs_wire::XS_INTRODUCE => "XS_INTRODUCE",
    io::xs_wire::XS_RELEASE => "XS_RELEASE",
    io::xs_wire::XS_GET_DOMAIN_PATH => "XS_GET_DOMAIN_PATH",
    io::xs_wire::XS_WRITE => "XS_WRITE",
    io::xs_wire::XS_MKDIR => "XS_MKDIR",
    io::xs_wire::XS_RM => "XS_RM",
    io::xs_wire::XS_SET_PERMS => "XS_SET_PERMS",
    io::xs_wire::XS_WATCH_EVENT => "XS_WATCH_EVENT",
    io::xs_wire::XS_ERROR => "XS_ERROR",
    io::xs_wire::XS_IS_DOMAIN_INTRODUCED => "XS_IS_DOMAIN_INTRODUCED",
    io::xs_wire::XS_RESUME => "XS_RESUME",
    io::xs_wire::XS_SET_TARGET => "XS_SET_TARGET",
    io::xs_wire::XS_RESET_WATCHES => "XS_RESET_WATCHES",
    io::xs_wire::XS_DIRECTORY_PART => "XS_DIRECTORY_PART",
    io::xs_wire::XS_INVALID => "XS_INVALID",
    io::xs_wire::XENSTORE_RING_SIZE => "XENSTORE_RING_SIZE",
    io::xs_wire::XENSTORE_PAYLOAD_MAX => "XENSTORE_PAYLOAD_MAX",
    io::xs_wire::XENSTORE_ABS_PATH_MAX => "XENSTORE_ABS_PATH_MAX",
    io::xs_wire::XENSTORE_REL_PATH_MAX => "XENSTORE_REL_PATH_MAX",
    io::xs_wire::XENSTORE_CONNECTED => "XENSTORE_CONNECTED",
    io::xs_wire::XENSTORE_RECONNECT => "XENSTORE_RECONNECT",
    io::xs_wire::XENSTORE_ERROR_NONE => "XENSTORE_ERROR_NONE",
    io::xs_wire::XENSTORE_ERROR_COMM => "XENSTORE_ERROR_COMM",
    io::xs_wire::XENSTORE_ERROR_RINGIDX => "XENSTORE_ERROR_RINGIDX",
    io::xs_wire::XENSTORE_ERROR_PROTO => "XENSTORE_ERROR_PROTO",
    io::xs_wire::ServerFeatures::RECONNECTION => "XENSTORE_SERVER_FEATURE_RECONNECTION",
    io::xs_wire::ServerFeatures::ERROR => "XENSTORE_SERVER_FEATURE_ERROR",
    memory::XENMEM_INCREASE_RESERVATION => "XENMEM_increase_reservation",
    memory::XENMEM_DECREASE_RESERVATION => "XENMEM_decrease_reservation",
    memory::XENMEM_MAXIMUM_RAM_PAGE => "XENMEM_maximum_ram_page",
    memory::XENMEM_CURRENT_RESERVATION => "XENMEM_current_reservation",
    memory::XENMEM_MAXIMUM_RESERVATION => "XENMEM_maximum_reservation",
    memory::XENMEM_MACHPHYS_MFN_LIST => "XENMEM_machphys_mfn_list",
    memory::XENMEM_POPULATE_PHYSMAP => "XENMEM_populate_physmap",
    memory::XENMEM_ADD_TO_PHYSMAP => "XENMEM_add_to_physmap",
    memory::XENMEM_MEMORY_MAP => "XENMEM_memory_map",
    memory::XENMEM_MACHINE_MEMORY_MAP => "XENMEM_machine_memory_map",
    memory::XENMEM_EXCHANGE => "XENMEM_exchange",
    memory::XENMEM_MACHPHYS_MAPPING => "XENMEM_machphys_mapping",
    memory::XENMEM_MAXIMUM_GPFN => "XENMEM_maximum_gpfn",
    memory::XENMEM_REMOVE_FROM_PHYSMAP => "XENMEM_remove_from_physmap",
    memory::XENMAPSPACE_SHARED_INFO => "XENMAPSPACE_shared_info",
    memory::XENMAPSPACE_GRANT_TABLE => "XENMAPSPACE_grant_table",
    memory::XENMAPSPACE_GMFN => "XENMAPSPACE_gmfn",
    physdev::PHYSDEVOP_IRQ_STATUS_QUERY => "PHYSDEVOP_irq_status_query",
    physdev::PHYSDEVOP_SET_IOPL => "PHYSDEVOP_set_iopl",
    physdev::PHYSDEVOP_EOI => "PHYSDEVOP_eoi",
    physdev::PHYSDEVOP_MAP_PIRQ => "PHYSDEVOP_map_pirq",
    physdev::PHYSDEVOP_UNMAP_PIRQ => "PHYSDEVOP_unmap_pirq",
    physdev::PHYSDEVOP_GET_FREE_PIRQ => "PHYSDEVOP_get_free_pirq",
    physdev::PHYSDEVOP_PIRQ_EOI_GMFN_V2 => "PHYSDEVOP_pirq_eoi_gmfn_v2",
    physdev::MAP_PIRQ_TYPE_MSI => "MAP_PIRQ_TYPE_MSI",
    physdev::MAP_PIRQ_TYPE_GSI => "MAP_PIRQ_TYPE_GSI",
    physdev::IrqStatus::NEEDS_EOI => "XENIRQSTAT_needs_eoi",
    physdev::IrqStatus::SHARED => "XENIRQSTAT_shared",
    sched::SCHEDOP_YIELD => "SCHEDOP_yield",
    sched::SCHEDOP_BLOCK => "SCHEDOP_block",
    sched::SCHEDOP_SHUTDOWN => "SCHEDOP_shutdown",
    sched::SCHEDOP_POLL => "SCHEDOP_poll",
    sched::SCHEDOP_REMOTE_SHUTDOWN => "SCHEDOP_remote_shutdown",
    sched::SCHEDOP_SHUTDOWN_CODE => "SCHEDOP_shutdown_code",
    sched::SCHEDOP_WATCHDOG => "SCHEDOP_watchdog",
    sched::SHUTDOWN_POWEROFF => "SHUTDOWN_poweroff",
    sched::SHUTDOWN_REBOOT => "SHUTDOWN_reboot",
    sched::SHUTDOWN_SUSPEND => "SHUTDOWN_suspend",
    sched::SHUTDOWN_CRASH => "SHUTDOWN_crash",
    sched::SHUTDOWN_WATCHDOG => "SHUTDOWN_watchdog",
    sched::SHUTDOWN_SOFT_RESET => "SHUTDOWN_soft_reset",
    start_info::MAX_GUEST_CMDLINE => "MAX_GUEST_CMDLINE",
    start_info::StartFlags::PRIVILEGED => "SIF_PRIVILEGED",
    start_info::StartFlags::INITDOMAIN => "SIF_INITDOMAIN",
    start_info::StartFlags::MULTIBOOT_MOD => "SIF_MULTIBOOT_MOD",
    start_info::StartFlags::MOD_START_PFN => "SIF_MOD_START_PFN",
    start_info::StartFlags::VIRT_P2M_4TOOLS => "SIF_VIRT_P2M_4TOOLS",
    start_info::StartFlags::PM_MASK => "SIF_PM_MASK",
    vcpu::VCPUOP_INITIALISE => "VCPUOP_initialise",
    vcpu::VCPUOP_UP => "VCPUOP_up",
    vcpu::VCPUOP_DOWN => "VCPUOP_down",
    vcpu::VCPUOP_IS_UP => "VCPUOP_is_up",
    vcpu::VCPUOP_GET_RUNSTATE_INFO => "VCPUOP_get_runstate_info",
    vcpu::VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA => "VCPUOP_register_runstate_memory_area",
    vcpu::VCPUOP_SET_PERIODIC_TIMER => "VCPUOP_set_periodic_timer",
    vcpu::VCPUOP_STOP_PERIODIC_TIMER => "VCPUOP_stop_periodic_timer",
    vcpu::VCPUOP_SET_SINGLESHOT_TIMER => "VCPUOP_set_singleshot_timer",
    vcpu::VCPUOP_STOP_SINGLESHOT_TIMER => "VCPUOP_stop_singleshot_timer",
    vcpu::VCPUOP_REGISTER_VCPU_INFO => "VCPUOP_register_vcpu_info",
    vcpu::VCPUOP_SEND_NMI => "VCPUOP_send_nmi",
    vcpu::VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA => "VCPUOP_register_vcpu_time_memory_area",
    vcpu::VCPU_SSHOTTMR_FUTURE => "VCPU_SSHOTTMR_future",
    vcpu::RUNSTATE_RUNNING => "RUNSTATE_running",
    vcpu::RUNSTATE_RUNNABLE => "RUNSTATE_runnable",
    vcpu::RUNSTATE_BLOCKED => "RUNSTATE_blocked",
    vcpu::RUNSTATE_OFFLINE => "RUNSTATE_offline",
    vcpu::RunstateInfo::UPDATE => "XEN_RUNSTATE_UPDATE",
    version::XENVER_VERSION => "XENVER_version",
    version::XENVER_EXTRAVERSION => "XENVER_extraversion",
    version::XENVER_COMPILE_INFO => "XENVER_compile_info",
    version::XENVER_CAPABILITIES => "XENVER_capabilities",
    version::XENVER_CHANGESET => "XENVER_changeset",
    version::XENVER_PLATFORM_PARAMETERS => "XENVER_platform_parameters",
    version::XENVER_GET_FEATURES => "XENVER_get_features",
    version::XENVER_PAGESIZE => "XENVER_pagesize",
    version::XENVER_GUEST_HANDLE => "XENVER_guest_handle",
    version::XENVER_COMMANDLINE => "XENVER_commandline",
    version::XENFEAT_WRITABLE_PAGE_TABLES => "XENFEAT_writable_page_tables",
    version::XENFEAT_WRITABLE_DESCRIPTOR_TABLES => "XENFEAT_writable_descriptor_tables",
    version::XENFEAT_AUTO_TRANSLATED_PHYSMAP => "XENFEAT_auto_translated_physmap",
    version::XENFEAT_SUPERVISOR_MODE_KERNEL => "XENFEAT_supervisor_mode_kernel",
    version::XENFEAT_PAE_PGDIR_ABOVE_4GB => "XENFEAT_pae_pgdir_above_4gb",
    version::XENFEAT_MMU_PT_UPDATE_PRESERVE_AD => "XENFEAT_mmu_pt_update_preserve_ad",
    version::XENFEAT_GNTTAB_MAP_AVAIL_BITS => "XENFEAT_gnttab_map_avail_bits",
    version::XENFEAT_DOM0 => "XENFEAT_dom0",
    version::XENFEAT_MEMORY_OP_VNODE_SUPPORTED => "XENFEAT_memory_op_vnode_supported",
    version::XENFEAT_NR_SUBMAPS => "XENFEAT_NR_SUBMAPS",
    xen::hypercall::SET_TRAP_TABLE => "__HYPERVISOR_set_trap_table",
    xen::hypercall::MMU_UPDATE => "__HYPERVISOR_mmu_update",
    xen::hypercall::SET_GDT => "__HYPERVISOR_set_gdt",
    xen::hypercall::STACK_SWITCH => "__HYPERVISOR_stack_switch",
    xen::hypercall::SET_CALLBACKS => "__HYPERVISOR_set_callbacks",
    xen::hypercall::FPU_TASKSWITCH => "__HYPERVISOR_fpu_taskswitch",
    xen::hypercall::PLATFORM_OP => "__HYPERVISOR_platform_op",
    xen::hypercall::SET_DEBUGREG => "__HYPERVISOR_set_debugreg",
    xen::hypercall::GET_DEBUGREG => "__HYPERVISOR_get_debugreg",
    xen::hypercall::UPDATE_DESCRIPTOR => "__HYPERVISOR_update_descriptor",
    xen::hypercall::MEMORY_OP => "__HYPERVISOR_memory_op",
    xen::hypercall::MULTICALL => "__HYPERVISOR_multicall",
    xen::hypercall::UPDATE_VA_MAPPING => "__HYPERVISOR_update_va_mapping",
    xen::hypercall::SET_TIMER_OP => "__HYPERVISOR_set_timer_op",
    xen::hypercall::XEN_VERSION => "__HYPERVISOR_xen_version",
    xen::hypercall::CONSOLE_IO => "__HYPERVISOR_console_io",
    xen::hypercall::GRANT_TABLE_OP => "__HYPERVISOR_grant_table_op",
    xen::hypercall::VM_ASSIST => "__HYPERVISOR_vm_assist",
    xen::hypercall::UPDATE_VA_MAPPING_OTHERDOMAIN => "__HYPERVISOR_update_va_mapping_otherdomain",
    xen::hypercall::IRET => "__HYPERVISOR_iret",
    xen::hypercall::VCPU_OP => "__HYPERVISOR_vcpu_op",
    xen::hypercall::SET_SEGMENT_BASE => "__HYPERVISOR_set_segment_base",
    xen::hypercall::MMUEXT_OP => "__HYPERVISOR_mmuext_op",
    xen::hypercall::XSM_OP => "__HYPERVISOR_xsm_op",
    xen::hypercall::NMI_OP => "__HYPERVISOR_nmi_op",
    xen::hypercall::SCHED_OP => "__HYPERVISOR_sched_op",
    xen::hypercall::CALLBACK_OP => "__HYPERVISOR_callback_op",
    xen::hypercall::EVENT_CHANNEL_OP => "__HYPERVISOR_event_channel_op",
    xen::hypercall::PHYSDEV_OP => "__HYPERVISOR_physdev_op",
    xen::hypercall::HVM_OP => "__HYPERVISOR_hvm_op",
    xen::hypercall::SYSCTL => "__HYPERVISOR_sysctl",
    xen::hypercall::DOMCTL => "__HYPERVISOR_domctl",
    xen::VIRQ_TIMER => "VIRQ_TIMER",
    xen::VIRQ_DEBUG => "VIRQ_DEBUG",
    xen::VIRQ_CONSOLE => "VIRQ_CONSOLE",
    xen::VIRQ_DOM_EXC => "VIRQ_DOM_EXC",
    xen::VIRQ_CON_RING => "VIRQ_CON_RING",
    xen::VIRQ_ARCH_0 => "VIRQ_ARCH_0",
    xen::NR_VIRQS => "NR_VIRQS",
    xen::MMU_NORMAL_PT_UPDATE => "MMU_NORMAL_PT_UPDATE",
    xen::MMU_MACHPHYS_UPDATE => "MMU_MACHPHYS_UPDATE",
    xen::MMU_PT_UPDATE_PRESERVE_AD => "MMU_PT_UPDATE_PRESERVE_AD",
    xen::MMU_PT_UPDATE_NO_TRANSLATE => "MMU_PT_UPDATE_NO_TRANSLATE",
    xen::MMUEXT_PIN_L1_TABLE => "MMUEXT_PIN_L1_TABLE",
    xen::MMUEXT_PIN_L2_TABLE => "MMUEXT_PIN_L2_TABLE",
    xen::MMUEXT_PIN_L3_TABLE => "MMUEXT_PIN_L3_TABLE",
    xen::MMUEXT_PIN_L4_TABLE => "MMUEXT_PIN_L4_TABLE",
    xen::MMUEXT_UNPIN_TABLE => "MMUEXT_UNPIN_TABLE",
    xen::MMUEXT_NEW_BASEPTR => "MMUEXT_NEW_BASEPTR",
    xen::MMUEXT_TLB_FLUSH_LOCAL => "MMUEXT_TLB_FLUSH_LOCAL",
    xen::MMUEXT_INVLPG_LOCAL => "MMUEXT_INVLPG_LOCAL",
    xen::MMUEXT_TLB_FLUSH_MULTI => "MMUEXT_TLB_FLUSH_MULTI",
    xen::MMUEXT_INVLPG_MULTI => "MMUEXT_INVLPG_MULTI",
    xen::MMUEXT_TLB_FLUSH_ALL => "MMUEXT_TLB_FLUSH_ALL",
    xen::MMUEXT_INVLPG_ALL => "MMUEXT_INVLPG_ALL",
    xen::MMUEXT_FLUSH_CACHE => "MMUEXT_FLUSH_CACHE",
    xen::MMUEXT_SET_LDT => "MMUEXT_SET_LDT",
    xen::MMUEXT_NEW_USER_BASEPTR => "MMUEXT_NEW_USER_BASEPTR",
    xen::MMUEXT_CLEAR_PAGE => "MMUEXT_CLEAR_PAGE",
    xen::MMUEXT_COPY_PAGE => "MMUEXT_COPY_PAGE",
    xen::UpdateVaMappingFlags::TLB_FLUSH => "UVMF_TLB_FLUSH",
    xen::UpdateVaMappingFlags::INVLPG => "UVMF_INVLPG",
    xen::UpdateVaMappingFlags::ALL => "UVMF_ALL",
    xen::CONSOLEIO_WRITE => "CONSOLEIO_write",
    xen::CONSOLEIO_READ => "CONSOLEIO_read",
    xen::VMASST_CMD_ENABLE => "VMASST_CMD_enable",
    xen::VMASST_CMD_DISABLE => "VMASST_CMD_disable",
    xen::VMASST_TYPE_WRITABLE_PAGETABLES => "VMASST_TYPE_writable_pagetables",
    xen::VMASST_TYPE_ARCHITECTURAL_IOPL => "VMASST_TYPE_architectural_iopl",
    xen::VMASST_TYPE_RUNSTATE_UPDATE_FLAG => "VMASST_TYPE_runstate_update_flag",
    xen::VMASST_TYPE_M2P_STRICT => "VMASST_TYPE_m2p_strict",
    xen::TimeFlags::TSC_STABLE => "XEN_PVCLOCK_TSC_STABLE_BIT",
    xen::TimeFlags::GUEST_STOPPED => "XEN_PVCLOCK_GUEST_STOPPED",
    arch_x86::pfn_to_cr3(3) => "xen_pfn_to_cr3(3)",
    memory::xenmemf_address_bits(31) => "XENMEMF_address_bits(31)",
    io::ring::ring_size(4096, 12) => "__CONST_RING_SIZE(netif_tx, 4096)",
    io::ring::ring_size(4096, 8) => "__CONST_RING_SIZE(netif_rx, 4096)",
    io::ring::ring_size(4096, 16) => "__CONST_RING_SIZE(xen_netif_ctrl, 4096)",
    io::ring::ring_size(4096, 112) => "__CONST_RING_SIZE(blkif, 4096)",
    io::ring::ring_size(65536, 112) => "__CONST_RING_SIZE(blkif, 65536)",
    io::ring::ring_size(4096, 108) => "__CONST_RING_SIZE(x86_32_blkif, 4096)",
    io::ring::ring_size(65536, 108) => "__CONST_RING_SIZE(x86_32_blkif, 65536)",
}

layouts! {
    whole arch_x86::TrapInfo => "struct trap_info" {
        vector => "vector",
        flags => "flags",
        cs => "cs",
        address => "address",
    },
    whole arch_x86::IretContext => "struct iret_context" {
        rax => "rax",
        r11 => "r11",
        rcx => "rcx",
        flags => "flags",
        rip => "rip",
        cs => "cs",
        rflags => "rflags",
        rsp => "rsp",
        ss => "ss",
    },
    whole arch_x86::CpuUserRegs => "struct cpu_user_regs" {
        r15 => "r15",
        r14 => "r14",
        r13 => "r13",
        r12 => "r12",
        rbp => "rbp",
        rbx => "rbx",
        r11 => "r11",
        r10 => "r10",
        r9 => "r9",
        r8 => "r8",
        rax => "rax",
        rcx => "rcx",
        rdx => "rdx",
        rsi => "rsi",
        rdi => "rdi",
        error_code => "error_code",
        entry_vector => "entry_vector",
        rip => "rip",
        cs => "cs",
        saved_upcall_mask => "saved_upcall_mask",
        rflags => "rflags",
        rsp => "rsp",
        ss => "ss",
        es => "es",
        ds => "ds",
        fs => "fs",
        gs => "gs",
    },
    whole arch_x86::VcpuGuestContext => "struct vcpu_guest_context" {
        fpu_ctxt => "fpu_ctxt",
        flags => "flags",
        user_regs => "user_regs",
        trap_ctxt => "trap_ctxt",
        ldt_base => "ldt_base",
        ldt_ents => "ldt_ents",
        gdt_frames => "gdt_frames",
        gdt_ents => "gdt_ents",
        kernel_ss => "kernel_ss",
        kernel_sp => "kernel_sp",
        ctrlreg => "ctrlreg",
        debugreg => "debugreg",
        event_callback_eip => "event_callback_eip",
        failsafe_callback_eip => "failsafe_callback_eip",
        syscall_callback_eip => "syscall_callback_eip",
        vm_assist => "vm_assist",
        fs_base => "fs_base",
        gs_base_kernel => "gs_base_kernel",
        gs_base_user => "gs_base_user",
    },
    whole arch_x86::ArchVcpuInfo => "struct arch_vcpu_info" {
        cr2 => "cr2",
        pad => "pad",
    },
    whole arch_x86::ArchSharedInfo => "struct arch_shared_info" {
        max_pfn => "max_pfn",
        pfn_to_mfn_frame_list_list => "pfn_to_mfn_frame_list_list",
        nmi_reason => "nmi_reason",
        p2m_cr3 => "p2m_cr3",
        p2m_vaddr => "p2m_vaddr",
        p2m_generation => "p2m_generation",
    },
    whole callback::Register => "struct callback_register" {
        kind => "type",
        flags => "flags",
        address => "address",
    },
    whole domctl::Domctl => "struct xen_domctl" {
        cmd => "cmd",
        interface_version => "interface_version",
        domain => "domain",
        u => "u",
    },
    partial domctl::GetDomainInfo => "struct xen_domctl_getdomaininfo" {
        domain => "domain",
        flags => "flags",
        tot_pages => "tot_pages",
        max_pages => "max_pages",
        outstanding_pages => "outstanding_pages",
        shr_pages => "shr_pages",
        paged_pages => "paged_pages",
        shared_info_frame => "shared_info_frame",
        cpu_time => "cpu_time",
        nr_online_vcpus => "nr_online_vcpus",
        max_vcpu_id => "max_vcpu_id",
        ssidref => "ssidref",
        handle => "handle",
    },
    whole event_channel::AllocUnbound => "struct evtchn_alloc_unbound" {
        dom => "dom",
        remote_dom => "remote_dom",
        port => "port",
    },
    whole event_channel::BindInterdomain => "struct evtchn_bind_interdomain" {
        remote_dom => "remote_dom",
        remote_port => "remote_port",
        local_port => "local_port",
    },
    whole event_channel::BindVirq => "struct evtchn_bind_virq" {
        virq => "virq",
        vcpu => "vcpu",
        port => "port",
    },
    whole event_channel::BindPirq => "struct evtchn_bind_pirq" {
        pirq => "pirq",
        flags => "flags",
        port => "port",
    },
    whole event_channel::BindIpi => "struct evtchn_bind_ipi" {
        vcpu => "vcpu",
        port => "port",
    },
    whole event_channel::Close => "struct evtchn_close" {
        port => "port",
    },
    whole event_channel::Send => "struct evtchn_send" {
        port => "port",
    },
    whole event_channel::Status => "struct evtchn_status" {
        dom => "dom",
        port => "port",
        status => "status",
        vcpu => "vcpu",
        target => "u.pirq",
        remote_port => "u.interdomain.port",
    },
    whole event_channel::BindVcpu => "struct evtchn_bind_vcpu" {
        port => "port",
        vcpu => "vcpu",
    },
    whole event_channel::Unmask => "struct evtchn_unmask" {
        port => "port",
    },
    whole event_channel::Reset => "struct evtchn_reset" {
        dom => "dom",
    },
    whole grant_table::CopyEnd => "struct gnttab_copy_ptr" {
        reference_or_frame => "u",
        domain => "domid",
        offset => "offset",
    },
    whole grant_table::GrantCopy => "struct gnttab_copy" {
        source => "source",
        destination => "dest",
        length => "len",
        flags => "flags",
        status => "status",
    },
    whole grant_table::GrantEntryV1 => "struct grant_entry_v1" {
        flags => "flags",
        domid => "domid",
        frame => "frame",
    },
    whole grant_table::MapGrantRef => "struct gnttab_map_grant_ref" {
        host_addr => "host_addr",
        flags => "flags",
        reference => "ref",
        domain => "dom",
        status => "status",
        handle => "handle",
        dev_bus_addr => "dev_bus_addr",
    },
    whole grant_table::UnmapGrantRef => "struct gnttab_unmap_grant_ref" {
        host_addr => "host_addr",
        dev_bus_addr => "dev_bus_addr",
        handle => "handle",
        status => "status",
    },
    whole grant_table::SetupTable => "struct gnttab_setup_table" {
        domain => "dom",
        nr_frames => "nr_frames",
        status => "status",
        frame_list => "frame_list",
    },
    whole grant_table::QuerySize => "struct gnttab_query_size" {
        domain => "dom",
        nr_frames => "nr_frames",
        max_nr_frames => "max_nr_frames",
        status => "status",
    },
    whole grant_table::SetVersion => "struct gnttab_set_version" {
        version => "version",
    },
    whole grant_table::GetVersion => "struct gnttab_get_version" {
        domain => "dom",
        pad => "pad",
        version => "version",
    },
    partial io::console::ConsoleInterface => "struct xencons_interface" {
        input => "in",
        output => "out",
        in_cons => "in_cons",
        in_prod => "in_prod",
        out_cons => "out_cons",
        out_prod => "out_prod",
    },
    whole io::blkif::RequestSegment => "struct blkif_request_segment" {
        gref => "gref",
        first_sect => "first_sect",
        last_sect => "last_sect",
    },
    whole io::blkif::Request => "struct blkif_request" {
        operation => "operation",
        nr_segments => "nr_segments",
        handle => "handle",
        id => "id",
        sector_number => "sector_number",
        seg => "seg",
    },
    whole io::blkif::RequestDiscard => "struct blkif_request_discard" {
        operation => "operation",
        flag => "flag",
        handle => "handle",
        id => "id",
        sector_number => "sector_number",
        nr_sectors => "nr_sectors",
    },
    whole io::blkif::RequestIndirect => "struct blkif_request_indirect" {
        operation => "operation",
        indirect_op => "indirect_op",
        nr_segments => "nr_segments",
        id => "id",
        sector_number => "sector_number",
        handle => "handle",
        indirect_grefs => "indirect_grefs",
    },
    whole io::blkif::Response => "struct blkif_response" {
        id => "id",
        operation => "operation",
        status => "status",
    },
    whole io::blkif::x86_32::Request => "struct x86_32_blkif_request" {
        operation => "operation",
        nr_segments => "nr_segments",
        handle => "handle",
        id => "id",
        sector_number => "sector_number",
        seg => "seg",
    },
    whole io::blkif::x86_32::RequestDiscard => "struct x86_32_blkif_request_discard" {
        operation => "operation",
        flag => "flag",
        handle => "handle",
        id => "id",
        sector_number => "sector_number",
        nr_sectors => "nr_sectors",
    },
    whole io::blkif::x86_32::RequestIndirect => "struct x86_32_blkif_request_indirect" {
        operation => "operation",
        indirect_op => "indirect_op",
        nr_segments => "nr_segments",
        id => "id",
        sector_number => "sector_number",
        handle => "handle",
        indirect_grefs => "indirect_grefs",
    },
    whole io::blkif::x86_32::Response => "struct x86_32_blkif_response" {
        id => "id",
        operation => "operation",
        status => "status",
    },
    whole io::netif::TxRequest => "struct netif_tx_request" {
        gref => "gref",
        offset => "offset",
        flags => "flags",
        id => "id",
        size => "size",
    },
    whole io::netif::TxResponse => "struct netif_tx_response" {
        id => "id",
        status => "status",
    },
    whole io::netif::RxRequest => "struct netif_rx_request" {
        id => "id",
        pad => "pad",
        gref => "gref",
    },
    whole io::netif::RxResponse => "struct netif_rx_response" {
        id => "id",
        offset => "offset",
        flags => "flags",
        status => "status",
    },
    whole io::netif::ExtraInfo => "struct netif_extra_info" {
        kind => "type",
        flags => "flags",
        value => "u",
    },
    whole io::netif::ExtraGso => "__typeof__(((struct netif_extra_info *)0)->u.gso)" {
        size => "size",
        kind => "type",
        pad => "pad",
        features => "features",
    },
    whole io::netif::ExtraHash => "__typeof__(((struct netif_extra_info *)0)->u.hash)" {
        kind => "type",
        algorithm => "algorithm",
        value => "value",
    },
    whole io::netif::CtrlRequest => "struct xen_netif_ctrl_request" {
        id => "id",
        kind => "type",
        data => "data",
    },
    whole io::netif::CtrlResponse => "struct xen_netif_ctrl_response" {
        id => "id",
        kind => "type",
        status => "status",
        data => "data",
    },
    whole io::pciif::MsixEntry => "struct xen_msix_entry" {
        vector => "vector",
        entry => "entry",
    },
    whole io::pciif::PciOp => "struct xen_pci_op" {
        cmd => "cmd",
        err => "err",
        domain => "domain",
        bus => "bus",
        devfn => "devfn",
        offset => "offset",
        size => "size",
        value => "value",
        info => "info",
        msix_entries => "msix_entries",
    },
    whole io::pciif::PcieAerOp => "struct xen_pcie_aer_op" {
        cmd => "cmd",
        err => "err",
        domain => "domain",
        bus => "bus",
        devfn => "devfn",
    },
    whole io::pciif::PciSharedInfo => "struct xen_pci_sharedinfo" {
        flags => "flags",
        op => "op",
        aer_op => "aer_op",
    },
    partial io::ring::SharedRingHead => "struct netif_tx_sring" {
        req_prod => "req_prod",
        req_event => "req_event",
        rsp_prod => "rsp_prod",
        rsp_event => "rsp_event",
    },
    whole io::xs_wire::MessageHeader => "struct xsd_sockmsg" {
        kind => "type",
        req_id => "req_id",
        tx_id => "tx_id",
        len => "len",
    },
    partial io::xs_wire::DomainInterface => "struct xenstore_domain_interface" {
        req => "req",
        rsp => "rsp",
        req_cons => "req_cons",
        req_prod => "req_prod",
        rsp_cons => "rsp_cons",
        rsp_prod => "rsp_prod",
        server_features => "server_features",
        connection => "connection",
        error => "error",
    },
    whole memory::MemoryReservation => "struct xen_memory_reservation" {
        extent_start => "extent_start",
        nr_extents => "nr_extents",
        extent_order => "extent_order",
        mem_flags => "mem_flags",
        domid => "domid",
    },
    whole memory::MemoryExchange => "struct xen_memory_exchange" {
        input => "in",
        output => "out",
        nr_exchanged => "nr_exchanged",
    },
    whole memory::MachphysMapping => "struct xen_machphys_mapping" {
        v_start => "v_start",
        v_end => "v_end",
        max_mfn => "max_mfn",
    },
    whole memory::MemoryDomain => "struct xen_memory_domain" {
        domid => "domid",
    },
    whole memory::AddToPhysmap => "struct xen_add_to_physmap" {
        domid => "domid",
        size => "size",
        space => "space",
        idx => "idx",
        gpfn => "gpfn",
    },
    whole memory::MemoryMap => "struct xen_memory_map" {
        nr_entries => "nr_entries",
        buffer => "buffer",
    },
    whole physdev::Eoi => "struct physdev_eoi" {
        irq => "irq",
    },
    whole physdev::IrqStatusQuery => "struct physdev_irq_status_query" {
        irq => "irq",
        flags => "flags",
    },
    whole physdev::SetIopl => "struct physdev_set_iopl" {
        iopl => "iopl",
    },
    whole physdev::MapPirq => "struct physdev_map_pirq" {
        domid => "domid",
        kind => "type",
        index => "index",
        pirq => "pirq",
        bus => "bus",
        devfn => "devfn",
        entry_nr => "entry_nr",
        table_base => "table_base",
    },
    whole physdev::UnmapPirq => "struct physdev_unmap_pirq" {
        domid => "domid",
        pirq => "pirq",
    },
    whole physdev::GetFreePirq => "struct physdev_get_free_pirq" {
        kind => "type",
        pirq => "pirq",
    },
    whole physdev::PirqEoiGmfn => "struct physdev_pirq_eoi_gmfn" {
        gmfn => "gmfn",
    },
    whole sched::Shutdown => "struct sched_shutdown" {
        reason => "reason",
    },
    whole sched::Poll => "struct sched_poll" {
        ports => "ports",
        nr_ports => "nr_ports",
        timeout => "timeout",
    },
    whole sched::RemoteShutdown => "struct sched_remote_shutdown" {
        domain_id => "domain_id",
        reason => "reason",
    },
    whole sched::Watchdog => "struct sched_watchdog" {
        id => "id",
        timeout => "timeout",
    },
    whole start_info::StartInfo => "struct start_info" {
        magic => "magic",
        nr_pages => "nr_pages",
        shared_info => "shared_info",
        flags => "flags",
        store_mfn => "store_mfn",
        store_evtchn => "store_evtchn",
        console_mfn => "console.domU.mfn",
        console_evtchn => "console.domU.evtchn",
        pt_base => "pt_base",
        nr_pt_frames => "nr_pt_frames",
        mfn_list => "mfn_list",
        mod_start => "mod_start",
        mod_len => "mod_len",
        cmd_line => "cmd_line",
        first_p2m_pfn => "first_p2m_pfn",
        nr_p2m_frames => "nr_p2m_frames",
    },
    whole start_info::Dom0Console => "__typeof__(((struct start_info *)0)->console.dom0)" {
        info_off => "info_off",
        info_size => "info_size",
    },
    whole vcpu::RunstateInfo => "struct vcpu_runstate_info" {
        state => "state",
        state_entry_time => "state_entry_time",
        time => "time",
    },
    whole vcpu::RegisterMemoryArea => "struct vcpu_register_runstate_memory_area" {
        addr => "addr",
    },
    whole vcpu::SetSingleshotTimer => "struct vcpu_set_singleshot_timer" {
        timeout_abs_ns => "timeout_abs_ns",
        flags => "flags",
    },
    whole vcpu::RegisterVcpuInfo => "struct vcpu_register_vcpu_info" {
        mfn => "mfn",
        offset => "offset",
        rsvd => "rsvd",
    },
    whole version::FeatureInfo => "struct xen_feature_info" {
        submap_idx => "submap_idx",
        submap => "submap",
    },
    whole xen::MmuExtOp => "struct mmuext_op" {
        cmd => "cmd",
        arg1 => "arg1",
        arg2 => "arg2",
    },
    whole xen::MmuUpdate => "struct mmu_update" {
        ptr => "ptr",
        val => "val",
    },
    whole xen::MulticallEntry => "struct multicall_entry" {
        op => "op",
        result => "result",
        args => "args",
    },
    whole xen::VcpuTimeInfo => "struct vcpu_time_info" {
        version => "version",
        pad0 => "pad0",
        tsc_timestamp => "tsc_timestamp",
        system_time => "system_time",
        tsc_to_system_mul => "tsc_to_system_mul",
        tsc_shift => "tsc_shift",
        flags => "flags",
        pad1 => "pad1",
    },
    whole xen::VcpuInfo => "struct vcpu_info" {
        evtchn_upcall_pending => "evtchn_upcall_pending",
        evtchn_upcall_mask => "evtchn_upcall_mask",
        evtchn_pending_sel => "evtchn_pending_sel",
        arch => "arch",
        time => "time",
    },
    whole xen::SharedInfo => "struct shared_info" {
        vcpu_info => "vcpu_info",
        evtchn_pending => "evtchn_pending",
        evtchn_mask => "evtchn_mask",
        wc_version => "wc_version",
        wc_sec => "wc_sec",
        wc_nsec => "wc_nsec",
        wc_sec_hi => "wc_sec_hi",
        arch => "arch",
    },
}

/// The C side: everything included, then one `printf` a line.
fn c_program(lines: &[Line]) -> String {
    let mut program = String::from(
        r#"#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#define __XEN_TOOLS__ 1
#include <xen/xen.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/domctl.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/physdev.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/callback.h>
#include <xen/elfnote.h>
#include <xen/errno.h>
#include <xen/io/ring.h>
#include <xen/io/blkif.h>
/* The same header once more as i386 has it: other names, and 64-bit numbers aligned to 4 bytes. */
typedef uint64_t unaligned_uint64_t __attribute__((aligned(4)));
#undef __XEN_PUBLIC_IO_BLKIF_H__
#define __i386__ 1
#define uint64_t unaligned_uint64_t
#define blkif_request_segment x86_32_blkif_request_segment
#define blkif_request x86_32_blkif_request
#define blkif_request_t x86_32_blkif_request_t
#define blkif_request_discard x86_32_blkif_request_discard
#define blkif_request_discard_t x86_32_blkif_request_discard_t
#define blkif_request_indirect x86_32_blkif_request_indirect
#define blkif_request_indirect_t x86_32_blkif_request_indirect_t
#define blkif_response x86_32_blkif_response
#define blkif_response_t x86_32_blkif_response_t
#pragma push_macro("DEFINE_RING_TYPES")
#undef DEFINE_RING_TYPES
#define DEFINE_RING_TYPES(name, request, response) struct x86_32_##name##_later
#include <xen/io/blkif.h>
#pragma pop_macro("DEFINE_RING_TYPES")
#undef __i386__
#undef uint64_t
#undef blkif_request_segment
#undef blkif_request
#undef blkif_request_discard
#undef blkif_request_indirect
#undef blkif_response
DEFINE_RING_TYPES(x86_32_blkif, struct x86_32_blkif_request, struct x86_32_blkif_response);
#include <xen/io/netif.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>
#include <xen/io/console.h>
#include <xen/io/pciif.h>
/* ring.h leaves the page size to its user, but for the definition of flexible rings. */
#ifndef XEN_PAGE_SHIFT
#define XEN_PAGE_SHIFT 12
#endif
static unsigned trap_clear_events(void)
{
    struct trap_info trap;
    memset(&trap, 0, sizeof(trap));
    TI_SET_IF(&trap, 1);
    return trap.flags;
}
int main(void)
{
"#,
    );
    for line in lines {
        writeln!(program, "    printf(\"%llu\\n\", (unsigned long long)({}));", line.c).expect("a String takes all");
    }
    program.push_str("    return 0;\n}\n");
    program
}

/// Where the headers are: `XEN_HEADERS` names another include directory, to try another version.
fn include_directory() -> PathBuf {
    std::env::var_os("XEN_HEADERS").map_or_else(|| PathBuf::from("/usr/include"), PathBuf::from)
}

#[test]
fn agrees_with_the_c_headers() {
    let include = include_directory();
    let header = include.join("xen/xen.h");
    assert!(
        header.exists(),
        "{} is missing: this test compares the crate with the headers of Debian's package libxen-dev. \
         Install it (apt-get install libxen-dev), or let `cargo xtask test` do so.",
        header.display()
    );
    let lines: Vec<Line> = constants().into_iter().chain(layouts()).collect();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = directory.join("xen_headers.c");
    let program = directory.join("xen_headers");
    std::fs::write(&source, c_program(&lines)).expect("the target directory is writable");
    let compiled = Command::new("cc")
        .args(["-std=gnu99", "-w", "-D__XEN_INTERFACE_VERSION__=__XEN_LATEST_INTERFACE_VERSION__", "-I"])
        .arg(&include)
        .arg("-o")
        .args([&program, &source])
        .output()
        .unwrap_or_else(|error| {
            panic!("cc cannot be started ({error}): install a C compiler (apt-get install gcc libc6-dev)")
        });
    assert!(
        compiled.status.success(),
        "cc refused {}:\n{}",
        source.display(),
        String::from_utf8_lossy(&compiled.stderr)
    );
    let printed = Command::new(&program).output().expect("what cc made can be started");
    let printed = String::from_utf8(printed.stdout).expect("digits");
    let printed: Vec<u64> = printed.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(printed.len(), lines.len(), "one number a line");
    let differences: Vec<String> = lines
        .iter()
        .zip(&printed)
        .filter(|(line, c)| line.number != **c)
        .map(|(line, c)| format!("{}: {} here, {} by {}", line.rust, line.number as i64, *c as i64, line.c))
        .collect();
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), lines.len(), differences.join("\n"));
}

/// What has no counterpart in the headers.
const OURS: &[(&str, &str)] = &[
    ("memory::E820Entry", "the firmware's form, not in the public headers"),
    ("domctl::XEN_DOMCTL_INTERFACE_VERSION", "differs from version to version"),
    ("domctl::XEN_DOMCTL_GET", "newer than 4.17, whose headers these are"),
    ("domctl::GetDomainState", "newer than 4.17, whose headers these are"),
    ("io::netif::XEN_NETIF_EXTRA_TYPE_XDP", "in Linux' copy of the header only"),
    ("io::netif::XEN_NETIF_MAX_XDP_HEADROOM", "in Linux' copy of the header only"),
    ("io::xs_wire::XS_GET_FEATURE", "newer than 4.17, whose headers these are"),
    ("io::xs_wire::XS_SET_FEATURE", "newer than 4.17, whose headers these are"),
    ("io::xs_wire::XS_GET_QUOTA", "newer than 4.17, whose headers these are"),
    ("io::xs_wire::XS_SET_QUOTA", "newer than 4.17, whose headers these are"),
    ("io::xs_wire::ServerFeatures::WATCHDEPTH", "newer than 4.17, whose headers these are"),
    ("io::xs_wire::ServerFeatures::DOMID_ANY", "newer than 4.17, whose headers these are"),
    ("io::xs_wire::DomainInterface.evtchn_port", "newer than 4.17, whose headers these are"),
];

/// Public constants, flags, variants and fields as `rustfmt` writes them, by their paths. Fields named `padding...` are left out.
fn public_items(module: &str, source: &str) -> Vec<String> {
    let mut items = Vec::new();
    let (mut inner_module, mut context, mut structure) = (String::new(), String::new(), None);
    for line in source.lines() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        let word = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
        if line == "}" {
            (inner_module, context, structure) = (String::new(), String::new(), None);
        } else if let Some(rest) = text.strip_prefix("pub mod ").filter(|rest| rest.ends_with('{')) {
            inner_module = format!("{}::", word(rest));
        } else if let Some(rest) = text.strip_prefix("impl ").or(text.strip_prefix("pub enum ")) {
            context = format!("{}::", word(rest));
        } else if let Some(rest) = text.strip_prefix("pub struct ") {
            context = format!("{}::", word(rest));
            structure = (depth == 0).then(|| word(rest));
        } else if let Some(rest) = text.strip_prefix("pub const ").or(text.strip_prefix("const ")) {
            if !rest.starts_with("fn ") && !rest.starts_with('_') {
                let scope = if depth == 0 { "" } else { context.as_str() };
                items.push(format!("{module}{inner_module}{scope}{}", word(rest)));
            }
        } else if let (Some(rest), Some(structure)) = (text.strip_prefix("pub "), &structure) {
            let field = word(rest);
            if !field.starts_with("padding") && rest[field.len()..].starts_with(':') {
                items.push(format!("{module}{structure}.{field}"));
            }
        } else if text.contains(" = ") && text.starts_with(|c: char| c.is_ascii_uppercase()) && module == "io::xenbus::"
        {
            items.push(format!("{module}{context}{}", word(text)));
        }
    }
    items
}

fn sources(directory: &Path, module: &str, items: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("the sources are there") {
        let path = entry.expect("a directory entry").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("an ASCII name").to_owned();
        if path.is_dir() {
            sources(&path, &format!("{module}{stem}::"), items);
        } else {
            let module =
                if matches!(stem.as_str(), "lib" | "mod") { module.to_owned() } else { format!("{module}{stem}::") };
            items.extend(public_items(&module, &std::fs::read_to_string(&path).expect("a readable source")));
        }
    }
}

#[test]
fn every_public_item_is_compared() {
    let mut items = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut items);
    assert!(items.len() > 500, "the sources were not understood: {} items", items.len());
    let compared: std::collections::HashSet<String> =
        constants().into_iter().chain(layouts()).map(|line| line.rust).collect();
    let missing: Vec<&String> = items
        .iter()
        .filter(|item| !compared.contains(*item) && !OURS.iter().any(|(ours, _)| item.starts_with(ours)))
        .collect();
    assert!(missing.is_empty(), "no line in the tables of tests/headers.rs for:\n{missing:#?}");
}

//! `domctl.h`: what a xenstore domain may ask about other domains, and no more of it. Floor 0: no behaviour.

use crate::DomainId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`Domctl::interface_version`] of Xen 4.17, the oldest that is asked (`XEN_DOMCTL_INTERFACE_VERSION`).
pub const XEN_DOMCTL_INTERFACE_VERSION: u32 = 0x15;

/// `XEN_DOMCTL_getdomaininfo`, with [`GetDomainInfo`]. Not stable: the version must be Xen's own. Until 4.18 it tells of the first
/// domain from the number on, later of that domain alone.
pub const XEN_DOMCTL_GETDOMAININFO: u32 = 5;
/// `XEN_DOMCTL_get_domain_state`, with [`GetDomainState`]: since Xen 4.21, and stable, so that the version is 0.
pub const XEN_DOMCTL_GET_DOMAIN_STATE: u32 = 90;

/// [`GetDomainInfo::flags`]: on its way out (`XEN_DOMINF_dying`).
pub const XEN_DOMINF_DYING: u32 = 1 << 0;
/// [`GetDomainInfo::flags`]: its kernel has ended (`XEN_DOMINF_shutdown`).
pub const XEN_DOMINF_SHUTDOWN: u32 = 1 << 2;
/// [`GetDomainInfo::flags`]: a xenstore domain (`XEN_DOMINF_xs_domain`).
pub const XEN_DOMINF_XS_DOMAIN: u32 = 1 << 7;

/// [`GetDomainState::state`]: there is such a domain (`XEN_DOMCTL_GETDOMSTATE_STATE_EXIST`).
pub const XEN_DOMCTL_GETDOMSTATE_STATE_EXIST: u16 = 1 << 0;
/// [`GetDomainState::state`]: its kernel has ended (`XEN_DOMCTL_GETDOMSTATE_STATE_SHUTDOWN`).
pub const XEN_DOMCTL_GETDOMSTATE_STATE_SHUTDOWN: u16 = 1 << 1;
/// [`GetDomainState::state`]: on its way out (`XEN_DOMCTL_GETDOMSTATE_STATE_DYING`).
pub const XEN_DOMCTL_GETDOMSTATE_STATE_DYING: u16 = 1 << 2;
/// [`GetDomainState::state`]: gone, but for those who still hold a reference to it (`XEN_DOMCTL_GETDOMSTATE_STATE_DEAD`).
pub const XEN_DOMCTL_GETDOMSTATE_STATE_DEAD: u16 = 1 << 3;

/// The argument of the hypercall (`struct xen_domctl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Domctl {
    /// `XEN_DOMCTL_*`.
    pub cmd: u32,
    /// Xen's own, or 0 for a stable command.
    pub interface_version: u32,
    /// Whom it is about.
    pub domain: DomainId,
    /// Padding of the C struct; 0.
    pub padding: [u16; 3],
    /// The command's argument at its beginning.
    pub u: [u8; 128],
}

const _: () = assert!(size_of::<Domctl>() == 144);

/// What is known of a domain (`struct xen_domctl_getdomaininfo`), as far as all versions of Xen have it alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetDomainInfo {
    /// Which domain.
    pub domain: DomainId,
    /// Padding of the C struct.
    pub padding: u16,
    /// `XEN_DOMINF_*`.
    pub flags: u32,
    /// Pages that it has.
    pub tot_pages: u64,
    /// Pages that it may have.
    pub max_pages: u64,
    /// Pages that were claimed for it.
    pub outstanding_pages: u64,
    /// Pages that it shares.
    pub shr_pages: u64,
    /// Pages that are swapped out.
    pub paged_pages: u64,
    /// The frame of its shared info.
    pub shared_info_frame: u64,
    /// Nanoseconds that it ran.
    pub cpu_time: u64,
    /// Virtual CPUs that are up.
    pub nr_online_vcpus: u32,
    /// The highest number of a virtual CPU.
    pub max_vcpu_id: u32,
    /// Its security label.
    pub ssidref: u32,
    /// Its UUID.
    pub handle: [u8; 16],
    /// Padding up to a multiple of 8; the C struct goes on here.
    pub padding2: u32,
}

const _: () = assert!(size_of::<GetDomainInfo>() <= 128);

/// How a domain is (`struct xen_domctl_get_domain_state`). Asked about [`DomainId::INVALID`], Xen tells of one domain whose state changed
/// since it last told of it, to the one that has `VIRQ_DOM_EXC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetDomainState {
    /// `XEN_DOMCTL_GETDOMSTATE_STATE_*`.
    pub state: u16,
    /// What it is: bits of the control, hardware and xenstore domain.
    pub caps: u16,
    /// Padding of the C struct; 0.
    pub padding: u32,
    /// No other domain since the host's boot has had this number.
    pub unique_id: u64,
}

const _: () = assert!(size_of::<GetDomainState>() == 16);

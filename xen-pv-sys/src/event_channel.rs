//! `event_channel.h`, the two-level ABI. Floor 0: no behaviour.

use crate::{DomainId, Port};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `EVTCHNOP_bind_interdomain`, with [`BindInterdomain`].
pub const EVTCHNOP_BIND_INTERDOMAIN: u64 = 0;
/// `EVTCHNOP_bind_virq`, with [`BindVirq`].
pub const EVTCHNOP_BIND_VIRQ: u64 = 1;
/// `EVTCHNOP_bind_pirq`, with [`BindPirq`].
pub const EVTCHNOP_BIND_PIRQ: u64 = 2;
/// `EVTCHNOP_close`, with [`Close`].
pub const EVTCHNOP_CLOSE: u64 = 3;
/// `EVTCHNOP_send`, with [`Send`].
pub const EVTCHNOP_SEND: u64 = 4;
/// `EVTCHNOP_status`, with [`Status`].
pub const EVTCHNOP_STATUS: u64 = 5;
/// `EVTCHNOP_alloc_unbound`, with [`AllocUnbound`].
pub const EVTCHNOP_ALLOC_UNBOUND: u64 = 6;
/// `EVTCHNOP_bind_ipi`, with [`BindIpi`].
pub const EVTCHNOP_BIND_IPI: u64 = 7;
/// `EVTCHNOP_bind_vcpu`, with [`BindVcpu`].
pub const EVTCHNOP_BIND_VCPU: u64 = 8;
/// `EVTCHNOP_unmask`, with [`Unmask`].
pub const EVTCHNOP_UNMASK: u64 = 9;
/// `EVTCHNOP_reset`, with [`Reset`].
pub const EVTCHNOP_RESET: u64 = 10;

/// How many ports the two-level ABI has (`EVTCHN_2L_NR_CHANNELS`).
pub const EVTCHN_2L_NR_CHANNELS: u32 = 4096;

/// [`BindPirq::flags`]: other domains may share the line (`BIND_PIRQ__WILL_SHARE`).
pub const BIND_PIRQ_WILL_SHARE: u32 = 1;

/// `EVTCHNSTAT_closed`.
pub const EVTCHNSTAT_CLOSED: u32 = 0;
/// `EVTCHNSTAT_unbound`.
pub const EVTCHNSTAT_UNBOUND: u32 = 1;
/// `EVTCHNSTAT_interdomain`.
pub const EVTCHNSTAT_INTERDOMAIN: u32 = 2;
/// `EVTCHNSTAT_pirq`.
pub const EVTCHNSTAT_PIRQ: u32 = 3;
/// `EVTCHNSTAT_virq`.
pub const EVTCHNSTAT_VIRQ: u32 = 4;
/// `EVTCHNSTAT_ipi`.
pub const EVTCHNSTAT_IPI: u32 = 5;

/// `struct evtchn_alloc_unbound`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AllocUnbound {
    /// Whose port: [`DomainId::SELF`].
    pub dom: DomainId,
    /// Who may bind to it.
    pub remote_dom: DomainId,
    /// Out.
    pub port: Port,
}

const _: () = assert!(size_of::<AllocUnbound>() == 8);

/// `struct evtchn_bind_interdomain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindInterdomain {
    /// Who allocated it.
    pub remote_dom: DomainId,
    /// Padding of the C struct.
    pub padding: u16,
    /// The number there.
    pub remote_port: Port,
    /// Out: the number here.
    pub local_port: Port,
}

const _: () = assert!(size_of::<BindInterdomain>() == 12);

/// `struct evtchn_bind_virq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVirq {
    /// `VIRQ_*`.
    pub virq: u32,
    /// The vCPU it is delivered to.
    pub vcpu: u32,
    /// Out.
    pub port: Port,
}

const _: () = assert!(size_of::<BindVirq>() == 12);

/// `struct evtchn_bind_pirq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindPirq {
    /// The physical interrupt.
    pub pirq: u32,
    /// [`BIND_PIRQ_WILL_SHARE`].
    pub flags: u32,
    /// Out.
    pub port: Port,
}

const _: () = assert!(size_of::<BindPirq>() == 12);

/// `struct evtchn_bind_ipi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindIpi {
    /// The vCPU it is delivered to.
    pub vcpu: u32,
    /// Out.
    pub port: Port,
}

const _: () = assert!(size_of::<BindIpi>() == 8);

/// `struct evtchn_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Close {
    /// The local port.
    pub port: Port,
}

/// `struct evtchn_send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Send {
    /// The local port.
    pub port: Port,
}

/// `struct evtchn_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Status {
    /// Whose port.
    pub dom: DomainId,
    /// Padding of the C struct.
    pub padding: u16,
    /// Which.
    pub port: Port,
    /// Out: `EVTCHNSTAT_*`.
    pub status: u32,
    /// Out: the vCPU it is delivered to.
    pub vcpu: u32,
    /// Out: by the status, the pirq, the virq, or (in the low half) the domain at the other end (`u`).
    pub target: u32,
    /// Out: the port at the other end (`u.interdomain.port`).
    pub remote_port: Port,
}

const _: () = assert!(size_of::<Status>() == 24);

/// `struct evtchn_bind_vcpu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVcpu {
    /// The local port.
    pub port: Port,
    /// The vCPU it is delivered to from now on.
    pub vcpu: u32,
}

const _: () = assert!(size_of::<BindVcpu>() == 8);

/// `struct evtchn_unmask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Unmask {
    /// The local port.
    pub port: Port,
}

/// `struct evtchn_reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reset {
    /// Whose ports: [`DomainId::SELF`].
    pub dom: DomainId,
}

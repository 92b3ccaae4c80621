//! `io/xs_wire.h`: the xenstore's messages and its ring. Floor 0: no behaviour.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XS_CONTROL`.
pub const XS_CONTROL: u32 = 0;
/// `XS_DIRECTORY`.
pub const XS_DIRECTORY: u32 = 1;
/// `XS_READ`.
pub const XS_READ: u32 = 2;
/// `XS_GET_PERMS`.
pub const XS_GET_PERMS: u32 = 3;
/// `XS_WATCH`.
pub const XS_WATCH: u32 = 4;
/// `XS_UNWATCH`.
pub const XS_UNWATCH: u32 = 5;
/// `XS_TRANSACTION_START`.
pub const XS_TRANSACTION_START: u32 = 6;
/// `XS_TRANSACTION_END`.
pub const XS_TRANSACTION_END: u32 = 7;
/// `XS_INTRODUCE`.
pub const XS_INTRODUCE: u32 = 8;
/// `XS_RELEASE`.
pub const XS_RELEASE: u32 = 9;
/// `XS_GET_DOMAIN_PATH`.
pub const XS_GET_DOMAIN_PATH: u32 = 10;
/// `XS_WRITE`.
pub const XS_WRITE: u32 = 11;
/// `XS_MKDIR`.
pub const XS_MKDIR: u32 = 12;
/// `XS_RM`.
pub const XS_RM: u32 = 13;
/// `XS_SET_PERMS`.
pub const XS_SET_PERMS: u32 = 14;
/// `XS_WATCH_EVENT`.
pub const XS_WATCH_EVENT: u32 = 15;
/// `XS_ERROR`.
pub const XS_ERROR: u32 = 16;
/// `XS_IS_DOMAIN_INTRODUCED`.
pub const XS_IS_DOMAIN_INTRODUCED: u32 = 17;
/// `XS_RESUME`.
pub const XS_RESUME: u32 = 18;
/// `XS_SET_TARGET`.
pub const XS_SET_TARGET: u32 = 19;
/// `XS_RESET_WATCHES`.
pub const XS_RESET_WATCHES: u32 = 21;
/// `XS_DIRECTORY_PART`.
pub const XS_DIRECTORY_PART: u32 = 22;
/// `XS_GET_FEATURE`.
pub const XS_GET_FEATURE: u32 = 23;
/// `XS_SET_FEATURE`.
pub const XS_SET_FEATURE: u32 = 24;
/// `XS_GET_QUOTA`.
pub const XS_GET_QUOTA: u32 = 25;
/// `XS_SET_QUOTA`.
pub const XS_SET_QUOTA: u32 = 26;
/// `XS_INVALID`.
pub const XS_INVALID: u32 = 0xffff;

/// Bytes of each of the two rings (`XENSTORE_RING_SIZE`).
pub const XENSTORE_RING_SIZE: usize = 1024;
/// Bytes of a message without its header, at most (`XENSTORE_PAYLOAD_MAX`).
pub const XENSTORE_PAYLOAD_MAX: usize = 4096;
/// Bytes of an absolute path, at most (`XENSTORE_ABS_PATH_MAX`).
pub const XENSTORE_ABS_PATH_MAX: usize = 3072;
/// Bytes of a relative path, at most (`XENSTORE_REL_PATH_MAX`).
pub const XENSTORE_REL_PATH_MAX: usize = 2048;

/// [`DomainInterface::connection`]: connected (`XENSTORE_CONNECTED`).
pub const XENSTORE_CONNECTED: u32 = 0;
/// [`DomainInterface::connection`]: the guest asks to begin anew (`XENSTORE_RECONNECT`).
pub const XENSTORE_RECONNECT: u32 = 1;

/// [`DomainInterface::error`]: none (`XENSTORE_ERROR_NONE`).
pub const XENSTORE_ERROR_NONE: u32 = 0;
/// [`DomainInterface::error`]: the connection failed (`XENSTORE_ERROR_COMM`).
pub const XENSTORE_ERROR_COMM: u32 = 1;
/// [`DomainInterface::error`]: a ring index (`XENSTORE_ERROR_RINGIDX`).
pub const XENSTORE_ERROR_RINGIDX: u32 = 2;
/// [`DomainInterface::error`]: a message (`XENSTORE_ERROR_PROTO`).
pub const XENSTORE_ERROR_PROTO: u32 = 3;

bitflags! {
    /// [`DomainInterface::server_features`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ServerFeatures: u32 {
        /// Can begin anew (`XENSTORE_SERVER_FEATURE_RECONNECTION`).
        const RECONNECTION = 1;
        /// Writes [`DomainInterface::error`] (`XENSTORE_SERVER_FEATURE_ERROR`).
        const ERROR = 2;
        /// `XS_WATCH` takes a depth (`XENSTORE_SERVER_FEATURE_WATCHDEPTH`).
        const WATCHDEPTH = 4;
        /// Permissions for every domain (`XENSTORE_SERVER_FEATURE_DOMID_ANY`).
        const DOMID_ANY = 8;
    }
}

/// The head of a message (`struct xsd_sockmsg`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MessageHeader {
    /// `XS_*` (`type`).
    pub kind: u32,
    /// The requester's, echoed.
    pub req_id: u32,
    /// The transaction; 0 for none.
    pub tx_id: u32,
    /// Bytes that follow.
    pub len: u32,
}

const _: () = assert!(size_of::<MessageHeader>() == 16);

/// The xenstore page (`struct xenstore_domain_interface`). The daemon writes it too: access by atomics at these offsets.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DomainInterface {
    /// To the daemon.
    pub req: [u8; XENSTORE_RING_SIZE],
    /// To the guest: answers and watch events.
    pub rsp: [u8; XENSTORE_RING_SIZE],
    /// Bytes read of the requests, wrapping at 2^32.
    pub req_cons: u32,
    /// Bytes written.
    pub req_prod: u32,
    /// Bytes read of the answers.
    pub rsp_cons: u32,
    /// Bytes written.
    pub rsp_prod: u32,
    /// [`ServerFeatures`].
    pub server_features: u32,
    /// `XENSTORE_CONNECTED` or `XENSTORE_RECONNECT`.
    pub connection: u32,
    /// `XENSTORE_ERROR_*`.
    pub error: u32,
    /// The guest's end of the event channel where Xen made it, or 0: then `XS_INTRODUCE` names it.
    pub evtchn_port: u32,
}

const _: () = assert!(size_of::<DomainInterface>() == 2080);

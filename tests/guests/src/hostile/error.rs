//! What keeps an attack from being made at all.

use runtime::store::ConnectError;
use runtime::time::Elapsed;
use split_driver::hypervisor::XenError;
use split_driver::memory::OutOfMemory;
use split_driver::ring::RingError;
use split_driver::store::StoreError;

/// Why it failed; only ever printed.
#[derive(Debug)]
#[expect(dead_code, reason = "read by Debug alone")]
pub(crate) enum Error {
    Store(StoreError),
    Xen(XenError),
    Ring(RingError),
    Connect(ConnectError),
    Memory,
    /// The backend said nothing in time.
    Silence,
    /// A node or a frame is not what it must be.
    Text,
    /// The backend answered what it must not.
    Answer(i16),
    /// The backend let pass what it must not, or closed what it must bear.
    Wrong(&'static str),
    /// There is no attack of that name.
    Unknown,
}

pub(crate) type Result<T> = core::result::Result<T, Error>;

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<XenError> for Error {
    fn from(error: XenError) -> Self {
        Self::Xen(error)
    }
}

impl From<RingError> for Error {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<OutOfMemory> for Error {
    fn from(_: OutOfMemory) -> Self {
        Self::Memory
    }
}

impl From<Elapsed> for Error {
    fn from(_: Elapsed) -> Self {
        Self::Silence
    }
}

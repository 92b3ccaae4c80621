//! What a service that serves every domain of the host asks of the hypervisor about them. Traits only. Floor 1.

use crate::hypervisor::XenError;
use xen_pv_sys::DomainId;

/// How a domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainState {
    /// Its kernel has ended; the domain is still there, and may be resumed.
    pub shut_down: bool,
    /// It does not come back: nothing that was its is of use to anybody.
    pub gone: bool,
    /// Differs between two domains that had the same number one after the other, as far as Xen lets one tell them apart.
    pub unique: u64,
}

/// The answer of [`Domains::next_changed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This one: it came, its kernel ended, or it went.
    Of(DomainId),
    /// There is no other that has changed.
    None,
    /// This Xen does not say which: look at each that matters.
    Unknown,
}

/// The domains of the host, as a domain sees them that may ask. All methods take `&self`: implementations are single-threaded and share
/// freely.
pub trait Domains {
    /// How a domain is; `None` where there is no such domain.
    ///
    /// # Errors
    /// Why Xen does not say.
    fn state(&self, domain: DomainId) -> Result<Option<DomainState>, XenError>;

    /// A domain that has changed since it was last told of. To be asked until there is none, when Xen raises `VIRQ_DOM_EXC`.
    fn next_changed(&self) -> Change;
}

//! What the store asks of the machine that it runs on. Floor 1.

use alloc::vec::Vec;

use xen_pv_sys::{DomainId, Port};

use crate::Error;

/// The machine beneath the store: domains, their rings, and commands that concern the whole image.
pub trait Host {
    /// `INTRODUCE`: maps the domain's ring and binds its event channel to `port`. Called again for a domain that is connected already,
    /// whose ring then begins anew and whose port may be another.
    ///
    /// # Errors
    /// What the requester is answered; the domain then is not connected.
    fn introduce(&mut self, domain: DomainId, port: Port) -> Result<(), Error>;

    /// `RELEASE`, or the domain is gone: unmaps its ring. The store has ended the connection already.
    fn release(&mut self, domain: DomainId);

    /// Whether such a domain exists now (permissions and quotas are for those that do), by a number that two domains of one id do not
    /// share.
    fn domain(&mut self, domain: DomainId) -> Option<u64>;

    /// Bytes that all of the image's allocations take, where the host counts them: for `CONTROL memreport`.
    fn memory_in_use(&self) -> Option<usize> {
        None
    }

    /// A `CONTROL` command that the store does not know itself. `words` gives its name and two words more; a fourth is all that follows, zero
    /// bytes too, since live update sends images so. What is left in `reply` is answered, `OK` where that is empty. `None`: the host does
    /// not know it either.
    ///
    /// # Errors
    /// What the requester is answered.
    fn control(&mut self, words: &mut dyn Iterator<Item = &[u8]>, reply: &mut Vec<u8>) -> Option<Result<(), Error>>;
}

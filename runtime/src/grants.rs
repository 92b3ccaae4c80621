//! The grant table, version 1: granting, mapping, copying. Floor 2.

use crate::memory::Page;
use alloc::rc::Rc;
use core::sync::atomic::AtomicU32;
use split_driver::hypervisor::XenError;
use split_driver::memory::SharedMemory;
use xen_pv_sys::grant_table::GrantCopy;
use xen_pv_sys::{DomainId, GrantRef};

/// A page of ours that another domain may map or copy. Ended by `Drop`; where the peer still has it mapped, the page is kept aside
/// until the peer lets go.
#[derive(Debug)]
pub struct Grant(GrantRef, Rc<Page>);

impl Grant {
    /// What to tell the peer.
    pub fn reference(&self) -> GrantRef {
        self.0
    }
    /// The granted page.
    pub fn page(&self) -> &Rc<Page> {
        &self.1
    }
    /// Ends the grant.
    ///
    /// # Errors
    /// The grant itself, still valid, where the peer has the page in use.
    pub fn end(self) -> Result<Rc<Page>, Self> {
        todo!()
    }
}

/// Lets `domain` map or copy `page`, writable or not.
///
/// # Errors
/// [`XenError::Exhausted`] where the grant table is at its limit.
pub fn grant_access(domain: DomainId, page: Rc<Page>, read_only: bool) -> Result<Grant, XenError> {
    let _ = (domain, page, read_only);
    todo!()
}

/// Pages of a peer, mapped one after the other; unmapped by `Drop`.
#[derive(Debug)]
pub struct GrantMapping;

impl SharedMemory for GrantMapping {
    fn words(&self) -> &[AtomicU32] {
        todo!()
    }
}

/// Maps pages that `domain` granted, writable, contiguous and in this order: one hypercall for all.
///
/// # Errors
/// The first grant status that is not success (none stays mapped), or [`XenError::Exhausted`].
pub fn map(domain: DomainId, references: &[GrantRef]) -> Result<GrantMapping, XenError> {
    let _ = (domain, references);
    todo!()
}

/// `GNTTABOP_copy` of the batch in one hypercall; elements whose status asks for it are tried again. A local end must be a frame of a
/// [`Page`] or of [`crate::memory::Pages`], else its status is `GNTST_bad_page` and nothing is copied.
pub fn copy(batch: &mut [GrantCopy]) {
    let _ = batch;
    todo!()
}

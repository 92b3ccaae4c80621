//! Guests' interfaces: netback's control plane on this domain's store. Floor 3.

use super::Domain;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use netdom::datapath::VifId;
use netdom::netback::violation::Violation;

pub(super) async fn start(_domain: &Rc<Domain>) {}
pub(super) fn set_carrier(_domain: &Domain, _up: bool) {}
pub(super) fn fail(_domain: &Domain, _vif: VifId, _violation: Violation) {}
/// The vifs in use, with the names that statistics are kept under.
pub(super) fn list(_domain: &Domain) -> Vec<(String, VifId)> {
    Vec::new()
}

//! Writes down what the domain's next life has to know of its ports ([`netdom::kept`]). Floor 3.

use super::Domain;
use alloc::rc::Rc;
use alloc::string::ToString;
use netdom::kept::{INTERVAL, Kept, PAUSE};
use runtime::select::select;
use runtime::time;

/// Writes the state down for good.
pub(super) async fn run(domain: Rc<Domain>) {
    loop {
        write(&domain);
        time::sleep(PAUSE).await;
        select(time::sleep(INTERVAL), domain.changed.wait()).await;
    }
}

/// Writes the state down now.
fn write(domain: &Domain) {
    let path = domain.path.borrow();
    let nics = domain.nics.borrow();
    let nics = nics.active().iter().filter_map(|nic| Some((nic.address().to_string(), path.keep_nic(nic.id())?)));
    let kept = Kept::new(domain.bus.backend(), nics, &domain.inherited.borrow(), domain.lost);
    let bonds = domain.bonds.iter().zip(domain.words.bonds());
    let bonds = bonds.filter_map(|(id, word)| path.keep_bond(*id, &word.name, &word.nics));
    let kept = kept.with_bonds(bonds.collect()).with_leases(path.keep_leases());
    domain.written.set(kept.to_bytes());
}

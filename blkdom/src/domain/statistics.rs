//! What each vbd and each unit counted, as text. Floor 3.

use super::Domain;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use blkdom::datapath::statistics::{Failure, Statistics};
use core::fmt::Write;

/// One thing's counters as text: those of failures only where there were any.
fn line(statistics: &Statistics) -> String {
    let Statistics { reads, sectors_read, writes, sectors_written, flushes, discards, sectors_discarded, failures } =
        statistics;
    let mut text = format!(
        "{reads} reads {sectors_read} sectors, {writes} writes {sectors_written} sectors, {flushes} flushes, \
         {discards} discards {sectors_discarded} sectors"
    );
    for ((_, name), count) in Failure::ALL.iter().zip(failures) {
        if *count > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, ", {name} {count}");
        }
    }
    text
}

/// Every unit, then every vbd, by name.
pub(super) fn lines(domain: &Domain) -> Vec<(String, String)> {
    let path = domain.path.borrow();
    let units = domain.volumes.sources();
    let units = units.into_iter().filter_map(|source| Some((source.name, line(&path.unit_statistics(source.unit)?))));
    let vbds = domain.bus.backend().vbds().into_iter().filter_map(|(device, vbd)| {
        let name = format!("vbd/{}/{}", device.frontend.0, device.handle);
        Some((name, line(&path.vbd_statistics(vbd)?)))
    });
    units.chain(vbds).collect()
}

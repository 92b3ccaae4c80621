//! What each vbd and each unit counted, as text. Floor 3.

use super::Domain;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use blkdom::datapath::statistics::{Failure, Statistics};
use core::fmt::Write;
use split_driver::xenbus::DeviceId;

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

/// Every unit, by name.
pub(super) fn units(domain: &Domain) -> Vec<(String, Statistics)> {
    let path = domain.path.borrow();
    let units = domain.volumes.sources();
    units.into_iter().filter_map(|source| Some((source.name, path.unit_statistics(source.unit)?))).collect()
}

/// Every vbd that is connected.
pub(super) fn vbds(domain: &Domain) -> Vec<(DeviceId, Statistics)> {
    let path = domain.path.borrow();
    let vbds = domain.bus.backend().vbds();
    vbds.into_iter().filter_map(|(device, vbd)| Some((device, path.vbd_statistics(vbd)?))).collect()
}

/// Every unit, then every vbd, by name.
pub(super) fn lines(domain: &Domain) -> Vec<(String, String)> {
    let units = units(domain).into_iter().map(|(name, statistics)| (name, line(&statistics)));
    let vbds = vbds(domain).into_iter().map(|(device, statistics)| {
        let name = format!("vbd/{}/{}", device.frontend.0, device.handle);
        (name, line(&statistics))
    });
    units.chain(vbds).collect()
}

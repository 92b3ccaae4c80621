//! The AHCI driver with an adapter that answers nonsense. Host.
//!
//! Each input is one life of a driver; what the adapter does in it, and what must hold, is in the driver's own model.

use crate::Target;
use blkdom::disk::ahci::model::hostile;

/// The driver and its adapter, anew for each input.
pub struct Ahci;

impl Target for Ahci {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        hostile::run(input, seen);
    }
}

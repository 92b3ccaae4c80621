//! The NVMe driver with a controller that answers nonsense. Host.
//!
//! Each input is one life of a driver; what the controller does in it, and what must hold, is in the driver's own model.

use crate::Target;
use blkdom::disk::nvme::model::hostile;

/// The driver and its controller, anew for each input.
pub struct Nvme;

impl Target for Nvme {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        hostile::run(input, seen);
    }
}

//! Frames that have netdom fail, for tests: an image that is built without the feature `faults` has none of it. Pure. Floor 3.

use crate::ethernet::MacAddress;
use crate::offload::head::Head;
use core::hint::spin_loop;

/// A station's address, of those that are locally administered: netdom panics.
const PANIC: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0xfa]);
/// The same: it hangs.
const HANG: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0xfb]);

/// A guest sends this.
pub(crate) fn look_at(head: &Head) {
    match head.destination {
        PANIC => panic!("a frame that is poison: a fault that was asked for"),
        HANG => loop {
            spin_loop();
        },
        _ => {}
    }
}

//! Frames that have netdom fail, for tests: an image that is built without the feature `faults` has none of it. Pure. Floor 3.

use crate::offload::head::Head;
use core::hint::spin_loop;

/// The first of IEEE 802's ethertypes for local experiments: netdom panics.
const PANIC: u16 = 0x88b5;
/// The second one: it hangs.
const HANG: u16 = 0x88b6;

/// A guest sends this.
pub(crate) fn look_at(head: &Head) {
    match head.ethertype {
        PANIC => panic!("a frame that is poison: a fault that was asked for"),
        HANG => loop {
            spin_loop();
        },
        _ => {}
    }
}

//! The store against its naive model: scripts of several domains that know each other's weak spots. Host.

use crate::Target;
use std::fmt::Write;
use xen_pv_sys::io::xs_wire::XS_ERROR;
use xenstore_lite::differential::{Pair, script};
use xenstore_lite::fakes::Heard;

/// Domains 1 and 2 are there when a script begins; it may have 3 as well.
const BEGINNING: [u8; 8] = [230, 1, 0, 0, 230, 2, 0, 0];

/// The store and its model, anew for each input.
#[derive(Default)]
pub struct Xenstore {
    steps: u64,
}

impl Target for Xenstore {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let mut pair = Pair::new();
        let mut heard = Vec::new();
        for step in script(&BEGINNING).chain(script(input)) {
            pair.step(&step, &mut heard);
            self.steps += 1;
        }
        pair.finish(&mut heard);
        // What was heard: each kind with the one before, and each error by whether it was in a transaction.
        let mut before = 0;
        for Heard { kind, transaction, payload } in heard {
            let error = if kind == XS_ERROR { crate::hash(&payload) & 0xffff } else { 0 };
            seen.push(1 << 48 | error << 1 | u64::from(transaction > 0));
            seen.push(before << 32 | u64::from(kind));
            before = u64::from(kind);
        }
    }

    fn operations(&self) -> Option<u64> {
        Some(self.steps)
    }
}

/// The steps of an input.
pub fn describe(input: &[u8]) -> String {
    let mut text = String::new();
    for step in script(&BEGINNING).chain(script(input)) {
        let _ = writeln!(text, "{step:?}");
    }
    text
}

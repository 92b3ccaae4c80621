//! Shorter scripts that still fail. Pure but for what tries them. Host.

use anyhow::Result;

use super::script::Step;

/// Tries at most: each is a script on the real store.
const TRIES: usize = 60;

/// Leaves out what may be left out, in halves, quarters and so on.
pub(super) fn reduce(steps: &[Step], mut fails: impl FnMut(&[Step]) -> Result<bool>) -> Result<Vec<Step>> {
    let mut shortest = steps.to_vec();
    let mut size = steps.len().div_ceil(2);
    let mut tries = 0;
    while size > 0 {
        let mut begin = 0;
        while begin < shortest.len() && tries < TRIES {
            let without: Vec<Step> =
                shortest.iter().take(begin).chain(shortest.iter().skip(begin + size)).cloned().collect();
            tries += 1;
            if fails(&without)? {
                shortest = without;
            } else {
                begin += size;
            }
        }
        size /= 2;
    }
    Ok(shortest)
}

//! The row's store against `xenstore-lite` in process, request by request. Host.

use anyhow::Result;

use super::super::Case;
use super::Store;
use crate::differential::Theatre;
use crate::stage::Stage;

pub(super) const CASES: &[Case<Store>] =
    &[Case { name: "store: random scripts of dom0 and four domains are answered as xenstore-lite says", run: random }];

/// Scripts, and requests in each.
const SCRIPTS: u64 = 40;
const LENGTH: usize = 120;

fn random(stage: &&Stage) -> Result<String> {
    let theatre = Theatre::open(&stage.lab)?;
    // Others, where somebody looks for more.
    let first = std::env::var("OXIDOM_SEED").map_or(Ok(1), |seed| seed.parse())?;
    let scripts: Vec<_> =
        (first..first + SCRIPTS).map(|seed| (format!("seed {seed}"), theatre.random(seed, LENGTH))).collect();
    let requests = theatre.compare(&scripts)?;
    theatre.close()?;
    Ok(format!("{requests} requests in {SCRIPTS} scripts, seeds from {first}"))
}

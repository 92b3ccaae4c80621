//! The row's store against `xenstore-lite` in process, request by request. Host.

use anyhow::Result;

use super::super::Case;
use super::Store;
use crate::differential::Theatre;
use crate::differential::script::Step;
use crate::stage::Stage;

pub(super) const CASES: &[Case<Store>] = &[
    Case { name: "store: random scripts of dom0 and four domains are answered as xenstore-lite says", run: random },
    Case { name: "store: random scripts that meet quotas are answered as xenstore-lite says", run: meeting_quotas },
];

/// Scripts, and requests in each.
const SCRIPTS: u64 = 40;
const LENGTH: usize = 120;

fn random(stage: &&Stage) -> Result<String> {
    compare(stage, |theatre, seed| theatre.random(seed, LENGTH))
}

fn meeting_quotas(stage: &&Stage) -> Result<String> {
    compare(stage, |theatre, seed| theatre.meeting_quotas(seed, LENGTH))
}

fn compare(stage: &Stage, write: fn(&Theatre<'_>, u64) -> Vec<Step>) -> Result<String> {
    let theatre = Theatre::open(&stage.lab)?;
    // Others, where somebody looks for more.
    let first = std::env::var("OXIDOM_SEED").map_or(Ok(1), |seed| seed.parse())?;
    let scripts: Vec<_> =
        (first..first + SCRIPTS).map(|seed| (format!("seed {seed}"), write(&theatre, seed))).collect();
    let compared = theatre.compare(&scripts);
    let closed = theatre.close();
    let (requests, refused) = compared?;
    closed?;
    Ok(format!("{requests} requests in {SCRIPTS} scripts, seeds from {first}; {refused} refused for a quota"))
}

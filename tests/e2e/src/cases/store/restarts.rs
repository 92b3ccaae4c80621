//! The store begins anew under load, after a panic and as another image, and nobody notices. Host.

use std::time::Duration;

use anyhow::{Context, Result};

use super::load::under_load;
use super::{Case, NAME, PATIENCE, Store};
use crate::cases::store_lives::{IMAGE, lives, pauses};
use crate::stage::Stage;

pub(super) const CASES: &[Case<Store>] = &[Case {
    name: "store: 100 live updates and 100 panics under load of dom0 and four guests: nothing lost, nothing twice",
    run: restarts,
}];

/// Of each kind.
const RESTARTS: u64 = 100;
/// How long all of them may take.
const ALL: Duration = Duration::from_secs(1800);

/// The load does the requests that fail: a panic comes with one of the next, at each point in turn.
fn restarts(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    let before = lives(stage)?;
    let script = format!(
        "set -e; i=0; while [ $i -lt {RESTARTS} ]; do for point in before served kept sent memory; do \
         xenstore-control live-update {IMAGE} >/tmp/update.log 2>&1 || {{ echo update $i; cat /tmp/update.log; exit 1; }}; \
         xenstore-control fault $point $((i % 7 * 3)); i=$((i + 1)); done; done"
    );
    let done = under_load(lab, || {
        lab.run_for(&script, ALL)?.success()?;
        lab.wait_for_console(NAME, &format!("life {} serves", before + 2 * RESTARTS), PATIENCE).map(drop)
    })?;
    let all = lives(stage)?;
    anyhow::ensure!(all == before + 2 * RESTARTS, "{} lives began", all - before);
    lab.must("xenstore-control check").context("the store's own look at itself")?;
    Ok(format!(
        "{} requests, {} events, {} transactions and {} begun again; the slowest request {} ms; {}",
        done.requests,
        done.events,
        done.transactions,
        done.again,
        done.slowest_us / 1000,
        pauses(stage)?
    ))
}

//! A load of dom0 and four guests on the store, each of which checks all that it is answered and told. Host.

use std::fmt;

use anyhow::{Context, Result, ensure};
use lab::{Guest, GuestConfig, Lab};
use serde::Deserialize;

use crate::traffic::Shell;

/// A counter that all of them raise.
const COUNTER: &str = "/lab/counter";
/// Ends the load.
const STOP: &str = "/tmp/load.stop";
/// Guests beside dom0.
const GUESTS: u32 = 4;

/// What they did.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Done {
    requests: u64,
    events: u64,
    transactions: u64,
    /// Transactions that were to be done again.
    again: u64,
    /// How often they raised the counter.
    raised: u64,
    slowest_us: u64,
    /// Dom0's slowest request.
    #[serde(skip)]
    pub(super) dom0_slowest_us: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, events, transactions, again, slowest_us, .. } = self;
        write!(f, "{requests} requests, {events} events, {transactions} transactions and {again} begun again; ")?;
        write!(f, "the slowest request {} ms", slowest_us / 1000)
    }
}

/// Runs `disturb` under the load; gives what was done meanwhile.
pub(super) fn under_load(lab: &Lab, disturb: impl FnOnce() -> Result<()>) -> Result<Done> {
    let guests: Vec<Guest<'_>> =
        (0..GUESTS).map(|number| lab.create(&GuestConfig::new(&format!("load{number}")))).collect::<Result<_>>()?;
    let allowed: Vec<String> = guests.iter().map(|guest| format!("b{}", guest.id())).collect();
    lab.must(&format!("xenstore-write {COUNTER} 0 && xenstore-chmod {COUNTER} n0 {}", allowed.join(" ")))?;
    let all = || guests.iter().map(|guest| guest as &dyn Shell).chain([lab as &dyn Shell]);
    for (number, shell) in all().enumerate() {
        let own = if number == guests.len() { "/lab/load" } else { "data/load" };
        shell.sh(&format!("rm -f {STOP}"))?;
        shell.start("load", &format!("/init load {own} {COUNTER} {} {STOP}", number + 1))?;
    }
    let disturbed = disturb();
    let mut sum = Done::default();
    for shell in all() {
        shell.sh(&format!("touch {STOP}"))?;
    }
    for shell in all() {
        let said = shell.finish("load")?;
        let done: Done = serde_json::from_str(said.trim())
            .map_err(|_| anyhow::anyhow!("{}'s load ended with: {}", shell.label(), said.trim()))?;
        ensure!(done.requests > 0 && done.events > 0, "{} did nothing", shell.label());
        sum.requests += done.requests;
        sum.events += done.events;
        sum.transactions += done.transactions;
        sum.again += done.again;
        sum.raised += done.raised;
        sum.slowest_us = sum.slowest_us.max(done.slowest_us);
        // Dom0 is the last.
        sum.dom0_slowest_us = done.slowest_us;
        // The kernel says so when it is given an answer that it has not asked for, or one for the second time.
        let complaints = shell.sh("dmesg | grep -i 'while reading message\\|while writing message' || true")?;
        ensure!(complaints.is_empty(), "{}'s kernel says: {complaints}", shell.label());
    }
    disturbed?;
    let counter = lab.must(&format!("xenstore-read {COUNTER}"))?;
    ensure!(counter.trim() == sum.raised.to_string(), "raised {} times, the counter is {counter}", sum.raised);
    for guest in &guests {
        lab.must(&format!("xl destroy {}", guest.name()))?;
    }
    lab.must("xenstore-rm /lab").context("the load's nodes")?;
    Ok(sum)
}

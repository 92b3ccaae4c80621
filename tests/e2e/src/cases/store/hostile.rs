//! A domain that attacks the store by its ring: it alone is cut off or held, and its neighbour is answered as before. Host.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::Lab;

use super::super::Case;
use super::{NAME, Store};
use crate::differential::{create, play_lines};
use crate::stage::Stage;

pub(super) const CASES: &[Case<Store>] = &[
    Case { name: "store: a hostile domain: rings and messages that are none", run: broken },
    Case { name: "store: a hostile domain: floods, storms, and all of its quotas used", run: floods },
];

/// How an attack ends: the word in the page (`XENSTORE_ERROR_*`, `io/xs_wire.h`), and the log's.
struct Attack {
    name: &'static str,
    fault: u32,
    log: &'static str,
}

const fn borne(name: &'static str) -> Attack {
    Attack { name, fault: 0, log: "" }
}

const BROKEN: &[Attack] = &[
    Attack { name: "request-index", fault: 2, log: "is cut off: an index" },
    Attack { name: "answer-index", fault: 2, log: "is cut off: an index" },
    Attack { name: "long-message", fault: 3, log: "is cut off: a message" },
    Attack { name: "endless-message", fault: 3, log: "is cut off: a message" },
    borne("half-header"),
    borne("half-payload"),
    borne("unknown-types"),
    borne("bad-paths"),
];

const FLOODS: &[Attack] = &[
    borne("event-storm"),
    borne("read-flood"),
    borne("write-flood"),
    borne("long-values"),
    borne("watch-flood"),
    borne("watch-events"),
    borne("transaction-flood"),
    borne("transactions-kept"),
    borne("nodes-at-quota"),
    borne("never-reading"),
    borne("reconnect-storm"),
];

/// The neighbour's median may be so many times what it is where all is quiet.
const FACTOR: f64 = 3.0;
/// Tries of an attack: a machine with other work measures nonsense now and then.
const TRIES: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(60);

fn broken(stage: &&Stage) -> Result<String> {
    family(&stage.lab, BROKEN)
}

fn floods(stage: &&Stage) -> Result<String> {
    family(&stage.lab, FLOODS)
}

fn family(lab: &Lab, attacks: &[Attack]) -> Result<String> {
    create(lab, "mallory")?;
    create(lab, "alice")?;
    let (mallory, alice) = (lab.domain_id("mallory")?, lab.domain_id("alice")?);
    let mut ratios = Vec::new();
    for attack in attacks {
        let mut best = f64::INFINITY;
        let mut measured = String::new();
        for _ in 0..TRIES {
            let (ratio, text) = one(lab, attack, mallory, alice).with_context(|| format!("attack {}", attack.name))?;
            if ratio < best {
                (best, measured) = (ratio, text);
            }
            if best <= FACTOR {
                break;
            }
        }
        ensure!(
            best <= FACTOR,
            "attack {}: the neighbour's reads take {best:.1} times as long: {measured}",
            attack.name
        );
        ratios.push(format!("{} {measured}", attack.name));
    }
    for name in ["mallory", "alice"] {
        lab.must(&format!("xl destroy {name}"))?;
    }
    lab.must("xenstore-rm /lab-barrier")?;
    Ok(format!("median of a neighbour's read idle, beside a busy domain, attacked, in us: {}", ratios.join("; ")))
}

/// Makes one attack; gives the ratio of the neighbour's medians, and what was measured.
fn one(lab: &Lab, attack: &Attack, mallory: u32, alice: u32) -> Result<(f64, String)> {
    let lines = [
        format!("{alice} measure"),
        format!("{mallory} attack.burn"),
        format!("{alice} measure"),
        format!("{mallory} stop"),
        format!("{mallory} attack.{}", attack.name),
        format!("{alice} measure"),
        format!("{mallory} stop"),
        format!("{mallory} attack.burn"),
        format!("{alice} measure"),
        format!("{mallory} stop"),
        format!("{mallory} reconnect"),
        // Its connection is as good as new, and what it left can be removed.
        format!("{mallory} q13.0.data%00"),
    ];
    let said = play_lines(lab, &lines)?;
    let [idle, begun, busy, _, attacking, attacked, fault, _, again, _, reconnected, removed] = said.as_slice() else {
        bail!("the puppets said {said:?}");
    };
    ensure!(begun == "begun" && attacking == "begun", "it did not begin: {said:?}");
    ensure!(*fault == attack.fault.to_string(), "the page says error {fault}, and not {}", attack.fault);
    if !attack.log.is_empty() {
        lab.wait_for_console(NAME, &format!("domain {mallory} {}", attack.log), PATIENCE)?;
    }
    ensure!(reconnected == "true", "the store does not let it begin anew");
    ensure!(removed == "m13.OK%00", "after it began anew: {removed}");
    lab.must(&format!(
        "xenstore-write /local/domain/{mallory}/data '' && xenstore-chmod /local/domain/{mallory}/data n{mallory}"
    ))?;
    let median = |text: &String| -> Result<f64> {
        let nanoseconds: f64 = text.split('.').next().unwrap_or_default().parse()?;
        Ok(nanoseconds / 1e3)
    };
    let (idle, busy, attacked, again) = (median(idle)?, median(busy)?, median(attacked)?, median(again)?);
    let ratio = attacked / idle;
    Ok((ratio, format!("{idle:.0}, {:.0}, {attacked:.0}: {ratio:.1}", busy.max(again))))
}

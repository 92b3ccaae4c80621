//! Attacks of hostile frontends, made by the image `hostile` of `tests/guests`: what they are, how each must end, and how one is made. Host.
//!
//! What an attack may come to follows from the protocol ([`Protocol`]), for any backend; what netdom and blkdom make of it is narrower
//! ([`End`]). The cases of `cargo xtask test` and `cargo xtask attack` take the same tables.

pub mod block;
pub mod campaign;
pub mod network;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, NATIVE_CLOCK};

use crate::driver_domain::DriverDomain;

/// What the protocol says of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The frontend may do this: its device stays connected and is served.
    Allowed,
    /// What is asked cannot be done: it is answered with an error, or the device is closed.
    Refused,
    /// What the frontend says of its rings is not so, and nothing on them can be believed from then on: the device is closed.
    Broken,
    /// One of these, by chance.
    Open,
}

/// How an attack on netdom or blkdom ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The device is closed; its `error` node says why, in words that have these among them.
    Closed(&'static str),
    /// The frontend may go on: what it does harms nobody.
    Borne,
    /// One or the other, by chance.
    Either,
}

/// What an attack takes besides a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A second vif, which sends to the first and must outlive it.
    Helper,
    /// A vbd that may not be written.
    ReadOnly,
}

/// An attack of the image.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// As its command line names it; of the block ones without `blk-`.
    pub name: &'static str,
    /// By the protocol.
    pub protocol: Protocol,
    /// By netdom or blkdom.
    pub end: End,
    /// What it takes.
    pub needs: Needs,
}

impl Attack {
    const fn new(name: &'static str, protocol: Protocol, end: End) -> Self {
        Self { name, protocol, end, needs: Needs::Nothing }
    }

    const fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// Whether it goes on for as long as its domain lives, so that nothing can be asked of that.
    fn never_ends(&self) -> bool {
        self.name == "vanish"
    }
}

/// How long an attack, and what the driver domain does about it, may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs something with the image that makes an attack, which waits for its word to begin; returns when the driver domain has forgotten it.
///
/// # Errors
/// What did not come up, what the run says, or what was left; with the end of the image's console.
pub fn with_attacker<T>(
    lab: &Lab,
    domain: &DriverDomain<'_>,
    devices: &str,
    words: &str,
    run: impl FnOnce(u32) -> Result<T>,
) -> Result<T> {
    let config = format!(
        "name = \"hostile\"\ntype = \"pv\"\nkernel = \"/usr/lib/oxidom/hostile\"\nmemory = 16\nvcpus = 1\n\
         {devices}\nextra = \"attack={words} wait\"\non_crash = \"preserve\"\n{NATIVE_CLOCK}"
    );
    lab.put("/etc/xen/hostile.cfg", 0o644, config.as_bytes())?;
    lab.must("xl create -q /etc/xen/hostile.cfg")?;
    let id = lab.domain_id("hostile")?;
    let result = wait_for_word(lab, &word(id), "ready").and_then(|()| run(id));
    let result = lab.with_console("hostile", result);
    let result = lab.destroy_after("hostile", result)?;
    // The next one begins when this one is forgotten.
    let gone = format!("! xenstore-exists {}", domain.backends(id));
    lab.wait_until(&gone, PATIENCE).context("the driver domain or the toolstack kept its directory")?;
    Ok(result)
}

/// Where the image says how far it is.
fn word(id: u32) -> String {
    format!("/local/domain/{id}/data/hostile")
}

/// Lets the attack begin, and waits until it is made, for so long.
///
/// # Errors
/// What the image says that failed.
pub fn let_go(lab: &Lab, id: u32, patience: Duration) -> Result<()> {
    lab.must(&format!("xenstore-write /local/domain/{id}/data/go 1"))?;
    wait_for(lab, &word(id), "done", patience)
}

/// Whether netdom's or blkdom's device must carry traffic when one frontend has made these.
pub fn must_work(attacks: &[Attack]) -> bool {
    attacks.iter().all(|attack| attack.end == End::Borne && !attack.never_ends())
}

/// Has the attacker's own device carry traffic after the attack: packets both ways, or blocks.
///
/// # Errors
/// Where it does not.
pub fn carries(lab: &Lab, id: u32) -> Result<()> {
    lab.must(&format!("xenstore-write /local/domain/{id}/data/go 2"))?;
    wait_for_word(lab, &word(id), "works").context("the attacker's own device carries no traffic")
}

/// Waits for the image's word; `failed` ends the wait.
///
/// # Errors
/// Where it says another.
pub fn wait_for_word(lab: &Lab, node: &str, word: &str) -> Result<()> {
    wait_for(lab, node, word, PATIENCE)
}

fn wait_for(lab: &Lab, node: &str, word: &str, patience: Duration) -> Result<()> {
    let either = format!("xenstore-read {node} | grep -x -e {word} -e failed");
    let said = lab.wait_until(&either, patience).with_context(|| format!("it never was {word}"))?;
    if said.trim() != word {
        bail!("it {} before it was {word}", said.trim());
    }
    Ok(())
}

/// Whether an attack on netdom or blkdom ended as it must; gives the reason where its device was closed.
///
/// # Errors
/// Where it did not.
pub fn judge(lab: &Lab, domain: &DriverDomain<'_>, backend: &str, end: End) -> Result<Option<String>> {
    match end {
        End::Closed(words) => Ok(Some(closed(lab, domain, backend, words)?)),
        End::Borne => {
            ensure!(lab.run(&format!("xenstore-exists {backend}/error"))?.status != 0, "{}", error(lab, backend)?);
            lab.wait_for_node(&format!("{backend}/state"), "4", PATIENCE).context("the device is not connected")?;
            Ok(None)
        }
        End::Either => Ok(error(lab, backend).ok()),
    }
}

fn error(lab: &Lab, backend: &str) -> Result<String> {
    Ok(lab.must(&format!("xenstore-read {backend}/error"))?.trim().to_owned())
}

/// The device must be closed, for this reason, and the log must say so.
fn closed(lab: &Lab, domain: &DriverDomain<'_>, backend: &str, words: &str) -> Result<String> {
    lab.wait_until(&format!("xenstore-exists {backend}/error"), PATIENCE).context("no error node")?;
    let reason = error(lab, backend)?;
    ensure!(reason.contains(words), "closed for '{reason}', not for '{words}'");
    let state = format!("xenstore-read {backend}/state | grep -x -e 5 -e 6");
    lab.wait_until(&state, PATIENCE).context("the device is not closed")?;
    lab.wait_for_console(&domain.name, &reason, PATIENCE).context("the reason is not in the log")?;
    Ok(reason)
}

//! A driver domain as a service of dom0: created, waited for, built again when it is gone, shut down at the end. Host.
//!
//! `oxidom@NAME.service` runs this. `xl` has its own process for each domain, which acts by `on_crash` and `on_reboot`; a domain that it
//! creates anew has another number, and its guests are attached to that one here.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use split_driver::store::Store;
use split_driver::time::{Instant, Timer};

use crate::domain::{self, Domain, text};
use crate::driver_configs::{DriverConfig, PciAddress};
use crate::model::clean;
use crate::reattach::{Attached, Reattach, Toolstack};

/// How long a domain may take until it is ready: its devices' links and drives among it.
const READY: Duration = Duration::from_secs(120);
/// How long `xl` has to create a domain anew that crashed or was rebooted.
const GRACE: Duration = Duration::from_secs(15);
/// Domains that are created in [`WINDOW`] at most.
const BUILDS: usize = 5;
/// See [`BUILDS`].
const WINDOW: Duration = Duration::from_secs(600);
/// How often the domain is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long it may take to shut down, and then to be gone: libxl waits ten seconds for the frontend of a PCI device that has ended.
const SHUTDOWN: Duration = Duration::from_secs(45);

/// The host, but for `xl` and the store.
pub(crate) trait Host {
    /// Gives a PCI device to pciback.
    ///
    /// # Errors
    /// There is none, or dom0 needs it.
    async fn assign(&self, device: PciAddress) -> Result<()>;

    /// Whether the domain is to end.
    fn is_stopped(&self) -> bool;

    /// Whether another build of this program is to go on beside the domain.
    fn is_reloaded(&self) -> bool;

    /// Whether the whole host shuts down.
    fn shuts_down(&self) -> bool;

    /// Tells the administrator, and whether the domain serves.
    fn say(&self, text: &str, serves: bool);
}

/// Why a domain is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It has ended, as it was to.
    Stopped,
    /// It runs, and another build of this program is to keep it.
    Reloaded,
}

/// A driver domain, kept.
pub(crate) struct Keep<'a, S, T, X, H> {
    /// Its config.
    pub(crate) config: &'a DriverConfig,
    /// The store.
    pub(crate) store: &'a S,
    /// The clock.
    pub(crate) clock: &'a T,
    /// `xl`.
    pub(crate) toolstack: X,
    /// The host.
    pub(crate) host: H,
}

impl<S: Store, T: Timer, X: Toolstack, H: Host> Keep<'_, S, T, X, H> {
    /// Has the domain run until it is to end, and then ends it; or until another build is to go on.
    ///
    /// # Errors
    /// It cannot be created, does not become ready, or ends ever again; or of the store. The domain is left as it is.
    pub(crate) async fn run(&self) -> Result<End> {
        let mut builds = VecDeque::new();
        let mut serving: Option<u32> = None;
        let mut gone_since: Option<Instant> = None;
        while !self.host.is_stopped() {
            match self.domains(serving).await?.as_slice() {
                [domain] if serving == Some(domain.id) => gone_since = None,
                [domain] if self.wait_ready(domain).await? => {
                    gone_since = None;
                    let before = serving.replace(domain.id);
                    self.host.say(&self.said(domain, before).await?, true);
                    self.reattach(before).await;
                }
                [] => {
                    let since = *gone_since.get_or_insert_with(|| self.clock.now());
                    let waits = serving.is_some() && self.clock.now() < since + GRACE;
                    if !waits {
                        self.create(&mut builds).await?;
                    }
                }
                // One that is not ready has ended, or is to end. Of several of a name, the old one goes when its devices are gone.
                _ => {}
            }
            if self.host.is_reloaded() {
                return Ok(End::Reloaded);
            }
            self.clock.sleep(LOOK).await;
        }
        self.stop().await.map(|()| End::Stopped)
    }

    /// The domains of the name. Where the one that serves has it still, that one: a single question, however many domains there are.
    async fn domains(&self, serving: Option<u32>) -> Result<Vec<Domain>> {
        if let Some(id) = serving {
            let domain = Domain { id, name: self.config.name.clone() };
            if text(self.store, &domain.node("name")).await?.as_ref() == Some(&domain.name) {
                return Ok(vec![domain]);
            }
        }
        let mut domains = domain::all(self.store).await?;
        domains.retain(|domain| domain.name == self.config.name);
        Ok(domains)
    }

    async fn create(&self, builds: &mut VecDeque<Instant>) -> Result<()> {
        let (name, now) = (&self.config.name, self.clock.now());
        while builds.front().is_some_and(|build| *build + WINDOW <= now) {
            builds.pop_front();
        }
        if builds.len() >= BUILDS {
            bail!("{name} ended {BUILDS} times within {WINDOW:?}, and is left; `oxidom log {name}` may tell why")
        }
        builds.push_back(now);
        for device in &self.config.devices {
            self.host.assign(*device).await?;
        }
        let file = self.config.file.display().to_string();
        self.host.say(&format!("creating {name} by {file}"), false);
        self.toolstack.xl(&["create", "-q", &file]).await.map(drop)
    }

    /// Waits until a domain serves; whether it does: it may be gone meanwhile, or is to end.
    async fn wait_ready(&self, domain: &Domain) -> Result<bool> {
        let deadline = self.clock.now() + READY;
        loop {
            if text(self.store, &domain.node("data/ready")).await?.is_some() {
                return Ok(true);
            }
            if self.host.is_stopped() || text(self.store, &domain.node("name")).await?.is_none() {
                return Ok(false);
            }
            if self.clock.now() >= deadline {
                let error = text(self.store, &domain.node("data/error")).await?;
                let why = error.unwrap_or_else(|| format!("`xl console {}` may tell why", domain.name));
                bail!("{} (domain {}) is not ready after {READY:?}: {}", domain.name, domain.id, clean(why.as_bytes()));
            }
            self.clock.sleep(LOOK).await;
        }
    }

    /// A line of what the domain does now, with what it says is wrong.
    async fn said(&self, domain: &Domain, before: Option<u32>) -> Result<String> {
        let ready = text(self.store, &domain.node("data/ready")).await?.unwrap_or_default();
        let error = text(self.store, &domain.node("data/error")).await?.filter(|error| !error.is_empty());
        let number = match before {
            Some(before) => format!("domain {}, {before} before", domain.id),
            None => format!("domain {}", domain.id),
        };
        let error = error.map(|error| format!("; it says: {}", clean(error.as_bytes()))).unwrap_or_default();
        Ok(format!("{} ({number}) serves: {}{error}", domain.name, clean(ready.as_bytes())))
    }

    /// Attaches what guests had of a domain of this name that is gone.
    async fn reattach(&self, before: Option<u32>) {
        let reattach = Reattach { store: self.store, clock: self.clock, toolstack: &self.toolstack };
        match reattach.run_for(&self.config.name, before).await {
            Ok(attached) => attached.iter().for_each(|attached| self.host.say(&told(attached), true)),
            Err(error) => self.host.say(&format!("guests are not attached anew: {error:#}"), true),
        }
    }

    /// Shuts the domain down. Where the host does so, the domain's end is enough: its PCI devices stay where they are.
    async fn stop(&self) -> Result<()> {
        let name = self.config.name.as_str();
        if self.domains(None).await?.is_empty() {
            return Ok(());
        }
        self.host.say(&format!("shutting {name} down"), false);
        self.toolstack.xl(&["shutdown", name]).await?;
        let deadline = self.clock.now() + SHUTDOWN;
        while self.clock.now() < deadline {
            let Some(state) = self.state().await else {
                return Ok(());
            };
            if state.contains('s') && self.host.shuts_down() {
                return Ok(());
            }
            self.clock.sleep(LOOK).await;
        }
        self.host.say(&format!("{name} did not shut down within {SHUTDOWN:?}, and is destroyed"), false);
        self.toolstack.xl(&["destroy", name]).await.map(drop)
    }

    /// The flags of the domain's state, as `xl list` shows them; nothing where there is no such domain.
    async fn state(&self) -> Option<String> {
        let list = self.toolstack.xl(&["list", &self.config.name]).await.ok()?;
        let state = list.lines().nth(1)?.split_ascii_whitespace().rev().nth(1)?;
        Some(state.to_owned())
    }
}

/// What came of a device.
fn told(attached: &Attached) -> String {
    let Attached { guest, kind, name, failure, note, .. } = attached;
    let what = match failure {
        Some(failure) => format!("is not attached anew: {failure}"),
        None => "is attached anew".into(),
    };
    let note = note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
    clean(format!("{kind} {name} of {} {what}{note}", guest.name).as_bytes())
}

/// Reads the config of a name.
///
/// # Errors
/// It is not there, cannot be read, or names no device.
pub(crate) fn config(word: &str) -> Result<DriverConfig> {
    let file = if word.contains('/') {
        word.into()
    } else {
        std::path::Path::new(crate::driver_configs::DIRECTORY).join(format!("{word}.cfg"))
    };
    let config = DriverConfig::read(&file)?;
    if config.devices.is_empty() {
        return Err(anyhow::anyhow!("`pci=` has no device: write its address, as in pci = [ '00:19.0' ]"))
            .with_context(|| file.display().to_string());
    }
    Ok(config)
}

#[cfg(test)]
mod tests;

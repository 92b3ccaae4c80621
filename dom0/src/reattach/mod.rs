//! Devices whose backend's domain is gone are attached anew, to the domain that has its name now. Host.
//!
//! A frontend of Linux does not look for another backend by itself. So libxl takes the device from the guest and gives it another one, by
//! `xl`, with what it had: libxl does its own bookkeeping then.

mod config;
mod device;
mod toolstack;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use split_driver::store::{Store, Transaction};
use split_driver::time::Timer;

use crate::domain::{self, Domain, text};
pub(crate) use config::is_set;
use config::{Config, Root};
use device::{Device, Kind};
pub(crate) use toolstack::Xl;

/// How long the domain may take that has the name now.
const READY: Duration = Duration::from_secs(60);
/// How long a frontend may take to connect.
const CONNECTED: Duration = Duration::from_secs(10);
/// From the end of the old device to the new one. The guest has to see the one before the other, which dom0 cannot watch; so there are some tries.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// How often the store is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// `XenbusStateConnected` (`io/xenbus.h`).
const CONNECTED_STATE: &str = "4";

/// `xl`.
pub(crate) trait Toolstack {
    /// Calls it; gives what it printed.
    ///
    /// # Errors
    /// It does not run, or says that it failed.
    async fn xl(&self, arguments: &[&str]) -> Result<String>;
}

/// What came of a device.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The guest.
    pub(crate) guest: Domain,
    /// `vif` or `vbd`.
    pub(crate) kind: &'static str,
    /// Its name there.
    pub(crate) name: String,
    /// The name of the backend's domain, where it is known.
    pub(crate) backend: Option<String>,
    /// Why it is not attached.
    pub(crate) failure: Option<String>,
    /// What cannot be known of it, and what follows from that.
    pub(crate) note: Option<String>,
}

/// A device whose backend is no longer there.
struct Lost {
    guest: Domain,
    device: Device,
    /// The name of the backend's domain, where the guest's config tells it.
    backend: Option<String>,
    root: Root,
}

/// A name that is no domain's, nor that of a backend that is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoSuchDomain {
    /// The name, or a number.
    pub(crate) word: String,
    /// The names of those backends' domains.
    pub(crate) gone: BTreeSet<String>,
    /// Some device has lost a backend whose domain's name is not known.
    pub(crate) nameless: bool,
}

impl fmt::Display for NoSuchDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { word, gone, nameless } = self;
        write!(f, "there is no domain {word}, and no guest has a device of one of that name; ")?;
        if gone.is_empty() {
            return f.write_str(match nameless {
                true => "no config tells the names of the domains whose devices guests have lost: say the name",
                false => "all devices have their backends: there is nothing to attach",
            });
        }
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        write!(f, "the domains whose devices guests have lost: {}", gone.join(", "))
    }
}

impl std::error::Error for NoSuchDomain {}

/// What a command works with.
pub(crate) struct Reattach<'a, S, T, X> {
    /// The store.
    pub(crate) store: &'a S,
    /// The clock.
    pub(crate) clock: &'a T,
    /// `xl`.
    pub(crate) toolstack: X,
}

impl<X: Toolstack> Toolstack for &X {
    async fn xl(&self, arguments: &[&str]) -> Result<String> {
        (**self).xl(arguments).await
    }
}

impl<S: Store, T: Timer, X: Toolstack> Reattach<'_, S, T, X> {
    /// Attaches the devices anew that lost their backend; where `only` names a domain, those of that one.
    ///
    /// # Errors
    /// [`NoSuchDomain`]; the domain does not become ready; or of the store.
    pub(crate) async fn run(&self, only: Option<&str>) -> Result<Vec<Attached>> {
        let lost = self.lost().await?;
        let Some(word) = only else {
            return self.attach_all(lost).await;
        };
        let name = self.named(word, &lost).await?;
        // Where nothing tells the name of its backend's domain, it is taken for the one that was said.
        let of_name = lost.into_iter().filter(|lost| lost.backend.as_ref().is_none_or(|backend| *backend == name));
        self.attach_all(of_name.map(|lost| Lost { backend: Some(name.clone()), ..lost }).collect()).await
    }

    /// Attaches the devices anew whose backend's domain had this name, or the number that the domain of that name had before.
    ///
    /// # Errors
    /// The domain does not become ready; or of the store.
    pub(crate) async fn run_for(&self, name: &str, before: Option<u32>) -> Result<Vec<Attached>> {
        let mut lost = self.lost().await?;
        lost.retain(|lost| match &lost.backend {
            Some(backend) => backend == name,
            None => before.is_some() && lost.device.backend_domain() == before,
        });
        self.attach_all(lost.into_iter().map(|lost| Lost { backend: Some(name.to_owned()), ..lost }).collect()).await
    }

    async fn attach_all(&self, lost: Vec<Lost>) -> Result<Vec<Attached>> {
        let mut ready: BTreeMap<String, Domain> = BTreeMap::new();
        let mut attached = Vec::new();
        for Lost { guest, device, backend, root } in lost {
            let failure = match (&root, &backend) {
                (Root::Yes(why), _) => {
                    Some(format!("{why}, and a disk that is mounted cannot come back: {}", remedy(&device)))
                }
                (_, None) => {
                    Some("the name of its backend's domain is not known: say it, as in `oxidom reattach netdom`".into())
                }
                (_, Some(name)) => {
                    if !ready.contains_key(name) {
                        ready.insert(name.clone(), self.wait_ready(name).await?);
                    }
                    self.attach(&device, name).await?.err()
                }
            };
            let note = match root {
                Root::Unknown(why) => Some(format!(
                    "it cannot be told whether this is the guest's root disk: {why}. A root disk cannot come back: if it is, {}",
                    remedy(&device)
                )),
                Root::Yes(_) | Root::No => None,
            };
            let (kind, name) = (device.kind.name(), device.name());
            attached.push(Attached { guest, kind, name, backend, failure, note });
        }
        Ok(attached)
    }

    /// The name of the domain that a word means. Where no config tells the names of lost backends' domains, it may be any.
    async fn named(&self, word: &str, lost: &[Lost]) -> Result<String> {
        let domains = domain::all(self.store).await?;
        let number = word.parse().ok();
        let is_known = domains.iter().any(|domain| domain.name == word)
            || lost.iter().any(|lost| lost.backend.as_deref() == Some(word));
        match domains.into_iter().find(|domain| Some(domain.id) == number) {
            _ if is_known => Ok(word.to_owned()),
            // A number means the domain's name: the old one had another number.
            Some(domain) => Ok(domain.name),
            None if number.is_none() && lost.iter().any(|lost| lost.backend.is_none()) => Ok(word.to_owned()),
            None => {
                let gone = lost.iter().filter_map(|lost| lost.backend.clone()).collect();
                let nameless = lost.iter().any(|lost| lost.backend.is_none());
                Err(NoSuchDomain { word: word.to_owned(), gone, nameless }.into())
            }
        }
    }

    /// All devices whose backend is no longer there.
    async fn lost(&self) -> Result<Vec<Lost>> {
        let mut all = Vec::new();
        for guest in domain::all(self.store).await? {
            let devices = self.lost_of(&guest).await?;
            let config = if devices.is_empty() { Config::default() } else { self.config(&guest).await };
            all.extend(devices.into_iter().map(|device| {
                let (backend, root) = (config.backend(&device).map(str::to_owned), config.root(&device));
                Lost { guest: guest.clone(), device, backend, root }
            }));
        }
        Ok(all)
    }

    /// The devices of a guest whose backend is no longer there.
    async fn lost_of(&self, guest: &Domain) -> Result<Vec<Device>> {
        let mut lost = Vec::new();
        for kind in Kind::ALL {
            let top = format!("/libxl/{}/device/{}", guest.id, kind.name());
            for id in self.names_below(&top).await?.iter().filter_map(|id| id.parse().ok()) {
                let device = self.device(guest.id, kind, id).await?;
                let Some(backend) = device.backend().filter(|_| device.backend_domain().is_some()) else {
                    continue;
                };
                // The store forgets what a domain had with the domain. A domain that has the number now has no such device.
                if text(self.store, &format!("{backend}/state")).await?.is_none() {
                    lost.push(device);
                }
            }
        }
        Ok(lost)
    }

    async fn device(&self, guest: u32, kind: Kind, id: u32) -> Result<Device> {
        let path = format!("/libxl/{guest}/device/{}/{id}", kind.name());
        let mut nodes = BTreeMap::new();
        for name in self.names_below(&path).await? {
            if let Some(value) = text(self.store, &format!("{path}/{name}")).await? {
                nodes.insert(name, value);
            }
        }
        Ok(Device { guest, kind, id, nodes })
    }

    async fn names_below(&self, path: &str) -> Result<Vec<String>> {
        match self.store.directory(Transaction::NONE, path).await {
            Err(split_driver::store::StoreError::NotFound) => Ok(Vec::new()),
            other => other.with_context(|| format!("listing {path}")),
        }
    }

    /// A guest's config; nothing where it cannot be had, as dom0's.
    async fn config(&self, guest: &Domain) -> Config {
        let config = self.toolstack.xl(&["list", "-l", &guest.id.to_string()]).await;
        config.map(|config| Config::parse(&config)).unwrap_or_default()
    }

    /// Waits until one domain has the name, and serves.
    async fn wait_ready(&self, name: &str) -> Result<Domain> {
        let deadline = self.clock.now() + READY;
        loop {
            let mut domains = domain::all(self.store).await?;
            domains.retain(|domain| domain.name == name);
            let why = match domains.as_slice() {
                [domain] if text(self.store, &domain.node("data/ready")).await?.is_some() => return Ok(domain.clone()),
                [_] => format!("{name} is not ready: `xl console {name}` may tell why"),
                [] => format!("there is no domain {name} now: create it, then call this again"),
                _ => format!("several domains are called {name}: the old one is still there"),
            };
            if self.clock.now() >= deadline {
                bail!("{why}");
            }
            self.clock.sleep(LOOK).await;
        }
    }

    /// Attaches a device anew. The inner error is why it is not.
    async fn attach(&self, device: &Device, backend: &str) -> Result<Result<(), String>> {
        let words = match device.words(backend) {
            Ok(words) => words,
            Err(why) => return Ok(Err(format!("{why}; attach it by hand"))),
        };
        let (guest, name, command) = (device.guest.to_string(), device.name(), device.kind.command());
        let mut state = None;
        for pause in PAUSES {
            if let Err(error) = self.toolstack.xl(&[&format!("{command}-detach"), &guest, &name]).await {
                return Ok(Err(format!("the guest does not let go of it: {error:#}; {}", remedy(device))));
            }
            self.clock.sleep(pause).await;
            let attach = format!("{command}-attach");
            let arguments: Vec<&str> =
                [attach.as_str(), &guest].into_iter().chain(words.iter().map(String::as_str)).collect();
            if let Err(error) = self.toolstack.xl(&arguments).await {
                return Ok(Err(format!(
                    "{error:#}. It is detached now; attach it by hand: xl {}",
                    arguments.join(" ")
                )));
            }
            state = self.wait_connected(device).await?;
            if state.as_deref() == Some(CONNECTED_STATE) {
                return Ok(Ok(()));
            }
        }
        let state = state.unwrap_or_else(|| "unknown".into());
        Ok(Err(format!("its frontend in the guest does not connect (state {state}): {}", remedy(device))))
    }

    /// Waits until the device that is there now is connected; gives its backend's state.
    async fn wait_connected(&self, device: &Device) -> Result<Option<String>> {
        let deadline = self.clock.now() + CONNECTED;
        loop {
            let now = self.device(device.guest, device.kind, device.id).await?;
            let state = match now.backend() {
                Some(backend) => text(self.store, &format!("{backend}/state")).await?,
                None => None,
            };
            if state.as_deref() == Some(CONNECTED_STATE) || self.clock.now() >= deadline {
                return Ok(state);
            }
            self.clock.sleep(LOOK).await;
        }
    }
}

/// What is left to do for a device that does not come back.
fn remedy(device: &Device) -> String {
    match device.kind {
        Kind::Vbd => format!("`xl destroy {}`, and create the guest again", device.guest),
        Kind::Vif => format!("its driver may want a restart of the guest, `xl reboot {}`", device.guest),
    }
}

#[cfg(test)]
mod tests;

//! Devices whose backend's domain is gone are attached anew, to the domain that has its name now. Host.
//!
//! A frontend of Linux does not look for another backend by itself. So libxl takes the device from the guest and gives it another one, by
//! `xl`, with what it had: libxl does its own bookkeeping then.

mod device;
mod toolstack;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use split_driver::store::{Store, Transaction};
use split_driver::time::Timer;

use crate::domain::{self, Domain, text};
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
}

/// What a command works with.
pub(crate) struct Reattach<'a, S, T, X> {
    /// The store.
    pub(crate) store: &'a S,
    /// The clock.
    pub(crate) clock: &'a T,
    /// `xl`.
    pub(crate) toolstack: X,
}

impl<S: Store, T: Timer, X: Toolstack> Reattach<'_, S, T, X> {
    /// Attaches the devices anew that lost their backend; where `only` names a domain, those of that one.
    ///
    /// # Errors
    /// There is no such domain, or it does not become ready; or of the store.
    pub(crate) async fn run(&self, only: Option<&str>) -> Result<Vec<Attached>> {
        let only = match only {
            // A number means the domain's name: the old one had another number.
            Some(word) if word.parse::<u32>().is_ok() => Some(domain::find(self.store, word).await?.name),
            word => word.map(str::to_owned),
        };
        let mut ready: BTreeMap<String, Domain> = BTreeMap::new();
        let mut attached = Vec::new();
        for guest in domain::all(self.store).await? {
            let lost = self.lost(&guest).await?;
            let names = if lost.is_empty() { Names::default() } else { self.names(&guest).await };
            for device in lost {
                let backend = names.backend(&device).map(str::to_owned);
                if only.is_some() && backend.is_some() && backend != only {
                    continue;
                }
                let backend = backend.or_else(|| only.clone());
                let failure = match &backend {
                    _ if names.is_root(&device) => Some(format!(
                        "it is the guest's root disk by its command line, and a disk that is mounted cannot come back: {}",
                        remedy(&device)
                    )),
                    None => Some(
                        "the name of its backend's domain is not known: say it, as in `oxidom reattach netdom`".into(),
                    ),
                    Some(name) => {
                        if !ready.contains_key(name) {
                            ready.insert(name.clone(), self.wait_ready(name).await?);
                        }
                        self.attach(&device, name).await?.err()
                    }
                };
                let (kind, name) = (device.kind.name(), device.name());
                attached.push(Attached { guest: guest.clone(), kind, name, backend, failure });
            }
        }
        Ok(attached)
    }

    /// The devices of a guest whose backend is no longer there.
    async fn lost(&self, guest: &Domain) -> Result<Vec<Device>> {
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

    /// The names of a guest's backend domains, as its config has them; none where it cannot be had, as dom0's.
    async fn names(&self, guest: &Domain) -> Names {
        let config = self.toolstack.xl(&["list", "-l", &guest.id.to_string()]).await;
        Names(config.ok().and_then(|config| serde_json::from_str(&config).ok()).unwrap_or_default())
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

/// A guest's config, as `xl list -l` tells it.
#[derive(Default)]
struct Names(Value);

impl Names {
    fn domain(&self) -> &Value {
        self.0.get(0).unwrap_or(&self.0)
    }

    /// Whether the kernel's command line says that the root file system is on this disk.
    fn is_root(&self, device: &Device) -> bool {
        let line = self.domain().pointer("/config/b_info/cmdline").and_then(Value::as_str).unwrap_or_default();
        let name = device.name();
        let partition =
            |root: &str| root.strip_prefix(&name).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        device.kind == Kind::Vbd
            && line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("root=/dev/")).any(partition)
    }

    /// The name of the domain of a device's backend.
    fn backend(&self, device: &Device) -> Option<&str> {
        let (list, key, value) = match device.kind {
            Kind::Vif => ("nics", "devid", Value::from(device.id)),
            Kind::Vbd => ("disks", "vdev", Value::from(device.name())),
        };
        let devices = self.domain().get("config")?.get(list)?.as_array()?;
        let found = devices.iter().find(|found| found.get(key) == Some(&value))?;
        found.get("backend_domname")?.as_str()
    }
}

#[cfg(test)]
mod tests;

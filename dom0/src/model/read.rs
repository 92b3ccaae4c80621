//! Reads a snapshot from the store. Pure over the store's trait. Host.
//!
//! Domains come and go meanwhile, so a node that is not there any longer is none. What a domain writes of itself is bounded here: so many nodes
//! of each kind, and so many requests in all.

use std::cell::Cell;

use anyhow::{Context, Result};
use split_driver::control::{ANSWER, Answer, Answered, IMAGE, Image as Said};
use split_driver::store::{Store, StoreError, Transaction};

use super::text::is_name;
use super::{DriverDomain, Guest, Image, Snapshot, State, StoreDomain, Unit, Vbd, Vif, clean, line};

/// Requests for one snapshot, at most: of some hundred guests with some devices each, ten times over.
const REQUESTS: usize = 200_000;
/// Domains that are looked at.
const DOMAINS: usize = 4096;
/// Devices of a kind that one domain serves.
const DEVICES: usize = 4096;
/// Lines of statistics of one domain, beside those of devices.
const LINES: usize = 256;
/// Texts of refused devices, of one kind.
const REFUSALS: usize = 32;
/// Nodes of volumes, each with many of them.
const VOLUME_NODES: usize = 32;

const TOP: &str = "/local/domain";

/// All driver domains, and the domain that serves the store.
///
/// # Errors
/// Of the store.
pub(crate) async fn read(store: &impl Store) -> Result<Snapshot> {
    let reader = Reader { store, left: Cell::new(REQUESTS), truncated: Cell::new(false) };
    let mut domains = Vec::new();
    for id in reader.numbers(TOP, DOMAINS).await? {
        if let Some(domain) = reader.domain(id).await? {
            domains.push(domain);
        }
    }
    Ok(Snapshot { store: reader.store_domain().await?, domains, truncated: reader.truncated.get() })
}

struct Reader<'a, S> {
    store: &'a S,
    /// Requests that may be made.
    left: Cell<usize>,
    truncated: Cell<bool>,
}

impl<S: Store> Reader<'_, S> {
    /// Whether another request may be made.
    fn may(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 0 {
            self.truncated.set(true);
        }
        left > 0
    }

    /// A node's bytes; none where it is not there, or cannot be had in one piece.
    async fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if !self.may() {
            return Ok(None);
        }
        match self.store.read(Transaction::NONE, path).await {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::NotFound | StoreError::TooLong | StoreError::Malformed) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {path}")),
        }
    }

    /// A node's text, clean.
    async fn text(&self, path: &str) -> Result<Option<String>> {
        Ok(self.bytes(path).await?.map(|bytes| clean(&bytes)))
    }

    /// The same where it says something.
    async fn said(&self, path: &str) -> Result<Option<String>> {
        Ok(self.text(path).await?.filter(|text| !text.is_empty()))
    }

    /// The names below a node, `most` of them; none where there is no such node.
    async fn names(&self, path: &str, most: usize) -> Result<Vec<String>> {
        if !self.may() {
            return Ok(Vec::new());
        }
        let mut names = match self.store.directory(Transaction::NONE, path).await {
            Ok(names) => names,
            Err(StoreError::NotFound | StoreError::TooLong | StoreError::Malformed) => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("listing {path}")),
        };
        names.retain(|name| !name.is_empty());
        if names.len() > most {
            self.truncated.set(true);
            names.truncate(most);
        }
        Ok(names)
    }

    /// Those of them that are numbers, in order.
    async fn numbers(&self, path: &str, most: usize) -> Result<Vec<u32>> {
        let names = self.names(path, most).await?;
        // A number is written in one way only.
        let number = |name: &String| name.parse().ok().filter(|number: &u32| number.to_string() == *name);
        let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn store_domain(&self) -> Result<Option<StoreDomain>> {
        let id = self.text("/tool/xenstored/domid").await?;
        let Some(id) = id.and_then(|id| id.parse().ok()).filter(|id| *id != 0) else {
            return Ok(None);
        };
        let name = self.text(&format!("{TOP}/{id}/name")).await?.unwrap_or_default();
        Ok(Some(StoreDomain { id, name, image: None, lives: None }))
    }

    /// A domain, where it is a driver domain: it says which image of oxidom's it runs, or serves others.
    async fn domain(&self, id: u32) -> Result<Option<DriverDomain>> {
        let home = format!("{TOP}/{id}");
        let image = self.image(&home).await?;
        let kinds = self.names(&format!("{home}/backend"), DEVICES).await?;
        let serves = kinds.iter().any(|kind| ["vif", "vbd"].contains(&kind.as_str()));
        // Those of dom0 itself have other tools.
        if image.is_none() && (!serves || id == 0) {
            return Ok(None);
        }
        // What was destroyed meanwhile has no name any longer.
        let Some(name) = self.text(&format!("{home}/name")).await? else {
            return Ok(None);
        };
        let has_pci = !self.names(&format!("{home}/device/pci"), DEVICES).await?.is_empty();
        // With driver_domain=1 (`libxl__domain_make`). Above it, no domain but dom0 can make a node.
        let is_made_one = self.bytes(&format!("{home}/libxl")).await?.is_some();
        let mut domain = DriverDomain {
            id,
            name,
            is_vouched: serves || has_pci || is_made_one,
            ready: self.text(&format!("{home}/data/ready")).await?.filter(|_| image.is_some()),
            start: self.start(&home).await?,
            error: self.said(&format!("{home}/data/error")).await?.filter(|_| image.is_some()),
            image,
            ..DriverDomain::default()
        };
        if domain.image.is_some() {
            self.own_words(&home, &mut domain).await?;
        }
        for guest in self.numbers(&format!("{home}/backend/vif"), DEVICES).await? {
            self.vifs(&home, guest, &mut domain).await?;
        }
        for kind in ["vbd", "qdisk"] {
            for guest in self.numbers(&format!("{home}/backend/{kind}"), DEVICES).await? {
                self.vbds(&home, kind, guest, &mut domain).await?;
            }
        }
        Ok(Some(domain))
    }

    /// The image that a domain says it runs.
    async fn image(&self, home: &str) -> Result<Option<Image>> {
        let known = |Said { name, version }| (is_name(&name) && is_name(&version)).then_some(Image { name, version });
        let said = self.text(&format!("{home}/{IMAGE}")).await?;
        if let Some(image) = said.and_then(|said| Said::parse(&said)).and_then(known) {
            return Ok(Some(image));
        }
        // One from before it said so in a node of its own.
        let said = self.text(&format!("{home}/{ANSWER}")).await?.and_then(|said| Answered::parse(&said));
        Ok(match said.map(|said| said.answer) {
            Some(Answer::Ready(image) | Answer::Enters(image) | Answer::Done { after: image, .. }) => known(image),
            _ => None,
        })
    }

    /// When libxl created the domain, in seconds since 1970 (`libxl__domain_build`).
    async fn start(&self, home: &str) -> Result<Option<f64>> {
        let Some(vm) = self.text(&format!("{home}/vm")).await?.filter(|vm| vm.starts_with("/vm/")) else {
            return Ok(None);
        };
        let start = self.text(&format!("{vm}/start_time")).await?;
        Ok(start.and_then(|start| start.parse().ok()).filter(|start: &f64| start.is_finite()))
    }

    /// What the domain writes below its `data/`, but for what it says of devices.
    async fn own_words(&self, home: &str, domain: &mut DriverDomain) -> Result<()> {
        if let Some(text) = self.text(&format!("{home}/data/resources")).await? {
            domain.resources = line::pairs(&text);
            domain.lives = domain.resources.get("lives").copied();
        }
        if let Some(text) = self.text(&format!("{home}/data/counts")).await? {
            domain.counts = line::pairs(&text);
        }
        for kind in ["vif", "vbd", "qdisk"] {
            let path = format!("{home}/data/errors/{kind}");
            for number in self.numbers(&path, REFUSALS).await? {
                domain.refusals.extend(self.said(&format!("{path}/{number}")).await?);
            }
        }
        for number in self.numbers(&format!("{home}/data/volumes"), VOLUME_NODES).await? {
            let bytes = self.bytes(&format!("{home}/data/volumes/{number}")).await?;
            domain.volumes.extend(line::volumes(&bytes.unwrap_or_default()));
        }
        let more = self.text(&format!("{home}/data/volumes/more")).await?;
        domain.more_volumes = more.and_then(|more| more.parse().ok()).unwrap_or(0);
        self.statistics(home, domain).await
    }

    async fn statistics(&self, home: &str, domain: &mut DriverDomain) -> Result<()> {
        let top = format!("{home}/data/statistics");
        for name in self.names(&top, LINES).await?.iter().filter(|name| is_name(name)) {
            let path = format!("{top}/{name}");
            match name.as_str() {
                // Beside their devices.
                "vif" | "vbd" => {}
                "nic" => {
                    for number in self.numbers(&path, LINES).await? {
                        let text = self.text(&format!("{path}/{number}")).await?;
                        domain.nics.extend(text.map(|text| line::nic(&number.to_string(), &text)));
                    }
                }
                "bond" => {
                    for name in self.names(&path, LINES).await?.iter().filter(|name| is_name(name)) {
                        let text = self.text(&format!("{path}/{name}")).await?;
                        domain.bonds.extend(text.map(|text| line::bond(name, &text)));
                    }
                }
                "addresses" => {
                    for name in self.names(&path, LINES).await?.into_iter().filter(|name| is_name(name)) {
                        let text = self.text(&format!("{path}/{name}")).await?;
                        domain.addresses.extend(text.map(|text| (name, line::addresses(&text))));
                    }
                }
                "router" => self.router(&path, domain).await?,
                "lives" => {
                    if let Some(text) = self.text(&path).await? {
                        let (lives, lost) = line::lives(&text);
                        (domain.lives, domain.lost_packets) = (domain.lives.or(lives), lost);
                    }
                }
                name => {
                    let disk = self.text(&path).await?.and_then(|text| line::disk(&text));
                    domain.units.extend(disk.map(|disk| Unit { name: name.to_owned(), disk }));
                }
            }
        }
        Ok(())
    }

    async fn router(&self, path: &str, domain: &mut DriverDomain) -> Result<()> {
        let Some(packets) = self.text(&format!("{path}/packets")).await? else {
            return Ok(());
        };
        let router = domain.router.insert(Default::default());
        line::router(router, &packets);
        router.uplink = self.said(&format!("{path}/uplink")).await?;
        for bridge in self.names(&format!("{path}/leases"), LINES).await?.into_iter().filter(|name| is_name(name)) {
            if let Some(text) = self.text(&format!("{path}/leases/{bridge}")).await? {
                router.leases.extend(line::pairs(&text).remove("leases").map(|leases| (bridge, leases)));
            }
        }
        Ok(())
    }

    async fn guest(&self, id: u32) -> Result<Guest> {
        Ok(Guest { id, name: self.said(&format!("{TOP}/{id}/name")).await? })
    }

    /// Where a device's frontend is, by its number: what the backend's directory says of it is the backend's word.
    fn frontend(guest: u32, kind: &str, device: u32) -> String {
        let kind = if kind == "qdisk" { "vbd" } else { kind };
        format!("{TOP}/{guest}/device/{kind}/{device}")
    }

    /// The state of one end of a device; none where that is gone.
    async fn state(&self, directory: &str) -> Result<Option<State>> {
        Ok(self.text(&format!("{directory}/state")).await?.map(|text| State::parse(&text)))
    }

    async fn vifs(&self, home: &str, guest: u32, domain: &mut DriverDomain) -> Result<()> {
        let top = format!("{home}/backend/vif/{guest}");
        let guest = self.guest(guest).await?;
        for device in self.numbers(&top, DEVICES).await? {
            let path = format!("{top}/{device}");
            let of_guest = guest.id;
            let Some(state) = self.state(&path).await? else {
                continue;
            };
            let carrier = self.text(&format!("{path}/carrier")).await?;
            let counted = self.text(&format!("{home}/data/statistics/vif/{of_guest}/{device}")).await?;
            domain.vifs.push(Vif {
                guest: guest.clone(),
                device,
                bridge: self.said(&format!("{path}/bridge")).await?,
                mac: self.said(&format!("{path}/mac")).await?,
                state,
                frontend: self.state(&Self::frontend(of_guest, "vif", device)).await?.unwrap_or_default(),
                carrier: carrier.filter(|carrier| ["0", "1"].contains(&carrier.as_str())).map(|carrier| carrier == "1"),
                error: self.said(&format!("{path}/error")).await?,
                port: counted.and_then(|text| line::port(&text)),
            });
        }
        Ok(())
    }

    async fn vbds(&self, home: &str, kind: &str, guest: u32, domain: &mut DriverDomain) -> Result<()> {
        let top = format!("{home}/backend/{kind}/{guest}");
        let guest = self.guest(guest).await?;
        for device in self.numbers(&top, DEVICES).await? {
            let path = format!("{top}/{device}");
            let of_guest = guest.id;
            let Some(state) = self.state(&path).await? else {
                continue;
            };
            let counted = self.text(&format!("{home}/data/statistics/vbd/{of_guest}/{device}")).await?;
            domain.vbds.push(Vbd {
                guest: guest.clone(),
                device,
                kind: kind.to_owned(),
                name: self.said(&format!("{path}/dev")).await?,
                target: self.said(&format!("{path}/params")).await?,
                mode: self.said(&format!("{path}/mode")).await?,
                state,
                frontend: self.state(&Self::frontend(of_guest, kind, device)).await?.unwrap_or_default(),
                error: self.said(&format!("{path}/error")).await?,
                disk: counted.filter(|_| kind == "vbd").and_then(|text| line::disk(&text)),
            });
        }
        Ok(())
    }
}

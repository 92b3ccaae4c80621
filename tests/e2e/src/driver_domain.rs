//! A driver domain under the lab's dom0: its config, its start, what it says of itself. Host.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::{Guest, Lab, NATIVE_CLOCK};

/// How long a driver domain may take to be ready on a slow machine; a fault ends the wait at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A config for `xl create`, as those of `dist/` have it.
#[derive(Clone, Debug)]
pub struct DriverDomainConfig {
    /// The image below `/usr/lib/oxidom/`.
    pub image: &'static str,
    /// What its backends are called in the store: `vif`, `vbd`.
    pub kind: &'static str,
    /// The domain's name: what frontends write as `backend=`.
    pub name: String,
    /// Memory, in MiB.
    pub memory: u32,
    /// Devices in `xl`'s words.
    pub pci: Vec<String>,
    /// Its command line.
    pub extra: String,
}

impl DriverDomainConfig {
    /// A netdom of 16 MiB, no device, an empty command line.
    pub fn netdom(name: &str) -> Self {
        Self::new("netdom", "vif", name)
    }

    /// A blkdom, likewise.
    pub fn blkdom(name: &str) -> Self {
        Self::new("blkdom", "vbd", name)
    }

    fn new(image: &'static str, kind: &'static str, name: &str) -> Self {
        Self { image, kind, name: name.to_owned(), memory: 16, pci: Vec::new(), extra: String::new() }
    }

    /// With one more device.
    pub fn pci(mut self, device: &str) -> Self {
        self.pci.push(device.to_owned());
        self
    }

    /// With this command line.
    pub fn extra(mut self, extra: &str) -> Self {
        extra.clone_into(&mut self.extra);
        self
    }
}

impl fmt::Display for DriverDomainConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, name, memory, pci, extra, .. } = self;
        writeln!(
            f,
            "name = \"{name}\"\ntype = \"pv\"\nkernel = \"/usr/lib/oxidom/{image}\"\nmemory = {memory}\nvcpus = 1"
        )?;
        write!(f, "pci = {pci:?}\nextra = \"{extra}\"\non_crash = \"preserve\"\n{NATIVE_CLOCK}")
    }
}

/// A running driver domain.
pub struct DriverDomain<'lab> {
    lab: &'lab Lab,
    kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// From `xl create`'s start to `data/ready`, as dom0's clock saw it.
    pub created: Duration,
    /// From its first instruction to its readiness, as it measured itself.
    pub ready: Duration,
}

impl<'lab> DriverDomain<'lab> {
    /// Creates it by `xl create` and waits for `data/ready`.
    ///
    /// # Errors
    /// What `xl` said, or the end of the domain's console.
    pub fn create(lab: &'lab Lab, config: &DriverDomainConfig) -> Result<Self> {
        let name = config.name.clone();
        let path = format!("/etc/xen/{name}.cfg");
        lab.put(&path, 0o644, config.to_string().as_bytes())?;
        let started = Instant::now();
        // Waits by a watch: dom0 has the store and pciback to run meanwhile, and no CPU to spare for asking again and again.
        let script = format!(
            "xl create -q {path} && id=$(xenstore-list /local/domain | sort -n | tail -n 1) && ready=/local/domain/$id/data/ready && \
             while ! xenstore-exists $ready; do timeout 1 xenstore-watch -n 2 $ready >/dev/null; done; \
             echo $id $(xenstore-read $ready)"
        );
        let said = lab.run_for(&script, PATIENCE).and_then(lab::Output::success).with_context(|| {
            let console = lab.console(&name).unwrap_or_default();
            let domains = lab.run("xl list; ps").map(|list| list.stdout).unwrap_or_default();
            format!("{name} did not become ready; its console:\n{console}\ndomains and processes:\n{domains}")
        })?;
        let created = started.elapsed();
        // The shell may have had a word of its own before, on a watch that took too long.
        let mut numbers = said.lines().last().unwrap_or_default().split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(id)), Some(Ok(milliseconds))) = (numbers.next(), numbers.next()) else {
            bail!("the number of {name} and its data/ready are '{said}'");
        };
        let milliseconds = u64::from(milliseconds);
        Ok(Self { lab, kind: config.kind, name, id, created, ready: Duration::from_millis(milliseconds) })
    }

    /// A Linux guest that is a driver domain, which took so long to be ready; its backends are called `kind` in the store.
    pub(crate) fn linux(lab: &'lab Lab, guest: &Guest<'_>, kind: &'static str, created: Duration) -> Self {
        Self { lab, kind, name: guest.name().to_owned(), id: guest.id(), created, ready: created }
    }

    /// The value of a node below its own directory.
    ///
    /// # Errors
    /// Where there is no such node.
    pub fn node(&self, path: &str) -> Result<String> {
        Ok(self.lab.must(&format!("xenstore-read /local/domain/{}/{path}", self.id))?.trim_end().to_owned())
    }

    /// The backend directory of a frontend's device.
    pub fn backend(&self, frontend: u32, handle: u32) -> String {
        format!("{}/{handle}", self.backends(frontend))
    }

    /// The directory of all of a domain's backends.
    pub fn backends(&self, frontend: u32) -> String {
        format!("/local/domain/{}/backend/{}/{frontend}", self.id, self.kind)
    }

    /// All that it has on loan now, by name: pages, grants, ports, heap, nodes.
    ///
    /// # Errors
    /// Where it has not said so, or in other words.
    pub fn resources(&self) -> Result<Resources> {
        let text = self.node("data/resources")?;
        let mut named = BTreeMap::new();
        for pair in text.split(", ") {
            let (name, value) = pair.split_once(' ').with_context(|| format!("data/resources says '{text}'"))?;
            named.insert(name.to_owned(), value.parse().with_context(|| format!("data/resources says '{text}'"))?);
        }
        let nodes = self.lab.must(&format!("xenstore-ls -f /local/domain/{}/backend | wc -l", self.id))?;
        named.insert("backend-nodes".to_owned(), nodes.trim().parse()?);
        Ok(Resources(named))
    }

    /// Seconds of CPU time that Xen has charged it with.
    ///
    /// # Errors
    /// Where `xl list` does not know it.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.lab, &self.name)
    }

    /// Its console so far.
    ///
    /// # Errors
    /// Where dom0 does not answer.
    pub fn console(&self) -> Result<String> {
        self.lab.console(&self.name)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// What `xl` said.
    pub fn destroy(self) -> Result<()> {
        self.lab.must(&format!("xl destroy {}", self.name)).map(drop)
    }
}

/// Seconds of CPU time that Xen has charged a domain with; `xl list` knows tenths.
///
/// # Errors
/// Where `xl list` does not know it.
pub fn cpu_seconds(lab: &Lab, domain: &str) -> Result<f64> {
    let line = lab.must(&format!("xl list {domain} | tail -n 1"))?;
    let time = line.split_whitespace().last().unwrap_or_default();
    time.parse().with_context(|| format!("xl list says '{line}'"))
}

/// What a driver domain has on loan, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, u64>);

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
    /// A netdom of 8 MiB, no device, an empty command line.
    pub fn netdom(name: &str) -> Self {
        Self::new("netdom", "vif", name)
    }

    /// A blkdom, likewise.
    pub fn blkdom(name: &str) -> Self {
        Self::new("blkdom", "vbd", name)
    }

    fn new(image: &'static str, kind: &'static str, name: &str) -> Self {
        Self { image, kind, name: name.to_owned(), memory: 8, pci: Vec::new(), extra: String::new() }
    }

    /// With one more device.
    pub fn pci(mut self, device: &str) -> Self {
        self.pci.push(device.to_owned());
        self
    }

    /// With this much memory, in MiB.
    pub fn memory(mut self, memory: u32) -> Self {
        self.memory = memory;
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
            "name = \"{name}\"\ntype = \"pv\"\nkernel = \"/usr/lib/oxidom/{image}\"\nmemory = {memory}\nvcpus = 2"
        )?;
        write!(
            f,
            "pci = {pci:?}\nextra = \"{extra}\"\non_crash = \"preserve\"\non_watchdog = \"preserve\"\n{NATIVE_CLOCK}"
        )
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

    /// Waits until this is among the counters of a guest's vifs.
    ///
    /// # Errors
    /// The counters, where it never is.
    pub fn counts_of(&self, guest: u32, text: &str) -> Result<()> {
        let path = format!("/local/domain/{}/data/statistics/vif/{guest}", self.id);
        // `xenstore-ls` would cut them.
        let counters = format!("for i in $(xenstore-list {path}); do xenstore-read {path}/$i; done");
        let waited = self.lab.wait_until(&format!("{{ {counters}; }} | grep -q '{text}'"), PATIENCE);
        waited
            .map(drop)
            .with_context(|| format!("no '{text}' in the counters {}", self.lab.must(&counters).unwrap_or_default()))
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
        let mut named = pairs(&self.node("data/resources")?).context("data/resources")?;
        let nodes = self.lab.must(&format!("xenstore-ls -f /local/domain/{}/backend | wc -l", self.id))?;
        named.insert("backend-nodes".to_owned(), nodes.trim().parse()?);
        Ok(Resources(named))
    }

    /// What it has counted, where its command line has the word `profile=on`: waits for the next line, so that it is of now.
    ///
    /// # Errors
    /// Where it says nothing within some seconds, or in other words.
    pub fn counts(&self) -> Result<Counts> {
        // Each line has the domain's uptime, so no two are alike. The first comes a second after the readiness.
        let script = format!(
            "node=/local/domain/{}/data/counts; old=$(xenstore-read $node 2>/dev/null); for i in $(seq 100); do \
             new=$(xenstore-read $node 2>/dev/null); test \"$new\" != \"$old\" && echo \"$new\" && exit; usleep 50000; done; \
             echo \"$node stays at '$old'\"; exit 1",
            self.id
        );
        let counts = pairs(self.lab.must(&script)?.trim_end()).map(Counts);
        counts.with_context(|| format!("data/counts of {}", self.name))
    }

    /// Seconds of CPU time that Xen has charged it with.
    ///
    /// # Errors
    /// Where `xl list` does not know it.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.lab, &self.name)
    }

    /// How long it was away before each of its lives but the first, by its log.
    ///
    /// # Errors
    /// Where dom0 does not answer.
    pub fn pauses(&self) -> Result<Vec<Pause>> {
        Ok(self.console()?.lines().filter_map(|line| Pause::parse(line.trim_end())).collect())
    }

    /// How many lives but the first have taken over, by its log.
    ///
    /// # Errors
    /// Where dom0 does not answer.
    pub fn lives(&self) -> Result<u64> {
        let said = self.lab.must(&format!("grep -c 'has taken over' {} || true", self.log()))?;
        said.trim().parse().with_context(|| format!("lives of {}: '{said}'", self.name))
    }

    /// Where dom0 keeps its console.
    fn log(&self) -> String {
        format!("/var/log/xen/console/guest-{}.log", self.name)
    }

    /// Waits until so many lives but the first have taken over.
    ///
    /// # Errors
    /// Where one takes too long.
    pub fn wait_for_lives(&self, lives: usize) -> Result<()> {
        let shown = format!("[ $(grep -c 'has taken over' {}) -ge {lives} ]", self.log());
        self.lab.wait_until(&shown, PATIENCE).map(drop)
    }

    /// Its console so far.
    ///
    /// # Errors
    /// Where dom0 does not answer.
    pub fn console(&self) -> Result<String> {
        self.lab.console(&self.name)
    }

    /// Destroys it when a case is done with it; an error of the case's gets the end of its console.
    ///
    /// # Errors
    /// The case's, or that of `xl destroy`.
    pub fn destroy_after<T>(&self, result: Result<T>) -> Result<T> {
        let result = self.lab.with_console(&self.name, result);
        self.lab.destroy_after(&self.name, result)
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

/// What a driver domain counted since its life began, by name: hypercalls and register accesses; times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// What came since `before`, which is of the same life.
    ///
    /// # Errors
    /// Where a count went back: a new life began.
    pub fn since(&self, before: &Self) -> Result<Self> {
        let difference = |(name, count): (&String, &u64)| {
            let before = before.get(name);
            let more = count.checked_sub(before);
            Ok((name.clone(), more.with_context(|| format!("{name} went from {before} to {count}"))?))
        };
        self.0.iter().map(difference).collect::<Result<_>>().map(Self)
    }

    /// A count by its name; zero where there is none.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// Reads `name value` pairs with commas between.
fn pairs(text: &str) -> Result<BTreeMap<String, u64>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.split(", ")
        .map(pair)
        .collect::<Option<_>>()
        .with_context(|| format!("no pairs of names and numbers: '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_set_against_those_of_before() {
        let counts = |text| pairs(text).map(Counts).expect("pairs");
        let before = counts("uptime-ms 1000, hypercalls 5, sched_op 5");
        let after = counts("uptime-ms 2500, hypercalls 25, grant_table_op 11, sched_op 14");
        let more = after.since(&before).expect("one life");
        let expected = counts("uptime-ms 1500, hypercalls 20, grant_table_op 11, sched_op 9");
        assert_eq!((&more, more.get("grant_table_op"), more.get("domctl")), (&expected, 11, 0));
        assert!(before.since(&after).is_err());
        assert!(pairs("uptime-ms 1000, hypercalls").is_err() && pairs("").is_err() && pairs("blocks -1").is_err());
    }
}

/// A life that took over.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// Lives before it.
    pub life: u64,
    /// How long the domain was away, in milliseconds.
    pub whole: f64,
    /// What of that it ran.
    pub own: f64,
}

impl Pause {
    fn parse(line: &str) -> Option<Self> {
        let (before, rest) = line.split_once(" has taken over, ")?;
        let (whole, rest) = rest.split_once(" after the last one ended; the domain ran ")?;
        let life = before.rsplit(' ').next()?.parse().ok()?;
        Some(Self { life, whole: milliseconds(whole)?, own: milliseconds(rest.strip_suffix(" of that")?)? })
    }
}

/// Of a duration as Rust shows it.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("ms", 1.0), ("µs", 1e-3), ("ns", 1e-6), ("s", 1e3)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

//! The xenstore in its domain against C xenstored and oxenstored in dom0: each in boots of its own, which take turns. Host.
//!
//! The machine, dom0, its weight and the guest are the same in every boot; only who serves the store differs. All domains share one CPU.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lab::{DOM0_WEIGHT, GuestConfig, Lab, Release, Row as Matrix, StorePlace};

use super::{Better, Report, Row};
use crate::stage::{Images, Stage};
use crate::traffic::Shell;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Boots of each store; the median counts.
    pub boots: u32,
    /// Requests of each kind.
    pub requests: u32,
    /// The memory of the store's domain, in MiB: 1,000 domains do not fit into 8.
    pub memory: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self { boots: 2, requests: 200, memory: 48 }
    }
}

/// Simulated domains in the store, in turn.
const LEVELS: [u32; 4] = [1, 10, 100, 1000];

/// What the lab's agent measures, and what each is called in the table.
const REQUESTS: [(&str, &str); 5] = [
    ("read", "read"),
    ("write", "write"),
    ("directory", "directory"),
    ("transaction", "transaction: start, read, write, commit"),
    ("watch", "watch: from the write to its event"),
];

/// Who measures.
const SIDES: [&str; 2] = ["guest", "dom0"];

/// What was seen of one store: each row's name with the figures of its boots.
type Figures = BTreeMap<String, Vec<f64>>;

/// Boots, measures, and tells `progress` what it is doing.
///
/// # Errors
/// What did not come up, or an I/O error.
pub fn run(release: Release, images: &Images, effort: Effort, progress: &dyn Fn(&str)) -> Result<Report> {
    let places = [StorePlace::Domain, StorePlace::Daemon, StorePlace::OcamlDaemon];
    let mut figures = [Figures::new(), Figures::new(), Figures::new()];
    for boot in 0..effort.boots {
        for (place, figures) in places.into_iter().zip(&mut figures) {
            let row = Matrix::new(release, place);
            progress(&format!("{row}: booting ({} of {})", boot + 1, effort.boots));
            let stage = Stage::boot_with(row, images, Vec::new(), |config| config.store_memory = effort.memory)?;
            let measure = Boot { lab: &stage.lab, effort, progress, place };
            measure.run(figures).with_context(|| format!("{row}: {}", store_log(&stage.lab, place)))?;
        }
    }
    let mut report = Report::with_heads(["xenstore-stubdom", "C xenstored", "oxenstored"]);
    let [ours, c, ocaml] = &figures;
    let mut push = |name: &str, unit: &str| {
        let of = |figures: &Figures| figures.get(name).cloned().unwrap_or_default();
        let row = Row::new(name, unit, Better::Less, &of(ours), &of(c), &[]);
        report.push(row.map(|row| row.against(Better::Less, &of(ocaml))));
    };
    for side in SIDES {
        for (request, _) in REQUESTS {
            LEVELS.iter().for_each(|domains| push(&name(side, *domains, request), "us"));
        }
    }
    for domains in LEVELS {
        push(&memory_name(domains), "KiB");
    }
    push(DOMAIN_MEMORY, "MiB");
    push(IMAGE, "KiB");
    Ok(report)
}

const DOMAIN_MEMORY: &str = "memory, the whole domain against the daemon at 1000 domains";
const IMAGE: &str = "image, against the daemon's program";

fn name(side: &str, domains: u32, request: &str) -> String {
    let known = REQUESTS.iter().find(|(known, _)| *known == request);
    format!("{side}, {domains} domains: {}", known.map_or(request, |(_, title)| title))
}

fn memory_name(domains: u32) -> String {
    format!("memory in use, {domains} domains: heap against resident set")
}

fn store_log(lab: &Lab, place: StorePlace) -> String {
    match place {
        StorePlace::Domain => lab.console("Xenstore").unwrap_or_default(),
        StorePlace::Daemon | StorePlace::OcamlDaemon => String::new(),
    }
}

/// One boot.
struct Boot<'s> {
    lab: &'s Lab,
    effort: Effort,
    progress: &'s dyn Fn(&str),
    place: StorePlace,
}

impl Boot<'_> {
    fn run(&self, figures: &mut Figures) -> Result<()> {
        let lab = self.lab;
        lab.must(&format!("xl sched-credit2 -d 0 -w {DOM0_WEIGHT}"))?;
        let guest = lab.create(&GuestConfig::new("guest"))?;
        let requests = self.effort.requests;
        let mut from = 0;
        for domains in LEVELS {
            (self.progress)(&format!("{}: {domains} domains", lab.row()));
            let background = format!("simulate-{domains}");
            lab.start(&background, &format!("/init measure simulate {from} {domains} {}", guest.id()))?;
            let end = format!(
                "while ! grep -q simulated /tmp/{background}.out; do \
                 kill -0 $(cat /tmp/{background}.pid) || {{ cat /tmp/{background}.out; exit 1; }}; usleep 20000; done"
            );
            lab.sh(&end)?;
            from = domains;
            figures.entry(memory_name(domains)).or_default().push(self.memory_in_use()?);
            let in_guest = guest.sh(&format!("/init measure store {requests} 0"))?;
            let in_dom0 = lab.sh(&format!("/init measure store {requests} {domains}"))?;
            for (side, said) in SIDES.into_iter().zip([in_guest, in_dom0]) {
                (self.progress)(&format!("{}, {side}: {}", lab.row(), said.trim().replace('\n', ", ")));
                for line in said.lines() {
                    let figure = line.split_once(' ').and_then(|(request, time)| Some((request, time.parse().ok()?)));
                    let (request, time) = figure.with_context(|| format!("the agent says '{line}'"))?;
                    figures.entry(name(side, domains, request)).or_default().push(time);
                }
            }
        }
        let (memory, image) = self.footprint()?;
        figures.entry(DOMAIN_MEMORY.to_owned()).or_default().push(memory);
        figures.entry(IMAGE.to_owned()).or_default().push(image);
        Ok(())
    }

    /// KiB: of the domain the heap's bytes in use, of a daemon its resident set.
    fn memory_in_use(&self) -> Result<f64> {
        match self.place {
            StorePlace::Domain => {
                let said = self.lab.must("xenstore-control memreport")?;
                let line = said.lines().find_map(|line| line.strip_prefix("heap")).unwrap_or_default();
                let bytes = line.split_whitespace().find_map(|word| word.parse::<f64>().ok());
                Ok(bytes.with_context(|| format!("xenstore-control memreport says '{said}'"))? / 1024.0)
            }
            StorePlace::Daemon | StorePlace::OcamlDaemon => {
                self.number("awk '/^VmRSS:/ { print $2 }' /proc/$DAEMON/status")
            }
        }
    }

    /// MiB of the whole domain, or of the daemon's resident set; KiB of the image, or of the daemon's program.
    fn footprint(&self) -> Result<(f64, f64)> {
        if self.place == StorePlace::Domain {
            let size = self.number("stat -c %s /usr/lib/oxidom/xenstore-stubdom")?;
            return Ok((self.number("xl list Xenstore | awk 'END { print $3 }'")?, size / 1024.0));
        }
        let size = self.number("stat -L -c %s /proc/$DAEMON/exe")?;
        Ok((self.memory_in_use()? / 1024.0, size / 1024.0))
    }

    /// What a command in dom0 prints; `$DAEMON` is the store's process.
    fn number(&self, command: &str) -> Result<f64> {
        let said = self.lab.must(&format!("DAEMON=$(pidof xenstored oxenstored); {command}"))?;
        said.trim().parse().with_context(|| format!("'{said}' of {command}"))
    }
}

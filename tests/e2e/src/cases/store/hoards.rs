//! Guests that take as much of the store's memory as it gives, alone and together: dom0's requests go on, and no life is lost. Host.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Clock, Lab, Row};

use super::super::{Case, Family, Play, Rows};
use super::{NAME, PATIENCE, Store, load, said};
use crate::differential::{create, play_lines};
use crate::stage::{Images, Stage};
use crate::traffic::Shell;

pub(super) const CASES: &[Case<Store>] = &[
    Case { name: "store: hostile domains: what each can hoard leaves dom0 and a neighbour room", run: alone },
    Case { name: "store: hostile domains: three that hoard at once leave dom0 and a neighbour room", run: together },
];

/// Lines are a domain's place among [`ATTACKERS`] and what it hoards. What one can take is within C xenstored's quotas.
const HOARDS: &[(&str, &[(usize, &str)])] = &[
    ("120 watches of 900 bytes, written and not read", &[(0, "events")]),
    ("ten transactions that read 1,020 absent nodes", &[(0, "reads")]),
    ("990 nodes of 2,000 bytes and those transactions", &[(0, "nodes-and-reads")]),
    ("128 watches on another's node, written 400 times", &[(1, "others-events"), (0, "events-of-others")]),
];
const TOGETHER: &[(usize, &str)] = &[(0, "nodes-and-reads"), (1, "events"), (2, "reads")];

const ATTACKERS: [&str; 3] = ["mallory", "eve", "trudy"];
const NEIGHBOUR: &str = "alice";
/// A node that two attackers share.
const SHARED: &str = "/lab-hoard";

/// What dom0 does meanwhile.
const DOM0: &str = "for i in 1 2 3 4 5 6 7 8 9 10; do \
    xenstore-write /lab-dom0/$i $i && [ $(xenstore-read /lab-dom0/$i) = $i ] || exit 1; done; \
    xenstore-rm /lab-dom0 && xenstore-control check";

struct Crowd<'a> {
    lab: &'a Lab,
    attackers: Vec<u32>,
    neighbour: u32,
    /// Lives before.
    lives: u64,
}

impl<'a> Crowd<'a> {
    fn create(lab: &'a Lab) -> Result<Self> {
        let mut ids = Vec::new();
        for name in ATTACKERS.iter().chain([&NEIGHBOUR]) {
            create(lab, name)?;
            ids.push(lab.domain_id(name)?);
        }
        let neighbour = ids.pop().context("no neighbour")?;
        lab.must(&format!("xenstore-write {SHARED} '' && xenstore-chmod {SHARED} n{} r{}", ids[0], ids[1]))?;
        Ok(Self { lab, attackers: ids, neighbour, lives: said::count(lab)? })
    }

    /// Has them hoard, looks at how the others are, and has them begin anew; a line of what was seen.
    fn suffer(&self, hoards: &[(usize, &str)]) -> Result<String> {
        let line = |(place, name): &(usize, &str)| format!("{} hoard.{name}", self.attackers[*place]);
        let took = play_lines(self.lab, &hoards.iter().map(line).collect::<Vec<_>>())?;
        self.lab.must(DOM0).context("dom0's requests")?;
        let report = self.lab.must("xenstore-control memreport")?;
        // The neighbour writes, watches and reads as a driver would.
        let own = format!("/local/domain/{}/data", self.neighbour);
        self.lab.must(&format!("xenstore-write {own} '' && xenstore-chmod {own} n{}", self.neighbour))?;
        let words: Vec<String> = (0..60).map(|number| format!("q11.0.data/{number}%00value")).collect();
        let heard = play_lines(self.lab, &[format!("{} {}", self.neighbour, words.join(" "))])?.concat();
        ensure!(heard.split(' ').all(|word| word == "m11.OK%00"), "the neighbour heard {heard}");
        let mut after: Vec<String> = hoards.iter().map(|(place, _)| self.attackers[*place]).map(again).collect();
        after.push(format!("{} q13.0.data%00", self.neighbour));
        let begun = play_lines(self.lab, &after)?;
        ensure!(
            begun.iter().take(hoards.len()).all(|said| said.starts_with("true")),
            "they do not begin anew: {begun:?}"
        );
        self.clear()?;
        let lives = said::count(self.lab)?;
        ensure!(lives == self.lives, "{} lives of the store were lost", lives - self.lives);
        let figure = |name: &str| {
            report.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_whitespace().nth(2))
        };
        let figures = ["memory", "memory-free", "heap"].map(|name| figure(name).unwrap_or("?").to_owned());
        Ok(format!("{} requests; bytes counted, free, in the heap: {}", took.join(" and "), figures.join(", ")))
    }

    /// Empties what the attackers wrote.
    fn clear(&self) -> Result<()> {
        let chmod = |id: &u32| {
            let own = format!("/local/domain/{id}/data");
            format!("xenstore-rm {own}; xenstore-write {own} '' && xenstore-chmod {own} n{id}")
        };
        let all: Vec<String> = self.attackers.iter().map(chmod).collect();
        self.lab.must(&all.join(" && "))?;
        let [one, two] = [self.attackers[0], self.attackers[1]];
        self.lab.must(&format!(
            "xenstore-rm {SHARED}; xenstore-write {SHARED} '' && xenstore-chmod {SHARED} n{one} r{two}"
        ))?;
        Ok(())
    }

    fn destroy(self) -> Result<()> {
        for name in ATTACKERS.iter().chain([&NEIGHBOUR]) {
            self.lab.must(&format!("xl destroy {name}"))?;
        }
        self.lab.must(&format!("xenstore-rm {SHARED} /lab-barrier"))?;
        Ok(())
    }
}

fn again(id: u32) -> String {
    format!("{id} reconnect")
}

fn alone(stage: &&Stage) -> Result<String> {
    let crowd = Crowd::create(&stage.lab)?;
    let mut report = Vec::new();
    for (name, hoards) in HOARDS {
        report.push(format!("{name}: {}", crowd.suffer(hoards).context(*name)?));
    }
    // The operator hears of it, too.
    let told = format!("domain {} is refused a request", crowd.attackers[0]);
    stage.lab.wait_for_console(NAME, &told, Duration::from_secs(60))?;
    crowd.destroy()?;
    Ok(report.join("; "))
}

fn together(stage: &&Stage) -> Result<String> {
    let crowd = Crowd::create(&stage.lab)?;
    let report = crowd.suffer(TOGETHER)?;
    crowd.destroy()?;
    Ok(report)
}

/// Guests' trees that are written to a store of [`MEMORY`] MiB.
const GUESTS: u32 = 500;
const MEMORY: u32 = 32;
/// How long that takes at most.
const WRITTEN: Duration = Duration::from_secs(1200);

/// The cases of a store for many guests.
pub struct Many;

impl Play for Many {
    const UP: &'static str = "on request: dom0 comes up with a store of 32 MiB";
    const FAMILIES: &'static [Family<Self>] = &[Family { rows: Rows::StoreInDomain, cases: MANY }];
    type Stage = Stage;
    type Scene<'s> = &'s Stage;

    fn boot(row: Row, images: &Images) -> Result<Stage> {
        Stage::boot_with(row, images, Vec::new(), |config| {
            config.store_memory = MEMORY;
            config.clock = Clock::Instructions;
        })
    }

    fn set(stage: &Stage) -> Result<&Stage> {
        Ok(stage)
    }

    fn witness<'a>(stage: &'a &Stage) -> (&'a Lab, &'a str) {
        (&stage.lab, NAME)
    }
}

const MANY: &[Case<Many>] =
    &[Case { name: "on request: a store of 32 MiB has the nodes of 500 guests and room for hostile ones", run: many }];

/// The trees are dom0's and of domains that are not there; the guests beside them are.
fn many(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    lab.start("simulate", &format!("/init measure simulate 0 {GUESTS} 0"))?;
    lab.wait_until("grep -q simulated /tmp/simulate.out", WRITTEN)?;
    let before = lab.must("xenstore-control memreport")?;
    let crowd = Crowd::create(lab)?;
    let suffered = crowd.suffer(TOGETHER)?;
    lab.must(&format!("xenstore-control live-update {}", said::IMAGE))?;
    lab.must("xenstore-control check")?;
    let pause = said::last_pause(lab)?;
    crowd.destroy()?;
    lab.stop("simulate")?;
    let one = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(format!("{}; then {suffered}; {pause}", before.lines().map(one).collect::<Vec<_>>().join(", ")))
}

/// Hostile domains, and for how long by the host's clock.
const HOSTILE: u32 = 20;
const SIEGE: Duration = Duration::from_secs(600);
/// What they do, in turns; each goes on until it is stopped.
const TURNS: [&str; 7] = [
    "attack.read-flood",
    "attack.write-flood",
    "attack.watch-events",
    "attack.transaction-flood",
    "attack.event-storm",
    "attack.never-reading",
    "attack.reconnect-storm",
];
/// Dom0's slowest request, in microseconds of guest time.
const SLOWEST_US: u64 = 100_000;

/// Twenty domains attack while dom0 and four guests check each answer that they get.
pub(super) fn siege(lab: &Lab) -> Result<String> {
    let mut ids = Vec::new();
    for number in 0..HOSTILE {
        let name = format!("hostile{number}");
        create(lab, &name)?;
        ids.push(lab.domain_id(&name)?);
    }
    let lives = said::count(lab)?;
    let (mut rounds, mut guest_seconds) = (0, 0.0);
    let done = load::under_load(lab, || {
        let uptime = || -> Result<f64> { Ok(lab.must("cut -d ' ' -f 1 /proc/uptime")?.trim().parse()?) };
        let (start, began) = (Instant::now(), uptime()?);
        while start.elapsed() < SIEGE {
            let turn = |place: usize| TURNS[(place + rounds) % TURNS.len()];
            let lines: Vec<String> =
                ids.iter().enumerate().map(|(place, id)| format!("{id} {}", turn(place))).collect();
            play_lines(lab, &lines)?;
            std::thread::sleep(Duration::from_secs(10));
            let ends = ids.iter().flat_map(|id| [format!("{id} stop"), again(*id), format!("{id} q13.0.data%00")]);
            play_lines(lab, &ends.collect::<Vec<_>>())?;
            for id in &ids {
                let own = format!("/local/domain/{id}/data");
                lab.must(&format!("xenstore-write {own} '' && xenstore-chmod {own} n{id}"))?;
            }
            rounds += 1;
        }
        guest_seconds = uptime()? - began;
        Ok(())
    })?;
    let lost = said::count(lab)? - lives;
    ensure!(lost == 0, "{lost} lives of the store were lost");
    for number in 0..HOSTILE {
        lab.must(&format!("xl destroy hostile{number}"))?;
    }
    lab.must("xenstore-rm /lab-barrier")?;
    let report =
        format!("{rounds} rounds, {guest_seconds:.0} s of guest time; {done}; dom0's {} us", done.dom0_slowest_us);
    ensure!(done.dom0_slowest_us < SLOWEST_US, "{report}");
    ensure!(lab.wait_until("xenstore-control check", PATIENCE).is_ok(), "the store does not hold together");
    Ok(report)
}

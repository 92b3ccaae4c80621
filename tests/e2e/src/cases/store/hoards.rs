//! Guests that take as much of the store's memory as it gives, alone and together: dom0's requests go on, and no life is lost. Host.

use anyhow::{Context, Result, ensure};
use lab::Lab;

use super::super::Case;
use super::{Store, lives};
use crate::differential::{create, play_lines};
use crate::stage::Stage;

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
        Ok(Self { lab, attackers: ids, neighbour, lives: lives::count(lab)? })
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
        let lives = lives::count(self.lab)?;
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
    crowd.destroy()?;
    Ok(report.join("; "))
}

fn together(stage: &&Stage) -> Result<String> {
    let crowd = Crowd::create(&stage.lab)?;
    let report = crowd.suffer(TOGETHER)?;
    crowd.destroy()?;
    Ok(report)
}

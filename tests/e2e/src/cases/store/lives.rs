//! That the xenstore's domain outlives its own failures and is replaced while it runs, and nobody notices. Host.
//!
//! The machine's clocks count instructions, a nanosecond each: the pauses are a guest's time, without what QEMU needs to translate code that
//! runs for the first time, and the same on any host.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Clock, DOM0_WEIGHT, Lab, Output, Row};

use super::super::{Case, Family, Play, Rows};
use super::said::{IMAGE, LOG, SERVES, count, last_pause};
use super::{NAME, PATIENCE, hoards, load};
use crate::differential::{create, play_lines};
use crate::rebuilt::rebuild;
use crate::stage::{Images, Stage};
use crate::traffic::Shell;

/// The cases of the store's lives.
pub struct Lives;

impl Play for Lives {
    const UP: &'static str = "store: dom0 comes up by a clock of instructions";
    const FAMILIES: &'static [Family<Self>] =
        &[Family { rows: Rows::StoreInDomain, cases: CASES }, Family { rows: Rows::StoreInDomain, cases: ON_REQUEST }];
    type Stage = Stage;
    type Scene<'s> = &'s Stage;

    fn boot(row: Row, images: &Images) -> Result<Stage> {
        Stage::boot_with(row, images, Vec::new(), |config| {
            config.store.clone_from(&images.faulty_store);
            config.store_word = Some("faults");
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

const CASES: &[Case<Lives>] = &[
    Case { name: "store: it fails, begins anew inside its domain, and goes on", run: failures },
    Case { name: "store: memory runs out, and only the domain that took most is cut off", run: shortage },
    Case { name: "store: xenstore-control live-update, images that do not fit, and one that gives up", run: updates },
    Case { name: "store: with the nodes of 150 domains in its 8 MiB it fails, is updated, and goes on", run: full },
    Case {
        name: "store: 20 live updates and 20 panics under load of dom0 and four guests: nothing lost, nothing twice",
        run: |stage| under_load(stage, 20),
    },
];

const ON_REQUEST: &[Case<Lives>] = &[
    Case {
        name: "on request: 20 hostile domains beside four honest ones for ten minutes: dom0's requests take no 100 ms",
        run: |stage| hoards::siege(&stage.lab),
    },
    Case {
        name: "on request: the store's 100 live updates and 100 panics under load: nothing lost, nothing twice",
        run: |stage| under_load(stage, 100),
    },
];

/// One that does the same and differs in most pages of its text, as a later build would.
const REBUILT: &str = "/tmp/rebuilt";
/// A pause takes less of the domain's own time, under the load of dom0 and four guests, in microseconds: it counts instructions.
const LIMIT_US: u64 = 10_000;
/// An image that exchanges more pages than that is another one.
const FEW_PAGES: usize = 8;

/// Each way to fail once, with a writer that must not notice.
fn failures(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    let points = ["before 4", "served 4", "kept 4", "sent 4", "memory 60", "memory 140"];
    lab.must("xenstore-write /test/before 1")?;
    let first = lives(stage)?;
    for point in points {
        let lives = lives(stage)?;
        lab.must(&format!("xenstore-control fault {point}"))?;
        let said = lab.must("for i in 1 2 3 4 5 6; do xenstore-write /test/$i $i; done; xenstore-list /test")?;
        ensure!(said.split_whitespace().eq(["before", "1", "2", "3", "4", "5", "6"]), "after {point}: '{said}'");
        wait_for_life(stage, lives + 1)?;
        lab.must("for i in 1 2 3 4 5 6; do xenstore-rm /test/$i; done")?;
    }
    lab.must("xenstore-rm /test && xenstore-control check")?;
    lab.must("! xenstore-read /poison-for-the-store")?;
    lab.wait_for_console(NAME, "a request is refused", PATIENCE)?;
    Ok(summary(&pauses(stage, first)?))
}

/// All memory goes at once while dom0 is served, and another domain has hoarded.
fn shortage(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    for name in ["mallory", "alice"] {
        create(lab, name)?;
    }
    let (mallory, alice) = (lab.domain_id("mallory")?, lab.domain_id("alice")?);
    let hoarded = play_lines(lab, &[format!("{mallory} hoard.nodes-and-reads")])?.concat();
    let before = lives(stage)?;
    lab.must("xenstore-control fault exhaust 2")?;
    lab.must("for i in 1 2 3 4 5 6; do xenstore-write /test/$i $i || exit 1; done; xenstore-rm /test")?;
    wait_for_life(stage, before + 1)?;
    lab.wait_for_console(NAME, &format!("domain {mallory} is cut off: memory ran out"), PATIENCE)?;
    let said = play_lines(
        lab,
        &[
            format!("{mallory} fault"),
            format!("{mallory} reconnect"),
            format!("{mallory} q2.0.data%00"),
            format!("{alice} fault"),
            format!("{alice} q2.0.data%00"),
        ],
    )?;
    let [cut_off, rest @ ..] = said.as_slice() else { bail!("the domains said nothing") };
    // Behind its page's error word is what was answered to it before.
    ensure!(cut_off.split(' ').next() == Some("1") && rest == ["true", "m2.", "0", "m2."], "the domains said {said:?}");
    let lives = lives(stage)?;
    ensure!(lives == before + 1, "{} lives ended", lives - before);
    for name in ["mallory", "alice"] {
        lab.must(&format!("xl destroy {name}"))?;
    }
    lab.must("xenstore-rm /lab-barrier; xenstore-control check")?;
    Ok(format!("after {hoarded} requests: {}", last_pause(lab)?))
}

/// Lives that have come to serve, but for the first. Their numbers are others where images gave up.
fn lives(stage: &&Stage) -> Result<u64> {
    count(&stage.lab)
}

/// Waits until so many lives have come to serve.
fn wait_for_life(stage: &&Stage, count: u64) -> Result<()> {
    stage.lab.wait_until(&format!("[ $(grep -c '{SERVES}' {LOG}) -ge {count} ]"), PATIENCE).map(drop)
}

/// What the store says of its pauses, of all lives but so many.
fn pauses(stage: &&Stage, but: u64) -> Result<Vec<Pause>> {
    let said = stage.lab.must(&format!("grep '{SERVES}' {LOG} | tail -n +{}", but + 1))?;
    said.lines().map(|line| Pause::parse(line).with_context(|| format!("no pause: {line}"))).collect()
}

/// Of each way for a life to end, the pauses by the clock and the domain's own time in them.
fn summary(pauses: &[Pause]) -> String {
    let mut report = Vec::new();
    for (name, cause, another) in [
        ("failures", "Failure", false),
        ("updates to the same image", "Replaced", false),
        ("updates to another image", "Replaced", true),
        ("ways back to the same image", "GivenUp", false),
        ("ways back from another image", "GivenUp", true),
    ] {
        let these = pauses.iter().filter(|pause| pause.cause == cause && pause.of_another_image() == another);
        let (mut whole, mut own): (Vec<u64>, Vec<u64>) = these.map(|pause| (pause.whole, pause.own)).unzip();
        whole.sort_unstable();
        own.sort_unstable();
        if let (Some(median), Some(most), Some(own_median), Some(own_most)) =
            (whole.get(whole.len() / 2), whole.last(), own.get(own.len() / 2), own.last())
        {
            report.push(format!(
                "{} {name}: median {median} us, at most {most} us; of its own, {own_median} us and {own_most} us",
                whole.len()
            ));
        }
    }
    report.join("; ")
}

/// What the log says of a life's beginning.
struct Pause {
    /// How the life before it ended.
    cause: String,
    /// Pages of the image that are others than before.
    exchanged: usize,
    /// Until it serves, in microseconds.
    whole: u64,
    /// Of that, what the domain itself ran.
    own: u64,
}

impl Pause {
    fn parse(line: &str) -> Option<Self> {
        let (cause, rest) = line.split_once(" domains after ")?.1.split_once(", ")?;
        let (exchanged, rest) = rest.split_once(" pages exchanged")?;
        let (whole, own) = rest.split_once("pause ")?.1.split_once(" us, of which it ran ")?;
        let own = own.split_once(" us")?.0.parse().ok()?;
        let (exchanged, whole) = (exchanged.parse().ok()?, whole.parse().ok()?);
        Some(Self { cause: cause.to_owned(), exchanged, whole, own })
    }

    /// Whether the life runs another image than the one before it.
    fn of_another_image(&self) -> bool {
        self.exchanged > FEW_PAGES
    }
}

/// Puts [`REBUILT`] into dom0: of the image that fails on demand, as [`IMAGE`] is here.
fn put_rebuilt(stage: &&Stage) -> Result<()> {
    let faulty = stage.images.faulty_store.as_ref().context("the image of the store that fails was not built")?;
    let mut image = fs::read(faulty)?;
    rebuild(&mut image)?;
    stage.lab.put(REBUILT, 0o644, &image)
}

/// By the tool as Debian has it.
fn updates(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    put_rebuilt(stage)?;
    lab.must("xenstore-write /test/before 1")?;
    let first = lives(stage)?;
    let mut runs = IMAGE;
    for image in [IMAGE, REBUILT, REBUILT, IMAGE, REBUILT, IMAGE] {
        let before = lives(stage)?;
        lab.must(&format!("xenstore-control live-update {image}"))?;
        wait_for_life(stage, before + 1)?;
        let said = lab.must(&format!("grep '{SERVES}' {LOG} | tail -n 1"))?;
        let pause = Pause::parse(&said).with_context(|| format!("no pause: {said}"))?;
        ensure!(pause.of_another_image() == (image != runs), "from {runs} to {image}: {said}");
        runs = image;
        ensure!(lab.must("xenstore-read /test/before")?.trim() == "1", "a node is lost");
    }
    // What is no image, is none of ours, and is one that cannot go on from what the store leaves.
    lab.must(&format!("head -c 5000 /dev/zero >/tmp/zeros; head -c 9000 {IMAGE} >/tmp/cut"))?;
    for (image, reason) in [
        ("/tmp/zeros", "no whole ELF file"),
        ("/tmp/cut", "no image"),
        ("/usr/lib/oxidom/netdom", "an image of netdom"),
    ] {
        let said = lab.run(&format!("xenstore-control live-update {image}"))?;
        ensure!(said.status != 0 && said.stdout.contains(reason), "live-update {image}: {said:?}");
        ensure!(lab.must("xenstore-read /test/before")?.trim() == "1", "a node is lost after {image}");
    }
    lab.must(&format!("tail -c +2 {IMAGE} >/tmp/odd"))?;
    let said = lab.run("xenstore-control live-update /tmp/odd")?;
    ensure!(
        said.status != 0 && said.stdout.contains("no whole ELF file"),
        "an image that lacks its first byte: {said:?}"
    );
    for image in [IMAGE, REBUILT] {
        for (words, reason) in [("faults=give-up", "as its command line says"), ("faults=panic", "a new image fails")] {
            let said = lab.run(&format!("xenstore-control live-update -c '{words}' {image}"))?;
            ensure!(said.status != 0 && said.stdout.contains(reason), "live-update -c {words}: {said:?}");
            ensure!(lab.must("xenstore-read /test/before")?.trim() == "1", "a node is lost after {words}");
        }
    }
    by_tool(stage)?;
    lab.must(&format!("xenstore-rm /test && xenstore-control live-update -t 5 -F -c faults {IMAGE}"))?;
    Ok(summary(&pauses(stage, first)?))
}

/// The same by `oxidom`, and a new life of the same image.
fn by_tool(stage: &&Stage) -> Result<()> {
    let lab = &stage.lab;
    let words = "--words 'faults=give-up'";
    for (arguments, status, said) in [
        (format!("update {NAME} {REBUILT}"), 0, "\"result\":\"done\""),
        (format!("restart {NAME}"), 0, "\"pages\":0"),
        (format!("update {NAME} /usr/lib/oxidom/netdom"), 1, "an image of netdom, and the running one is of stubdom"),
        (format!("update {NAME} {IMAGE} {words}"), 3, "as its command line says"),
        (format!("update {NAME} {IMAGE}"), 0, "\"result\":\"done\""),
    ] {
        let output = lab.run(&format!("oxidom --json {arguments}"))?;
        ensure!(output.status == status && output.stdout.contains(said), "oxidom {arguments}: {output:?}");
        ensure!(lab.must("xenstore-read /test/before")?.trim() == "1", "a node is lost after oxidom {arguments}");
    }
    Ok(())
}

/// Domains that are simulated in a store of 8 MiB, by what `xl` and drivers leave of each: 62 nodes and six watches.
const SIMULATED: u32 = 150;

/// The state has to fit into memory twice: as it lies in the heap, and as it is written when a life ends.
fn full(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    put_rebuilt(stage)?;
    let first = lives(stage)?;
    lab.start("simulate", &format!("/init measure simulate 0 {SIMULATED} 0"))?;
    let simulated = || -> Result<()> {
        lab.wait_until("grep -q simulated /tmp/simulate.out", PATIENCE)?;
        for (number, end) in [
            "xenstore-control fault served 1",
            &format!("xenstore-control live-update {REBUILT}"),
            &format!("xenstore-control live-update {IMAGE}"),
        ]
        .into_iter()
        .enumerate()
        {
            let before = lives(stage)?;
            lab.must(&format!("xenstore-write /test/{number} 1"))?;
            lab.must(end)?;
            lab.must("xenstore-read /test/0")?;
            wait_for_life(stage, before + 1)?;
            lab.must(&format!("xenstore-read /test/{number} && xenstore-control check"))?;
        }
        Ok(())
    };
    let outlived = simulated();
    let report = lab.must("xenstore-control memreport");
    lab.stop("simulate")?;
    // The watches have gone with the agent's connections.
    let cleared = lab.must(&format!(
        "xenstore-rm /test; n=0; while [ $n -lt {SIMULATED} ]; do i=$((10000 + n)); n=$((n + 1)); \
         xenstore-rm /vm/SIM$i /libxl/$i /local/domain/$i /local/domain/0/backend/console/$i || exit 1; done; \
         xenstore-rm /local/domain/9999"
    ));
    outlived?;
    cleared?;
    let report = report?;
    let line = |name: &str| report.lines().find(|line| line.starts_with(name)).unwrap_or_default().replace("  ", "");
    Ok(format!("{}, {}; {}", line("nodes"), line("heap"), summary(&pauses(stage, first)?)))
}

/// How long all of them may take.
const ALL: Duration = Duration::from_secs(1800);

/// So many updates, and as many failures. The load does the requests that fail: a panic comes with one of the next, at each point in turn. Between two of them is an update, every
/// other time to another image; and every fourth time, before that, one to an image that gives up, which the running one comes back from: it
/// does what an update to another image does, on code that QEMU has translated.
fn under_load(stage: &&Stage, ends: u64) -> Result<String> {
    let lab = &stage.lab;
    put_rebuilt(stage)?;
    let before = lives(stage)?;
    let script = format!(
        "lives() {{ cat {LOG} 2>/dev/null | grep -c '{SERVES}' || true; }}
         i=0; while [ $i -lt {ends} ]; do
             case $((i % 5)) in
                 0) fault=\"before $((2 + i % 7 * 3))\";;
                 1) fault=\"served $((2 + i % 7 * 3))\";;
                 2) fault=\"kept $((2 + i % 7 * 3))\";;
                 3) fault=\"sent $((2 + i % 7 * 3))\";;
                 4) fault=\"memory $((60 + i * 37 % 400))\";;
             esac
             if [ $((i % 4)) -lt 2 ]; then image={IMAGE}; else image={REBUILT}; fi
             if [ $((i % 4)) = 0 ]; then
                 xenstore-control live-update -c faults=give-up $image && {{ echo \"no way back in cycle $i\"; exit 1; }}
             fi
             xenstore-control live-update $image || {{ echo \"update in cycle $i\"; exit 1; }}
             xenstore-control fault $fault || {{ echo \"fault $fault in cycle $i\"; exit 1; }}
             i=$((i + 1))
             # A failure while an image is on its way is the end of that update.
             n=0; while [ $(lives) -lt $(({before} + 2 * i + (i + 3) / 4)) ]; do
                 n=$((n + 1)); [ $n -lt 6000 ] || {{ echo \"no life after $fault\"; exit 1; }}; usleep 10000
             done
         done"
    );
    // The script goes before the guests' load, or it takes three times as long.
    let weigh = |weight: u32| {
        lab.must(&format!("for domain in 0 {NAME}; do xl sched-credit2 -d $domain -w {weight}; done")).map(drop)
    };
    let done = load::under_load(lab, || {
        weigh(8 * DOM0_WEIGHT)?;
        let done = lab.run_for(&script, ALL).and_then(Output::success);
        weigh(DOM0_WEIGHT)?;
        done?;
        wait_for_life(stage, before + 2 * ends + ends / 4)
    })?;
    let all = lives(stage)?;
    ensure!(all == before + 2 * ends + ends / 4, "{} lives began", all - before);
    lab.must("xenstore-control check")?;
    // Each life has as many ports and mapped pages as the first one with so many domains.
    let held = format!("grep -o 'serves 5 domains after .* mapped pages' {LOG}");
    let held = lab.must(&format!("{held} | cut -d , -f 3,4 | sort -u"))?;
    ensure!(held.lines().count() == 1, "what the lives have, ports and mapped pages:\n{held}");
    let pauses = pauses(stage, before)?;
    let report = summary(&pauses);
    ensure!(pauses.iter().all(|pause| pause.own < LIMIT_US), "a pause of {LIMIT_US} us and more: {report}");
    Ok(format!("{done}; {report}"))
}

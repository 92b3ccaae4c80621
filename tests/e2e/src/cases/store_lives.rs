//! That the xenstore's domain outlives its own failures and is replaced while it runs, and nobody notices. Host.

use anyhow::{Context, Result, ensure};
use lab::GuestConfig;

use super::store::{NAME, PATIENCE};
use crate::stage::Stage;

/// The image that it runs, in dom0.
const IMAGE: &str = "/usr/lib/oxidom/xenstore-stubdom";

/// Each way to fail once, with a writer that must not notice.
pub(super) fn failures(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    let points = ["before 4", "served 4", "kept 4", "sent 4", "memory 60", "memory 140"];
    lab.must("xenstore-write /test/before 1")?;
    for point in points {
        let lives = lives(stage)?;
        lab.must(&format!("xenstore-control fault {point}"))?;
        let said = lab.must("for i in 1 2 3 4 5 6; do xenstore-write /test/$i $i; done; xenstore-list /test")?;
        ensure!(said.split_whitespace().eq(["before", "1", "2", "3", "4", "5", "6"]), "after {point}: '{said}'");
        lab.wait_for_console(NAME, &format!("life {} serves", lives + 1), PATIENCE)?;
        lab.must("for i in 1 2 3 4 5 6; do xenstore-rm /test/$i; done")?;
    }
    lab.must("xenstore-rm /test && xenstore-control check")?;
    lab.must("! xenstore-read /poison-for-the-store")?;
    lab.wait_for_console(NAME, "a request is refused", PATIENCE)?;
    pauses(stage)
}

/// Lives that ended so far.
fn lives(stage: &&Stage) -> Result<u64> {
    let said =
        stage.lab.must(&format!("grep -c 'serves .* domains after' /var/log/xen/console/guest-{NAME}.log || true"))?;
    said.trim().parse().with_context(|| format!("'{said}'"))
}

/// What the store says of its pauses.
fn pauses(stage: &&Stage) -> Result<String> {
    let said = stage.lab.must(&format!("grep 'serves .* domains after' /var/log/xen/console/guest-{NAME}.log"))?;
    let mut report = Vec::new();
    for cause in ["Failure", "Replaced"] {
        let of_cause = said.lines().filter(|line| line.contains(cause));
        let pause = |line: &str| line.rsplit_once("pause ")?.1.split_once(" us")?.0.parse::<u64>().ok();
        let mut all: Vec<u64> = of_cause.filter_map(pause).collect();
        all.sort_unstable();
        if let (Some(median), Some(most)) = (all.get(all.len() / 2), all.last()) {
            report.push(format!("{} after {cause}: median {median} us, at most {most} us", all.len()));
        }
    }
    Ok(report.join("; "))
}

/// By the tool as Debian has it.
pub(super) fn updates(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    lab.must("xenstore-write /test/before 1")?;
    for _ in 0..3 {
        let before = lives(stage)?;
        lab.must(&format!("xenstore-control live-update {IMAGE}"))?;
        lab.wait_for_console(NAME, &format!("life {} serves", before + 1), PATIENCE)?;
        ensure!(lab.must("xenstore-read /test/before")?.trim() == "1", "a node is lost");
    }
    // What is no image, is none of ours, and is one that cannot go on from what the store leaves.
    lab.must(&format!("head -c 5000 /dev/zero >/tmp/zeros; head -c 9000 {IMAGE} >/tmp/cut"))?;
    for (image, reason) in
        [("/tmp/zeros", "no image"), ("/tmp/cut", "no image"), ("/usr/lib/oxidom/netdom", "no image")]
    {
        let said = lab.run(&format!("xenstore-control live-update {image}"))?;
        ensure!(said.status != 0 && said.stdout.contains(reason), "live-update {image}: {said:?}");
        ensure!(lab.must("xenstore-read /test/before")?.trim() == "1", "a node is lost after {image}");
    }
    lab.must(&format!("tail -c +2 {IMAGE} >/tmp/odd"))?;
    let said = lab.run("xenstore-control live-update /tmp/odd")?;
    ensure!(said.status != 0 && said.stdout.contains("NotElf"), "an image that lacks its first byte: {said:?}");
    for (words, reason) in [("faults=give-up", "as its command line says"), ("faults=panic", "a new image fails")] {
        let said = lab.run(&format!("xenstore-control live-update -c '{words}' {IMAGE}"))?;
        ensure!(said.status != 0 && said.stdout.contains(reason), "live-update -c {words}: {said:?}");
        ensure!(lab.must("xenstore-read /test/before")?.trim() == "1", "a node is lost after {words}");
    }
    lab.must(&format!("xenstore-rm /test && xenstore-control live-update -t 5 -F -c faults {IMAGE}"))?;
    pauses(stage)
}

/// Failures, and updates, under the load.
const CYCLES: u64 = 30;
/// An update each so many failures.
const EACH: u64 = 6;

/// Dom0 and four guests read and write and check what they find, while the store fails and is replaced.
pub(super) fn under_load(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    let memory = || lab.must("xenstore-control memreport");
    let guests = ["l1", "l2", "l3", "l4"].map(|name| lab.create(&GuestConfig::new(name)));
    let guests = guests.into_iter().collect::<Result<Vec<_>>>()?;
    // The directory of what commands say is there from the first one on.
    guests.iter().try_for_each(|guest| guest.must("echo").map(drop))?;
    let before = memory()?;
    lab.must("xenstore-write /load/counter 0 && xenstore-chmod /load b0 && xenstore-chmod /load/counter b0")?;
    let begin = |name: &str, home: &str| {
        format!("(/init store-load {name} {home} >/tmp/load 2>&1; echo status=$? >>/tmp/load) >/dev/null 2>&1 & true")
    };
    lab.must(&begin("dom0", "/load/own"))?;
    for guest in &guests {
        guest.must(&begin(&guest.id().to_string(), ""))?;
    }
    lives_under_load(stage)?;
    lab.must("xenstore-write /load/stop 1")?;
    let end = "while ! grep -q status= /tmp/load; do usleep 50000; done; cat /tmp/load";
    let mut reports = vec![lab.must(end)?];
    for guest in &guests {
        reports.push(guest.must(end)?);
    }
    let mut added = 0;
    let (mut requests, mut heard) = (0, 0);
    for said in reports {
        ensure!(said.contains("status=0"), "a client said '{said}'");
        let number = |name: &str| {
            let word = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|word| word.parse::<u64>().ok()).with_context(|| format!("a client said '{said}'"))
        };
        added += number("added")?;
        requests += number("requests")?;
        heard += number("heard")?;
    }
    let counter: u64 = lab.must("xenstore-read /load/counter")?.trim().parse()?;
    ensure!(counter == added, "the clients added {added}, and the counter says {counter}");
    lab.must("xenstore-rm /load && xenstore-control check")?;
    // Each life has as many ports and mapped pages as the first one with so many domains.
    let held = format!("grep -o 'serves 5 domains after .* mapped pages' /var/log/xen/console/guest-{NAME}.log");
    let held = lab.must(&format!("{held} | cut -d , -f 2,3 | sort -u"))?;
    ensure!(held.lines().count() == 1, "what the lives have, ports and mapped pages:\n{held}");
    let after = memory()?;
    ensure!(after == before, "memory before:\n{before}\nand after:\n{after}");
    drop(guests);
    lab.must("for guest in l1 l2 l3 l4; do xl destroy $guest; done")?;
    Ok(format!("{requests} requests, {added} added, {heard} events; {}", pauses(stage)?))
}

/// Has the store fail and be replaced, one after the other, by one script in dom0.
fn lives_under_load(stage: &&Stage) -> Result<()> {
    let log = format!("/var/log/xen/console/guest-{NAME}.log");
    let script = format!(
        "lives() {{ grep -c 'serves .* domains after' {log}; }}
         wait_for() {{ n=0; while test $(lives) -le $1; do
             n=$((n + 1)); test $n -lt 6000 || {{ echo \"no life after $1\"; exit 1; }}; usleep 10000; done; }}
         cycle=0; while test $cycle -lt {CYCLES}; do
             before=$(lives)
             case $((cycle % 5)) in
                 0) fault=\"before $((2 + cycle % 7))\";;
                 1) fault=\"served $((2 + cycle % 7))\";;
                 2) fault=\"kept $((2 + cycle % 7))\";;
                 3) fault=\"sent $((2 + cycle % 7))\";;
                 4) fault=\"memory $((60 + cycle * 37 % 400))\";;
             esac
             xenstore-control fault $fault || {{ echo \"fault $fault in cycle $cycle\"; exit 1; }}
             wait_for $before
             if test $((cycle % {EACH})) = 0; then
                 before=$(lives)
                 xenstore-control live-update {IMAGE} || {{ echo \"update in cycle $cycle\"; exit 1; }}
                 wait_for $before
             fi
             cycle=$((cycle + 1))
         done"
    );
    stage.lab.run_for(&script, PATIENCE * 10)?.success().map(drop)
}

//! That the xenstore's domain outlives its own failures and is replaced while it runs, and nobody notices. Host.

use anyhow::{Context, Result, ensure};

use super::store::{NAME, PATIENCE};
use crate::stage::Stage;

/// The image that it runs, in dom0.
pub(super) const IMAGE: &str = "/usr/lib/oxidom/xenstore-stubdom";

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
    let said = lab.run("xenstore-read /poison-for-the-store")?;
    ensure!(said.status != 0 && said.stdout.contains("Input/output"), "a request that always fails: {said:?}");
    pauses(stage)
}

/// Lives that ended so far.
pub(super) fn lives(stage: &&Stage) -> Result<u64> {
    let said = stage.lab.must(&format!(
        "cat /var/log/xen/console/guest-{NAME}.log 2>/dev/null | grep -c 'serves .* domains after' || true"
    ))?;
    said.trim().parse().with_context(|| format!("'{said}'"))
}

/// What the store says of its pauses.
pub(super) fn pauses(stage: &&Stage) -> Result<String> {
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
    lab.must("head -c 5000 /dev/zero >/tmp/zeros; head -c 9000 /usr/bin/xl >/tmp/other")?;
    for (image, reason) in [("/tmp/zeros", "NotElf"), ("/tmp/other", "NotElf"), ("/usr/lib/oxidom/guest", "")] {
        let said = lab.run(&format!("xenstore-control live-update {image}"))?;
        ensure!(said.status != 0 && said.stdout.contains(reason), "live-update {image}: {said:?}");
        ensure!(lab.must("xenstore-read /test/before")?.trim() == "1", "a node is lost after {image}");
    }
    lab.must(&format!("xenstore-rm /test && xenstore-control live-update {IMAGE}"))?;
    pauses(stage)
}

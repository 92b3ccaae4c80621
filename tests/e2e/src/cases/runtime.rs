//! The runtime in a domain made by `xl`: console, xenstore, and the report of a crash. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::NATIVE_CLOCK;

use super::{Case, Scene};
use crate::symbolize::symbolize;

pub(super) const CASES: &[Case] = &[
    Case { name: "the runtime under xl: a flood of log lines never blocks: lines are dropped and counted", run: flood },
    Case { name: "the runtime under xl: lines typed at the console arrive", run: typed },
    Case { name: "the runtime under xl: a xenstore directory of several payloads is listed whole", run: directory },
    Case {
        name: "the runtime under xl: a restart in place is not seen outside, and its console goes on",
        run: restart,
    },
    Case {
        name: "the runtime under xl: lives that end within requests and answers of the store: none is torn, no watch is left",
        run: store,
    },
    Case { name: "the runtime under xl: the log of a crash gives function and line", run: crash },
];

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test of the image `guest` in a domain of its own; `with` gets the domain's name and its directory in the store.
fn domain<T>(scene: &Scene<'_>, test: &str, with: impl FnOnce(&str, &str) -> Result<T>) -> Result<T> {
    let lab = &scene.stage.lab;
    let name = format!("test-{test}");
    let config = format!(
        "name = \"{name}\"\ntype = \"pv\"\nkernel = \"/usr/lib/oxidom/guest\"\nmemory = 16\nvcpus = 1\n\
         extra = \"test={test}\"\non_reboot = \"preserve\"\non_crash = \"preserve\"\n{NATIVE_CLOCK}"
    );
    lab.put(&format!("/etc/xen/{name}.cfg"), 0o644, config.as_bytes())?;
    lab.must(&format!("xl create -q /etc/xen/{name}.cfg"))?;
    let result = lab.domain_id(&name).and_then(|id| with(&name, &format!("/local/domain/{id}")));
    lab.destroy_after(&name, result)
}

/// The test must end well; gives its console.
fn succeeds(scene: &Scene<'_>, name: &str) -> Result<String> {
    let lab = &scene.stage.lab;
    let line = lab.wait_for_console(name, "Test result: ", PATIENCE)?;
    let console = lab.console(name)?;
    ensure!(line.contains("SUCCESS"), "its console ends:\n{}", end(&console, 10));
    Ok(console)
}

fn end(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// What a line of the log says, without its time.
fn said<'c>(console: &'c str, words: &str) -> &'c str {
    let line = console.lines().rev().find(|line| line.contains(words)).unwrap_or_default();
    line.rsplit_once(": ").map_or(line, |(_, text)| text).trim()
}

fn flood(scene: &Scene<'_>) -> Result<String> {
    domain(scene, "flood", |name, _| Ok(said(&succeeds(scene, name)?, "5000 lines in").to_owned()))
}

fn typed(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    domain(scene, "typed", |name, directory| {
        lab.wait_for_console(name, "type lines", PATIENCE)?;
        let tty = format!("$(xenstore-read {directory}/console/tty)");
        // Longer than the ring's 1024 bytes in all, each line after the one before has been read.
        let lines: Vec<String> =
            (0..8).map(|number| format!("{number} {}", "typed at the console ".repeat(8))).collect();
        for line in &lines {
            let line = line.trim();
            lab.must(&format!("echo '{line}' > {tty}"))?;
            lab.wait_for_console(name, &format!("typed: {line}"), PATIENCE)?;
        }
        lab.must(&format!("echo end > {tty}"))?;
        succeeds(scene, name)?;
        Ok(format!("{} bytes in {} lines", lines.iter().map(String::len).sum::<usize>(), lines.len()))
    })
}

/// Names of 45 bytes each, in four payloads of 4 KiB.
const NAMES: usize = 300;

fn directory(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    domain(scene, "directory", |name, directory| {
        lab.wait_for_console(name, "make them", PATIENCE)?;
        let names: Vec<String> =
            (0..NAMES).map(|number| format!("{directory}/data/many/{number:04}-{:x<40} 1", "")).collect();
        for names in names.chunks(100) {
            lab.must(&format!("xenstore-write {}", names.join(" ")))?;
        }
        lab.must(&format!("xenstore-write {directory}/data/made {NAMES}"))?;
        Ok(said(&succeeds(scene, name)?, " names, ").to_owned())
    })
}

fn restart(scene: &Scene<'_>) -> Result<String> {
    domain(scene, "restart-console", |name, _| {
        let console = succeeds(scene, name)?;
        let mut rest = console.as_str();
        for life in 0..=5 {
            let lines = (0..20).map(|line| format!("life {life} line {line}"));
            let end = (life < 5).then(|| format!("life {life} ends"));
            for words in lines.chain(end) {
                let (_, after) = rest.split_once(&words).with_context(|| {
                    format!("the console lacks '{words}' at its place:\n{}", self::end(&console, 40))
                })?;
                rest = after;
            }
        }
        Ok(said(&console, "life 5 after a pause").to_owned())
    })
}

fn store(scene: &Scene<'_>) -> Result<String> {
    domain(scene, "restart-store", |name, _| {
        let console = succeeds(scene, name)?;
        let lines: Vec<&str> = console.lines().filter(|line| line.contains("the store's connection goes on")).collect();
        let within = |words| lines.iter().filter(|line| line.contains(words)).count();
        let (answers, whole) = (within("within an answer: true"), within(" 0 bytes of a request"));
        let requests = lines.len() - whole;
        ensure!(
            requests > 0 && answers > 0,
            "{} lives, {requests} within a request, {answers} within an answer",
            lines.len()
        );
        Ok(format!("{} lives, {requests} within a request, {answers} within an answer", lines.len()))
    })
}

/// Where the tests that crash are, as the panic has it and as debug information does.
const SOURCE: &str = include_str!("../../../guests/src/crash.rs");

fn crash(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let image = scene.stage.images.guest.as_deref().context("the image of the runtime's tests was not built")?;
    for (test, culprit, report) in [
        ("panic", "panic!(\"as the test asks\")", "panicked at"),
        ("fault", "runtime::trap::probe::raise()", "fault: invalid opcode"),
    ] {
        let console = domain(scene, test, |name, _| {
            // The state's letter, as `xl list` has it.
            lab.wait_until(&format!("xl list {name} | awk 'END {{ exit $5 !~ /c/ }}'"), PATIENCE)
                .context("it has not crashed")?;
            lab.wait_for_console(name, "  at 0x", PATIENCE)?;
            lab.console(name)
        })?;
        ensure!(console.contains(report), "the console says nothing of '{report}':\n{}", end(&console, 20));
        let line = SOURCE.lines().position(|line| line.contains(culprit)).context("the culprit is gone")? + 1;
        let place = format!("crash.rs:{line}");
        let symbolized = symbolize(image, &console)?;
        let found = symbolized.lines().any(|line| line.contains(&format!(" {test} at ")) && line.ends_with(&place));
        ensure!(found, "no {test} at {place}:\n{}", end(&symbolized, 40));
    }
    Ok("of a panic, and of a fault".to_owned())
}

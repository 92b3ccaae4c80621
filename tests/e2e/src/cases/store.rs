//! What the toolstack, its tools and guests see of the row's xenstore. Host.

mod differential;
mod hoards;
mod hostile;
mod lives;
mod load;
mod said;

pub use hoards::Many;
pub use lives::Lives;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{GuestConfig, Lab, Row};

use super::{Case, Family, Play, Rows};
use crate::differential::create;
use crate::stage::{Images, Stage};

/// The cases of the xenstore: first those for any row, then those for a store in a domain of its own.
pub struct Store;

/// What `init-xenstore-domain` calls it.
pub(super) const NAME: &str = "Xenstore";

/// What comes and goes.
const CYCLED: &str = "cycle";
/// How often.
const CYCLES: u32 = 60;
/// Bytes that the store's heap may grow by meanwhile: buffers that were never as full before.
const HEAP_GROWTH: u64 = 8192;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

const CASES: &[Case<Store>] = &[
    Case { name: "store: xl list shows the store's domain, and no xenstored runs", run: no_daemon },
    Case { name: "store: xenstore-write, -read, -list, -ls, -chmod, -exists and -rm", run: tools },
    Case { name: "store: xenstore-watch hears what changes below its node", run: watch },
    Case { name: "store: xenstore-control asks what the store knows of itself", run: control },
    Case { name: "store: Debian's test-xenstore passes", run: test_xenstore },
    Case { name: "store: xl create, list, rename, reboot and destroy of a Linux guest", run: guest },
    Case {
        name: "store: 60 guests created and destroyed leave the tree and the store's memory as they were",
        run: cycles,
    },
];

impl Play for Store {
    const UP: &'static str = "store: dom0 comes up";
    const FAMILIES: &'static [Family<Self>] = &[
        Family { rows: Rows::StoreLikeC, cases: differential::CASES },
        Family { rows: Rows::StoreInDomain, cases: CASES },
        Family { rows: Rows::StoreInDomain, cases: hostile::CASES },
        Family { rows: Rows::StoreInDomain, cases: hoards::CASES },
    ];
    type Stage = Stage;
    type Scene<'s> = &'s Stage;

    fn boot(row: Row, images: &Images) -> Result<Stage> {
        Stage::boot(row, images, Vec::new())
    }

    fn set(stage: &Stage) -> Result<&Stage> {
        Ok(stage)
    }

    fn witness<'a>(stage: &'a &Stage) -> (&'a Lab, &'a str) {
        (&stage.lab, NAME)
    }
}

fn no_daemon(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    lab.must("! pidof xenstored")?;
    let id = lab.domain_id(NAME)?;
    let known = lab.must("xenstore-read /tool/xenstored/domid")?;
    ensure!(known.trim() == id.to_string(), "the store is domain {id}, and /tool/xenstored/domid says {known}");
    let line = lab.must(&format!("xl list {NAME} | tail -n 1"))?;
    let memory = line.split_whitespace().nth(2).unwrap_or_default();
    let ready = lab.wait_for_console(NAME, "ready in", PATIENCE)?;
    let ready = ready.rsplit_once("ready in").map_or("", |(_, time)| time.trim());
    Ok(format!("{memory} MiB, ready in {ready}, dom0 after {:.1} s", lab.dom0_uptime))
}

fn tools(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    let steps = [
        ("xenstore-write /test/a/b one /test/a/c two", ""),
        ("xenstore-read /test/a/b /test/a/c", "one\ntwo"),
        ("xenstore-list /test/a", "b\nc"),
        ("xenstore-ls /test", "a = \"\"\n b = \"one\"\n c = \"two\""),
        ("xenstore-chmod /test/a r0 b1; xenstore-ls -p /test/a", "b = \"one\"   (n0)\nc = \"two\"   (n0)"),
        ("xenstore-ls -p /test", "a = \"\"   (r0,b1)\n b = \"one\"   (n0)\n c = \"two\"   (n0)"),
        ("xenstore-exists /test/a/b && echo yes", "yes"),
        ("xenstore-exists /test/none || echo no", "no"),
        ("xenstore-rm /test; xenstore-exists /test || echo no", "no"),
    ];
    for (command, expected) in steps {
        // The columns of `xenstore-ls -p` depend on the terminal's width.
        let said = lab.run(command)?.stdout;
        let squeezed = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let dots = |text: &str| text.replace('.', " ");
        ensure!(squeezed(&dots(&said)) == squeezed(expected), "{command}: '{said}' in place of '{expected}'");
    }
    Ok(format!("{} commands", steps.len()))
}

fn watch(stage: &&Stage) -> Result<String> {
    let said = stage.lab.must(
        "xenstore-write /test 0; xenstore-watch -n 4 /test >/tmp/watch & \
         while ! grep -q /test /tmp/watch 2>/dev/null; do usleep 20000; done; \
         xenstore-write /test/a 1; xenstore-write /other 1; xenstore-write /test/a/b 2; xenstore-rm /test; \
         wait; xenstore-rm /other; cat /tmp/watch",
    )?;
    ensure!(said.split_whitespace().eq(["/test", "/test/a", "/test/a/b", "/test"]), "xenstore-watch said '{said}'");
    Ok(String::new())
}

fn control(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    for (command, expected) in [
        ("help", "check"),
        ("check", ""),
        ("quota", "transaction"),
        ("quota 0", "nodes"),
        ("memreport", ""),
        ("print hello", ""),
        ("log on", ""),
        ("log off", ""),
        ("nonsense || echo refused", "refused"),
    ] {
        let said = lab.run(&format!("xenstore-control {command}"))?.success();
        let said = said.with_context(|| format!("xenstore-control {command}"))?;
        ensure!(said.contains(expected), "xenstore-control {command} said '{said}', and nothing of {expected}");
    }
    Ok(String::new())
}

fn test_xenstore(stage: &&Stage) -> Result<String> {
    let said = stage.lab.run_for("test-xenstore -i 20", Duration::from_secs(300))?.success()?;
    ensure!(!said.contains("failed"), "test-xenstore said:\n{said}");
    let (read, write) = (time_of(&said, "read 1"), time_of(&said, "write 1"));
    Ok(format!("read {read}, write {write}"))
}

/// What test-xenstore measured in the test of that name.
fn time_of(said: &str, test: &str) -> String {
    let line = said.lines().find(|line| line.starts_with(test));
    line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, time)| time.trim().to_owned())
}

fn guest(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    let guest = lab.create(&GuestConfig::new("g"))?;
    let id = guest.id();
    let path = format!("/local/domain/{id}");
    ensure!(lab.must(&format!("xenstore-read {path}/name"))?.trim() == "g", "the guest's name is not in the store");
    lab.must(&format!("xl rename {id} h && xl list h"))?;
    ensure!(lab.must(&format!("xenstore-read {path}/name"))?.trim() == "h", "xl rename is not seen in the store");
    lab.wait_for_console(NAME, &format!("domain {id} is connected"), PATIENCE)?;
    lab.must("xl reboot h")?;
    lab.wait_until(&format!("xl domid h && test $(xl domid h) != {id}"), PATIENCE)?;
    let after = lab.guest("h")?;
    after.run("true").context("the guest does not come up after its reboot")?;
    lab.must("xl destroy h")?;
    lab.wait_until(&format!("! xenstore-exists {path} && ! xenstore-exists /local/domain/{}", after.id()), PATIENCE)?;
    Ok(format!("domain {id}, then {}", after.id()))
}

fn cycles(stage: &&Stage) -> Result<String> {
    let lab = &stage.lab;
    let tree = || lab.must("xenstore-ls -f / | cut -d = -f 1 | sort");
    // What is counted, and the bytes of the heap in use.
    let memory = || -> Result<(String, u64)> {
        let report = lab.must("xenstore-control memreport")?;
        let (heap, counted): (Vec<&str>, Vec<&str>) = report.lines().partition(|line| line.starts_with("heap"));
        let bytes = heap.first().and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
        Ok((counted.join("\n"), bytes.with_context(|| format!("no heap in:\n{report}"))?))
    };
    // The first one may make what stays.
    let cycle = format!("xl create -q /etc/xen/{CYCLED}.cfg && xl destroy {CYCLED}");
    create(lab, CYCLED)?;
    lab.must(&format!("xl destroy {CYCLED}"))?;
    lab.wait_until(&format!("! xl list {CYCLED}"), PATIENCE)?;
    let (before, used) = (tree()?, memory()?);
    let script = format!("for cycle in $(seq {CYCLES}); do {cycle} || {{ echo cycle $cycle; exit 1; }}; done");
    lab.run_for(&script, CYCLES * Duration::from_secs(10))?.success()?;
    lab.wait_until(&format!("! xl list {CYCLED}"), PATIENCE)?;
    let after = tree()?;
    let left: Vec<&str> = after.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    let uses = memory()?;
    ensure!(uses.0 == used.0, "the store's memory was\n{}and is\n{}", used.0, uses.0);
    ensure!(uses.1 < used.1 + HEAP_GROWTH, "the store's heap was {} bytes and is {}", used.1, uses.1);
    Ok(format!("{} nodes before and after, {} bytes of heap and then {}", before.lines().count(), used.1, uses.1))
}

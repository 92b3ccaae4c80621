//! Dom0's tool on a driver domain: new lives and other images under traffic, and devices attached anew. Host.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Case, SPARE_NIC, Scene, at_rest, given_back, nics};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::rebuilt::{FAULT, HANG, begin_with, of_state, rebuild};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "oxidom restart and oxidom update of netdom under TCP both ways: its guest sees nothing",
        run: replacements,
    },
    Case {
        name: "oxidom reattach after xl destroy and xl create of netdom: the guest reaches the wire again",
        run: reattach,
    },
];

const PATIENCE: Duration = Duration::from_secs(60);
/// The image that is installed, one that does the same and differs in most pages of its text, and two that fault and hang at their beginnings.
const IMAGE: &str = "/usr/lib/oxidom/netdom";
const REBUILT: &str = "/tmp/netdom-rebuilt";
const FAULTY: &str = "/tmp/netdom-faulty";
const HANGING: &str = "/tmp/netdom-hanging";
/// One of the next version, whose state has more parts and fields (the image with hooks for tests), and one that reads none of this version.
const NEXT: &str = "/usr/lib/oxidom/netdom-faulty";
const LATER: &str = "/tmp/netdom-later";
/// More requests than there may be failures in a row.
const RESTARTS: u32 = 7;

/// What the tool says with `--json`.
#[derive(Debug, Deserialize)]
struct Said {
    result: String,
    #[serde(default)]
    life: u64,
    pause: Option<Pause>,
    #[serde(default)]
    pages: u32,
    #[serde(default)]
    reason: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Pause {
    us: u64,
    ran_us: u64,
}

/// Calls the tool; gives its exit code and what it said.
fn tool(scene: &Scene<'_>, arguments: &str) -> Result<(i32, Said)> {
    let output = scene.stage.lab.run_for(&format!("oxidom --json {arguments}"), Duration::from_secs(200))?;
    let said = output.stdout.trim();
    let parsed = serde_json::from_str(said).with_context(|| format!("oxidom {arguments} said '{said}'"));
    Ok((output.status, parsed?))
}

fn replacements(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom("replaced").pci(&nic))?;
    let result = nics::attach(scene, &netdom, &scene.a, SPARE_NIC, "xenbr0").and_then(|()| replace(scene, &netdom));
    lab.run("xl network-detach a 1")?;
    netdom.destroy_after(result)
}

fn put_images(scene: &Scene<'_>) -> Result<()> {
    let (lab, image) = (&scene.stage.lab, &scene.stage.images.netdom);
    let (image, debug) = (fs::read(image)?, fs::read(image.with_extension("debug"))?);
    let mut rebuilt = image.clone();
    rebuild(&mut rebuilt)?;
    lab.put(REBUILT, 0o644, &rebuilt)?;
    scene.stage.images.faulty_netdom.as_ref().context("the netdom of the next version was not built")?;
    let mut later = image.clone();
    of_state(3, &mut later)?;
    lab.put(LATER, 0o644, &later)?;
    for (path, instruction) in [(FAULTY, FAULT), (HANGING, HANG)] {
        let mut broken = image.clone();
        begin_with(instruction, &mut broken, &debug)?;
        lab.put(path, 0o644, &broken)?;
    }
    lab.must(&format!("head -c 5000 /dev/zero >/tmp/zeros; head -c 9000 {IMAGE} >/tmp/cut")).map(drop)
}

fn replace(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<String> {
    let (lab, a, peer) = (&scene.stage.lab, &scene.a, scene.stage.peer(SPARE_NIC.into()));
    nics::reaches(a, &peer)?;
    put_images(scene)?;
    let frontend = || lab.must(&format!("xenstore-ls -f /local/domain/{}/device/vif/1", a.id()));
    let (before, mut resources) = (frontend()?, at_rest(lab, netdom)?);
    a.start("send", &format!("traffic tcp-send {peer} 128M"))?;
    a.start("receive", &format!("traffic tcp-receive {peer} 128M"))?;
    let mut lives = 0;
    let (mut restarts, mut updates) = (Vec::new(), Vec::new());
    for _ in 0..RESTARTS {
        let (status, said) = tool(scene, "restart replaced")?;
        lives += 1;
        ensure!((status, said.life, said.pages) == (0, lives, 0) && said.result == "done", "restart: {said:?}");
        restarts.extend(said.pause);
    }
    // To the next version and back: each passes over what it does not know of the other's state.
    for (image, differs) in [(REBUILT, true), (REBUILT, false), (NEXT, true), (NEXT, false), (IMAGE, true)] {
        sleep(Duration::from_secs(1));
        let (status, said) = tool(scene, &format!("update replaced {image}"))?;
        lives += 1;
        ensure!((status, said.life) == (0, lives) && said.result == "done", "update to {image}: {said:?}");
        ensure!((said.pages > 8) == differs, "update to {image}: {said:?}");
        updates.extend(said.pause);
    }
    for (file, reason) in [
        ("/usr/lib/oxidom/blkdom", "an image of blkdom, and the running one is of netdom"),
        (LATER, "it goes on from states of version 3 to 3, and the running image leaves one of version 1"),
        ("/tmp/zeros", "no whole ELF file"),
        ("/tmp/cut", "no image of oxidom's"),
    ] {
        let (status, said) = tool(scene, &format!("update replaced {file}"))?;
        ensure!(status == 1 && said.result == "refused" && said.reason.contains(reason), "update to {file}: {said:?}");
    }
    // A new image that faults, one that hangs, one whose words are wrong: each is a life, and so is the old image's after it.
    for (file, words, reason) in [
        (FAULTY, "", "invalid opcode"),
        (HANGING, "", "watchdog: no turn of the executor"),
        (REBUILT, "--words log=loud", "the level is off, error, warn"),
    ] {
        let (status, said) = tool(scene, &format!("update replaced {file} {words}"))?;
        lives += 2;
        ensure!((status, said.life) == (3, lives), "update to {file} {words}: {said:?}");
        ensure!(said.result == "returned" && said.reason.contains(reason), "update to {file} {words}: {said:?}");
    }
    for words in ["log=debug", "log=info"] {
        let (status, said) = tool(scene, &format!("update replaced {IMAGE} --words {words}"))?;
        lives += 1;
        ensure!((status, said.life) == (0, lives), "update with {words}: {said:?}");
        lab.wait_for_console(&netdom.name, &format!("command line \"{words}\""), PATIENCE)?;
    }
    // They outlive a failure.
    lab.must(&format!("xl trigger {} nmi", netdom.name))?;
    lives += 1;
    lab.wait_for_console(&netdom.name, &format!("life {lives} has taken over"), PATIENCE)?;
    lab.must(&format!(
        "test $(grep -c 'command line \"log=info\"' /var/log/xen/console/guest-{}.log) = 2",
        netdom.name
    ))?;
    interrupted(scene)?;
    lives += 2;
    let said = lab.run("oxidom restart a")?;
    ensure!(said.status == 1 && said.stdout.contains("takes no requests"), "restart of a guest: {said:?}");
    for name in ["send", "receive"] {
        let out = a.finish(name)?;
        ensure!(out.contains("\"ok\":true"), "{name}: {out}");
    }
    let after = frontend()?;
    ensure!(before == after, "the frontend's nodes were\n{before}and are\n{after}");
    let ping = traffic::ping(a, &peer, 50, 0, 56)?;
    ensure!(ping.lost == 0, "{ping:?}");
    resources.0.insert("lives".to_owned(), lives);
    given_back(lab, netdom, &resources)?;
    let error = lab.run(&format!("xenstore-read /local/domain/{}/data/error", netdom.id))?;
    ensure!(error.status != 0, "data/error says what is no longer so: {}", error.stdout);
    let left = lab.run(&format!("xenstore-ls /local/domain/{}/control/oxidom", netdom.id))?;
    ensure!(left.status != 0, "left in the store: {}", left.stdout);
    Ok(format!("pauses of restarts {}; of updates {}", shown(&restarts), shown(&updates)))
}

/// A tool that dies in the middle leaves nothing that disturbs the next one; of two at once, the second is refused. Each has an update's life.
fn interrupted(scene: &Scene<'_>) -> Result<()> {
    let lab = &scene.stage.lab;
    lab.must(&format!("oxidom update replaced {REBUILT} >/dev/null 2>&1 & usleep 300000; kill -9 $!"))?;
    let (status, said) = tool(scene, &format!("update replaced {REBUILT}"))?;
    ensure!(status == 0 && said.result == "done", "after one that was killed: {said:?}");
    let said = lab.run_for(
        &format!(
            "oxidom --json update replaced {IMAGE} >/tmp/first 2>&1 & usleep 300000; oxidom restart replaced; \
             echo $?; wait; cat /tmp/first"
        ),
        Duration::from_secs(200),
    )?;
    let refused = said.stdout.contains("another oxidom is at work on replaced");
    ensure!(refused && said.stdout.contains("\"result\":\"done\""), "two at once: {said:?}");
    Ok(())
}

fn reattach(scene: &Scene<'_>) -> Result<String> {
    let (lab, a, peer) = (&scene.stage.lab, &scene.a, scene.stage.peer(SPARE_NIC.into()));
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let config = DriverDomainConfig::netdom("reborn").pci(&nic);
    let netdom = DriverDomain::create(lab, &config)?;
    let result = (|| {
        nics::attach(scene, &netdom, a, SPARE_NIC, "xenbr0 rate=40Mb/s")?;
        nics::reaches(a, &peer)?;
        let kept = |what: &str| {
            let nodes = "for n in mac bridge rate script; do";
            lab.must(&format!("{nodes} xenstore-read /libxl/{}/device/vif/1/$n; done", a.id())).context(what.to_owned())
        };
        let before = kept("before")?;
        let said = lab.must("oxidom reattach")?;
        ensure!(said.contains("all devices have their backends"), "nothing is lost yet: {said}");
        lab.must("xl destroy reborn")?;
        let said = lab.run("oxidom --json reattach nobody")?;
        let refused = "there is no domain nobody, and no guest has a device of one of that name; \
                       the domains whose devices guests have lost: reborn";
        ensure!(said.status == 5 && said.stdout.contains(refused), "of no domain: {said:?}");
        let again = DriverDomain::create(lab, &config)?;
        let said = lab.run("oxidom --json reattach reborn")?;
        ensure!(said.status == 0 && said.stdout.contains("\"device\":\"1\""), "reattach: {said:?}");
        let after = kept("after")?;
        ensure!(before == after, "mac, bridge, rate and script were\n{before}and are\n{after}");
        lab.must(&format!("test $(xenstore-read {}/state) = 4", again.backend(a.id(), 1)))?;
        nics::set_address(a, &peer)?;
        nics::reaches(a, &peer)?;
        Ok(format!("domain {} in place of {}", again.id, netdom.id))
    })();
    lab.run("xl network-detach a 1")?;
    lab.destroy_after("reborn", result)
}

/// The pauses, and what of them the domain ran, in milliseconds.
fn shown(pauses: &[Pause]) -> String {
    let shown = |pause: &Pause| format!("{:.1} ({:.1})", pause.us as f64 / 1000.0, pause.ran_us as f64 / 1000.0);
    pauses.iter().map(shown).collect::<Vec<_>>().join(", ") + " ms"
}

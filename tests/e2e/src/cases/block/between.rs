//! What happens while blkdom is between two lives: the next one does what the last one would have done. Host.
//!
//! Xen gives a paused domain the NMI that it was sent before its next instruction: what happens while it is paused, the last life never saw.

use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use lab::{DiskController, Guest, GuestConfig};

use super::lives::SETTLED;
use super::{Block, BlockScene, CONTROLLERS, PATIENCE, appear, disk_of, handle};
use crate::cases::{Case, at_rest, given_back};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::traffic::Shell;

pub(super) const CASES: &[Case<Block>] = &[Case {
    name: "disks are attached, grow, close and go, and a controller is lost, as a life of blkdom ends: the next one does its part",
    run: events,
}];

const NAME: &str = "between";
/// The disk of the load that goes on, and the drive whose partition changes, with its medium.
const STEADY: &str = "nvme0n2";
const CHANGING: &str = "sda1";
const MEDIUM: usize = 8;
/// Sectors of the partition, before it grows and after.
const SMALL: u32 = 8 << 10;
const GROWN: u32 = 16 << 10;

struct Between<'a, 's> {
    scene: &'a BlockScene<'s>,
    blkdom: DriverDomain<'a>,
    /// What `xl` calls the controller of the drive that changes.
    controller: String,
}

fn events(scene: &BlockScene<'_>) -> Result<String> {
    let lab = scene.lab;
    partition(scene, SMALL)?;
    let mut config = DriverDomainConfig::blkdom(NAME);
    let mut controller = String::new();
    for bdf in lab.controllers().iter().skip(CONTROLLERS + 2).map(DiskController::bdf) {
        controller = lab.hide(&bdf)?;
        config = config.pci(&controller);
    }
    let between = Between { scene, blkdom: DriverDomain::create(lab, &config)?, controller };
    let result = between.all();
    lab.run("xl destroy gone; xl block-detach a xvda; xl block-detach a xvdb")?;
    scene.block.media.write(MEDIUM, 0, &[0; 512])?;
    between.blkdom.destroy_after(result)
}

/// Writes a partition table with one partition onto the medium, as another host would.
fn partition(scene: &BlockScene<'_>, sectors: u32) -> Result<()> {
    let entry = [[0, 0, 0, 0, 0x83, 0, 0, 0].as_slice(), &2048_u32.to_le_bytes(), &sectors.to_le_bytes()].concat();
    scene.block.media.write(MEDIUM, 446, &entry)?;
    scene.block.media.write(MEDIUM, 510, &[0x55, 0xaa])
}

impl Between<'_, '_> {
    fn all(&self) -> Result<String> {
        let (lab, a) = (self.scene.lab, &self.scene.a);
        let disk = |device: &str, target: &str| disk_of(NAME, device, target, "rw");
        self.scene.attach_as(a, &disk("xvda", STEADY), "xvda")?;
        let mut resources = at_rest(lab, &self.blkdom)?;
        a.start("steady", "blocks verify /dev/xvda --discard --seconds 20")?;
        let backend = self.blkdom.backend(a.id(), handle("xvdb"));

        self.between(1, "a disk is attached", || {
            self.begin(&format!("xl block-attach a \"{}\"", disk("xvdb", CHANGING)))?;
            self.wait(&format!("xenstore-exists {backend}/params"))
        })?;
        self.ended()?;
        appear(a, "xvdb")?;
        has_sectors(a, SMALL)?;

        // As an administrator who has told another host to make it larger.
        self.between(2, "a disk grows", || partition(self.scene, GROWN))?;
        has_sectors(a, GROWN)?;
        a.sh("dd if=/dev/urandom of=/tmp/last bs=512 count=1 2>/dev/null")?;
        a.sh(&format!("dd if=/tmp/last of=/dev/xvdb bs=512 seek={} conv=notrunc,fsync 2>/dev/null", GROWN - 1))?;
        let durable = self.scene.block.media.read(MEDIUM, u64::from(2048 + GROWN - 1) * 512, 512)?;
        ensure!(durable.iter().any(|byte| *byte != 0), "its last sector was not written");

        let frontend = format!("/local/domain/{}/device/vbd/{}/state", a.id(), handle("xvdb"));
        self.between(3, "a frontend closes", || {
            a.start("unbind", &format!("sh -c 'echo vbd-{} >/sys/bus/xen/drivers/vbd/unbind'", handle("xvdb")))?;
            self.wait(&format!("test $(xenstore-read {frontend}) -ge 5"))
        })?;
        a.finish("unbind")?;
        lab.wait_for_node(&format!("{backend}/state"), "6", PATIENCE)?;
        // Linux' blkfront does not begin anew at a backend that has closed.
        lab.must("xl block-detach a xvdb")?;
        self.wait(&format!("! xenstore-exists {backend}"))?;
        self.scene.attach_as(a, &disk("xvdb", CHANGING), "xvdb")?;
        a.sh(&format!("dd if=/dev/xvdb bs=512 skip={} count=1 2>/dev/null | cmp - /tmp/last", GROWN - 1))?;

        self.between(4, "a disk is detached", || {
            self.begin("xl block-detach a xvdb")?;
            self.wait(&format!("test $(xenstore-read {backend}/online) = 0"))
        })?;
        self.ended()?;
        self.wait(&format!("! xenstore-exists {backend}"))?;

        let said = a.finish("steady")?;
        ensure!(said.contains("\"operations\"") && !said.contains("error"), "the other disk's load: {said}");
        let gone = GuestConfig { memory: 160, ..GuestConfig::new("gone").disk(&disk("xvda", CHANGING)) };
        let gone = lab.create(&gone)?;
        appear(&gone, "xvda")?;
        gone.start("load", "blocks bench /dev/xvda --reads 50 --depth 32 --seconds 600")?;
        let backends = self.blkdom.backends(gone.id());
        self.between(5, "a guest is destroyed", || {
            self.begin("xl destroy gone")?;
            self.wait(&format!("test $(xenstore-read {backends}/{}/online) = 0", handle("xvda")))
        })?;
        self.ended()?;
        self.wait(&format!("! xenstore-exists {backends}"))?;
        a.sh("blocks verify /dev/xvda --seconds 1")?;
        resources.0.insert("lives".to_owned(), 5);
        given_back(lab, &self.blkdom, &resources)?;
        self.controller_lost().context("a controller is unbound from pciback")?;
        Ok("seven lives".to_owned())
    }

    /// A controller is lost for good: the other one's disk is served on, and requests of its own fail.
    fn controller_lost(&self) -> Result<()> {
        let (lab, a, controller) = (self.scene.lab, &self.scene.a, &self.controller);
        self.scene.attach_as(a, &disk_of(NAME, "xvdb", CHANGING, "rw"), "xvdb")?;
        // Those before were as many in a row as may be: from a life that is sound on, another row begins.
        sleep(SETTLED);
        a.start("steady", "blocks verify /dev/xvda --discard --seconds 20")?;
        self.between(6, "a controller is lost", || {
            lab.must(&format!("echo 0000:{controller} >/sys/bus/pci/drivers/pciback/unbind")).map(drop)
        })?;
        let error = format!("/local/domain/{}/data/error", self.blkdom.id);
        let says = format!("xenstore-read {error} | grep 'pci 0000:{controller}: pciback no longer knows it'");
        self.wait(&says).context("data/error does not speak of it")?;
        a.sh("! dd if=/dev/xvdb of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null")
            .context("what it had is read")?;
        let said = a.finish("steady")?;
        ensure!(said.contains("\"operations\"") && !said.contains("error"), "the other controller's load: {said}");
        let vbd = format!("vbd/{}/{}", a.id(), handle("xvda"));
        let counted = || Ok::<_, anyhow::Error>([self.writes(&vbd)?, self.writes(STEADY)?]);
        let before = counted()?;
        // It is so in the lives that follow, too.
        self.between(7, "nothing happens", || Ok(()))?;
        self.wait(&says).context("data/error does not speak of it a life later")?;
        a.sh("blocks verify /dev/xvda --seconds 1")?;
        let after = counted()?;
        ensure!(before.iter().zip(&after).all(|(before, after)| before < after), "writes: {before:?}, then {after:?}");
        Ok(())
    }

    /// Writes that blkdom has counted, when it has told them to the store.
    fn writes(&self, name: &str) -> Result<u64> {
        let node = format!("/local/domain/{}/data/statistics/{name}", self.blkdom.id);
        let text = self.scene.lab.must(&format!("sleep 4; xenstore-read {node}"))?;
        let writes = text.split(", ").find_map(|part| part.split_once(" writes ")?.0.trim().parse().ok());
        writes.with_context(|| format!("{name} counted: {text}"))
    }

    /// Ends a life, and has something happen before the next one begins.
    fn between(&self, life: u32, name: &str, event: impl FnOnce() -> Result<()>) -> Result<()> {
        let lab = self.scene.lab;
        lab.must(&format!("xl pause {NAME} && xl trigger {NAME} nmi"))?;
        let happened = event();
        lab.must(&format!("xl unpause {NAME}"))?;
        happened
            .and_then(|()| lab.wait_for_console(NAME, &format!("life {life} has taken over"), PATIENCE))
            .map(drop)
            .with_context(|| format!("as a life ends, {name}"))
    }

    /// Begins a command of dom0's that waits for blkdom.
    fn begin(&self, command: &str) -> Result<()> {
        self.scene.lab.start("event", &format!("sh -c '{command}; echo status $?'"))
    }

    /// Waits until it is over; it must have been content.
    fn ended(&self) -> Result<()> {
        let said = self.scene.lab.finish("event")?;
        ensure!(said.trim() == "status 0", "it said: {said}");
        Ok(())
    }

    fn wait(&self, condition: &str) -> Result<()> {
        self.scene.lab.wait_until(condition, PATIENCE).map(drop)
    }
}

fn has_sectors(guest: &Guest<'_>, sectors: u32) -> Result<()> {
    let wait = format!(
        "for i in $(seq 1000); do test $(cat /sys/block/xvdb/size) = {sectors} && exit; usleep 20000; done; \
         cat /sys/block/xvdb/size; exit 1"
    );
    guest.sh(&wait).map(drop).with_context(|| format!("its size is not {sectors} sectors"))
}

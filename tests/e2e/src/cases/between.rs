//! What happens while netdom is between two lives: the next one does what the last one would have done. Host.
//!
//! Xen gives a paused domain the NMI that it was sent before its next instruction. So what dom0, a guest or the wire does while it is paused, the
//! last life never saw, and the next one finds it. Where the NMI comes right behind the event, the last life was in the middle of it.

use std::cell::Cell;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{GuestConfig, Lab};

use super::nics::{self, reaches, set_address};
use super::{Case, SPARE_NIC, Scene, at_rest, given_back};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::vif;
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "a vif, a frontend, a rate, a cable, a guest and NICs change or are lost as a life of netdom ends: the next one does its part",
    run: events,
}];

const NAME: &str = "between";
const PATIENCE: Duration = Duration::from_secs(60);
/// The NIC of the guest whose flow goes on, and the one that things happen to.
const STEADY: u8 = SPARE_NIC;
const CHANGING: u8 = SPARE_NIC + 1;
/// Failures in a row, fewer than may be, and from when a life is sound.
const IN_A_ROW: u32 = 4;
const SETTLED: Duration = Duration::from_secs(11);
/// How often the NMI is sent that is to come while a NIC is taken.
const ATTEMPTS: u32 = 12;
/// By so much later comes each NMI than the one before.
const STEP_US: u32 = 20_000;
/// Bytes in 50 ms, and what they are in megabits a second, with the burst that comes on top.
const RATE: &str = "50000,50000";
const RATE_MBIT: f64 = 8.0 * 1.25 + 0.5;

/// A netdom with two NICs, `a` on the bridge of the first, and its lives so far.
struct Between<'a, 's> {
    scene: &'a Scene<'s>,
    netdom: DriverDomain<'a>,
    /// What `xl` calls the NICs.
    steady: String,
    nic: String,
    lives: Cell<u32>,
    /// Failures since there was a sound life, and when the last one was over.
    row: Cell<(u32, Instant)>,
}

fn events(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let [steady, nic] = [STEADY, CHANGING].map(|number| lab.make_assignable(number.into()));
    let (steady, nic) = (steady?, nic?);
    let config = DriverDomainConfig::netdom(NAME).memory(16).pci(&steady).pci(&nic);
    let netdom = DriverDomain::create(lab, &config.extra(&format!("bridge={steady}:lan2,{nic}:lan3")))?;
    let between = Between { scene, netdom, steady, nic, lives: Cell::new(0), row: Cell::new((0, Instant::now())) };
    let result = nics::attach(scene, &between.netdom, &scene.a, STEADY, "lan2").and_then(|()| between.all());
    lab.run("xl network-detach a 1; xl network-detach b 1")?;
    between.netdom.destroy_after(result)
}

impl Between<'_, '_> {
    fn lab(&self) -> &Lab {
        &self.scene.stage.lab
    }

    fn all(&self) -> Result<String> {
        let (lab, a) = (self.lab(), &self.scene.a);
        let peer = self.scene.stage.peer(STEADY.into());
        reaches(a, &peer)?;
        let mut resources = at_rest(lab, &self.netdom)?;
        let again = format!("traffic tcp-send {peer} 2M >/dev/null || exit 1");
        a.start("load", &format!("sh -c 'touch /tmp/go; while [ -e /tmp/go ]; do {again}; done; echo all well'"))?;
        let start = Instant::now();
        let mut said = Vec::new();
        for (name, event) in [
            ("a vif is attached", Self::vif_attached as fn(&Self) -> Result<()>),
            ("a frontend closes", Self::frontend_closes),
            ("a rate is set and taken away", Self::rate_changed),
            ("the cable is pulled out", Self::cable),
            ("a guest is destroyed", Self::guest_destroyed),
            ("a NIC is taken and given", Self::nic_taken),
            ("a NIC is taken that was let go of", Self::nic_let_go),
            ("a NIC is taken in the middle of that", Self::nic_half_taken),
            ("a vif is detached", Self::vif_detached),
        ] {
            let start = Instant::now();
            event(self).with_context(|| format!("as a life ends, {name}"))?;
            said.push(format!("{:.0}", start.elapsed().as_secs_f64()));
        }
        a.sh("rm /tmp/go")?;
        let flow = a.finish("load")?;
        ensure!(flow.contains("all well"), "the other guest's flow: {flow}");
        let ping = traffic::ping(a, &peer, 50, 0, 56)?;
        ensure!(ping.lost == 0, "{ping:?}");
        resources.0.insert("lives".to_owned(), self.lives.get().into());
        given_back(lab, &self.netdom, &resources)?;
        self.nics_lost().context("NICs are unbound from pciback")?;
        Ok(format!("{} lives in {:.0} s: {} s", self.lives.get(), start.elapsed().as_secs_f64(), said.join(", ")))
    }

    /// Ends a life, and has something happen before the next one begins.
    fn between(&self, event: impl FnOnce() -> Result<()>) -> Result<()> {
        self.settle();
        self.lab().must(&format!("xl pause {NAME} && xl trigger {NAME} nmi"))?;
        let happened = event();
        self.lab().must(&format!("xl unpause {NAME}"))?;
        happened?;
        self.taken_over()
    }

    /// Ends a life right behind what a command of dom0's begins.
    fn behind(&self, command: &str) -> Result<()> {
        self.settle();
        self.lab().must(&format!("{command}; xl trigger {NAME} nmi"))?;
        self.taken_over()
    }

    /// Waits where one more failure would be too many in a row.
    fn settle(&self) {
        let (count, last) = self.row.get();
        let sound = last + SETTLED;
        let count = if count == IN_A_ROW || Instant::now() > sound { 0 } else { count };
        if count == 0 {
            sleep(sound.saturating_duration_since(Instant::now()));
        }
        self.row.set((count + 1, last));
    }

    fn taken_over(&self) -> Result<()> {
        let life = self.lives.get() + 1;
        self.lives.set(life);
        self.lab().wait_for_console(NAME, &format!("life {life} has taken over"), PATIENCE)?;
        self.row.set((self.row.get().0, Instant::now()));
        Ok(())
    }

    /// Begins a command of dom0's that waits for netdom.
    fn begin(&self, command: &str) -> Result<()> {
        self.lab().start("event", &format!("sh -c '{command}; echo status $?'"))
    }

    /// Waits until it is over; it must have been content.
    fn ended(&self) -> Result<()> {
        let said = self.lab().finish("event")?;
        ensure!(said.trim() == "status 0", "it said: {said}");
        Ok(())
    }

    fn wait(&self, condition: &str) -> Result<()> {
        self.lab().wait_until(condition, PATIENCE).map(drop)
    }

    /// The directory of the backend of `b`.
    fn backend(&self) -> String {
        self.netdom.backend(self.scene.b.id(), 1)
    }

    fn peer(&self) -> String {
        self.scene.stage.peer(CHANGING.into())
    }

    /// `b` reaches the wire of the second NIC.
    fn reaches(&self) -> Result<()> {
        reaches(&self.scene.b, &self.peer())
    }

    fn carrier(&self, carrier: &str) -> Result<()> {
        let node = format!("{}/carrier", self.backend());
        self.lab().wait_for_node(&node, carrier, PATIENCE).with_context(|| format!("its carrier is not {carrier}"))
    }

    fn vif_attached(&self) -> Result<()> {
        let words = format!("{},bridge=lan3", vif(NAME, 0x61 + CHANGING)).replace(',', " ");
        self.between(|| {
            self.begin(&format!("xl network-attach b {words}"))?;
            self.wait(&format!("xenstore-exists {}/mac", self.backend()))
        })?;
        self.ended()?;
        set_address(&self.scene.b, &self.peer())?;
        self.reaches()
    }

    fn frontend_closes(&self) -> Result<()> {
        let b = &self.scene.b;
        let frontend = format!("/local/domain/{}/device/vif/1/state", b.id());
        self.between(|| {
            b.start("unbind", "sh -c 'echo vif-1 >/sys/bus/xen/drivers/vif/unbind'")?;
            self.wait(&format!("test $(xenstore-read {frontend}) = 5"))
        })?;
        b.finish("unbind")?;
        self.lab().wait_for_node(&format!("{}/state", self.backend()), "6", PATIENCE)?;
        b.sh("echo vif-1 >/sys/bus/xen/drivers/vif/bind")?;
        set_address(b, &self.peer())?;
        self.reaches()
    }

    fn rate_changed(&self) -> Result<()> {
        let (b, node) = (&self.scene.b, format!("{}/rate", self.backend()));
        let rate = || traffic::tcp_rate(b, "send", &self.peer(), 2).map(|transfer| transfer.mbit_per_second);
        self.between(|| self.lab().must(&format!("xenstore-write {node} {RATE}")).map(drop))?;
        let held = rate()?;
        ensure!(held < RATE_MBIT, "{held:.1} Mbit/s passed");
        self.behind(&format!("xenstore-rm {node}"))?;
        let free = rate()?;
        ensure!(free > RATE_MBIT, "{free:.1} Mbit/s passed without a limit");
        Ok(())
    }

    fn cable(&self) -> Result<()> {
        self.between(|| self.lab().set_link(CHANGING.into(), false))?;
        let without = self.carrier("0");
        self.lab().set_link(CHANGING.into(), true)?;
        without?;
        self.carrier("1")?;
        self.reaches()
    }

    fn guest_destroyed(&self) -> Result<()> {
        let lab = self.lab();
        let words = format!("{},bridge=lan3", vif(NAME, 0x71));
        let gone = self.scene.stage.client_of(&GuestConfig::new("gone").vif(&words))?;
        gone.start("load", &format!("traffic udp-flood {} 18 600", self.peer()))?;
        let backends = self.netdom.backends(gone.id());
        self.between(|| {
            self.begin("xl destroy gone")?;
            self.wait(&format!("test $(xenstore-read {backends}/0/online) = 0"))
        })?;
        self.ended()?;
        lab.wait_until(&format!("! xenstore-exists {backends}"), PATIENCE).map(drop)
    }

    /// pciback's directory for netdom.
    fn pciback(&self) -> String {
        format!("/local/domain/0/backend/pci/{}/0", self.netdom.id)
    }

    /// The second NIC is taken as after any `xl pci-detach`; it is given again.
    fn is_taken(&self) -> Result<()> {
        self.ended()?;
        self.carrier("0")?;
        let error = format!("/local/domain/{}/data/error", self.netdom.id);
        let says = format!("xenstore-read {error} | grep 'names 0000:{}, which is not there'", self.nic);
        self.wait(&says).context("data/error does not speak of it")?;
        self.wait(&format!("test $(xenstore-read {}/num_devs) = 1", self.pciback()))
    }

    fn is_given(&self) -> Result<()> {
        self.ended()?;
        self.carrier("1")?;
        self.reaches()
    }

    fn nic_taken(&self) -> Result<()> {
        let (nic, pciback) = (&self.nic, self.pciback());
        self.between(|| {
            self.begin(&format!("xl pci-detach {NAME} {nic}"))?;
            self.wait(&format!("test $(xenstore-read {pciback}/state) = 7"))
        })?;
        self.is_taken()?;
        self.between(|| {
            self.begin(&format!("xl pci-attach {NAME} {nic}"))?;
            self.wait(&format!("test $(xenstore-read {pciback}/state) = 7"))
        })?;
        self.is_given()
    }

    /// The last life has said that pciback may have the NIC, and pciback has it when the next one begins.
    fn nic_let_go(&self) -> Result<()> {
        let (nic, pciback) = (&self.nic, self.pciback());
        self.between(|| {
            self.begin(&format!("xl pci-detach {NAME} {nic}"))?;
            self.wait(&format!("test $(xenstore-read {pciback}/state) = 7"))?;
            self.lab().must(&format!("xenstore-write /local/domain/{}/device/pci/0/state 7", self.netdom.id))?;
            self.wait(&format!("test $(xenstore-read {pciback}/state) = 8"))
        })?;
        self.is_taken()?;
        self.begin(&format!("xl pci-attach {NAME} {nic}"))?;
        self.is_given()
    }

    /// The last life has begun to give the NIC back, and pciback does not have it when the next one begins. That takes netdom little time: it has
    /// the CPU for a fiftieth of it meanwhile. An NMI that comes too early or too late is sent again, each some time later than the one before.
    fn nic_half_taken(&self) -> Result<()> {
        let (lab, nic, pciback) = (self.lab(), &self.nic, self.pciback());
        for attempt in 0..ATTEMPTS {
            self.settle();
            let before = self.half_taken()?;
            lab.must(&format!("xl pause {NAME} && xl sched-credit2 -d {NAME} -c 2"))?;
            let begun = self
                .begin(&format!("xl pci-detach {NAME} {nic}"))
                .and_then(|()| self.wait(&format!("test $(xenstore-read {pciback}/state) = 7")));
            let delay = attempt * STEP_US;
            lab.must(&format!(
                "xl unpause {NAME}; usleep {delay}; xl trigger {NAME} nmi; xl sched-credit2 -d {NAME} -c 0"
            ))?;
            begun?;
            self.taken_over()?;
            self.is_taken()?;
            let in_time = self.half_taken()? > before;
            self.begin(&format!("xl pci-attach {NAME} {nic}"))?;
            self.is_given()?;
            if in_time {
                return Ok(());
            }
        }
        bail!("in {ATTEMPTS} attempts no life ended while the NIC was taken");
    }

    /// Lives that began with a NIC which the one before was giving back.
    fn half_taken(&self) -> Result<usize> {
        Ok(self.netdom.console()?.matches("taken away as the last life ended").count())
    }

    /// One NIC is lost for good, and then the other, the only one. Guests are served on.
    fn nics_lost(&self) -> Result<()> {
        let (lab, Scene { a, b, .. }) = (self.lab(), self.scene);
        let peer = self.scene.stage.peer(STEADY.into());
        self.nic_lost(&self.nic, &[&self.nic])?;
        reaches(a, &peer).context("the other NIC")?;
        // It is so in the lives that follow, too.
        self.behind("true")?;
        self.says_lost(&[&self.nic])?;
        reaches(a, &peer).context("the other NIC, a life later")?;
        let words = format!("{},bridge=lan2", vif(NAME, 0x62 + CHANGING)).replace(',', " ");
        lab.must(&format!("xl network-attach b {words}"))?;
        set_address(b, &peer)?;
        let network = peer.strip_suffix("0.1").context("the peer")?;
        b.sh(&format!("ip addr del {network}200.1/16 dev eth1; ip addr add {network}200.2/16 dev eth1"))?;
        let other = format!("{network}200.1");
        reaches(b, &other).context("the other guest")?;
        self.nic_lost(&self.steady, &[&self.nic, &self.steady])?;
        reaches(b, &other).context("the other guest, without a NIC")?;
        ensure!(self.netdom.node("data/ready")?.contains("no NIC"), "it does not know that it has no NIC");
        Ok(())
    }

    /// Somebody unbinds a NIC from pciback as a life ends.
    fn nic_lost(&self, nic: &str, all: &[&str]) -> Result<()> {
        self.between(|| self.lab().must(&format!("echo 0000:{nic} >/sys/bus/pci/drivers/pciback/unbind")).map(drop))?;
        self.says_lost(all)
    }

    /// `data/error` says which NICs are lost.
    fn says_lost(&self, nics: &[&str]) -> Result<()> {
        let error = format!("/local/domain/{}/data/error", self.netdom.id);
        let nics = nics.iter().map(|nic| format!("0000:{nic}")).collect::<Vec<_>>().join(", ");
        self.wait(&format!("xenstore-read {error} | grep 'pci {nics}: pciback no longer knows it'"))
            .with_context(|| format!("data/error does not speak of {nics}"))
    }

    fn vif_detached(&self) -> Result<()> {
        let backend = self.backend();
        self.between(|| {
            self.begin("xl network-detach b 1")?;
            self.wait(&format!("test $(xenstore-read {backend}/online) = 0"))
        })?;
        self.ended()?;
        self.wait(&format!("! xenstore-exists {backend}"))
    }
}

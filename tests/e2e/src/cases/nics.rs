//! NICs of each kind, alone and several in one netdom, each on its bridge; jumbo frames. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, GuestConfig, Lab, SfpModule};

use super::{Case, I350, IGB, IXGBE, SPARE_NIC, Scene, X540};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::vif;
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "four NICs of three kinds, each on its bridge: apart, and unplugged, taken and given each alone; a fifth without a bridge is left alone",
        run: four_nics,
    },
    Case { name: "an 82576 (igb): each kind of interrupt, TCP, jumbo frames, the cable, taken and given", run: igb },
    Case {
        name: "an 82599 (ixgbe): each kind of interrupt, TCP, jumbo frames, the cable, taken and given",
        run: ixgbe,
    },
];

/// Cases that depend little on the release.
pub(super) const ONCE: &[Case] = &[
    Case { name: "an X540 (ixgbe): each kind of interrupt, TCP, jumbo frames, the cable, taken and given", run: x540 },
    Case {
        name: "Linux' own ixgbe on the same 82599: TCP both ways, jumbo frames, no offence either",
        run: linux_ixgbe,
    },
    Case { name: "an I350 (igb): each kind of interrupt, TCP, jumbo frames, the cable, taken and given", run: i350 },
    Case { name: "Linux' own igb on the same I350: TCP both ways, jumbo frames, no offence either", run: linux_igb },
];

const PATIENCE: Duration = Duration::from_secs(60);
/// The NICs of one netdom, by the numbers of their wires, and their bridges; two at a time have guests.
const PAIRS: [[(u8, &str); 2]; 2] = [[(SPARE_NIC, "lan2"), (SPARE_NIC + 1, "lan3")], [(IGB, "lan4"), (IXGBE, "lan5")]];
/// Kinds of interrupts: the word for each, and its name in the log.
const INTERRUPTS: [(&str, &str); 3] = [("msix", "MSI-X"), ("msi", "MSI"), ("intx", "INTx")];

fn four_nics(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let mut config = DriverDomainConfig::netdom("nics").memory(16);
    let mut words = Vec::new();
    for (number, bridge) in PAIRS.into_iter().flatten() {
        let nic = lab.make_assignable(number.into())?;
        words.push(format!("{nic}:{bridge}"));
        config = config.pci(&nic);
    }
    let netdom = DriverDomain::create(lab, &config.extra(&format!("bridge={} mtu=9000", words.join(","))))?;
    let result: Result<String> = PAIRS.iter().try_fold(String::new(), |said, pair| {
        let result = with_both(scene, &netdom, *pair);
        for guest in ["a", "b"] {
            lab.run(&format!("xl network-detach {guest} 1"))?;
        }
        Ok(said + &result? + "; ")
    });
    let result = result.and_then(|said| Ok(said + &third(lab, &netdom)?));
    netdom.destroy_after(result)
}

fn igb(scene: &Scene<'_>) -> Result<String> {
    alone(scene, IGB, "igb", "Intel 82576")
}

fn ixgbe(scene: &Scene<'_>) -> Result<String> {
    alone(scene, IXGBE, "ixgbe", "Intel 82599 SFP+")
}

fn x540(scene: &Scene<'_>) -> Result<String> {
    alone(scene, X540, "x540", "Intel X540-T2")
}

fn i350(scene: &Scene<'_>) -> Result<String> {
    alone(scene, I350, "i350", "Intel I350")
}

fn linux_ixgbe(scene: &Scene<'_>) -> Result<String> {
    linux(scene, IXGBE, "ixgbe")
}

fn linux_igb(scene: &Scene<'_>) -> Result<String> {
    linux(scene, I350, "igb")
}

/// A Linux guest that has the NIC itself: the model judges Linux' driver and netdom's alike.
fn linux(scene: &Scene<'_>, number: u8, driver: &str) -> Result<String> {
    let lab = &scene.stage.lab;
    let pci = vec![lab.make_assignable(number.into())?];
    let guest = lab.create(&GuestConfig { pci, memory: 256, ..GuestConfig::new("owner") })?;
    let result = owns(scene, &guest, number, driver);
    lab.destroy_after("owner", result)
}

fn owns(scene: &Scene<'_>, guest: &Guest<'_>, number: u8, driver: &str) -> Result<String> {
    guest.must(&format!(
        "modprobe xen-pcifront; modprobe {driver}; \
         for i in $(seq 3000); do test -e /sys/class/net/eth0 && break; usleep 20000; done; ip link set eth0 up mtu 9000"
    ))?;
    crate::stage::lease(guest, "eth0")?;
    let peer = scene.stage.peer(number.into());
    reaches(guest, &peer)?;
    let send = traffic::tcp(guest, "send", &peer, 64)?;
    let receive = traffic::tcp(guest, "receive", &peer, 64)?;
    let ping = traffic::ping(guest, &peer, 100, 0, 8972)?;
    ensure!(ping.lost == 0, "of 9,000 bytes: {ping:?}");
    let misuse = scene.stage.lab.misuse(number.into());
    ensure!(misuse.is_empty(), "Linux: {misuse:?}");
    Ok(format!("TCP {:.0} Mbit/s to the wire and {:.0} from it", send.mbit_per_second, receive.mbit_per_second))
}

/// A netdom with one NIC alone, once with each kind of interrupt.
fn alone(scene: &Scene<'_>, number: u8, driver: &str, model: &str) -> Result<String> {
    let lab = &scene.stage.lab;
    let mut said = Vec::new();
    for (word, kind) in INTERRUPTS {
        let nic = lab.make_assignable(number.into())?;
        // A name of its own for each: dom0 keeps consoles by name.
        let name = format!("{driver}-{word}");
        let mut config = DriverDomainConfig::netdom(&name).pci(&nic).extra(&format!("interrupts={word} mtu=9000"));
        // Enough for four queues, where each has an interrupt of its own.
        config.memory = 64;
        let queues = if kind == "MSI-X" { 4 } else { 1 };
        let netdom = DriverDomain::create(lab, &config)?;
        let result = lab
            .wait_for_console(&name, &format!(", {queues} queues, "), PATIENCE)
            .and_then(|_| lab.wait_for_console(&name, &format!("{model}, {kind}, "), PATIENCE))
            .and_then(|_| attach(scene, &netdom, &scene.a, number, "xenbr0"))
            .and_then(|()| match kind {
                "MSI-X" if number == IXGBE => thoroughly(scene, &netdom, number, &nic)
                    .and_then(|said| modules(scene, &netdom, number).map(|modules| format!("{said}; {modules}"))),
                "MSI-X" => thoroughly(scene, &netdom, number, &nic),
                _ => reaches(&scene.a, &scene.stage.peer(number.into())).map(|()| kind.to_owned()),
            });
        lab.run("xl network-detach a 1")?;
        said.push(netdom.destroy_after(result)?);
    }
    let misuse = lab.misuse(number.into());
    ensure!(misuse.is_empty(), "the driver: {misuse:?}");
    Ok(said.join("; "))
}

/// Traffic of each kind; the cable, and the device taken and given.
fn thoroughly(scene: &Scene<'_>, netdom: &DriverDomain<'_>, number: u8, nic: &str) -> Result<String> {
    let (lab, a) = (&scene.stage.lab, &scene.a);
    let peer = scene.stage.peer(number.into());
    reaches(a, &peer)?;
    let send = traffic::tcp(a, "send", &peer, 64)?;
    let receive = traffic::tcp(a, "receive", &peer, 64)?;
    let jumbo = jumbo(a, &peer)?;
    let carrier = format!("{}/carrier", netdom.backend(a.id(), 1));
    for (away, back) in [
        (Change::Link(number, false), Change::Link(number, true)),
        (Change::Detach(&netdom.name, nic), Change::Attach(&netdom.name, nic)),
    ] {
        away.apply(lab)?;
        let without = lab.wait_for_node(&carrier, "0", PATIENCE);
        back.apply(lab)?;
        without.with_context(|| format!("after {away:?}"))?;
        lab.wait_for_node(&carrier, "1", PATIENCE).with_context(|| format!("after {back:?}"))?;
        reaches(a, &peer).with_context(|| format!("after {back:?}"))?;
    }
    Ok(format!(
        "TCP {:.0} Mbit/s to the wire and {:.0} from it; {jumbo}",
        send.mbit_per_second, receive.mbit_per_second
    ))
}

/// The module is taken out of the NIC's cage, and others are put in.
fn modules(scene: &Scene<'_>, netdom: &DriverDomain<'_>, number: u8) -> Result<String> {
    let lab = &scene.stage.lab;
    let carrier = format!("{}/carrier", netdom.backend(scene.a.id(), 1));
    for (module, text) in [(SfpModule::PassiveCable, "direct attach, passive"), (SfpModule::ShortReach, "10GBASE-SR")] {
        lab.change_module(number.into(), None)?;
        lab.wait_for_node(&carrier, "0", PATIENCE).context("without a module")?;
        lab.change_module(number.into(), Some(module))?;
        lab.wait_for_node(&carrier, "1", PATIENCE).with_context(|| format!("with {module:?}"))?;
        lab.wait_for_console(&netdom.name, &format!("SFP+ module: {text}"), PATIENCE)?;
        reaches(&scene.a, &scene.stage.peer(number.into())).with_context(|| format!("with {module:?}"))?;
    }
    Ok("modules taken out and put in".into())
}

/// Gives a guest a vif on a bridge, with an address on the NIC's wire.
pub(super) fn attach(
    scene: &Scene<'_>,
    netdom: &DriverDomain<'_>,
    guest: &Guest<'_>,
    wire: u8,
    bridge: &str,
) -> Result<()> {
    let words = format!("{},bridge={bridge}", vif(&netdom.name, 0x61 + wire));
    scene.stage.lab.must(&format!("xl network-attach {} {}", guest.name(), words.replace(',', " ")))?;
    set_address(guest, &scene.stage.peer(wire.into()))
}

/// Brings the guest's second interface up, with an address in the network of a wire's peer.
pub(super) fn set_address(guest: &Guest<'_>, peer: &str) -> Result<()> {
    // Beyond the addresses that the wire's DHCP server gives.
    let network = peer.strip_suffix("0.1").with_context(|| format!("the peer is '{peer}'"))?;
    guest.must(&format!(
        "for i in $(seq 3000); do test -e /sys/class/net/eth1 && break; usleep 20000; done; \
         ip link set eth1 up && ip addr add {network}200.1/16 dev eth1"
    ))?;
    Ok(())
}

/// Two NICs of a netdom, each with a guest on its bridge.
fn with_both(scene: &Scene<'_>, netdom: &DriverDomain<'_>, nics: [(u8, &str); 2]) -> Result<String> {
    let lab = &scene.stage.lab;
    let ready = netdom.node("data/ready")?;
    ensure!(nics.iter().all(|(_, bridge)| ready.contains(&format!("on bridge {bridge}"))), "it is ready with {ready}");
    let guests = [&scene.a, &scene.b];
    let peers = nics.map(|(number, _)| scene.stage.peer(number.into()));
    for (guest, ((number, bridge), peer)) in guests.into_iter().zip(nics.iter().zip(&peers)) {
        attach(scene, netdom, guest, *number, bridge)?;
        reaches(guest, peer)?;
    }
    // A frame that one bridge floods does not reach the other: its peer answers no guest there.
    let other = &peers[1];
    scene.a.must(&format!("ip route add {other}/32 dev eth1"))?;
    let crossed = scene.a.run(&format!("ping -c 2 -W 1 {other}"))?;
    ensure!(crossed.status != 0, "the wire of {} is reached from {}", nics[1].1, nics[0].1);

    let carrier = |place: usize| format!("{}/carrier", netdom.backend(guests[place].id(), 1));
    let error = format!("/local/domain/{}/data/error", netdom.id);
    let second = nics[1].0;
    let nic = lab.nics().get(usize::from(second)).context("the machine has no such NIC")?.bdf();
    for (away, back) in [
        (Change::Link(second, false), Change::Link(second, true)),
        (Change::Detach(&netdom.name, &nic), Change::Attach(&netdom.name, &nic)),
    ] {
        away.apply(lab)?;
        let said = match &away {
            Change::Detach(_, nic) => {
                let says = format!("xenstore-read {error} | grep 'names 0000:{nic}, which is not there'");
                lab.wait_until(&says, PATIENCE).map(drop)
            }
            _ => Ok(()),
        };
        let without = said
            .and_then(|()| lab.wait_for_node(&carrier(1), "0", PATIENCE))
            .and_then(|()| traffic::ping(&scene.a, &peers[0], 50, 0, 56))
            .and_then(|ping| {
                ensure!(ping.lost == 0, "the other NIC's guest lost packets: {ping:?}");
                lab.wait_for_node(&carrier(0), "1", PATIENCE)
            });
        back.apply(lab)?;
        without.with_context(|| format!("after {away:?}"))?;
        lab.wait_for_node(&carrier(1), "1", PATIENCE).with_context(|| format!("after {back:?}"))?;
        reaches(&scene.b, &peers[1]).with_context(|| format!("after {back:?}"))?;
    }
    let jumbo = jumbo(&scene.b, &peers[1])?;
    Ok(format!("{ready}; {jumbo}"))
}

/// A change to a NIC.
#[derive(Debug)]
enum Change<'a> {
    Link(u8, bool),
    Detach(&'a str, &'a str),
    Attach(&'a str, &'a str),
}

impl Change<'_> {
    fn apply(&self, lab: &Lab) -> Result<()> {
        match self {
            Self::Link(number, up) => lab.set_link((*number).into(), *up),
            Self::Detach(domain, nic) => lab.must(&format!("xl pci-detach {domain} {nic}")).map(drop),
            Self::Attach(domain, nic) => lab.must(&format!("xl pci-attach {domain} {nic}")).map(drop),
        }
    }
}

/// Waits until the peer answers, and then counts on it.
pub(super) fn reaches(from: &impl Shell, peer: &str) -> Result<()> {
    let first = format!("for i in $(seq 100); do ping -c 1 -W 1 {peer} >/dev/null && exit 0; done; exit 1");
    from.sh(&first).context("no answer to the first pings")?;
    let ping = traffic::ping(from, peer, 50, 0, 56)?;
    ensure!(ping.lost == 0 && ping.duplicates == 0, "{ping:?}");
    Ok(())
}

/// Packets of 9,000 bytes to the wire and from it, and TCP of as long segments both ways.
pub(super) fn jumbo(guest: &Guest<'_>, peer: &str) -> Result<String> {
    guest.must("ip link set eth1 mtu 9000")?;
    // 8,972 bytes and 28 of headers fill 9,000 without a fragment.
    let ping = traffic::ping(guest, peer, 100, 0, 8972)?;
    ensure!(ping.lost == 0, "of 9,000 bytes: {ping:?}");
    let send = traffic::tcp(guest, "send", peer, 16)?;
    let receive = traffic::tcp(guest, "receive", peer, 16)?;
    guest.must("ip link set eth1 mtu 1500")?;
    Ok(format!(
        "jumbo frames: pings {:.0} us, TCP {:.0} Mbit/s to the wire and {:.0} from it",
        ping.median_us, send.mbit_per_second, receive.mbit_per_second
    ))
}

/// A device that no bridge is named for is said to be left alone, for as long as it is there.
fn third(lab: &Lab, netdom: &DriverDomain<'_>) -> Result<String> {
    let nic = lab.make_assignable(1)?;
    let node = format!("/local/domain/{}/data/error", netdom.id);
    lab.must(&format!("xl pci-attach nics {nic}"))?;
    let said = lab.wait_until(&format!("xenstore-read {node} | grep '^not used: pci 0000:{nic}'"), PATIENCE)?;
    ensure!(said.contains("\"bridge=\" names no bridge for it"), "data/error is '{said}'");
    lab.must(&format!("xl pci-detach nics {nic}"))?;
    lab.wait_until(&format!("! xenstore-exists {node}"), PATIENCE).context("data/error stays")?;
    Ok(said.trim().to_owned())
}

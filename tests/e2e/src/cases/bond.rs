//! Bonds: two NICs of a netdom on one switch outside, of which one is taken away while TCP runs. Linux guests, and the wire. Host.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Guest;

use super::nics::{attach, reaches};
use super::{BOND, Case, Scene, dom0, vlans};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::offloads::{End, Leg};
use crate::traffic::{self, Shell, Transfer};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a bond of two NICs, active-backup: TCP both ways goes on while the active NIC is taken away, and while its cable is pulled; a VLAN on it, and dom0",
        run: active_backup,
    },
    Case { name: "a bond of two NICs, balance-xor: flows leave on both, and go on with one", run: balance_xor },
    Case {
        name: "a bond of two NICs, 802.3ad: with a switch that speaks LACP flows leave on both, and go on with one, in a VLAN too; without it one is used",
        run: lacp,
    },
];

const NAME: &str = "bonded";
/// What the Ethernet addresses of the vifs end in: of that in a VLAN, of the other guest's in none, and of dom0's.
const VLAN: u8 = 0x78;
const PLAIN: u8 = 0x79;
const DOM0: u8 = 0xd4;
const PATIENCE: Duration = Duration::from_secs(60);
/// Of each transfer: it lasts for some seconds.
const MEBIBYTES: u32 = 192;

fn active_backup(scene: &Scene<'_>) -> Result<String> {
    with_bond(scene, "active-backup", active_backup_of)
}

fn balance_xor(scene: &Scene<'_>) -> Result<String> {
    with_group(scene, "balance-xor+layer3+4", balance_of)
}

fn lacp(scene: &Scene<'_>) -> Result<String> {
    with_group(scene, "802.3ad+layer3+4", lacp_of)
}

/// The wire's ports are one group.
fn with_group(scene: &Scene<'_>, mode: &str, act: Act) -> Result<String> {
    let wire = scene.stage.lab.wire(BOND.into())?;
    wire.set_group(true);
    let result = with_bond(scene, mode, act);
    wire.set_group(false);
    result
}

type Act = fn(&Scene<'_>, &DriverDomain<'_>, &[String; 2]) -> Result<String>;

/// A netdom with a bond of this mode, and a guest on it.
fn with_bond(scene: &Scene<'_>, mode: &str, act: Act) -> Result<String> {
    let lab = &scene.stage.lab;
    let nics = [lab.make_assignable(BOND.into())?, lab.make_assignable((BOND + 1).into())?];
    let words = format!("bond=bond0:{}:{mode} bridge=bond0:lan", nics.join(","));
    let config = DriverDomainConfig::netdom(NAME).memory(12).pci(&nics[0]).pci(&nics[1]).extra(&words);
    let netdom = DriverDomain::create(lab, &config)?;
    let result = netdom
        .node("data/ready")
        .and_then(|ready| {
            ensure!(ready.matches("on bridge lan").count() == 2, "it is ready with {ready}");
            attach(scene, &netdom, &scene.a, BOND, "lan")
        })
        .and_then(|()| act(scene, &netdom, &nics));
    lab.run("xl network-detach a 1")?;
    vlans::detach(scene, &[("b", VLAN), ("b", PLAIN)])?;
    let detached = dom0::detach(lab, DOM0);
    netdom.destroy_after(result.and_then(|said| detached.map(|()| said)))
}

/// Packets that each NIC of a netdom sent, by its statistics.
fn sent(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<[u64; 2]> {
    let mut counts = [0; 2];
    // It tells them once a second.
    scene.stage.lab.must("sleep 3")?;
    for (number, count) in counts.iter_mut().enumerate() {
        let line = netdom.node(&format!("data/statistics/nic/{number}"))?;
        let to = line.split_once(", to: ").and_then(|(_, to)| to.split(' ').next()?.parse().ok());
        *count = to.with_context(|| format!("NIC {number}: '{line}'"))?;
    }
    Ok(counts)
}

/// Flows leave on both NICs, and go on with each alone; what else is to hold meanwhile is looked at with both and with each.
fn spread(
    scene: &Scene<'_>,
    netdom: &DriverDomain<'_>,
    nics: &[String; 2],
    beside: &dyn Fn(Use) -> Result<()>,
) -> Result<String> {
    let (a, peer) = (&scene.a, scene.stage.peer(BOND.into()));
    bond_says(scene, netdom, ", 2 with a link, 2 in use")?;
    reaches(a, &peer)?;
    let before = sent(scene, netdom)?;
    for _ in 0..8 {
        traffic::tcp(a, "send", &peer, 4)?;
        traffic::tcp(a, "receive", &peer, 1)?;
    }
    let after = sent(scene, netdom)?;
    let counts = [after[0] - before[0], after[1] - before[1]];
    ensure!(counts.iter().all(|count| *count > 200), "16 connections: the NICs sent {counts:?} packets");
    let mut said = vec![format!("{} and {} packets", counts[0], counts[1])];
    beside(Use::Both)?;
    for place in [0, 1] {
        let result = during(a, "send", &peer, &|| Loss::Unplugged.apply(scene, nics, place, true));
        let without = bond_says(scene, netdom, ", 1 with a link, 1 in use")
            .and_then(|()| beside(Use::Only(1 - place)).with_context(|| format!("beside, without NIC {place}")));
        Loss::Unplugged.apply(scene, nics, place, false)?;
        let transfer = result.with_context(|| format!("without NIC {place}"))?;
        without?;
        said.push(format!("{:.0} Mbit/s without NIC {place}", transfer.mbit_per_second));
        bond_says(scene, netdom, ", 2 with a link, 2 in use")?;
    }
    Ok(said.join("; "))
}

/// Which NICs are in use.
#[derive(Clone, Copy, Debug)]
enum Use {
    Both,
    /// By its place in the bond.
    Only(u8),
}

impl Use {
    const fn count(self) -> usize {
        match self {
            Self::Both => 2,
            Self::Only(_) => 1,
        }
    }
}

/// Besides, TCP with the other guest on the bond's bridge, and with the wire, with the guests' offloads off and on.
fn balance_of(scene: &Scene<'_>, netdom: &DriverDomain<'_>, nics: &[String; 2]) -> Result<String> {
    let said = spread(scene, netdom, nics, &|_| Ok(()))?;
    let (a, b, peer) = (&scene.a, &scene.b, scene.stage.peer(BOND.into()));
    let network = peer.strip_suffix("0.1").context("the peer")?;
    vlans::attach_to(scene, NAME, b, PLAIN, "bridge=lan", "plain")?;
    let own = format!("{network}200.2");
    b.must(&format!("ip addr add {own}/32 dev plain && ip route add {network}200.1/32 dev plain src {own}"))?;
    reaches(a, &own)?;
    traffic::serve(b)?;
    let legs = [Leg::to_wire(&peer), Leg::to_guest(&own, b, "plain")];
    let offloads = End { guest: a, interface: "eth1" }.off_and_on(&legs);
    b.stop("serve")?;
    Ok(format!("{said}; {}", offloads?))
}

/// Frames of the vif in a VLAN, and of LACP, that came to the wire's ports.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// With the VLAN's tag, by the number of the port.
    tagged: [u64; 2],
    /// Without it, or with another.
    untagged: u64,
    /// LACP's, without a tag.
    lacp: [u64; 2],
    /// LACP's, with one.
    tagged_lacp: u64,
}

impl Seen {
    fn handle_frame(&mut self, port: usize, frame: &[u8]) {
        let kind = frame.get(12..).unwrap_or_default();
        let count = |counts: &mut [u64; 2]| counts.iter_mut().skip(port).take(1).for_each(|count| *count += 1);
        // IEEE 802.1AX-2008, 5.2.4: the slow protocols' group and their kind.
        if frame.starts_with(&[0x01, 0x80, 0xc2, 0x00, 0x00, 0x02]) {
            if kind.starts_with(&[0x88, 0x09]) { count(&mut self.lacp) } else { self.tagged_lacp += 1 }
        } else if frame.get(6..12).is_some_and(|from| from == [0x00, 0x16, 0x3e, 0x00, 0x00, VLAN]) {
            if kind.starts_with(&[0x81, 0x00, 0, 100]) { count(&mut self.tagged) } else { self.untagged += 1 }
        }
    }
}

/// What the wire has seen, until it is dropped.
struct Watch<'a>(&'a wire::Wire, Arc<Mutex<Seen>>);

impl<'a> Watch<'a> {
    fn new(wire: &'a wire::Wire) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let ours = Arc::clone(&seen);
        wire.observe(Some(Box::new(move |direction, frame| {
            if let wire::Direction::In(port) = direction {
                ours.lock().unwrap_or_else(PoisonError::into_inner).handle_frame(port, frame);
            }
        })));
        Self(wire, seen)
    }

    fn seen(&self) -> Seen {
        *self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.observe(None);
    }
}

/// The vif in a VLAN reaches the wire on the NICs that are in use, and on no other.
fn vlan_by(scene: &Scene<'_>, watch: &Watch<'_>, peer: &str, which: Use) -> Result<()> {
    let b = &scene.b;
    reaches(b, peer).context("by a VLAN on the bond")?;
    let before = watch.seen();
    let came = || {
        let after = watch.seen();
        [0, 1].map(|port| after.tagged[port] - before.tagged[port])
    };
    // Which NIC a connection leaves on is by chance, as its port is.
    for number in 0..32 {
        if number >= 4 && came().iter().filter(|frames| **frames > 200).count() >= which.count() {
            break;
        }
        let direction = if number % 4 == 0 { "receive" } else { "send" };
        traffic::tcp(b, direction, peer, 1).context("by a VLAN on the bond")?;
    }
    let frames = came();
    let right = match which {
        Use::Both => frames.iter().all(|frames| *frames > 200),
        Use::Only(place) => frames[usize::from(place)] > 200 && frames[1 - usize::from(place)] == 0,
    };
    ensure!(right, "{frames:?} frames of VLAN 100 came by the NICs, of which {which:?} is used");
    Ok(())
}

fn lacp_of(scene: &Scene<'_>, netdom: &DriverDomain<'_>, nics: &[String; 2]) -> Result<String> {
    let (wire, peer) = (scene.stage.lab.wire(BOND.into())?, scene.stage.peer(BOND.into()));
    attach_vlan(scene, &peer)?;
    let watch = Watch::new(wire);
    let said = spread(scene, netdom, nics, &|which| vlan_by(scene, &watch, &peer, which))?;
    let seen = watch.seen();
    drop(watch);
    // Each NIC asked by LACP when its cable was back.
    ensure!(seen.untagged == 0 && seen.tagged_lacp == 0 && seen.lacp.iter().all(|count| *count > 0), "{seen:?}");
    let said = format!("{said}; by VLAN 100 {:?} frames, of LACP {:?}", seen.tagged, seen.lacp);
    // A switch without LACP: both links come anew, and hear nothing.
    let lab = &scene.stage.lab;
    lab.wire(BOND.into())?.set_group(false);
    for away in [true, false] {
        (0..2).try_for_each(|place| Loss::Unplugged.apply(scene, nics, place, away))?;
        bond_says(scene, netdom, if away { ", 0 with a link, 0 in use" } else { ", 2 with a link, 1 in use" })?;
    }
    reaches(&scene.a, &scene.stage.peer(BOND.into()))?;
    Ok(said)
}

/// What happens to the active NIC.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// The toolstack takes it away.
    Detached,
    /// Its cable is pulled.
    Unplugged,
}

impl Loss {
    /// Takes the bond's NIC in this place away, or gives it back.
    fn apply(self, scene: &Scene<'_>, nics: &[String; 2], place: u8, away: bool) -> Result<()> {
        let (lab, nic) = (&scene.stage.lab, &nics[usize::from(place)]);
        match (self, away) {
            (Self::Unplugged, _) => lab.set_link((BOND + place).into(), !away),
            (Self::Detached, true) => lab.must(&format!("xl pci-detach {NAME} {nic}")).map(drop),
            (Self::Detached, false) => lab.must(&format!("xl pci-attach {NAME} {nic}")).map(drop),
        }
    }
}

fn active_backup_of(scene: &Scene<'_>, netdom: &DriverDomain<'_>, nics: &[String; 2]) -> Result<String> {
    let (lab, a) = (&scene.stage.lab, &scene.a);
    let peer = scene.stage.peer(BOND.into());
    reaches(a, &peer)?;
    let carrier = format!("{}/carrier", netdom.backend(a.id(), 1));
    attach_others(scene, &peer)?;
    let mut said = Vec::new();
    // Each loss makes the other NIC the active one.
    for (direction, loss, active) in [
        ("send", Loss::Detached, 0),
        ("receive", Loss::Unplugged, 1),
        ("receive", Loss::Detached, 0),
        ("send", Loss::Unplugged, 1),
    ] {
        let other = &nics[1 - usize::from(active)];
        bond_says(scene, netdom, &format!(", 2 with a link, active pci 0000:{}", nics[usize::from(active)]))?;
        let away = || loss.apply(scene, nics, active, true);
        let result = during(a, direction, &peer, &away).with_context(|| format!("{direction}, {loss:?}"));
        let without = bond_says(scene, netdom, &format!(", 1 with a link, active pci 0000:{other}"))
            .and_then(|()| lab.wait_for_node(&carrier, "1", PATIENCE))
            .and_then(|()| others_reach(scene, &peer));
        loss.apply(scene, nics, active, false)?;
        let transfer = result?;
        without?;
        said.push(format!("{direction}, {loss:?}: {:.0} Mbit/s", transfer.mbit_per_second));
    }
    bond_says(scene, netdom, ", 2 with a link")?;
    reaches(a, &peer)?;
    Ok(said.join("; "))
}

/// The other guest has a vif in a VLAN of the bond's bridge.
fn attach_vlan(scene: &Scene<'_>, peer: &str) -> Result<()> {
    let b = &scene.b;
    let network = peer.strip_suffix("0.1").context("the peer")?;
    vlans::attach_to(scene, NAME, b, VLAN, "bridge=lan.100", "vlan100")?;
    let own = format!("{network}250.1");
    b.must(&format!("ip addr add {own}/32 dev vlan100 && ip route add {peer}/32 dev vlan100 src {own}"))?;
    Ok(())
}

/// The same, and dom0 has a vif in none.
fn attach_others(scene: &Scene<'_>, peer: &str) -> Result<()> {
    let lab = &scene.stage.lab;
    let network = peer.strip_suffix("0.1").context("the peer")?;
    attach_vlan(scene, peer)?;
    let interface = dom0::attach(lab, NAME, DOM0, "bridge=lan")?;
    lab.must(&format!("ip addr add {network}200.9/16 dev {interface}"))?;
    let wire = lab.wire(BOND.into())?;
    wire.set_capture(1000);
    others_reach(scene, peer)?;
    let tagged = |frame: &wire::Captured| {
        let from = frame.frame.get(6..12)? == [0x00, 0x16, 0x3e, 0x00, 0x00, VLAN].as_slice();
        from.then(|| frame.frame.get(12..16) == Some([0x81, 0x00, 0x00, 100].as_slice()))
    };
    let tags: Vec<bool> = wire.captured().iter().filter_map(tagged).collect();
    wire.set_capture(0);
    ensure!(
        tags.len() >= 50 && tags.iter().all(|tagged| *tagged),
        "{} frames of the vif in VLAN 100: {tags:?}",
        tags.len()
    );
    Ok(())
}

fn others_reach(scene: &Scene<'_>, peer: &str) -> Result<()> {
    reaches(&scene.b, peer).context("by a VLAN on the bond")?;
    reaches(&scene.stage.lab, peer).context("from dom0")
}

/// Waits until netdom says so of the bond.
fn bond_says(scene: &Scene<'_>, netdom: &DriverDomain<'_>, text: &str) -> Result<()> {
    let node = format!("/local/domain/{}/data/statistics/bond/bond0", netdom.id);
    scene.stage.lab.wait_until(&format!("xenstore-read {node} | grep -F '{text}'"), PATIENCE)?;
    Ok(())
}

/// A transfer of the guest's, in the midst of which something happens. Both ends compare what they sent and received.
fn during(guest: &Guest<'_>, direction: &str, peer: &str, happens: &dyn Fn() -> Result<()>) -> Result<Transfer> {
    guest.start("transfer", &format!("traffic tcp-{direction} {peer} {MEBIBYTES}M"))?;
    guest.must(
        "cd /sys/class/net/eth1/statistics; b=$(($(cat tx_bytes) + $(cat rx_bytes))); \
         for i in $(seq 3000); do test $(($(cat tx_bytes) + $(cat rx_bytes) - b)) -gt 16000000 && exit 0; usleep 20000; done; exit 1",
    )?;
    let running = happens().and_then(|()| guest.must("kill -0 $(cat /tmp/transfer.pid)"));
    let transfer: Transfer = traffic::told(guest, "transfer")?;
    running.context("the transfer was over before")?;
    ensure!(transfer.checked, "the digests were not compared");
    Ok(transfer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_vlan_and_of_lacp_are_told_apart_by_their_tags() {
        let mut seen = Seen::default();
        let own = [0x00, 0x16, 0x3e, 0x00, 0x00, VLAN];
        let (tag, other_tag) = ([0x81, 0x00, 0, 100, 0x08, 0x00], [0x81, 0x00, 0, 101, 0x08, 0x00]);
        let lacp = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x02];
        for (port, to, from, rest) in [
            (0, [0xff; 6], own, &tag[..]),
            (1, [0xff; 6], own, &tag),
            (1, [0xff; 6], own, &other_tag),
            (1, [0xff; 6], own, &tag[4..]),
            (0, lacp, [2; 6], &[0x88, 0x09, 1]),
            (1, lacp, [2; 6], &tag),
            (0, [0xff; 6], [2; 6], &tag),
            (0, own, [2; 6], &[]),
        ] {
            seen.handle_frame(port, &[&to, &from, rest].concat());
        }
        assert_eq!((seen.tagged, seen.untagged, seen.lacp, seen.tagged_lacp), ([1, 1], 2, [1, 0], 1));
    }
}

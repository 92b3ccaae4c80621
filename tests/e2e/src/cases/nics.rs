//! A netdom with several NICs, each on its bridge, and jumbo frames. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Lab};

use super::{Case, SPARE_NIC, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::vif;
use crate::traffic;

pub(super) const CASES: &[Case] = &[Case {
    name: "two NICs, each on its bridge: apart, and unplugged, taken and given each alone; a third without a bridge is left alone",
    run: two_nics,
}];

const PATIENCE: Duration = Duration::from_secs(60);
/// The NICs, by the number of their wires, and their bridges.
const NICS: [(u8, &str); 2] = [(SPARE_NIC, "lan2"), (SPARE_NIC + 1, "lan3")];

fn two_nics(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let mut config = DriverDomainConfig::netdom("nics");
    let mut words = Vec::new();
    for (number, bridge) in NICS {
        let nic = lab.make_assignable(number.into())?;
        words.push(format!("{nic}:{bridge}"));
        config = config.pci(&nic);
    }
    let netdom = DriverDomain::create(lab, &config.extra(&format!("bridge={} mtu=9000", words.join(","))))?;
    let result = with_both(scene, &netdom);
    for guest in ["a", "b"] {
        lab.run(&format!("xl network-detach {guest} 1"))?;
    }
    let console = netdom.console().unwrap_or_default();
    lab.destroy_after("nics", result.with_context(|| format!("the console of nics:\n{console}")))
}

fn with_both(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let ready = netdom.node("data/ready")?;
    ensure!(NICS.iter().all(|(_, bridge)| ready.contains(&format!("on bridge {bridge}"))), "it is ready with {ready}");
    let guests = [&scene.a, &scene.b];
    let peers = NICS.map(|(number, _)| scene.stage.peer(number.into()));
    for (place, guest) in guests.into_iter().enumerate() {
        let number = 0x61 + place as u8;
        let words = format!("{},bridge={}", vif(&netdom.name, number), NICS[place].1);
        lab.must(&format!("xl network-attach {} {}", guest.name(), words.replace(',', " ")))?;
        // Beyond the addresses that the wire's DHCP server gives.
        let network = peers[place].strip_suffix("0.1").with_context(|| format!("the peer is '{}'", peers[place]))?;
        guest.must(&format!(
            "for i in $(seq 500); do test -e /sys/class/net/eth1 && break; usleep 20000; done; \
             ip link set eth1 up && ip addr add {network}200.1/16 dev eth1"
        ))?;
        reaches(guest, &peers[place])?;
    }
    // What one bridge floods does not reach the other: its peer answers nobody there.
    let other = &peers[1];
    scene.a.must(&format!("ip route add {other}/32 dev eth1"))?;
    let crossed = scene.a.run(&format!("ping -c 2 -W 1 {other}"))?;
    ensure!(crossed.status != 0, "the wire of {} is reached from {}", NICS[1].1, NICS[0].1);

    let carrier = |place: usize| format!("{}/carrier", netdom.backend(guests[place].id(), 1));
    let error = format!("/local/domain/{}/data/error", netdom.id);
    let second = NICS[1].0;
    let nic = lab.nics().get(usize::from(second)).context("the machine has no such NIC")?.bdf();
    for (away, back) in
        [(Change::Link(second, false), Change::Link(second, true)), (Change::Detach(&nic), Change::Attach(&nic))]
    {
        away.apply(lab)?;
        let said = match &away {
            Change::Detach(nic) => {
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
    let third = third(lab, netdom)?;
    Ok(format!("{ready}; {jumbo}; {third}"))
}

/// What is done to a NIC.
#[derive(Debug)]
enum Change<'a> {
    Link(u8, bool),
    Detach(&'a str),
    Attach(&'a str),
}

impl Change<'_> {
    fn apply(&self, lab: &Lab) -> Result<()> {
        match self {
            Self::Link(number, up) => lab.set_link((*number).into(), *up),
            Self::Detach(nic) => lab.must(&format!("xl pci-detach nics {nic}")).map(drop),
            Self::Attach(nic) => lab.must(&format!("xl pci-attach nics {nic}")).map(drop),
        }
    }
}

/// Waits until the peer answers, and then counts on it.
fn reaches(guest: &Guest<'_>, peer: &str) -> Result<()> {
    guest.must(&format!("for i in $(seq 100); do ping -c 1 -W 1 {peer} >/dev/null && exit 0; done; exit 1"))?;
    let ping = traffic::ping(guest, peer, 50, 0, 56)?;
    ensure!(ping.lost == 0 && ping.duplicates == 0, "{ping:?}");
    Ok(())
}

/// Packets of 9,000 bytes to the wire and from it, and TCP of as long segments both ways.
fn jumbo(guest: &Guest<'_>, peer: &str) -> Result<String> {
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

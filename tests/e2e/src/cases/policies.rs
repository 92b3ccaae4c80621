//! What the switch refuses a guest for its neighbours' sake: isolated guests, groups that were not asked for, storms. Linux guests, and the wire.
//! Host.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::Guest;

use super::vlans::{attach_to, detach, received};
use super::{Case, SPARE_NIC, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::offloads::{End, Leg};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "isolated guests reach the wire alone, get the groups that they asked for, and send few frames to all (isolated=, storm=)",
    run: policies,
}];

/// The domain.
const NAME: &str = "policed";
/// What the Ethernet addresses of the vifs end in.
const MACS: [u8; 2] = [0x7d, 0x7e];
/// A router on the wire, and a station that sends to groups.
const ROUTER: [u8; 6] = [0x02, 0x6f, 0x78, 0x99, 0x00, 0x07];
/// 239.1.2.3, as an Ethernet has it.
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
/// Frames to all that a guest may send in a second, and those that it sends.
const LIMIT: u64 = 200;
const STORM: u64 = 1000;
/// How long a frame or a counter may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn policies(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let config = DriverDomainConfig::netdom(NAME).pci(&nic).extra(&format!("isolated=xenbr0 storm={LIMIT}"));
    let netdom = DriverDomain::create(lab, &config)?;
    let result = with_vifs(scene, &netdom);
    detach(scene, &[("a", MACS[0]), ("b", MACS[1])])?;
    lab.destroy_after(NAME, result)
}

fn with_vifs(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<String> {
    let (a, b, peer) = (&scene.a, &scene.b, scene.stage.peer(SPARE_NIC.into()));
    let network = peer.strip_suffix("0.1").with_context(|| format!("the peer is '{peer}'"))?;
    for (guest, mac, number) in [(a, MACS[0], 1), (b, MACS[1], 2)] {
        attach_to(scene, NAME, guest, mac, "bridge=xenbr0", "policed")?;
        guest.must(&format!(
            "ip addr add 10.209.0.{number}/24 dev policed && ip addr add {network}252.{number}/32 dev policed && \
             ip route add {peer}/32 dev policed src {network}252.{number}"
        ))?;
    }
    isolated(a, b, &peer)?;
    let offloads = End { guest: a, interface: "policed" }.off_and_on(&[Leg::to_wire(&peer)])?;
    groups(scene)?;
    let passed = storm(scene, netdom, &peer)?;
    Ok(format!("{passed} of {STORM} broadcasts passed with storm={LIMIT}; {offloads}"))
}

/// Two guests of an isolated bridge: both reach the wire, and not each other.
fn isolated(a: &Guest<'_>, b: &Guest<'_>, peer: &str) -> Result<()> {
    for guest in [a, b] {
        let ping = traffic::ping(guest, peer, 20, 0, 56).with_context(|| format!("ping {peer}"))?;
        ensure!(ping.lost == 0, "{}: {ping:?}", guest.name());
    }
    for (guest, other) in [(a, "10.209.0.2"), (b, "10.209.0.1")] {
        let out = guest.shell(&format!("ping -c 3 -W 2 {other}"), PATIENCE)?;
        ensure!(out.status != 0 && out.stdout.contains("100% packet loss"), "a ping to {other}: {}", out.stdout);
    }
    // With its Ethernet address known, too.
    a.must(&format!("/usr/bin/ip neigh replace 10.209.0.2 lladdr 00:16:3e:00:00:{:02x} dev policed", MACS[1]))?;
    let out = a.shell("ping -c 3 -W 2 10.209.0.2", PATIENCE)?;
    ensure!(out.status != 0 && out.stdout.contains("100% packet loss"), "a ping past ARP: {}", out.stdout);
    Ok(())
}

/// An IPv4 packet for a group, without options.
fn ipv4(group: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 209, 0, 99].to_vec();
    header.extend(group);
    let sum = checksum(&header);
    header.splice(10..12, sum);
    let mac = [1, 0, 0x5e, group[1] & 0x7f, group[2], group[3]];
    let mut frame = [&mac[..], &ROUTER, &[0x08, 0x00], &header, payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A question of IGMPv2 for all groups, which wants answers within a second.
fn query() -> Vec<u8> {
    let mut message = [0x11, 10, 0, 0, 0, 0, 0, 0];
    let [high, low] = checksum(&message);
    (message[2], message[3]) = (high, low);
    ipv4([224, 0, 0, 1], 2, &message)
}

/// A guest that joins a group gets its frames; once a router asks, the other does not.
fn groups(scene: &Scene<'_>) -> Result<()> {
    let wire = scene.stage.lab.wire(SPARE_NIC.into())?;
    // The kernel joins the group for an address of that kind.
    scene.a.must("/usr/bin/ip addr add 239.1.2.3/32 dev policed autojoin")?;
    let data = ipv4([239, 1, 2, 3], 17, &[0, 9, 0, 9, 0, 8, 0, 0]);
    let came = |frame: &[u8]| {
        let counts = || anyhow::Ok([received(&scene.a, "policed")?, received(&scene.b, "policed")?]);
        let before = counts()?;
        wire.inject((0..30).map(|_| frame.to_vec()));
        sleep(Duration::from_secs(1));
        let after = counts()?;
        anyhow::Ok([after[0] - before[0], after[1] - before[1]])
    };
    let both = came(&data)?;
    ensure!(both.iter().all(|came| (30..40).contains(came)), "without a router, of 30 frames came {both:?}");
    wire.set_capture(20_000);
    wire.inject([query()]);
    let (since, own) = (Instant::now(), [0x00, 0x16, 0x3e, 0x00, 0x00, MACS[0]]);
    // The report of IGMPv2, behind the option of a router alert.
    let is_report = |frame: &[u8]| {
        frame.get(..12) == Some([GROUP, own].concat().as_slice())
            && frame.get(38) == Some(&0x16)
            && frame.get(23) == Some(&2)
    };
    while !wire.captured().iter().any(|one| is_report(&one.frame)) {
        ensure!(since.elapsed() < PATIENCE, "no report came to the wire");
        sleep(Duration::from_millis(50));
    }
    wire.set_capture(0);
    // All that were asked have answered then.
    sleep(Duration::from_secs(4));
    let one = came(&data)?;
    ensure!((30..40).contains(&one[0]) && one[1] < 10, "of 30 frames of a group came {one:?}");
    let other = came(&ipv4([239, 1, 2, 4], 17, &[0, 9, 0, 9, 0, 8, 0, 0]))?;
    ensure!(other.iter().all(|came| *came < 10), "of 30 frames of a group that nobody is in came {other:?}");
    let local = came(&ipv4([224, 0, 0, 251], 17, &[0, 9, 0, 9, 0, 8, 0, 0]))?;
    ensure!(local.iter().all(|came| (30..40).contains(came)), "of 30 frames to 224.0.0.251 came {local:?}");
    // It leaves the group.
    scene.a.must("/usr/bin/ip addr del 239.1.2.3/32 dev policed")?;
    sleep(Duration::from_secs(1));
    let left = came(&data)?;
    ensure!(left.iter().all(|came| *came < 10), "of 30 frames of a group that was left came {left:?}");
    Ok(())
}

/// A storm of broadcasts: what is beyond the limit comes nowhere, and is counted; all else goes on.
fn storm(scene: &Scene<'_>, netdom: &DriverDomain<'_>, peer: &str) -> Result<u64> {
    let (a, b, wire) = (&scene.a, &scene.b, scene.stage.lab.wire(SPARE_NIC.into())?);
    let mut frame = [&[0xff; 6][..], &[0x00, 0x16, 0x3e, 0x00, 0x00, MACS[0]], &[0x88, 0xb5]].concat();
    frame.resize(60, 0xa5);
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    wire.set_capture(20_000);
    a.must(&format!("traffic frames policed $(yes {hex} | head -n {STORM})"))?;
    for guest in [a, b] {
        let ping = traffic::ping(guest, peer, 50, 0, 56)?;
        ensure!(ping.lost == 0, "{} after the storm: {ping:?}", guest.name());
    }
    let passed = wire.captured().iter().filter(|one| one.frame == frame).count() as u64;
    wire.set_capture(0);
    ensure!((LIMIT..STORM).contains(&passed), "{passed} of {STORM} broadcasts came to the wire");
    let counted = netdom.counts_of(a.id(), &format!("storm {}\\b", STORM - passed));
    counted.with_context(|| format!("{passed} passed"))?;
    Ok(passed)
}

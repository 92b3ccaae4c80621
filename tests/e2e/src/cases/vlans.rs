//! Access ports of VLANs: Linux guests with untagged vifs, and the tagged wire. Host.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Guest;

use super::{Case, Scene};
use crate::offloads::{End, Leg};
use crate::stage::vif;
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "two guests on VLAN 100: pings and TCP between them and with the tagged wire; a vif on 200 sees nothing of it",
    run: access_ports,
}];

/// What the addresses of the vifs end in: of both guests on VLAN 100, and of the vif on 200.
const MACS: [u8; 3] = [0x75, 0x76, 0x77];
/// A station on the wire.
const STRANGER: [u8; 6] = [0x02, 0x6f, 0x78, 0x99, 0x00, 0x05];

fn access_ports(scene: &Scene<'_>) -> Result<String> {
    let result = with_vifs(scene);
    detach(scene, &[("a", MACS[0]), ("b", MACS[1]), ("b", MACS[2])])?;
    // As before, for guests on no VLAN.
    traffic::ping(&scene.a, &scene.peer(), 20, 0, 56).and_then(|ping| {
        ensure!(ping.lost == 0, "without VLANs again: {ping:?}");
        result
    })
}

/// Gives a guest a vif with these words besides, as an interface of that name.
pub(super) fn attach(scene: &Scene<'_>, guest: &Guest<'_>, mac: u8, words: &str, name: &str) -> Result<()> {
    attach_to(scene, &scene.netdom.name, guest, mac, words, name)
}

/// The same of another backend.
pub(super) fn attach_to(
    scene: &Scene<'_>,
    backend: &str,
    guest: &Guest<'_>,
    mac: u8,
    words: &str,
    name: &str,
) -> Result<()> {
    let words = format!("{} {words}", vif(backend, mac).replace(',', " "));
    scene.stage.lab.must(&format!("xl network-attach {} {words}", guest.name()))?;
    guest.must(&format!(
        "for i in $(seq 3000); do f=$(grep -l 00:16:3e:00:00:{mac:02x} /sys/class/net/*/address) && break; usleep 20000; done; \
         dev=$(echo $f | cut -d/ -f5); ip link set $dev down; ip link set $dev name {name} && ip link set {name} up"
    ))?;
    Ok(())
}

/// Takes the vifs with these ends of their addresses from their guests.
pub(super) fn detach(scene: &Scene<'_>, vifs: &[(&str, u8)]) -> Result<()> {
    for (guest, mac) in vifs {
        scene.stage.lab.run(&format!(
            "d=$(xl network-list {guest} | awk '/00:16:3e:00:00:{mac:02x}/ {{print $1}}'); test -z \"$d\" || xl network-detach {guest} $d"
        ))?;
    }
    Ok(())
}

/// Frames that an interface received.
pub(super) fn received(guest: &Guest<'_>, interface: &str) -> Result<u64> {
    let count = guest.must(&format!("cat /sys/class/net/{interface}/statistics/rx_packets"))?;
    count.trim().parse().with_context(|| format!("{interface} received '{count}'"))
}

fn with_vifs(scene: &Scene<'_>) -> Result<String> {
    let (a, b) = (&scene.a, &scene.b);
    attach(scene, a, MACS[0], "bridge=xenbr0.100", "vlan100")?;
    attach(scene, b, MACS[1], "bridge=xenbr0.100", "vlan100")?;
    attach(scene, b, MACS[2], "bridge=xenbr0.200", "vlan200")?;
    let peer = scene.peer();
    // The peer answers each station with the tag that the station used.
    let network = peer.strip_suffix("0.1").with_context(|| format!("the peer is '{peer}'"))?;
    for (guest, number) in [(a, 1), (b, 2)] {
        guest.must(&format!(
            "ip addr add 10.207.0.{number}/24 dev vlan100 && ip addr add {network}250.{number}/32 dev vlan100 && \
             ip route add {peer}/32 dev vlan100 src {network}250.{number}"
        ))?;
    }
    // The vif on 200 hears of itself alone from here on.
    let before = received(b, "vlan200")?;
    let wire = scene.stage.lab.wire(0)?;
    wire.set_capture(20_000);
    let mut pings = Vec::new();
    for host in ["10.207.0.2", &peer] {
        let ping = traffic::ping(a, host, 100, 0, 56).with_context(|| format!("ping {host}"))?;
        ensure!(ping.lost == 0 && ping.duplicates == 0, "{host}: {ping:?}");
        pings.push(format!("{:.0}", ping.median_us));
    }
    let captured = wire.captured();
    wire.set_capture(0);
    let mac = [0x00, 0x16, 0x3e, 0x00, 0x00, MACS[0]];
    let mine = |frame: &&wire::Captured| frame.frame.get(6..12) == Some(mac.as_slice());
    let tags: Vec<_> = captured.iter().filter(mine).map(|frame| frame.frame.get(12..16)).collect();
    let tag = [0x81, 0x00, 0x00, 100];
    ensure!(tags.len() >= 100, "{} frames of a vif on VLAN 100 were on the wire", tags.len());
    ensure!(
        tags.iter().all(|found| *found == Some(tag.as_slice())),
        "a frame without the tag of VLAN 100 was on the wire"
    );

    traffic::serve(b)?;
    let mut rates = Vec::new();
    for host in ["10.207.0.2", &peer] {
        for direction in ["send", "receive"] {
            let transfer = traffic::tcp(a, direction, host, 32).with_context(|| format!("{direction} {host}"));
            rates.push(transfer.map(|transfer| format!("{:.0}", transfer.mbit_per_second)));
        }
    }
    let ends = [End { guest: a, interface: "vlan100" }, End { guest: b, interface: "vlan100" }];
    let offloads = ends[1].link_local(&ends[0]).and_then(|v6| {
        let to_b = |host: &str| Leg::to_guest(host, b, "vlan100");
        ends[0].off_and_on(&[Leg::to_wire(&peer), to_b("10.207.0.2"), to_b(&v6)])
    });
    b.stop("serve")?;
    let offloads = offloads?;
    let rates = rates.into_iter().collect::<Result<Vec<_>>>()?;
    let after = received(b, "vlan200")?;
    ensure!(after == before, "the vif on VLAN 200 received {} frames", after - before);

    // Broadcasts of the wire: those of VLAN 200 reach the vif there, and no other.
    let frame = |vlan: u8, tagged: bool| {
        let mut frame = [[0xff; 6], STRANGER].concat();
        if tagged {
            frame.extend([0x81, 0x00, 0x00, vlan]);
        }
        // An experimental ethertype (IEEE 802), and padding to the shortest frame.
        frame.extend([0x88, 0xb5]);
        frame.resize(64, 0);
        frame
    };
    let counts = || anyhow::Ok([received(a, "vlan100")?, received(b, "vlan100")?, received(b, "vlan200")?]);
    for (sent, expected) in [(frame(200, true), [0, 0, 30]), (frame(100, true), [30, 30, 0]), (frame(0, false), [0; 3])]
    {
        let before = counts()?;
        wire.inject((0..30).map(|_| sent.clone()));
        sleep(Duration::from_secs(1));
        let after = counts()?;
        let came = [0, 1, 2].map(|place| after[place] - before[place]);
        // The peer's own may come beside them.
        let enough = came.iter().zip(expected).all(|(came, expected)| (expected..expected + 10).contains(came));
        ensure!(enough, "of 30 frames {:02x?} came {came:?}, not {expected:?}", &sent[12..16]);
    }
    Ok(format!("pings {} us, TCP {} Mbit/s to and from guest and wire; {offloads}", pings.join(", "), rates.join(", ")))
}

//! Ports of several VLANs: Linux guests that tag their frames, and the tagged wire. Host.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Guest, Release};

use super::vlans::{attach, detach, received};
use super::{Case, Scene};
use crate::offloads::{self, Leg};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "a guest on a trunk for VLANs 100 and 200, one with 100 without a tag: pings and TCP in both, also with the wire; no frame hops",
    run: trunks,
}];

/// What the addresses of the vifs end in: of the trunk, of the one with a native VLAN, and of an access port of VLAN 100.
const TRUNK: u8 = 0x78;
const BOTH: u8 = 0x79;
const ACCESS: u8 = 0x7c;
/// A station on the wire.
const STRANGER: [u8; 6] = [0x02, 0x6f, 0x78, 0x99, 0x00, 0x06];
/// How often a frame is sent that must not pass.
const REPEATED: u64 = 20;
/// How long a frame may take to the wire on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn trunks(scene: &Scene<'_>) -> Result<String> {
    let result = with_vifs(scene);
    detach(scene, &[("a", TRUNK), ("b", BOTH), ("a", ACCESS)])?;
    result
}

/// The words of netdom for VLANs; those of the toolstack, where it has them (Xen 4.19 and later).
fn words(scene: &Scene<'_>, words: [&'static str; 2]) -> &'static str {
    match scene.stage.lab.row().release {
        Release::Debian12 => words[0],
        Release::Debian13 => words[1],
    }
}

/// An end of a connection: a guest, its interface, the VLAN that this is in, and the number in its addresses.
struct End<'a> {
    guest: &'a Guest<'a>,
    interface: &'static str,
    vlan: u16,
    mac: u8,
    number: u8,
}

impl End<'_> {
    /// The vif that the interface is, or is on.
    fn vif(&self) -> &'static str {
        self.interface.split('.').next().unwrap_or_default()
    }

    fn offloads(&self) -> offloads::End<'_> {
        offloads::End { guest: self.guest, interface: self.vif() }
    }

    fn address(&self) -> String {
        format!("10.207.{}.{}", self.vlan, self.number)
    }
}

fn with_vifs(scene: &Scene<'_>) -> Result<String> {
    let (a, b, peer) = (&scene.a, &scene.b, scene.peer());
    let network = peer.strip_suffix("0.1").with_context(|| format!("the peer is '{peer}'"))?;
    attach(scene, a, TRUNK, "bridge=xenbr0:100:200", "trunk")?;
    attach(scene, b, BOTH, words(scene, ["bridge=xenbr0.100:200", "vlan=100p/200"]), "both")?;
    for (guest, interface) in [(a, "trunk"), (b, "both")] {
        for vlan in [100, 200] {
            guest.must(&format!(
                "modprobe 8021q; /usr/bin/ip link add link {interface} name {interface}.{vlan} type vlan id {vlan} && \
                 ip link set {interface}.{vlan} up"
            ))?;
        }
    }
    let end = |guest, interface, vlan, mac, number| End { guest, interface, vlan, mac, number };
    let pairs = [
        [end(a, "trunk.100", 100, TRUNK, 1), end(b, "both", 100, BOTH, 2)],
        [end(a, "trunk.200", 200, TRUNK, 3), end(b, "both.200", 200, BOTH, 4)],
    ];
    for one in pairs.iter().flatten() {
        let End { interface, number, .. } = one;
        one.guest.must(&format!(
            "ip addr add {}/24 dev {interface} && ip addr add {network}251.{number}/32 dev {interface}",
            one.address()
        ))?;
    }
    traffic::serve(b)?;
    let said = exchange(scene, network, &pairs);
    b.stop("serve")?;
    let said = said?;
    from_the_wire(scene)?;
    let refused = not_permitted(scene)?;
    Ok(format!("{said}; {refused} frames that would hop did not pass"))
}

/// Pings and TCP in each VLAN, between the guests and with the peer. A vif with offloads gives super-frames and blank checksums, an interface for
/// tagged frames none, as Linux makes it.
fn exchange(scene: &Scene<'_>, network: &str, pairs: &[[End<'_>; 2]]) -> Result<String> {
    let mut rates = Vec::new();
    for [one, other] in pairs {
        let host = other.address();
        let ping = traffic::ping(one.guest, &host, 50, 0, 56).with_context(|| format!("ping {host}"))?;
        ensure!(ping.lost == 0 && ping.duplicates == 0, "{host}: {ping:?}");
        // With super-frames where the vif has them, then without.
        for most in [65535, 1] {
            other.guest.must(&format!("/usr/bin/ip link set dev {} gso_max_segs {most}", other.interface))?;
            for direction in ["send", "receive"] {
                let transfer = traffic::tcp(one.guest, direction, &host, 8);
                let transfer = transfer.with_context(|| format!("{direction} {host}, {most} segments at once"))?;
                rates.push(format!("{:.0}", transfer.mbit_per_second));
            }
        }
        other.guest.must(&format!("/usr/bin/ip link set dev {} gso_max_segs 65535", other.interface))?;
        let leg = Leg::to_guest(&host, other.guest, other.vif());
        rates.push(format!("({})", one.offloads().off_and_on(&[leg]).with_context(|| host.clone())?));
    }
    for end in pairs.iter().flatten() {
        let rate = with_peer(scene, network, end).with_context(|| format!("{} with the peer", end.interface))?;
        rates.push(rate);
    }
    Ok(format!("TCP {} Mbit/s", rates.join(", ")))
}

/// An end with the peer, which answers each station with the tag that the station used last: one at a time. All frames on the wire have the tag
/// of the VLAN.
fn with_peer(scene: &Scene<'_>, network: &str, end: &End<'_>) -> Result<String> {
    let (peer, wire) = (scene.peer(), scene.stage.lab.wire(0)?);
    let End { guest, interface, vlan, mac, number } = end;
    guest.must(&format!("ip route replace {peer}/32 dev {interface} src {network}251.{number}"))?;
    wire.set_capture(50_000);
    let ping = traffic::ping(*guest, &peer, 50, 0, 56)?;
    let rates: Result<Vec<_>> =
        ["send", "receive"].into_iter().map(|direction| traffic::tcp(*guest, direction, &peer, 8)).collect();
    let offloads = end.offloads().off_and_on(&[Leg::to_wire(&peer)]);
    let captured = wire.captured();
    wire.set_capture(0);
    guest.must(&format!("ip route del {peer}/32 dev {interface}"))?;
    ensure!(ping.lost == 0 && ping.duplicates == 0, "{ping:?}");
    let rates: Vec<_> = rates?.iter().map(|transfer| format!("{:.0}", transfer.mbit_per_second)).collect();
    let own = [0x00, 0x16, 0x3e, 0x00, 0x00, *mac];
    let [high, low] = vlan.to_be_bytes();
    let (mut right, mut wrong) = (0, Vec::new());
    for frame in captured.iter().map(|one| &one.frame).filter(|frame| frame.get(6..12) == Some(own.as_slice())) {
        // The other interface of the vif may say a word of its own: IPv4 and ARP are those of the pings.
        match frame.get(12..18) {
            Some([0x81, 0x00, found_high, found_low, 0x08, _]) if (*found_high, *found_low) == (high, low) => {
                right += 1
            }
            Some([0x81, 0x00, _, _, 0x86, 0xdd]) => {}
            other => wrong.push(format!("{other:02x?}")),
        }
    }
    wrong.dedup();
    ensure!(wrong.is_empty(), "frames without the tag of VLAN {vlan}: {}", wrong.join(", "));
    ensure!(right >= 50, "{right} frames of VLAN {vlan} were on the wire");
    Ok(format!("{} ({})", rates.join(", "), offloads?))
}

/// The tags of a frame, the outer one first.
type Tags<'a> = &'a [[u8; 4]];

fn frame(destination: [u8; 6], source: [u8; 6], tags: Tags<'_>, mark: u8) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    frame.extend(tags.as_flattened());
    // An experimental ethertype (IEEE 802), and padding to the shortest frame.
    frame.extend([0x88, 0xb5]);
    frame.resize(68, mark);
    frame
}

const fn tag(vlan: u16) -> [u8; 4] {
    let [high, low] = vlan.to_be_bytes();
    [0x81, 0x00, high, low]
}

/// Broadcasts of the wire come to the vifs of their VLAN, and to no others.
fn from_the_wire(scene: &Scene<'_>) -> Result<()> {
    let wire = scene.stage.lab.wire(0)?;
    let counts = || anyhow::Ok([received(&scene.a, "trunk")?, received(&scene.b, "both")?]);
    let table: [(Tags<'_>, [u64; 2]); 6] = [
        (&[tag(100)], [30, 30]),
        (&[tag(200)], [30, 30]),
        (&[tag(300)], [0, 0]),
        (&[], [0, 0]),
        (&[tag(300), tag(200)], [0, 0]),
        (&[tag(200), tag(300)], [30, 30]),
    ];
    for (tags, expected) in table {
        let before = counts()?;
        let sent = frame([0xff; 6], STRANGER, tags, 0);
        wire.inject((0..30).map(|_| sent.clone()));
        sleep(Duration::from_secs(1));
        let after = counts()?;
        let came = [0, 1].map(|place| after[place] - before[place]);
        // The peer's own may come beside them.
        let enough = came.iter().zip(expected).all(|(came, expected)| (expected..expected + 10).contains(came));
        ensure!(enough, "of 30 frames with the tags {tags:02x?} came {came:?}, not {expected:?}");
    }
    Ok(())
}

/// What is of no VLAN of its port reaches no wire and no guest; how many frames were tried.
fn not_permitted(scene: &Scene<'_>) -> Result<usize> {
    attach(scene, &scene.a, ACCESS, words(scene, ["bridge=xenbr0.100", "vlan=100"]), "access")?;
    let service = [0x88, 0xa8, 0, 200];
    let tries: [(&str, u8, &[Tags<'_>]); 3] = [
        ("trunk", TRUNK, &[&[], &[tag(0)], &[tag(300)], &[tag(300), tag(200)], &[service], &[service, tag(200)]]),
        ("both", BOTH, &[&[tag(100)], &[tag(300)], &[tag(100), tag(200)], &[tag(0), tag(200)], &[service, tag(200)]]),
        ("access", ACCESS, &[&[tag(100)], &[tag(200)], &[tag(100), tag(200)], &[tag(0), tag(200)], &[service]]),
    ];
    let mut count = 0;
    for (interface, mac, tags) in tries {
        let guest = if interface == "both" { &scene.b } else { &scene.a };
        let own = [0x00, 0x16, 0x3e, 0x00, 0x00, mac];
        let frames: Vec<_> = (1..).zip(tags).map(|(mark, tags)| frame([0xff; 6], own, tags, mark)).collect();
        // All others were sent before it.
        let ends = if interface == "trunk" { vec![tag(200)] } else { Vec::new() };
        let end = frame([0xff; 6], own, &ends, 0xe5);
        let others = if interface == "both" { (&scene.a, "trunk") } else { (&scene.b, "both") };
        let before = received(others.0, others.1)?;
        let captured = send(scene, guest, interface, &frames, &end)?;
        for (frame, tags) in frames.iter().zip(tags) {
            let tail = frame.get(frame.len() - 30..);
            let came =
                captured.iter().any(|one| one.get(6..12) == Some(own.as_slice()) && one.get(one.len() - 30..) == tail);
            ensure!(!came, "from {interface}: a frame with the tags {tags:02x?} came to the wire");
        }
        let came = received(others.0, others.1)? - before;
        // The last one, and what Linux says by itself.
        ensure!(
            (1..REPEATED).contains(&came),
            "from {interface}: {came} frames came to the other guest, not the last one alone"
        );
        count += frames.len();
    }
    Ok(count)
}

/// Sends frames, each several times, and one more; what was on the wire until that one was.
fn send(scene: &Scene<'_>, guest: &Guest<'_>, interface: &str, frames: &[Vec<u8>], end: &[u8]) -> Result<Vec<Vec<u8>>> {
    let wire = scene.stage.lab.wire(0)?;
    let hex = |frame: &[u8]| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let words: Vec<_> = frames.iter().map(|frame| hex(frame)).collect();
    wire.set_capture(20_000);
    guest.must(&format!(
        "for i in $(seq {REPEATED}); do traffic frames {interface} {} || exit 1; done; traffic frames {interface} {}",
        words.join(" "),
        hex(end)
    ))?;
    let (since, tail) = (Instant::now(), end.get(end.len() - 30..));
    let mut captured: Vec<Vec<u8>> = Vec::new();
    while !captured.iter().any(|one| one.get(one.len().saturating_sub(30)..) == tail) {
        ensure!(since.elapsed() < PATIENCE, "from {interface}: the last frame did not come to the wire");
        sleep(Duration::from_millis(50));
        captured.extend(wire.captured().into_iter().map(|one| one.frame).filter(|frame| frame.len() >= 30));
    }
    wire.set_capture(0);
    Ok(captured)
}

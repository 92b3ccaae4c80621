//! What guests may not send: others' addresses, and what is a router's or a server's to send. Linux guests, and the wire. Host.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::Guest;

use super::{Case, SPARE_NIC, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::offloads::{End, Leg};
use crate::stage::vif;
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "guests send with their own addresses alone: by default their Ethernet address, with ip= these IP addresses and no server's messages",
    run: own_addresses,
}];

/// The domain.
const NAME: &str = "guarded";
/// What the Ethernet addresses of the vifs end in: of one without `ip=`, and of one with it.
const FREE: u8 = 0x7a;
const BOUND: u8 = 0x7b;
/// Another station's, as the gateway's.
const OTHER: [u8; 6] = [0x02, 0x6f, 0x78, 0x99, 0x00, 0xfe];
/// How long a frame may take to the wire on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn own_addresses(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom(NAME).pci(&nic))?;
    let result = with_vifs(scene, &netdom);
    for (guest, mac) in [("a", FREE), ("b", BOUND)] {
        lab.run(&format!(
            "d=$(xl network-list {guest} | awk '/00:16:3e:00:00:{mac:02x}/ {{print $1}}'); test -z \"$d\" || xl network-detach {guest} $d"
        ))?;
    }
    lab.destroy_after(NAME, result)
}

fn mac(last: u8) -> [u8; 6] {
    [0x00, 0x16, 0x3e, 0x00, 0x00, last]
}

fn attach(scene: &Scene<'_>, guest: &Guest<'_>, last: u8, ip: &str) -> Result<()> {
    let words = vif(NAME, last).replace(',', " ");
    scene.stage.lab.must(&format!("xl network-attach {} {words} bridge=xenbr0 {ip}", guest.name()))?;
    guest.must(&format!(
        "for i in $(seq 3000); do f=$(grep -l 00:16:3e:00:00:{last:02x} /sys/class/net/*/address) && break; usleep 20000; done; \
         dev=$(echo $f | cut -d/ -f5); ip link set $dev down; ip link set $dev name spoof && ip link set spoof up"
    ))?;
    Ok(())
}

/// A frame, by name: whether it passes from a vif without `ip=`, and from one with it.
type Try = (&'static str, Vec<u8>, [bool; 2]);

fn ethernet(source: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &source, &ethertype.to_be_bytes(), packet].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn arp(hardware: [u8; 6], sender: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &hardware, &sender, &[0; 6], &[10, 208, 0, 9]].concat()
}

/// Asks whether an address is free.
fn probe(hardware: [u8; 6], target: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &hardware, &[0; 10], &target].concat()
}

fn ipv4(source: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0][..], &source, &[255; 4], payload].concat()
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat()
}

/// A client's message of DHCP for this hardware address, as far as that.
fn dhcp(hardware: [u8; 6]) -> Vec<u8> {
    [&udp(68, 67)[..], &[1, 1, 6], &[0; 25], &hardware].concat()
}

fn ipv6(source: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    [&[0x60, 0, 0, 0, 0, payload.len() as u8, next, 255][..], &source, &all_nodes, payload].concat()
}

/// An address of fd28::/16.
fn unique_local(last: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[1], address[15]) = (0xfd, 0x28, last);
    address
}

fn discovery(kind: u8, target: &[u8], option: u8, hardware: [u8; 6]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], target, &[option, 1], &hardware].concat()
}

/// What a guest with this Ethernet address tries. Its IP addresses are those that end in 5.
fn tries(own: [u8; 6]) -> Vec<Try> {
    let (mine, others) = ([10, 208, 0, 5], [10, 208, 0, 1]);
    let (mine_v6, others_v6) = (unique_local(5), unique_local(1));
    let advertisement = discovery(134, &[], 1, own);
    let hidden = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &advertisement].concat();
    let neighbour = |target: [u8; 16], hardware| discovery(136, &target, 2, hardware);
    let (both, free, none) = ([true, true], [true, false], [false, false]);
    let gateway_v6 = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let look = |target: [u8; 16]| ethernet(own, 0x86dd, &ipv6([0; 16], 58, &discovery(135, &target, 14, own)));
    vec![
        ("its own ARP", ethernet(own, 0x0806, &arp(own, mine)), both),
        ("another Ethernet address", ethernet(OTHER, 0x0806, &arp(own, mine)), none),
        ("ARP of another Ethernet address", ethernet(own, 0x0806, &arp(OTHER, mine)), none),
        ("ARP of another IP address", ethernet(own, 0x0806, &arp(own, others)), free),
        ("a look whether its own IP address is free", ethernet(own, 0x0806, &probe(own, mine)), both),
        ("a look whether another's is free", ethernet(own, 0x0806, &probe(own, others)), free),
        ("its own IPv4", ethernet(own, 0x0800, &ipv4(mine, 17, &udp(9, 9))), both),
        ("another's IPv4", ethernet(own, 0x0800, &ipv4(others, 17, &udp(9, 9))), free),
        ("a question to DHCP", ethernet(own, 0x0800, &ipv4([0; 4], 17, &dhcp(own))), both),
        ("one for another Ethernet address", ethernet(own, 0x0800, &ipv4([0; 4], 17, &dhcp(OTHER))), free),
        ("a question of IGMP", ethernet(own, 0x0800, &ipv4(mine, 2, &[0x11, 0, 0, 0, 0, 0, 0, 0])), free),
        ("an answer of DHCP", ethernet(own, 0x0800, &ipv4(mine, 17, &udp(67, 68))), free),
        ("its own IPv6", ethernet(own, 0x86dd, &ipv6(mine_v6, 17, &udp(9, 9))), both),
        ("another's IPv6", ethernet(own, 0x86dd, &ipv6(others_v6, 17, &udp(9, 9))), free),
        ("an answer of DHCPv6", ethernet(own, 0x86dd, &ipv6(mine_v6, 17, &udp(547, 546))), free),
        ("its own neighbour advertisement", ethernet(own, 0x86dd, &ipv6(mine_v6, 58, &neighbour(mine_v6, own))), both),
        ("one for another", ethernet(own, 0x86dd, &ipv6(mine_v6, 58, &neighbour(others_v6, own))), free),
        (
            "one with another Ethernet address",
            ethernet(own, 0x86dd, &ipv6(mine_v6, 58, &neighbour(mine_v6, OTHER))),
            free,
        ),
        (
            "one for the gateway's link-local address",
            ethernet(own, 0x86dd, &ipv6(mine_v6, 58, &neighbour(gateway_v6, own))),
            free,
        ),
        ("a look whether its own IPv6 address is free", look(mine_v6), both),
        ("a look whether another's is free", look(others_v6), free),
        ("a redirect of IPv4", ethernet(own, 0x0800, &ipv4(mine, 1, &[5, 1, 0, 0, 0, 0, 0, 0])), free),
        ("a router advertisement", ethernet(own, 0x86dd, &ipv6(mine_v6, 58, &advertisement)), free),
        ("one behind options", ethernet(own, 0x86dd, &ipv6(mine_v6, 60, &hidden)), free),
        ("a redirect", ethernet(own, 0x86dd, &ipv6(mine_v6, 58, &discovery(137, &[0; 32], 2, own))), free),
        ("another protocol", ethernet(own, 0x88b5, &[0x5a; 46]), free),
    ]
}

fn with_vifs(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<String> {
    let (a, b, peer) = (&scene.a, &scene.b, scene.stage.peer(SPARE_NIC.into()));
    let network = peer.strip_suffix("0.1").with_context(|| format!("the peer is '{peer}'"))?;
    attach(scene, a, FREE, "")?;
    attach(scene, b, BOUND, &format!("ip='10.208.0.5 {network}251.5 fd28::5/128'"))?;
    let mut said = Vec::new();
    for (guest, last, column) in [(a, FREE, 0), (b, BOUND, 1)] {
        let passed = try_all(scene, guest, last, column).with_context(|| format!("from {}", guest.name()))?;
        said.push(passed);
    }
    // Honest traffic of a guest whose addresses are known.
    b.must(&format!(
        "ip addr add {network}251.5/32 dev spoof && ip route add {peer}/32 dev spoof src {network}251.5 && \
         /usr/bin/ip -6 addr add fd28::5/64 dev spoof nodad"
    ))?;
    a.must("/usr/bin/ip -6 addr add fd28::1/64 dev spoof nodad")?;
    for host in [&peer, "fd28::1"] {
        let ping = traffic::ping(b, host, 50, 0, 56).with_context(|| format!("ping {host}"))?;
        ensure!(ping.lost == 0, "{host}: {ping:?}");
    }
    let transfer = traffic::tcp(b, "send", &peer, 16)?;
    a.must("ip addr add 10.208.0.1/24 dev spoof")?;
    b.must("ip addr add 10.208.0.5/24 dev spoof")?;
    traffic::serve(a)?;
    let to_a = |host: &str| Leg::to_guest(host, a, "spoof");
    let offloads =
        End { guest: b, interface: "spoof" }.off_and_on(&[Leg::to_wire(&peer), to_a("10.208.0.1"), to_a("fd28::1")]);
    a.stop("serve")?;
    let offloads = offloads?;
    // It reaches no station with an address that `ip=` does not name.
    b.must("/usr/bin/ip -6 addr add fd28::6/64 dev spoof nodad")?;
    let out = b.shell("ping -6 -c 3 -W 2 -I fd28::6 fd28::1", PATIENCE)?;
    ensure!(out.status != 0 && out.stdout.contains("100% packet loss"), "a ping from fd28::6: {}", out.stdout);
    netdom.counts_of(b.id(), "spoofed ")?;
    Ok(format!("{} passed; with ip= TCP {:.0} Mbit/s; {offloads}", said.join(" and "), transfer.mbit_per_second))
}

/// Sends all, and looks which of them come to the wire.
fn try_all(scene: &Scene<'_>, guest: &Guest<'_>, last: u8, column: usize) -> Result<String> {
    let (own, wire) = (mac(last), scene.stage.lab.wire(SPARE_NIC.into())?);
    let tries = tries(own);
    let mut words: Vec<String> = Vec::new();
    for (_, frame, _) in &tries {
        words.push(frame.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    // All others were sent before it.
    let mut end = ethernet(own, 0x0806, &arp(own, [10, 208, 0, 5]));
    end.resize(64, 0xe5);
    words.push(end.iter().map(|byte| format!("{byte:02x}")).collect());
    wire.set_capture(20_000);
    guest.must(&format!("traffic frames spoof {}", words.join(" ")))?;
    let since = Instant::now();
    let mut captured: Vec<Vec<u8>> = Vec::new();
    while !captured.contains(&end) {
        ensure!(since.elapsed() < PATIENCE, "the last frame did not come to the wire");
        std::thread::sleep(Duration::from_millis(50));
        captured.extend(wire.captured().into_iter().map(|one| one.frame));
    }
    wire.set_capture(0);
    let mut passed = 0;
    for (name, frame, expected) in &tries {
        let came = captured.contains(frame);
        ensure!(came == expected[column], "{name}: {}", if came { "it passed" } else { "it did not pass" });
        passed += usize::from(came);
    }
    Ok(format!("{passed} of {}", tries.len()))
}

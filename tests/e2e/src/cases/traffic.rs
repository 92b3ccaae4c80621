//! Traffic of unmodified Linux guests: to the wire, from it, and between guests. Host.

use anyhow::{Context, Result, ensure};
use lab::Guest;

use super::{Case, Scene};
use crate::offloads::{End, Leg};
use crate::traffic::{self, Shell, Transfer};

pub(super) const CASES: &[Case] = &[
    Case { name: "ready with 8 MiB, the NIC by MSI-X, the image at most 1.5 MiB", run: ready },
    Case { name: "1,000 pings to the wire, none lost", run: pings },
    Case { name: "256 MiB of TCP to the wire, digests equal", run: tcp_to_wire },
    Case { name: "256 MiB of TCP from the wire, digests equal", run: tcp_from_wire },
    Case { name: "256 MiB of TCP from guest to guest, digests equal", run: tcp_between_guests },
    Case { name: "TCP over IPv6 with the wire and between guests", run: ipv6 },
    Case {
        name: "TCP with the guests' offloads off, and on again: with the wire and between guests, both ways, IPv4 and IPv6",
        run: offloads_off,
    },
    Case {
        name: "TCP over a guest's VLAN interface: with the wire and between guests, both ways, QinQ too",
        run: vlan,
    },
    Case { name: "jumbo frames in chains between guests with scatter-gather", run: jumbo },
    Case { name: "a frame never returns to the port it came from", run: no_reflection },
    Case { name: "statistics of every port, in the store", run: statistics },
];

const MEBIBYTES: u32 = 256;

fn ready(scene: &Scene<'_>) -> Result<String> {
    let console = scene.netdom.console()?;
    ensure!(console.contains("MSI-X"), "the console does not speak of MSI-X:\n{console}");
    let size = scene.stage.lab.must("stat -c %s /usr/lib/oxidom/netdom")?.trim().parse::<u64>()?;
    ensure!(size <= 6 << 18, "the image has {size} bytes");
    Ok(format!(
        "ready {} ms after its first instruction, {} ms after `xl create` began; image {} KiB",
        scene.netdom.ready.as_millis(),
        scene.netdom.created.as_millis(),
        size / 1024
    ))
}

fn pings(scene: &Scene<'_>) -> Result<String> {
    let ping = traffic::ping(&scene.a, &scene.peer(), 1000, 0, 56)?;
    ensure!(ping.sent == 1000 && ping.lost == 0 && ping.duplicates == 0, "{ping:?}");
    Ok(format!("median {:.0} us, 99th percentile {:.0} us", ping.median_us, ping.p99_us))
}

fn rate(transfer: &Transfer) -> String {
    format!("{:.0} Mbit/s with digests", transfer.mbit_per_second)
}

fn tcp_to_wire(scene: &Scene<'_>) -> Result<String> {
    traffic::tcp(&scene.a, "send", &scene.peer(), MEBIBYTES).map(|transfer| rate(&transfer))
}

fn tcp_from_wire(scene: &Scene<'_>) -> Result<String> {
    traffic::tcp(&scene.a, "receive", &scene.peer(), MEBIBYTES).map(|transfer| rate(&transfer))
}

fn tcp_between_guests(scene: &Scene<'_>) -> Result<String> {
    traffic::serve(&scene.b)?;
    let result = traffic::tcp(&scene.a, "send", &scene.b_address, MEBIBYTES);
    scene.b.stop("serve")?;
    result.map(|transfer| rate(&transfer))
}

/// Gives the guests addresses of IPv6, if they have none.
fn with_ipv6(scene: &Scene<'_>) -> Result<()> {
    for (guest, address) in [(&scene.a, "fd09::a"), (&scene.b, "fd09::b")] {
        // Without duplicate address detection, which takes a second before the address is used.
        guest.sh(&format!(
            "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; \
             ip -6 addr show dev eth0 | grep -q {address}/64 || ip -6 addr add {address}/64 dev eth0"
        ))?;
    }
    Ok(())
}

fn ipv6(scene: &Scene<'_>) -> Result<String> {
    with_ipv6(scene)?;
    let out = traffic::tcp(&scene.a, "send", "fd09::1", 32)?;
    let back = traffic::tcp(&scene.a, "receive", "fd09::1", 32)?;
    traffic::serve(&scene.b)?;
    let across = traffic::tcp(&scene.a, "send", "fd09::b", 32);
    scene.b.stop("serve")?;
    Ok(format!("{:.0}, {:.0}, {:.0} Mbit/s", out.mbit_per_second, back.mbit_per_second, across?.mbit_per_second))
}

fn offloads_off(scene: &Scene<'_>) -> Result<String> {
    with_ipv6(scene)?;
    traffic::serve(&scene.b)?;
    let to_b = |host: &str| Leg::to_guest(host, &scene.b, "eth0");
    let legs = [Leg::to_wire(&scene.peer()), Leg::to_wire("fd09::1"), to_b(&scene.b_address), to_b("fd09::b")];
    let result = End { guest: &scene.a, interface: "eth0" }.off_and_on(&legs);
    scene.b.stop("serve")?;
    result
}

/// VLAN 5 on both guests, and VLAN 6 in 802.1ad's 7 between them. The address of `v5` is its own, so that the peer can tell it from `eth0`.
const VLAN: &str = "modprobe 8021q; ip link add link eth0 name v5 type vlan id 5 && ip link set v5 address 02:6f:78:05:00:0@ && \
     ip link set v5 up && ip addr add 10.205.0.@/24 dev v5 && ip addr add 10.9.250.@/32 dev v5 && \
     ip route add 10.9.0.1/32 dev v5 src 10.9.250.@ && \
     ip link add link eth0 name s7 type vlan proto 802.1ad id 7 && ip link set s7 up && \
     ip link add link s7 name q6 type vlan id 6 && ip link set q6 mtu 1496 && ip link set q6 up && ip addr add 10.206.0.@/24 dev q6";

fn vlan(scene: &Scene<'_>) -> Result<String> {
    let guests = [(&scene.a, "1"), (&scene.b, "2")];
    let rates = vlan_rates(scene, guests);
    for (guest, _) in guests {
        guest.sh("for link in q6 s7 v5; do ip link del $link 2>/dev/null; done; true")?;
    }
    let rates: Vec<_> = rates?.iter().map(|rate| format!("{rate:.0}")).collect();
    Ok(format!("{} Mbit/s", rates.join(", ")))
}

fn vlan_rates(scene: &Scene<'_>, guests: [(&Guest<'_>, &str); 2]) -> Result<Vec<f64>> {
    for (guest, number) in guests {
        guest.sh(&VLAN.replace('@', number))?;
    }
    traffic::serve(&scene.b)?;
    let peer = scene.peer();
    let mut rates = Vec::new();
    for host in [peer.as_str(), "10.205.0.2", "10.206.0.2"] {
        for direction in ["receive", "send"] {
            let transfer = traffic::tcp(&scene.a, direction, host, 16);
            rates.push(transfer.with_context(|| format!("{direction} {host}"))?.mbit_per_second);
        }
    }
    scene.b.stop("serve")?;
    Ok(rates)
}

fn jumbo(scene: &Scene<'_>) -> Result<String> {
    let set = |mtu: u32| -> Result<()> {
        for guest in [&scene.a, &scene.b] {
            guest.sh(&format!("ip link set eth0 mtu {mtu}"))?;
        }
        Ok(())
    };
    set(9000)?;
    // 8,972 bytes and 28 of headers fill 9,000 without a fragment: more than two pages, so a chain of slots both ways.
    let result = traffic::ping(&scene.a, &scene.b_address, 200, 0, 8972);
    set(1500)?;
    let ping = result?;
    ensure!(ping.lost == 0, "{ping:?}");
    Ok(format!("200 pings of 9,000 bytes, median {:.0} us", ping.median_us))
}

/// A station beyond the NIC, unknown to everybody.
const STRANGER: [u8; 6] = [0x02, 0x6f, 0x78, 0x99, 0x00, 0x01];

fn no_reflection(scene: &Scene<'_>) -> Result<String> {
    let wire = scene.stage.lab.wire(0)?;
    let frame = |destination: [u8; 6]| {
        let mut frame = destination.to_vec();
        frame.extend(STRANGER);
        // An experimental ethertype (IEEE 802), and padding to the shortest frame.
        frame.extend([0x88, 0xb5]);
        frame.resize(60, 0);
        frame
    };
    wire.set_capture(4000);
    // A broadcast, a multicast group, and a station that nobody knows: all three are flooded.
    let destinations = [[0xff; 6], [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03], [0x02, 0x6f, 0x78, 0x99, 0x00, 0x02]];
    wire.inject(destinations.iter().cycle().take(300).map(|destination| frame(*destination)));
    // What was to come back has done so once a ping sent after it was answered.
    traffic::ping(&scene.a, &scene.peer(), 20, 0, 56)?;
    let captured = wire.captured();
    wire.set_capture(0);
    let of_stranger = |frame: &&wire::Captured| frame.frame.get(6..12) == Some(STRANGER.as_slice());
    let (out, back): (Vec<_>, Vec<_>) =
        captured.iter().filter(of_stranger).partition(|frame| frame.direction == wire::Direction::Out);
    ensure!(out.len() == 300, "{} of 300 frames were put on the wire", out.len());
    ensure!(back.is_empty(), "{} of 300 frames came back to the wire", back.len());
    Ok("300 flooded frames, none came back".to_owned())
}

fn statistics(scene: &Scene<'_>) -> Result<String> {
    let id = scene.netdom.id;
    let text = scene.stage.lab.wait_until(
        &format!("xenstore-ls -f /local/domain/{id}/data | grep -E 'received|packets'"),
        std::time::Duration::from_secs(20),
    )?;
    let lines = text.lines().count();
    ensure!(lines >= 3, "two vifs and a NIC have statistics; the store says:\n{text}");
    Ok(format!("{lines} counters of packets"))
}

//! A netdom that is a router: DHCP server of a bridge without a NIC, and the way out for guests behind NAT. Linux guests, and the wire. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Guest;

use super::{Case, SPARE_NIC, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::offloads::{End, Leg};
use crate::stage::{lease, vif};
use crate::traffic::{self, Ping, Shell, Transfer};

pub(super) const CASES: &[Case] = &[Case {
    name: "netdom routes: leases on a bridge without a NIC, NAT behind its own address, a port of that is a guest's, and a guest's addresses on the wire, of IPv6 too",
    run: routed,
}];

/// The domain.
const NAME: &str = "router";
/// What the Ethernet addresses of the vifs end in: on the bridge, and behind NAT.
const LAB: [u8; 2] = [0x7c, 0x7d];
const NAT: [u8; 2] = [0x7e, 0x7f];
/// The same of the vifs whose addresses are known on the wire.
const ROUTED: [u8; 2] = [0x83, 0x80];
/// The addresses of the guests behind NAT, and of the router for them.
const INSIDE: [&str; 2] = ["192.168.77.2", "192.168.78.2"];
const GATEWAYS: [&str; 2] = ["192.168.77.1", "192.168.78.1"];
/// How long a counter may take to the store.
const PATIENCE: Duration = Duration::from_secs(60);

fn routed(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let peer = scene.stage.peer(SPARE_NIC.into());
    let network = peer.strip_suffix("0.1").with_context(|| format!("the peer is '{peer}'"))?;
    let own = format!("{network}252.5");
    let peer_v6 = peer_v6(scene)?;
    let network_v6 = peer_v6.strip_suffix('1').with_context(|| format!("the peer is '{peer_v6}'"))?;
    let extra = format!(
        "internal=inside:dhcp=10.77.0.0/24 address={own}/16,{network_v6}fc:5/64 forward=tcp:7001:{}",
        INSIDE[0]
    );
    DriverDomain::create(lab, &DriverDomainConfig::netdom(NAME).pci(&nic).extra(&extra))?;
    let guests = [&scene.a, &scene.b];
    let mut routes = Vec::new();
    for guest in guests {
        routes.push(guest.must("ip route show default | head -n 1")?);
    }
    let result = on_the_bridge(scene)
        .and_then(|leased| {
            let inside = between_on_the_bridge(scene, &leased)?;
            let said = behind_nat(scene, &leased, (&peer, &own))?;
            let offloads = offloads_behind_nat(scene, (&peer, &own))?;
            Ok(format!("leased {}, TCP {inside}; {said}; {offloads}", leased.join(" and ")))
        })
        .and_then(|said| Ok(format!("{said}; {}", with_a_known_address(scene, &peer, network)?)))
        .and_then(|said| Ok(format!("{said}; {}", with_a_known_address_of_ipv6(scene, &peer_v6, network_v6)?)));
    for (place, guest) in guests.iter().enumerate() {
        let name = guest.name();
        guest.stop("serve")?;
        for mac in [LAB[place], NAT[place], ROUTED[place]] {
            lab.run(&format!(
                "d=$(xl network-list {name} | awk '/00:16:3e:00:00:{mac:02x}/ {{print $1}}'); test -z \"$d\" || xl network-detach {name} $d"
            ))?;
        }
        let route = routes[place].trim();
        guest.must(&format!("test -z '{route}' || ip route replace {route}"))?;
    }
    lab.destroy_after(NAME, result)
}

/// Gives a guest a vif, as the interface of this name.
pub(super) fn attach(
    scene: &Scene<'_>,
    guest: &Guest<'_>,
    (backend, last): (&str, u8),
    name: &str,
    words: &str,
) -> Result<()> {
    let vif = vif(backend, last).replace(',', " ");
    scene.stage.lab.must(&format!("xl network-attach {} {vif} {words}", guest.name()))?;
    guest.must(&format!(
        "for i in $(seq 3000); do f=$(grep -l 00:16:3e:00:00:{last:02x} /sys/class/net/*/address) && break; usleep 20000; done; \
         dev=$(echo $f | cut -d/ -f5); ip link set $dev down; ip link set $dev name {name} && ip link set {name} up"
    ))?;
    Ok(())
}

pub(super) fn ping(from: &Guest<'_>, host: &str, size: u32) -> Result<()> {
    // The first ones wait for ARP.
    from.must(&format!(
        "for i in $(seq 20); do ping -c 1 -W 1 {host} >/dev/null && exit 0; done; ping -c 1 -W 1 {host}"
    ))?;
    let ping = traffic::ping(from, host, 50, 0, size).with_context(|| format!("from {}: ping {host}", from.name()))?;
    ensure!(ping.lost == 0 && ping.duplicates == 0, "from {}: {host}: {ping:?}", from.name());
    Ok(())
}

/// The guests' leases.
fn on_the_bridge(scene: &Scene<'_>) -> Result<Vec<String>> {
    let guests = [&scene.a, &scene.b];
    let mut addresses = Vec::new();
    for (guest, last) in guests.into_iter().zip(LAB) {
        attach(scene, guest, (NAME, last), "inside", "bridge=inside")?;
        let address = lease(guest, "inside")?;
        ensure!(address.starts_with("10.77.0.") && address != "10.77.0.1", "{} leased '{address}'", guest.name());
        ensure!(!addresses.contains(&address), "two leases of {address}");
        addresses.push(address);
    }
    for (guest, other) in [(0, 1), (1, 0)] {
        ping(guests[guest], "10.77.0.1", 56)?;
        ping(guests[guest], "10.77.0.1", 1400)?;
        ping(guests[guest], &addresses[other], 56)?;
    }
    // The same client, the same address.
    let again = lease(guests[0], "inside")?;
    ensure!(again == addresses[0], "first '{}', then '{again}'", addresses[0]);
    Ok(addresses)
}

/// TCP on the bridge without a NIC.
fn between_on_the_bridge(scene: &Scene<'_>, leased: &[String]) -> Result<String> {
    let (a, b) = (&scene.a, &scene.b);
    let ends = [End { guest: a, interface: "inside" }, End { guest: b, interface: "inside" }];
    let to_b = |host: &str| Leg::to_guest(host, b, "inside");
    let v6 = ends[1].link_local(&ends[0])?;
    traffic::serve(b)?;
    let result = ends[0].off_and_on(&[to_b(&leased[1]), to_b(&v6)]).context("on the bridge without a NIC");
    b.stop("serve")?;
    result
}

/// To the wire, by the port that is the other guest's, and by that guest's own address, where it serves already.
fn offloads_behind_nat(scene: &Scene<'_>, (peer, own): (&str, &str)) -> Result<String> {
    let to_a = |host: &str| Leg::to_guest(host, &scene.a, "nat");
    let legs = [Leg::to_wire(peer), to_a(own), to_a(INSIDE[0])];
    End { guest: &scene.b, interface: "nat" }.off_and_on(&legs).context("behind NAT")
}

fn behind_nat(scene: &Scene<'_>, leased: &[String], (peer, own): (&str, &str)) -> Result<String> {
    let (lab, a, b) = (&scene.stage.lab, &scene.a, &scene.b);
    for (place, guest) in [a, b].into_iter().enumerate() {
        attach(scene, guest, (NAME, NAT[place]), "nat", &format!("script=vif-nat ip={}", INSIDE[place]))?;
        let address = lease(guest, "nat")?;
        ensure!(address == INSIDE[place], "{} leased '{address}'", guest.name());
        guest.must(&format!(
            "ip route add {peer}/32 via {} dev nat && ip route add {own}/32 via {} dev nat",
            GATEWAYS[place], GATEWAYS[place]
        ))?;
        ping(guest, GATEWAYS[place], 56)?;
        ping(guest, own, 56)?;
        ping(guest, peer, 56)?;
    }
    // The wire sees netdom's own address alone; what it sends to the guests' is not there.
    let mut rates = Vec::new();
    for (guest, direction) in [(a, "send"), (b, "receive"), (b, "both")] {
        let transfer = traffic::tcp(guest, direction, peer, 16).with_context(|| format!("{direction} by NAT"))?;
        rates.push(format!("{direction} {:.0}", transfer.mbit_per_second));
    }
    let flow = traffic::udp_flood(a, peer, 1000, 1).context("UDP by NAT")?;
    ensure!(flow.received > 0, "{flow:?}");
    let flow = traffic::udp_receive(b, peer, 1000, 1).context("UDP back by NAT")?;
    ensure!(flow.received > 0, "{flow:?}");
    // A port of netdom's address is guest a's; b reaches it as anybody would (hairpin), and a's own address by way of the router.
    traffic::serve(a)?;
    let hairpin = traffic::tcp(b, "both", own, 8).context("by the port that is a guest's")?;
    b.must(&format!("ip route add {}/32 via {} dev nat", INSIDE[0], GATEWAYS[1]))?;
    a.must(&format!("ip route add {}/32 via {} dev nat", INSIDE[1], GATEWAYS[0]))?;
    let direct = traffic::tcp(b, "both", INSIDE[0], 8).context("from guest to guest")?;
    // Too long for the way out: the guest is told of the first one, and cuts the others, whose parts are not translated.
    b.must("ip link set nat mtu 3000")?;
    let out = b.shell(
        &format!(
            "for i in 1 2 3; do ping -c 1 -W 2 -s 2000 {peer}; done; /usr/bin/ip route get {peer} | grep 'mtu 1500'"
        ),
        PATIENCE,
    )?;
    ensure!(out.status == 0, "the way's MTU was not told: {}", out.stdout);
    b.must("ip link set nat mtu 1500")?;
    let transfer = traffic::tcp(b, "both", peer, 8).context("after it")?;
    // In fragments, which both guests send at once.
    a.start("cut", &format!("traffic ping {peer} 200 0 --size 4000"))?;
    ping(b, peer, 4000).context("in fragments, by NAT")?;
    let cut = traffic::told::<Ping>(a, "cut").context("in fragments, from the other guest")?;
    ensure!(cut.lost == 0 && cut.duplicates == 0, "in fragments, from the other guest: {cut:?}");
    // Another life goes on with the connection, and with the leases.
    b.start("transfer", &format!("traffic tcp-receive {peer} 48M"))?;
    lab.must(&format!("oxidom restart {NAME}"))?;
    b.must("kill -0 $(cat /tmp/transfer.pid)").context("the transfer was over before")?;
    let over = traffic::told::<Transfer>(b, "transfer").context("over a life of netdom")?;
    ensure!(over.checked, "the digests were not compared: {over:?}");
    for (place, guest) in [a, b].into_iter().enumerate() {
        let address = lease(guest, "inside")?;
        ensure!(
            address == leased[place],
            "{} leased '{address}', and '{}' of the life before",
            guest.name(),
            leased[place]
        );
    }
    Ok(format!(
        "by NAT {} Mbit/s; hairpin {:.0}, from guest to guest {:.0}, at the end {:.0}",
        rates.join(", "),
        hairpin.mbit_per_second,
        direct.mbit_per_second,
        transfer.mbit_per_second
    ))
}

/// A guest whose address is known on the wire, where netdom answers for it.
fn with_a_known_address(scene: &Scene<'_>, peer: &str, network: &str) -> Result<String> {
    let (b, address) = (&scene.b, format!("{network}253.7"));
    let peer_v6 = peer_v6(scene)?;
    let address_v6 = format!("{}fd:7", peer_v6.trim_end_matches('1'));
    attach(
        scene,
        b,
        (NAME, ROUTED[1]),
        "routed",
        &format!("script=vif-route 'ip={address} {address_v6}' gatewaydev=xenbr0"),
    )?;
    let leased = lease(b, "routed")?;
    ensure!(leased == address, "leased '{leased}'");
    b.must(&format!("ip route replace {peer}/32 via {network}253.1 dev routed src {address}"))?;
    ping(b, peer, 56)?;
    ping(b, peer, 1400)?;
    let transfer = traffic::tcp(b, "both", peer, 16).context("from an address that is known on the wire")?;
    // Nothing is translated: what is cut comes through, too.
    ping(b, peer, 4000)?;
    // Another guest of the kind, by way of the router.
    let (a, other) = (&scene.a, format!("{network}253.8"));
    attach(scene, a, (NAME, ROUTED[0]), "routed", &format!("script=vif-route ip={other} gatewaydev=xenbr0"))?;
    a.must(&format!("ip addr add {other}/32 dev routed && ip route add {network}253.1/32 dev routed"))?;
    a.must(&format!("ip route add {address}/32 via {network}253.1 dev routed src {other}"))?;
    b.must(&format!("ip route add {other}/32 via {network}253.1 dev routed src {address}"))?;
    ping(a, &address, 56)?;
    ping(a, &address, 4000)?;
    traffic::serve(b)?;
    let between = traffic::tcp(a, "both", &address, 16).context("between guests that are known on the wire")?;
    // The other guest serves since it was behind NAT.
    let legs = [Leg::to_wire(peer), Leg::to_guest(&other, a, "routed")];
    let offloads = End { guest: b, interface: "routed" }.off_and_on(&legs).context("routed")?;
    Ok(format!(
        "routed {:.0} Mbit/s, between guests {:.0}; {offloads}",
        transfer.mbit_per_second, between.mbit_per_second
    ))
}

/// The peer's address of IPv6, the first of its network.
fn peer_v6(scene: &Scene<'_>) -> Result<String> {
    let wire = scene.stage.lab.wire(SPARE_NIC.into()).context("no wire")?;
    let (address, _) = wire.config().ipv6.first().context("a wire without IPv6")?;
    Ok(address.to_string())
}

/// The same guest by IPv6: netdom tells it of its way, and answers for it on the wire.
fn with_a_known_address_of_ipv6(scene: &Scene<'_>, peer: &str, network: &str) -> Result<String> {
    let (b, address, own) = (&scene.b, format!("{network}fd:7"), format!("{network}fc:5"));
    // It has no network: all is behind the router, which it knows by an advertisement.
    b.must(&format!(
        "echo 0 > /proc/sys/net/ipv6/conf/routed/accept_dad; ip -6 addr add {address}/128 dev routed; \
         for i in $(seq 1500); do /usr/bin/ip -6 route show default dev routed | grep 'via fe80::1 .*proto ra' && exit 0; usleep 20000; done; \
         /usr/bin/ip -6 route; /usr/bin/ip -6 addr; exit 1"
    ))
    .context("no route by an advertisement")?;
    ping(b, &own, 56)?;
    ping(b, peer, 56)?;
    ping(b, peer, 1400)?;
    let mut rates = Vec::new();
    for direction in ["send", "receive", "both"] {
        let transfer = traffic::tcp(b, direction, peer, 16).with_context(|| format!("{direction} by IPv6"))?;
        rates.push(format!("{direction} {:.0}", transfer.mbit_per_second));
    }
    // The neighbour outside asks by itself where the guest is: for packets that it was not asked for.
    let flow = traffic::udp_receive(b, peer, 1000, 1).context("UDP by IPv6")?;
    ensure!(flow.received > 0, "{flow:?}");
    let offloads = End { guest: b, interface: "routed" }.off_and_on(&[Leg::to_wire(peer)]).context("routed by IPv6")?;
    Ok(format!("by IPv6 {} Mbit/s; {offloads}", rates.join(", ")))
}

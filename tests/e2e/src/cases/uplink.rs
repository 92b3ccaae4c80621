//! A netdom whose own address is by DHCP, and whose guests ask it for names. Linux guests, and the wire. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Guest;

use super::router::{attach, ping};
use super::{Case, SPARE_NIC, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::lease;
use crate::traffic::{self, Shell, Transfer};

pub(super) const CASES: &[Case] = &[Case {
    name: "netdom leases its own address: a guest behind NAT goes out by it, asks it for names, and another life goes on with the lease",
    run: leased,
}];

/// The domain.
const NAME: &str = "leased";
/// What the Ethernet address of the vif ends in.
const NAT: u8 = 0x82;
/// The address of the guest behind NAT, and of the router for it.
const INSIDE: &str = "192.168.79.2";
const GATEWAY: &str = "192.168.79.1";
/// How long the lease, and a counter, may take to the store.
const PATIENCE: Duration = Duration::from_secs(60);

fn leased(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom(NAME).pci(&nic).extra("address=dhcp"))?;
    let guest = &scene.a;
    let route = guest.must("ip route show default | head -n 1")?;
    let result = by_the_lease(scene, &netdom, guest);
    lab.run(&format!(
        "d=$(xl network-list {} | awk '/00:16:3e:00:00:{NAT:02x}/ {{print $1}}'); test -z \"$d\" || xl network-detach {} $d",
        guest.name(),
        guest.name()
    ))?;
    let route = route.trim();
    guest.must(&format!("test -z '{route}' || ip route replace {route}"))?;
    lab.destroy_after(NAME, result)
}

/// The address that netdom says it has.
fn address(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<String> {
    let node = format!("/local/domain/{}/data/statistics/router/uplink", netdom.id);
    let said = format!("xenstore-read {node} | grep 'by DHCP'");
    scene.stage.lab.wait_until(&said, PATIENCE).context("no lease is told of")?;
    let text = scene.stage.lab.must(&said)?;
    let address = text.split("address ").nth(1).and_then(|rest| rest.split('/').next());
    Ok(address.with_context(|| format!("'{text}'"))?.to_owned())
}

fn by_the_lease(scene: &Scene<'_>, netdom: &DriverDomain<'_>, guest: &Guest<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let (wire, peer) = (lab.wire(SPARE_NIC.into())?, scene.stage.peer(SPARE_NIC.into()));
    let own = address(scene, netdom)?;
    let leases = wire.stats().leases;
    ensure!(leases.iter().any(|(mac, leased)| mac.starts_with("06:") && *leased == own), "'{own}', and {leases:?}");
    let log = netdom.console()?;
    ensure!(log.contains(&format!("xenbr0: address {own}/16, gateway {peer}, dns {peer}")), "not in the log: {log}");
    attach(scene, guest, (NAME, NAT), "nat", &format!("script=vif-nat ip={INSIDE}"))?;
    let inside = lease(guest, "nat")?;
    ensure!(inside == INSIDE, "leased '{inside}'");
    guest.must(&format!("ip route add {peer}/32 via {GATEWAY} dev nat"))?;
    // The guest is told of the router, and gets an answer by it: the wire's, from the address that was asked.
    let told = guest.must(
        "printf '#!/bin/sh\\ntest -z \"$dns\" || echo $dns >/tmp/dns\\n' >/tmp/say; chmod +x /tmp/say; \
         udhcpc -i nat -n -q -t 20 -T 1 -s /tmp/say >/dev/null 2>&1; cat /tmp/dns",
    )?;
    ensure!(told.trim() == GATEWAY, "the guest's name server is '{told}'");
    let named = guest.run(&format!("nslookup name.lab {GATEWAY} 2>&1"))?.stdout;
    ensure!(named.contains(&wire::NAMED.to_string()), "no answer by the router: {named}");
    ensure!(wire.stats().names_answered > 0, "the wire was asked for no name");
    ping(guest, &peer, 56)?;
    let mut rates = Vec::new();
    for direction in ["send", "receive", "both"] {
        let transfer = traffic::tcp(guest, direction, &peer, 16).with_context(|| format!("{direction} by NAT"))?;
        rates.push(format!("{direction} {:.0}", transfer.mbit_per_second));
    }
    let counted =
        format!("xenstore-read /local/domain/{}/data/statistics/router/packets | grep 'sessions [1-9]'", netdom.id);
    lab.wait_until(&counted, PATIENCE).context("the router's counters")?;
    // Another life has the address at once, and asks for it again.
    let before = wire.stats().dhcp_messages;
    guest.start("transfer", &format!("traffic tcp-receive {peer} 48M"))?;
    lab.must(&format!("oxidom restart {NAME}"))?;
    guest.must("kill -0 $(cat /tmp/transfer.pid)").context("the transfer was over before")?;
    let over = traffic::told::<Transfer>(guest, "transfer").context("over a life of netdom")?;
    ensure!(over.checked, "the digests were not compared: {over:?}");
    let again = address(scene, netdom)?;
    let renewals = wire.stats().dhcp_messages - before;
    ensure!(again == own && renewals > 0, "first '{own}', then '{again}', and {renewals} messages");
    let named = guest.run(&format!("nslookup other.lab {GATEWAY} 2>&1"))?.stdout;
    ensure!(named.contains(&wire::NAMED.to_string()), "no answer by the router of another life: {named}");
    Ok(format!("leased {own}; by NAT {} Mbit/s", rates.join(", ")))
}

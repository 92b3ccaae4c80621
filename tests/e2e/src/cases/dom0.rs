//! Dom0 itself as a client of driver domains. Host.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::Lab;

use super::nics::reaches;
use super::{Case, SPARE_NIC, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::traffic;

pub(super) const CASES: &[Case] = &[Case { name: "dom0 itself as a client", run: on_a_bridge }];

pub(super) const ONCE: &[Case] = &[Case {
    name: "dom0 itself as a client in a VLAN, behind NAT, and with an address that is known on the wire",
    run: in_each_network,
}];

/// The domain that has these networks.
const NAME: &str = "networks";
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives dom0 a vif whose Ethernet address ends so, and gives the interface's name.
pub(super) fn attach(lab: &Lab, backend: &str, last: u8, words: &str) -> Result<String> {
    lab.must(&format!("xl network-attach 0 backend={backend} mac=00:16:3e:00:00:{last:02x} {words}"))?;
    let file = lab.wait_until(&format!("grep -l 00:16:3e:00:00:{last:02x} /sys/class/net/*/address"), PATIENCE)?;
    let interface = file.trim().split('/').nth(4).with_context(|| format!("its address is in '{file}'"))?.to_owned();
    lab.must(&format!("ip link set {interface} up"))?;
    Ok(interface)
}

/// Takes that vif from dom0.
pub(super) fn detach(lab: &Lab, last: u8) -> Result<()> {
    lab.must(&format!(
        "d=$(xl network-list 0 | awk '/00:16:3e:00:00:{last:02x}/ {{print $1}}'); test -z \"$d\" || xl network-detach 0 $d"
    ))
    .map(drop)
}

fn on_a_bridge(scene: &Scene<'_>) -> Result<String> {
    const LAST: u8 = 0xd0;
    let lab = &scene.stage.lab;
    let result = attach(lab, "netdom", LAST, "").and_then(|interface| {
        lab.must(&format!("ip addr add 10.9.77.1/16 dev {interface}"))?;
        works(lab, &scene.peer())
    });
    let detached = detach(lab, LAST);
    result.and_then(|said| detached.map(|()| said))
}

/// Pings to the wire, and TCP both ways.
fn works(lab: &Lab, peer: &str) -> Result<String> {
    reaches(lab, peer)?;
    let ping = traffic::ping(lab, peer, 100, 0, 56)?;
    let transfer = traffic::tcp(lab, "both", peer, 16)?;
    Ok(format!("ping median {:.0} us, TCP {:.0} Mbit/s", ping.median_us, transfer.mbit_per_second))
}

fn in_each_network(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let peer = scene.stage.peer(SPARE_NIC.into());
    let network = peer.strip_suffix("0.1").with_context(|| format!("the peer is '{peer}'"))?;
    let netdom = DriverDomain::create(
        lab,
        &DriverDomainConfig::netdom(NAME).pci(&nic).extra(&format!("address={network}252.5/16")),
    )?;
    let (inside, gateway) = ("192.168.79.2", "192.168.79.1");
    let known = format!("{network}253.9");
    let mut said = Vec::new();
    let result = [
        (0xd1, "bridge=xenbr0.100".to_owned(), format!("{network}250.9"), format!("dev @ src {network}250.9")),
        (0xd2, format!("script=vif-nat ip={inside}"), inside.to_owned(), format!("via {gateway} dev @")),
        (0xd3, format!("script=vif-route ip={known}"), known.clone(), format!("via {network}253.1 dev @ src {known}")),
    ]
    .into_iter()
    .try_for_each(|(last, words, address, way)| {
        let result = attach(lab, NAME, last, &words).and_then(|interface| {
            let way = way.replace('@', &interface);
            lab.must(&format!("ip addr add {address}/24 dev {interface} && ip route replace {peer}/32 {way}"))?;
            works(lab, &peer)
        });
        let detached = detach(lab, last);
        said.push(result.context(words)?);
        detached
    });
    netdom.destroy_after(result)?;
    Ok(said.join("; "))
}

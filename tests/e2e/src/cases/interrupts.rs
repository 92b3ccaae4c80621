//! A second netdom whose NIC may not interrupt by MSI-X: by MSI, and by the INTx line. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, SPARE_NIC, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::vif;
use crate::traffic::{self, Ping};

pub(super) const CASES: &[Case] = &[
    Case { name: "the NIC by MSI (interrupts=msi): 100 pings to the wire, none lost", run: msi },
    Case { name: "the NIC by INTx (interrupts=intx): 100 pings to the wire, none lost", run: intx },
];

const PATIENCE: Duration = Duration::from_secs(60);

fn msi(scene: &Scene<'_>) -> Result<String> {
    pings(scene, "msi", "MSI")
}

fn intx(scene: &Scene<'_>) -> Result<String> {
    pings(scene, "intx", "INTx")
}

/// Pings through a netdom with these interrupts, which its log calls `kind`.
fn pings(scene: &Scene<'_>, word: &str, kind: &str) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    // A name of its own for each: dom0 keeps consoles by name.
    let name = format!("by-{word}");
    let netdom =
        DriverDomain::create(lab, &DriverDomainConfig::netdom(&name).pci(&nic).extra(&format!("interrupts={word}")))?;
    let result = through(scene, &netdom, kind);
    lab.run("xl network-detach a 1")?;
    let ping = netdom.destroy_after(result)?;
    Ok(format!("median {:.0} us, 99th percentile {:.0} us", ping.median_us, ping.p99_us))
}

fn through(scene: &Scene<'_>, netdom: &DriverDomain<'_>, kind: &str) -> Result<Ping> {
    let (lab, a) = (&scene.stage.lab, &scene.a);
    lab.wait_for_console(&netdom.name, &format!("Intel 82574L, {kind}, 1 vectors"), PATIENCE)?;
    lab.must(&format!("xl network-attach a {}", vif(&netdom.name, 0x51).replace(',', " ")))?;
    let peer = scene.stage.peer(SPARE_NIC.into());
    // Beyond the addresses that the wire's DHCP server gives.
    let network = peer.strip_suffix("0.1").with_context(|| format!("the wire's peer is '{peer}'"))?;
    a.must(&format!(
        "for i in $(seq 3000); do test -e /sys/class/net/eth1 && break; usleep 20000; done; \
         ip link set eth1 up && ip addr add {network}200.1/16 dev eth1"
    ))?;
    let ping = traffic::ping(a, &peer, 100, 0, 56)?;
    ensure!(ping.sent == 100 && ping.lost == 0 && ping.duplicates == 0, "{ping:?}");
    Ok(ping)
}

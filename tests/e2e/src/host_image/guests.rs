//! The host's two guests, and what must be so of them and of the driver domains after each boot. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, GuestConfig, Lab};

use super::{FILES, Host};
use crate::traffic::{self, Shell};

/// The guest with a vif, and the one with a vif and a disk.
pub(super) const NAMES: [&str; 2] = ["web", "data"];
/// The driver domains.
pub(super) const DRIVERS: [&str; 2] = ["netdom", "blkdom"];
/// The wire's far end.
pub(super) const PEER: &str = "10.9.0.1";
/// A file that a guest has for as long as it is not created anew.
const MARK: &str = "/tmp/mark";
/// How long a driver domain or a guest may take to be there once systemd has started all.
const PATIENCE: Duration = Duration::from_secs(240);

/// The guests' configs; without devices where there is no driver domain.
pub(super) fn configs(with_devices: bool) -> [GuestConfig; 2] {
    let mut configs = NAMES.map(|name| GuestConfig {
        kernel: format!("{FILES}/vmlinux"),
        root: format!("{FILES}/guest.img"),
        ..GuestConfig::new(name)
    });
    if with_devices {
        for (number, config) in (1..).zip(&mut configs) {
            config.vifs.push(format!("backend=netdom,mac=00:16:3e:00:00:{number:02x}"));
        }
        let [_, data] = &mut configs;
        data.disks.push("format=raw,vdev=xvda,access=rw,backend=blkdom,backendtype=phy,target=nvme0n1".to_owned());
    }
    configs
}

/// How a host came up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CameUp {
    /// Guests that went on, of two; the others were created anew.
    pub(super) went_on: u32,
}

impl Host {
    /// Driver domains and guests must be there, in that order, and served; nothing else may be kept for a later boot.
    pub(super) fn is_served(&mut self) -> Result<CameUp> {
        let written = self.written;
        let lab = self.lab()?;
        let listed = lab.must("xl list")?;
        let mut last = 0;
        for name in DRIVERS.iter().chain(&NAMES) {
            let id = lab.domain_id(name).with_context(|| format!("xl list says\n{listed}"))?;
            if DRIVERS.contains(name) {
                let ready = format!("xenstore-read /local/domain/{id}/data/ready");
                lab.wait_until(&ready, PATIENCE).with_context(|| format!("{name} is not ready"))?;
                last = last.max(id);
            } else {
                ensure!(id > last, "{name} was there before a driver domain:\n{listed}");
            }
        }
        in_order(lab)?;
        let kept = lab.must("ls -A /var/lib/xen/save 2>/dev/null || true")?;
        ensure!(kept.lines().all(|name| NAMES.contains(&name)), "kept in /var/lib/xen/save: {kept}");
        let mut came_up = CameUp::default();
        for (number, name) in (1..).zip(NAMES) {
            let guest = lab.guest(name)?;
            came_up.went_on += u32::from(guest.run(&format!("test -e {MARK}"))?.status == 0);
            is_connected(&guest, number).with_context(|| format!("{name}; xl list says\n{listed}"))?;
            guest.must(&format!("touch {MARK}"))?;
        }
        let [_, data] = NAMES;
        keeps(&lab.guest(data)?, written)?;
        self.written += 1;
        Ok(came_up)
    }
}

/// By systemd's notes, each driver domain was ready before the guests were begun.
fn in_order(lab: &Lab) -> Result<()> {
    let time = |unit: &str, what: &str| -> Result<u64> {
        let said = lab.must(&format!("systemctl show -P {what} {unit}"))?;
        said.trim().parse().with_context(|| format!("{what} of {unit} is '{}'", said.trim()))
    };
    let begun = time("xendomains.service", "InactiveExitTimestampMonotonic")?;
    for name in DRIVERS {
        let unit = format!("oxidom@{name}.service");
        let ready = time(&unit, "ActiveEnterTimestampMonotonic")?;
        let in_order = ready > 0 && ready <= begun;
        ensure!(in_order, "{unit} was ready at {ready} us of the boot, and guests were begun at {begun} us");
    }
    Ok(())
}

/// The guest reaches the wire, by an address that it keeps if it has it.
fn is_connected(guest: &Guest<'_>, number: u32) -> Result<()> {
    guest.sh(&format!(
        "ip -4 addr show dev eth0 | grep -q inet || {{ ip link set eth0 up && ip addr add 10.9.1.{number}/16 dev eth0; }}; \
         for i in $(seq 60); do ping -c 1 -W 1 {PEER} >/dev/null && exit 0; done; ip addr; exit 1"
    ))?;
    let ping = traffic::ping(guest, PEER, 10, 50, 56)?;
    ensure!(ping.lost == 0, "{ping:?}");
    Ok(())
}

/// The guest's disk holds what was written last, and takes the next.
fn keeps(guest: &Guest<'_>, written: u32) -> Result<()> {
    let said = guest.sh(
        "for i in $(seq 100); do test -b /dev/xvda && break; usleep 100000; done; echo 3 >/proc/sys/vm/drop_caches; \
         dd if=/dev/xvda bs=512 count=1 2>/dev/null | head -n 1 | tr -d '\\0'",
    )?;
    let found: u32 = said.trim().parse().unwrap_or(0);
    ensure!(found == written, "the disk's first sector says {found} in place of {written}");
    guest
        .sh(&format!(
            "{{ echo {}; head -c 512 /dev/zero; }} | dd of=/dev/xvda bs=512 count=1 iflag=fullblock conv=fsync 2>&1",
            written + 1
        ))
        .map(drop)
}

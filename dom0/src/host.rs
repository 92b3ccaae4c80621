//! This host, for a driver domain that is kept: PCI devices, systemd and its signals. Host.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::connection::HostClock;
use crate::driver_configs::PciAddress;
use crate::keep::Host;
use crate::pciback::{Place, Sysfs};
use crate::reattach::{Toolstack, Xl};

/// Dom0 with systemd.
pub(crate) struct Dom0 {
    xl: Xl<HostClock>,
    sysfs: Sysfs,
    signals: Signals,
}

/// The signals that came.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    ends: Arc<AtomicBool>,
    reloads: Arc<AtomicBool>,
}

impl Signals {
    /// From now on: SIGTERM and SIGINT end the domain, SIGHUP has the program begin anew beside it.
    ///
    /// # Errors
    /// Of the kernel.
    pub(crate) fn take() -> Result<Self> {
        let signals = Self::default();
        for (signal, flag) in [(SIGTERM, &signals.ends), (SIGINT, &signals.ends), (SIGHUP, &signals.reloads)] {
            signal_hook::flag::register(signal, Arc::clone(flag)).context("taking signals")?;
        }
        Ok(signals)
    }
}

impl Dom0 {
    /// Of this process.
    pub(crate) fn new(clock: HostClock, signals: Signals) -> Self {
        Self { xl: Xl(clock), sysfs: Sysfs::default(), signals }
    }
}

impl Host for Dom0 {
    async fn assign(&self, device: PciAddress) -> Result<()> {
        if self.sysfs.place(device)? == Place::Pciback {
            return Ok(());
        }
        self.sysfs.refuse_used(device)?;
        let status = Command::new("modprobe").arg("xen-pciback").status().context("modprobe does not run")?;
        ensure!(status.success(), "`modprobe xen-pciback` failed: dom0's kernel must have that module");
        // The module may have taken it by itself.
        if self.sysfs.place(device)? != Place::Pciback {
            self.xl.xl(&["pci-assignable-add", &device.to_string()]).await?;
        }
        ensure!(self.sysfs.place(device)? == Place::Pciback, "xl pci-assignable-add {device} left it with dom0");
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.signals.ends.load(Ordering::Relaxed)
    }

    fn is_reloaded(&self) -> bool {
        self.signals.reloads.load(Ordering::Relaxed)
    }

    fn shuts_down(&self) -> bool {
        let told = Command::new("systemctl").arg("is-system-running").output();
        told.is_ok_and(|told| told.stdout.trim_ascii() == b"stopping")
    }

    fn say(&self, text: &str, serves: bool) {
        println!("{text}");
        let mut states = vec![sd_notify::NotifyState::Status(text)];
        if serves {
            states.push(sd_notify::NotifyState::Ready);
        }
        // There is no systemd where somebody runs it by hand.
        sd_notify::notify(false, &states).ok();
    }
}

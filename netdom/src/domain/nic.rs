//! The NIC: found through pcifront, started, put on its bridge, and let go of when the toolstack takes it away. Floor 3.

use super::{Domain, Driver};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use netdom::nic::e1000e::models::Model;
use netdom::nic::e1000e::registers;
use netdom::nic::e1000e::{Error as DriverError, Interrupts as DriverInterrupts, Options};
use netdom::nic::{Nic, e1000e};
use runtime::events::Channel;
use runtime::pci::{Device, InterruptKind, Interrupts, PciAddress, PciError, Unclosed};
use runtime::time;
use xen_pv_sys::Port;

/// The topics of complaints: the domain has no NIC; it has too many.
const NONE: &str = "nic";
const SECOND: &str = "second nic";

/// Vectors the driver makes use of: receive, transmit, link.
const VECTORS: usize = 3;

/// A NIC in use: what is left of it beside the driver, which the data path has.
pub(super) struct ActiveNic {
    // Dropped before the device is closed: the channels of its interrupts.
    interrupts: Interrupts,
    device: Device,
    name: String,
}

impl ActiveNic {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The vector whose channel `port` is.
    pub(super) fn interrupt(&self, port: Port) -> Option<(usize, &Channel)> {
        self.interrupts.channels().iter().enumerate().find(|(_, channel)| channel.port() == port)
    }
}

/// Why a device was not taken into use.
enum Unusable {
    /// There is no driver for it.
    NoDriver,
    /// PCI.
    Pci(PciError),
    /// The driver's initialisation.
    Driver(DriverError),
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => formatter.write_str("no driver for it"),
            Self::Pci(error) => error.fmt(formatter),
            Self::Driver(error) => write!(formatter, "driver: {error}"),
        }
    }
}

impl From<PciError> for Unusable {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

/// Takes a device into use, if it is a NIC and the first one. Another is kept for when that one is taken away.
pub(super) async fn added(domain: &Domain, device: Device) {
    if domain.stopping.get() {
        return;
    }
    domain.candidates.borrow_mut().arrive(device.address(), device);
    take_up_next(domain).await;
}

/// Takes devices up in turn until one is the NIC.
async fn take_up_next(domain: &Domain) {
    while !domain.stopping.get() {
        let next = domain.candidates.borrow_mut().poll_next();
        let Some(next) = next else {
            break;
        };
        take_up(domain, next).await;
    }
    tell(domain).await;
}

async fn take_up(domain: &Domain, device: Device) {
    let (address, id) = (device.address(), device.id());
    match start(domain, &device).await {
        Ok((driver, interrupts, name)) => {
            log::info!(
                "pci {address}: {name}, {}, {} vectors, address {}",
                interrupts.kind(),
                interrupts.channels().len(),
                driver.mac_address()
            );
            {
                let mut path = domain.path.borrow_mut();
                for channel in interrupts.channels() {
                    path.hypervisor().events().add(channel);
                }
                path.set_nic(driver, domain.words.bridge());
            }
            domain.nic.replace(Some(ActiveNic { interrupts, device, name }));
            domain.work.set();
        }
        Err(error) => {
            let kind = device.kind().await;
            log::error!("pci {address}: {id} ({kind}) left alone: {error}");
            domain.candidates.borrow_mut().refuse(address);
            // Where pciback refuses, its drop tries again.
            drop(device.close().await);
        }
    }
}

/// Says what is wrong with the devices that there are, and takes back what is no longer so.
pub(super) async fn tell(domain: &Domain) {
    let used = domain.nic.borrow().as_ref().map(|nic| format!("{}, {}", nic.device.address(), nic.name));
    // Before the domain is ready, more devices are to come.
    let none = domain.ready.get() && domain.candidates.borrow().are_useless();
    let name = |device: &Device| format!("pci {} ({})", device.address(), device.id());
    let spare: Vec<String> = domain.candidates.borrow().spare().map(name).collect();
    if none {
        let text = "no supported NIC among the PCI devices: guests are switched without one";
        domain.complaints.complain(NONE, text).await;
    } else {
        domain.complaints.retract(NONE).await;
    }
    match used {
        Some(used) if !spare.is_empty() => {
            let text =
                format!("{} not used: netdom drives one NIC, {used}; pass one device in pci=[...]", spare.join(", "));
            domain.complaints.complain(SECOND, &text).await;
        }
        _ => domain.complaints.retract(SECOND).await,
    }
}

/// From a device to a driver that runs.
async fn start(domain: &Domain, device: &Device) -> Result<(Driver, Interrupts, String), Unusable> {
    let id = device.id();
    let model = Model::find(id.vendor, id.device).ok_or(Unusable::NoDriver)?;
    device.enable().await?;
    log::debug!("pci {}: enabled", device.address());
    let registers = device.map_bar(0, registers::SPACE).await?;
    log::debug!("pci {}: registers mapped", device.address());
    let best = match domain.options.interrupts {
        InterruptKind::MsiX if model.vectors() == 0 => InterruptKind::Msi,
        best => best,
    };
    let interrupts = device.enable_interrupts(best, VECTORS).await?;
    log::debug!("pci {}: interrupts bound", device.address());
    let wiring = match interrupts.kind() {
        InterruptKind::MsiX => DriverInterrupts::MsiX(interrupts.channels().len()),
        InterruptKind::Msi | InterruptKind::IntX => DriverInterrupts::Single,
    };
    let pool = domain.path.borrow().pool().clone();
    let driver = e1000e::E1000e::new(registers, device.dma(), model, wiring, &pool, Options::default(), &mut busy_wait)
        .map_err(Unusable::Driver)?;
    Ok((driver, interrupts, format!("Intel {}", model.name)))
}

/// For waits of microseconds during a device's reset.
fn busy_wait(duration: Duration) {
    let end = time::now() + duration;
    while time::now() < end {
        core::hint::spin_loop();
    }
}

/// Lets go of a device that is taken away. Where it is the NIC, the next one that there is takes its place.
pub(super) async fn removed(domain: &Domain, address: PciAddress) {
    let was_nic = domain.candidates.borrow_mut().depart(address);
    if was_nic {
        log::info!("pci {address}: taken away");
        stop(domain).await;
    }
    take_up_next(domain).await;
}

/// Stops the NIC and gives it back.
pub(super) async fn stop(domain: &Domain) {
    let driver = domain.path.borrow_mut().remove_nic();
    // The vifs' carrier is told of by the next round, which nothing else might bring about.
    domain.work.set();
    let Some(nic) = domain.nic.take() else {
        return;
    };
    let ActiveNic { interrupts, device, .. } = nic;
    drop(interrupts);
    let address = device.address();
    match (driver, device.close().await) {
        (Some(mut driver), Ok(proof)) => driver.release(proof),
        (Some(mut driver), Err(Unclosed::Refused(device))) => {
            log::warn!("pci {address}: its memory waits until it is taken back");
            runtime::spawn(async move {
                if let Some(proof) = device.close_in_the_end().await {
                    driver.release(proof);
                    log::info!("pci {address}: taken back");
                }
            });
        }
        // Its drop says what is lost.
        (Some(driver), Err(Unclosed::Lost)) => drop(driver),
        // Where it was refused, its drop tries again.
        (None, _) => {}
    }
}

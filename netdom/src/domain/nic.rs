//! The NIC: found through pcifront, started, put on its bridge, and let go of when the toolstack takes it away. Floor 3.

use super::{Domain, Driver};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::fmt;
use core::time::Duration;
use netdom::command_line::BestInterrupt;
use netdom::nic::e1000e::models::Model;
use netdom::nic::e1000e::registers;
use netdom::nic::e1000e::{Error as DriverError, Interrupts as DriverInterrupts, Options};
use netdom::nic::{Nic, e1000e};
use runtime::dma::DmaFrames;
use runtime::events::Channel;
use runtime::pci::{Device, Event, Frontend, InterruptKind, Interrupts, PciAddress, PciError};
use runtime::time;
use split_driver::xenstore_client::Client;
use xen_pv_sys::Port;

/// Vectors the driver makes use of: receive, transmit, link.
const VECTORS: usize = 3;
/// How long the domain's readiness waits for devices that the toolstack announced.
const PATIENCE: Duration = Duration::from_secs(10);

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
            Self::Pci(error) => write!(formatter, "{error:?}"),
            Self::Driver(error) => write!(formatter, "driver: {error:?}"),
        }
    }
}

impl From<PciError> for Unusable {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

/// Follows pcifront for good.
pub(super) async fn run(domain: Rc<Domain>) {
    let frontend = Frontend::new(domain.store.clone()).await;
    domain.devices_asked_for.set();
    let mut frontend = match frontend {
        Ok(frontend) => frontend,
        Err(error) => {
            log::error!("pcifront: {error:?}; guests are switched without a NIC");
            domain.devices_seen.set();
            return;
        }
    };
    first_devices(&domain, &mut frontend).await;
    domain.devices_seen.set();
    loop {
        let event = frontend.next_event().await;
        handle(&domain, event).await;
    }
}

/// Waits for what the toolstack passed to the domain at its creation.
async fn first_devices(domain: &Domain, frontend: &mut Frontend<Client>) {
    if !frontend.is_linked() {
        log::warn!("no PCI device was passed to this domain (pci=[...]): guests are switched without a NIC");
        return;
    }
    let Ok(first) = time::timeout(PATIENCE, frontend.next_event()).await else {
        log::error!("pciback said nothing for {PATIENCE:?}: going on without a NIC");
        return;
    };
    let mut next = Some(first);
    while let Some(event) = next {
        handle(domain, event).await;
        next = frontend.found();
    }
    if domain.nic.borrow().is_none() {
        crate::complain(&domain.store, "no supported NIC among the PCI devices: guests are switched without one").await;
    }
}

async fn handle(domain: &Domain, event: Event) {
    match event {
        Event::Added(device) => added(domain, device).await,
        Event::Removed(address) => removed(domain, address).await,
        Event::Failed(error) => log::error!("pcifront: {error:?}"),
    }
}

async fn added(domain: &Domain, device: Device) {
    let (address, id) = (device.address(), device.id());
    if domain.stopping.get() {
        return;
    }
    if domain.nic.borrow().is_some() {
        log::warn!("pci {address}: {id}: left alone, there is a NIC already");
        return;
    }
    match start(domain, &device).await {
        Ok((driver, interrupts, name)) => {
            log::info!(
                "pci {address}: {name}, {}, {} vectors, address {}",
                interrupts.kind(),
                interrupts.channels().len(),
                mac_text(driver.mac_address())
            );
            let mut path = domain.path.borrow_mut();
            for channel in interrupts.channels() {
                path.hypervisor().events().add(channel);
            }
            path.set_nic(driver, &domain.options.bridge);
            domain.nic.replace(Some(ActiveNic { interrupts, device, name }));
            domain.work.set();
        }
        Err(error) => {
            let kind = device.device_type().await;
            log::error!("pci {address}: {id} ({kind:?}) left alone: {error}");
            device.close().await;
        }
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
        BestInterrupt::MsiX if model.vectors() > 0 => InterruptKind::MsiX,
        BestInterrupt::MsiX | BestInterrupt::Msi => InterruptKind::Msi,
        BestInterrupt::IntX => InterruptKind::IntX,
    };
    let interrupts = device.enable_interrupts(best, VECTORS).await?;
    log::debug!("pci {}: interrupts bound", device.address());
    let wiring = match interrupts.kind() {
        InterruptKind::MsiX => DriverInterrupts::MsiX(interrupts.channels().len()),
        InterruptKind::Msi | InterruptKind::IntX => DriverInterrupts::Single,
    };
    let pool = domain.path.borrow().pool().clone();
    let driver =
        e1000e::E1000e::new(registers, &DmaFrames::ANY, model, wiring, &pool, Options::default(), &mut busy_wait)
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

async fn removed(domain: &Domain, address: PciAddress) {
    let ours = domain.nic.borrow().as_ref().is_some_and(|nic| nic.device.address() == address);
    if ours {
        log::info!("pci {address}: taken away");
        stop(domain).await;
    }
}

/// Stops the NIC and gives it back.
pub(super) async fn stop(domain: &Domain) {
    drop(domain.path.borrow_mut().remove_nic());
    let Some(nic) = domain.nic.take() else {
        return;
    };
    let ActiveNic { interrupts, device, .. } = nic;
    drop(interrupts);
    device.close().await;
}

fn mac_text(address: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = address;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

//! Disk controllers: from pcifront to a driver on the data path, and back when the toolstack takes one away. Floor 3.

use super::Domain;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use blkdom::disk::ahci::{self, Ahci};
use blkdom::disk::halt::Halt;
use blkdom::disk::nvme::{self, Nvme};
use blkdom::disk::{Disk, Event};
use blkdom::kept::{HostAddress, Kept};
use blkdom::volume::places::{self, Family, Places};
use blkdom::volume::{Source, UnitRef};
use core::fmt;
use core::time::Duration;
use hashbrown::HashMap;
use runtime::events::Channel;
use runtime::mmio::MmioRegion;
use runtime::pci::{Device, InterruptKind, Interrupts, PciAddress, PciError, Unclosed};
use runtime::restart;
use runtime::time;
use split_driver::time::Instant;
use xen_pv_sys::Port;

/// Base class, subclass, interface.
type Class = (u8, u8, u8);

/// Mass storage (base class 1): NVM Express (subclass 8, interface 2).
const NVME: Class = (1, 8, 2);
/// Mass storage: Serial ATA (subclass 6), AHCI (interface 1); its registers are those of BAR 5 (Serial ATA AHCI 1.3.1: 2.1.11).
const AHCI: Class = (1, 6, 1);
const AHCI_BAR: u8 = 5;
/// Bytes of an NVMe controller's registers that are mapped: the properties, and the doorbells of the first queues (NVMe over PCIe
/// Transport 3.1). The MSI-X table, which must not be mapped, lies beyond.
const NVME_REGISTERS: usize = 0x2000;
/// The first and the longest pause before a controller is given back again that pciback did not take back.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often a reset that is waited for is looked at.
const HALT_PAUSE: Duration = Duration::from_millis(1);
/// Vectors that a driver makes use of: one for administration, one for the I/O queue.
const VECTORS: usize = 2;

/// A controller in use: what is left of it beside the driver, which the data path has.
struct Controller {
    /// The channels of its interrupts, until it is given back.
    interrupts: Option<Interrupts>,
    /// Not there while it is given back.
    device: Option<Device>,
    /// Where pciback has it, for this domain.
    address: PciAddress,
    /// Where the host has it: pciback's numbers follow the order in which devices were passed, and names must not.
    host: PciAddress,
    family: Family,
    /// The toolstack took it away: its address may be another's.
    taken: bool,
    /// It will bring no more units by itself.
    settled: bool,
    /// It is no longer of use; and may still do what it was told before, until its access to memory is taken away.
    failed: Option<Burial>,
}

/// When a controller is given back, and how long to wait after that where pciback refuses.
#[derive(Clone, Copy)]
struct Burial {
    at: Instant,
    pause: Duration,
}

impl Burial {
    fn now() -> Self {
        Self { at: time::now(), pause: PAUSES.0 }
    }

    /// The next one, after pciback has refused.
    fn later(self) -> Self {
        Self { at: time::now() + self.pause, pause: (2 * self.pause).min(PAUSES.1) }
    }
}

/// All controllers of the domain, by their number on the data path.
#[derive(Default)]
pub(super) struct Controllers {
    known: HashMap<u16, Controller>,
    /// Their names, and those of what they hold.
    places: Places<PciAddress>,
    /// All that the domain began with were seen: before, nothing has a name.
    seen: bool,
}

/// Why a device was not taken into use.
enum Unusable {
    NoDriver,
    /// It may still do what the last life told it.
    Running,
    Pci(PciError),
    Nvme(nvme::Error),
    Ahci(ahci::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => formatter.write_str("no driver for it"),
            Self::Running => formatter.write_str("it does not stop doing what the last life told it"),
            Self::Pci(error) => error.fmt(formatter),
            Self::Nvme(error) => error.fmt(formatter),
            Self::Ahci(error) => error.fmt(formatter),
        }
    }
}

impl From<PciError> for Unusable {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

impl Controllers {
    /// None, with the names of those that the last life had: a controller that is gone keeps its number.
    pub(super) fn again(kept: &Kept) -> Self {
        let places = kept.controllers().iter().filter_map(|&(is_nvme, (segment, bus, device, function))| {
            let family = if is_nvme { Family::Nvme } else { Family::Ahci };
            let address = (device < 32 && function < 8).then(|| PciAddress::new(segment, bus, device, function))?;
            Some((family, address))
        });
        Self { places: Places::again(places), ..Self::default() }
    }

    /// Those that have names, for the next life.
    pub(super) fn kept(&self) -> Vec<(bool, HostAddress)> {
        let place = |&(family, host): &(Family, PciAddress)| {
            (family == Family::Nvme, (host.segment(), host.bus(), host.device(), host.function()))
        };
        self.places.numbered().iter().map(place).collect()
    }

    /// All devices that the domain began with were seen.
    pub(super) fn all_seen(&mut self) {
        self.seen = true;
    }

    /// Those that are known have their names from now on.
    pub(super) fn settle_names(&mut self) {
        self.places.settle();
    }

    /// The controller and the vector whose channel `port` is.
    pub(super) fn interrupt(&self, port: Port) -> Option<(u16, usize, &Channel)> {
        self.known.iter().find_map(|(number, controller)| {
            let mut channels = controller.interrupts.as_ref()?.channels().iter().enumerate();
            let (vector, channel) = channels.find(|(_, channel)| channel.port() == port)?;
            Some((*number, vector, channel))
        })
    }

    /// The number of the controller that stands at an address.
    fn number(&self, address: PciAddress) -> Option<u16> {
        let mut known = self.known.iter();
        known.find(|(_, controller)| controller.address == address && !controller.taken).map(|(number, _)| *number)
    }

    /// Whether all controllers of the beginning were seen, and each either is ready or failed.
    pub(super) fn settled(&self) -> bool {
        self.seen && self.known.values().all(|controller| controller.settled)
    }

    /// Notes what a controller says of itself (its `disk` is named so); whether what it holds may be another now.
    pub(super) fn note(&mut self, number: u16, disk: &str, event: &Event) -> bool {
        let Some(controller) = self.known.get_mut(&number) else {
            return false;
        };
        let host = controller.host;
        let name = self.places.controller(controller.family, host).unwrap_or_else(|| format!("pci {host}"));
        match event {
            Event::Ready => {
                log::info!("{name}: {disk}");
                controller.settled = true;
            }
            Event::Recovering(reason) => log::warn!("{name}: {reason}: resetting it"),
            Event::Failed(reason) => {
                log::error!("{name}: of no use any more: {reason}");
                controller.settled = true;
                controller.failed.get_or_insert(Burial::now());
            }
            Event::Added(_) | Event::Changed(_) | Event::Removed(_) => {}
        }
        !matches!(event, Event::Recovering(_))
    }

    /// Where the host has a controller.
    pub(super) fn host(&self, number: u16) -> Option<PciAddress> {
        Some(self.known.get(&number)?.host)
    }

    /// The units of a controller, with the names that they keep.
    pub(super) fn sources(&self, number: u16, disk: &dyn Disk) -> Vec<Source> {
        let Some(controller) = self.known.get(&number) else {
            return Vec::new();
        };
        let host = controller.host;
        let units = disk.units().iter().filter_map(|unit| {
            let name = self.places.unit(controller.family, host, unit.kind)?;
            let aliases = places::aliases(unit);
            let (unit, geometry) = (UnitRef { controller: number, unit: unit.id }, unit.geometry);
            Some(Source { unit, name, aliases, geometry })
        });
        units.collect()
    }
}

/// Takes a device into use.
pub(super) async fn added(domain: &Domain, device: Device) {
    let (address, host, id) = (device.address(), device.host_address(), device.id());
    match start(domain, &device).await {
        Ok((family, disk, interrupts)) => {
            let kind = interrupts.kind();
            let mut path = domain.path.borrow_mut();
            for channel in interrupts.channels() {
                path.hypervisor().events().add(channel);
            }
            let number = path.add_disk(disk);
            drop(path);
            let mut controllers = domain.controllers.borrow_mut();
            log::info!("pci {host}: {kind}, {} vectors", interrupts.channels().len());
            let (interrupts, device) = (Some(interrupts), Some(device));
            let controller =
                Controller { interrupts, device, address, host, family, taken: false, settled: false, failed: None };
            controllers.known.insert(number, controller);
            domain.work.set();
        }
        Err(error) => {
            log::error!("pci {host}: {id} ({}) left alone: {error}", device.kind().await);
            // Where pciback refuses, its drop tries again.
            drop(device.close().await);
        }
    }
}

/// From a device to a driver that starts.
async fn start(domain: &Domain, device: &Device) -> Result<(Family, Box<dyn Disk>, Interrupts), Unusable> {
    let family = match device.class().await? {
        NVME => Family::Nvme,
        AHCI => Family::Ahci,
        _ => return Err(Unusable::NoDriver),
    };
    // One that does not come up has its number all the same, so that the others have theirs.
    domain.controllers.borrow_mut().places.expect(family, device.host_address());
    let (disk, interrupts) = match family {
        Family::Nvme => start_nvme(domain, device).await?,
        Family::Ahci => start_ahci(domain, device).await?,
    };
    Ok((family, disk, interrupts))
}

/// Maps the registers of a controller, and lets it reach memory. In a domain that lived before it is reset between: the last life may
/// have used it.
async fn reach(device: &Device, bar: u8, length: usize, halt: Halt) -> Result<MmioRegion, Unusable> {
    if restart::lives() == 0 {
        device.enable().await?;
        return Ok(device.map_bar(bar, length).await?);
    }
    device.enable_registers().await?;
    let registers = device.map_bar(bar, length).await?;
    let end = time::now() + halt.begin(&registers);
    while !halt.is_over(&registers) {
        if time::now() > end {
            return Err(Unusable::Running);
        }
        time::sleep(HALT_PAUSE).await;
    }
    device.enable().await?;
    Ok(registers)
}

async fn start_nvme(domain: &Domain, device: &Device) -> Result<(Box<dyn Disk>, Interrupts), Unusable> {
    let registers = reach(device, 0, NVME_REGISTERS, Halt::Nvme).await?;
    let interrupts = device.enable_interrupts(domain.options.interrupts, VECTORS).await?;
    let wiring = match interrupts.kind() {
        InterruptKind::MsiX => nvme::Interrupts::MsiX(interrupts.channels().len()),
        InterruptKind::Msi | InterruptKind::IntX => nvme::Interrupts::Single,
    };
    let disk = Nvme::new(registers, device.dma(), wiring, nvme::Options::default()).map_err(Unusable::Nvme)?;
    Ok((Box::new(disk), interrupts))
}

async fn start_ahci(domain: &Domain, device: &Device) -> Result<(Box<dyn Disk>, Interrupts), Unusable> {
    let registers = reach(device, AHCI_BAR, ahci::REGISTER_BYTES, Halt::Ahci).await?;
    // Its registers disable all interrupts at once: one vector is all that there is use for.
    let interrupts = device.enable_interrupts(domain.options.interrupts, 1).await?;
    let disk = Ahci::new(registers, device.dma(), ahci::Options::default()).map_err(Unusable::Ahci)?;
    Ok((Box::new(disk), interrupts))
}

/// The toolstack takes a device away: its requests fail, and it is given back.
pub(super) async fn removed(domain: &Domain, address: PciAddress) {
    let Some(number) = domain.controllers.borrow().number(address) else {
        return;
    };
    if let Some(controller) = domain.controllers.borrow_mut().known.get_mut(&number) {
        log::info!("pci {}: taken away", controller.host);
        controller.taken = true;
        // Once pciback has it there is a proof: it is asked for soon.
        controller.failed = None;
    }
    take_off(domain, number);
    give_back(domain, number).await;
    domain.volumes.look_again();
}

/// Stops a controller. What it was to do fails as soon as it reaches no memory.
fn take_off(domain: &Domain, number: u16) {
    let mut path = domain.path.borrow_mut();
    if let Some(disk) = path.disk(number) {
        disk.quiesce();
    }
    domain.work.set();
}

impl Controllers {
    /// The controller that failed and is to be given back first, and when.
    fn next_burial(&self) -> Option<(u16, Instant)> {
        let failed = self.known.iter().filter(|(_, controller)| controller.device.is_some());
        failed.filter_map(|(number, controller)| Some((*number, controller.failed?.at))).min_by_key(|(_, at)| *at)
    }
}

/// Takes interrupts and access to memory from the controllers that failed. Returns when the next one is to be tried again.
pub(super) async fn bury(domain: &Domain) -> Option<Instant> {
    loop {
        let (number, at) = domain.controllers.borrow().next_burial()?;
        if at > time::now() {
            return Some(at);
        }
        give_back(domain, number).await;
    }
}

/// Gives a controller back. Where pciback refuses, its requests stay open and it is tried again later.
async fn give_back(domain: &Domain, number: u16) {
    let taken = domain.controllers.borrow_mut().known.get_mut(&number).and_then(|controller| {
        // The channels go before the interrupts are turned off.
        controller.interrupts = None;
        controller.settled = true;
        controller.device.take()
    });
    let Some(device) = taken else {
        return;
    };
    match device.close().await {
        Ok(proof) => {
            domain.controllers.borrow_mut().known.remove(&number);
            domain.path.borrow_mut().remove_disk(number, proof);
        }
        Err(Unclosed::Lost) => {
            log::error!(
                "controller {number}: pciback has gone and did not say that it was reset: its requests stay open"
            );
        }
        Err(Unclosed::Refused(device)) => {
            log::error!(
                "pci {}: pciback does not take it back: its requests stay open until it does",
                device.host_address()
            );
            if let Some(controller) = domain.controllers.borrow_mut().known.get_mut(&number) {
                controller.device = Some(device);
                controller.failed = Some(controller.failed.unwrap_or_else(Burial::now).later());
            }
            domain.failed.set();
        }
    }
    domain.work.set();
}

/// Quiets all controllers and gives them back.
pub(super) async fn stop(domain: &Domain) {
    let numbers: Vec<u16> = domain.controllers.borrow().known.keys().copied().collect();
    for number in numbers {
        take_off(domain, number);
        give_back(domain, number).await;
    }
}

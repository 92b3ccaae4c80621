//! NICs: found through pcifront, started, put on their bridges, and let go of when the toolstack takes them away. Floor 3.

use super::Domain;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use netdom::command_line;
use netdom::datapath::kept::KeptBond;
use netdom::datapath::{ActiveChange, BondId, DataPath, NICS, NicId};
use netdom::nic::ledger::Ledger;
use netdom::nic::models::Model;
use netdom::nic::plan::Plan;
use netdom::nic::{self, FRAME_HEADERS, Fault, Nic, Options};
use runtime::events::Channel;
use runtime::hypervisor::Xen;
use runtime::mmio::MmioRegion;
use runtime::pci::{Device, InterruptKind, Interrupts, PciAddress, PciError, Unclosed};
use runtime::secret;
use runtime::time::{self, Instant};
use runtime::watchdog;
use xen_pv_sys::Port;

/// The topic of complaints.
const UNUSED: &str = "unused pci devices";

/// Faults in a row that a NIC is reset for.
const FAULTS: u32 = 5;
/// A fault so long after the last one is the first in a row.
const FAULT_MEMORY: Duration = Duration::from_secs(60);
/// How long the reset of a NIC of the last life may take, and how far apart it is looked at after its pause.
const RESET: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(1);
/// How often NICs are looked at.
const WATCH: Duration = Duration::from_secs(1);

/// The NICs in use, and the devices that are of no use.
#[derive(Default)]
pub(super) struct Nics {
    active: Vec<ActiveNic>,
    /// By their addresses.
    unused: BTreeMap<PciAddress, Unused>,
}

/// A device that is of no use.
struct Unused {
    /// Where the host has it.
    host: PciAddress,
    /// Its ids, and the reason why it is left alone.
    why: String,
}

impl Nics {
    /// Those in use.
    pub(super) fn active(&self) -> &[ActiveNic] {
        &self.active
    }

    /// The NIC and the vector whose channel `port` is.
    pub(super) fn interrupt(&self, port: Port) -> Option<(NicId, usize, &Channel)> {
        self.active.iter().find_map(|nic| {
            let mut channels = nic.interrupts.channels().iter().enumerate();
            let (vector, channel) = channels.find(|(_, channel)| channel.port() == port)?;
            Some((nic.id, vector, channel))
        })
    }

    /// Counts a fault of a NIC; gives how many there were in a row.
    fn note_fault(&mut self, id: NicId, now: Instant) -> u32 {
        let Some(nic) = self.active.iter_mut().find(|nic| nic.id == id) else {
            return 0;
        };
        let (count, last) = nic.faults;
        let count = if now > last + FAULT_MEMORY { 1 } else { count + 1 };
        nic.faults = (count, now);
        count
    }

    /// Forgets the device at an address; gives the NIC where it is one.
    fn take(&mut self, address: PciAddress) -> Option<ActiveNic> {
        self.unused.remove(&address);
        let place = self.active.iter().position(|nic| nic.device.address() == address)?;
        Some(self.active.remove(place))
    }

    /// What is wrong with the devices, and which addresses of `named` have none.
    fn complaint<'a>(&self, named: impl Iterator<Item = (&'static str, &'a str)>) -> Option<String> {
        let mut parts: Vec<String> = self.active.iter().filter_map(|nic| nic.lack.clone()).collect();
        let unused: Vec<String> =
            self.unused.values().map(|Unused { host, why }| format!("pci {host} {why}")).collect();
        if !unused.is_empty() {
            let unused = unused.join(", ");
            parts.push(match self.active.is_empty() {
                true => format!("no NIC among the PCI devices, guests are switched without one: {unused}"),
                false => format!("not used: {unused}"),
            });
        }
        let hosts = self.active.iter().map(ActiveNic::address).chain(self.unused.values().map(|unused| unused.host));
        let there: Vec<String> = hosts.map(|host| host.to_string()).collect();
        let absent: Vec<_> = named.filter(|(_, name)| there.iter().all(|host| host != name)).collect();
        for word in ["bridge", "bond"] {
            let absent: Vec<&str> = absent.iter().filter(|(by, _)| *by == word).map(|(_, name)| *name).collect();
            if !absent.is_empty() {
                parts.push(format!("\"{word}=\" names {}, which is not there", absent.join(", ")));
            }
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// A NIC in use: what is left of it beside the driver, which the data path has.
pub(super) struct ActiveNic {
    id: NicId,
    // Dropped before the device is closed: the channels of its interrupts.
    interrupts: Interrupts,
    device: Device,
    name: String,
    bridge: String,
    /// Its bond, by number, and its place there.
    member: Option<(usize, usize)>,
    /// Its rings, and the pages that they hold.
    plan: Plan,
    /// Faults of which each came within [`FAULT_MEMORY`] of the one before, and when the last one did.
    faults: (u32, Instant),
    /// A wish of the command line that it cannot fulfil.
    lack: Option<String>,
}

impl ActiveNic {
    /// Its name on the data path.
    pub(super) fn id(&self) -> NicId {
        self.id
    }

    /// Where the host has it.
    pub(super) fn address(&self) -> PciAddress {
        self.device.host_address()
    }

    /// The bridge that it is a port of.
    pub(super) fn bridge(&self) -> &str {
        &self.bridge
    }
}

impl fmt::Display for ActiveNic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} on bridge {}", self.name, self.bridge)
    }
}

/// Why a device was not taken into use.
enum Unusable {
    /// There is no driver for it.
    NoDriver,
    /// The command line names bridges for other NICs alone.
    NoBridge,
    /// There are as many as there can be.
    TooMany,
    /// The others' receive rings have half of the packets' pages.
    Memory,
    /// The domain stops.
    Stopping,
    /// It may still do what the last life told it.
    Running,
    /// PCI.
    Pci(PciError),
    /// The driver's initialisation.
    Driver(nic::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => formatter.write_str("no driver for it"),
            Self::NoBridge => formatter.write_str("\"bridge=\" names no bridge for it"),
            Self::TooMany => write!(formatter, "netdom drives {NICS} NICs at most"),
            Self::Memory => {
                formatter.write_str("no memory for its receive ring: give the domain 4 MiB more for each NIC")
            }
            Self::Stopping => formatter.write_str("the domain stops"),
            Self::Running => formatter.write_str("it does not stop doing what the last life told it"),
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

/// A device that is left alone.
struct Refused {
    device: Device,
    /// The driver, where it was started.
    driver: Option<Box<dyn Nic>>,
    why: Unusable,
}

/// Takes a device into use.
pub(super) async fn added(domain: &Domain, device: Device) {
    if domain.stopping.get() {
        return;
    }
    let (address, host, id) = (device.address(), device.host_address(), device.id());
    if let Err(Refused { device, driver, why }) = take_up(domain, device).await {
        let kind = device.kind().await;
        log::error!("pci {host}: {id} ({kind}) left alone: {why}");
        domain.nics.borrow_mut().unused.insert(address, Unused { host, why: format!("({id}): {why}") });
        close(driver, device).await;
    }
    tell(domain).await;
}

/// Starts a device's driver and puts it on its bridge.
async fn take_up(domain: &Domain, device: Device) -> Result<(), Refused> {
    let host = device.host_address();
    let refuse = |device, why| Err(Refused { device, driver: None, why });
    let Some(bridge) = domain.words.bridge(&host.to_string()).map(String::from) else {
        return refuse(device, Unusable::NoBridge);
    };
    if domain.nics.borrow().active.len() >= NICS.into() {
        return refuse(device, Unusable::TooMany);
    }
    let id = device.id();
    let Some(model) = Model::find(id.vendor, id.device) else {
        return refuse(device, Unusable::NoDriver);
    };
    let max_frame = (usize::from(domain.words.mtu()) + FRAME_HEADERS).min(model.max_frame());
    let queues = usize::from(domain.words.queues()).min(model.queues());
    let plan = {
        let (path, nics) = (domain.path.borrow(), domain.nics.borrow());
        Plan::new(path.pool().capacity(), nics.active.iter().map(|nic| nic.plan), queues, max_frame)
    };
    let Some(mut plan) = plan else {
        return refuse(device, Unusable::Memory);
    };
    let (mut driver, interrupts, name) = match start(domain, &device, model, max_frame, &plan).await {
        Ok(started) => started,
        Err(why) => return refuse(device, why),
    };
    if domain.stopping.get() {
        driver.quiesce();
        return Err(Refused { device, driver: Some(driver), why: Unusable::Stopping });
    }
    let member = domain.words.bond(&host.to_string());
    warn_of_others(domain, host, &bridge, member);
    let (kind, vectors, mac) = (interrupts.kind(), interrupts.channels().len(), driver.mac_address());
    let (asked, carried) = (domain.words.mtu(), driver.capabilities().max_frame.saturating_sub(FRAME_HEADERS));
    let lack =
        (carried < asked.into()).then(|| format!("pci {host} carries packets of {carried} bytes, not of mtu={asked}"));
    // Without vectors for all it has fewer queues.
    plan.keep(driver.queues());
    let mut path = domain.path.borrow_mut();
    path.begin_at(time::now());
    let id = match add(domain, &mut path, driver, &bridge, member) {
        Ok(id) => id,
        Err(mut driver) => {
            driver.quiesce();
            return Err(Refused { device, driver: Some(driver), why: Unusable::TooMany });
        }
    };
    let mut left = None;
    if let Some((kept, bridge)) = domain.inherited.borrow_mut().take_nic(&host.to_string(), &bridge) {
        path.restore_nic(id, &kept);
        left = bridge;
    }
    log::info!("pci {host}: {name}, {kind}, {vectors} vectors, address {mac}, on bridge {bridge}");
    for channel in interrupts.channels() {
        path.hypervisor().events().add(channel);
    }
    drop(path);
    if let Some(left) = left {
        domain.bus.backend().leave_bridge(&left);
    }
    let faults = (0, time::now());
    let nic = ActiveNic { id, interrupts, device, name, bridge, member, plan, faults, lack };
    domain.nics.borrow_mut().active.push(nic);
    domain.work.set();
    Ok(())
}

/// Says where a bridge has another NIC, but for those of the same bond.
fn warn_of_others(domain: &Domain, host: PciAddress, bridge: &str, member: Option<(usize, usize)>) {
    let bond = |member: Option<(usize, usize)>| member.map(|(bond, _)| bond);
    let apart = |nic: &ActiveNic| member.is_none() || bond(nic.member) != bond(member);
    if domain.nics.borrow().active.iter().any(|nic| nic.bridge == bridge && apart(nic)) {
        log::warn!("pci {host}: bridge {bridge} has another NIC: the two must not lead to the same network");
    }
}

/// Puts a NIC on its bridge, or into its bond.
///
/// # Errors
/// The NIC, where there is no room for it.
fn add(
    domain: &Domain,
    path: &mut DataPath<Xen>,
    driver: Box<dyn Nic>,
    bridge: &str,
    member: Option<(usize, usize)>,
) -> Result<NicId, Box<dyn Nic>> {
    match member.and_then(|(bond, place)| Some((*domain.bonds.get(bond)?, place))) {
        Some((bond, place)) => path.add_member(driver, bond, place),
        None => path.add_nic(driver, bridge),
    }
}

/// Adds the bonds of the command line, each as the last life had it.
///
/// # Errors
/// There is no room for one.
pub(super) fn add_bonds(
    path: &mut DataPath<Xen>,
    words: &command_line::Options,
    kept: &[KeptBond],
) -> Result<Vec<BondId>, String> {
    let mut bonds = Vec::new();
    for word in words.bonds() {
        // Its NICs are on one bridge; none where only other NICs have one, and then they are left alone.
        let bridge = word.nics.first().and_then(|nic| words.bridge(nic)).unwrap_or_default();
        let id = path.add_bond(bridge, word.mode, word.nics.len());
        let id = id.map_err(|error| format!("bond {}: {error}", word.name))?;
        if let Some(kept) = kept.iter().find(|kept| kept.name == word.name) {
            path.restore_bond(id, kept, &word.nics);
        }
        bonds.push(id);
    }
    Ok(bonds)
}

/// Tells the log of bonds whose active NIC is another one now.
pub(super) fn tell_active(domain: &Domain, path: &mut DataPath<Xen>) {
    while let Some(ActiveChange { bond, active }) = path.poll_active() {
        let number = domain.bonds.iter().position(|known| *known == bond);
        let Some(word) = number.and_then(|number| domain.words.bonds().get(number)) else {
            continue;
        };
        match active.and_then(|place| word.nics.get(place)) {
            Some(nic) => log::info!("{}: pci {nic} is the active NIC", word.name),
            None => log::info!("{}: no NIC has a link", word.name),
        }
    }
}

/// Says which devices are of no use, and takes back what is no longer so. Before the domain is ready, more devices are to come.
pub(super) async fn tell(domain: &Domain) {
    let complaint = domain.nics.borrow().complaint(domain.words.named_nics()).filter(|_| domain.ready.get());
    match complaint {
        Some(text) => domain.complaints.complain(UNUSED, &text).await,
        None => domain.complaints.retract(UNUSED).await,
    }
}

/// From a device to a driver that runs.
async fn start(
    domain: &Domain,
    device: &Device,
    model: Model,
    max_frame: usize,
    plan: &Plan,
) -> Result<(Box<dyn Nic>, Interrupts, String), Unusable> {
    let ledger = domain.ledgers.of(&device.host_address().to_string());
    let registers = reach(device, model, &ledger).await?;
    log::debug!("pci {}: registers mapped", device.address());
    let vectors = model.vectors(plan.queues);
    let best = match domain.options.interrupts {
        InterruptKind::MsiX if vectors == 0 => InterruptKind::Msi,
        best => best,
    };
    let interrupts = device.enable_interrupts(best, vectors).await?;
    log::debug!("pci {}: interrupts bound", device.address());
    let kind = match interrupts.kind() {
        InterruptKind::MsiX => nic::Interrupts::MsiX(interrupts.channels().len()),
        InterruptKind::Msi | InterruptKind::IntX => nic::Interrupts::Single,
    };
    let pool = domain.path.borrow().pool().clone();
    let options = Options {
        queues: plan.queues,
        max_frame,
        receive_descriptors: plan.receive_descriptors,
        transmit_descriptors: plan.transmit_descriptors,
        seed: secret::secret(),
        taken_over: device.was_inherited(),
        ledger,
        ..Options::default()
    };
    let driver = model.start(registers, device.dma(), kind, &pool, options, &mut busy_wait);
    Ok((driver.map_err(Unusable::Driver)?, interrupts, format!("Intel {}", model.name())))
}

/// Maps the registers of a NIC, and lets it reach memory. One that the last life used is reset between.
async fn reach(device: &Device, model: Model, ledger: &Ledger) -> Result<MmioRegion, Unusable> {
    if !device.was_inherited() {
        device.enable().await?;
        return Ok(device.map_bar(0, model.registers()).await?);
    }
    device.enable_registers().await?;
    let registers = device.map_bar(0, model.registers()).await?;
    model.settle(&registers, ledger, &mut busy_wait);
    for _ in 0..model.resets() {
        if Model::is_absent(&registers) {
            return Err(Unusable::Driver(nic::Error::Absent { status: u32::MAX }));
        }
        let pause = model.begin_reset(&registers, ledger, &mut busy_wait);
        time::sleep(pause).await;
        let end = time::now() + RESET;
        let mut over = Model::is_reset(&registers);
        while !over && time::now() < end {
            time::sleep(LOOK).await;
            over = Model::is_reset(&registers);
        }
        model.release_phy(&registers, ledger, &mut busy_wait);
        if !over {
            return Err(Unusable::Running);
        }
    }
    device.enable().await?;
    Ok(registers)
}

/// For the waits of a device's reset, and of a look at it. Most are of microseconds. A look takes a millisecond or two; the reset of a device
/// that is slow, or has a fault, takes some tenths of a second in all, in which the domain does nothing else.
fn busy_wait(duration: Duration) {
    let end = time::now() + duration;
    while time::now() < end {
        // A reset that takes long is no hang: each of its waits has an end.
        watchdog::beat();
        core::hint::spin_loop();
    }
}

/// Looks once a second whether all NICs do what they are told, sooner at one that has more to do, and resets one that has a fault. One that
/// cannot be reset is given back.
pub(super) async fn watch(domain: Rc<Domain>) {
    let mut round = time::now() + WATCH;
    while !domain.stopping.get() {
        let ids: Vec<NicId> = domain.nics.borrow().active().iter().map(ActiveNic::id).collect();
        let next = |id: &NicId| domain.path.borrow().next_look(*id);
        time::sleep_until(ids.iter().filter_map(next).fold(round, Instant::min)).await;
        let now = time::now();
        let all = now >= round;
        if all {
            round = now + WATCH;
        }
        let ids: Vec<NicId> = domain.nics.borrow().active().iter().map(ActiveNic::id).collect();
        for id in ids {
            if !all && next(&id).is_none_or(|at| at > now) {
                continue;
            }
            let fault = domain.path.borrow_mut().watch(id, time::now(), &mut busy_wait);
            if let Some(fault) = fault {
                revive(&domain, id, fault).await;
            }
        }
        if domain.path.borrow().has_news() {
            domain.work.set();
        }
    }
}

/// Resets a NIC that has a fault. A NIC whose reset fails, or that has one fault after the other, is given back.
async fn revive(domain: &Domain, id: NicId, fault: Fault) {
    let Some(host) = domain.nics.borrow().active().iter().find(|nic| nic.id == id).map(ActiveNic::address) else {
        return;
    };
    // A cable that is pulled is no fault.
    let often = fault != Fault::NoLink && domain.nics.borrow_mut().note_fault(id, time::now()) > FAULTS;
    let level = if fault == Fault::NoLink { log::Level::Info } else { log::Level::Error };
    log::log!(level, "pci {host}: {fault}: it is reset, and the frames in its rings are lost");
    domain.path.borrow_mut().begin_at(time::now());
    let result = domain.path.borrow_mut().restart_nic(id, &mut busy_wait);
    domain.work.set();
    let error = match result {
        Ok(()) if !often => return,
        Ok(()) => String::from("it was reset too often"),
        Err(error) => error.to_string(),
    };
    let nic = {
        let mut nics = domain.nics.borrow_mut();
        let Some(place) = nics.active.iter().position(|nic| nic.id == id) else {
            return;
        };
        let nic = nics.active.remove(place);
        let why = format!("({}): {fault}, and then: {error}", nic.device.id());
        nics.unused.insert(nic.device.address(), Unused { host, why });
        nic
    };
    log::error!("pci {host}: {error}: it is given back");
    give_back(domain, nic).await;
    tell(domain).await;
}

/// All NICs of the last life that are still there were taken up: nothing is known of the others any longer.
pub(super) fn forget_gone(domain: &Domain) {
    let nics = domain.nics.borrow();
    let hosts: Vec<String> = nics.active().iter().map(|nic| nic.address().to_string()).collect();
    domain.ledgers.retain(|host| hosts.iter().any(|known| known == host));
}

/// Lets go of a device that is taken away.
pub(super) async fn removed(domain: &Domain, address: PciAddress) {
    let nic = domain.nics.borrow_mut().take(address);
    if let Some(nic) = nic {
        log::info!("pci {}: taken away", nic.address());
        give_back(domain, nic).await;
    }
    tell(domain).await;
}

/// Stops all NICs and gives them back.
pub(super) async fn stop(domain: &Domain) {
    loop {
        let nic = domain.nics.borrow_mut().active.pop();
        let Some(nic) = nic else {
            return;
        };
        give_back(domain, nic).await;
    }
}

/// Stops a NIC and gives it back.
async fn give_back(domain: &Domain, nic: ActiveNic) {
    let ActiveNic { id, interrupts, device, .. } = nic;
    domain.path.borrow_mut().begin_at(time::now());
    let driver = domain.path.borrow_mut().remove_nic(id);
    let host = device.host_address().to_string();
    domain.ledgers.retain(|known| known != host);
    // The vifs' carrier is told of by the next round, which nothing else might bring about.
    domain.work.set();
    drop(interrupts);
    close(driver, device).await;
}

/// Takes interrupts and access to memory from a device whose driver, if any, was stopped, and gives the driver its memory back.
async fn close(driver: Option<Box<dyn Nic>>, device: Device) {
    let host = device.host_address();
    match (driver, device.close().await) {
        (Some(mut driver), Ok(proof)) => driver.release(proof),
        (Some(mut driver), Err(Unclosed::Refused(device))) => {
            log::warn!("pci {host}: its memory waits until it is taken back");
            runtime::spawn(async move {
                if let Some(proof) = device.close_in_the_end().await {
                    driver.release(proof);
                    log::info!("pci {host}: taken back");
                }
            });
        }
        // Its drop says what is lost.
        (Some(driver), Err(Unclosed::Lost)) => drop(driver),
        // Where it was refused, its drop tries again.
        (None, _) => {}
    }
}

//! A PCI device as its driver sees it. Safe code. Floor 2.

use super::config::{self, ConfigSpace, Width};
use super::error::PciError;
use super::interrupt::{self, InterruptKind, Interrupts};
use super::kept;
use super::operation::{Bus, Operation};
use super::tenure::{self, Tenure, Unfinished};
use crate::dma::DmaFrames;
use crate::mmio::MmioRegion;
use crate::{events, executor, time};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use pci_types::device_type::DeviceType;
use pci_types::{CommandRegister, PciAddress};
use split_driver::memory::{BusMaster, Quiesced};

/// What a driver is matched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId {
    /// The vendor.
    pub vendor: u16,
    /// The vendor's number of the device.
    pub device: u16,
}

impl DeviceId {
    /// From the first doubleword of config space.
    const fn new(identity: u32) -> Self {
        let [v0, v1, d0, d1] = identity.to_le_bytes();
        Self { vendor: u16::from_le_bytes([v0, v1]), device: u16::from_le_bytes([d0, d1]) }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// A device whose access to memory could not be taken.
#[derive(Debug)]
pub enum Unclosed {
    /// pciback refused, did not answer, or is about to take it back: close it again later.
    Refused(Device),
    /// pciback has gone without a word of it: what it was given stays lost.
    Lost,
}

/// A device, from its [`super::Event::Added`] on. End its use with [`Device::close`]: that takes DMA and interrupts from the hardware. Where
/// it is dropped instead, a task does the same in the background.
pub struct Device {
    inner: Inner,
}

#[derive(Clone)]
struct Inner {
    address: PciAddress,
    host: PciAddress,
    /// `None` until it was asked.
    id: Option<DeviceId>,
    bus: Rc<Bus>,
    interrupts: Rc<Cell<Option<InterruptKind>>>,
    /// Its access to memory was taken since it was inherited, and its registers can be reached.
    stopped: Rc<Cell<bool>>,
    /// The last life had it, and its interrupts were not turned on since.
    inherited: Rc<Cell<bool>>,
    /// The last life had it.
    former: bool,
    tenure: Rc<Tenure>,
}

impl ConfigSpace for Inner {
    async fn read(&self, offset: u16, width: Width) -> Result<u32, PciError> {
        self.bus.call(&Operation::read(self.address, offset, width)).await
    }

    async fn write(&self, offset: u16, width: Width, value: u32) -> Result<(), PciError> {
        self.bus.call(&Operation::write(self.address, offset, width, value)).await.map(|_| ())
    }
}

impl Inner {
    /// Takes interrupts and DMA from the device.
    async fn disable(&self) -> Result<Quiesced, Unfinished> {
        if let Some(kind) = self.interrupts.take()
            && self.tenure.is_ours()
            && let Err(error) = interrupt::disable(&self.bus, self.address, kind).await
        {
            log::debug!("pci {}: interrupts stay on: {error}", self.address);
        }
        kept::with(self.address, |device| device.interrupts = None);
        let ended = self.tenure.end(self, 0).await;
        if let Err(why) = ended {
            log::warn!("pci {}: its access to memory was not seen to end: {why:?}", self.address);
        }
        ended
    }

    /// The same, until there is a proof or there will never be one.
    async fn disable_in_the_end(&self) -> Option<Quiesced> {
        tenure::persist(Duration::MAX, async || self.disable().await, async |pause| time::sleep(pause).await).await
    }
}

impl Device {
    /// The device at `address`, which the host has at `host`: it is still to be asked who it is.
    pub(super) fn found(bus: Rc<Bus>, address: PciAddress, host: PciAddress) -> Self {
        let tenure = Rc::new(Tenure::new());
        let (interrupts, stopped, inherited) = Default::default();
        Self { inner: Inner { address, host, id: None, bus, interrupts, stopped, inherited, former: false, tenure } }
    }

    /// The same, of a device that the last life had and did not write down, and that may still write to memory.
    pub(super) fn left(bus: Rc<Bus>, address: PciAddress, host: PciAddress) -> Self {
        let mut device = Self::found(bus, address, host);
        device.inner.former = true;
        device.inner.tenure.master();
        device
    }

    /// Asks the device who it is, where that is not known.
    pub(super) async fn identify(mut self) -> Result<Self, PciError> {
        let inner = &mut self.inner;
        if inner.id.is_none() {
            let identity = inner.read(config::IDENTITY, Width::Double).await?;
            // What answers for a device that is not there: no vendor has either number.
            if matches!(identity & 0xffff, 0 | 0xffff) {
                return Err(PciError::NotFound);
            }
            inner.id = Some(DeviceId::new(identity));
            let (address, host) = (inner.address.into(), inner.host.into());
            kept::add(kept::Device { address, host, identity, leaving: false, bars: Vec::new(), interrupts: None });
        }
        Ok(self)
    }

    /// A device that the last life wrote down, and that may still write to memory. `None` where it has no address.
    pub(super) fn inherit(bus: Rc<Bus>, kept: &kept::Device) -> Option<Self> {
        let (address, host) = (kept.address.address()?, kept.host.address()?);
        let tenure = Rc::new(Tenure::new());
        tenure.master();
        let id = Some(DeviceId::new(kept.identity));
        let (interrupts, stopped) = Default::default();
        let inherited = Rc::new(Cell::new(true));
        Some(Self { inner: Inner { address, host, id, bus, interrupts, stopped, inherited, former: true, tenure } })
    }

    /// Takes access to memory from a device of the last life, where pciback may be asked for that. Where it is to `go_on`, its registers can still
    /// be reached, and its interrupts stay on, as the next driver wants both; else they are turned off, and their channels closed.
    pub(super) async fn stop(&self, go_on: bool) -> Result<Quiesced, Unfinished> {
        let inner = &self.inner;
        if go_on {
            let proof = inner.tenure.end(inner, CommandRegister::MEMORY_ENABLE.bits()).await?;
            inner.stopped.set(true);
            return Ok(proof);
        }
        self.close_inherited_interrupts();
        for kind in [InterruptKind::MsiX, InterruptKind::Msi] {
            // The last life used one of them at most.
            if let Err(error) = interrupt::disable(&inner.bus, inner.address, kind).await {
                log::debug!("pci {}: {kind} was not on: {error}", inner.address);
            }
        }
        inner.disable().await
    }

    /// Closes the channels of the interrupts that the last life had of it.
    fn close_inherited_interrupts(&self) {
        let interrupts = kept::with(self.address(), |device| device.interrupts.take()).flatten();
        let pirqs: Vec<u32> = interrupts.into_iter().flat_map(|kept| kept.vectors).map(|(pirq, _)| pirq).collect();
        events::close_inherited_interrupts(|pirq| pirqs.contains(&pirq));
    }

    /// Gives up a device of the last life that pciback does not know: nothing is asked for it from now on.
    pub(super) fn give_up(self) {
        self.close_inherited_interrupts();
        self.inner.tenure.is_lost();
        kept::lose(self.address(), self.host_address());
    }

    /// Where this domain finds it: pciback's numbering, not the host's.
    pub fn address(&self) -> PciAddress {
        self.inner.address
    }

    /// Where the host has it, as the toolstack's configs name it; where the toolstack does not say so, as [`Device::address`].
    pub fn host_address(&self) -> PciAddress {
        self.inner.host
    }

    /// What it is.
    pub fn id(&self) -> DeviceId {
        self.inner.id.unwrap_or(DeviceId::new(0))
    }

    /// Its place among the devices of its connection.
    pub(super) fn tenure(&self) -> &Rc<Tenure> {
        &self.inner.tenure
    }

    /// Gives out memory for it.
    pub fn dma(&self) -> DmaFrames {
        DmaFrames::new(self.inner.tenure.reach())
    }

    /// Reads 32 bits of config space at `offset`, a multiple of four.
    ///
    /// # Errors
    /// What pciback answers.
    pub async fn read_config(&self, offset: u16) -> Result<u32, PciError> {
        self.inner.read(offset, Width::Double).await
    }

    /// Its base class, subclass and programming interface (PCI Code and ID Assignment); asked of the device with each call.
    ///
    /// # Errors
    /// What pciback answers.
    pub async fn class(&self) -> Result<(u8, u8, u8), PciError> {
        let [_, interface, subclass, class] = self.read_config(config::CLASS).await?.to_le_bytes();
        Ok((class, subclass, interface))
    }

    /// What kind of device it says it is, for people.
    pub async fn kind(&self) -> String {
        match self.class().await {
            Ok((class, subclass, _)) => format!("{:?}", DeviceType::from((class, subclass))),
            Err(error) => format!("of an unknown kind: {error}"),
        }
    }

    /// Turns on memory decoding and bus mastering.
    ///
    /// # Errors
    /// What pciback answers.
    pub async fn enable(&self) -> Result<(), PciError> {
        let inner = &self.inner;
        // The other bits need not be kept: they are clear in a device that was reset, and pciback lets none of them through.
        let command = CommandRegister::MEMORY_ENABLE | CommandRegister::BUS_MASTER_ENABLE;
        inner.tenure.master();
        inner.stopped.set(false);
        inner.write(config::COMMAND, Width::Word, command.bits().into()).await
    }

    /// Turns on memory decoding alone: to have a device forget what it was told before it reaches memory (again).
    ///
    /// # Errors
    /// What pciback answers.
    pub async fn enable_registers(&self) -> Result<(), PciError> {
        if self.inner.stopped.get() {
            return Ok(());
        }
        self.inner.write(config::COMMAND, Width::Word, CommandRegister::MEMORY_ENABLE.bits().into()).await
    }

    /// Maps the first `length` bytes of memory BAR `index`: as many as the driver uses. Xen maps nothing beyond the device's own BARs.
    /// The pages of an MSI-X table or its pending bits are not for a driver, and must not be among them: Xen makes them read-only, so
    /// that a write faults.
    ///
    /// # Errors
    /// What pciback or Xen answers, as where the BAR is shorter; [`PciError::UnusableBar`] where there is no memory.
    pub async fn map_bar(&self, index: u8, length: usize) -> Result<MmioRegion, PciError> {
        let known = kept::with(self.address(), |device| device.bars.iter().find(|bar| bar.0 == index).map(|bar| bar.1));
        let address = match known.flatten() {
            Some(address) => address,
            None => {
                let address = config::memory_bar(&self.inner, index).await?;
                kept::with(self.address(), |device| device.bars.push((index, address)));
                address
            }
        };
        Ok(MmioRegion::map(address, length, self.inner.tenure.reach())?)
    }

    /// Whether the last life of the domain had it: it may be as that life left it.
    pub fn was_inherited(&self) -> bool {
        self.inner.former
    }

    /// Turns on interrupts: MSI-X with up to `wanted` vectors, else MSI, else the INTx line, beginning with `best`. The device must be
    /// enabled. Drop what this returns before closing the device.
    ///
    /// # Errors
    /// What the last of the ways met.
    pub async fn enable_interrupts(&self, best: InterruptKind, wanted: usize) -> Result<Interrupts, PciError> {
        let inner = &self.inner;
        let is_inherited = inner.inherited.take();
        let interrupts = interrupt::enable(inner, &inner.bus, inner.address, best, wanted, is_inherited).await?;
        inner.interrupts.set(Some(interrupts.kind()));
        Ok(interrupts)
    }

    /// Takes interrupts and DMA from the device and gives it back. The driver should have stopped it before.
    ///
    /// # Errors
    /// [`Unclosed`]: it may still write to memory, and what it was given stays lost until a later call succeeds.
    pub async fn close(self) -> Result<Quiesced, Unclosed> {
        match self.inner.disable().await {
            Ok(proof) => Ok(proof),
            Err(Unfinished::Later | Unfinished::Forgotten) => Err(Unclosed::Refused(self)),
            Err(Unfinished::Never) => Err(Unclosed::Lost),
        }
    }

    /// [`Self::close`], with longer and longer pauses between, until there is a proof: pciback took DMA from it, or has it back. `None`
    /// where pciback goes without that.
    pub async fn close_in_the_end(self) -> Option<Quiesced> {
        self.inner.disable_in_the_end().await
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let inner = &self.inner;
        if inner.tenure.is_ours() && (!inner.tenure.has_ended() || inner.interrupts.get().is_some()) {
            let inner = inner.clone();
            executor::spawn(async move {
                let _proof = inner.disable_in_the_end().await;
            });
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({} {})", self.address(), self.id())
    }
}

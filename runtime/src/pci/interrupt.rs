//! A passed-through device's interrupts, as event channels: MSI-X, MSI, INTx. Safe code. Floor 2.

use super::config::{ConfigSpace, INTERRUPT_LINE, Width};
use super::error::PciError;
use super::kept;
use super::operation::{Bus, Operation};
use crate::events::{self, Channel};
use alloc::vec::Vec;
use core::fmt;
use pci_types::PciAddress;
use xen_pv_sys::Port;
use xen_pv_sys::io::pciif::{SH_INFO_MAX_VEC, XEN_PCI_OP_DISABLE_MSI, XEN_PCI_OP_DISABLE_MSIX, XEN_PCI_OP_ENABLE_MSI};

/// How a device interrupts, the best kind first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterruptKind {
    /// MSI-X: a vector each for several causes.
    MsiX,
    /// MSI, with one vector.
    Msi,
    /// The INTx line, by level, perhaps shared.
    IntX,
}

impl InterruptKind {
    /// Its number in what the next life reads.
    const fn number(self) -> u8 {
        match self {
            Self::MsiX => 0,
            Self::Msi => 1,
            Self::IntX => 2,
        }
    }

    /// The kind of a number.
    const fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::MsiX),
            1 => Some(Self::Msi),
            2 => Some(Self::IntX),
            _ => None,
        }
    }
}

impl fmt::Display for InterruptKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MsiX => "MSI-X",
            Self::Msi => "MSI",
            Self::IntX => "INTx",
        })
    }
}

/// The channels of a device's interrupts, in the order of its vectors; unbound by `Drop`.
#[derive(Debug)]
pub struct Interrupts {
    kind: InterruptKind,
    channels: Vec<Channel>,
    /// The pirq of each.
    pirqs: Vec<u32>,
}

impl Interrupts {
    /// How the device interrupts.
    pub fn kind(&self) -> InterruptKind {
        self.kind
    }

    /// One channel a vector. [`Channel::unmask`] after handling also ends the interrupt where that is called for.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }
}

/// Binds each pirq.
fn bind(kind: InterruptKind, pirqs: &[u32]) -> Result<Interrupts, PciError> {
    let shareable = kind == InterruptKind::IntX;
    let channels = pirqs
        .iter()
        .map(|&pirq| match pirq {
            // 0xffff is what we wrote there, and 0 is the timer's line: nobody gave us a pirq.
            0 | 0xffff.. => Err(PciError::BadPirq(pirq)),
            _ => Ok(events::bind_pirq(pirq, shareable)?),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Interrupts { kind, channels, pirqs: pirqs.to_vec() })
}

/// Turns on MSI-X with exactly `vectors` vectors.
async fn enable_msix(bus: &Bus, address: PciAddress, vectors: u16) -> Result<Interrupts, PciError> {
    let pirqs = bus.enable_msix(address, vectors).await?;
    let bound = bind(InterruptKind::MsiX, &pirqs);
    if bound.is_err() {
        disable(bus, address, InterruptKind::MsiX).await?;
    }
    bound
}

/// Turns on MSI.
async fn enable_msi(bus: &Bus, address: PciAddress) -> Result<Interrupts, PciError> {
    let operation = Operation::of(address, XEN_PCI_OP_ENABLE_MSI, 0);
    let pirq = bus.call(&operation).await?;
    let bound = bind(InterruptKind::Msi, &[pirq]);
    if bound.is_err() {
        disable(bus, address, InterruptKind::Msi).await?;
    }
    bound
}

/// The interrupts that the last life turned on, where it asked for the same; else they are turned off.
async fn inherited(
    bus: &Bus,
    address: PciAddress,
    (best, wanted): (InterruptKind, usize),
    is_inherited: bool,
) -> Option<Interrupts> {
    let Some(kept) = kept::with(address, |device| device.interrupts.take()).flatten() else {
        if is_inherited {
            // The last life may have turned them on and not got to writing that down.
            for kind in [InterruptKind::MsiX, InterruptKind::Msi] {
                if let Err(error) = disable(bus, address, kind).await {
                    log::debug!("pci {address}: {kind} was not on: {error}");
                }
            }
        }
        return None;
    };
    let kind = InterruptKind::of(kept.kind)?;
    let pirqs: Vec<u32> = kept.vectors.iter().map(|&(pirq, _)| pirq).collect();
    if (kept.best, kept.wanted as usize) == (best.number(), wanted) {
        let adopted = kept.vectors.iter().map(|&(pirq, port)| events::adopt_pirq(pirq, Port(port)));
        if let Some(channels) = adopted.collect::<Option<Vec<_>>>() {
            return Some(Interrupts { kind, channels, pirqs });
        }
    }
    events::close_inherited_interrupts(|pirq| pirqs.contains(&pirq));
    if let Err(error) = disable(bus, address, kind).await {
        log::debug!("pci {address}: {kind} was not on: {error}");
    }
    None
}

/// Turns on the best kind that works, none better than `best`: MSI-X with `wanted` vectors, with one, MSI, INTx; or takes over those of the
/// last life. Notes them for the next.
pub(super) async fn enable(
    config: &impl ConfigSpace,
    bus: &Bus,
    address: PciAddress,
    best: InterruptKind,
    wanted: usize,
    is_inherited: bool,
) -> Result<Interrupts, PciError> {
    let interrupts = match inherited(bus, address, (best, wanted), is_inherited).await {
        Some(interrupts) => interrupts,
        None => turn_on(config, bus, address, best, wanted).await?,
    };
    let ports = interrupts.channels.iter().map(|channel| channel.port().0);
    let vectors = interrupts.pirqs.iter().copied().zip(ports);
    let (kind, wanted) = (interrupts.kind.number(), u32::try_from(wanted).unwrap_or(u32::MAX));
    let kept = kept::Interrupts { best: best.number(), wanted, kind, vectors: vectors.collect() };
    kept::with(address, |device| device.interrupts = Some(kept));
    Ok(interrupts)
}

/// Turns on the best kind that works. Whether the device has a kind shows in pciback's answer.
async fn turn_on(
    config: &impl ConfigSpace,
    bus: &Bus,
    address: PciAddress,
    best: InterruptKind,
    wanted: usize,
) -> Result<Interrupts, PciError> {
    if best <= InterruptKind::MsiX {
        let vectors = u16::try_from(wanted.clamp(1, SH_INFO_MAX_VEC)).unwrap_or(1);
        for count in [vectors, 1] {
            match enable_msix(bus, address, count).await {
                Ok(interrupts) => return Ok(interrupts),
                Err(error) => log::info!("pci {address}: {count} MSI-X vectors: {error}"),
            }
            if vectors == 1 {
                break;
            }
        }
    }
    if best <= InterruptKind::Msi {
        match enable_msi(bus, address).await {
            Ok(interrupts) => return Ok(interrupts),
            Err(error) => log::info!("pci {address}: MSI: {error}"),
        }
    }
    // Line and pin: without a pin the device has no INTx.
    let line = config.read(INTERRUPT_LINE, Width::Word).await?;
    let [pirq, pin, ..] = line.to_le_bytes();
    if pin == 0 {
        return Err(PciError::NoInterrupt);
    }
    bind(InterruptKind::IntX, &[u32::from(pirq)])
}

/// Turns off what [`enable`] turned on.
pub(super) async fn disable(bus: &Bus, address: PciAddress, kind: InterruptKind) -> Result<(), PciError> {
    let command = match kind {
        InterruptKind::MsiX => XEN_PCI_OP_DISABLE_MSIX,
        InterruptKind::Msi => XEN_PCI_OP_DISABLE_MSI,
        InterruptKind::IntX => return Ok(()),
    };
    bus.call(&Operation::of(address, command, 0)).await.map(|_| ())
}

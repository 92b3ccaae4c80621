//! PCI configuration space of a model: 4,096 bytes, of which some can be written. PCI Local Bus 3.0, 6; PCI Express Base, 7. Host.

use crate::bus::Interrupt;

/// Bytes of configuration space.
pub const SPACE: usize = 4096;

/// Offsets in the header, PCI Local Bus 3.0, 6.1.
pub mod header {
    /// Vendor and device id.
    pub const IDS: usize = 0x00;
    /// COMMAND.
    pub const COMMAND: usize = 0x04;
    /// STATUS.
    pub const STATUS: usize = 0x06;
    /// Revision and class code.
    pub const CLASS: usize = 0x08;
    /// The first base address register.
    pub const BAR0: usize = 0x10;
    /// Subsystem's ids.
    pub const SUBSYSTEM: usize = 0x2C;
    /// The first capability.
    pub const CAPABILITIES: usize = 0x34;
    /// Interrupt line and pin.
    pub const INTERRUPT: usize = 0x3C;
}

/// Where Intel's server NICs have their capabilities (82599 datasheet 9.3); drivers read some by offset.
mod place {
    pub(super) const POWER: usize = 0x40;
    pub(super) const MSI: usize = 0x50;
    pub(super) const MSI_X: usize = 0x70;
    pub(super) const EXPRESS: usize = 0xA0;
}

/// COMMAND: memory space, bus master, INTx disable.
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_INTX_OFF: u16 = 1 << 10;
const COMMAND_WRITABLE: u16 = 0x0547;
/// Device Status: transactions pending.
const TRANSACTIONS_PENDING: u8 = 1 << 5;
/// Device Control: initiate a function-level reset.
const FUNCTION_RESET: u8 = 1 << 7;

/// What identifies a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem's vendor and id.
    pub subsystem: [u16; 2],
    /// Revision.
    pub revision: u8,
    /// Where its base address registers are.
    pub bars: Bars,
    /// Bytes of registers: a power of two.
    pub registers: u64,
    /// MSI-X vectors, where it has them; pending bits are at 0x2000 behind their table.
    pub vectors: u16,
    /// PCI Express: generation and lanes.
    pub link: (u8, u8),
}

/// How a device uses its base address registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bars {
    /// Of 64 bits, prefetchable: registers in BAR 0, MSI-X in BAR 4.
    Wide,
    /// Of 32 bits: registers in BAR 0, MSI-X in BAR 3.
    Narrow,
    /// Of 32 bits: registers in BAR 5, as AHCI 2.1.11 has it, and no MSI-X.
    Last,
}

impl Bars {
    /// The one with the registers.
    pub const fn registers(self) -> usize {
        match self {
            Self::Wide | Self::Narrow => 0,
            Self::Last => 5,
        }
    }

    /// The one with the table of MSI-X, for a device that has one.
    pub const fn vectors(self) -> Option<usize> {
        match self {
            Self::Wide => Some(4),
            Self::Narrow => Some(3),
            Self::Last => None,
        }
    }
}

/// Class codes of PCI Code and ID Assignment: programming interface, subclass, base class.
pub mod class {
    /// Ethernet.
    pub const ETHERNET: [u8; 3] = [0x00, 0x00, 0x02];
    /// NVM Express, I/O controller.
    pub const NVME: [u8; 3] = [0x02, 0x08, 0x01];
    /// Serial ATA by AHCI.
    pub const AHCI: [u8; 3] = [0x01, 0x06, 0x01];
}

/// Configuration space with power management, MSI, MSI-X and PCI Express.
#[derive(Clone, Debug)]
pub struct ConfigurationSpace {
    bytes: Box<[u8]>,
    writable: Box<[u8]>,
    identity: Identity,
    class: [u8; 3],
}

/// What a write asks the device to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A function-level reset.
    Reset,
}

/// Bytes of the table's BAR: table and pending bits of MSI-X.
pub const VECTOR_SPACE: u64 = 0x4000;
/// Where in it the pending bits are.
pub const PENDING_BITS: u64 = 0x2000;

impl ConfigurationSpace {
    /// A NIC's, after power-on.
    pub fn new(identity: Identity) -> Self {
        Self::of_class(identity, class::ETHERNET)
    }

    /// That of a device of any [`class`], after power-on.
    pub fn of_class(identity: Identity, class: [u8; 3]) -> Self {
        let bytes = vec![0; SPACE].into_boxed_slice();
        let writable = bytes.clone();
        let mut space = Self { bytes, writable, identity, class };
        space.fill();
        space
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        if let Some(place) = self.writable.get_mut(at..at + mask.len()) {
            place.copy_from_slice(mask);
        }
    }

    fn fill(&mut self) {
        let Identity { vendor, device, subsystem: [owner, card], revision, bars, registers, vectors, link } =
            self.identity;
        self.put(header::IDS, &(u32::from(vendor) | u32::from(device) << 16).to_le_bytes());
        self.allow(header::COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        self.put(header::STATUS, &[0x10, 0]);
        let [interface, subclass, base] = self.class;
        self.put(header::CLASS, &[revision, interface, subclass, base]);
        self.allow(header::CLASS + 4, &[0xFF]);
        let tables = bars.vectors().map(|bar| (bar, VECTOR_SPACE));
        for (bar, size) in [(bars.registers(), registers)].into_iter().chain(tables) {
            let at = header::BAR0 + 4 * bar;
            let mask = (!(size - 1)).to_le_bytes();
            match bars {
                Bars::Wide => {
                    self.put(at, &[0x0C]);
                    self.allow(at, &mask);
                }
                Bars::Narrow | Bars::Last => self.allow(at, mask.get(..4).unwrap_or_default()),
            }
        }
        self.put(header::SUBSYSTEM, &(u32::from(owner) | u32::from(card) << 16).to_le_bytes());
        self.put(header::CAPABILITIES, &[place::POWER as u8]);
        self.put(header::INTERRUPT, &[0, 1]);
        self.allow(header::INTERRUPT, &[0xFF]);
        // Version 3, no soft reset.
        self.put(place::POWER, &[0x01, place::MSI as u8, 0x23, 0x48, 0x08, 0x20]);
        self.allow(place::POWER + 4, &[0x03, 0x01]);
        // One message, 64 bits, a mask.
        let next = if bars.vectors().is_some() { place::MSI_X } else { place::EXPRESS };
        self.put(place::MSI, &[0x05, next as u8, 0x80, 0x01]);
        self.allow(place::MSI + 2, &[0x01, 0, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1]);
        if let Some(bar) = bars.vectors() {
            let (size, bar) = (vectors.saturating_sub(1).to_le_bytes(), bar as u8);
            self.put(place::MSI_X, &[0x11, place::EXPRESS as u8, size[0], size[1], bar, 0, 0, 0, bar, 0x20, 0, 0]);
            self.allow(place::MSI_X + 3, &[0xC0]);
        }
        // An endpoint of version 2 that can be reset alone.
        let (generation, lanes) = link;
        let [low, high] = (u16::from(lanes) << 4 | u16::from(generation)).to_le_bytes();
        self.put(
            place::EXPRESS,
            &[0x10, 0, 0x02, 0, 0xC2, 0x8C, 0, 0x10, 0x10, 0x28, 0, 0, low, high | 0xF4, 3, 0, 0, 0, low, high | 0x10],
        );
        self.put(place::EXPRESS + 0x24, &[0x1F]);
        self.allow(place::EXPRESS + 8, &[0xFF, 0x7F]);
        self.allow(place::EXPRESS + 0x10, &[0xC3]);
        self.allow(place::EXPRESS + 0x28, &[0x1F]);
    }

    /// What the device is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Bytes of the memory behind each base address register.
    pub const fn bars(&self) -> [u64; 6] {
        match self.identity.bars {
            Bars::Wide => [self.identity.registers, 0, 0, 0, VECTOR_SPACE, 0],
            Bars::Narrow => [self.identity.registers, 0, 0, VECTOR_SPACE, 0, 0],
            Bars::Last => [0, 0, 0, 0, 0, self.identity.registers],
        }
    }

    /// Reads; zeroes beyond the end.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (place, to) in data.iter_mut().enumerate() {
            *to = self.byte(offset.saturating_add(place));
        }
    }

    /// Writes what can be written, and says what the device is asked for.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> Option<Request> {
        let mut request = None;
        for (place, &value) in data.iter().enumerate() {
            let at = offset.saturating_add(place);
            if at == place::EXPRESS + 9 && value & FUNCTION_RESET != 0 {
                request = Some(Request::Reset);
            }
            if let (Some(byte), Some(&mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | value & mask;
            }
        }
        request
    }

    /// As after power-on, apart from the addresses that the bus gave.
    pub fn reset(&mut self) {
        *self = Self::of_class(self.identity, self.class);
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn command(&self) -> u16 {
        u16::from_le_bytes([self.byte(header::COMMAND), self.byte(header::COMMAND + 1)])
    }

    /// Whether the device may reach memory.
    pub fn masters_bus(&self) -> bool {
        self.command() & COMMAND_MASTER != 0 && self.byte(place::POWER + 4) & 3 == 0
    }

    /// The device's interrupts now: a line, or the message that `vector` has. `None` where all are off.
    pub fn interrupt(&self, vector: u16) -> Option<Interrupt> {
        let message = self.byte(place::MSI_X + 3);
        if message & 0x80 != 0 {
            return (message & 0x40 == 0 && vector < self.identity.vectors).then_some(Interrupt::MsiX(vector));
        }
        if self.byte(place::MSI + 2) & 1 != 0 {
            return Some(Interrupt::Msi);
        }
        (self.command() & COMMAND_INTX_OFF == 0).then_some(Interrupt::Line(true))
    }

    /// Device Status says whether requests to memory are on their way.
    pub fn set_pending(&mut self, pending: bool) {
        if let Some(byte) = self.bytes.get_mut(place::EXPRESS + 10) {
            *byte = *byte & !TRANSACTIONS_PENDING | if pending { TRANSACTIONS_PENDING } else { 0 };
        }
    }

    /// Lets the device reach memory, and turns MSI or MSI-X on, as a bus driver does before the device's own.
    pub fn enable(&mut self, interrupts: Interrupt) {
        self.write(header::COMMAND, &(COMMAND_MASTER | 2).to_le_bytes());
        self.write(place::MSI + 2, &[u8::from(interrupts == Interrupt::Msi)]);
        self.write(place::MSI_X + 3, &[if matches!(interrupts, Interrupt::MsiX(_)) { 0x80 } else { 0 }]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigurationSpace {
        space_with(Bars::Wide)
    }

    fn space_with(bars: Bars) -> ConfigurationSpace {
        let identity = Identity {
            vendor: 0x8086,
            device: 0x10FB,
            subsystem: [0x8086, 3],
            revision: 1,
            bars,
            registers: 0x8_0000,
            vectors: 64,
            link: (2, 8),
        };
        ConfigurationSpace::new(identity)
    }

    fn word(space: &ConfigurationSpace, at: usize) -> u32 {
        let mut bytes = [0; 4];
        space.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn capabilities_form_a_list_and_bars_tell_their_size() {
        let mut space = space();
        let (mut at, mut seen) = (word(&space, 0x34) as usize & 0xFF, Vec::new());
        while at != 0 {
            let capability = word(&space, at);
            seen.push((at, capability as u8));
            at = capability as usize >> 8 & 0xFF;
        }
        assert_eq!(seen, [(0x40, 1), (0x50, 5), (0x70, 0x11), (0xA0, 0x10)]);
        space.write(0x10, &[0xFF; 8]);
        assert_eq!((word(&space, 0x10), word(&space, 0x14)), (0xFFF8_000C, 0xFFFF_FFFF));
        assert_eq!((word(&space, 0x74), word(&space, 0x78)), (4, 0x2004));
        space.write(0, &[0; 4]);
        assert_eq!(word(&space, 0), 0x10FB_8086, "ids cannot be written");
        let mut space = space_with(Bars::Narrow);
        space.write(0x10, &[0xFF; 24]);
        let bars: Vec<_> = (0..6).map(|bar| word(&space, 0x10 + 4 * bar)).collect();
        assert_eq!(bars, [0xFFF8_0000, 0, 0, 0xFFFF_C000, 0, 0]);
        assert_eq!((word(&space, 0x74), word(&space, 0x78)), (3, 0x2003));
        assert_eq!(space.bars(), [0x8_0000, 0, 0, VECTOR_SPACE, 0, 0]);
        assert_eq!(word(&space, 0xAC) & 0x3FF, 0x082);
    }

    #[test]
    fn an_ahci_adapter_has_its_registers_in_the_last_bar_and_no_vectors() {
        let identity = Identity { bars: Bars::Last, registers: 0x1000, vectors: 0, ..*space().identity() };
        let mut space = ConfigurationSpace::of_class(identity, class::AHCI);
        assert_eq!(word(&space, 8), 0x0106_0101);
        space.write(0x10, &[0xFF; 24]);
        let bars: Vec<_> = (0..6).map(|bar| word(&space, 0x10 + 4 * bar)).collect();
        assert_eq!(bars, [0, 0, 0, 0, 0, 0xFFFF_F000]);
        assert_eq!(space.bars(), [0, 0, 0, 0, 0, 0x1000]);
        let (mut at, mut seen) = (word(&space, 0x34) as usize & 0xFF, Vec::new());
        while at != 0 {
            seen.push(word(&space, at) as u8);
            at = word(&space, at) as usize >> 8 & 0xFF;
        }
        assert_eq!(seen, [1, 5, 0x10]);
        space.enable(Interrupt::MsiX(0));
        assert_eq!(space.interrupt(0), Some(Interrupt::Line(true)), "there is no MSI-X to turn on");
        space.reset();
        assert_eq!(word(&space, 8), 0x0106_0101);
    }

    #[test]
    fn interrupts_follow_the_capabilities() {
        let mut space = space();
        assert_eq!(space.interrupt(3), Some(Interrupt::Line(true)));
        space.write(4, &0x0400u16.to_le_bytes());
        assert_eq!(space.interrupt(3), None);
        space.write(0x52, &[1]);
        assert_eq!(space.interrupt(3), Some(Interrupt::Msi));
        space.write(0x73, &[0x80]);
        assert_eq!((space.interrupt(3), space.interrupt(64)), (Some(Interrupt::MsiX(3)), None));
        space.write(0x73, &[0xC0]);
        assert_eq!(space.interrupt(3), None, "all vectors are masked");
    }

    #[test]
    fn bus_mastering_and_resets() {
        let mut space = space();
        assert!(!space.masters_bus());
        space.enable(Interrupt::MsiX(0));
        assert!(space.masters_bus());
        space.write(0x44, &[3]);
        assert!(!space.masters_bus(), "in D3");
        assert_eq!(space.write(0xA8, &[0x10, 0xA8]), Some(Request::Reset));
        space.reset();
        assert!(!space.masters_bus());
        space.write(SPACE - 1, &[1, 2, 3]);
    }
}

//! PHYs behind MDIO, clause 45 of IEEE 802.3: the X540's and the X550's own, and a TN1010 beside the 82599. Pure.

use std::collections::BTreeMap;

use super::Kind;
use super::registers::{self as reg};
use crate::registers::Registers;

/// MSCA, 82599 datasheet 8.2.3.22.11.
pub(super) const COMMAND: u32 = 1 << 30;
const OLD_PROTOCOL: u32 = 1 << 28;

/// Devices of a PHY (MMDs), IEEE 802.3 table 45-1.
const PMA: u8 = 1;
const PHY_XS: u8 = 4;
const AUTONEGOTIATION: u8 = 7;
const VENDOR: u8 = 30;

/// The X540's register 0 of MMD 30: it sleeps.
const LOW_POWER: u16 = 1 << 11;

/// A PHY at one address of the bus.
#[derive(Debug)]
pub(super) struct Phy {
    address: u32,
    registers: BTreeMap<(u8, u16), u16>,
    negotiations: usize,
}

impl Phy {
    /// The PHY that a card of this kind has.
    pub(super) fn new(kind: Kind) -> Option<Self> {
        let id: u32 = match kind {
            Kind::X540 => 0x0154_0200,
            Kind::X550 => 0x0154_0223,
            Kind::T3 => 0x00A1_9410,
            Kind::Kx4 | Kind::Sfp => return None,
        };
        let registers = BTreeMap::from([
            ((PMA, 2), (id >> 16) as u16),
            ((PMA, 3), id as u16),
            // Speeds: 10G, 1G, 100M.
            ((PMA, 4), 0x0031),
            // Devices in the package: PMA, PCS, PHY XS, autonegotiation; and that this one answers.
            ((PMA, 5), 0x009A),
            ((PMA, 8), 0x8000),
            // Extended abilities: 10GBASE-T, 1000BASE-T, 100BASE-TX.
            ((PMA, 11), 0x00A4),
            ((AUTONEGOTIATION, 0), 0x3000),
            ((AUTONEGOTIATION, 0x10), 0x01E1),
            ((AUTONEGOTIATION, 0x20), 0x1001),
            ((AUTONEGOTIATION, 0xC400), 0xC000),
        ]);
        Some(Self { address: 0, registers, negotiations: 0 })
    }

    /// It sleeps.
    pub(super) fn put_to_sleep(&mut self) {
        self.registers.insert((VENDOR, 0), LOW_POWER);
    }

    /// Whether it is awake.
    pub(super) fn is_awake(&self) -> bool {
        self.registers.get(&(VENDOR, 0)).is_none_or(|held| held & LOW_POWER == 0)
    }

    /// How often it began to negotiate.
    pub(super) const fn negotiations(&self) -> usize {
        self.negotiations
    }

    fn read(&self, device: u8, register: u16, link: Option<(bool, bool)>) -> u16 {
        let held = self.registers.get(&(device, register)).copied().unwrap_or(0);
        let when = |bits: u16| if link.is_some() { bits } else { 0 };
        match (device, register) {
            (PMA, 1) => when(1 << 2),
            (AUTONEGOTIATION, 1) => 1 << 3 | when(1 << 2 | 1 << 5),
            // What the link partner can, and what of it is about pause frames.
            (AUTONEGOTIATION, 0x13) => link
                .map_or(0, |(symmetric, asymmetric)| 0x01E1 | u16::from(symmetric) << 10 | u16::from(asymmetric) << 11),
            (AUTONEGOTIATION, 0x21) => when(0x0800),
            // TN1010: up, at 10 Gbit/s.
            (VENDOR, 1) => when(1 << 3),
            _ => held,
        }
    }

    fn write(&mut self, device: u8, register: u16, value: u16) {
        let begins = (device, register) == (AUTONEGOTIATION, 0) && value & 0x8200 != 0;
        self.negotiations += usize::from(begins || (device, register) == (PMA, 0) && value & 0x8000 != 0);
        let value = match (device, register) {
            // Resets and restarts end at once.
            (PMA | PHY_XS, 0) => value & !0x8000,
            (AUTONEGOTIATION, 0) => value & !0x8200,
            (PMA, 1..=8) => return,
            _ => value,
        };
        self.registers.insert((device, register), value);
    }
}

/// MSCA was written: the command is done at once, in MSRWD. Where no PHY answers the bus reads as ones. `link`: where there is one, what the
/// partner advertises about pause frames.
pub(super) fn command(phy: Option<&mut Phy>, registers: &mut Registers, value: u32, link: Option<(bool, bool)>) {
    registers.set(reg::MSCA, value & !COMMAND);
    if value & COMMAND == 0 {
        return;
    }
    let (register, device, address) = (value as u16, (value >> 16 & 0x1F) as u8, value >> 21 & 0x1F);
    let phy = phy.filter(|phy| phy.address == address && value & OLD_PROTOCOL == 0);
    let data = registers.get(reg::MSRWD);
    match (value >> 26 & 3, phy) {
        (1, Some(phy)) => phy.write(device, register, data as u16),
        (2 | 3, phy) => {
            let read = phy.map_or(0xFFFF, |phy| phy.read(device, register, link));
            registers.set(reg::MSRWD, data & 0xFFFF | u32::from(read) << 16);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, address: u32, device: u32, register: u32) -> u16 {
        let (mut phy, mut registers) = (Phy::new(kind), Registers::new(reg::SPACE));
        let at = register | device << 16 | address << 21;
        command(phy.as_mut(), &mut registers, COMMAND | at, Some((true, false)));
        command(phy.as_mut(), &mut registers, COMMAND | 3 << 26 | at, Some((true, false)));
        assert_eq!(registers.get(reg::MSCA) & COMMAND, 0);
        (registers.get(reg::MSRWD) >> 16) as u16
    }

    #[test]
    fn identifiers() {
        assert_eq!((read(Kind::X540, 0, 1, 2), read(Kind::X540, 0, 1, 3)), (0x0154, 0x0200));
        assert_eq!((read(Kind::T3, 0, 1, 2), read(Kind::T3, 0, 1, 3)), (0x00A1, 0x9410));
        // As Linux's mdio45_probe looks for a PHY.
        assert_eq!((read(Kind::X540, 0, 1, 8) >> 14, read(Kind::X540, 0, 1, 5) & 2), (2, 2));
        assert_eq!((read(Kind::Sfp, 0, 1, 2), read(Kind::X540, 1, 1, 2)), (0xFFFF, 0xFFFF));
    }

    #[test]
    fn a_restart_of_autonegotiation_ends() {
        let (mut phy, mut registers) = (Phy::new(Kind::X540), Registers::new(reg::SPACE));
        registers.set(reg::MSRWD, 0x3200);
        command(phy.as_mut(), &mut registers, COMMAND | 1 << 26 | 7 << 16, None);
        command(phy.as_mut(), &mut registers, COMMAND | 3 << 26 | 7 << 16, None);
        assert_eq!(registers.get(reg::MSRWD) >> 16, 0x3000);
    }
}

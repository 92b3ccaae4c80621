//! The PHY behind MDIC: what both ends of the link can do about pause frames. 82574 datasheet 10.2.2.7; IEEE 802.3, clause 22. Pure.

use super::registers::{self as reg};
use super::{E1000e, Kind};

/// MDIC.OP: a read.
const READ: u32 = 2;
/// Registers, IEEE 802.3 table 22-6.
const ADVERTISEMENT: u32 = 4;
const PARTNER: u32 = 5;
/// All speeds, and pause frames both ways.
const ADVERTISED: u16 = 0x0DE1;
/// The partner's speeds.
const PARTNER_SPEEDS: u16 = 0x41E1;

impl E1000e {
    /// An access of the PHY, which ends at once. Writes are not modelled: they end with an error, as where no PHY answers.
    pub(super) fn access_phy(&mut self, value: u32) {
        let owned = match self.kind {
            Kind::I82571 | Kind::Serdes => self.registers.has(reg::SWSM, reg::SWSM_SWESMBI),
            Kind::I82574 | Kind::Pch => self.registers.has(reg::EXTCNF_CTRL, reg::EXTCNF_MDIO),
        };
        if !owned {
            self.misuse.note("the PHY was spoken to while firmware may use the bus to it");
        }
        if value >> 26 & 3 != READ {
            self.links_begun += 1;
        }
        // Linux: `e1000_get_phy_addr_for_hv_page`.
        let address = if self.kind == Kind::Pch { 2 } else { 1 };
        let answers = value >> 21 & 0x1F == address && value >> 26 & 3 == READ && self.kind != Kind::Serdes;
        let data = match value >> 16 & 0x1F {
            ADVERTISEMENT => ADVERTISED,
            PARTNER if self.link => PARTNER_SPEEDS | self.partner_pause,
            _ => 0,
        };
        let error = if answers { 0 } else { reg::MDIC_ERROR };
        self.registers.set(reg::MDIC, value & 0x0FFF_0000 | u32::from(data) | reg::MDIC_READY | error);
    }
}

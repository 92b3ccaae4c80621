//! A copper PHY behind MDIC, clause 22 of IEEE 802.3, and its auto-negotiation. Pure.

use std::time::Duration;

use super::Kind;

/// BMCR, BMSR and the like, IEEE 802.3 table 22-6.
mod register {
    pub(super) const CONTROL: usize = 0;
    pub(super) const STATUS: usize = 1;
    pub(super) const ID_HIGH: usize = 2;
    pub(super) const ID_LOW: usize = 3;
    pub(super) const ADVERTISEMENT: usize = 4;
    pub(super) const PARTNER: usize = 5;
    pub(super) const EXPANSION: usize = 6;
    pub(super) const GIGABIT_CONTROL: usize = 9;
    pub(super) const GIGABIT_STATUS: usize = 10;
    pub(super) const EXTENDED_STATUS: usize = 15;
    /// Port control of the 82576's, specific status of the I210's (88E1000), "PHY status 2" of the I350's.
    pub(super) const SPECIFIC: usize = 17;
    pub(super) const SPECIFIC_2: usize = 26;
    /// Of the I210's; the 82576's has its page at 31.
    pub(super) const PAGE: usize = 22;
}

/// BMCR: reset, auto-negotiation, power down, restart. IEEE 802.3, 22.2.4.1.
const RESET: u16 = 1 << 15;
const NEGOTIATE: u16 = 1 << 12;
const POWER_DOWN: u16 = 1 << 11;
const RESTART: u16 = 1 << 9;

/// How long negotiation takes. Some seconds on a wire; here as long as a test of the time before the link needs.
const NEGOTIATION: Duration = Duration::from_millis(10);

/// The PHY at address 1.
#[derive(Debug)]
pub(super) struct Phy {
    kind: Kind,
    registers: [u16; 32],
    cable: bool,
    /// When it has a link; `None` where it does not try.
    up_at: Option<Duration>,
    /// BMSR shows a lost link once.
    fell: bool,
    /// How often it began to negotiate.
    negotiations: usize,
    /// What the partner advertises about pause frames: the bits of ANLPAR.
    partner_pause: u16,
}

impl Phy {
    /// Powered on at time zero, its cable plugged in.
    pub(super) fn new(kind: Kind) -> Self {
        let mut phy = Self {
            kind,
            registers: [0; 32],
            cable: true,
            up_at: None,
            fell: false,
            negotiations: 0,
            partner_pause: 1 << 10,
        };
        phy.reset(Duration::ZERO);
        phy
    }

    fn put(&mut self, register: usize, value: u16) {
        if let Some(place) = self.registers.get_mut(register) {
            *place = value;
        }
    }

    fn held(&self, register: usize) -> u16 {
        self.registers.get(register).copied().unwrap_or(0)
    }

    /// All registers as strapped; negotiation begins.
    pub(super) fn reset(&mut self, now: Duration) {
        let id: u32 = match self.kind {
            Kind::I82576 => 0x02A8_0391,
            Kind::I350 => 0x0154_03B1,
            Kind::I210 => 0x0141_0C00,
        };
        self.registers = [0; 32];
        self.put(register::CONTROL, NEGOTIATE | 1 << 8 | 1 << 6);
        self.put(register::ID_HIGH, (id >> 16) as u16);
        self.put(register::ID_LOW, id as u16);
        // The I350's is strapped to say nothing of pause frames.
        self.put(register::ADVERTISEMENT, if self.kind == Kind::I350 { 0x01E1 } else { 0x0DE1 });
        self.put(register::GIGABIT_CONTROL, 0x0200);
        self.put(register::EXTENDED_STATUS, 0x3000);
        self.negotiate(now);
    }

    /// Begins anew, if there is anything at the other end.
    fn negotiate(&mut self, now: Duration) {
        self.fell |= self.up_at.is_some_and(|at| at <= now);
        self.negotiations += 1;
        let tries = self.cable && self.held(register::CONTROL) & POWER_DOWN == 0;
        self.up_at = tries.then(|| now + NEGOTIATION);
    }

    /// What the partner advertises about pause frames from now on.
    pub(super) const fn set_partner_pause(&mut self, symmetric: bool, asymmetric: bool) {
        self.partner_pause = (symmetric as u16) << 10 | (asymmetric as u16) << 11;
    }

    /// It is turned off.
    pub(super) fn power_down(&mut self, now: Duration) {
        self.write(register::CONTROL as u32, POWER_DOWN, now);
    }

    /// The cable is plugged in, or pulled.
    pub(super) fn plug(&mut self, in_: bool, now: Duration) {
        if in_ != self.cable {
            self.cable = in_;
            self.negotiate(now);
        }
    }

    /// Whether it has a link.
    pub(super) fn has_link(&self, now: Duration) -> bool {
        self.up_at.is_some_and(|at| at <= now)
    }

    /// How often it began to negotiate.
    pub(super) const fn negotiations(&self) -> usize {
        self.negotiations
    }

    /// When it will have a link, where that is yet to come.
    pub(super) fn negotiated_at(&self, now: Duration) -> Option<Duration> {
        self.up_at.filter(|at| *at > now)
    }

    /// Reads a register.
    pub(super) fn read(&mut self, register: u32, now: Duration) -> u16 {
        let link = self.has_link(now);
        let when = |bits: u16| if link { bits } else { 0 };
        let register = register as usize & 0x1F;
        if self.kind == Kind::I210 && self.held(register::PAGE) != 0 && register != register::PAGE {
            return 0;
        }
        match register {
            // All of 10 and 100, extended status, negotiation; done and link.
            register::STATUS => {
                let fell = std::mem::take(&mut self.fell);
                0x7949 | when(1 << 5) | if fell { 0 } else { when(1 << 2) }
            }
            register::PARTNER => when(0x41E1 | self.partner_pause),
            register::EXPANSION => when(0x000F),
            // Both receivers work, the partner does 1000BASE-T.
            register::GIGABIT_STATUS => when(0x3C00),
            // 82576 (IGP): 1000 Mbit/s; I210 (88E1000): 1000 Mbit/s, full duplex, resolved, link.
            register::SPECIFIC => match self.kind {
                Kind::I82576 => when(0xC000),
                Kind::I210 => when(0xAC00),
                Kind::I350 => self.held(register),
            },
            register::SPECIFIC_2 if self.kind == Kind::I350 => when(0x0200),
            _ => self.held(register),
        }
    }

    /// Writes a register.
    pub(super) fn write(&mut self, register: u32, value: u16, now: Duration) {
        let register = register as usize & 0x1F;
        if self.kind == Kind::I210 && self.held(register::PAGE) != 0 && register != register::PAGE {
            return;
        }
        match register {
            register::CONTROL if value & RESET != 0 => self.reset(now),
            register::CONTROL => {
                let before = self.held(register::CONTROL);
                self.put(register::CONTROL, value & !RESTART);
                let powered = (before ^ value) & POWER_DOWN != 0;
                if powered || value & NEGOTIATE != 0 && value & RESTART != 0 {
                    self.negotiate(now);
                }
            }
            register::STATUS | register::ID_HIGH | register::ID_LOW | register::PARTNER | register::EXPANSION => {}
            register::GIGABIT_STATUS | register::EXTENDED_STATUS | register::SPECIFIC => {}
            _ => self.put(register, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Duration = NEGOTIATION;

    #[test]
    fn identifiers_are_those_that_linux_knows() {
        for (kind, id) in [(Kind::I82576, 0x02A8_0390), (Kind::I350, 0x0154_03B0), (Kind::I210, 0x0141_0C00)] {
            let mut phy = Phy::new(kind);
            let read = u32::from(phy.read(2, UP)) << 16 | u32::from(phy.read(3, UP));
            assert_eq!(read & 0xFFFF_FFF0, id);
        }
    }

    #[test]
    fn negotiation_takes_its_time() {
        let mut phy = Phy::new(Kind::I350);
        let zero = Duration::ZERO;
        assert_eq!((phy.has_link(zero), phy.negotiated_at(zero)), (false, Some(UP)));
        assert_eq!(phy.read(1, zero) & 0x24, 0);
        assert_eq!((phy.read(1, UP) & 0x24, phy.read(10, UP), phy.negotiated_at(UP)), (0x24, 0x3C00, None));
        phy.write(0, NEGOTIATE | RESTART, UP);
        assert!(!phy.has_link(UP));
        assert_eq!(phy.read(0, UP) & RESTART, 0, "clears itself");
        assert_eq!(phy.read(1, 2 * UP) & 4, 0, "it fell, which is told once");
        assert_eq!(phy.read(1, 2 * UP) & 4, 4);
        phy.write(0, POWER_DOWN, 2 * UP);
        assert!(!phy.has_link(9 * UP));
        phy.write(0, NEGOTIATE, 9 * UP);
        assert!(phy.has_link(10 * UP));
        phy.plug(false, 10 * UP);
        assert!(!phy.has_link(20 * UP));
        phy.write(0, RESET, 20 * UP);
        assert!(!phy.has_link(30 * UP), "no cable");
        phy.plug(true, 30 * UP);
        assert!(phy.has_link(31 * UP));
    }

    #[test]
    fn pages_of_the_i210() {
        let mut phy = Phy::new(Kind::I210);
        phy.write(22, 7, UP);
        phy.write(4, 0, UP);
        assert_eq!((phy.read(2, UP), phy.read(22, UP)), (0, 7));
        phy.write(22, 0, UP);
        assert_eq!((phy.read(2, UP), phy.read(4, UP)), (0x0141, 0x0DE1));
    }
}

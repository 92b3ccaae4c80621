//! A device with 256 bytes on two wires that a driver moves by hand: the EEPROM of an SFP+ module. SFF-8472 4; I2C, UM10204. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Idle,
    Address,
    Pointer,
    Write,
    Read,
}

/// What a module is for, by the codes of SFF-8472.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 10GBASE-SR.
    ShortReach,
    /// 10GBASE-LR.
    LongReach,
    /// 10GBASE-SR and 1000BASE-SX.
    BothSpeeds,
    /// Direct attach, passive.
    PassiveCable,
    /// Direct attach, active and limiting.
    LimitingCable,
    /// 1000BASE-T.
    Copper,
    /// 1000BASE-SX.
    ShortWave,
    /// 1000BASE-LX.
    LongWave,
    /// It names no kind that is known here.
    Unknown,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::ShortReach,
        Self::LongReach,
        Self::BothSpeeds,
        Self::PassiveCable,
        Self::LimitingCable,
        Self::Copper,
        Self::ShortWave,
        Self::LongWave,
        Self::Unknown,
    ];

    /// Its codes, as bytes at their places.
    const fn codes(self) -> &'static [(usize, u8)] {
        match self {
            Self::ShortReach => &[(3, 0x10)],
            Self::LongReach => &[(3, 0x20)],
            Self::BothSpeeds => &[(3, 0x10), (6, 0x01)],
            Self::PassiveCable => &[(2, 0x21), (8, 0x04)],
            Self::LimitingCable => &[(2, 0x21), (8, 0x08), (60, 0x04)],
            Self::Copper => &[(6, 0x08), (12, 13)],
            Self::ShortWave => &[(6, 0x01), (12, 13)],
            Self::LongWave => &[(6, 0x02), (12, 13)],
            Self::Unknown => &[],
        }
    }
}

/// How a module misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It acknowledges nothing.
    Silent,
    /// It acknowledges its address, and then nothing.
    Refusing,
    /// It holds the data wire low.
    Stuck,
    /// `CC_BASE` is wrong.
    Checksum,
}

/// A module.
#[derive(Clone, Debug)]
pub struct Module {
    kind: Kind,
    fault: Option<Fault>,
    clock: bool,
    data: bool,
    mode: Mode,
    bit: u8,
    shift: u8,
    pointer: u8,
    /// Our end of the data wire: low where false.
    release: bool,
    /// The second page, 0xA2, is spoken to: it reads as zeroes.
    diagnostics: bool,
    bytes: Box<[u8; 256]>,
}

impl Module {
    /// A module of Intel's, SFF-8472 table 5-3.
    pub fn new(kind: Kind) -> Self {
        let mut bytes = Box::new([0; 256]);
        let mut put = |at: usize, text: &[u8]| {
            for (place, byte) in bytes.iter_mut().skip(at).zip(text) {
                *place = *byte;
            }
        };
        // SFP, LC connector, 10.3 Gbit/s.
        put(0, &[0x03, 0x04, 0x07]);
        put(12, &[103]);
        put(20, b"Intel Corp      ");
        put(37, &[0x00, 0x1B, 0x21]);
        put(40, b"FTLX8571D3BCV-IT");
        for (place, code) in kind.codes() {
            put(*place, &[*code]);
        }
        // CC_BASE and CC_EXT.
        for (from, to) in [(0, 63), (64, 95)] {
            let sum = bytes.iter().take(to).skip(from).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            if let Some(place) = bytes.get_mut(to) {
                *place = sum;
            }
        }
        Self {
            kind,
            fault: None,
            clock: true,
            data: true,
            mode: Mode::Idle,
            bit: 0,
            shift: 0,
            pointer: 0,
            release: true,
            diagnostics: false,
            bytes,
        }
    }

    /// The same with a fault.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        if fault == Fault::Checksum
            && let Some(sum) = self.bytes.get_mut(63)
        {
            *sum = sum.wrapping_add(1);
        }
        self.fault = Some(fault);
        self
    }

    /// What it is for.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The data wire.
    pub fn data(&self) -> bool {
        self.release && self.data && self.fault != Some(Fault::Stuck)
    }

    /// The host moves its ends of the wires.
    pub fn drive(&mut self, clock: bool, data: bool) {
        match (self.clock, clock) {
            (true, true) => self.condition(data),
            (false, true) if self.mode != Mode::Idle => self.rise(data),
            (true, false) if self.mode != Mode::Idle => self.fall(),
            _ => {}
        }
        (self.clock, self.data) = (clock, data);
    }

    /// Data moves while the clock is high: start or stop.
    fn condition(&mut self, data: bool) {
        match (self.data, data) {
            (true, false) => (self.mode, self.bit, self.shift, self.release) = (Mode::Address, 0, 0, true),
            (false, true) => (self.mode, self.release) = (Mode::Idle, true),
            _ => {}
        }
    }

    fn rise(&mut self, data: bool) {
        if self.mode == Mode::Read {
            if self.bit == 8 && data {
                // The host does not acknowledge: it has enough.
                self.mode = Mode::Idle;
            }
        } else if self.bit < 8 {
            self.shift = self.shift << 1 | u8::from(data);
        }
        self.bit += 1;
    }

    fn fall(&mut self) {
        if self.bit == 8 && self.mode != Mode::Read {
            // Acknowledge with a low data wire; an address only if it is ours.
            let address = self.mode == Mode::Address;
            let known = !address || self.shift & 0xFC == 0xA0;
            self.release = match self.fault {
                Some(Fault::Silent) => true,
                Some(Fault::Refusing) => !address || !known,
                _ => !known,
            };
            if address {
                self.diagnostics = self.shift & 2 != 0;
            }
        }
        if self.bit == 9 {
            let byte = self.shift;
            self.mode = match self.mode {
                Mode::Address if self.release => Mode::Idle,
                Mode::Address if byte & 1 == 1 => Mode::Read,
                Mode::Address => Mode::Pointer,
                Mode::Pointer => {
                    self.pointer = byte;
                    Mode::Write
                }
                other => {
                    self.pointer = self.pointer.wrapping_add(1);
                    other
                }
            };
            (self.bit, self.shift, self.release) = (0, 0, true);
        }
        if self.mode == Mode::Read {
            let byte = self.bytes.get(usize::from(self.pointer)).copied().unwrap_or(0xFF);
            let byte = if self.diagnostics { 0 } else { byte };
            self.release = self.bit >= 8 || byte >> (7 - self.bit) & 1 == 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(Module);

    impl Host {
        fn start(&mut self) {
            self.0.drive(false, true);
            self.0.drive(true, true);
            self.0.drive(true, false);
            self.0.drive(false, false);
        }

        fn stop(&mut self) {
            self.0.drive(false, false);
            self.0.drive(true, false);
            self.0.drive(true, true);
        }

        /// Clocks one bit out, and tells the wire while the clock is high.
        fn bit(&mut self, bit: bool) -> bool {
            self.0.drive(false, bit);
            self.0.drive(true, bit);
            let seen = self.0.data();
            self.0.drive(false, bit);
            seen
        }

        fn put(&mut self, byte: u8) -> bool {
            for place in (0..8).rev() {
                self.bit(byte >> place & 1 == 1);
            }
            !self.bit(true)
        }

        fn get(&mut self, more: bool) -> u8 {
            let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
            self.bit(!more);
            byte
        }

        fn read(&mut self, device: u8, pointer: u8, count: usize) -> Option<Vec<u8>> {
            self.start();
            if !self.put(device) || !self.put(pointer) {
                self.stop();
                return None;
            }
            self.start();
            assert!(self.put(device | 1));
            let bytes = (0..count).map(|index| self.get(index + 1 < count)).collect();
            self.stop();
            Some(bytes)
        }
    }

    #[test]
    fn faults_are_seen_on_the_wires() {
        let module = || Module::new(Kind::PassiveCable);
        for fault in [Fault::Silent, Fault::Refusing] {
            assert_eq!(Host(module().with(fault)).read(0xA0, 0, 1), None);
        }
        assert!(!module().with(Fault::Stuck).data());
        let sum = |module| Host(module).read(0xA0, 63, 1);
        assert_ne!(sum(module()), sum(module().with(Fault::Checksum)));
        assert_eq!(Host(module()).read(0xA0, 8, 1), Some(vec![4]));
    }

    #[test]
    fn bytes_are_read_one_by_one_and_in_a_row() {
        let mut host = Host(Module::new(Kind::ShortReach));
        assert_eq!(host.read(0xA0, 0, 1), Some(vec![3]));
        assert_eq!(host.read(0xA0, 20, 10), Some(b"Intel Corp".to_vec()));
        assert_eq!(host.read(0xA2, 20, 2), Some(vec![0, 0]));
        assert_eq!(host.read(0x50, 0, 1), None, "another address is not acknowledged");
        assert_eq!(host.read(0xA0, 3, 1), Some(vec![0x10]));
    }
}

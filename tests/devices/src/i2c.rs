//! A device with 256 bytes on two wires that a driver moves by hand: the EEPROM of an SFP+ module. SFF-8472 4; I2C, UM10204. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Idle,
    Address,
    Pointer,
    Write,
    Read,
}

/// A module.
#[derive(Clone, Debug)]
pub struct Module {
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
    /// 10GBASE-SR optics of Intel's, SFF-8472 table 5-3.
    pub fn short_range() -> Self {
        let mut bytes = Box::new([0; 256]);
        let mut put = |at: usize, text: &[u8]| {
            for (place, byte) in bytes.iter_mut().skip(at).zip(text) {
                *place = *byte;
            }
        };
        // SFP, LC connector, 10GBASE-SR, 10.3 Gbit/s.
        put(0, &[0x03, 0x04, 0x07, 0x10]);
        put(12, &[103]);
        put(20, b"Intel Corp      ");
        put(37, &[0x00, 0x1B, 0x21]);
        put(40, b"FTLX8571D3BCV-IT");
        Self {
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

    /// The data wire.
    pub const fn data(&self) -> bool {
        self.release && self.data
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
            self.release = self.mode == Mode::Address && self.shift & 0xFC != 0xA0;
            if self.mode == Mode::Address {
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
    fn bytes_are_read_one_by_one_and_in_a_row() {
        let mut host = Host(Module::short_range());
        assert_eq!(host.read(0xA0, 0, 1), Some(vec![3]));
        assert_eq!(host.read(0xA0, 20, 10), Some(b"Intel Corp".to_vec()));
        assert_eq!(host.read(0xA2, 20, 2), Some(vec![0, 0]));
        assert_eq!(host.read(0x50, 0, 1), None, "another address is not acknowledged");
        assert_eq!(host.read(0xA0, 3, 1), Some(vec![0x10]));
    }
}

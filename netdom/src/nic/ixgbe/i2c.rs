//! The two wires to an SFP+ module, which the driver moves by hand (82599 datasheet 8.2.3.1.5; I2C, UM10204, standard mode). Pure. Floor 3.

use super::registers::{self as reg, I2cctl};
use crate::nic::Delay;
use crate::nic::family::wait;
use core::time::Duration;
use split_driver::memory::Mmio;

/// How long the clock is low, and how long it is high: 100 kHz at most (UM10204, table 10: 4.7 us and 4 us).
const LOW: Duration = Duration::from_micros(5);
const HIGH: Duration = Duration::from_micros(5);
/// How many microseconds a module may hold the clock low in all (Linux: `IXGBE_I2C_CLOCK_STRETCHING_TIMEOUT`, for each bit).
const STRETCH: u32 = 500;

/// Why a module could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// Nothing acknowledges its address.
    Silent,
    /// It did, and then not what it was told.
    Refused,
    /// A wire stays low.
    Stuck,
}

impl core::fmt::Display for Error {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::Silent => "it does not acknowledge its address",
            Self::Refused => "it does not acknowledge what it is asked for",
            Self::Stuck => "it holds a wire of its bus low",
        })
    }
}

/// The wires, while they are this driver's: those of both ports are behind the semaphores of the PHYs.
struct Wires<'a, M> {
    mmio: &'a M,
    delay: Delay<'a>,
    /// Looks that are left for a module that holds the clock low.
    stretch: u32,
}

impl<M: Mmio> Wires<'_, M> {
    /// Sets this end of the wires; the clock is high when this returns, where it is to be. True where the data are high then.
    fn set(&mut self, clock: bool, data: bool) -> Result<bool, Error> {
        reg::I2CCTL.write(self.mmio, 0, I2cctl::new().with_clock_out(clock).with_data_out(data));
        if !clock {
            // A write takes less than a microsecond to get there.
            (self.delay)(LOW);
            return Ok(data);
        }
        (self.delay)(HIGH);
        let mut seen = reg::I2CCTL.read(self.mmio, 0);
        if !seen.clock() {
            let (mmio, left) = (self.mmio, &mut self.stretch);
            let risen = wait(self.delay, Duration::from_micros(1), STRETCH, || {
                *left = left.saturating_sub(1);
                *left == 0 || reg::I2CCTL.read(mmio, 0).clock()
            }) && *left > 0;
            if !risen {
                return Err(Error::Stuck);
            }
            (self.delay)(HIGH);
            seen = reg::I2CCTL.read(self.mmio, 0);
        }
        Ok(seen.data())
    }

    /// One bit each way: what is sent must be high where the other end sends. The clock falls at the end; all that follows begins with its low
    /// time.
    fn bit(&mut self, bit: bool) -> Result<bool, Error> {
        self.set(false, bit)?;
        let seen = self.set(true, bit)?;
        reg::I2CCTL.write(self.mmio, 0, I2cctl::new().with_data_out(bit));
        Ok(seen)
    }

    /// The start of a transfer, or a start again within one.
    fn start(&mut self) -> Result<(), Error> {
        self.set(false, true)?;
        if !self.set(true, true)? {
            return Err(Error::Stuck);
        }
        self.set(true, false)?;
        self.set(false, false).map(drop)
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.set(false, false)?;
        self.set(true, false)?;
        self.set(true, true).map(drop)
    }

    /// Ends a transfer that an earlier owner of the wires broke off: at most nine clocks, and a stop (UM10204 3.1.16).
    fn clear(&mut self) -> Result<(), Error> {
        for _ in 0..9 {
            if self.set(true, true)? {
                break;
            }
            self.set(false, true)?;
        }
        self.stop()
    }

    /// Sends a byte; `missing` where it is not acknowledged.
    fn put(&mut self, byte: u8, missing: Error) -> Result<(), Error> {
        for place in (0..8).rev() {
            self.bit(byte >> place & 1 == 1)?;
        }
        if self.bit(true)? { Err(missing) } else { Ok(()) }
    }

    /// Takes a byte; whether more are wanted is what is acknowledged.
    fn get(&mut self, more: bool) -> Result<u8, Error> {
        let mut byte = 0;
        for _ in 0..8 {
            byte = byte << 1 | u8::from(self.bit(true)?);
        }
        self.bit(!more)?;
        Ok(byte)
    }

    fn read(&mut self, device: u8, from: u8, bytes: &mut [u8]) -> Result<(), Error> {
        self.start()?;
        self.put(device, Error::Silent)?;
        if let Some((last, others)) = bytes.split_last_mut() {
            self.put(from, Error::Refused)?;
            self.start()?;
            self.put(device | 1, Error::Refused)?;
            for byte in others {
                *byte = self.get(true)?;
            }
            *last = self.get(false)?;
        }
        self.stop()
    }
}

/// Reads bytes of the device at the 8-bit address `device`, from the byte `from` on; with no bytes, asks whether it is there. Some 100 us a
/// byte.
///
/// # Errors
/// [`Error`], with the wires released.
pub(super) fn read<M: Mmio>(mmio: &M, device: u8, from: u8, bytes: &mut [u8], delay: Delay<'_>) -> Result<(), Error> {
    let mut wires = Wires { mmio, delay, stretch: STRETCH };
    wires.clear()?;
    let result = wires.read(device, from, bytes);
    if result.is_err() {
        let _released = wires.clear();
    }
    result
}

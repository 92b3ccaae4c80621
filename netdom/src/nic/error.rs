//! Why a NIC could not be started. Pure. Floor 3.

use crate::ethernet::MacAddress;

/// Why a device could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The registers are fewer than the family has.
    Registers {
        /// Bytes mapped.
        mapped: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// There is no device behind the registers.
    Absent {
        /// What STATUS reads as.
        status: u32,
    },
    /// The device did not come out of its reset in time.
    Reset {
        /// The register that says so.
        register: &'static str,
        /// What it reads as.
        value: u32,
    },
    /// A part of the device did not do what it was told in time.
    Stuck {
        /// The register that says so.
        register: &'static str,
        /// What it reads as.
        value: u32,
    },
    /// The device does not say that it has stopped, so that its buffers cannot be taken back.
    Running,
    /// The device has no usable address.
    Address {
        /// What it gives as its address.
        address: MacAddress,
    },
    /// A ring cannot have that many descriptors.
    Ring {
        /// Descriptors asked for.
        descriptors: u16,
    },
    /// The device cannot carry frames of that size, or a frame could not be smaller.
    MaxFrame {
        /// Bytes asked for.
        asked: usize,
        /// The most it can.
        limit: usize,
    },
    /// No memory for a ring.
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
}

impl core::fmt::Display for Error {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Registers { mapped, needed } => {
                write!(formatter, "{mapped} bytes of registers are mapped, {needed} are needed")
            }
            Self::Absent { status } => write!(formatter, "no device answers: STATUS reads as {status:#x}"),
            Self::Reset { register, value } => {
                write!(formatter, "the reset did not end in time: {register} reads as {value:#x}")
            }
            Self::Stuck { register, value } => {
                write!(formatter, "the device does not do what it is told: {register} reads as {value:#x}")
            }
            Self::Running => formatter.write_str("the device does not say that it has stopped"),
            Self::Address { address } => write!(formatter, "{address} is no address of a station"),
            Self::Ring { descriptors } => write!(formatter, "a ring cannot have {descriptors} descriptors"),
            Self::MaxFrame { asked, limit } => {
                write!(formatter, "frames of {asked} bytes are not possible, the limit is {limit}")
            }
            Self::Memory { bytes } => write!(formatter, "no memory for a ring of {bytes} bytes"),
        }
    }
}

impl core::error::Error for Error {}

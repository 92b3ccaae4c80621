//! How an image writes the recovery box when a life ends. Floor 2.
//!
//! Unsafe because the box is memory that outlives the program.

use crate::watchdog;

/// Why a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Cause {
    /// A panic or a fault.
    Failure = 0,
    /// The image asked for it.
    Asked = 1,
    /// Another image took the place of the one whose box this is.
    Replaced = 2,
    /// The image that had taken the place of this one failed before it had taken over, or gave up. The box is the one that it was given.
    GivenUp = 3,
}

impl Cause {
    pub(super) const fn of(number: u32) -> Self {
        match number {
            0 => Self::Failure,
            2 => Self::Replaced,
            3 => Self::GivenUp,
            _ => Self::Asked,
        }
    }
}

/// What the image's writer says when it cannot write the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// It has not enough room.
    Full,
    /// There is no consistent state.
    Inconsistent,
}

impl core::fmt::Display for Unwritten {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => formatter.write_str("the box has not enough room"),
            Self::Inconsistent => formatter.write_str("there is no consistent state"),
        }
    }
}

impl core::error::Error for Unwritten {}

/// Where the image writes its state when a life ends: pages reserved for it.
#[derive(Debug)]
pub struct BoxWriter {
    pub(super) address: usize,
    pub(super) capacity: usize,
    pub(super) length: usize,
    pub(super) cause: Cause,
    /// The end of this life came from outside.
    pub(super) from_outside: bool,
}

impl BoxWriter {
    /// Why the life ends.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether the image itself failed, by what it did: not where an operator's interrupt ended the life, or the image asked for the end.
    pub fn has_failed(&self) -> bool {
        self.cause == Cause::Failure && !self.from_outside
    }

    /// Bytes that it has room for yet.
    pub fn room(&self) -> usize {
        self.capacity - self.length
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Unwritten::Full`], and nothing is added.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        watchdog::beat();
        if bytes.len() > self.capacity - self.length {
            return Err(Unwritten::Full);
        }
        // SAFETY: within the box's pages, which are ours alone (`keep` allocated them) and mapped writable; `bytes` are none of them,
        // since nothing gives out references to them while they are written.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), (self.address + self.length) as *mut u8, bytes.len());
        }
        self.length += bytes.len();
        Ok(())
    }

    /// Writes four bytes again that were written at `offset`.
    pub(super) fn patch(&mut self, offset: usize, bytes: [u8; 4]) {
        if offset.checked_add(bytes.len()).is_some_and(|end| end <= self.length) {
            // SAFETY: as in `write`.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), (self.address + offset) as *mut u8, bytes.len()) };
        }
    }
}

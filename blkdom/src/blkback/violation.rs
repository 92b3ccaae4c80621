//! What a frontend must not do, and did: it closes its vbd and nothing else. Pure. Floor 3.
//!
//! There is little: a request that cannot be done, or whose grants cannot be used, is answered with an error and harms nobody. A
//! frontend whose ring makes no sense cannot even be answered.

use super::journal::JournalError;
use core::fmt;
use split_driver::hypervisor::XenError;
use split_driver::ring::RingError;

/// Why a vbd was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The request producer is further ahead than the ring is long, or went back.
    Overrun {
        /// Which queue's ring.
        queue: u16,
        /// `req_prod` as read.
        producer: u32,
        /// Requests consumed so far.
        consumer: u32,
    },
}

impl Violation {
    /// What the ring of `queue` says makes no sense.
    pub fn overrun(queue: u16, error: RingError) -> Self {
        match error {
            RingError::Overrun { producer, consumer } => Self::Overrun { queue, producer, consumer },
            // Its memory was counted when it was attached.
            RingError::TooSmall { .. } => Self::Overrun { queue, producer: 0, consumer: 0 },
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Overrun { queue, producer, consumer } => {
                write!(formatter, "ring overrun in queue {queue}: request producer {producer}, consumer {consumer}")
            }
        }
    }
}

impl core::error::Error for Violation {}

/// Why a vbd could not be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// A ring could not be mapped.
    Map {
        /// Which queue's.
        queue: u16,
        /// Why.
        error: XenError,
    },
    /// What was mapped is no ring, or claims requests that it cannot hold.
    Ring {
        /// Which queue's.
        queue: u16,
        /// Why.
        error: RingError,
    },
    /// An event channel could not be bound.
    Bind {
        /// Which queue's.
        queue: u16,
        /// Why.
        error: XenError,
    },
    /// The last life's journal of a queue's requests is of no use.
    Journal {
        /// Which queue's.
        queue: u16,
        /// Why.
        error: JournalError,
    },
    /// There are as many vbds as there can be.
    NoPlace,
    /// The memory for its requests could not be had.
    NoMemory,
}

impl fmt::Display for AttachError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map { queue, error } => write!(formatter, "mapping the ring of queue {queue}: {error}"),
            Self::Ring { queue, error } => write!(formatter, "the ring of queue {queue}: {error}"),
            Self::Bind { queue, error } => write!(formatter, "binding the event channel of queue {queue}: {error}"),
            Self::Journal { queue, error } => {
                write!(
                    formatter,
                    "the journal of the requests of queue {queue} that the last life took is of no use ({error}), so they are lost: \
                     attach the disk anew"
                )
            }
            Self::NoPlace => write!(formatter, "no place for another disk"),
            Self::NoMemory => {
                write!(formatter, "no memory for the disk's requests: give the driver domain more (memory=)")
            }
        }
    }
}

impl core::error::Error for AttachError {}

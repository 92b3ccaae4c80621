//! A receive queue: frames wait until there are descriptors for them, and go to memory as batches of transfers. Pure.

use std::collections::VecDeque;

use crate::advanced::status;
use crate::advanced::{self, Received};
use crate::bus::{Misuse, Transfer};
use crate::ethernet::frame_check;
use crate::registers::Registers;
use crate::ring::{self, Ring};

/// Descriptors used at once.
const MOST: u32 = 64;

/// A frame as it goes to memory.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its bytes, with the frame check sequence where that is kept.
    pub frame: Vec<u8>,
    /// Its description.
    pub about: Received,
    /// The length to be told in place of its own.
    pub told: Option<u16>,
}

impl Incoming {
    /// A frame with its description: `strips` where its `tag` is taken out, `checked` where its frame check sequence is kept.
    pub fn new(mut frame: Vec<u8>, mut about: Received, tag: Option<u16>, strips: bool, checked: bool) -> Self {
        if checked {
            let check = frame_check(&frame);
            frame.extend(check);
        }
        if let Some(tag) = tag.filter(|_| strips) {
            frame.drain(12..16);
            about.vlan = tag;
            about.status |= status::VP;
        }
        Self { frame, about, told: None }
    }
}

/// How a queue is set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of each buffer, SRRCTL.BSIZEPACKET.
    pub buffer: usize,
    /// SRRCTL.DROP_EN: frames without descriptors are dropped; otherwise they wait.
    pub drop: bool,
    /// The driver is to clear DD in the descriptors that it gives.
    pub clears_done: bool,
}

#[derive(Debug)]
enum Step {
    Idle,
    /// Descriptors for the first `frames` that wait.
    Descriptors {
        taken: u32,
        frames: usize,
    },
    WriteBack {
        taken: u32,
        frames: usize,
    },
    Halted,
}

/// The result of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Frames that are in memory.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// One queue.
#[derive(Debug)]
pub struct ReceiveQueue {
    first_register: usize,
    step: Step,
    transfers: Vec<Transfer>,
    waiting: VecDeque<Incoming>,
    bytes: usize,
}

impl ReceiveQueue {
    /// A queue whose first register lies at `first_register`.
    pub fn new(first_register: usize) -> Self {
        Self { first_register, step: Step::Idle, transfers: Vec::new(), waiting: VecDeque::new(), bytes: 0 }
    }

    /// As after power-on; also where it is disabled. Waiting frames are lost.
    pub fn reset(&mut self) {
        *self = Self::new(self.first_register);
    }

    /// Whether it is amid a batch.
    pub const fn is_busy(&self) -> bool {
        !matches!(self.step, Step::Idle | Step::Halted)
    }

    /// Bytes that wait for descriptors.
    pub const fn waiting(&self) -> usize {
        self.bytes
    }

    /// Puts a frame behind those that wait.
    pub fn push(&mut self, incoming: Incoming) {
        self.bytes += incoming.frame.len();
        self.waiting.push_back(incoming);
    }

    fn pop(&mut self) -> Option<Incoming> {
        let incoming = self.waiting.pop_front()?;
        self.bytes -= incoming.frame.len();
        Some(incoming)
    }

    /// Adds its next transfers to `batch`; nothing new is begun unless `enabled`. Returns how many frames were dropped for
    /// want of descriptors.
    pub fn poll(&mut self, registers: &Registers, enabled: bool, settings: Settings, batch: &mut Vec<Transfer>) -> u32 {
        let mut dropped = 0;
        if enabled
            && matches!(self.step, Step::Idle)
            && let Some(ring) = Ring::new(registers, self.first_register)
        {
            let needs = |incoming: &Incoming| incoming.frame.len().div_ceil(settings.buffer.max(1)).max(1) as u32;
            // A frame that can never have enough descriptors, or must not wait for them, is dropped.
            while let Some(front) = self.waiting.front()
                && (needs(front) >= ring.count || settings.drop && needs(front) > ring.available())
            {
                self.pop();
                dropped += 1;
            }
            let (mut taken, mut frames) = (0, 0);
            for incoming in &self.waiting {
                let more = taken + needs(incoming);
                if more > ring.available() || frames > 0 && more > MOST {
                    break;
                }
                (taken, frames) = (more, frames + 1);
            }
            for (first, count) in ring.pieces(taken) {
                self.transfers.push(Transfer::read(ring.address(first), count as usize * advanced::BYTES));
                self.step = Step::Descriptors { taken, frames };
            }
        }
        batch.append(&mut self.transfers);
        dropped
    }

    /// Its part of a batch came back.
    pub fn handle(
        &mut self,
        registers: &mut Registers,
        done: &[Transfer],
        settings: Settings,
        misuse: &mut Misuse,
    ) -> Outcome {
        let refused = done.iter().any(|transfer| !transfer.done);
        let mut outcome = Outcome::default();
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Idle => {}
            Step::Halted => self.step = Step::Halted,
            Step::Descriptors { taken, frames } => {
                if refused {
                    misuse.note("receive descriptors lie where the device may not read");
                    self.step = Step::Halted;
                    return outcome;
                }
                let bytes: Vec<u8> = done.iter().flat_map(|transfer| transfer.data.iter().copied()).collect();
                if let Some(ring) = Ring::new(registers, self.first_register) {
                    self.fill(&ring, &bytes, frames, settings, misuse);
                    self.step = Step::WriteBack { taken, frames };
                }
            }
            Step::WriteBack { taken, frames } => {
                if refused {
                    misuse.note("a receive buffer or descriptor lies where the device may not write");
                }
                for _ in 0..frames {
                    let Some(incoming) = self.pop() else { break };
                    outcome.frames += 1;
                    outcome.bytes += incoming.frame.len();
                }
                if let Some(ring) = Ring::new(registers, self.first_register) {
                    registers.set(self.first_register + ring::offset::HEAD, ring.after(taken));
                }
            }
        }
        outcome
    }

    /// Frames into buffers: first a piece's bytes, then its descriptor.
    fn fill(&mut self, ring: &Ring, descriptors: &[u8], frames: usize, settings: Settings, misuse: &mut Misuse) {
        let mut descriptors = (ring.head..).zip(descriptors.chunks(advanced::BYTES));
        for incoming in self.waiting.iter().take(frames) {
            let mut pieces = incoming.frame.chunks(settings.buffer.max(1)).peekable();
            while let Some(piece) = pieces.next() {
                let Some((index, bytes)) = descriptors.next() else { return };
                // The header's address, of which the datasheet wants bit 0 clear, is not used: Linux leaves an old status there.
                let [low, high, status, _] = advanced::words(bytes);
                if settings.clears_done && status & advanced::status::DD != 0 {
                    misuse.note("a receive descriptor was posted as done");
                }
                let address = u64::from(low) | u64::from(high) << 32;
                if address == 0 {
                    misuse.note("a receive descriptor without a buffer");
                }
                let last = pieces.peek().is_none();
                let length = incoming.told.unwrap_or(piece.len() as u16);
                self.transfers.push(Transfer::write(address, piece.to_vec()));
                let words = incoming.about.write_back(length, last);
                self.transfers.push(Transfer::write(ring.address(index), advanced::bytes(words)));
            }
        }
    }
}

//! A transmit queue: fetches descriptors, then buffers, then writes back, each as a batch of transfers. Pure.
//!
//! | step | transfers | then |
//! |---|---|---|
//! | idle | descriptors, up to the tail | they are read |
//! | descriptors | the buffers of data descriptors | packets go out as frames |
//! | buffers | DD of the descriptors that asked for it, or the head | the head moves, the cause is set |
//!
//! A packet may lie in descriptors of several runs.

use std::fmt::Debug;

use crate::advanced::{self, Advanced, Data, Transmit};
use crate::bus::{Misuse, Transfer};
use crate::registers::Registers;
use crate::ring::{self, Ring};

/// Descriptors fetched at once.
const MOST: u32 = 128;
/// Data descriptors of a packet, 82599 datasheet 7.2.1.1.
const PIECES: usize = 40;
/// Bytes of the longest packet that can be segmented: PAYLEN and its headers.
const LONGEST_PACKET: usize = (1 << 18) + 512;

/// How a device reads transmit descriptors, and reports on them.
pub trait Format: Debug + Sized {
    /// The contents of a context descriptor.
    type Context: Copy + Debug;
    /// Whether it may write its head to memory in place of reports.
    const HEAD_WRITE_BACK: bool;

    /// Reads four words.
    fn parse(words: [u32; 4]) -> Transmit<Self::Context>;

    /// Which of the queue's two contexts it fills.
    fn place(context: &Self::Context) -> usize;

    /// The report on the descriptor at `address`.
    fn report(address: u64) -> Transfer;

    /// Frames as they go to the wire, for `packet` as its first data descriptor and the context tell; `vlan` is the type of inserted tags,
    /// `None` where the device inserts none.
    ///
    /// # Errors
    /// The driver's offence.
    fn apply(
        packet: Vec<u8>,
        first: &Data,
        context: Option<&Self::Context>,
        vlan: Option<u16>,
    ) -> Result<Vec<Vec<u8>>, &'static str>;
}

#[derive(Debug)]
enum Step<F: Format> {
    Idle,
    Descriptors {
        taken: u32,
    },
    Buffers {
        taken: u32,
        descriptors: Vec<Transmit<F::Context>>,
    },
    WriteBack {
        taken: u32,
        reported: bool,
    },
    /// A descriptor could not be fetched; until the queue is enabled again.
    Halted,
}

/// Settings that a device's queues share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// EtherType of inserted tags; `None` where none is inserted.
    pub vlan: Option<u16>,
    /// Bytes of the longest packet that need not be segmented.
    pub longest: usize,
}

/// The result of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Frames for the wire.
    pub frames: Vec<Vec<u8>>,
    /// Descriptors that asked for it were reported: set the queue's cause.
    pub reported: bool,
}

/// One queue.
#[derive(Debug)]
pub struct TransmitQueue<F: Format = Advanced> {
    first_register: usize,
    step: Step<F>,
    transfers: Vec<Transfer>,
    contexts: [Option<F::Context>; 2],
    contexts_seen: usize,
    packet: Vec<u8>,
    first: Option<Data>,
    pieces: usize,
}

impl<F: Format> TransmitQueue<F> {
    /// A queue whose first register lies at `first_register`.
    pub fn new(first_register: usize) -> Self {
        Self {
            first_register,
            step: Step::Idle,
            transfers: Vec::new(),
            contexts: [None; 2],
            contexts_seen: 0,
            packet: Vec::new(),
            first: None,
            pieces: 0,
        }
    }

    /// As after power-on; also where it is disabled.
    pub fn reset(&mut self) {
        *self = Self::new(self.first_register);
    }

    /// Context descriptors taken since it was enabled.
    pub const fn contexts_seen(&self) -> usize {
        self.contexts_seen
    }

    /// Whether it is amid a run of descriptors.
    pub const fn is_busy(&self) -> bool {
        !matches!(self.step, Step::Idle | Step::Halted)
    }

    /// Adds its next transfers to `batch`; nothing new is begun unless `enabled`.
    pub fn poll(&mut self, registers: &Registers, enabled: bool, batch: &mut Vec<Transfer>) {
        if enabled
            && matches!(self.step, Step::Idle)
            && let Some(ring) = Ring::new(registers, self.first_register)
        {
            let taken = ring.available().min(MOST);
            for (first, count) in ring.pieces(taken) {
                self.transfers.push(Transfer::read(ring.address(first), count as usize * advanced::BYTES));
                self.step = Step::Descriptors { taken };
            }
        }
        batch.append(&mut self.transfers);
    }

    /// Its part of a batch came back.
    pub fn handle(&mut self, registers: &mut Registers, done: &[Transfer], wire: Wire, misuse: &mut Misuse) -> Outcome {
        let mut outcome = Outcome::default();
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Idle => {}
            Step::Halted => self.step = Step::Halted,
            Step::Descriptors { taken } => {
                if done.iter().any(|transfer| !transfer.done) {
                    misuse.note("transmit descriptors lie where the device may not read");
                    self.step = Step::Halted;
                    return outcome;
                }
                let bytes: Vec<u8> = done.iter().flat_map(|transfer| transfer.data.iter().copied()).collect();
                let descriptors = bytes.chunks(advanced::BYTES).map(|chunk| F::parse(advanced::words(chunk)));
                let descriptors: Vec<_> = descriptors.collect();
                self.ask_buffers(&descriptors);
                self.step = Step::Buffers { taken, descriptors };
                if self.transfers.is_empty() {
                    return self.handle(registers, &[], wire, misuse);
                }
            }
            Step::Buffers { taken, descriptors } => {
                let mut buffers = done.iter();
                for descriptor in &descriptors {
                    self.take(*descriptor, &mut buffers, wire, misuse, &mut outcome.frames);
                }
                let reported = self.ask_write_back(registers, taken, &descriptors);
                self.step = Step::WriteBack { taken, reported };
                if self.transfers.is_empty() {
                    outcome.reported = self.finish(registers, taken, reported);
                }
            }
            Step::WriteBack { taken, reported } => {
                if done.iter().any(|transfer| !transfer.done) {
                    misuse.note("transmit descriptors lie where the device may not write");
                }
                outcome.reported = self.finish(registers, taken, reported);
            }
        }
        outcome
    }

    fn finish(&mut self, registers: &mut Registers, taken: u32, reported: bool) -> bool {
        self.step = Step::Idle;
        if let Some(ring) = Ring::new(registers, self.first_register) {
            registers.set(self.first_register + ring::offset::HEAD, ring.after(taken));
        }
        reported
    }

    fn ask_buffers(&mut self, descriptors: &[Transmit<F::Context>]) {
        for descriptor in descriptors {
            if let Transmit::Data(data) = descriptor
                && data.length > 0
            {
                self.transfers.push(Transfer::read(data.address, data.length));
            }
        }
    }

    fn ask_write_back(&mut self, registers: &Registers, taken: u32, descriptors: &[Transmit<F::Context>]) -> bool {
        let Some(ring) = Ring::new(registers, self.first_register) else {
            return false;
        };
        let reports = |descriptor: &Transmit<F::Context>| matches!(descriptor, Transmit::Data(data) if data.report);
        let head = registers.wide(self.first_register + ring::offset::HEAD_WRITE_BACK);
        let reported = descriptors.iter().any(reports);
        if F::HEAD_WRITE_BACK && head & 1 != 0 {
            if reported {
                let bytes = ring.after(taken).to_le_bytes().to_vec();
                self.transfers.push(Transfer::write(head & !3, bytes));
            }
            return reported;
        }
        for (index, _) in (ring.head..).zip(descriptors).filter(|(_, descriptor)| reports(descriptor)) {
            self.transfers.push(F::report(ring.address(index)));
        }
        reported
    }

    /// One descriptor in its turn, with the next of `buffers` where it has one.
    fn take<'a>(
        &mut self,
        descriptor: Transmit<F::Context>,
        buffers: &mut impl Iterator<Item = &'a Transfer>,
        wire: Wire,
        misuse: &mut Misuse,
        frames: &mut Vec<Vec<u8>>,
    ) {
        let data = match descriptor {
            Transmit::Legacy => return misuse.note("a legacy transmit descriptor"),
            Transmit::Unknown(kind) => return misuse.note(format!("a transmit descriptor of reserved type {kind}")),
            Transmit::Context(context) => {
                if self.first.is_some() {
                    misuse.note("a context descriptor amid a packet");
                }
                self.contexts_seen += 1;
                match self.contexts.get_mut(F::place(&context)) {
                    Some(place) => *place = Some(context),
                    None => misuse.note("a context with an index above 1"),
                }
                return;
            }
            Transmit::Data(data) => data,
        };
        if data.done {
            misuse.note("a transmit descriptor was posted as done");
        }
        if data.length == 0 {
            misuse.note("a data descriptor without data");
        } else if let Some(buffer) = buffers.next() {
            if !buffer.done {
                misuse.note("a packet lies where the device may not read");
            }
            self.packet.extend_from_slice(&buffer.data);
        }
        self.pieces += 1;
        let first = *self.first.get_or_insert(data);
        if self.pieces > PIECES || self.packet.len() > LONGEST_PACKET {
            misuse.note("a packet in more than 40 descriptors, or without an end");
            self.packet.clear();
        }
        if !data.end {
            return;
        }
        let packet = std::mem::take(&mut self.packet);
        let pieces = std::mem::take(&mut self.pieces);
        self.first = None;
        if pieces > PIECES {
            return;
        }
        if !first.segment && packet.len() > wire.longest {
            return misuse.note(format!("a packet longer than {} bytes that is not segmented", wire.longest));
        }
        match F::apply(packet, &first, self.contexts.get(first.context).and_then(Option::as_ref), wire.vlan) {
            Ok(made) => frames.extend(made),
            Err(offence) => misuse.note(offence),
        }
    }
}

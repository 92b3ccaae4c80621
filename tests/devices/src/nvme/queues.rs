//! Queues in memory: commands in, answers out, and the interrupts that tell of them. Pure.

use blkdom::disk::nvme::command::{COMMAND_WORDS, Status};

use super::{Fetched, Nvme};
use crate::bus::{Interrupt, Transfer};
use crate::work::{Next, words};

/// A submission queue, as the device knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Submission {
    address: u64,
    depth: u16,
    head: u16,
    /// What the driver has filled.
    tail: u16,
}

impl Submission {
    pub(super) const fn new(address: u64, depth: u16) -> Self {
        Self { address, depth, head: 0, tail: 0 }
    }
}

/// A completion queue, as the device knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    address: u64,
    depth: u16,
    tail: u16,
    phase: bool,
    /// What the driver has taken.
    head: u16,
    vector: u16,
}

impl Completion {
    pub(super) const fn new(address: u64, depth: u16, vector: u16) -> Self {
        Self { address, depth, tail: 0, phase: true, head: 0, vector }
    }
}

/// What is to be written to a completion queue, and the vector of the message that tells of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posted {
    address: u64,
    words: [u32; 4],
    vector: Option<u16>,
}

impl Nvme {
    pub(super) fn tail_written(&mut self, queue: usize, tail: u32) {
        match self.submissions.get_mut(queue) {
            Some(Some(submission)) if tail < u32::from(submission.depth) => submission.tail = tail as u16,
            Some(Some(_)) => self.misuse.note("a tail beyond the queue"),
            _ => self.misuse.note("a doorbell of no submission queue"),
        }
    }

    pub(super) fn head_written(&mut self, queue: usize, head: u32) {
        match self.completions.get_mut(queue) {
            Some(Some(completion)) if head < u32::from(completion.depth) => completion.head = head as u16,
            _ => self.misuse.note("a head beyond the queue"),
        }
        self.set_line();
    }

    /// Reads what a submission queue holds.
    pub(super) fn fetch(&mut self) -> Option<Next<Self>> {
        let filled = |queue: &&mut Option<Submission>| queue.is_some_and(|queue| queue.head != queue.tail);
        let (number, queue) = (0u16..).zip(&mut self.submissions).find(|(_, queue)| filled(queue))?;
        let queue = queue.as_mut()?;
        let mut batch = Vec::new();
        while queue.head != queue.tail {
            batch.push(Transfer::read(queue.address + u64::from(queue.head) * 64, COMMAND_WORDS * 4));
            queue.head = (queue.head + 1) % queue.depth;
        }
        Some(Next::then(batch, move |device: &mut Self, batch| {
            for transfer in batch {
                let fetched = Fetched { queue: number, entry: words(&transfer.data) };
                match device.forestalled.iter().position(|known| *known == (number, fetched.id())) {
                    Some(place) => drop(device.forestalled.swap_remove(place)),
                    None => device.inbox.push_back(fetched),
                }
            }
            Next::Done
        }))
    }

    /// Carries out a command.
    pub(super) fn execute(&mut self, fetched: Fetched) -> Next<Self> {
        if self.status.fatal() || !self.status.ready() {
            return Next::Done;
        }
        let deaf = if fetched.queue == 0 { self.admin_deaf } else { self.deaf };
        if deaf {
            self.silent.push(fetched);
            return Next::Done;
        }
        if fetched.queue == 0 { self.admin(fetched) } else { self.io(fetched) }
    }

    /// Answers a command.
    pub(super) fn answer(&mut self, fetched: &Fetched, status: Status, result: u32) {
        let head = self.submissions.get(usize::from(fetched.queue)).copied().flatten().map_or(0, |queue| queue.head);
        let status = u32::from(u16::from(status.with_phase(false)));
        let owner = u32::from(fetched.queue) << 16;
        self.post(fetched.queue, [result, 0, owner | u32::from(head), status << 16 | u32::from(fetched.id())]);
    }

    /// The next entry of a completion queue is to be written.
    pub(super) fn post(&mut self, queue: u16, [result, reserved, head, status]: [u32; 4]) {
        let Some(Some(completion)) = self.completions.get_mut(usize::from(queue)) else {
            return;
        };
        let address = completion.address + u64::from(completion.tail) * 16;
        let status = status & !(1 << 16) | u32::from(completion.phase) << 16;
        completion.tail = (completion.tail + 1) % completion.depth;
        if completion.tail == 0 {
            completion.phase = !completion.phase;
        }
        if completion.tail == completion.head {
            self.misuse.note("the completion queue overflows");
        }
        let words = [result, reserved, head, status];
        self.posted.push_back(Posted { address, words, vector: Some(completion.vector) });
    }

    /// Any entry of a completion queue is to be written, and nothing told.
    pub(super) fn overwrite(&mut self, queue: u16, place: u16, words: [u32; 4]) {
        if let Some(Some(completion)) = self.completions.get(usize::from(queue)) {
            let address = completion.address + u64::from(place % completion.depth) * 16;
            self.posted.push_back(Posted { address, words, vector: None });
        }
    }

    /// Writes an entry, and tells of it.
    pub(super) fn deliver(posted: Posted) -> Next<Self> {
        let bytes = posted.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Next::then(vec![Transfer::write(posted.address, bytes)], move |device: &mut Self, _| {
            if let Some(vector) = posted.vector {
                device.tell(vector);
            }
            Next::Done
        })
    }

    /// A command is taken for answered.
    pub(super) fn drop_command(&mut self, queue: u16, id: u16) {
        let before = self.inbox.len() + self.silent.len();
        self.inbox.retain(|fetched| fetched.queue != queue || fetched.id() != id);
        self.silent.retain(|fetched| fetched.queue != queue || fetched.id() != id);
        if self.inbox.len() + self.silent.len() == before {
            self.forestalled.push((queue, id));
        }
    }

    /// INTMS and INTMC.
    pub(super) fn mask(&mut self, masked: bool) {
        if matches!(self.space.interrupt(0), Some(Interrupt::MsiX(_))) {
            self.misuse.note("INTMS or INTMC with MSI-X");
        }
        self.masked = masked;
        if !masked && self.has_answers() && self.space.interrupt(0) == Some(Interrupt::Msi) {
            self.messages.push_back(Interrupt::Msi);
        }
        self.set_line();
    }

    /// Entries that the driver has not taken.
    fn has_answers(&self) -> bool {
        self.completions.iter().flatten().any(|completion| completion.head != completion.tail)
    }

    fn tell(&mut self, vector: u16) {
        match self.space.interrupt(vector) {
            Some(Interrupt::Msi) if self.masked => {}
            Some(message @ (Interrupt::Msi | Interrupt::MsiX(_))) => self.messages.push_back(message),
            _ => self.set_line(),
        }
    }

    /// The INTx line follows the queues.
    pub(super) fn set_line(&mut self) {
        let wired = matches!(self.space.interrupt(0), Some(Interrupt::Line(_)));
        let up = wired && !self.masked && self.has_answers();
        if up != self.line {
            self.line = up;
            self.messages.push_back(Interrupt::Line(up));
        }
    }
}

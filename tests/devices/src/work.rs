//! What a device does in steps, between which it waits for memory: fetch a command, follow its list of pages, move its data. Pure.
//!
//! A step is told the transfers of the step before it, done or refused, and says what is next. One thing is done at a time, so that
//! commands have their effects in the order in which they were begun.

use crate::bus::Transfer;

/// A step of `M`, given the transfers that it waited for.
pub type Step<M> = Box<dyn FnOnce(&mut M, Vec<Transfer>) -> Next<M> + Send>;

/// What follows a step.
pub enum Next<M> {
    /// Nothing: that was the last one.
    Done,
    /// Another, after these transfers.
    Then(Vec<Transfer>, Step<M>),
}

impl<M> Next<M> {
    /// `step` after `transfers`.
    pub fn then(transfers: Vec<Transfer>, step: impl FnOnce(&mut M, Vec<Transfer>) -> Self + Send + 'static) -> Self {
        Self::Then(transfers, Box::new(step))
    }
}

/// The thing that a device does.
pub enum Work<M> {
    /// None.
    Idle,
    /// It waits for these transfers, which are not out yet.
    Ready(Vec<Transfer>, Step<M>),
    /// It waits for transfers that are out.
    Out(Step<M>),
}

/// A device that works in steps.
pub trait Worker: Sized {
    /// Where its work is.
    fn work(&mut self) -> &mut Work<Self>;

    /// Begins the next thing that there is to do.
    fn begin(&mut self) -> Option<Next<Self>>;

    /// What [`Model::poll_dma`](crate::bus::Model::poll_dma) is to give.
    fn next_batch(&mut self) -> Vec<Transfer> {
        while matches!(self.work(), Work::Idle) {
            let Some(next) = self.begin() else {
                return Vec::new();
            };
            self.go_on(next);
        }
        match std::mem::replace(self.work(), Work::Idle) {
            Work::Ready(batch, step) => {
                *self.work() = Work::Out(step);
                batch
            }
            other => {
                *self.work() = other;
                Vec::new()
            }
        }
    }

    /// What [`Model::handle_dma`](crate::bus::Model::handle_dma) is to do.
    fn finish_batch(&mut self, batch: Vec<Transfer>) {
        match std::mem::replace(self.work(), Work::Idle) {
            Work::Out(step) => {
                let next = step(self, batch);
                self.go_on(next);
            }
            other => *self.work() = other,
        }
    }

    /// What is being done comes to nothing; transfers that are out are waited for all the same.
    fn forget_work(&mut self) {
        let work = self.work();
        *work = match work {
            Work::Out(_) => Work::Out(Box::new(|_, _| Next::Done)),
            _ => Work::Idle,
        };
    }

    /// Takes steps up to one that waits for memory.
    fn go_on(&mut self, mut next: Next<Self>) {
        while let Next::Then(batch, step) = next {
            if !batch.is_empty() {
                *self.work() = Work::Ready(batch, step);
                return;
            }
            next = step(self, batch);
        }
    }
}

/// Little-endian words of what was read.
pub fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

//! A word that a hostile guest changes all the time, within a step of the backend. Host.

use split_driver::fakes::GuestMemory;
use split_driver::fakes::peer::{Fetches, Peer, Step};
use split_driver::memory::SharedMemory;
use std::sync::atomic::Ordering;

/// A word that is another one each time that it is looked at, or with each grant copy.
#[derive(Clone)]
pub(crate) struct Flicker {
    memory: GuestMemory,
    place: usize,
    value: u32,
    copies: bool,
}

impl Flicker {
    /// Of that word of a memory: these bits are turned over, before each look at the word or, with `copies`, before each grant copy.
    pub(crate) fn new(memory: &GuestMemory, place: usize, value: u32, copies: bool) -> Self {
        Self { memory: memory.clone(), place: place % memory.words().len().max(1), value, copies }
    }

    fn act(&self, step: Step<'_>) {
        let due = match step {
            Step::Look(words) => {
                let first = self.memory.place(words);
                !self.copies && first.is_some_and(|first| (first..first + words.len()).contains(&self.place))
            }
            Step::Copy => self.copies,
        };
        if let Some(word) = self.memory.words().get(self.place).filter(|_| due) {
            word.fetch_xor(self.value, Ordering::Relaxed);
        }
    }
}

/// A peer that changes that word, and counts what is fetched.
pub(crate) fn peer(fetches: Vec<Fetches>, flicker: Option<Flicker>) -> Peer {
    Box::new(move |step| {
        fetches.iter().for_each(|fetches| fetches.note(step));
        if let Some(flicker) = &flicker {
            flicker.act(step);
        }
    })
}

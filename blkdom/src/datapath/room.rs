//! Room for the tables of mapped grants, which the vbds of a domain share. Pure. Floor 3.
//!
//! A table grows and shrinks by steps. A vbd may always have an equal part of all steps, and more as long as as many are free as it has: so
//! a few busy ones have all that they can use, and one that comes late finds some. Where one gets less than its part, those with more
//! are to give back. A vbd without any room is served all the same, by way of bounce pages.

/// Steps of one vbd, and where they come from.
pub(crate) struct Loan<'a> {
    pub(crate) room: &'a mut Room,
    /// Steps that the vbd has.
    pub(crate) held: &'a mut usize,
}

impl Loan<'_> {
    /// Takes a step more. False where the vbd may not have it now.
    pub(crate) fn take(&mut self) -> bool {
        let free = self.room.steps.saturating_sub(self.room.lent);
        let entitled = *self.held < self.room.part();
        if free == 0 || !entitled && *self.held >= free {
            self.room.short |= entitled;
            return false;
        }
        self.room.lent += 1;
        *self.held += 1;
        true
    }

    /// Gives steps back.
    pub(crate) fn give(&mut self, steps: usize) {
        debug_assert!(steps <= *self.held && steps <= self.room.lent, "more than was taken");
        *self.held = self.held.saturating_sub(steps);
        self.room.lent = self.room.lent.saturating_sub(steps);
    }
}

/// All steps of a domain.
pub(crate) struct Room {
    steps: usize,
    lent: usize,
    /// The vbds that share them.
    vbds: usize,
    /// A vbd got less than its part since the last [`take_short`](Self::take_short).
    short: bool,
}

impl Room {
    /// A room of this many steps.
    pub(crate) const fn new(steps: usize) -> Self {
        Self { steps, lent: 0, vbds: 0, short: false }
    }

    /// The steps that a vbd may always have.
    pub(crate) fn part(&self) -> usize {
        self.steps / self.vbds.max(1)
    }

    /// Steps that are in use.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    /// Another vbd shares them.
    pub(crate) fn join(&mut self) {
        self.vbds += 1;
    }

    /// A vbd that has given all back goes.
    pub(crate) fn leave(&mut self) {
        debug_assert!(self.vbds > 0, "left twice");
        self.vbds = self.vbds.saturating_sub(1);
    }

    /// Whether one got less than its part since this was called last: who has more is to give a step back.
    pub(crate) fn take_short(&mut self) -> bool {
        core::mem::take(&mut self.short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(room: &mut Room, held: &mut usize) {
        while (Loan { room, held }).take() {}
    }

    #[test]
    fn one_alone_leaves_half_for_those_who_come() {
        let mut room = Room::new(64);
        room.join();
        let mut first = 0;
        fill(&mut room, &mut first);
        assert_eq!(first, 64, "alone, all is its part");
        let mut room = Room::new(64);
        (0..4).for_each(|_| room.join());
        let mut held = [0; 4];
        held.iter_mut().for_each(|held| fill(&mut room, held));
        assert_eq!(held, [32, 16, 16, 0]);
        assert!(room.take_short() && !room.take_short());
        // Who has more than its part gives back, and the last one gets its own.
        for _ in 0..16 {
            Loan { room: &mut room, held: &mut held[0] }.give(1);
            assert!(Loan { room: &mut room, held: &mut held[3] }.take());
            assert!(!Loan { room: &mut room, held: &mut held[0] }.take());
        }
        assert_eq!((held, room.lent()), ([16; 4], 64));
        fill(&mut room, &mut held[3]);
        assert!(!room.take_short(), "each has its part");
    }
}

//! Which cause of an interrupt arrives at which vector. Pure. Floor 3.

use super::Interrupts;

/// Where each cause arrives.
///
/// | vectors | receive queue `q` | transmit | link and faults |
/// |--:|--:|--:|--:|
/// | 1, MSI, INTx | 0 | 0 | 0 |
/// | 2 | 0 | 0 | 1 |
/// | n | q mod (n - 2) | n - 2 | n - 1 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiring {
    by_message: bool,
    /// Vectors of receive queues.
    receive: u8,
    transmit: u8,
    other: u8,
}

/// Vectors that all families have.
const MOST: u8 = 16;

impl Wiring {
    /// For these interrupts.
    pub fn new(interrupts: Interrupts) -> Self {
        let (by_message, vectors) = match interrupts {
            Interrupts::Single => (false, 1),
            Interrupts::MsiX(vectors) => (true, u8::try_from(vectors).map_or(MOST, |vectors| vectors.min(MOST))),
        };
        let (receive, transmit, other) = match vectors {
            0 | 1 => (1, 0, 0),
            2 => (1, 0, 1),
            vectors => (vectors - 2, vectors - 2, vectors - 1),
        };
        Self { by_message, receive, transmit, other }
    }

    /// Whether each vector is a message of its own: MSI-X.
    pub const fn is_by_message(self) -> bool {
        self.by_message
    }

    /// Queues that have a vector each.
    pub fn queues(self) -> usize {
        self.receive.into()
    }

    /// Of frames received by a queue.
    pub fn receive(self, queue: usize) -> u8 {
        // A remainder of a division by a u8 is one.
        (queue % usize::from(self.receive)) as u8
    }

    /// Of packets sent by any queue.
    pub const fn transmit(self) -> u8 {
        self.transmit
    }

    /// Of the link, and of faults.
    pub const fn other(self) -> u8 {
        self.other
    }

    /// Whether the interrupts of a queue are among those of a vector.
    pub fn concerns(self, vector: usize, queue: usize) -> bool {
        let vector = u8::try_from(vector).unwrap_or(u8::MAX);
        vector == self.receive(queue) || vector == self.transmit || vector == self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_vector_that_there_is() {
        for vectors in 0..40 {
            let wiring = Wiring::new(Interrupts::MsiX(vectors));
            let there = vectors.clamp(1, 16);
            assert!(wiring.is_by_message());
            for queue in 0..8 {
                assert!(usize::from(wiring.receive(queue)) < there);
                assert!(wiring.concerns(wiring.receive(queue).into(), queue));
            }
            assert!(usize::from(wiring.transmit()) < there && usize::from(wiring.other()) < there);
        }
        let single = Wiring::new(Interrupts::Single);
        assert!(!single.is_by_message() && single.concerns(0, 3) && single.queues() == 1);
        let six = Wiring::new(Interrupts::MsiX(6));
        assert_eq!((six.queues(), six.receive(3), six.receive(5), six.transmit(), six.other()), (4, 3, 1, 4, 5));
        assert!(!six.concerns(2, 3));
    }
}

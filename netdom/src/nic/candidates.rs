//! Which of the domain's PCI devices is its NIC, and which one takes over when that is taken away. Pure. Floor 3.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The devices, by their addresses. One at a time is the NIC; those that came later wait in their order.
#[derive(Debug)]
pub struct Candidates<A, D> {
    used: Option<A>,
    spare: VecDeque<(A, D)>,
    /// Those that are of no use.
    refused: Vec<A>,
}

impl<A, D> Default for Candidates<A, D> {
    fn default() -> Self {
        Self { used: None, spare: VecDeque::new(), refused: Vec::new() }
    }
}

impl<A: Copy + PartialEq, D> Candidates<A, D> {
    /// A device is there.
    pub fn arrive(&mut self, address: A, device: D) {
        self.spare.push_back((address, device));
    }

    /// Takes the device that becomes the NIC now. `None` while there is a NIC, or no device.
    pub fn poll_next(&mut self) -> Option<D> {
        if self.used.is_some() {
            return None;
        }
        let (address, device) = self.spare.pop_front()?;
        self.used = Some(address);
        Some(device)
    }

    /// The device that was to be the NIC is of no use.
    pub fn refuse(&mut self, address: A) {
        if self.used == Some(address) {
            self.used = None;
        }
        self.refused.push(address);
    }

    /// A device is taken away. Whether it was the NIC.
    pub fn depart(&mut self, address: A) -> bool {
        self.refused.retain(|refused| *refused != address);
        self.spare.retain(|(spare, _)| *spare != address);
        let was_used = self.used == Some(address);
        if was_used {
            self.used = None;
        }
        was_used
    }

    /// Devices that wait.
    pub fn spare(&self) -> impl Iterator<Item = &D> {
        self.spare.iter().map(|(_, device)| device)
    }

    /// Whether all that there is is of no use.
    pub fn are_useless(&self) -> bool {
        self.used.is_none() && !self.refused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(candidates: &mut Candidates<u8, char>, devices: &[(u8, char)]) -> Vec<char> {
        let mut taken = Vec::new();
        for &(address, device) in devices {
            candidates.arrive(address, device);
            taken.extend(candidates.poll_next());
        }
        taken
    }

    #[test]
    fn the_next_one_takes_over() {
        let mut candidates = Candidates::default();
        assert_eq!(arrive(&mut candidates, &[(3, 'a'), (4, 'b'), (5, 'c'), (6, 'd')]), ['a']);
        assert_eq!(candidates.spare().collect::<Vec<_>>(), [&'b', &'c', &'d']);
        assert!(!candidates.depart(4), "one that waits");
        assert_eq!(candidates.poll_next(), None, "there is a NIC");
        assert!(candidates.depart(3));
        assert_eq!((candidates.poll_next(), candidates.poll_next()), (Some('c'), None));
        assert!(candidates.depart(5) && !candidates.depart(5));
        assert_eq!(candidates.poll_next(), Some('d'));
        assert!(candidates.depart(6));
        assert_eq!((candidates.poll_next(), candidates.are_useless()), (None, false));
        // And the first one again.
        assert_eq!(arrive(&mut candidates, &[(3, 'a')]), ['a']);
    }

    #[test]
    fn what_is_of_no_use_is_passed_over() {
        let mut candidates = Candidates::default();
        candidates.arrive(3, 'a');
        candidates.arrive(4, 'b');
        assert_eq!(candidates.poll_next(), Some('a'));
        candidates.refuse(3);
        assert!(candidates.are_useless());
        assert_eq!(candidates.poll_next(), Some('b'));
        assert!(!candidates.are_useless(), "another one is of use");
        assert!(candidates.depart(4) && candidates.are_useless());
        assert!(!candidates.depart(3) && !candidates.are_useless(), "there is nothing");
    }
}

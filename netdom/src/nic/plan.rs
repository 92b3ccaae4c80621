//! How long the rings of a NIC are, by the memory for packets. Pure. Floor 3.
//!
//! A receive ring holds its buffers all the time, a transmit ring holds pages until the NIC has sent them. What they hold is lacking for the
//! packets of guests, so both have a share of all pages, which the NICs have one after the other.

use super::ring::receive::buffer_bytes;
use xen_pv_sys::PAGE_SIZE;

/// Descriptors of a receive ring.
const RECEIVE: [u16; 3] = [256, 128, 64];
/// Descriptors of a transmit ring. A shorter one has no room for two super-frames.
const TRANSMIT: [u16; 3] = [512, 256, SHORTEST_TRANSMIT];
/// Descriptors of the shortest transmit ring, of which one stays empty.
pub const SHORTEST_TRANSMIT: u16 = 128;

/// The rings of a NIC, and the pages that they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Queues, each with a ring each way.
    pub queues: usize,
    /// Descriptors of a receive ring.
    pub receive_descriptors: u16,
    /// Descriptors of a transmit ring.
    pub transmit_descriptors: u16,
    /// Pages that all receive rings hold, but for halves of some more.
    pub receive_pages: usize,
    /// Pages that all transmit rings hold at most.
    pub transmit_pages: usize,
}

impl Plan {
    /// Plans a NIC of up to `queues` queues and frames of up to `max_frame` bytes, behind the NICs of the plans `others`, where all packets have
    /// `capacity` pages. `None` where no ring is short enough: all receive rings have half of the pages at most. Transmit rings have as much,
    /// but none is shorter than 128 descriptors.
    pub fn new(capacity: usize, others: impl Iterator<Item = Self>, queues: usize, max_frame: usize) -> Option<Self> {
        let (mut receive_left, mut transmit_left) = (capacity / 2, capacity / 2);
        for other in others {
            receive_left = receive_left.saturating_sub(other.receive_pages);
            transmit_left = transmit_left.saturating_sub(other.transmit_pages);
        }
        let pages = |ring: u16| (usize::from(ring) * usize::from(buffer_bytes(max_frame))).div_ceil(PAGE_SIZE);
        let receive_descriptors = RECEIVE.into_iter().find(|ring| pages(*ring) <= receive_left)?;
        let receive = pages(receive_descriptors);
        // Several queues only where half of what is left has room for them: shorter rings would lose bursts of one flow.
        let queues = queues.min(receive_left / 2 / receive).max(1);
        // One descriptor of a ring stays empty.
        let each = transmit_left / queues + 1;
        let transmit_descriptors =
            TRANSMIT.into_iter().find(|ring| usize::from(*ring) <= each).unwrap_or(SHORTEST_TRANSMIT);
        Some(Self {
            queues,
            receive_descriptors,
            transmit_descriptors,
            receive_pages: queues * receive,
            transmit_pages: queues * usize::from(transmit_descriptors - 1),
        })
    }

    /// Plans for `queues` queues, fewer than were planned.
    pub fn keep(&mut self, queues: usize) {
        let planned = self.queues.max(1);
        self.receive_pages = self.receive_pages / planned * queues;
        self.transmit_pages = self.transmit_pages / planned * queues;
        self.queues = queues;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::STANDARD_FRAME;
    use alloc::vec::Vec;

    /// The pages for packets of domains of 8, 16 and 64 MiB.
    const SIZES: [usize; 3] = [758, 1778, 7890];

    /// Queues, and descriptors of a receive and of a transmit ring, of NICs of up to four queues, one after the other; as many as have room.
    fn plans(capacity: usize, count: usize, max_frame: usize) -> Vec<(usize, u16, u16)> {
        let mut plans: Vec<Plan> = Vec::new();
        while plans.len() < count
            && let Some(plan) = Plan::new(capacity, plans.iter().copied(), 4, max_frame)
        {
            plans.push(plan);
        }
        let received: usize = plans.iter().map(|plan| plan.receive_pages).sum();
        assert!(received <= capacity / 2, "{plans:?}");
        plans.iter().map(|plan| (plan.queues, plan.receive_descriptors, plan.transmit_descriptors)).collect()
    }

    #[test]
    fn one_nic() {
        let alone = SIZES.map(|capacity| plans(capacity, 1, STANDARD_FRAME));
        assert_eq!(alone, [[(1, 256, 256)], [(3, 256, 256)], [(4, 256, 512)]]);
        let jumbo = SIZES.map(|capacity| plans(capacity, 1, 9018));
        assert_eq!(jumbo, [[(1, 256, 256)], [(1, 256, 512)], [(4, 256, 512)]]);
    }

    #[test]
    fn several_nics_leave_pages_to_guests() {
        assert_eq!(plans(758, 2, STANDARD_FRAME), [(1, 256, 256), (1, 256, 128)]);
        assert_eq!(plans(758, 4, STANDARD_FRAME), [(1, 256, 256), (1, 256, 128), (1, 128, 128), (1, 64, 128)]);
        for (capacity, count) in SIZES.into_iter().zip([2, 3, 16]) {
            let mut plans: Vec<Plan> = Vec::new();
            for _ in 0..count {
                plans.push(Plan::new(capacity, plans.iter().copied(), 1, STANDARD_FRAME).expect("it has room"));
            }
            let held: usize = plans.iter().map(|plan| plan.receive_pages + plan.transmit_pages).sum();
            // What a round takes from guests has a page a packet.
            assert!(held + 100 <= capacity, "{count} NICs hold {held} of {capacity}");
        }
    }

    #[test]
    fn a_nic_without_room_has_no_plan() {
        assert_eq!(plans(758, 16, 9018).len(), 2);
        assert_eq!(plans(60, 1, STANDARD_FRAME), []);
        assert_eq!(Plan::new(usize::MAX, core::iter::empty(), 0, STANDARD_FRAME).map(|plan| plan.queues), Some(1));
    }
}

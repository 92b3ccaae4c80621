//! Bonds: several NICs that are one port of the switch. Which of them a packet leaves on, and from which packets are taken. Pure. Floor 3.
//!
//! The modes, and what each asks of the switch outside, are those of Linux (Documentation/networking/bonding.rst).

mod hash;
pub mod lacp;

use crate::ethernet::MacAddress;
use crate::offload::head::Head;
pub use hash::Policy;
use heapless::Vec;
use lacp::{FRAME, Lacp};
use split_driver::time::Instant;

/// NICs of a bond at most.
pub const MEMBERS: usize = 8;

/// What is sent and received on which NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All on one NIC, until that has no link. The switch outside, or the two of them, need not know.
    ActiveBackup,
    /// Each flow on one NIC. The switch outside has all links as one group, without a protocol.
    BalanceXor(Policy),
    /// Each flow on one NIC of those that the switch outside agrees on by LACP (IEEE 802.1AX-2008, 5; 802.3ad before).
    Lacp(Policy),
}

impl Mode {
    /// From its name, with the policy behind it where that is not `layer2`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, policy) = text.split_once('+').map_or((text, None), |(name, policy)| (name, Some(policy)));
        let policy = policy.map(Policy::parse);
        match (name, policy) {
            ("active-backup", None) => Some(Self::ActiveBackup),
            ("balance-xor", None) => Some(Self::BalanceXor(Policy::default())),
            ("balance-xor", Some(policy)) => Some(Self::BalanceXor(policy?)),
            ("802.3ad", None) => Some(Self::Lacp(Policy::default())),
            ("802.3ad", Some(policy)) => Some(Self::Lacp(policy?)),
            _ => None,
        }
    }
}

/// A bond. Its NICs are its members, by their places in the command line.
#[derive(Debug)]
pub struct Bond {
    mode: Mode,
    /// Of each member: it is there and has a link.
    up: Vec<bool, MEMBERS>,
    /// The members that packets are sent on.
    used: Vec<u8, MEMBERS>,
    /// What is agreed with the switch outside, where it is to agree.
    lacp: Option<Lacp>,
    /// A life of the domain begins, and its NICs come back one after the other: the member that was used before, and may be one of them.
    before: Option<Option<u8>>,
    /// The network outside does not know yet that what it reaches through the bond is on another link.
    moved: bool,
    /// The members that were used last, while there were any.
    last: Vec<u8, MEMBERS>,
}

impl Bond {
    /// A bond of this number of members, none of which is there yet.
    pub fn new(mode: Mode, members: usize) -> Self {
        let up = (0..members.min(MEMBERS)).map(|_| false).collect();
        let lacp = matches!(mode, Mode::Lacp(_)).then(|| Lacp::new(members));
        Self { mode, up, used: Vec::new(), lacp, before: None, moved: false, last: Vec::new() }
    }

    /// Goes on where the domain's last life ended, which used this member, until [`Self::settle`].
    pub fn begin_with(&mut self, active: Option<usize>) {
        self.before = Some(active.and_then(|place| u8::try_from(place).ok()));
    }

    /// All members of the last life that are still there have come.
    pub fn settle(&mut self) {
        if let Some(before) = self.before.take() {
            self.moved |= self.active().is_some_and(|active| Some(active) != before.map(usize::from));
        }
    }

    /// A member with this address came with a link of so many megabits per second or without one, its link changed, or it was taken away.
    pub fn set_link(&mut self, place: usize, speed: Option<u32>, address: MacAddress, now: Instant) {
        if let Some(member) = self.up.get_mut(place) {
            *member = speed.is_some();
        }
        if let Some(lacp) = &mut self.lacp {
            lacp.set_link(place, speed, address, now);
        }
        self.choose();
    }

    /// What the bond agrees on with the switch outside; `None` where it does not.
    pub const fn lacp(&self) -> Option<&Lacp> {
        self.lacp.as_ref()
    }

    /// The same, to be restored.
    pub const fn lacp_mut(&mut self) -> Option<&mut Lacp> {
        self.lacp.as_mut()
    }

    /// A frame of a slow protocol came in on a member.
    pub fn handle_frame(&mut self, place: usize, bytes: &[u8], now: Instant) {
        if let Some(lacp) = &mut self.lacp {
            lacp.handle_frame(place, bytes, now);
            self.choose();
        }
    }

    /// Does what became due, and gives the next frame to be sent, with its member.
    pub fn poll(&mut self, now: Instant) -> Option<(usize, [u8; FRAME])> {
        let frame = self.lacp.as_mut()?.poll(now);
        self.choose();
        frame
    }

    /// When to poll it at the latest; `None` where there is nothing to wait for.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.lacp.as_ref()?.deadline(now)
    }

    /// Chooses the members that are used.
    fn choose(&mut self) {
        let up = |place: &u8| self.up.get(usize::from(*place)).is_some_and(|up| *up);
        let mut all = (0..self.up.len() as u8).filter(up);
        match self.mode {
            Mode::ActiveBackup => {
                // One that comes back waits until it is needed: each change costs packets.
                let active = self.used.first().copied();
                let wished = self.before.flatten().filter(up);
                let chosen = wished.or(active.filter(up)).or_else(|| all.next());
                if chosen == active {
                    return;
                }
                // While a life begins, nothing was sent on the other one.
                self.moved |= chosen.is_some() && self.before.is_none();
                self.used = chosen.into_iter().collect();
            }
            Mode::BalanceXor(_) => self.used = all.collect(),
            Mode::Lacp(_) => {
                let distributes = |place: &u8| self.lacp.as_ref().is_some_and(|lacp| lacp.distributes((*place).into()));
                self.used = (0..self.up.len() as u8).filter(distributes).collect();
                if !self.used.is_empty() {
                    // Another switch, or one that speaks no LACP, has to learn.
                    self.moved |= !self.last.is_empty() && !self.used.iter().any(|place| self.last.contains(place));
                    self.last.clone_from(&self.used);
                }
            }
        }
    }

    /// The member that all is sent on, where it is one alone.
    pub fn active(&self) -> Option<usize> {
        match (self.mode, self.used.first()) {
            (Mode::ActiveBackup, Some(active)) => Some((*active).into()),
            _ => None,
        }
    }

    /// How many members packets are sent on.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// A member that packets of any kind are sent on.
    pub fn first(&self) -> Option<usize> {
        self.used.first().map(|place| (*place).into())
    }

    /// How many members have a link.
    pub fn linked(&self) -> usize {
        self.up.iter().filter(|up| **up).count()
    }

    /// The member that a packet leaves on; `bytes` are those that its head was read from. `None` where no member has a link.
    pub fn member(&self, head: &Head, bytes: &[u8]) -> Option<usize> {
        let place = match (self.mode, self.used.as_slice()) {
            (_, []) => return None,
            (_, [only]) => *only,
            (Mode::BalanceXor(policy) | Mode::Lacp(policy), used) => {
                *used.get(policy.hash(head, bytes) as usize % used.len())?
            }
            (Mode::ActiveBackup, [active, ..]) => *active,
        };
        Some(place.into())
    }

    /// Whether frames that a member receives are taken. Those that come in on a backup came in on the active one, too, or are for another
    /// port of the switch outside that does not know yet.
    pub fn receives(&self, place: usize) -> bool {
        match &self.lacp {
            Some(lacp) => lacp.collects(place),
            None => self.used.iter().any(|used| usize::from(*used) == place),
        }
    }

    /// Whether the network outside is to be told where the addresses behind the bond are, once.
    pub fn take_moved(&mut self) -> bool {
        core::mem::take(&mut self.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bond: &mut Bond, place: usize, up: bool) {
        bond.set_link(place, up.then_some(1000), MacAddress([2; 6]), Instant(0));
    }

    fn up(bond: &mut Bond, places: &[usize]) {
        places.iter().for_each(|place| set(bond, *place, true));
    }

    #[test]
    fn the_active_member_stays_until_its_link_goes() {
        let mut bond = Bond::new(Mode::ActiveBackup, 3);
        assert_eq!((bond.active(), bond.take_moved()), (None, false));
        up(&mut bond, &[1]);
        assert_eq!((bond.active(), bond.take_moved()), (Some(1), true), "guests may have been there before");
        up(&mut bond, &[0, 2]);
        assert_eq!((bond.active(), bond.take_moved()), (Some(1), false), "it stays");
        assert_eq!([0, 1, 2].map(|place| bond.receives(place)), [false, true, false]);
        set(&mut bond, 1, false);
        assert_eq!((bond.active(), bond.take_moved()), (Some(0), true), "the first one in order");
        up(&mut bond, &[1]);
        set(&mut bond, 2, false);
        assert_eq!((bond.active(), bond.take_moved()), (Some(0), false));
        set(&mut bond, 0, false);
        set(&mut bond, 1, false);
        assert_eq!(bond.active(), None);
        set(&mut bond, 7, true);
        assert_eq!(bond.active(), None, "no such member");
    }

    #[test]
    fn a_life_goes_on_with_the_member_of_the_last_one() {
        let mut bond = Bond::new(Mode::ActiveBackup, 2);
        bond.begin_with(Some(1));
        up(&mut bond, &[0]);
        assert_eq!(bond.active(), Some(0));
        up(&mut bond, &[1]);
        assert_eq!(bond.active(), Some(1));
        bond.settle();
        assert!(!bond.take_moved(), "it was there before");
        // It did not come back.
        let mut bond = Bond::new(Mode::ActiveBackup, 2);
        bond.begin_with(Some(1));
        up(&mut bond, &[0]);
        assert!(!bond.take_moved());
        bond.settle();
        assert!(bond.take_moved());
        up(&mut bond, &[1]);
        assert_eq!(bond.active(), Some(0));
    }

    #[test]
    fn all_members_with_a_link_are_used() {
        let mut bond = Bond::new(Mode::BalanceXor(Policy::Layer2), 3);
        up(&mut bond, &[0, 2]);
        assert_eq!([0, 1, 2].map(|place| bond.receives(place)), [true, false, true]);
        let member = |bond: &Bond, last| {
            let mut frame = [2; 60];
            frame[11] = last;
            bond.member(&Head::parse(&frame).unwrap(), &frame)
        };
        assert_ne!(member(&bond, 0), member(&bond, 1));
        set(&mut bond, 0, false);
        assert_eq!([0, 1].map(|last| member(&bond, last)), [Some(2); 2]);
        set(&mut bond, 2, false);
        assert_eq!(member(&bond, 0), None);
        assert!(!bond.take_moved() && bond.active().is_none());
    }

    /// Without LACP outside one member is used after the other, and each has another port of the switch to be learnt.
    #[test]
    fn another_link_without_lacp_is_another_place() {
        let mut bond = Bond::new(Mode::Lacp(Policy::Layer2), 2);
        up(&mut bond, &[0, 1]);
        let wait = |bond: &mut Bond, seconds: core::ops::Range<u64>| {
            for second in seconds {
                while bond.poll(Instant(second * 1_000_000_000)).is_some() {}
            }
        };
        wait(&mut bond, 0..8);
        assert_eq!((bond.first(), bond.take_moved(), bond.active()), (Some(0), false, None));
        set(&mut bond, 0, false);
        wait(&mut bond, 8..12);
        assert_eq!((bond.first(), bond.take_moved()), (Some(1), true));
    }
}

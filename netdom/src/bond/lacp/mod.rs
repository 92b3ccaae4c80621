//! LACP: both ends of each link agree which links are one (IEEE 802.1AX-2008, 5.4). Pure. Floor 3.
//!
//! Each port has the machines of the standard: receive (5.4.12), periodic transmission (5.4.13), mux with independent control (5.4.15) and
//! transmit (5.4.16); selection (5.4.14) is over all of them. This end is active and asks for long timeouts, as Linux does by default.
//! Ports whose other ends are one system, and of one key, are one group. One group is used; ports of another stand by. A port that hears of no
//! other end is a group by itself, and is used where there is no better one.

mod frame;

use super::MEMBERS;
use crate::ethernet::MacAddress;
pub use frame::{FRAME, INFO, Info, Message, build, is_slow, parse, state};
use heapless::Vec;
use split_driver::time::{Duration, Instant};

/// How often frames are sent, where the other end has a short timeout, and a long one (5.4.4).
const FAST: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(30);
/// How long the other end may be silent.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);
const LONG_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a port waits for others of its group.
const AGGREGATE_WAIT: Duration = Duration::from_secs(2);
/// Frames that a port sends within [`FAST`] at most (5.4.16).
const BURST: u8 = 3;
/// This end's priorities: those of Linux.
const SYSTEM_PRIORITY: u16 = 0xffff;
const PORT_PRIORITY: u16 = 0xff;

/// What a port knows of its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    /// There is no link.
    Disabled,
    /// Nothing was heard for too long, or since the link came.
    Expired,
    /// There is no other end that speaks LACP.
    Defaulted,
    /// What it said last.
    Current,
}

/// How far a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mux {
    Detached,
    Waiting,
    Attached,
    Collecting,
    Distributing,
}

/// What selection says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selected {
    No,
    Standby,
    Yes,
}

/// A group of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// A port by itself.
    Individual(u8),
    /// This end's key, and the other end's system and key.
    Links(u16, (u16, MacAddress), u16),
}

impl Group {
    const fn has_partner(&self) -> bool {
        matches!(self, Self::Links(..))
    }
}

#[derive(Debug)]
struct Port {
    address: MacAddress,
    /// Megabits per second.
    speed: u32,
    receive: Receive,
    /// The other end: as it said, or as nothing is known of it.
    partner: Info,
    /// Something was heard of it, or it was found not to speak.
    known: bool,
    heard_until: Instant,
    group: Option<Group>,
    selected: Selected,
    mux: Mux,
    attach_at: Instant,
    periodic_at: Instant,
    /// A frame is to be sent.
    tell: bool,
    /// When the first of some frames was sent, and how many were since then.
    sent: (Instant, u8),
    /// The answer to a marker.
    answer: Option<[u8; FRAME]>,
    /// The port as the domain's last life had it.
    before: Option<KeptPort>,
}

/// A port, for the domain's next life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPort {
    /// Its other end.
    pub partner: [u8; INFO],
    /// Whether frames were sent.
    pub distributing: bool,
}

/// An end that does not speak: it takes and sends frames.
const SILENT: u8 = state::SYNC | state::COLLECTING | state::DISTRIBUTING;

impl Port {
    const fn new() -> Self {
        let zero = Instant(0);
        Self {
            address: MacAddress([0; 6]),
            speed: 0,
            receive: Receive::Disabled,
            partner: Info { system: (0, MacAddress([0; 6])), key: 0, port: (0, 0), state: 0 },
            known: false,
            heard_until: zero,
            group: None,
            selected: Selected::No,
            mux: Mux::Detached,
            attach_at: zero,
            periodic_at: zero,
            tell: false,
            sent: (zero, 0),
            answer: None,
            before: None,
        }
    }

    fn key(&self) -> u16 {
        u16::try_from(self.speed).unwrap_or(u16::MAX)
    }

    fn interval(&self) -> Duration {
        if self.partner.has(state::SHORT) { FAST } else { SLOW }
    }

    fn set_mux(&mut self, mux: Mux) {
        // What the other end sees of it changes but where it waits.
        self.tell |= mux.max(self.mux) > Mux::Waiting;
        self.mux = mux;
    }

    /// One step of the mux machine (figure 5-14); false where there is none.
    fn step(&mut self, now: Instant) -> bool {
        let yes = self.selected == Selected::Yes;
        let sync = yes && self.partner.has(state::SYNC);
        let collects = sync && self.partner.has(state::COLLECTING);
        let next = match self.mux {
            Mux::Detached if self.selected != Selected::No => {
                self.attach_at = now + AGGREGATE_WAIT;
                Mux::Waiting
            }
            Mux::Waiting if self.selected == Selected::No => Mux::Detached,
            Mux::Waiting if yes && now >= self.attach_at => Mux::Attached,
            Mux::Attached if !yes => Mux::Detached,
            Mux::Attached if sync => Mux::Collecting,
            Mux::Collecting if !sync => Mux::Attached,
            Mux::Collecting if collects => Mux::Distributing,
            Mux::Distributing if !collects => Mux::Collecting,
            _ => return false,
        };
        self.set_mux(next);
        true
    }

    /// What became due of the receive and periodic machines.
    fn look_at_timers(&mut self, now: Instant) {
        match self.receive {
            Receive::Current if now >= self.heard_until => self.expire(now),
            Receive::Expired if now >= self.heard_until => {
                (self.receive, self.known) = (Receive::Defaulted, true);
                self.partner = Info { state: SILENT, ..Info::default() };
                self.tell = true;
            }
            _ => {}
        }
        if now >= self.periodic_at {
            self.tell = true;
            self.periodic_at = now + self.interval();
        }
    }

    fn expire(&mut self, now: Instant) {
        (self.receive, self.heard_until) = (Receive::Expired, now + SHORT_TIMEOUT);
        self.partner.state = self.partner.state & !state::SYNC | state::SHORT;
        // Frames go fast from now on.
        (self.periodic_at, self.tell) = (now + FAST, true);
    }

    /// When something becomes due.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let heard = matches!(self.receive, Receive::Current | Receive::Expired).then_some(self.heard_until);
        let waits = (self.mux == Mux::Waiting && now < self.attach_at).then_some(self.attach_at);
        let tells = self.tell.then(|| if self.sent.1 < BURST { now } else { self.sent.0 + FAST });
        let enabled = self.receive != Receive::Disabled;
        [heard, waits, tells, Some(self.periodic_at)].into_iter().flatten().min().filter(|_| enabled)
    }

    /// Whether a frame may be sent, which is counted.
    fn may_send(&mut self, now: Instant) -> bool {
        if now.since(self.sent.0) >= FAST {
            self.sent = (now, 0);
        }
        let may = self.sent.1 < BURST;
        self.sent.1 += u8::from(may);
        may
    }
}

/// The ports of a bond, and the group of them that is used.
#[derive(Debug)]
pub struct Lacp {
    system: MacAddress,
    ports: Vec<Port, MEMBERS>,
    used: Option<Group>,
}

impl Lacp {
    /// A number of ports, none of which has a link.
    pub fn new(ports: usize) -> Self {
        let ports = (0..ports.min(MEMBERS)).map(|_| Port::new()).collect();
        Self { system: MacAddress::default(), ports, used: None }
    }

    /// This end's system: the address of the first NIC that came. Zero where none did.
    pub const fn system(&self) -> MacAddress {
        self.system
    }

    /// Is this system, as in the domain's last life.
    pub const fn set_system(&mut self, system: MacAddress) {
        self.system = system;
    }

    /// Goes on with a port as the last life had it, when its link comes.
    pub fn restore(&mut self, place: usize, kept: KeptPort) {
        if let Some(port) = self.ports.get_mut(place) {
            port.before = Some(kept);
        }
    }

    /// A port, for the next life; `None` where nothing was heard on it.
    pub fn keep(&self, place: usize) -> Option<KeptPort> {
        let port = self.ports.get(place)?;
        let kept = KeptPort { partner: port.partner.to_bytes(), distributing: port.mux == Mux::Distributing };
        Some(kept).filter(|_| port.receive == Receive::Current)
    }

    /// A port came with a link of so many megabits per second, or has none.
    pub fn set_link(&mut self, place: usize, speed: Option<u32>, address: MacAddress, now: Instant) {
        if self.system == MacAddress::default() && speed.is_some() {
            self.system = address;
        }
        let Some(port) = self.ports.get_mut(place) else {
            return;
        };
        if speed.is_some() == (port.receive != Receive::Disabled) && speed.is_none_or(|speed| speed == port.speed) {
            return;
        }
        let before = port.before.take();
        *port = Port { address, speed: speed.unwrap_or(0), sent: port.sent, ..Port::new() };
        if speed.is_some() {
            port.expire(now);
            if let Some(KeptPort { partner, distributing }) = before {
                // It proves itself within the short timeout.
                (port.receive, port.known, port.partner) = (Receive::Current, true, Info::from_bytes(partner));
                if distributing {
                    port.mux = Mux::Distributing;
                    port.selected = Selected::Yes;
                    port.group = group_of(place, port);
                    self.used = self.used.or(port.group);
                }
            }
        } else {
            port.before = before;
        }
        self.run(now);
    }

    /// This end of a port's link.
    fn actor(&self, place: usize, port: &Port) -> Info {
        let mut bits = state::ACTIVITY | state::AGGREGATION;
        for (mux, bit) in [
            (Mux::Attached, state::SYNC),
            (Mux::Collecting, state::COLLECTING),
            (Mux::Distributing, state::DISTRIBUTING),
        ] {
            bits |= if port.mux >= mux { bit } else { 0 };
        }
        bits |= match port.receive {
            Receive::Defaulted => state::DEFAULTED,
            Receive::Expired if port.known => state::EXPIRED,
            Receive::Expired => state::EXPIRED | state::DEFAULTED,
            Receive::Disabled | Receive::Current => 0,
        };
        let number = place as u16 + 1;
        Info { system: (SYSTEM_PRIORITY, self.system), key: port.key(), port: (PORT_PRIORITY, number), state: bits }
    }

    /// A frame of a slow protocol came in on a port.
    pub fn handle_frame(&mut self, place: usize, bytes: &[u8], now: Instant) {
        let Some(message) = parse(bytes) else {
            return;
        };
        let Some(own) =
            self.ports.get(place).filter(|port| port.receive != Receive::Disabled).map(|port| self.actor(place, port))
        else {
            return;
        };
        let system = self.system;
        let Some(port) = self.ports.get_mut(place) else {
            return;
        };
        match message {
            Message::Marker(answer) => port.answer = Some(answer),
            // Two ports of this system face each other.
            Message::Ends(actor, _) if actor.system.1 == system => {}
            Message::Ends(actor, partner) => {
                record(port, &own, actor, &partner, now);
                self.run(now);
            }
        }
    }

    /// Runs all machines until they stand still.
    fn run(&mut self, now: Instant) {
        // Each port comes down from the top and goes up again at most.
        for _ in 0..16 {
            self.select();
            let moved = self.ports.iter_mut().fold(false, |moved, port| port.step(now) | moved);
            if !moved {
                return;
            }
        }
    }

    /// The selection logic (5.4.14).
    fn select(&mut self) {
        let groups: Vec<(Option<Group>, u32), MEMBERS> =
            self.ports.iter().enumerate().map(|(place, port)| (group_of(place, port), port.speed)).collect();
        let speed = |group: Group| -> u64 {
            groups.iter().filter(|(other, _)| *other == Some(group)).map(|(_, speed)| u64::from(*speed)).sum()
        };
        let rank = |group: &Group| (group.has_partner(), speed(*group));
        // The first of the best.
        let all = groups.iter().filter_map(|(group, _)| *group);
        let best = all.clone().rev().max_by_key(rank);
        // The group that is used stays until it has no port, or has no other end and another one has.
        let stays = |used: &Group| {
            all.clone().any(|group| group == *used)
                && (used.has_partner() || best.is_none_or(|best| !best.has_partner()))
        };
        self.used = self.used.filter(stays).or(best);
        for (port, (group, _)) in self.ports.iter_mut().zip(&groups) {
            let wanted = if *group == self.used { Selected::Yes } else { Selected::Standby };
            if group.is_none() || port.group != *group {
                port.selected = Selected::No;
            }
            // It comes to another group by being detached first.
            if port.mux == Mux::Detached {
                port.group = *group;
            }
            if group.is_some() && port.group == *group {
                port.selected = wanted;
            }
        }
    }

    /// Does what became due, and gives the next frame to be sent, with its port.
    pub fn poll(&mut self, now: Instant) -> Option<(usize, [u8; FRAME])> {
        for port in self.ports.iter_mut().filter(|port| port.receive != Receive::Disabled) {
            port.look_at_timers(now);
        }
        self.run(now);
        for place in 0..self.ports.len() {
            let own = self.ports.get(place).map(|port| self.actor(place, port))?;
            let Some(port) = self.ports.get_mut(place).filter(|port| port.receive != Receive::Disabled) else {
                continue;
            };
            if let Some(answer) = port.answer.take() {
                return Some((place, build(port.address, &Message::Marker(answer))));
            }
            if port.tell && port.may_send(now) {
                port.tell = false;
                return Some((place, build(port.address, &Message::Ends(own, port.partner))));
            }
        }
        None
    }

    /// When to poll it at the latest.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.ports.iter().filter_map(|port| port.deadline(now)).min()
    }

    fn is_used(&self, place: usize, from: Mux) -> bool {
        self.ports.get(place).is_some_and(|port| port.mux >= from)
    }

    /// Whether frames from a port are taken.
    pub fn collects(&self, place: usize) -> bool {
        self.is_used(place, Mux::Collecting)
    }

    /// Whether packets are sent on a port.
    pub fn distributes(&self, place: usize) -> bool {
        self.is_used(place, Mux::Distributing)
    }
}

/// The group that a port belongs to; none where that is not known yet.
fn group_of(place: usize, port: &Port) -> Option<Group> {
    if port.receive == Receive::Disabled || !port.known {
        return None;
    }
    let partner = &port.partner;
    Some(match port.receive != Receive::Defaulted && partner.has(state::AGGREGATION) {
        true => Group::Links(port.key(), partner.system, partner.key),
        false => Group::Individual(place as u8),
    })
}

/// Notes what the other end says of itself and of this end, which is `own`: `update_NTT` and `recordPDU` (5.4.9). Where the other end is another
/// one now, the port's group is, too, or it is detached.
fn record(port: &mut Port, own: &Info, actor: Info, partner: &Info, now: Instant) {
    const TOLD: u8 = state::ACTIVITY | state::SHORT | state::SYNC | state::AGGREGATION;
    let knows_us = partner.is_same(own);
    port.tell |= !knows_us || (partner.state ^ own.state) & TOLD != 0;
    // It wants frames fast now, and does not wait for the next slow one.
    port.tell |= actor.has(state::SHORT) && !port.partner.has(state::SHORT);
    let other = port.receive == Receive::Current && !port.partner.is_same(&actor);
    (port.receive, port.known) = (Receive::Current, true);
    port.heard_until = now + LONG_TIMEOUT;
    // It is in step where it has put the link to this end, or where the link is not one of several.
    let in_step = actor.has(state::SYNC) && (knows_us || !actor.has(state::AGGREGATION));
    port.partner = Info { state: if in_step { actor.state } else { actor.state & !state::SYNC }, ..actor };
    port.periodic_at = port.periodic_at.min(now + port.interval());
    if other && port.mux > Mux::Detached {
        port.set_mux(Mux::Detached);
        port.selected = Selected::No;
    }
}

#[cfg(test)]
mod tests;

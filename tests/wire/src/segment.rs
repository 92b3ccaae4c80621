//! The cable itself: carries frames between the ports and the peer. A learning switch when there are several ports. Host.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::device::{ETHERNET_HEADER, Frames};
use crate::dhcp::Mac;
use crate::gather::Gather;
use crate::group::Group;
use crate::port::Port;
use crate::stats::Stats;
use crate::vlan::Tags;

/// What may wait for a port before frames for it are dropped.
const LIMIT: usize = 8 << 20;

/// Which way a captured frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a NIC, by number of its port.
    In(usize),
    /// From the wire (its peer or an injection) towards the NICs.
    Out,
}

/// A frame as it passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Time since the wire was started.
    pub time: Duration,
    /// Where it came from.
    pub direction: Direction,
    /// The frame, from its destination address on, without a check sequence.
    pub frame: Vec<u8>,
}

/// Sees every frame, on the wire's own thread. It has to be quick.
pub type Observer = Box<dyn FnMut(Direction, &[u8]) + Send>;

/// The last frames that passed.
#[derive(Default)]
pub(crate) struct Capture {
    pub(crate) limit: usize,
    pub(crate) frames: VecDeque<Captured>,
    pub(crate) observer: Option<Observer>,
}

impl Capture {
    fn is_on(&self) -> bool {
        self.limit > 0 || self.observer.is_some()
    }

    fn handle_frame(&mut self, time: Duration, direction: Direction, frame: &[u8]) {
        if let Some(observer) = &mut self.observer {
            observer(direction, frame);
        }
        if self.limit == 0 {
            return;
        }
        if self.frames.len() >= self.limit {
            self.frames.pop_front();
        }
        self.frames.push_back(Captured { time, direction, frame: frame.to_vec() });
    }
}

pub(crate) struct Segment {
    pub(crate) ports: Vec<Port>,
    mac: Mac,
    learned: HashMap<Mac, usize>,
    between: Frames,
    pub(crate) group: Group,
    gather: Gather,
    tags: Tags,
}

impl Segment {
    pub(crate) fn new(ports: Vec<Port>, mac: Mac) -> Self {
        let (learned, between, group, gather, tags) = Default::default();
        Self { ports, mac, learned, between, group, gather, tags }
    }

    /// Reads once from port `number`; frames for the peer go to `inbox`, those for other ports to these.
    pub(crate) fn poll_read(
        &mut self,
        number: usize,
        inbox: &mut Frames,
        stats: &mut Stats,
        capture: &mut Capture,
        now: Duration,
    ) {
        let joined = self.ports.len() > 1;
        let mut answers = Vec::new();
        let Self { ports, mac, learned, between, group, gather, tags } = self;
        let Some(port) = ports.get_mut(number) else {
            return;
        };
        port.poll_read(|frame| {
            stats.frames_in += 1;
            stats.bytes_in += frame.len() as u64;
            if capture.is_on() {
                capture.handle_frame(now, Direction::In(number), frame);
            }
            let Some((to, from)) = addresses(frame) else {
                stats.runts_in += 1;
                return;
            };
            if let Some(answer) = group.answer(number, *mac, frame) {
                return answers.push(answer);
            }
            let multicast = is_group(to);
            stats.multicast_in += u64::from(multicast);
            if multicast || to == *mac {
                gather.handle_frame(&tags.take(frame), |whole| inbox.push(whole));
            }
            // A station that moved is found by whatever it sends.
            if joined && !is_group(from) {
                learned.insert(from, number);
            }
            if group.on {
                group.last = Some(number);
            } else if joined && to != *mac {
                between.push(frame);
            }
        });
        for answer in answers {
            port.send(&answer, LIMIT);
        }
        let mut between = std::mem::take(&mut self.between);
        between.drain(|frame| self.send(frame, Some(number), stats));
        self.between = between;
    }

    /// Puts frames of the peer on the wire.
    pub(crate) fn send_all(&mut self, frames: &mut Frames, stats: &mut Stats, capture: &mut Capture, now: Duration) {
        frames.drain(|frame| {
            let frame = self.tags.put(frame);
            self.send_own(&frame, stats, capture, now);
        });
    }

    /// Puts one frame of ours on the wire.
    pub(crate) fn send_own(&mut self, frame: &[u8], stats: &mut Stats, capture: &mut Capture, now: Duration) {
        if capture.is_on() {
            capture.handle_frame(now, Direction::Out, frame);
        }
        self.send(frame, None, stats);
    }

    fn send(&mut self, frame: &[u8], except: Option<usize>, stats: &mut Stats) {
        let only = addresses(frame).and_then(|(to, _)| self.learned.get(&to).copied());
        let only = only.or(self.group.last.filter(|_| self.group.on));
        for (number, port) in self.ports.iter_mut().enumerate() {
            if Some(number) != except && only.is_none_or(|only| only == number) {
                port.send(frame, LIMIT);
                stats.frames_out += 1;
                stats.bytes_out += frame.len() as u64;
            }
        }
    }

    /// The most that waits for any port; of several, for any that is not dead: the others go on without it.
    pub(crate) fn pending(&self) -> usize {
        let alone = self.ports.len() == 1;
        self.ports.iter().filter(|port| alone || !port.is_dead()).map(Port::pending).max().unwrap_or(0)
    }

    pub(crate) fn poll_write(&mut self) {
        self.ports.iter_mut().for_each(Port::poll_write);
    }
}

/// Destination and source of a frame.
fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let (to, rest) = frame.get(..ETHERNET_HEADER)?.split_first_chunk::<6>()?;
    Some((*to, *rest.first_chunk::<6>()?))
}

fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

//! LACP of a bond against what must hold by the standard (IEEE 802.1AX-2008, 5.4), whatever the other ends say. Host.
//!
//! An input is what happens to three ports: links that come and go, frames of other ends that know this one or not, frames with some bytes changed,
//! and time. The model keeps the last frame of each port alone, and reads it by offsets. What must hold: a port carries packets only where its
//! other end said so, or was silent; ports carry together only where their other ends are one; frames do not come without end; and with
//! an other end as it should be, all ports carry within seconds.

use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use netdom::bond::lacp::{FRAME, Lacp};
use netdom::ethernet::MacAddress;
use split_driver::time::{Duration, Instant};

const PORTS: usize = 3;
/// Acts of an input, at most.
const ACTS: usize = 16;
/// Rounds of a second in which sound other ends have all ports carry, and how many of them come behind.
const ROUNDS: usize = 8;
const STEADY: usize = 1;
const SPEEDS: [u32; 3] = [100, 1000, 40_000];
/// Times that pass, in milliseconds.
const TIMES: [u64; 6] = [1, 300, 1000, 2000, 29_000, 91_000];
/// Bits of a state.
const AGGREGATION: u8 = 4;
const SYNC: u8 = 8;
const COLLECTING: u8 = 16;
/// As an end should be: it sends, can be one of several, is in step, takes and sends frames.
const SOUND: u8 = 1 | AGGREGATION | SYNC | COLLECTING | 32;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Act {
    Link { port: u8, speed: Option<u8> },
    Say { port: u8, system: u8, key: u8, bits: Option<u8>, knows: bool },
    Raw { port: u8, changes: [(u8, u8); 2], cut: Option<u8> },
    Marker { port: u8 },
    Pass { time: u8 },
}

/// A port, as the model has it.
#[derive(Clone, Copy, Default)]
struct End {
    /// Since when it has a link, of which speed.
    link: Option<(u64, u32)>,
    /// The last frame: when, its sender, and who that takes this end for.
    said: Option<(u64, [u8; 15], [u8; 15])>,
    /// When the last frames were sent.
    sent: [Option<u64>; 7],
}

/// What ports that carry together have alike: the speed, and the other end's system and key.
type Group = (u32, [u8; 10]);

fn address(port: usize) -> [u8; 6] {
    [0, 0x16, 0x3e, 0, 0, port as u8 + 1]
}

struct World {
    lacp: Lacp,
    ends: [End; PORTS],
    /// The address of the first port that came.
    system: Option<[u8; 6]>,
    /// Milliseconds.
    now: u64,
}

impl World {
    fn new() -> Self {
        Self { lacp: Lacp::new(PORTS), ends: [End::default(); PORTS], system: None, now: 5000 }
    }

    fn time(&self) -> Instant {
        Instant(0) + Duration::from_millis(self.now)
    }

    /// This end of a port, but for its state.
    fn own(&self, port: usize) -> [u8; 14] {
        let mut own = [0xff; 14];
        own[2..8].copy_from_slice(&self.system.unwrap_or_default());
        let speed = self.ends[port].link.map_or(0, |(_, speed)| speed as u16);
        own[8..10].copy_from_slice(&speed.to_be_bytes());
        own[10..].copy_from_slice(&[0, 0xff, 0, port as u8 + 1]);
        own
    }

    fn frame(&self, port: usize, sender: [u8; 15], knows: bool) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        frame[..18].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 9, 0x88, 9, 1, 1, 1, 20]);
        frame[18..33].copy_from_slice(&sender);
        frame[36..38].copy_from_slice(&[2, 20]);
        frame[38..52].copy_from_slice(&if knows { self.own(port) } else { [3; 14] });
        frame[52] = 1 | AGGREGATION;
        frame[56..58].copy_from_slice(&[3, 16]);
        frame
    }

    fn set_link(&mut self, port: usize, speed: Option<u32>) {
        if self.ends[port].link.map(|(_, speed)| speed) != speed {
            self.ends[port].said = None;
            self.ends[port].link = speed.map(|speed| (self.now, speed));
        }
        self.system = self.system.or(speed.map(|_| address(port)));
        self.lacp.set_link(port, speed, MacAddress(address(port)), self.time());
    }

    fn hear(&mut self, port: usize, frame: &[u8]) {
        let sound = frame.len() >= FRAME
            && frame[..6] == [1, 0x80, 0xc2, 0, 0, 2]
            && frame[12..15] == [0x88, 9, 1]
            && frame[16..18] == [1, 20]
            && frame[36..38] == [2, 20];
        if sound && self.ends[port].link.is_some() && Some(&frame[20..26]) != self.system.as_ref().map(|own| &own[..]) {
            let (sender, other) = (frame[18..33].try_into().unwrap(), frame[38..53].try_into().unwrap());
            self.ends[port].said = Some((self.now, sender, other));
        }
        self.lacp.handle_frame(port, frame, self.time());
    }

    /// Sends what is to be sent, and looks at all of it.
    fn poll(&mut self, seen: &mut Vec<u64>) {
        for round in 0.. {
            assert!(round < 64, "frames without end");
            let Some((port, frame)) = self.lacp.poll(self.time()) else {
                break;
            };
            assert!(self.ends[port].link.is_some(), "a frame to a port without a link");
            assert_eq!(frame[6..12], address(port));
            if frame[14] == 1 {
                assert_eq!(frame[18..32], self.own(port), "another end");
                let sent = &mut self.ends[port].sent;
                sent.rotate_left(1);
                let first = sent[6].replace(self.now).and(sent[0]);
                assert!(first.is_none_or(|first| self.now - first >= 1000), "seven frames within a second");
                seen.push(hash(&[frame[32], frame[52]]));
            }
        }
        let deadline = self.lacp.deadline(self.time());
        assert_eq!(deadline.is_some(), self.ends.iter().any(|end| end.link.is_some()));
        assert!(deadline.is_none_or(|at| at > self.time()), "it is due again at once");
        self.check(seen);
    }

    /// The group that a port carries in, where it may carry: by its own key, system and key of the other end; none where it is alone.
    fn may_carry(&self, port: usize, bits: u8) -> Result<Option<Group>, &'static str> {
        let (since, speed) = self.ends[port].link.ok_or("it has no link")?;
        let silent =
            |since: u64| if self.now - since >= 3000 { Ok(None) } else { Err("its other end may still speak") };
        let Some((at, sender, other)) = self.ends[port].said else {
            return silent(since);
        };
        if self.now - at >= 90_000 {
            return silent(at);
        }
        let knows = other[..14] == self.own(port) && other[14] & AGGREGATION != 0;
        let several = sender[14] & AGGREGATION != 0;
        if sender[14] & bits != bits || several && !knows {
            return Err("its other end is out of step");
        }
        Ok(several.then(|| (speed, *sender.first_chunk().unwrap())))
    }

    fn check(&self, seen: &mut Vec<u64>) {
        let mut first = None;
        for port in 0..PORTS {
            for (carries, bits, what) in [
                (self.lacp.collects(port), SYNC, "takes frames"),
                (self.lacp.distributes(port), SYNC | COLLECTING, "sends frames"),
            ] {
                if !carries {
                    continue;
                }
                let group = self.may_carry(port, bits).unwrap_or_else(|why| panic!("port {port} {what}, but {why}"));
                let (other, known) = *first.get_or_insert((port, group));
                assert!(port == other || group.is_some() && group == known, "ports {other} and {port} carry together");
            }
        }
        let carries = |port| u8::from(self.lacp.collects(port)) + u8::from(self.lacp.distributes(port));
        seen.push(hash(&std::array::from_fn::<_, PORTS, _>(carries)));
    }

    fn act(&mut self, act: Act) {
        let port = |port: u8| usize::from(port) % PORTS;
        match act {
            Act::Link { port: to, speed } => {
                self.set_link(port(to), speed.map(|speed| SPEEDS[usize::from(speed) % SPEEDS.len()]));
            }
            Act::Say { port: to, system, key, bits, knows } => {
                let sender = sender(port(to), system % 3, key % 2, bits.unwrap_or(SOUND));
                self.hear(port(to), &self.frame(port(to), sender, knows));
            }
            Act::Raw { port: to, changes, cut } => {
                let mut frame = self.frame(port(to), sender(port(to), 0, 0, SOUND), true);
                for (place, byte) in changes {
                    frame[usize::from(place) % FRAME] = byte;
                }
                self.hear(port(to), &frame[..FRAME - cut.map_or(0, |cut| usize::from(cut) % FRAME)]);
            }
            Act::Marker { port: to } => {
                let mut frame = self.frame(port(to), [0; 15], false);
                frame[14..18].copy_from_slice(&[2, 1, 1, 16]);
                self.hear(port(to), &frame);
            }
            Act::Pass { time } => self.now += TIMES[usize::from(time) % TIMES.len()],
        }
    }

    /// With other ends as they should be, all ports carry, and go on to.
    fn end(&mut self, seen: &mut Vec<u64>) {
        (0..PORTS).for_each(|port| self.set_link(port, Some(1000)));
        let mut carried = 0;
        for _ in 0..ROUNDS {
            for port in 0..PORTS {
                self.hear(port, &self.frame(port, sender(port, 0, 0, SOUND), true));
            }
            self.poll(seen);
            self.now += 1000;
            let carry = (0..PORTS).all(|port| self.lacp.distributes(port));
            assert!(carry || carried == 0, "they carry no longer");
            carried += usize::from(carry);
            if carried > STEADY {
                return;
            }
        }
        panic!("not all ports carry");
    }
}

/// The other end of a port, by the number of its system.
fn sender(port: usize, system: u8, key: u8, bits: u8) -> [u8; 15] {
    [0, 1, 2, 0, 0, 0, 0, 0xe0 + system, 0, key, 0, 1, 0, port as u8, bits]
}

/// Reads an input. Every input is one.
fn acts(input: &[u8]) -> impl Iterator<Item = Act> {
    let mut bytes = Unstructured::new(input);
    std::iter::from_fn(move || if bytes.is_empty() { None } else { bytes.arbitrary().ok() }).take(ACTS)
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    acts(input).map(|act| format!("{act:?}\n")).collect()
}

/// The target.
#[derive(Default)]
pub struct Bonds {
    acts: u64,
}

impl Target for Bonds {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let mut world = World::new();
        for act in acts(input) {
            self.acts += 1;
            world.act(act);
            world.poll(seen);
        }
        world.end(seen);
    }

    fn operations(&self) -> Option<u64> {
        Some(self.acts)
    }
}

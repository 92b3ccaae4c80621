use super::*;

const PARTNER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xee]);

fn address(place: usize) -> MacAddress {
    MacAddress([0, 0x16, 0x3e, 0, 1, place as u8])
}

/// A switch outside: ports of a group that answer each frame with what they make of it, and no more.
struct Partner {
    key: u16,
    short: bool,
    /// What it heard of each port, and the state that it answers with beyond that.
    heard: [Option<Info>; 4],
    collects: bool,
}

impl Partner {
    fn new() -> Self {
        Self { key: 7, short: false, heard: [None; 4], collects: true }
    }

    fn info(&self, place: usize) -> Info {
        let mut bits = state::ACTIVITY | state::AGGREGATION | state::SYNC;
        bits |= if self.short { state::SHORT } else { 0 };
        let theirs = self.heard[place].unwrap_or_default();
        if theirs.has(state::SYNC) && self.collects {
            bits |= state::COLLECTING | state::DISTRIBUTING;
        }
        Info { system: (100, PARTNER), key: self.key, port: (1, place as u16 + 40), state: bits }
    }

    fn frame(&self, place: usize) -> [u8; FRAME] {
        build(PARTNER, &Message::Ends(self.info(place), self.heard[place].unwrap_or_default()))
    }
}

struct Lab {
    lacp: Lacp,
    partners: [Option<Partner>; 4],
    now: Instant,
    frames: usize,
}

impl Lab {
    /// A number of ports, each with a link of 1,000 Mbit/s.
    fn new(ports: usize) -> Self {
        let mut lab =
            Self { lacp: Lacp::new(ports), partners: [const { None }; 4], now: Instant(1_000_000_000), frames: 0 };
        (0..ports).for_each(|place| lab.set_link(place, Some(1000)));
        lab
    }

    fn with(mut self, partner: impl Fn(usize) -> Option<Partner>) -> Self {
        (0..4).for_each(|place| self.partners[place] = partner(place));
        self
    }

    fn set_link(&mut self, place: usize, speed: Option<u32>) {
        self.lacp.set_link(place, speed, address(place), self.now);
    }

    /// Lets time pass, in steps: all that is sent is heard, and answered.
    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 100 {
            for _ in 0..20 {
                let Some((place, frame)) = self.lacp.poll(self.now) else {
                    break;
                };
                self.frames += 1;
                assert_eq!(frame[6..12], address(place).0);
                let Some(Message::Ends(actor, partner)) = parse(&frame) else {
                    panic!("no LACP: {frame:x?}");
                };
                let Some(other) = &mut self.partners[place] else {
                    continue;
                };
                let before = other.heard[place].replace(actor);
                if before != Some(actor) || partner != other.info(place) {
                    let answer = other.frame(place);
                    self.lacp.handle_frame(place, &answer, self.now);
                }
            }
            self.now = self.now + Duration::from_millis(100);
        }
    }

    fn carries(&self) -> alloc::vec::Vec<usize> {
        let carries = (0..4).filter(|place| self.lacp.distributes(*place)).collect();
        assert!((0..4).all(|place| self.lacp.collects(place) || !self.lacp.distributes(place)));
        carries
    }
}

#[test]
fn links_to_one_partner_are_one() {
    let mut lab = Lab::new(3).with(|_| Some(Partner::new()));
    lab.pass(1000);
    assert_eq!(lab.carries(), [], "others may come");
    lab.pass(2000);
    assert_eq!(lab.carries(), [0, 1, 2]);
    // Slow from here on.
    let frames = lab.frames;
    lab.pass(60_000);
    assert!((3..=9).contains(&(lab.frames - frames)), "{} frames in a minute", lab.frames - frames);
    // A link that goes carries no more at once, and the others do.
    lab.set_link(1, None);
    assert_eq!(lab.carries(), [0, 2]);
    lab.set_link(1, Some(1000));
    lab.pass(3000);
    assert_eq!(lab.carries(), [0, 1, 2]);
    // One of another speed is of another group.
    lab.set_link(1, None);
    lab.set_link(1, Some(100));
    lab.pass(5000);
    assert_eq!(lab.carries(), [0, 2]);
}

#[test]
fn without_a_partner_one_port_is_used() {
    let mut lab = Lab::new(2);
    lab.pass(2900);
    assert_eq!(lab.carries(), []);
    lab.pass(3000);
    assert_eq!(lab.carries(), [0], "it is by itself");
    lab.set_link(0, None);
    lab.pass(300);
    assert_eq!(lab.carries(), [1], "the other stood by");
    lab.set_link(0, Some(1000));
    lab.pass(10_000);
    assert_eq!(lab.carries(), [1], "it stays");
    // A partner is better than none.
    lab.partners[0] = Some(Partner::new());
    lab.pass(40_000);
    assert_eq!(lab.carries(), [0]);
}

#[test]
fn links_to_two_partners_are_not_one() {
    let mut lab = Lab::new(4).with(|place| Some(Partner { key: if place == 0 { 1 } else { 2 }, ..Partner::new() }));
    lab.pass(4000);
    // The first group that was found stays.
    let first = lab.carries();
    assert!(first == [0] || first == [1, 2, 3], "{first:?}");
    first.iter().for_each(|place| lab.set_link(*place, None));
    lab.pass(4000);
    let second = lab.carries();
    assert!(second != first && (second == [0] || second == [1, 2, 3]), "{second:?}");
}

#[test]
fn packets_wait_for_a_partner_that_takes_them() {
    let mut lab = Lab::new(1).with(|_| Some(Partner { collects: false, ..Partner::new() }));
    lab.pass(4000);
    assert!(lab.lacp.collects(0) && !lab.lacp.distributes(0));
    lab.partners[0].as_mut().unwrap().collects = true;
    lab.pass(31_000);
    assert!(lab.lacp.distributes(0));
    // It is out of step.
    let Partner { heard, .. } = lab.partners[0].as_ref().unwrap();
    let own = heard[0].unwrap();
    let partner = lab.partners[0].as_ref().unwrap().info(0);
    for (actor, knows) in [
        (Info { state: partner.state & !state::SYNC, ..partner }, own),
        (partner, Info { port: (own.port.0, own.port.1 + 1), ..own }),
        (partner, Info { system: (1, PARTNER), ..own }),
    ] {
        let frame = build(PARTNER, &Message::Ends(actor, knows));
        lab.lacp.handle_frame(0, &frame, lab.now);
        assert!(!lab.lacp.collects(0) && !lab.lacp.distributes(0), "{actor:?} {knows:?}");
        let frame = build(PARTNER, &Message::Ends(partner, own));
        lab.lacp.handle_frame(0, &frame, lab.now);
        assert!(lab.lacp.distributes(0));
    }
}

#[test]
fn a_partner_that_falls_silent_is_given_up() {
    let mut lab = Lab::new(2).with(|_| Some(Partner::new()));
    lab.pass(3000);
    assert_eq!(lab.carries(), [0, 1]);
    // Only the first one's is silent.
    let silent = lab.partners[0].take();
    lab.pass(89_000);
    let frame = lab.partners[1].as_ref().unwrap().frame(1);
    lab.lacp.handle_frame(1, &frame, lab.now);
    lab.pass(3000);
    assert_eq!(lab.carries(), [1]);
    lab.pass(10_000);
    assert_eq!(lab.carries(), [1], "one by itself is not of the group");
    lab.partners[0] = silent;
    lab.pass(40_000);
    assert_eq!(lab.carries(), [0, 1]);
}

#[test]
fn frames_are_as_fast_as_the_partner_wants_them() {
    let mut lab = Lab::new(1).with(|_| Some(Partner { short: true, ..Partner::new() }));
    lab.pass(4000);
    let frames = lab.frames;
    lab.pass(20_000);
    assert!((19..=21).contains(&(lab.frames - frames)), "{} frames in 20 s", lab.frames - frames);
}

/// A partner that never agrees does not have frames sent without end.
#[test]
fn no_more_than_three_frames_a_second() {
    let mut lab = Lab::new(1);
    let mut sent = 0;
    for round in 0..100_u64 {
        let wrong =
            Info { system: (1, PARTNER), port: (0, round as u16), state: state::AGGREGATION, ..Info::default() };
        lab.lacp.handle_frame(0, &build(PARTNER, &Message::Ends(wrong, wrong)), lab.now);
        while lab.lacp.poll(lab.now).is_some() {
            sent += 1;
        }
        assert!(lab.lacp.deadline(lab.now).is_some_and(|at| at > lab.now), "it would be polled at once again");
        lab.now = lab.now + Duration::from_millis(100);
    }
    assert!((20..=33).contains(&sent), "{sent} frames in 10 s");
}

#[test]
fn frames_of_this_system_and_of_ports_without_a_link_are_not_heard() {
    let mut lab = Lab::new(2).with(|_| Some(Partner::new()));
    lab.pass(3000);
    let frame = lab.partners[0].as_ref().unwrap().frame(0);
    let (_, own) = (lab.set_link(1, None), lab.partners[0].as_ref().unwrap().heard[0].unwrap());
    lab.lacp.handle_frame(1, &frame, lab.now);
    lab.lacp.handle_frame(0, &build(address(0), &Message::Ends(own, own)), lab.now);
    lab.lacp.handle_frame(7, &frame, lab.now);
    assert_eq!((lab.carries(), lab.lacp.system()), ([0].into(), address(0)));
}

#[test]
fn a_life_goes_on_without_a_wait() {
    let mut lab = Lab::new(2).with(|_| Some(Partner::new()));
    lab.pass(3000);
    let kept = [0, 1].map(|place| lab.lacp.keep(place).unwrap());
    let system = lab.lacp.system();
    lab.lacp = Lacp::new(2);
    lab.lacp.set_system(system);
    (0..2).for_each(|place| lab.lacp.restore(place, kept[place]));
    lab.set_link(1, Some(1000));
    assert_eq!(lab.carries(), [1]);
    lab.set_link(0, Some(1000));
    lab.pass(200);
    assert_eq!(lab.carries(), [0, 1]);
    lab.pass(10_000);
    assert_eq!(lab.carries(), [0, 1]);
    // The partner went meanwhile: it is found out as fast as may be.
    lab.lacp = Lacp::new(2);
    lab.lacp.set_system(system);
    (0..2).for_each(|place| lab.lacp.restore(place, kept[place]));
    lab.partners = [const { None }; 4];
    (0..2).for_each(|place| lab.set_link(place, Some(1000)));
    lab.pass(3200);
    assert_eq!(lab.carries(), []);
}

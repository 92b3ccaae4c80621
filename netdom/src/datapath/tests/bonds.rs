//! Bonds: which NIC a packet leaves on, which NIC's frames are taken, and what the network outside is told.

use super::frames::ethernet;
use super::{Net, OFFLOADS, RING};
use crate::bond::lacp::{Info, Message, build, is_slow, parse, state};
use crate::bond::{Mode, Policy};
use crate::datapath::kept::KeptBond;
use crate::datapath::{ActiveChange, BondId, NicId};
use crate::ethernet::{MacAddress, VlanId};
use crate::fakes::{FakeNic, Frontend, Outgoing, Wire};
use crate::packet::Checksum;
use crate::statistics::DropCause;
use crate::switch::Vlans;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::time::Duration;

type Cable = Rc<RefCell<Wire>>;

/// A station behind the bond.
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];

struct Bonded {
    net: Net,
    bond: BondId,
    nics: Vec<NicId>,
    wires: Vec<Cable>,
}

impl Bonded {
    /// Guests on a bridge whose wire is a bond of so many NICs. The net's own NIC is on another bridge.
    fn new(mode: Mode, nics: usize, guests: usize) -> Self {
        let mut net = Net::new(&[]);
        let bond = net.path.add_bond("lan", mode, nics).unwrap();
        for _ in 0..guests {
            net.add(Frontend::linux_features(), "lan");
        }
        let mut bonded = Self { net, bond, nics: Vec::new(), wires: Vec::new() };
        for place in 0..nics {
            let (nic, wire) = FakeNic::new(OFFLOADS, RING);
            bonded.nics.push(bonded.net.path.add_member(Box::new(nic), bond, place).ok().unwrap());
            bonded.wires.push(wire);
        }
        bonded.net.introduce();
        bonded.sent();
        bonded
    }

    fn set_link(&mut self, place: usize, up: bool) {
        self.wires[place].borrow_mut().down = !up;
        self.net.path.handle_interrupt(self.nics[place], 0);
        self.net.run();
    }

    fn receive(&mut self, place: usize, frame: &[u8]) {
        self.wires[place].borrow_mut().incoming.push_back((frame.into(), Checksum::Unverified));
        self.net.run();
    }

    /// What each NIC sent.
    fn sent(&mut self) -> Vec<Vec<Vec<u8>>> {
        let take = |wire: &Cable| wire.borrow_mut().sent.drain(..).map(|frame| frame.bytes).collect();
        self.wires.iter().map(take).collect()
    }

    fn arrived(&mut self, guest: usize) -> usize {
        self.net.guests[guest].arrived().len()
    }

    fn send(&mut self, guest: usize, bytes: Vec<u8>) {
        self.net.send(guest, &Outgoing { bytes, ..Outgoing::default() });
    }

    fn end(mut self) {
        for nic in self.nics {
            drop(self.net.path.remove_nic(nic));
        }
        self.net.end();
    }
}

/// A frame that tells switches where a station is.
fn announces(frame: &[u8], station: [u8; 6], vlan: Option<u8>) -> bool {
    let tag = vlan.map_or(Vec::new(), |vlan| Vec::from([0x81, 0, 0, vlan]));
    frame.starts_with(&[&[0xff; 6][..], &station, &tag, &[0x80, 0x35]].concat())
}

#[test]
fn the_active_nic_carries_all_and_the_backup_takes_over() {
    let mut bonded = Bonded::new(Mode::ActiveBackup, 2, 2);
    let (a, b) = (bonded.net.guests[0].mac, bonded.net.guests[1].mac);
    let change = |active| ActiveChange { bond: bonded.bond, active };
    let [first, second] = [Some(0), Some(1)].map(change);
    assert_eq!([bonded.net.path.poll_active(), bonded.net.path.poll_active()], [Some(first), None]);

    // Floods, too, leave once; and what the bond received does not come back to it.
    let hello = ethernet([0xff; 6], a, 100);
    bonded.send(0, hello.clone());
    assert_eq!(bonded.sent(), [Vec::from([hello]), Vec::new()]);
    bonded.receive(0, &ethernet([0xff; 6], PEER, 100));
    assert_eq!((bonded.arrived(0), bonded.arrived(1), bonded.sent().concat().len()), (1, 2, 0));
    let out = ethernet(PEER, a, 200);
    bonded.send(0, out.clone());
    assert_eq!(bonded.sent(), [Vec::from([out.clone()]), Vec::new()]);

    // On a hub the backup hears the same: it is dropped, and counted as nothing.
    bonded.receive(1, &ethernet(a, PEER, 100));
    let backup = bonded.net.path.nic_statistics(bonded.nics[1]).unwrap();
    assert_eq!((bonded.arrived(0), backup.from_port.packets, backup.drops), (0, 0, [0; DropCause::COUNT]));

    // Failover: the switch outside is told of both guests, and not of its own station.
    bonded.set_link(0, false);
    assert_eq!(bonded.net.path.poll_active(), Some(second));
    let told = bonded.sent();
    assert_eq!((told[0].len(), told[1].len()), (0, 2));
    assert!([a, b].iter().all(|mac| told[1].iter().any(|frame| announces(frame, *mac, None) && frame.len() == 60)));
    bonded.send(0, out.clone());
    assert_eq!(bonded.sent(), [Vec::new(), Vec::from([out.clone()])], "the station is known as before");
    bonded.receive(1, &ethernet(a, PEER, 100));
    assert_eq!(bonded.arrived(0), 1);

    // The other one comes back as the backup.
    bonded.set_link(0, true);
    bonded.send(0, out.clone());
    assert_eq!(bonded.sent(), [Vec::new(), Vec::from([out.clone()])]);
    bonded.receive(0, &ethernet(a, PEER, 100));
    assert_eq!(bonded.arrived(0), 0);

    // The active one is taken away.
    drop(bonded.net.path.remove_nic(bonded.nics[1]));
    bonded.net.run();
    assert_eq!(bonded.sent()[0].len(), 2);
    bonded.send(0, out.clone());
    assert_eq!(bonded.sent()[0], core::slice::from_ref(&out));

    // None has a link: what is for the wire is lost, and what is for a guest is not.
    bonded.set_link(0, false);
    bonded.send(0, out);
    bonded.send(0, ethernet(b, a, 100));
    assert_eq!((bonded.sent().concat().len(), bonded.arrived(1)), (0, 1));
    let statistics = bonded.net.path.nic_statistics(bonded.nics[0]).unwrap();
    assert_eq!(statistics.drops[DropCause::NoLink as usize], 1);
    bonded.end();
}

/// A frame may be lost, and one that left on the other link may come after it.
#[test]
fn stations_are_announced_again() {
    let mut bonded = Bonded::new(Mode::ActiveBackup, 2, 2);
    let stations = [0, 1].map(|guest| bonded.net.guests[guest].mac);
    bonded.sent();
    bonded.set_link(0, false);
    let (begin, mut told) = (bonded.net.now, Vec::new());
    for _ in 0..10_000 {
        for frame in bonded.sent().remove(1) {
            assert!(stations.iter().any(|mac| announces(&frame, *mac, None)));
            told.push(bonded.net.now.since(begin).as_millis());
        }
        bonded.net.now = bonded.net.now + Duration::from_millis(1);
        bonded.net.run();
    }
    assert_eq!(told.len(), 10, "{told:?}");
    for (pair, due) in told.chunks(2).zip([0, 250, 750, 1750, 3750]) {
        assert!(pair.iter().all(|at| (due..due + 10).contains(at)), "{told:?}");
    }
    assert!(!bonded.net.path.has_news());
    bonded.end();
}

#[test]
fn stations_are_announced_in_their_vlans_and_as_there_is_room() {
    let mut bonded = Bonded::new(Mode::ActiveBackup, 2, 0);
    let guest = Frontend::new(&bonded.net.xen, 9, false);
    let vlans = Vlans::access(VlanId::new(7).unwrap());
    let config = crate::netback::config::VifConfig { vlans, ..guest.config("lan", Frontend::linux_features()) };
    bonded.net.attach(guest, config);
    let last = bonded.net.add(Frontend::linux_features(), "lan");
    bonded.net.introduce();
    let (tagged, plain) = (bonded.net.guests[0].mac, bonded.net.guests[last].mac);
    // A bridge behind a guest.
    let behind: Vec<[u8; 6]> = (0..200).map(|number| [2, 9, 0, 0, 0, number]).collect();
    for mac in &behind {
        bonded.send(last, ethernet([0xff; 6], *mac, 60));
        bonded.net.guests[last].collect_answers();
    }
    bonded.net.guests[0].arrived();
    bonded.sent();
    // The other NIC's ring has room for less than all of them.
    bonded.wires[1].borrow_mut().room = 200;
    bonded.wires[1].borrow_mut().hold = true;
    bonded.set_link(0, false);
    let mut told = bonded.sent().remove(1);
    assert!((50..190).contains(&told.len()), "{}", told.len());
    bonded.wires[1].borrow_mut().hold = false;
    for _ in 0..50 {
        bonded.net.now = bonded.net.now + Duration::from_millis(1);
        bonded.net.run();
        told.append(&mut bonded.sent()[1]);
    }
    assert!(!bonded.net.path.has_news());
    assert_eq!(told.len(), 202);
    assert!(told.iter().any(|frame| announces(frame, tagged, Some(7)) && frame.len() == 64));
    assert!(behind.iter().chain([&plain]).all(|mac| told.iter().any(|frame| announces(frame, *mac, None))));
    bonded.end();
}

/// A guest waits for the NIC that its packets leave on, and for no other.
#[test]
fn a_full_member_holds_back_what_leaves_on_it() {
    let mut bonded = Bonded::new(Mode::ActiveBackup, 2, 1);
    let a = bonded.net.guests[0].mac;
    bonded.receive(0, &ethernet([0xff; 6], PEER, 100));
    bonded.wires[0].borrow_mut().hold = true;
    let mut placed = 0;
    let mut fill = |bonded: &mut Bonded| {
        for _ in 0..20 {
            while bonded.net.guests[0].place(&Outgoing { bytes: ethernet(PEER, a, 100), ..Outgoing::default() }) {
                placed += 1;
            }
            bonded.net.guests[0].publish();
            bonded.net.run();
            bonded.net.guests[0].collect_answers();
        }
        placed
    };
    let stuck = fill(&mut bonded);
    assert!(stuck < 1000, "{stuck}");
    let lost =
        |bonded: &Bonded| bonded.net.path.nic_statistics(bonded.nics[0]).unwrap().drops[DropCause::NicFull as usize];
    assert_eq!(lost(&bonded), 0);
    bonded.set_link(0, false);
    assert!(fill(&mut bonded) > stuck + 2000, "the other one sends");
    bonded.wires[0].borrow_mut().hold = false;
    bonded.end();
}

/// UDP between two stations, of these ports.
fn udp(to: [u8; 6], from: [u8; 6], ports: [u16; 2]) -> Vec<u8> {
    let mut frame =
        [&to[..], &from, &[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]].concat();
    frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    frame.extend([0, 8, 0, 0]);
    frame.resize(60, 0);
    frame
}

#[test]
fn flows_are_spread_over_all_nics_with_a_link() {
    let mut bonded = Bonded::new(Mode::BalanceXor(Policy::Layer34), 3, 1);
    let a = bonded.net.guests[0].mac;
    assert_eq!(bonded.net.path.poll_active(), None);
    bonded.receive(2, &ethernet([0xff; 6], PEER, 100));
    assert_eq!(bonded.arrived(0), 1, "frames of all are taken");
    let flows = |bonded: &mut Bonded| {
        let mut last = Vec::new();
        for port in 1000..1090 {
            for _ in 0..2 {
                bonded.send(0, udp(PEER, a, [port, 80]));
            }
            bonded.net.guests[0].collect_answers();
            let counts: Vec<usize> = bonded.sent().iter().map(Vec::len).collect();
            assert_eq!(counts.iter().filter(|count| **count > 0).count(), 1, "a flow stays on one");
            last.push(counts.iter().position(|count| *count == 2).unwrap());
        }
        (0..3).map(|nic| last.iter().filter(|used| **used == nic).count()).collect::<Vec<_>>()
    };
    let spread = flows(&mut bonded);
    assert!(spread.iter().all(|count| *count >= 20), "{spread:?}");
    bonded.set_link(1, false);
    assert_eq!(bonded.sent().concat().len(), 0, "the switch outside spreads by its own hash");
    let spread = flows(&mut bonded);
    assert!(spread[1] == 0 && spread[0] >= 30 && spread[2] >= 30, "{spread:?}");
    bonded.receive(1, &ethernet(a, PEER, 100));
    assert_eq!(bonded.arrived(0), 0);
    // A flood leaves once.
    bonded.send(0, ethernet([0xff; 6], a, 100));
    assert_eq!(bonded.sent().concat().len(), 1);
    bonded.end();
}

/// A bond and a NIC on one bridge are two ways out: BPDUs go from one to the other.
#[test]
fn a_bond_is_a_wire_to_others_on_its_bridge() {
    let mut bonded = Bonded::new(Mode::ActiveBackup, 2, 1);
    let (nic, wire) = FakeNic::new(OFFLOADS, RING);
    let nic = bonded.net.path.add_nic(Box::new(nic), "lan").ok().unwrap();
    let bpdu = ethernet([1, 0x80, 0xc2, 0, 0, 0], PEER, 60);
    bonded.receive(0, &bpdu);
    assert_eq!((wire.borrow_mut().sent.drain(..).count(), bonded.arrived(0)), (1, 0));
    wire.borrow_mut().incoming.push_back((ethernet([0xff; 6], [2, 0, 0, 0, 0, 2], 100), Checksum::Unverified));
    bonded.net.run();
    assert_eq!(bonded.sent().iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
    // What is behind the NIC is announced, too.
    bonded.set_link(0, false);
    assert_eq!(bonded.sent()[1].len(), 2);
    drop(bonded.net.path.remove_nic(nic));
    bonded.end();
}

/// Another life of the domain, whose bond goes on as the last one's: its NICs come in this order.
fn next_life(bonded: &Bonded, mode: Mode, order: &[usize]) -> Bonded {
    let names: Vec<String> = (0..bonded.nics.len()).map(|place| format!("nic{place}")).collect();
    let kept = bonded.net.path.keep_bond(bonded.bond, "bond0", &names).unwrap();
    let kept: KeptBond = minicbor::decode(&minicbor::to_vec(kept).unwrap()).unwrap();
    let mut net = Net::new(&[]);
    net.now = bonded.net.now;
    net.path.begin_at(net.now);
    let bond = net.path.add_bond("lan", mode, names.len()).unwrap();
    net.path.restore_bond(bond, &kept, &names);
    net.add(Frontend::linux_features(), "lan");
    let mut next = Bonded { net, bond, nics: Vec::new(), wires: bonded.wires.clone() };
    for place in order {
        let nic = FakeNic::again(&bonded.wires[*place], OFFLOADS, RING);
        next.nics.push(next.net.path.add_member(Box::new(nic), bond, *place).ok().unwrap());
    }
    next
}

#[test]
fn the_next_life_has_the_same_active_nic_and_knows_the_stations() {
    let mode = Mode::ActiveBackup;
    let mut bonded = Bonded::new(mode, 2, 1);
    bonded.set_link(0, false);
    bonded.set_link(0, true);
    bonded.receive(1, &ethernet([0xff; 6], PEER, 100));
    let mut next = next_life(&bonded, mode, &[0, 1]);
    bonded.sent();
    next.net.path.settle_bonds();
    next.net.run();
    assert_eq!((next.sent().concat().len(), next.net.path.active_member(next.bond)), (0, Some(1)));
    let frame = ethernet(PEER, next.net.guests[0].mac, 100);
    next.send(0, frame.clone());
    assert_eq!(next.sent(), [Vec::new(), Vec::from([frame])]);

    // It does not come back: the other one is used, and the network outside is told when the life has begun.
    let mut last = next_life(&next, mode, &[0]);
    last.send(0, ethernet([0xff; 6], last.net.guests[0].mac, 100));
    assert_eq!(last.sent().concat().len(), 1);
    last.net.path.settle_bonds();
    last.net.run();
    assert!(announces(&last.sent()[0][0], last.net.guests[0].mac, None));
    for bonded in [bonded, next, last] {
        bonded.end();
    }
}

/// The switch outside: a port that answers what it hears, in step.
fn answer(bonded: &mut Bonded, place: usize, key: u16) -> usize {
    let frames: Vec<_> = bonded.wires[place].borrow_mut().sent.drain(..).map(|frame| frame.bytes).collect();
    let mut heard = 0;
    for frame in frames {
        let Some(Message::Ends(theirs, _)) = parse(&frame) else {
            continue;
        };
        heard += 1;
        let bits = state::ACTIVITY | state::AGGREGATION | state::SYNC | state::COLLECTING | state::DISTRIBUTING;
        let own = Info { system: (1, MacAddress(PEER)), key, port: (1, place as u16), state: bits };
        bonded.wires[place]
            .borrow_mut()
            .incoming
            .push_back((build(MacAddress(PEER), &Message::Ends(own, theirs)).into(), Checksum::Unverified));
    }
    heard
}

fn agree(bonded: &mut Bonded, milliseconds: u64) {
    for _ in 0..milliseconds / 50 {
        for place in 0..bonded.wires.len() {
            answer(bonded, place, 5);
        }
        bonded.net.run();
        bonded.net.now = bonded.net.now + Duration::from_millis(50);
    }
}

#[test]
fn links_that_the_switch_outside_agrees_on_carry_packets() {
    let mode = Mode::Lacp(Policy::Layer34);
    let mut bonded = Bonded::new(mode, 2, 1);
    let a = bonded.net.guests[0].mac;
    bonded.send(0, ethernet([0xff; 6], a, 100));
    bonded.receive(0, &ethernet([0xff; 6], PEER, 100));
    assert_eq!((bonded.sent().iter().flatten().filter(|frame| !is_slow(frame)).count(), bonded.arrived(0)), (0, 0));
    agree(&mut bonded, 4000);
    bonded.sent();
    for place in [0, 1] {
        bonded.receive(place, &ethernet([0xff; 6], PEER, 100));
        assert_eq!(bonded.arrived(0), 1, "NIC {place}");
    }
    let spread = |bonded: &mut Bonded| {
        for port in 1000..1040 {
            bonded.send(0, udp(PEER, a, [port, 80]));
            bonded.net.guests[0].collect_answers();
        }
        let sent = bonded.sent();
        [0, 1].map(|place| sent[place].iter().filter(|frame| !is_slow(frame)).count())
    };
    let counts = spread(&mut bonded);
    assert!(counts[0] + counts[1] == 40 && counts.iter().all(|count| *count >= 12), "{counts:?}");

    // No frame of the protocol goes further; it is counted as no loss.
    assert_eq!(bonded.arrived(0), 0);
    let drops = bonded.net.path.nic_statistics(bonded.nics[0]).unwrap().drops;
    assert_eq!(drops[DropCause::NotForwarded as usize], 0);

    // A life on, without a wait.
    let mut next = next_life(&bonded, mode, &[1, 0]);
    next.net.path.settle_bonds();
    next.net.run();
    next.send(0, ethernet([0xff; 6], next.net.guests[0].mac, 100));
    next.sent();
    let counts = spread(&mut next);
    assert!(counts[0] + counts[1] == 40 && counts.iter().all(|count| *count >= 12), "{counts:?}");
    for nic in next.nics.drain(..) {
        drop(next.net.path.remove_nic(nic));
    }
    next.end();

    bonded.set_link(0, false);
    assert_eq!(spread(&mut bonded), [0, 40]);
    bonded.end();
}

/// Frames between the protocol's stay in their order.
#[test]
fn frames_of_the_protocol_are_taken_from_among_others() {
    let mut bonded = Bonded::new(Mode::Lacp(Policy::Layer2), 1, 1);
    agree(&mut bonded, 4000);
    let a = bonded.net.guests[0].mac;
    let others: Vec<Vec<u8>> = (0..6).map(|number| ethernet(a, PEER, 100 + number)).collect();
    let marker = {
        let mut frame = build(MacAddress(PEER), &Message::Ends(Info::default(), Info::default()));
        frame[14..18].copy_from_slice(&[2, 1, 1, 16]);
        frame
    };
    bonded.sent();
    for other in &others {
        let mut wire = bonded.wires[0].borrow_mut();
        wire.incoming.push_back((marker.into(), Checksum::Unverified));
        wire.incoming.push_back((other.clone(), Checksum::Unverified));
        wire.incoming.push_back((marker[..60].into(), Checksum::Unverified));
    }
    bonded.net.run();
    let arrived: Vec<Vec<u8>> = bonded.net.guests[0].arrived().into_iter().map(|packet| packet.bytes).collect();
    assert_eq!(arrived, others);
    let answers = bonded.sent().concat();
    assert!(answers.len() == 1 && answers[0][16] == 2, "one a round");
    bonded.end();
}

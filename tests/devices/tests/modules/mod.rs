//! Cases of an 82599's SFP+ modules: of each kind, coming and going, and such as are nonsense. Host.

use std::cell::RefCell;
use std::time::Duration;

use devices::bus::Model;
use devices::fake::Device;
use devices::i2c::{Fault, Kind as Optics, Module};
use devices::ixgbe::{Ixgbe, Kind, cause, registers};
use devices::pause;
use netdom::nic::{Interrupts, Link, Options, queue};
use split_driver::time::Instant;

use crate::bench::cases::start_on;
use crate::bench::{Bench, bytes, contents, packet};

const CABLE: &[u16] = &[0x0A01, 0x0A02];
const OPTICS: &[u16] = &[0x0501, 0x0502, 0x0503];
/// What a look may take: guests wait meanwhile.
const LOOK: Duration = Duration::from_millis(2);

thread_local! {
    /// What this thread's driver said of modules.
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what drivers log.
struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        if self.enabled(record.metadata()) && line.contains("SFP+ module") {
            SAID.with_borrow_mut(|said| said.push(line));
        }
    }

    fn flush(&self) {}
}

/// What was said of modules since this was asked last.
fn said() -> Vec<String> {
    SAID.take()
}

fn start(change: impl FnOnce(&mut Ixgbe)) -> Bench<Ixgbe> {
    // Another test of this process may have done so.
    let _set = log::set_logger(&Log).map(|()| log::set_max_level(log::LevelFilter::Info));
    let change = |device: &Device<Ixgbe>| device.with_model(change);
    start_on(Kind::Sfp, change, Interrupts::MsiX(3), Options::default()).expect("it starts")
}

/// Looks once.
fn look(bench: &mut Bench<Ixgbe>) {
    let before = bench.device.now();
    assert_eq!(bench.watch(Instant(before.as_nanos() as u64)), None);
    let took = bench.device.now() - before;
    assert!(took < LOOK, "a look took {took:?}");
}

/// Looks as often as is asked for, for half a second at most.
fn look_soon(bench: &mut Bench<Ixgbe>) {
    let end = bench.device.now() + Duration::from_millis(500);
    while let Some(at) = bench.nic.next_look().filter(|_| bench.device.now() < end) {
        let now = bench.device.now();
        bench.device.wait(Duration::from_nanos(at.0).saturating_sub(now));
        look(bench);
    }
}

/// Looks once a second until there is a link, at most so often; gives it.
fn watch(bench: &mut Bench<Ixgbe>, seconds: u64) -> Link {
    for _ in 0..seconds {
        bench.device.wait(Duration::from_secs(1));
        look(bench);
        look_soon(bench);
        bench.device.wait(Duration::from_millis(100));
        // A link that fell shows once.
        let _fell = bench.nic.link();
        if bench.nic.link() != Link::Down {
            break;
        }
    }
    bench.nic.link()
}

fn module(bench: &Bench<Ixgbe>) -> String {
    bench.nic.module().expect("it has a cage")
}

/// Whether a frame goes each way.
fn works(bench: &mut Bench<Ixgbe>) -> bool {
    let frame = bytes(300, 1);
    assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[]), None).is_ok());
    queue(&mut *bench.nic).flush();
    let sent = bench.device.sent() == Some(frame.clone());
    let received =
        bench.device.inject(&frame) && queue(&mut *bench.nic).receive().is_some_and(|it| contents(&it) == frame);
    queue(&mut *bench.nic).reclaim();
    queue(&mut *bench.nic).refill(&bench.pool);
    sent && received
}

/// A kind, its name, the start-up sequence that it needs, and its link.
const KINDS: [(Optics, &str, &[u16], u32); 9] = [
    (Optics::ShortReach, "10GBASE-SR", OPTICS, 10_000),
    (Optics::LongReach, "10GBASE-LR", OPTICS, 10_000),
    (Optics::BothSpeeds, "10GBASE-SR, 10 and 1 Gbit/s", OPTICS, 10_000),
    (Optics::PassiveCable, "direct attach, passive", CABLE, 10_000),
    (Optics::LimitingCable, "direct attach, active and limiting", OPTICS, 10_000),
    (Optics::Copper, "1000BASE-T", OPTICS, 1000),
    (Optics::ShortWave, "1000BASE-SX", OPTICS, 1000),
    (Optics::LongWave, "1000BASE-LX", OPTICS, 1000),
    (Optics::Unknown, "unknown kind", &[], 10_000),
];

#[test]
fn each_kind_is_named_and_set_up_at_the_start() {
    assert_eq!(KINDS.map(|(kind, ..)| kind), Optics::ALL);
    for (kind, name, sequence, speed) in KINDS {
        let mut bench = start(|model| model.put_in(Module::new(kind)));
        assert_eq!(module(&bench), format!("{name}, Intel Corp FTLX8571D3BCV-IT"));
        assert_eq!(bench.device.with_model(|model| model.tuned().to_vec()), sequence, "{kind:?}");
        // A link that fell shows once.
        let _fell = bench.nic.link();
        assert_eq!(bench.nic.link(), Link::Up(speed), "{kind:?}");
        assert!(works(&mut bench), "{kind:?}");
        bench.finish();
    }
}

#[test]
fn modules_come_and_go() {
    let mut bench = start(Ixgbe::take_out);
    assert_eq!((module(&bench).as_str(), bench.nic.link()), ("none", Link::Down));
    for (kind, name, sequence, speed) in KINDS {
        // Armed, so that the module interrupts.
        while queue(&mut *bench.nic).arm(false) {
            let _causes = bench.nic.handle_interrupt(2);
        }
        bench.device.messages();
        bench.device.with_model(|model| model.put_in(Module::new(kind)));
        assert_eq!(bench.device.messages(), [2], "{kind:?}");
        let _causes = bench.nic.handle_interrupt(2);
        assert_eq!(watch(&mut bench, 2), Link::Up(speed), "{kind:?}");
        assert!(module(&bench).starts_with(name), "{kind:?}");
        assert_eq!(bench.device.with_model(|model| model.tuned().to_vec()), sequence, "{kind:?}");
        assert!(works(&mut bench), "{kind:?}");
        bench.device.with_model(Ixgbe::take_out);
        assert_eq!(watch(&mut bench, 1), Link::Down);
        assert_eq!(module(&bench), "none");
    }
    bench.finish();
}

#[test]
fn a_module_is_found_without_its_interrupt() {
    let mut bench = start(Ixgbe::take_out);
    bench.device.with_model(|model| model.put_in(Module::new(Optics::LongReach)));
    assert_eq!(watch(&mut bench, 2), Link::Up(10_000));
    // Another in its place, before anybody looked.
    bench.device.with_model(|model| model.put_in(Module::new(Optics::PassiveCable)));
    let _causes = bench.nic.handle_interrupt(2);
    assert_eq!(watch(&mut bench, 2), Link::Up(10_000));
    assert!(module(&bench).starts_with("direct attach, passive"));
    bench.finish();
}

#[test]
fn a_restart_sets_a_module_up_again() {
    let mut bench = start(|model| model.put_in(Module::new(Optics::Copper)));
    let device = bench.device.clone();
    bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
    assert_eq!(watch(&mut bench, 1), Link::Up(1000));
    bench.finish();
}

#[test]
fn optics_of_both_speeds_find_that_of_the_other_end() {
    let mut bench = start(|model| {
        model.put_in(Module::new(Optics::BothSpeeds));
        model.set_partner_speed(1000);
        model.set_partner_pause(false, true);
    });
    assert_eq!(bench.nic.link(), Link::Down);
    for speed in [1000, 10_000, 1000] {
        bench.device.with_model(|model| model.set_partner_speed(speed));
        bench.device.wait(Duration::from_secs(1));
        assert_eq!(watch(&mut bench, 8), Link::Up(speed));
        assert!(works(&mut bench));
        // At 1 Gbit/s it is negotiated: they are obeyed, and not sent. At 10 they are both.
        assert_eq!(bench.device.peek(registers::FCCFG) & registers::FCCFG_TFCE != 0, speed == 10_000);
        assert!(bench.device.inject(&pause::frame(0)));
    }
    bench.finish();
}

#[test]
fn a_module_that_is_nonsense_costs_nothing_but_itself() {
    for fault in [Fault::Silent, Fault::Refusing, Fault::Stuck] {
        let broken = |model: &mut Ixgbe| model.put_in(Module::new(Optics::ShortReach).with(fault));
        let mut bench = start(broken);
        assert_eq!((module(&bench).as_str(), bench.nic.link()), ("unreadable", Link::Down), "{fault:?}");
        assert_eq!(watch(&mut bench, 5), Link::Down);
        bench.device.with_model(|model| model.put_in(Module::new(Optics::ShortReach)));
        assert_eq!(watch(&mut bench, 2), Link::Up(10_000), "{fault:?}");
        // And while it runs.
        bench.device.with_model(broken);
        let _causes = bench.nic.handle_interrupt(2);
        assert_eq!(watch(&mut bench, 5), Link::Down);
        assert_eq!(module(&bench), "unreadable", "{fault:?}");
        bench.finish();
    }
    // A wrong sum: what it says is believed all the same.
    let mut bench = start(|model| model.put_in(Module::new(Optics::ShortReach).with(Fault::Checksum)));
    let _fell = bench.nic.link();
    assert_eq!(bench.nic.link(), Link::Up(10_000));
    bench.finish();
}

#[test]
fn each_event_of_a_module_is_said_once() {
    let name = "ixgbe: SFP+ module: 10GBASE-LR, Intel Corp FTLX8571D3BCV-IT";
    let mut bench = start(Ixgbe::take_out);
    assert_eq!(said(), ["ixgbe: no SFP+ module is in the cage"]);
    assert_eq!(watch(&mut bench, 5), Link::Down);
    bench.device.with_model(|model| model.put_in(Module::new(Optics::LongReach)));
    assert_eq!(watch(&mut bench, 2), Link::Up(10_000));
    assert_eq!(said(), [name]);
    let device = bench.device.clone();
    bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
    assert_eq!(watch(&mut bench, 2), Link::Up(10_000));
    bench.device.with_model(Ixgbe::take_out);
    assert_eq!(watch(&mut bench, 5), Link::Down);
    assert_eq!(said(), ["ixgbe: no SFP+ module is in the cage"]);
    bench.finish();
    let rows = [
        (Fault::Silent, "it does not acknowledge its address"),
        (Fault::Refusing, "it does not acknowledge what it is asked for"),
        (Fault::Stuck, "it holds a wire of its bus low"),
    ];
    for (fault, why) in rows {
        let mut bench = start(|model| model.put_in(Module::new(Optics::LongReach).with(fault)));
        assert_eq!(watch(&mut bench, 5), Link::Down);
        assert_eq!(said(), [format!("ixgbe: the SFP+ module cannot be read: {why}")]);
        bench.finish();
    }
    let bench = start(|model| {
        model.put_in(Module::new(Optics::LongReach).with(Fault::Checksum));
        model.set_word(0x2B, 0);
    });
    let sum = "ixgbe: the SFP+ module's memory has a wrong checksum (CC_BASE); its contents are believed";
    let sequence = "ixgbe: the SFP+ module's start-up sequence was not played: the card's memory has none";
    assert_eq!(said(), [name, sum, sequence]);
    bench.finish();
}

#[test]
fn a_module_that_bounces_is_said_once_and_keeps_its_link() {
    let mut bench = start(|model| model.put_in(Module::new(Optics::LongReach).with(Fault::Checksum)));
    assert_eq!(watch(&mut bench, 1), Link::Up(10_000));
    said();
    // A sign that the link was begun with anew.
    bench.device.set(registers::AUTOC2, 7 << 28);
    for _ in 0..5 {
        bench.device.with_model(|model| model.raise(cause::SDP2));
        let _causes = bench.nic.handle_interrupt(2);
        assert_eq!(watch(&mut bench, 1), Link::Up(10_000));
    }
    assert_eq!(said(), [""; 0]);
    assert_eq!(bench.device.peek(registers::AUTOC2), 7 << 28);
    bench.finish();
}

#[test]
fn a_module_that_comes_and_goes_fills_no_log() {
    let mut bench = start(Ixgbe::take_out);
    bench.device.with_model(|model| {
        model.set_word(0x2B, 0);
        model.set_partner_speed(100);
    });
    for _ in 0..20 {
        bench.device.with_model(|model| model.put_in(Module::new(Optics::BothSpeeds)));
        assert_eq!(watch(&mut bench, 1), Link::Down);
        bench.device.with_model(|model| model.put_in(Module::new(Optics::BothSpeeds).with(Fault::Silent)));
        assert_eq!(watch(&mut bench, 1), Link::Down);
    }
    let lines = said();
    assert!(lines.len() <= 8, "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with("for a minute")));
    // It is said again after that.
    bench.device.wait(Duration::from_secs(60));
    bench.device.with_model(Ixgbe::take_out);
    assert_eq!(watch(&mut bench, 1), Link::Down);
    assert_eq!(said(), ["ixgbe: no SFP+ module is in the cage"]);
    bench.finish();
}

#[test]
fn a_memory_that_is_nonsense_costs_the_start_up_sequence() {
    // Words of the card's memory: no list, an empty one, one without the module, one that never ends, a sequence that never ends.
    let rows: [&[(usize, u16)]; 5] = [
        &[(0x2B, 0xFFFF)],
        &[(0x2B, 0)],
        &[(0x0105, 7), (0x0107, 7)],
        &[(0x2B, 0x1000)],
        &[(0x0106, 0x1000), (0x0108, 0x1000)],
    ];
    for row in rows {
        let mut bench = start(|model| {
            model.put_in(Module::new(Optics::LongReach));
            row.iter().for_each(|(place, word)| model.set_word(*place, *word));
        });
        assert_eq!(bench.nic.link(), Link::Down, "the card is not tuned: {row:x?}");
        assert!(module(&bench).starts_with("10GBASE-LR"));
        assert_eq!(bench.device.peek(registers::AUTOC) >> 13 & 7, 3);
        assert_eq!(watch(&mut bench, 3), Link::Down);
        bench.finish();
    }
    let mut bench = start(|model| {
        model.put_in(Module::new(Optics::LongReach));
        model.faults().eeprom_stuck = true;
    });
    assert_eq!(watch(&mut bench, 3), Link::Down);
    bench.finish();
}

#[test]
fn what_firmware_has_is_waited_for_a_second_at_a_time() {
    // FW_PHY0_SM, and MAC_CSR of firmware.
    for held in [1 << 6, 1 << 8] {
        let mut bench = start(|model| {
            model.put_in(Module::new(Optics::LongReach));
            model.poke(registers::SW_FW_SYNC, held);
        });
        assert_eq!(watch(&mut bench, 3), Link::Down);
        assert_eq!(bench.device.peek(registers::SW_FW_SYNC), held);
        bench.device.set(registers::SW_FW_SYNC, 0);
        assert_eq!(watch(&mut bench, 2), Link::Up(10_000));
        bench.finish();
    }
}

#[test]
fn a_link_that_firmware_keeps_is_left_alone() {
    let veto = |model: &mut Ixgbe| {
        model.poke(registers::MMNGC, registers::MMNGC_VETO);
        // Firmware keeps the laser off.
        model.poke(registers::ESDP, registers::ESDP_SDP3);
    };
    for kind in [Optics::Copper, Optics::BothSpeeds] {
        let mut bench = start(|model| {
            model.put_in(Module::new(kind));
            veto(model);
        });
        assert_eq!(watch(&mut bench, 8), Link::Down);
        let device = bench.device.clone();
        bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        assert_eq!(watch(&mut bench, 8), Link::Down);
        assert_eq!(bench.device.with_model(|model| model.tuned().to_vec()), [0u16; 0]);
        assert_eq!(bench.device.peek(registers::ESDP), registers::ESDP_SDP3);
        assert_eq!(bench.device.peek(registers::AUTOC) >> 13 & 7, 3);
        // It lets go.
        bench.device.set(registers::MMNGC, 0);
        bench.device.set(registers::ESDP, 0);
        assert_ne!(watch(&mut bench, 2), Link::Down);
        // While optics of both speeds are tried.
        bench.device.with_model(|model| model.set_partner_speed(1000));
        if kind == Optics::BothSpeeds {
            bench.device.wait(Duration::from_secs(1));
            assert_eq!(watch(&mut bench, 1), Link::Down);
            bench.device.with_model(veto);
            assert_eq!(watch(&mut bench, 8), Link::Down);
            assert_eq!(bench.device.peek(registers::ESDP), registers::ESDP_SDP3);
        }
        bench.finish();
    }
}

#[test]
fn guests_are_not_held_up_by_what_takes_long() {
    let endless: fn(&mut Ixgbe) = |model| {
        model.put_in(Module::new(Optics::LongReach));
        model.set_word(0x0106, 0x1000);
        model.set_word(0x0108, 0x1000);
    };
    let cases: [fn(&mut Ixgbe); 6] = [
        |model| model.put_in(Module::new(Optics::BothSpeeds)),
        |model| model.put_in(Module::new(Optics::BothSpeeds).with(Fault::Checksum)),
        |model| model.put_in(Module::new(Optics::ShortReach).with(Fault::Stuck)),
        endless,
        |model| {
            model.put_in(Module::new(Optics::ShortReach));
            model.faults().eeprom_stuck = true;
        },
        |model| {
            model.put_in(Module::new(Optics::BothSpeeds));
            model.faults().negotiation_stuck = true;
        },
    ];
    let mut free = start(Ixgbe::take_out);
    let restart = |bench: &mut Bench<Ixgbe>| {
        let (device, before) = (bench.device.clone(), bench.device.now());
        bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        device.now() - before
    };
    let usual = restart(&mut free);
    free.finish();
    for change in cases {
        // No link at either speed.
        let mut bench = start(Ixgbe::take_out);
        bench.device.with_model(|model| {
            model.set_partner_speed(100);
            change(model);
        });
        bench.device.set_link(false);
        for _ in 0..2 {
            // Each look is short, says `watch`.
            assert_eq!(watch(&mut bench, 12), Link::Down);
            assert!(restart(&mut bench) < usual + Duration::from_micros(100));
        }
        bench.finish();
    }
}

#[test]
fn a_module_that_stays_is_not_set_up_again_by_a_restart() {
    let mut bench = start(|model| model.put_in(Module::new(Optics::Copper)));
    let (device, mut looks) = (bench.device.clone(), 0);
    bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
    while bench.nic.next_look().is_some() && looks < 50 {
        device.wait(Duration::from_millis(5));
        look(&mut bench);
        looks += 1;
    }
    // AUTOC twice.
    assert_eq!(looks, 2);
    device.wait(Duration::from_millis(100));
    let _fell = bench.nic.link();
    assert_eq!(bench.nic.link(), Link::Up(1000));
    bench.finish();
}

#[test]
fn a_restart_begins_with_the_link_without_a_module() {
    let unreadable = |model: &mut Ixgbe| model.put_in(Module::new(Optics::ShortReach).with(Fault::Silent));
    for (change, firmware) in [(Ixgbe::take_out as fn(&mut Ixgbe), 0), (unreadable, 0), (Ixgbe::take_out, 1 << 8)] {
        let mut bench = start(change);
        let device = bench.device.clone();
        bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        // The link is disabled, until it is begun with.
        device.set(registers::AUTOC2, 7 << 28);
        device.set(registers::SW_FW_SYNC, firmware);
        assert_eq!(watch(&mut bench, 1), Link::Down);
        assert_eq!(device.peek(registers::AUTOC2) == 0, firmware == 0);
        device.set(registers::SW_FW_SYNC, 0);
        assert_eq!(watch(&mut bench, 1), Link::Down);
        assert_eq!(device.peek(registers::AUTOC2), 0);
        assert_eq!(device.peek(registers::AUTOC) >> 13 & 7, 3);
        bench.finish();
    }
}

#[test]
fn a_speed_is_the_one_that_the_mac_has() {
    let mut bench = start(|model| {
        model.put_in(Module::new(Optics::BothSpeeds));
        model.set_partner_speed(1000);
    });
    let fast = |bench: &Bench<Ixgbe>| bench.device.peek(registers::ESDP) & registers::ESDP_SDP5 != 0;
    while fast(&bench) {
        bench.device.wait(Duration::from_secs(1));
        look(&mut bench);
    }
    assert_eq!(bench.device.peek(registers::AUTOC) >> 13 & 7, 3, "the module was told alone");
    // The link comes up, at the speed that the MAC has.
    bench.device.with_model(Ixgbe::see_crosstalk);
    bench.device.wait(Duration::from_secs(1));
    look(&mut bench);
    assert!(fast(&bench));
    assert_eq!(bench.device.peek(registers::AUTOC) >> 13 & 7, 3);
    bench.finish();
}

#[test]
fn what_the_other_port_does_at_the_start_is_not_broken_off() {
    let mut bench = start(|model| {
        model.put_in(Module::new(Optics::ShortReach));
        // MAC_CSR_SM is of both ports, SW_PHY_SM0 of this one.
        model.poke(registers::SW_FW_SYNC, 1 << 3 | 1 << 1);
    });
    assert_eq!(bench.device.peek(registers::SW_FW_SYNC), 1 << 3);
    bench.device.set(registers::SW_FW_SYNC, 0);
    let _link = watch(&mut bench, 2);
    assert_eq!(bench.nic.link(), Link::Up(10_000));
    bench.finish();
}

#[test]
fn a_link_without_a_module_is_none_where_the_card_says_so() {
    for (word, link) in [(0x0081, Link::Up(10_000)), (0x0001, Link::Down)] {
        let mut bench = start(|model| {
            model.take_out();
            model.see_crosstalk();
            model.set_word(0x2C, word);
        });
        let _fell = bench.nic.link();
        assert_eq!(bench.nic.link(), link);
        bench.device.with_model(|model| model.put_in(Module::new(Optics::ShortReach)));
        assert_eq!(watch(&mut bench, 2), Link::Up(10_000));
        bench.finish();
    }
}

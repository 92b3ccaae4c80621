//! Causes become messages, or the line's level. Pure.

use super::*;
use crate::ixgbe::Kind;

struct Bench {
    interrupts: Interrupts,
    registers: Registers,
    space: ConfigurationSpace,
}

impl Bench {
    fn new(way: Interrupt, gpie: u32) -> Self {
        let mut space = ConfigurationSpace::new(Kind::Sfp.identity());
        space.enable(way);
        let mut registers = Registers::new(reg::SPACE);
        registers.set(reg::GPIE, gpie);
        // Queue 0: receive to 1, transmit to 2; queue 1: receive to 40.
        registers.set(reg::IVAR, 0x00A8_8281);
        registers.set(reg::IVAR_MISC, 0x8584);
        Self { interrupts: Interrupts::default(), registers, space }
    }

    fn queue(&mut self, queue: usize, direction: Direction) -> Vec<Interrupt> {
        self.interrupts.queue(queue, direction, &self.registers, &self.space);
        self.out()
    }

    fn set(&mut self, causes: u32) -> Vec<Interrupt> {
        self.interrupts.set(0, causes, &self.registers, &self.space);
        self.out()
    }

    fn enable(&mut self, queues: u64, others: u32) -> Vec<Interrupt> {
        self.interrupts.enable(queues, others, &self.registers, &self.space);
        self.out()
    }

    fn read(&mut self) -> (u32, Vec<Interrupt>) {
        (self.interrupts.read(&self.registers, &self.space), self.out())
    }

    fn out(&mut self) -> Vec<Interrupt> {
        std::iter::from_fn(|| self.interrupts.poll()).collect()
    }
}

const VECTORS: u32 = reg::GPIE_MSIX | reg::GPIE_EIAME;

#[test]
fn vectors_mask_and_clear_themselves_as_they_are_told() {
    let mut bench = Bench::new(Interrupt::MsiX(0), VECTORS);
    bench.registers.set(reg::EIAC, 1 << 1);
    bench.registers.set(reg::EIAM, 1 << 1);
    assert_eq!(bench.queue(0, Direction::Receive), [], "not enabled");
    assert_eq!(bench.enable(0b110, 0), [Interrupt::MsiX(1)], "pending when it is enabled");
    assert_eq!(bench.interrupts.enabled(), 0b100, "masked itself");
    assert_eq!(bench.interrupts.pending(), 0, "cleared itself");
    assert_eq!(bench.queue(0, Direction::Receive), []);
    assert_eq!(bench.queue(0, Direction::Transmit), [Interrupt::MsiX(2)]);
    assert_eq!(bench.queue(0, Direction::Transmit), [Interrupt::MsiX(2)], "not masked");
    assert_eq!(bench.interrupts.pending(), 0b110);
    // A queue without a vector, and one above 15.
    assert_eq!(bench.queue(5, Direction::Receive), []);
    assert_eq!(bench.enable(1 << 40, 0), []);
    assert_eq!(bench.queue(1, Direction::Receive), [Interrupt::MsiX(40)]);
    assert_eq!((bench.interrupts.enabled_vectors(0), bench.interrupts.enabled_vectors(1)), (0b100, 1 << 8));
}

#[test]
fn other_causes_have_their_vector() {
    let mut bench = Bench::new(Interrupt::MsiX(0), VECTORS);
    assert_eq!(bench.enable(0, cause::LSC | cause::TCP_TIMER), []);
    assert_eq!(bench.set(cause::LSC), [Interrupt::MsiX(5)]);
    assert_eq!(bench.set(cause::ECC), [], "not enabled");
    assert_eq!(bench.set(cause::TCP_TIMER), [Interrupt::MsiX(4)]);
    assert_eq!(bench.interrupts.pending(), cause::LSC | cause::ECC | cause::TCP_TIMER | cause::OTHER);
    bench.interrupts.acknowledge(cause::LSC, &bench.registers, &bench.space);
    assert_eq!(bench.interrupts.pending(), cause::ECC | cause::TCP_TIMER | cause::OTHER);
    bench.registers.set(reg::GPIE, VECTORS | reg::GPIE_OCD);
    bench.enable(0, cause::ECC);
    bench.read();
    assert_eq!(bench.interrupts.pending(), cause::TCP_TIMER | cause::OTHER, "not cleared by reading");
    bench.registers.set(reg::GPIE, VECTORS);
    bench.read();
    assert_eq!(bench.interrupts.pending(), 0);
}

#[test]
fn the_line_follows_what_is_enabled() {
    let mut bench = Bench::new(Interrupt::Line(true), 0);
    bench.registers.set(reg::EIAM, 1 << 1);
    assert_eq!(bench.queue(0, Direction::Receive), []);
    assert_eq!(bench.enable(0b110, cause::LSC), [Interrupt::Line(true)]);
    assert_eq!(bench.queue(0, Direction::Transmit), [], "it is asserted already");
    assert_eq!(bench.read(), (0b110, vec![Interrupt::Line(false)]));
    assert_eq!(bench.interrupts.enabled(), 0b100 | cause::LSC, "EIAM masks when EICR is read");
    assert_eq!(bench.set(cause::LSC), [Interrupt::Line(true)]);
    bench.interrupts.disable(0, cause::LSC, &bench.registers, &bench.space);
    assert_eq!(bench.out(), [Interrupt::Line(false)]);
    bench.set(cause::LSC);
    bench.enable(0, cause::LSC);
    bench.interrupts.reset();
    assert_eq!(bench.out(), [Interrupt::Line(false)]);
}

#[test]
fn one_message_for_each_new_cause() {
    for way in [Interrupt::Msi, Interrupt::MsiX(0)] {
        let mut bench = Bench::new(way, 0);
        bench.enable(0b10, cause::LSC);
        assert_eq!(bench.queue(0, Direction::Receive), [way]);
        assert_eq!(bench.set(cause::LSC), [way]);
        assert_eq!(bench.set(cause::ECC), []);
        assert_eq!(bench.read().1, []);
    }
}

#[test]
fn what_the_bus_holds_back_comes_later() {
    let mut bench = Bench::new(Interrupt::MsiX(0), VECTORS);
    bench.registers.set(reg::EIAC, 0xFFFF);
    bench.enable(0b10, 0);
    bench.space.write(0x73, &[0xC0]);
    assert_eq!(bench.queue(0, Direction::Receive), [], "all vectors are masked");
    bench.space.write(0x73, &[0x80]);
    bench.interrupts.refresh(&bench.registers, &bench.space);
    assert_eq!(bench.out(), [Interrupt::MsiX(1)]);
    bench.interrupts.refresh(&bench.registers, &bench.space);
    assert_eq!(bench.out(), []);
}

//! Causes become messages, or the line's level. Pure.

use super::*;

struct Bench {
    interrupts: Interrupts,
    registers: Registers,
    space: ConfigurationSpace,
}

impl Bench {
    fn new(way: Interrupt, gpie: u32) -> Self {
        let mut space = ConfigurationSpace::new(Kind::I82576.identity());
        space.enable(way);
        let mut registers = Registers::new(reg::SPACE);
        registers.set(reg::GPIE, gpie);
        // The first register's four entries: vectors 1 to 4.
        registers.set(reg::IVAR, 0x8483_8281);
        registers.set(reg::IVAR_MISC, 0x8500);
        Self { interrupts: Interrupts::default(), registers, space }
    }

    fn queue(&mut self, kind: Kind, queue: usize, direction: Direction) -> Vec<Interrupt> {
        self.interrupts.queue(kind, queue, direction, &self.registers, &self.space);
        self.out()
    }

    fn set(&mut self, causes: u32) -> Vec<Interrupt> {
        self.interrupts.set(causes, &self.registers, &self.space);
        self.out()
    }

    fn enable(&mut self, causes: u32) -> Vec<Interrupt> {
        self.interrupts.enable(causes, &self.registers, &self.space);
        self.out()
    }

    fn enable_vectors(&mut self, vectors: u32) -> Vec<Interrupt> {
        self.interrupts.enable_vectors(vectors, &self.registers, &self.space);
        self.out()
    }

    fn read(&mut self) -> (u32, Vec<Interrupt>) {
        (self.interrupts.read(&self.registers, &self.space), self.out())
    }

    fn out(&mut self) -> Vec<Interrupt> {
        std::iter::from_fn(|| self.interrupts.poll()).collect()
    }
}

const SEVERAL: u32 = reg::GPIE_MSIX | reg::GPIE_EIAME | reg::GPIE_NSICR;

#[test]
fn the_vector_of_each_queue() {
    let rows = [
        (Kind::I82576, 0, Direction::Receive, 1),
        (Kind::I82576, 0, Direction::Transmit, 2),
        (Kind::I82576, 8, Direction::Receive, 3),
        (Kind::I82576, 8, Direction::Transmit, 4),
        (Kind::I350, 0, Direction::Transmit, 2),
        (Kind::I350, 1, Direction::Receive, 3),
        (Kind::I210, 1, Direction::Transmit, 4),
    ];
    for (kind, queue, direction, vector) in rows {
        let mut bench = Bench::new(Interrupt::MsiX(0), SEVERAL);
        bench.enable_vectors(u32::MAX);
        assert_eq!(bench.queue(kind, queue, direction), [Interrupt::MsiX(vector)], "{kind:?} {queue} {direction:?}");
        assert_eq!(bench.queue(kind, 2, direction), [], "none is set for it");
    }
}

#[test]
fn vectors_mask_and_clear_themselves_as_they_are_told() {
    let mut bench = Bench::new(Interrupt::MsiX(0), SEVERAL);
    bench.registers.set(reg::EIAC, 1 << 1);
    bench.registers.set(reg::EIAM, 1 << 1);
    let receive = |bench: &mut Bench| bench.queue(Kind::I350, 0, Direction::Receive);
    let transmit = |bench: &mut Bench| bench.queue(Kind::I350, 0, Direction::Transmit);
    assert_eq!(receive(&mut bench), [], "not enabled");
    assert_eq!(bench.enable_vectors(0b110), [Interrupt::MsiX(1)], "pending when it is enabled");
    assert_eq!((bench.interrupts.enabled_vectors(), bench.interrupts.pending_vectors()), (0b100, 0));
    assert_eq!(receive(&mut bench), []);
    assert_eq!(transmit(&mut bench), [Interrupt::MsiX(2)]);
    assert_eq!(transmit(&mut bench), [Interrupt::MsiX(2)], "not masked");
    assert_eq!(bench.interrupts.read_vectors(&bench.registers, &bench.space), 0b110);
    bench.interrupts.acknowledge_vectors(0b100, &bench.registers, &bench.space);
    assert_eq!(bench.interrupts.pending_vectors(), 0b10, "cleared by writing, not by reading");
    bench.interrupts.disable_vectors(u32::MAX, &bench.registers, &bench.space);
    assert_eq!(transmit(&mut bench), []);
}

#[test]
fn causes_have_the_vector_of_ivar_misc() {
    let mut bench = Bench::new(Interrupt::MsiX(0), SEVERAL);
    bench.enable_vectors(1 << 5);
    assert_eq!(bench.set(cause::LSC), [], "not enabled");
    assert_eq!(bench.enable(cause::LSC), [Interrupt::MsiX(5)]);
    assert_eq!(bench.set(cause::FATAL), []);
    assert_eq!(bench.interrupts.pending(), cause::LSC | cause::FATAL | cause::ASSERTED);
    assert_eq!(bench.read().0, cause::LSC | cause::FATAL | cause::ASSERTED);
    assert_eq!((bench.interrupts.pending(), bench.interrupts.enabled()), (0, cause::LSC));
}

#[test]
fn the_line_follows_what_is_enabled() {
    let mut bench = Bench::new(Interrupt::Line(true), 0);
    bench.registers.set(reg::IAM, cause::RECEIVED);
    bench.queue(Kind::I210, 0, Direction::Receive);
    assert_eq!(bench.enable(cause::RECEIVED | cause::LSC), [Interrupt::Line(true)]);
    assert_eq!(bench.queue(Kind::I210, 0, Direction::Receive), [], "it is asserted already");
    assert_eq!(bench.read().1, [Interrupt::Line(false)]);
    assert_eq!(bench.interrupts.enabled(), cause::RECEIVED | cause::LSC, "CTRL_EXT.IAME is clear");
    bench.registers.set(reg::CTRL_EXT, reg::CTRL_EXT_IAME);
    bench.queue(Kind::I210, 0, Direction::Receive);
    bench.read();
    assert_eq!(bench.interrupts.enabled(), cause::LSC, "IAM masks when ICR is read");
    bench.queue(Kind::I210, 0, Direction::Receive);
    assert_eq!(bench.read().0, cause::RECEIVED);
    assert_eq!(bench.interrupts.pending(), cause::RECEIVED, "not cleared: it does not interrupt");
    bench.registers.set(reg::GPIE, reg::GPIE_NSICR);
    bench.read();
    assert_eq!(bench.interrupts.pending(), 0);
    bench.set(cause::LSC);
    bench.interrupts.reset();
    assert_eq!(bench.out().last(), Some(&Interrupt::Line(false)));
}

#[test]
fn one_message_for_each_new_cause() {
    for way in [Interrupt::Msi, Interrupt::MsiX(0)] {
        let mut bench = Bench::new(way, 0);
        bench.enable(cause::RECEIVED | cause::LSC);
        assert_eq!(bench.queue(Kind::I82576, 0, Direction::Receive), [way]);
        assert_eq!(bench.set(cause::LSC), [way]);
        assert_eq!(bench.set(cause::FATAL), []);
        assert_eq!(bench.read().1, []);
        bench.interrupts.disable(cause::LSC, &bench.registers, &bench.space);
        assert_eq!(bench.set(cause::LSC), []);
    }
}

#[test]
fn what_the_bus_holds_back_comes_later() {
    let mut bench = Bench::new(Interrupt::MsiX(0), SEVERAL);
    bench.registers.set(reg::EIAC, u32::MAX);
    bench.enable_vectors(0b10);
    bench.space.write(0x73, &[0xC0]);
    assert_eq!(bench.queue(Kind::I350, 0, Direction::Receive), [], "all vectors are masked");
    bench.space.write(0x73, &[0x80]);
    bench.interrupts.refresh(&bench.registers, &bench.space);
    assert_eq!(bench.out(), [Interrupt::MsiX(1)]);
    bench.interrupts.refresh(&bench.registers, &bench.space);
    assert_eq!(bench.out(), []);
}

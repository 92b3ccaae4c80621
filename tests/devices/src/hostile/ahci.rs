//! What a hostile AHCI adapter does. Host.

use blkdom::disk::ahci::registers::{self as reg, PortStatus};
use blkdom::disk::ahci::{Ahci as Driver, Options};
use split_driver::fakes::FakeDma;
use split_driver::fakes::device::Script;

use super::Bed;
use super::disk::Adversary;
use crate::ahci::{Ahci, Drive, PORTS, Quirks, Trap};
use crate::bus::{Interrupt, Model};
use crate::fake::Device;

/// Reads of a register that a port which is stopped for good may take.
const STOP_READS: u32 = 100;

impl Adversary for Ahci {
    type Driver = Driver<Device<Self>, FakeDma>;

    const ACTS: u8 = 10;
    // Some for each of a port's steps.
    const ACCESSES: usize = 40 * PORTS;
    const LONG_ACCESSES: usize = PORTS * (40 + 4 * STOP_READS as usize);
    // A page for each port; for two drives the tables of 32 commands, of which a page holds two.
    const REGIONS: usize = PORTS + 2 * 16;
    const START: usize = 130;
    /// A register wait, a drive's presence, a look, a lost link's return, a command's patience.
    const PAUSES: [u64; 6] = [1, 110, 600, 1_100, 11_000, 31_000];

    fn start(device: &Device<Self>, flags: u8) -> Option<Self::Driver> {
        device.interrupt_by(Interrupt::Msi);
        device.with_model(|ahci| {
            let drive = Drive::new(9, 256).with_queue(if flags & 1 != 0 { 0 } else { 32 });
            ahci.plug_in(0, if flags & 2 != 0 { drive.without_log() } else { drive });
            ahci.plug_in(1, Drive::new(12, 32).with_serial(2).with_queue(4));
            if flags & 4 != 0 {
                ahci.own_by_firmware();
            }
            if flags & 8 != 0 {
                ahci.set_capabilities(|capabilities| capabilities.with_slots(2));
            }
        });
        let options = Options { stop_reads: STOP_READS, ..Options::default() };
        Driver::new(device.clone(), device.dma(), options).ok()
    }

    fn linger(&mut self) {
        self.be_lazy(true);
    }

    fn misbehave(act: u8, bed: &mut Bed<Self>, script: &mut Script<'_>) {
        let port = usize::from(script.byte() & 1);
        if matches!(act, 4 | 8) {
            bed.lie();
        }
        bed.device.with_model(|ahci| match act {
            0 => drop(ahci.execute_at(port, usize::from(script.byte()))),
            1 => ahci.forge(port, script.word(), script.word()),
            2 => ahci.raise(port, PortStatus::from(script.word())),
            3 => ahci.break_down(port, PortStatus::from(1 << (script.byte() % 32))),
            4 => {
                let registers = [0x10, 0x18, 0x18, 0x20, 0x20, 0x24, 0x28, 0x28, 0x34, 0x38];
                let values = [u32::MAX, 0, 1, 0x80, 0x50, 0x113, 0xC000, 0x101, script.word()];
                let (which, value, keep) = (script.byte(), script.byte(), script.byte());
                let offset = reg::PORTS + port * reg::PORT_BYTES + registers[usize::from(which) % registers.len()];
                ahci.set_register(offset, (keep & 1 == 0).then_some(values[usize::from(value) % values.len()]));
            }
            5 => {
                let places = [0, 49, 69, 75, 76, 83, 84, 85, 87, 100, 102, 103, 106, 117, 118, 128, 169, 209];
                let (which, value) = (script.byte(), script.half());
                let at = places.get(usize::from(which)).copied().unwrap_or(usize::from(which));
                ahci.set_word(port, at, value);
            }
            6 => ahci.fail_somehow(port, script),
            7 => match script.byte() % 6 {
                0 => drop(ahci.unplug(port)),
                1 => ahci.plug_in(port, Drive::new(9, 64).with_serial(script.byte() % 4)),
                2 => ahci.cut_link(port, true),
                3 => ahci.cut_link(port, false),
                4 => ahci.resize(port, u64::from(script.byte())),
                _ => ahci.be_mute(port, script.byte() & 1 != 0),
            },
            8 => {
                let values = [0, u32::MAX, 0x8000_0000, 0x8000_0001, script.word()];
                let (which, value, keep) = (script.byte(), script.byte(), script.byte());
                let offset = [0x04, 0x08, 0x08][usize::from(which % 3)];
                ahci.set_register(offset, (keep & 3 == 0).then_some(values[usize::from(value) % values.len()]));
            }
            _ => ahci.fail(port, u64::from(script.byte()), script.byte(), u32::from(script.byte())),
        });
    }

    fn counts(driver: &Self::Driver) -> Vec<u64> {
        let statistics = driver.statistics();
        vec![statistics.nonsense, statistics.errors, statistics.retries, statistics.timeouts, statistics.resets]
    }
}

impl Ahci {
    fn fail_somehow(&mut self, port: usize, script: &mut Script<'_>) {
        match script.byte() % 11 {
            0 => self.be_lazy(true),
            1 => self.be_lazy(false),
            2 => self.be_deaf(port, true),
            3 => self.be_deaf(port, false),
            4 => self.be_busy(port, script.word() >> 8),
            5 => {
                let [a, b, c] = [1, 2, 4].map(|bit| script.byte() & bit != 0);
                self.set_quirks(port, Quirks { forgets_failed: a, hides_queued_errors: b, runs_on: c });
            }
            6 => self.set_trap(port, u64::from(script.byte()), Trap::Silence),
            7 => {
                let status = PortStatus::new().with_link_fatal(true);
                self.set_trap(port, u64::from(script.byte()), Trap::Break(status));
            }
            8 => self.forgive(port),
            9 => self.fail_resets(u32::from(script.byte() % 6)),
            // Seldom, as nothing happens after it.
            _ => self.faults().pulled_out |= script.byte() < 32,
        }
    }
}

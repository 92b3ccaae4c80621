//! What a hostile NVMe controller does. Host.

use blkdom::disk::nvme::command::{Status, cns};
use blkdom::disk::nvme::{Interrupts, Nvme as Driver, Options};
use split_driver::fakes::FakeDma;
use split_driver::fakes::device::Script;

use super::Bed;
use super::disk::Adversary;
use crate::bus::{Interrupt, Model};
use crate::fake::Device;
use crate::nvme::{Namespace, Nvme};

/// Reads of CSTS that a shutdown may take.
const STOP_READS: u32 = 400;

impl Adversary for Nvme {
    type Driver = Driver<Device<Self>, FakeDma>;

    const ACTS: u8 = 9;
    // It looks at two registers, or writes some to start.
    const ACCESSES: usize = 24;
    const LONG_ACCESSES: usize = 4 * STOP_READS as usize;
    // Two queues of each kind, the page of admin commands, and lists of pages, of which a page holds four.
    const REGIONS: usize = 4 + 1 + 4;
    const START: usize = 60;
    /// A register wait, a look, an Abort's patience, a command's.
    const PAUSES: [u64; 6] = [1, 20, 300, 1_100, 6_000, 31_000];

    fn start(device: &Device<Self>, flags: u8) -> Option<Self::Driver> {
        device.with_model(|nvme| {
            nvme.set_transfer_limit(flags & 3);
            if flags & 8 != 0 {
                nvme.set_version(0x0001_0000);
            }
            nvme.insert(1, Namespace::new(9, 256));
            nvme.insert(2, Namespace::new(12, 32));
        });
        let single = flags & 4 != 0;
        if single {
            device.interrupt_by(Interrupt::Msi);
        }
        let interrupts = if single { Interrupts::Single } else { Interrupts::MsiX(2) };
        let options =
            Options { depth: if flags & 16 != 0 { 4 } else { 16 }, stop_reads: STOP_READS, ..Options::default() };
        Driver::new(device.clone(), device.dma(), interrupts, options).ok()
    }

    fn linger(&mut self) {
        self.be_lazy(true);
    }

    fn misbehave(act: u8, bed: &mut Bed<Self>, script: &mut Script<'_>) {
        if act == 4 {
            bed.lie();
        }
        bed.device.with_model(|nvme| match act {
            0 => nvme.execute_next(usize::from(script.byte() % 8)),
            1 => drop(nvme.execute_at(usize::from(script.byte()))),
            2 | 3 => nvme.answer_wrongly(script),
            4 => {
                let registers = [0x00, 0x04, 0x08, 0x14, 0x1C, 0x1C, 0x1C, 0x1C];
                let values = [u32::MAX, 0, 1, 2, 3, 0xC, script.word(), 0x10];
                let (which, value) = (script.byte(), script.byte());
                let (which, value) = (usize::from(which) % registers.len(), usize::from(value) % values.len());
                nvme.set_register(registers[which], values[value], u32::from(script.half()));
            }
            5 => {
                let structures = [cns::NAMESPACE, cns::CONTROLLER, cns::ACTIVE_NAMESPACES, cns::COMMAND_SET_CONTROLLER];
                let places = [0u16, 7, 24, 25, 26, 29, 64, 77, 104, 111, 128, 130, 516, 520];
                let (which, place) = (script.byte(), script.byte());
                let known = places.get(usize::from(place)).copied();
                let at = known.unwrap_or_else(|| script.half() % 4096);
                let bytes = script.word().to_le_bytes();
                nvme.patch(structures[usize::from(which) % structures.len()], usize::from(at), &bytes);
            }
            6 => nvme.fail_somehow(script),
            7 => {
                let (choice, number) = (script.byte(), u32::from(script.byte() % 6));
                match choice % 4 {
                    0 => nvme.take_out(number),
                    1 => nvme.resize(number, u64::from(script.byte())),
                    2 => {
                        let namespace = Namespace::new(9 + choice / 4 % 5, 64);
                        nvme.insert(number, namespace.with_identity(script.byte() % 4));
                    }
                    _ => drop(nvme.send_event(script.word())),
                }
            }
            _ => {
                let status = Status::from_bits(script.half());
                nvme.fail(1, u64::from(script.byte()), status, u32::from(script.byte()));
            }
        });
    }

    fn counts(driver: &Self::Driver) -> Vec<u64> {
        let statistics = driver.statistics();
        vec![statistics.nonsense, statistics.retries, statistics.aborts, statistics.resets]
    }
}

impl Nvme {
    /// An answer to a command that there is, mostly, with something wrong about it.
    fn answer_wrongly(&mut self, script: &mut Script<'_>) {
        let known = self.unanswered(usize::from(script.byte() % 8));
        let (queue, id) = known.unwrap_or_else(|| (1, script.half()));
        let (wrong, status, head) = (script.byte(), script.half(), script.byte());
        let id = if wrong & 1 != 0 { id ^ script.half() } else { id };
        let owner = if wrong & 2 != 0 { script.half() } else { queue };
        let status = if wrong & 4 != 0 { u32::from(status) } else { 0 };
        let words = [script.word(), 0, u32::from(owner) << 16 | u32::from(head), status << 16 | u32::from(id)];
        if wrong & 8 != 0 {
            self.scribble(queue, script.half(), words);
        } else {
            self.forge(queue, words);
        }
    }

    fn fail_somehow(&mut self, script: &mut Script<'_>) {
        match script.byte() % 10 {
            0 => self.be_lazy(true),
            1 => self.be_lazy(false),
            2 => self.be_deaf(true),
            3 => self.be_deaf(false),
            4 => self.ignore_admin(true),
            5 => self.ignore_admin(false),
            6 => self.be_unabortable(),
            7 => self.fail_fatally(),
            8 => self.fail_starts(u32::from(script.byte() % 6)),
            // Seldom, as nothing happens after it.
            _ => self.faults().pulled_out |= script.byte() < 32,
        }
    }
}

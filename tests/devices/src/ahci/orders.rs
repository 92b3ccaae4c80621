//! What a test tells the adapter, and asks it. Pure.

use blkdom::disk::ahci::command::Task;
use blkdom::disk::ahci::registers::{Bohc, Cap, Cap2, PortStatus};

use super::{Accesses, Ahci, Drive, Port, Quirks, Trap};

impl Ahci {
    /// Sets what CAP reads as.
    pub fn set_capabilities(&mut self, change: impl FnOnce(Cap) -> Cap) {
        self.capabilities = change(self.capabilities);
    }

    /// Sets which ports there are, one bit each.
    pub fn implement(&mut self, ports: u32) {
        self.implemented = ports;
    }

    /// The firmware has the adapter, and lets go of it when asked or not.
    pub fn own_by_firmware(&mut self) {
        self.more = Cap2::new().with_handoff(true);
        self.owner = Bohc::new().with_firmware_owns(true);
    }

    /// BOHC, as it is now.
    pub const fn owner(&self) -> Bohc {
        self.owner
    }

    /// A drive is plugged in.
    pub fn plug_in(&mut self, port: usize, drive: Drive) {
        self.with_port(port, |port| {
            port.drive = Some(drive);
            port.reconnect();
        });
    }

    /// A drive is pulled out.
    pub fn unplug(&mut self, port: usize) -> Option<Drive> {
        self.with_port(port, |port| {
            port.disconnect();
            port.drive.take()
        })?
    }

    /// The link goes, or comes back, while the drive stays.
    pub fn cut_link(&mut self, port: usize, cut: bool) {
        self.with_port(port, |port| {
            port.unlinked = cut;
            if cut { port.disconnect() } else { port.reconnect() }
        });
    }

    /// The drive shows itself, and does not talk.
    pub fn be_mute(&mut self, port: usize, mute: bool) {
        self.with_port(port, |port| port.mute = mute);
    }

    /// An error of the link or of memory.
    pub fn break_down(&mut self, port: usize, status: PortStatus) {
        self.with_port(port, |port| port.fail(status));
    }

    /// What a port does worse than it should.
    pub fn set_quirks(&mut self, port: usize, quirks: Quirks) {
        self.with_port(port, |port| port.quirks = quirks);
    }

    /// The next `times` commands upon a block fail with this error register.
    pub fn fail(&mut self, port: usize, block: u64, error: u8, times: u32) {
        self.with_drive(port, |drive| drive.fail(block, error, times));
    }

    /// What becomes of commands upon a block from now on.
    pub fn set_trap(&mut self, port: usize, block: u64, trap: Trap) {
        self.with_drive(port, |drive| drive.set_trap(block, trap));
    }

    /// No command fails from now on.
    pub fn forgive(&mut self, port: usize) {
        self.with_drive(port, Drive::forgive);
    }

    /// From now on commands are read and not answered, or no longer so: then those that wait are, too.
    pub fn be_deaf(&mut self, port: usize, deaf: bool) {
        self.with_drive(port, |drive| drive.deaf = deaf);
    }

    /// The drive is busy for so many reads of PxTFD.
    pub fn be_busy(&mut self, port: usize, reads: u32) {
        self.with_drive(port, |drive| drive.busy = reads);
    }

    /// The drive says something else of itself.
    pub fn set_word(&mut self, port: usize, at: usize, value: u16) {
        self.with_drive(port, |drive| drive.set_word(at, value));
    }

    /// The drive has another size.
    pub fn resize(&mut self, port: usize, blocks: u64) {
        self.with_drive(port, |drive| drive.medium.resize(blocks));
    }

    /// What reads give, and what a loss of power leaves.
    pub fn contents(&mut self, port: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        self.with_drive(port, |drive| drive.medium.contents())
    }

    /// Commands of the driver's user that were carried out since this was asked last.
    pub fn executed(&mut self, port: usize) -> Vec<Task> {
        self.with_drive(port, |drive| std::mem::take(&mut drive.executed)).unwrap_or_default()
    }

    /// From now on commands are read, and carried out when told by [`Self::execute_at`].
    pub fn be_lazy(&mut self, lazy: bool) {
        self.lazy = lazy;
    }

    /// Carries out the command at a place among those read. False where there is none.
    pub fn execute_at(&mut self, port: usize, place: usize) -> bool {
        self.with_port(port, |port| port.choose(place)).unwrap_or(false)
    }

    /// Commands read and not carried out.
    pub fn waiting(&mut self, port: usize) -> usize {
        self.with_port(port, |port| port.inbox.len()).unwrap_or(0)
    }

    /// Sets bits of PxCI and PxSACT as if commands were at work.
    pub fn forge(&mut self, port: usize, issued: u32, active: u32) {
        self.with_port(port, |port| port.forge(issued, active));
    }

    /// Sets bits of PxIS.
    pub fn raise(&mut self, port: usize, status: PortStatus) {
        self.with_port(port, |port| port.raise(status));
    }

    /// The next resets do not come to an end.
    pub fn fail_resets(&mut self, count: u32) {
        self.bad_resets = count;
    }

    /// What a register reads as from now on, whatever it is; `None` as before.
    pub fn set_register(&mut self, offset: usize, value: Option<u32>) {
        match value {
            Some(value) => self.overrides.insert(offset, value),
            None => self.overrides.remove(&offset),
        };
    }

    /// What the driver did since this was asked last.
    pub fn accesses(&mut self) -> Accesses {
        std::mem::take(&mut self.accesses)
    }

    /// Whether no port works, and no interrupt is to come.
    pub fn is_quiet(&self) -> bool {
        !self.control.interrupts() && self.ports.iter().all(Port::is_quiet)
    }
}

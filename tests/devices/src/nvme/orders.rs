//! What a test tells the controller, and asks it. Pure.

use blkdom::disk::nvme::command::{Answer, Entry, Status};
use blkdom::disk::nvme::registers::{Cap, Cc};

use super::{Accesses, Error, Nvme};

impl Nvme {
    /// Sets what CAP reads as.
    pub fn set_capabilities(&mut self, change: impl FnOnce(Cap) -> Cap) {
        self.capabilities = change(self.capabilities);
    }

    /// Sets what VS reads as.
    pub const fn set_version(&mut self, version: u32) {
        self.version = version;
    }

    /// MDTS: one command moves `4096 << shift` bytes; 0 is no limit.
    pub const fn set_transfer_limit(&mut self, shift: u8) {
        self.transfer_shift = shift;
    }

    /// From now on commands are read, and carried out when told by [`Self::execute_next`].
    pub const fn be_lazy(&mut self, lazy: bool) {
        self.lazy = lazy;
    }

    /// Carries out up to `count` commands, in order.
    pub fn execute_next(&mut self, count: usize) {
        for _ in 0..count {
            if !self.execute_at(0) {
                return;
            }
        }
    }

    /// Carries out the command at a place among those read. False where there is none.
    pub fn execute_at(&mut self, place: usize) -> bool {
        let fetched = self.inbox.remove(place);
        self.chosen.extend(fetched);
        fetched.is_some()
    }

    /// Commands read and not carried out.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// From now on I/O commands are read and never answered, or no longer so. Those that were not stay so.
    pub const fn be_deaf(&mut self, deaf: bool) {
        self.deaf = deaf;
    }

    /// From now on admin commands are read and never answered, or no longer so.
    pub const fn ignore_admin(&mut self, ignore: bool) {
        self.admin_deaf = ignore;
    }

    /// From now on nothing can be aborted.
    pub const fn be_unabortable(&mut self) {
        self.unabortable = true;
    }

    /// Sets CSTS.CFS and does nothing more until it is reset.
    pub fn fail_fatally(&mut self) {
        self.status.set_fatal(true);
        self.inbox.clear();
        self.chosen.clear();
        self.silent.clear();
    }

    /// The next starts do not come to an end.
    pub const fn fail_starts(&mut self, count: u32) {
        self.bad_starts = count;
    }

    /// The controller becomes ready at the `reads`th read of CSTS after each start.
    pub const fn start_slowly(&mut self, reads: u32) {
        self.slow_start = reads;
    }

    /// The next `times` commands upon a block fail.
    pub fn fail(&mut self, namespace: u32, block: u64, status: Status, times: u32) {
        self.errors.push(Error { namespace, block, status, times });
    }

    /// No command is to fail from now on.
    pub fn forgive(&mut self) {
        self.errors.clear();
    }

    /// What a register reads as the next `times`, whatever it is.
    pub fn set_register(&mut self, offset: usize, value: u32, times: u32) {
        self.overrides.insert(offset, (value, times));
    }

    /// Writes an answer as if the device had one. The command that it names, where there is one, is taken for answered.
    pub fn forge(&mut self, queue: u16, words: [u32; 4]) {
        self.drop_command(queue, Answer::parse(words).id);
        self.post(queue, words);
    }

    /// Writes anything to any place of a completion queue, without regard to phases.
    pub fn scribble(&mut self, queue: u16, place: u16, words: [u32; 4]) {
        self.drop_command(queue, Answer::parse(words).id);
        self.overwrite(queue, place, words);
    }

    /// The identifier of a command that was read and not answered.
    pub fn unanswered(&self, place: usize) -> Option<(u16, u16)> {
        self.inbox.iter().chain(&self.silent).nth(place).map(|fetched| (fetched.queue, fetched.id()))
    }

    /// I/O commands carried out since this was asked last.
    pub fn executed(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.executed)
    }

    /// What the driver did since this was asked last.
    pub fn accesses(&mut self) -> Accesses {
        std::mem::take(&mut self.accesses)
    }

    /// CC, as the driver wrote it.
    pub const fn controller_configuration(&self) -> Cc {
        self.configuration
    }

    /// Whether the I/O queues are there.
    pub const fn has_io_queues(&self) -> bool {
        self.submissions[1].is_some()
    }
}

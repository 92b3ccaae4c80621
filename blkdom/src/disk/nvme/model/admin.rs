//! The model's admin commands and events. Host only.

use super::super::command::{self, Answer, Status, admin, cns, feature};
use super::super::identify::{Controller, Format, IDENTIFY_BYTES};
use super::{Device, Fetched, Finished, Medium, State, Submission};
use alloc::vec;
use alloc::vec::Vec;

/// Asynchronous events.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    /// Namespace notices were asked for.
    enabled: bool,
    /// Requests that wait for an event.
    requests: Vec<Fetched>,
    /// Namespaces that changed since the log page was read.
    changed: Vec<u32>,
    /// An event was sent; no other one until its log page is read.
    told: bool,
}

/// A status of the generic type that says not to try again.
pub(super) const fn refusal(value: u16) -> Status {
    Status::new().with_code(value as u8).with_kind((value >> 8) as u8).with_do_not_retry(true)
}

impl Device {
    /// Puts a namespace in, or another in its place, and tells.
    pub fn insert(&self, number: u32, medium: Medium) {
        let mut state = self.0.borrow_mut();
        state.media.insert(number, medium);
        state.namespace_changed(number);
    }

    /// Takes a namespace out, and tells.
    pub fn take_out(&self, number: u32) {
        let mut state = self.0.borrow_mut();
        state.media.remove(&number);
        state.namespace_changed(number);
    }

    /// Changes a namespace's size, and tells.
    pub fn resize(&self, number: u32, blocks: u64) {
        let mut state = self.0.borrow_mut();
        if let Some(medium) = state.media.get_mut(&number) {
            medium.resize(blocks);
        }
        state.namespace_changed(number);
    }

    /// Bytes that an Identify structure has from `at` on from now on.
    pub fn patch(&self, what: u8, at: usize, bytes: &[u8]) {
        self.0.borrow_mut().patches.push((what, at, bytes.to_vec()));
    }

    /// An event of any kind; false where none was asked for.
    pub fn send_event(&self, result: u32) -> bool {
        let mut state = self.0.borrow_mut();
        match state.events.requests.pop() {
            Some(request) => {
                state.answer(&request, Status::new(), result);
                true
            }
            None => false,
        }
    }

    /// The contents of a namespace's blocks, and what of it would survive a loss of power.
    pub fn contents(&self, number: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        self.0.borrow().media.get(&number).map(|medium| (medium.data.clone(), medium.durable.clone()))
    }
}

impl State {
    fn namespace_changed(&mut self, number: u32) {
        if self.events.enabled {
            self.events.changed.push(number);
            self.tell();
        }
    }

    fn tell(&mut self) {
        if self.events.changed.is_empty() || self.events.told {
            return;
        }
        if let Some(request) = self.events.requests.pop() {
            self.events.told = true;
            self.answer(&request, Status::new(), u32::from(command::LOG_CHANGED_NAMESPACES) << 16 | 2);
        }
    }

    pub(super) fn admin(&mut self, fetched: &Fetched) {
        let entry = &fetched.entry;
        let (ten, eleven) = (entry[10], entry[11]);
        let address = u64::from(entry[7]) << 32 | u64::from(entry[6]);
        let status = match entry[0] as u8 {
            admin::IDENTIFY => self.identify(ten as u8, entry[1], address),
            admin::SET_FEATURES => {
                if ten as u8 == feature::ASYNC_EVENTS {
                    self.events.enabled = eleven & command::NAMESPACE_NOTICES != 0;
                }
                Status::new()
            }
            admin::CREATE_COMPLETION_QUEUE => self.create_completion_queue(ten, eleven, address),
            admin::CREATE_SUBMISSION_QUEUE => self.create_submission_queue(ten, eleven, address),
            admin::DELETE_SUBMISSION_QUEUE => {
                self.submissions[1] = None;
                self.inbox.retain(|fetched| fetched.queue == 0);
                Status::new()
            }
            admin::DELETE_COMPLETION_QUEUE => {
                if self.submissions[1].is_some() {
                    self.complain("a completion queue deleted before its submission queue");
                }
                self.finished[1] = None;
                Status::new()
            }
            admin::GET_LOG_PAGE => {
                self.events.told = false;
                self.events.changed.clear();
                self.xen.device_write(address, &vec![0; ((ten >> 16) as usize + 1) * 4]);
                Status::new()
            }
            admin::ASYNC_EVENT_REQUEST => {
                if !self.events.requests.is_empty() {
                    self.complain("a second event request");
                }
                self.events.requests.push(*fetched);
                return self.tell();
            }
            admin::ABORT => {
                let aborted = self.abort((ten >> 16) as u16);
                return self.answer(fetched, Status::new(), u32::from(!aborted));
            }
            _ => refusal(Status::INVALID_OPCODE),
        };
        self.answer(fetched, status, 0);
    }

    fn abort(&mut self, id: u16) -> bool {
        let place = self.silent.iter().position(|silent| silent.queue == 1 && silent.id() == id);
        let Some(place) = place.filter(|_| !self.unabortable) else {
            return false;
        };
        let silent = self.silent.swap_remove(place);
        self.answer(&silent, Status::new().with_code(Status::ABORT_REQUESTED as u8), 0);
        true
    }

    fn create_completion_queue(&mut self, ten: u32, eleven: u32, address: u64) -> Status {
        let (queue, size) = (ten & 0xFFFF, ten >> 16);
        if queue != 1
            || size == 0
            || size > u32::from(self.capabilities.max_queue_entries())
            || !address.is_multiple_of(4096)
        {
            self.complain("a completion queue that cannot be");
            return refusal(Status::INVALID_FIELD);
        }
        let vector = (eleven >> 16) as u16;
        self.finished[1] = Some(Finished { address, depth: size as u16 + 1, tail: 0, phase: true, head: 0, vector });
        Status::new()
    }

    fn create_submission_queue(&mut self, ten: u32, eleven: u32, address: u64) -> Status {
        let (queue, size) = (ten & 0xFFFF, ten >> 16);
        let completion = eleven >> 16 == 1 && self.finished[1].is_some();
        if queue != 1 || size == 0 || size > u32::from(self.capabilities.max_queue_entries()) || !completion {
            self.complain("a submission queue that cannot be");
            return refusal(Status::INVALID_FIELD);
        }
        self.submissions[1] = Some(Submission { address, depth: size as u16 + 1, head: 0 });
        Status::new()
    }

    fn identify(&mut self, what: u8, namespace: u32, address: u64) -> Status {
        let mut bytes = vec![0; IDENTIFY_BYTES];
        match what {
            cns::CONTROLLER => self.describe_controller(&mut bytes),
            cns::NAMESPACE => match self.media.get(&namespace) {
                Some(medium) => medium.describe(&mut bytes),
                None => return refusal(Status::INVALID_NAMESPACE),
            },
            cns::ACTIVE_NAMESPACES => {
                for (slot, number) in bytes.chunks_exact_mut(4).zip(self.media.keys()) {
                    slot.copy_from_slice(&number.to_le_bytes());
                }
            }
            cns::COMMAND_SET_CONTROLLER => {}
            cns::NAMESPACE_DESCRIPTORS if self.version >= 0x0001_0300 => {}
            _ => return refusal(Status::INVALID_FIELD),
        }
        for (_, at, patch) in self.patches.iter().filter(|(of, ..)| *of == what) {
            for (slot, byte) in bytes.iter_mut().skip(*at).zip(patch) {
                *slot = *byte;
            }
        }
        if what == cns::NAMESPACE
            && let Ok(format) = Format::parse(&bytes, &Controller::default())
        {
            let told = self.told_shifts.entry(namespace).or_insert(format.shift);
            *told = format.shift.min(*told);
        }
        self.xen.device_write(address, &bytes);
        Status::new()
    }

    fn describe_controller(&self, bytes: &mut [u8]) {
        let mut put = |at: usize, value: &[u8]| {
            for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
                *slot = *byte;
            }
        };
        put(4, b"MODEL0001           ");
        put(24, b"oxidom's model                          ");
        put(64, b"1.0     ");
        put(77, &[self.transfer_shift]);
        put(92, &command::NAMESPACE_NOTICES.to_le_bytes());
        put(111, &[1]);
        put(128, &[2, 0, 5, 0]);
        put(512, &[0x66, 0x44]);
        put(516, &self.media.keys().last().copied().unwrap_or(0).to_le_bytes());
        put(520, &(1u16 << 2 | 1 << 3).to_le_bytes());
        put(525, &[1]);
        put(528, &7u16.to_le_bytes());
    }
}

/// The words of an answer to `id`, for [`Device::forge`].
pub fn answer_words(queue: u16, id: u16, status: Status) -> [u32; 4] {
    let words = [0, 0, u32::from(queue) << 16, u32::from(u16::from(status)) << 16 | u32::from(id)];
    debug_assert_eq!(Answer::parse(words).id, id);
    words
}

//! Admin commands and events. Pure.

use blkdom::disk::nvme::command::{self, Answer, Status, admin, cns, feature};
use blkdom::disk::nvme::identify::{Controller, Format, IDENTIFY_BYTES};

use super::{Completion, Fetched, Namespace, Nvme, Submission};
use crate::bus::Transfer;
use crate::work::Next;

/// Asynchronous Event Request Limit Exceeded, and the limit (AERL, from 0).
const TOO_MANY_REQUESTS: u16 = 0x105;
const MOST_REQUESTS: usize = 4;

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

impl Nvme {
    /// Puts a namespace in, or another in its place, and tells.
    pub fn insert(&mut self, number: u32, namespace: Namespace) {
        self.namespaces.insert(number, namespace);
        self.namespace_changed(number);
    }

    /// Takes a namespace out, and tells.
    pub fn take_out(&mut self, number: u32) {
        self.namespaces.remove(&number);
        self.namespace_changed(number);
    }

    /// Changes a namespace's size, and tells.
    pub fn resize(&mut self, number: u32, blocks: u64) {
        if let Some(namespace) = self.namespaces.get_mut(&number) {
            namespace.resize(blocks);
        }
        self.namespace_changed(number);
    }

    /// Bytes that an Identify structure has from `at` on from now on.
    pub fn patch(&mut self, what: u8, at: usize, bytes: &[u8]) {
        self.patches.push((what, at, bytes.to_vec()));
    }

    /// An event of any kind; false where none was asked for.
    pub fn send_event(&mut self, result: u32) -> bool {
        let request = self.events.requests.pop();
        if let Some(request) = &request {
            self.answer(request, Status::new(), result);
        }
        request.is_some()
    }

    /// The contents of a namespace's blocks, and what of it would survive a loss of power.
    pub fn contents(&self, number: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        self.namespaces.get(&number).map(Namespace::contents)
    }
}

impl Nvme {
    fn namespace_changed(&mut self, number: u32) {
        if self.events.enabled {
            self.events.changed.push(number);
            self.tell_of_changes();
        }
    }

    fn tell_of_changes(&mut self) {
        if self.events.changed.is_empty() || self.events.told {
            return;
        }
        if let Some(request) = self.events.requests.pop() {
            self.events.told = true;
            self.answer(&request, Status::new(), u32::from(command::LOG_CHANGED_NAMESPACES) << 16 | 2);
        }
    }

    /// Carries out an admin command.
    pub(super) fn admin(&mut self, fetched: Fetched) -> Next<Self> {
        let entry = &fetched.entry;
        let (ten, eleven) = (entry[10], entry[11]);
        let address = u64::from(entry[7]) << 32 | u64::from(entry[6]);
        let mut result = 0;
        let status = match entry[0] as u8 {
            admin::IDENTIFY => match self.identify(ten as u8, entry[1]) {
                Ok(bytes) => return Self::give(fetched, address, bytes),
                Err(status) => status,
            },
            admin::GET_LOG_PAGE => {
                self.events.told = false;
                self.events.changed.clear();
                return Self::give(fetched, address, vec![0; ((ten >> 16) as usize + 1) * 4]);
            }
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
                    self.misuse.note("a completion queue deleted before its submission queue");
                }
                self.completions[1] = None;
                Status::new()
            }
            admin::ASYNC_EVENT_REQUEST => {
                if !self.events.requests.is_empty() {
                    self.misuse.note("a second event request");
                }
                if self.events.requests.len() < MOST_REQUESTS {
                    self.events.requests.push(fetched);
                    self.tell_of_changes();
                    return Next::Done;
                }
                refusal(TOO_MANY_REQUESTS)
            }
            admin::ABORT => {
                result = u32::from(!self.abort((ten >> 16) as u16));
                Status::new()
            }
            _ => refusal(Status::INVALID_OPCODE),
        };
        self.answer(&fetched, status, result);
        Next::Done
    }

    /// Puts `bytes` where a command wants them, and answers it.
    fn give(fetched: Fetched, address: u64, bytes: Vec<u8>) -> Next<Self> {
        Next::then(vec![Transfer::write(address, bytes)], move |device: &mut Self, _| {
            device.answer(&fetched, Status::new(), 0);
            Next::Done
        })
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
            self.misuse.note("a completion queue that cannot be");
            return refusal(Status::INVALID_FIELD);
        }
        let vector = (eleven >> 16) as u16;
        self.completions[1] = Some(Completion::new(address, size as u16 + 1, vector));
        Status::new()
    }

    fn create_submission_queue(&mut self, ten: u32, eleven: u32, address: u64) -> Status {
        let (queue, size) = (ten & 0xFFFF, ten >> 16);
        let completion = eleven >> 16 == 1 && self.completions[1].is_some();
        if queue != 1 || size == 0 || size > u32::from(self.capabilities.max_queue_entries()) || !completion {
            self.misuse.note("a submission queue that cannot be");
            return refusal(Status::INVALID_FIELD);
        }
        self.submissions[1] = Some(Submission::new(address, size as u16 + 1));
        Status::new()
    }

    fn identify(&mut self, what: u8, number: u32) -> Result<Vec<u8>, Status> {
        let mut bytes = vec![0; IDENTIFY_BYTES];
        match what {
            cns::CONTROLLER => self.describe_controller(&mut bytes),
            cns::NAMESPACE => match self.namespaces.get(&number) {
                Some(namespace) => namespace.describe(&mut bytes),
                None => return Err(refusal(Status::INVALID_NAMESPACE)),
            },
            cns::ACTIVE_NAMESPACES => {
                for (slot, number) in bytes.chunks_exact_mut(4).zip(self.namespaces.keys()) {
                    slot.copy_from_slice(&number.to_le_bytes());
                }
            }
            cns::COMMAND_SET_CONTROLLER => {}
            cns::NAMESPACE_DESCRIPTORS if self.version >= 0x0001_0300 => {}
            _ => return Err(refusal(Status::INVALID_FIELD)),
        }
        for (_, at, patch) in self.patches.iter().filter(|(of, ..)| *of == what) {
            for (slot, byte) in bytes.iter_mut().skip(*at).zip(patch) {
                *slot = *byte;
            }
        }
        if what == cns::NAMESPACE
            && let Ok(format) = Format::parse(&bytes, &Controller::default())
        {
            let told = self.told_shifts.entry(number).or_insert(format.shift);
            *told = format.shift.min(*told);
        }
        Ok(bytes)
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
        put(259, &[MOST_REQUESTS as u8 - 1]);
        put(512, &[0x66, 0x44]);
        put(516, &self.namespaces.keys().last().copied().unwrap_or(0).to_le_bytes());
        put(520, &(1u16 << 2 | 1 << 3).to_le_bytes());
        put(525, &[1]);
        put(528, &7u16.to_le_bytes());
    }
}

/// The words of an answer to `id`, for [`Nvme::forge`].
pub fn answer_words(queue: u16, id: u16, status: Status) -> [u32; 4] {
    let words = [0, 0, u32::from(queue) << 16, u32::from(u16::from(status)) << 16 | u32::from(id)];
    debug_assert_eq!(Answer::parse(words).id, id);
    words
}

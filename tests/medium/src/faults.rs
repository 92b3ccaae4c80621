//! What goes wrong with which requests. Host.

use std::ops::Range;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A read.
    Read,
    /// A write, of zeroes or not.
    Write,
    /// A flush; its range is the whole drive.
    Flush,
    /// A discard.
    Discard,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request fails (`EIO`).
    Error,
    /// The request is not answered until [`crate::Medium::fail_unanswered`].
    Silence,
}

/// A fault: what happens to requests of a kind that touch some bytes, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which requests.
    pub request: Request,
    /// Bytes of the drive.
    pub bytes: Range<u64>,
    /// What happens.
    pub kind: Kind,
    /// To how many requests; `None` for all until [`crate::Medium::heal`].
    pub times: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    ended: bool,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// The server is to end.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// What is to happen to a request, and counts it.
    pub(crate) fn strike(&mut self, request: Request, offset: u64, length: u64) -> Option<Kind> {
        let end = offset.saturating_add(length);
        let hit = |fault: &&mut Fault| {
            let everywhere = request == Request::Flush;
            let touched = everywhere || (fault.bytes.start < end && offset < fault.bytes.end);
            fault.request == request && touched && fault.times != Some(0)
        };
        let fault = self.list.iter_mut().find(hit)?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_its_requests_as_often_as_it_says() {
        let mut faults = Faults::default();
        let fault = |request, bytes, times| Fault { request, bytes, kind: Kind::Error, times };
        faults.add(fault(Request::Read, 512..1024, Some(2)));
        faults.add(fault(Request::Flush, 0..1, None));
        assert_eq!(faults.strike(Request::Read, 0, 512), None);
        assert_eq!(faults.strike(Request::Read, 1024, 512), None);
        assert_eq!(faults.strike(Request::Write, 512, 512), None);
        assert_eq!(faults.strike(Request::Read, 0, 4096), Some(Kind::Error));
        assert_eq!(faults.strike(Request::Read, 512, 512), Some(Kind::Error));
        assert_eq!(faults.strike(Request::Read, 512, 512), None);
        assert_eq!(faults.strike(Request::Flush, 0, 0), Some(Kind::Error));
        faults.clear();
        assert_eq!(faults.strike(Request::Flush, 0, 0), None);
    }
}

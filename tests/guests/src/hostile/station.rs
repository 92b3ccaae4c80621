//! A proper frontend without any offload, which takes TCP: what comes must fit the MTU, and its checksums must be right.
//!
//! It takes what is sent to its port, lines of `oxidom`, and at each connection's end puts into `data/station`: how many connections
//! there were, the bytes of this one, in how many segments, and the longest frame. It answers nothing else but who asks for
//! its hardware address.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::frames;
use crate::frontend::{Frontend, Manners};
use crate::neighbour;
use crate::segment::{ACK, FIN, SYN, Segment};
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::convert::Infallible;
use runtime::memory::Page;
use split_driver::store::{Store, Transaction};
use xen_pv_sys::io::netif::RxFlags;

/// That of RFC 863, discard.
const PORT: u16 = 9;
/// The longest frame of the standard MTU, its header included.
const FRAME_MAX: usize = 1514;
/// What every connection brings, again and again.
const TEXT: &[u8] = b"oxidom\n";
/// Our first sequence number; nothing ever follows it but the end.
const SEQUENCE: u32 = 0x1000;

const MANNERS: Manners<'static> = Manners { features: &[("feature-no-csum-offload", "1")], ..Manners::GOOD };

pub(crate) async fn run(vif: Device) -> Result<Infallible> {
    let mut frontend = Frontend::connect(vif, MANNERS).await?;
    let hello = frames::hello(frontend.mac);
    frontend.send(&hello).await?;
    let page = Rc::new(Page::new()?);
    let reference = frontend.lend(Rc::clone(&page), true)?;
    let mut connection = Connection::default();
    crate::say(&frontend.vif.store, "ready").await;
    loop {
        // One answer for all that has come, as it acknowledges all of that.
        let mut answer = None;
        while let Some((flags, frame)) = frontend.take_frame()? {
            if let Some(segment) = check(flags, &frame)? {
                connection.longest = connection.longest.max(frame.len());
                answer = connection.handle_segment(&segment)?.or(answer);
            } else if let Some(told) = neighbour::answer(&frame, frontend.mac) {
                page.write(0, &told);
                frontend.send_lent(reference, told.len()).await?;
            }
        }
        frontend.publish();
        if let Some(answer) = answer {
            page.write(0, &answer);
            frontend.send_lent(reference, answer.len()).await?;
        }
        if let Some(said) = connection.poll_report() {
            frontend.vif.store.write(Transaction::NONE, "data/station", said.as_bytes()).await?;
        }
        if frontend.receive.final_check_for_responses()? == 0 {
            frontend.receive_channel.wait().await;
        }
    }
}

/// What no frame may be that comes to a frontend without offloads; gives the segment of TCP in it.
fn check(flags: RxFlags, frame: &[u8]) -> Result<Option<Segment<'_>>> {
    if flags.intersects(RxFlags::CSUM_BLANK | RxFlags::MORE_DATA | RxFlags::EXTRA_INFO) {
        return Err(Error::Wrong("a frame wants an offload of its receiver"));
    }
    if frame.len() > FRAME_MAX {
        return Err(Error::Wrong("a frame is longer than the MTU"));
    }
    match Segment::parse(frame) {
        Some(segment) if !segment.intact => Err(Error::Wrong("a checksum is wrong")),
        segment => Ok(segment.filter(|segment| segment.port == PORT)),
    }
}

/// The connection of now, and how many there were.
#[derive(Default)]
struct Connection {
    ended: u32,
    /// What comes next, as a sequence number.
    expected: u32,
    open: bool,
    bytes: usize,
    segments: u32,
    longest: usize,
    unreported: bool,
}

impl Connection {
    fn handle_segment(&mut self, segment: &Segment<'_>) -> Result<Option<Vec<u8>>> {
        if segment.flags & SYN != 0 {
            self.expected = segment.sequence.wrapping_add(1);
            (self.open, self.bytes, self.segments) = (true, 0, 0);
            return Ok(Some(segment.answer(SEQUENCE, self.expected, SYN | ACK)));
        }
        let next = SEQUENCE.wrapping_add(1);
        let is_end = segment.flags & FIN != 0;
        if segment.data.is_empty() && !is_end {
            return Ok(None);
        }
        if segment.sequence == self.expected && self.open {
            let text = TEXT.iter().cycle().skip(self.bytes % TEXT.len());
            if !segment.data.iter().eq(text.take(segment.data.len())) {
                return Err(Error::Wrong("the data are not what was sent"));
            }
            self.segments += 1;
            self.bytes += segment.data.len();
            self.expected = self.expected.wrapping_add(segment.data.len() as u32 + u32::from(is_end));
            if is_end {
                (self.open, self.unreported) = (false, true);
                self.ended += 1;
            }
        }
        // Out of order, or seen before: what is expected tells the sender.
        let flags = if self.open { ACK } else { ACK | FIN };
        Ok(Some(segment.answer(next, self.expected, flags)))
    }

    /// What is to be said of the connection that ended.
    fn poll_report(&mut self) -> Option<alloc::string::String> {
        let Self { ended, bytes, segments, longest, .. } = self;
        let said = format!("{ended} {bytes} {segments} {longest}");
        core::mem::take(&mut self.unreported).then_some(said)
    }
}

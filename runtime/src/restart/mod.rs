//! Restart in place: a domain that fails, or is asked to, begins anew inside itself. Floor 2.
//!
//! It keeps its number, its page tables, its bound ports and the pages that are mapped or granted, so its peers need not notice. `.data` and
//! `.bss` are as at the first start; memory is free again, but for what others may still reach. One thing goes from a life to the next: the
//! *recovery box*, bytes that the image writes when a life ends ([`keep`]) and reads when the next begins ([`recovered`]).
//!
//! ```text
//! main: recovered()? -- none: begin from nothing
//!          | some: rebuild from its bytes; events::adopt, grants::adopt, grants::adopt_mapping
//!       keep(pages, policy, how to write the box): the box is the one that was found, where that is large enough
//!       recovered.devices_stopped(), where it had devices: what they could write is free again
//!       recovered.taken_over(): what was not adopted is given back
//!       ... serves ... panic, fault, or again() -> the box is written -> main
//! ```
//!
//! [`Staging::enter`] goes the same road with another image: what it enters recovers from the box that this one writes. Until it has taken over,
//! the old image comes back where the new one fails or gives up ([`Recovered::give_up`]).
//!
//! A life that ends before it has taken over leaves the box that it found. Too many such ends in a row, a box that cannot be written, or a
//! failure while it is written: then the domain crashes with its report, as one that never called [`keep`].
//!
//! Unsafe because the box is memory that outlives the program, and because a new life begins by a jump.

mod identity;
mod image;
mod parts;
mod refusal;
mod replace;
mod writer;

use crate::checksum::checksum;
use crate::local::Local;
use crate::memory::{self, frames};
use crate::record::{self, Birth, BoxHeader, Damaged, record};
use crate::{clock, console, events, grants, layout, watchdog};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::ops::Range;
use core::time::Duration;
use split_driver::memory::OutOfMemory;
use split_driver::time::Instant;
use xen_pv_sys::PAGE_SIZE;

pub use identity::{Identity, IdentityNote, Text};
pub use image::{Frame, ImageError};
pub use parts::{Part, Parts};
pub use refusal::Refusal;
pub use replace::{ReplaceError, Staging, own_identity};
pub use writer::{BoxWriter, Cause, Unwritten};

unsafe extern "C" {
    /// Begins a new life (boot.rs).
    fn oxidom_restart() -> !;
}

/// How often a domain restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many restarts in a row there may be after failures; the next failure crashes the domain.
    pub in_a_row: u32,
    /// How long after it has taken over a life is sound: a failure after that is the first of a new row.
    pub settled_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { in_a_row: 5, settled_after: Duration::from_secs(10) }
    }
}

/// Begins the checksum of a box's content.
const SEED: u64 = 1;

/// How the image writes its state.
type WriteState = Box<dyn Fn(&mut BoxWriter) -> Result<(), Unwritten>>;

/// What [`keep`] registered.
struct Kept {
    address: usize,
    pages: usize,
    /// It is the box that the last life left, which that one's content is in until this life has taken over.
    found: bool,
    write: WriteState,
}

static KEPT: Local<RefCell<Option<Kept>>> = Local::new(RefCell::new(None));
/// Whether this life has a box to recover that it has not been given yet.
static UNCLAIMED: Local<Cell<bool>> = Local::new(Cell::new(false));
/// Since when this life answers for the state, by its own box; `None` while it is still the last life's.
static TAKEN_OVER: Local<Cell<Option<Instant>>> = Local::new(Cell::new(None));
static PAUSE: Local<Cell<Duration>> = Local::new(Cell::new(Duration::ZERO));
/// Whether the end of this life came from outside: nothing that the image did led to it.
static FROM_OUTSIDE: Local<Cell<bool>> = Local::new(Cell::new(false));
/// Whether this life is ending.
static ENDING: Local<Cell<bool>> = Local::new(Cell::new(false));

/// The beginning of each life.
pub(crate) fn begin(first: Birth) -> Result<Birth, Damaged> {
    record().birth(first)
}

/// The clock runs: notes how long the domain was away.
pub(crate) fn ready() {
    let record = record();
    if record.is_again() {
        UNCLAIMED.set(true);
        PAUSE.set(Duration::from_nanos(clock::now().0.saturating_sub(record.ended.get())));
    } else {
        TAKEN_OVER.set(Some(clock::now()));
    }
}

/// From now on the domain restarts when it fails. `write` gives the bytes of the last consistent state, without allocating: it runs when
/// anything may have failed, the heap included, and whatever the image has borrowed stays borrowed. It gets pages of room: the box that
/// the last life left, where this life has not taken over yet and it has `least` pages; else `pages` of them, or `least` where there
/// are not so many, taken now. Gives how many they are. A second call takes the place of the first.
///
/// # Errors
/// [`OutOfMemory`]; what was registered before still is.
pub fn keep(
    least: usize,
    pages: usize,
    policy: Policy,
    write: impl Fn(&mut BoxWriter) -> Result<(), Unwritten> + 'static,
) -> Result<usize, OutOfMemory> {
    let write: WriteState = Box::new(write);
    let record = record();
    let content = record.content.get();
    let found = Some(content)
        .filter(|_| TAKEN_OVER.get().is_none())
        .and_then(|content| place(&content))
        .map(|place| (place.start, place.len() / PAGE_SIZE))
        .filter(|(_, pages)| *pages >= least);
    let take = |pages: usize| frames::allocate(pages).map(|first| (layout::address_of(first), pages));
    let mut kept = KEPT.borrow_mut();
    // A box of this life's own holds nothing before the life ends, so its pages may be the new one's as well.
    let own = kept.as_ref().filter(|kept| !kept.found).map(|kept| kept.pages);
    if let Some(before) = kept.as_ref().filter(|kept| !kept.found) {
        // SAFETY: this life's own; only a life's last act gives them to others. Nothing uses them before they are taken again below.
        unsafe { frames::free(layout::frame_at(before.address), before.pages) };
    }
    let place = found.map_or_else(|| take(pages).or_else(|_| take(least)), Ok);
    let (address, pages) = match place {
        Ok(place) => place,
        Err(error) => {
            if let Some(pages) = own {
                let again = take(pages).ok();
                *kept = kept.take().zip(again).map(|(kept, (address, _))| Kept { address, ..kept });
            }
            return Err(error);
        }
    };
    if found.is_none() {
        // Whatever the first write to memory costs beside, an emulator's forgetting of code that was there among it, comes before a life ends.
        // SAFETY: pages just allocated, mapped writable.
        unsafe { core::ptr::write_bytes(address as *mut u8, 0, pages * PAGE_SIZE) };
    }
    record.row_limit.set(policy.in_a_row);
    record.settled_after.set(u64::try_from(policy.settled_after.as_nanos()).unwrap_or(u64::MAX));
    *kept = Some(Kept { address, pages, found: found.is_some(), write });
    Ok(pages)
}

/// What the life before this one left, and why it ended. `None` in the domain's first life, and when called again.
pub fn recovered() -> Option<Recovered> {
    UNCLAIMED.replace(false).then_some(Recovered { content: record().content.get() })
}

/// What a life left. Until [`Recovered::taken_over`] it is what the next life begins from, too, whatever this one does.
#[derive(Debug)]
pub struct Recovered {
    content: BoxHeader,
}

impl Recovered {
    /// The content of the box; empty where it is damaged, which [`Recovered::is_intact`] tells.
    pub fn bytes(&self) -> &[u8] {
        content(&self.content).unwrap_or_default()
    }

    /// Whether the box holds what was written to it.
    pub fn is_intact(&self) -> bool {
        content(&self.content).is_some()
    }

    /// Why the last life ended.
    pub fn cause(&self) -> Cause {
        Cause::of(record().cause.get())
    }

    /// Its report: the panic's message, or the reason given, and more lines.
    pub fn report(&self) -> String {
        String::from_utf8_lossy(record().report().collect::<Vec<u8>>().trim_ascii_end()).into_owned()
    }

    /// Lives before this one.
    pub fn lives(&self) -> u64 {
        record().lives.get()
    }

    /// From the end of the last life to `main`.
    pub fn pause(&self) -> Duration {
        PAUSE.get()
    }

    /// Pages that changed places when this image took the place of the one before it: 0 where the image is the same.
    pub fn exchanged(&self) -> u32 {
        record().exchanged.get()
    }

    /// The devices of the last life no longer reach memory: what they could write is free again, but for what is lost with one that was given up.
    /// Until then it is withheld, and this life may have too little for pages of its own.
    pub fn devices_stopped(&self) {
        memory::release_device_frames();
    }

    /// This life has all that it wants of the last one: ports, mappings and grants that it has not adopted are closed, unmapped and ended,
    /// and memory that the last life's devices might write is free again, so they must have been stopped. From now on the state is what
    /// [`keep`]'s writer writes. Gives how long it was from the end of the last life until now, by the clock, and what of that the domain ran
    /// itself. There are no [`bytes`](Self::bytes) any more.
    pub fn taken_over(&mut self) -> (Duration, Duration) {
        events::close_inherited();
        grants::end_inherited();
        if let Some(kept) = KEPT.borrow_mut().as_mut().filter(|kept| kept.found) {
            kept.found = false;
            memory::do_not_withhold(layout::frame_at(kept.address), kept.pages);
        }
        replace::forget_old();
        self.content = BoxHeader::default();
        record().content.set(self.content);
        memory::release_withheld();
        let now = clock::now();
        TAKEN_OVER.set(Some(now));
        let record = record();
        let away = Duration::from_nanos(now.0.saturating_sub(record.ended.get()));
        (away, clock::running().saturating_sub(Duration::from_nanos(record.ran.get())))
    }

    /// This image cannot go on from what the one before it left, and has touched nothing: the old image comes back, and recovers from the
    /// same box. Returns only where there is none, which is so where the last life was this image's own.
    pub fn give_up(&self, reason: fmt::Arguments<'_>) -> Refusal {
        if !replace::has_old() {
            return Refusal::NoOldImage;
        }
        end(Cause::GivenUp, &|out| {
            let _ = writeln!(out, "{reason}");
        })
    }
}

/// The addresses of a box's pages; `None` where its header is not sound. They are pages that no life gives to anyone else before it has taken
/// over.
fn place(header: &BoxHeader) -> Option<Range<usize>> {
    let place = header.place(&memory::beyond_image())?;
    memory::are_withheld(layout::frame_at(place.start), place.len() / PAGE_SIZE).then_some(place)
}

/// The bytes of a box; `None` where they are not what was written to it.
fn content(header: &BoxHeader) -> Option<&[u8]> {
    let place = place(header)?;
    // SAFETY:
    // 1. `place` checked the header: the bytes lie in pages of our memory, behind the image, all of it mapped.
    // 2. The pages are withheld from the allocator until `taken_over` empties the only header that names them.
    // 3. An earlier life wrote them, and nothing writes them while they are withheld. Any byte is valid.
    let bytes = unsafe { core::slice::from_raw_parts(place.start as *const u8, header.length()) };
    (checksum(SEED, bytes) == header.checksum()).then_some(bytes)
}

/// Frames that are free again once this life has taken over, beside those that are now: where it began by an exchange of images, what that took,
/// and the image before it, which may come back.
pub fn frames_to_come() -> usize {
    if TAKEN_OVER.get().is_some() {
        return 0;
    }
    match Cause::of(record().cause.get()) {
        Cause::Replaced if replace::has_old() => record().exchanged.get() as usize + replace::EXCHANGE_PAGES,
        Cause::GivenUp => replace::EXCHANGE_PAGES,
        _ => 0,
    }
}

/// Lives of the domain before this one.
pub fn lives() -> u64 {
    record().lives.get()
}

/// Restarts the domain; returns only where it cannot.
pub fn again(reason: fmt::Arguments<'_>) -> Refusal {
    let refusal = end(Cause::Asked, &|out| {
        let _ = writeln!(out, "{reason}");
    });
    // Not a failure: this life goes on, and may fail later.
    ENDING.set(false);
    refusal
}

/// Whether this life is ending.
#[cfg(feature = "faults")]
pub(crate) fn is_ending() -> bool {
    ENDING.get()
}

/// What ends this life comes from outside.
pub(crate) fn note_outside() {
    FROM_OUTSIDE.set(true);
}

/// Restarts the domain after a failure; returns only where it cannot.
pub(crate) fn after_failure(report: &dyn Fn(&mut dyn Write)) -> Refusal {
    end(Cause::Failure, report)
}

/// How the report of the failure before this one, whose restart failed in turn, is shown.
pub(crate) fn show_earlier_report(out: &mut impl Write) {
    for byte in record().report() {
        let _ = out.write_char(char::from(byte));
    }
}

impl Staging {
    /// Puts the image in the place of this one, with a command line in place of the domain's, or with this image's. Returns only where it
    /// cannot; then nothing has changed. Where this image comes back, it has its own command line again.
    pub fn enter(self, reason: fmt::Arguments<'_>, words: Option<&str>) -> ReplaceError {
        if let Err(error) = self.check() {
            return error;
        }
        if TAKEN_OVER.get().is_none() {
            return ReplaceError::NotTakenOver;
        }
        let printable = |words: &str| words.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let Some(words) = record().set_next_words(words).filter(|_| words.is_none_or(printable)) else {
            return ReplaceError::Words;
        };
        // SAFETY: it is not executed yet.
        if let Err(error) = unsafe { self.map_code(true) } {
            return error;
        }
        let refusal = prepare(Cause::Replaced, &|out| {
            let _ = writeln!(out, "{reason}");
        });
        let Err(refusal) = refusal else { self.exchange(words) };
        ENDING.set(false);
        // SAFETY: it was not executed.
        if unsafe { self.map_code(false) }.is_err() {
            // Not memory that could be given back.
            core::mem::forget(self);
        }
        ReplaceError::Refused(refusal)
    }
}

/// Ends this life, or says why not.
fn end(cause: Cause, report: &dyn Fn(&mut dyn Write)) -> Refusal {
    let old = TAKEN_OVER.get().is_none() && replace::has_old();
    let cause = if old { Cause::GivenUp } else { cause };
    match prepare(cause, report) {
        Err(refusal) => refusal,
        Ok(()) if old => replace::back(),
        Ok(()) => {
            record().seal();
            // SAFETY: does not return, and nothing of this life is used by the next but what `Record` and the box say, in numbers and bytes: no
            // reference, no lock and no destructor goes over. Upcalls are masked, as in all of Rust.
            unsafe { oxidom_restart() }
        }
    }
}

/// Everything that can be refused, and the record of this life's end.
fn prepare(cause: Cause, report: &dyn Fn(&mut dyn Write)) -> Result<(), Refusal> {
    watchdog::beat();
    if ENDING.replace(true) {
        return Err(Refusal::FailedAgain);
    }
    let record = record();
    let (now, ran) = (clock::now(), clock::running());
    let taken_over = TAKEN_OVER.get();
    let settled = taken_over.is_some_and(|since| now.since(since).as_nanos() >= u128::from(record.settled_after.get()));
    let row = Row { length: if settled { 0 } else { record.row.get() }, limit: record.row_limit.get() };
    let kept = KEPT.try_borrow_mut().ok().and_then(|mut kept| kept.take());
    if taken_over.is_some() && kept.is_none() {
        return Err(Refusal::NotKept);
    }
    let row = match row.after(cause) {
        Ok(row) => row,
        Err(refusal) => {
            put_back(kept);
            return Err(refusal);
        }
    };
    record.clear_text();
    console::save_rest();
    record.begin_report();
    report(&mut record::Text);
    if let Some(kept) = kept.filter(|_| taken_over.is_some())
        && let Err(refusal) = write_box(&kept, cause)
    {
        put_back(Some(kept));
        console::restore_rest();
        return Err(refusal);
    }
    record.exchanged.set(0);
    record.row.set(row);
    record.cause.set(cause as u32);
    record.lives.set(record.lives.get() + 1);
    record.ended.set(now.0);
    record.ran.set(u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX));
    Ok(())
}

/// Restarts in a row after failures.
#[derive(Clone, Copy)]
struct Row {
    length: u32,
    limit: u32,
}

impl Row {
    /// How many they are once a life has ended. Failures alone count: a life that ends on request was sound, and the way back to an old image is
    /// always open.
    fn after(self, cause: Cause) -> Result<u32, Refusal> {
        match cause {
            Cause::Failure if self.length >= self.limit => Err(Refusal::TooMany(self.length)),
            Cause::Failure => Ok(self.length + 1),
            Cause::Asked | Cause::Replaced | Cause::GivenUp => Ok(self.length),
        }
    }
}

/// Puts back what [`prepare`] took. Where [`keep`] failed in the midst of a change, nothing was taken, and there is nothing to put back.
fn put_back(kept: Option<Kept>) {
    if let Ok(mut place) = KEPT.try_borrow_mut() {
        *place = kept;
    }
}

/// Has the image write the box.
fn write_box(kept: &Kept, cause: Cause) -> Result<(), Refusal> {
    let capacity = kept.pages * PAGE_SIZE;
    let from_outside = FROM_OUTSIDE.get();
    let mut writer = BoxWriter { address: kept.address, capacity, length: 0, cause, from_outside };
    (kept.write)(&mut writer).map_err(|unwritten| match unwritten {
        Unwritten::Full => Refusal::BoxFull(capacity),
        Unwritten::Inconsistent => Refusal::Inconsistent,
    })?;
    // SAFETY: the pages of the box, which `keep` took: mapped, ours alone, and `writer.length` is no more than they hold. Nobody writes them
    // any more in this life.
    let bytes = unsafe { core::slice::from_raw_parts(kept.address as *const u8, writer.length) };
    record().content.set(BoxHeader::new(kept.address, kept.pages, writer.length, checksum(SEED, bytes)));
    memory::withhold(layout::frame_at(kept.address), kept.pages);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Cause, Refusal, Row};

    /// Requests between failures neither lengthen the row nor end it, and none is refused for it.
    #[test]
    fn failures_alone_make_a_row() {
        let (limit, mut length) = (2, 0);
        let mut end = |cause| {
            let after = Row { length, limit }.after(cause);
            length = after.unwrap_or(length);
            after
        };
        for (cause, after) in [
            (Cause::Asked, Ok(0)),
            (Cause::Failure, Ok(1)),
            (Cause::Replaced, Ok(1)),
            (Cause::GivenUp, Ok(1)),
            (Cause::Failure, Ok(2)),
            (Cause::Asked, Ok(2)),
            (Cause::Failure, Err(Refusal::TooMany(2))),
            (Cause::Replaced, Ok(2)),
            (Cause::GivenUp, Ok(2)),
            (Cause::Failure, Err(Refusal::TooMany(2))),
        ] {
            assert_eq!(end(cause), after, "{cause:?}");
        }
    }
}

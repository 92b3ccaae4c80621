//! What one life of the domain leaves to the next: a record at a fixed place that no restart clears. Floor 2.
//!
//! Unsafe because the place is the linker script's. All of it is plain numbers, so that any content is a valid `Record`, and zero is that of a
//! domain which has just been built. But some of the numbers become pointers in the next life. So a life that ends seals them, and the next
//! one begins only where the seal is right ([`Record::birth`]): then they are what a life of this domain wrote.

use crate::checksum::checksum_words;
use crate::layout::{self, ROOM_PAGES};
use core::cell::Cell;
use core::fmt;
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{Ordering, compiler_fence};
use split_driver::control::WORDS_MAX;
use split_driver::xs_wire::{Framing, MESSAGE_MAX};
use xen_pv_sys::PAGE_SIZE;

/// Changes with the layout of [`Record`], of the bitmaps of frames, and of `watchdog::Watch`: an image of another layout cannot take the place of this
/// one.
pub(crate) const LAYOUT: u32 = 9;
/// Set once the record holds something.
const MAGIC: u64 = 0x6f78_6964_6f6d_0000 | LAYOUT as u64;
/// Room for what the old life's log had not yet passed on, and its report.
const TEXT: usize = 20 * 1024;
/// Bytes of a command line that stands in place of the domain's own.
pub(crate) const WORDS: usize = WORDS_MAX;
/// Pages of the ledger of grants that are mapped for devices: Xen gives a domain 1,024 frames of 256 handles (`max_maptrack_frames`).
const DEVICE_LEDGER_PAGES: usize = 1024 * 256 / 512;
/// Ports of the two-level ABI, as words of bits.
const PORT_WORDS: usize = 64;

/// What Xen handed over, for each life anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    /// Address of `start_info`.
    pub(crate) start_info: usize,
    /// The end of Xen's boot stack.
    pub(crate) boot_stack: usize,
    /// Of the domain's first instruction.
    pub(crate) first_time_stamp: u64,
}

/// The recovery box: pages that hold what the image wrote. The default is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BoxHeader {
    address: u64,
    /// How many pages.
    pages: u64,
    /// Bytes of content.
    length: u64,
    checksum: u64,
    /// Of the four above: without it none of them means anything.
    seal: u64,
}

impl BoxHeader {
    /// Of `length` bytes in `pages` pages from `address` on, which have this checksum.
    pub(crate) fn new(address: usize, pages: usize, length: usize, checksum: u64) -> Self {
        let header = Self { address: address as u64, pages: pages as u64, length: length as u64, checksum, seal: 0 };
        Self { seal: header.sum(), ..header }
    }

    fn sum(&self) -> u64 {
        checksum_words(MAGIC, [self.address, self.pages, self.length, self.checksum])
    }

    /// The addresses of its pages; `None` where it is none that [`BoxHeader::new`] made, or its pages do not lie within `memory`.
    pub(crate) fn place(&self, memory: &Range<usize>) -> Option<Range<usize>> {
        let start = usize::try_from(self.address).ok()?;
        let size = usize::try_from(self.pages).ok()?.checked_mul(PAGE_SIZE)?;
        let end = start.checked_add(size)?;
        let is_sound = self.seal == self.sum() && self.length <= size as u64 && start.is_multiple_of(PAGE_SIZE);
        (is_sound && size > 0 && memory.start <= start && end <= memory.end).then_some(start..end)
    }

    /// Bytes of content.
    pub(crate) const fn length(&self) -> usize {
        self.length as usize
    }

    /// The content's checksum.
    pub(crate) const fn checksum(&self) -> u64 {
        self.checksum
    }
}

/// How both streams of the connection to the store stand, so that the next life goes on where this one ends.
#[repr(C)]
pub(crate) struct StoreStreams {
    /// Not 0 where the connection is in use.
    pub(crate) connected: Cell<u32>,
    /// Which of `read` counts: a life may end while the other one is written.
    current: Cell<u32>,
    read: [Cell<Read>; 2],
    /// The number (`req_id` of `struct xsd_sockmsg`) of the last request.
    number: Cell<u32>,
    /// Where in the stream the request begins that is being written.
    begin: Cell<u32>,
    /// Its bytes; 0 while it is put down here.
    length: Cell<u32>,
    /// Padding.
    padding: Cell<u32>,
    /// The request itself.
    request: [Cell<u8>; MESSAGE_MAX],
}

/// How far the answers are read, and the one that is being read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) position: u32,
    pub(crate) answer: Framing,
}

impl StoreStreams {
    /// How far the answers are read.
    pub(crate) fn read(&self) -> Read {
        let [first, second] = &self.read;
        if self.current.get() == 0 { first.get() } else { second.get() }
    }

    /// They are read so far.
    pub(crate) fn set_read(&self, read: Read) {
        let [first, second] = &self.read;
        let next = u32::from(self.current.get() == 0);
        if next == 0 {
            first.set(read)
        } else {
            second.set(read)
        }
        compiler_fence(Ordering::SeqCst);
        self.current.set(next);
    }

    /// The number of the last request that may have been written.
    pub(crate) fn number(&self) -> u32 {
        self.number.get()
    }

    /// Puts a request down that is to be written at `position` of the stream.
    pub(crate) fn stage(&self, position: u32, request: &[u8]) {
        self.length.set(0);
        compiler_fence(Ordering::SeqCst);
        if let Some((_, [a, b, c, d, ..])) = request.split_at_checked(4) {
            self.number.set(u32::from_le_bytes([*a, *b, *c, *d]));
        }
        self.request.iter().zip(request).for_each(|(slot, byte)| slot.set(*byte));
        self.begin.set(position);
        compiler_fence(Ordering::SeqCst);
        self.length.set(request.len() as u32);
    }

    /// The rest of the request, from `position` of the stream on.
    pub(crate) fn rest(&self, position: u32) -> &[Cell<u8>] {
        let sent = position.wrapping_sub(self.begin.get());
        self.request.get(sent as usize..self.length.get() as usize).unwrap_or_default()
    }
}

/// The record is not what the last life left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The record.
#[repr(C)]
pub(crate) struct Record {
    magic: Cell<u64>,
    start_info: Cell<u64>,
    boot_stack: Cell<u64>,
    first_time_stamp: Cell<u64>,
    /// Lives before this one.
    pub(crate) lives: Cell<u64>,
    /// When the last life ended, in nanoseconds since the first instruction.
    pub(crate) ended: Cell<u64>,
    /// How long the vCPU had run by then, in nanoseconds.
    pub(crate) ran: Cell<u64>,
    /// Why: a number of `Cause`.
    pub(crate) cause: Cell<u32>,
    /// Restarts in a row.
    pub(crate) row: Cell<u32>,
    /// How many there may be.
    pub(crate) row_limit: Cell<u32>,
    /// Pages that the last exchange of images changed; 0 where there was none.
    pub(crate) exchanged: Cell<u32>,
    /// How long a life lasts at least, in nanoseconds, after which the next restart begins a new row.
    pub(crate) settled_after: Cell<u64>,
    /// The current box.
    pub(crate) content: Cell<BoxHeader>,
    /// Address of the bitmaps of frames.
    pub(crate) bitmaps: Cell<u64>,
    /// Address of the mapped grant table; 0 for none.
    pub(crate) grant_table: Cell<u64>,
    /// Its frames, and how many there may be.
    pub(crate) grant_frames: Cell<u32>,
    /// See `grant_frames`.
    pub(crate) grant_frames_max: Cell<u32>,
    /// How far the console's ring was written, and read.
    pub(crate) console_written: Cell<u32>,
    /// See `console_written`.
    pub(crate) console_read: Cell<u32>,
    /// Ports that are bound, a bit each.
    pub(crate) ports: [Cell<u64>; PORT_WORDS],
    /// The frames (plus one) of the ledger of grant mappings; 0 for none.
    pub(crate) ledger: [Cell<u32>; layout::AREA_PAGES / 1024],
    /// The frames (plus one) of the ledger of grants that are mapped for devices; 0 for none.
    pub(crate) device_ledger: [Cell<u32>; DEVICE_LEDGER_PAGES],
    /// The frame (plus one) of the batch of grants that is being mapped for a device; 0 for none.
    pub(crate) device_batch: Cell<u32>,
    /// How many grants that batch has; 0 where none is being mapped.
    pub(crate) device_batch_length: Cell<u32>,
    /// For each page of the room, where the old image's page is kept until the new one has taken over; 0 where it is the same page.
    pub(crate) replaced: [Cell<u32>; ROOM_PAGES],
    /// The plan of the exchange with the old image, and the code that makes it.
    pub(crate) swap_plan: Cell<u64>,
    /// See `swap_plan`.
    pub(crate) swap_code: Cell<u64>,
    /// Where the old image is entered.
    pub(crate) old_entry: Cell<u64>,
    /// Which of `words` are this image's.
    pub(crate) words_of_own: Cell<u32>,
    /// Which are the old image's.
    pub(crate) words_of_old: Cell<u32>,
    /// Bytes (plus one) of each of `words`; 0 where the domain's own command line stands.
    words_length: [Cell<u32>; 2],
    /// The running image's command line, and that of the one before it or after it.
    words: [[Cell<u8>; WORDS]; 2],
    /// The frame (plus one) in which Xen keeps which interrupts have to be ended, for as long as the domain lives; 0 for none.
    pub(crate) interrupt_ends: Cell<u64>,
    /// The frame (plus one) of the watchdog's code, before that of its data, for as long as the domain lives; 0 for none.
    pub(crate) watchdog: Cell<u64>,
    /// How the connection to the store stands.
    pub(crate) store: StoreStreams,
    /// Of all above, when a life ends.
    seal: Cell<u64>,
    text_length: Cell<u32>,
    report_start: Cell<u32>,
    text: [Cell<u8>; TEXT],
}

/// Words that are sealed.
const SEALED: usize = offset_of!(Record, seal) / 8;

const _: () = {
    assert!(size_of::<Record>() <= layout::KEEP_SIZE);
    // 15 words, fourteen halves, the box, two command lines, four arrays and the store's streams: nothing else is before the seal, so no padding.
    let arrays = PORT_WORDS * 8 + (layout::AREA_PAGES / 1024 + DEVICE_LEDGER_PAGES + ROOM_PAGES) * 4;
    let store = 6 * 4 + 2 * size_of::<Read>() + MESSAGE_MAX;
    assert!(size_of::<StoreStreams>() == store);
    assert!(offset_of!(Record, seal) == 15 * 8 + 14 * 4 + size_of::<BoxHeader>() + 2 * WORDS + arrays + store);
};

/// The record of this domain.
pub(crate) fn record() -> &'static Record {
    // SAFETY: memory of the image's own, of KEEP_SIZE bytes, page-aligned, mapped writable in every life and named by nothing else; any
    // content is valid; one thread (local.rs).
    unsafe { &*(layout::keep() as *const Record) }
}

impl Record {
    /// Whether this is not the domain's first life.
    pub(crate) fn is_again(&self) -> bool {
        self.lives.get() > 0
    }

    /// Keeps what Xen handed over to the first life; gives it to each.
    ///
    /// # Errors
    /// [`Damaged`] where something wrote to the record after the last life had sealed it, or no life did: nothing in it can be relied on.
    pub(crate) fn birth(&self, first: Birth) -> Result<Birth, Damaged> {
        match self.magic.get() {
            0 => {
                self.magic.set(MAGIC);
                self.start_info.set(first.start_info as u64);
                self.boot_stack.set(first.boot_stack as u64);
                self.first_time_stamp.set(first.first_time_stamp);
                Ok(first)
            }
            MAGIC if self.seal.get() == self.sum() => Ok(Birth {
                start_info: self.start_info.get() as usize,
                boot_stack: self.boot_stack.get() as usize,
                first_time_stamp: self.first_time_stamp.get(),
            }),
            _ => Err(Damaged),
        }
    }

    /// The last act of a life: what the record says now is what the next one begins from.
    pub(crate) fn seal(&self) {
        self.seal.set(self.sum());
    }

    fn sum(&self) -> u64 {
        let words = core::ptr::from_ref(self).cast::<u64>();
        // SAFETY: the words of `self` before `seal`. They are integers in cells, without padding (asserted below), and nothing writes them
        // meanwhile.
        checksum_words(LAYOUT.into(), (0..SEALED).map(|index| unsafe { words.add(index).read() }))
    }

    /// The command line that stands in place of the domain's own.
    pub(crate) fn words(&'static self) -> Option<&'static str> {
        let own = self.words_of_own.get() as usize;
        let length = self.words_length.get(own)?.get().checked_sub(1)?;
        let words = self.words.get(own)?.get(..length as usize)?;
        // SAFETY: bytes in cells, which nothing writes while they are the running image's: `set_next_words` writes the others.
        let bytes = unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len()) };
        str::from_utf8(bytes).ok()
    }

    /// Keeps the next image's command line beside this one's; none for the same one, or the domain's own where it has that. Gives which of
    /// `words` it has. `None` where there are more than [`WORDS`] bytes.
    pub(crate) fn set_next_words(&self, words: Option<&str>) -> Option<u32> {
        let own = self.words_of_own.get();
        let Some(words) = words else {
            return Some(own);
        };
        let next = own ^ 1;
        let place = self.words.get(next as usize)?.get(..words.len())?;
        place.iter().zip(words.bytes()).for_each(|(slot, byte)| slot.set(byte));
        self.words_length.get(next as usize)?.set(words.len() as u32 + 1);
        Some(next)
    }

    /// Forgets the text of an earlier end.
    pub(crate) fn clear_text(&self) {
        self.text_length.set(0);
        self.report_start.set(0);
    }

    /// Adds bytes; what does not fit is cut off.
    pub(crate) fn add_text(&self, bytes: &[u8]) {
        let start = self.text_length.get();
        let room = self.text.get(start as usize..).unwrap_or_default();
        room.iter().zip(bytes).for_each(|(slot, byte)| slot.set(*byte));
        self.text_length.set(start + room.len().min(bytes.len()) as u32);
    }

    /// From here on the text is the report.
    pub(crate) fn begin_report(&self) {
        // Whatever the log left, the report's first lines find room.
        let start = self.text_length.get().min(TEXT as u32 - 4096);
        self.text_length.set(start);
        self.report_start.set(start);
    }

    /// What the log had not passed on.
    pub(crate) fn log_rest(&self) -> impl Iterator<Item = u8> {
        self.text.iter().take(self.report_start.get() as usize).map(Cell::get)
    }

    /// The report.
    pub(crate) fn report(&self) -> impl Iterator<Item = u8> {
        let (start, end) = (self.report_start.get() as usize, self.text_length.get() as usize);
        self.text.iter().take(end).skip(start).map(Cell::get)
    }
}

/// Writes to the record's text.
pub(crate) struct Text;

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        record().add_text(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{Birth, BoxHeader, Damaged, Record, SEALED, WORDS};
    use xen_pv_sys::PAGE_SIZE;

    fn ended() -> Record {
        // SAFETY: integers in cells; zero is the record of a domain that has just been built.
        let keep: Record = unsafe { core::mem::zeroed() };
        let first = Birth { start_info: 0x40_1000, boot_stack: 0x50_0000, first_time_stamp: 7 };
        assert_eq!(keep.birth(first).map(|birth| birth.start_info), Ok(first.start_info));
        keep.bitmaps.set(0x60_0000);
        keep.lives.set(1);
        keep.add_text(b"why");
        keep.seal();
        keep
    }

    fn again(keep: &Record) -> Result<usize, Damaged> {
        // A restart hands over anything.
        keep.birth(Birth { start_info: 1, boot_stack: 2, first_time_stamp: 3 }).map(|birth| birth.start_info)
    }

    #[test]
    fn a_record_that_was_written_over_begins_no_life() {
        let keep = ended();
        assert_eq!(again(&keep), Ok(0x40_1000));
        for word in 0..SEALED {
            for bit in [0, 31, 63] {
                let place = core::ptr::from_ref(&keep).cast::<u64>().cast_mut().wrapping_add(word);
                // SAFETY: a word of integers in cells.
                unsafe { place.write(place.read() ^ (1 << bit)) };
                assert_eq!(again(&keep), Err(Damaged), "word {word}, bit {bit}");
                // SAFETY: as above.
                unsafe { place.write(place.read() ^ (1 << bit)) };
            }
        }
        assert_eq!(again(&keep), Ok(0x40_1000));
    }

    #[test]
    fn a_record_that_no_life_sealed_begins_none() {
        let keep = ended();
        keep.grant_table.set(0x80_0000_0000);
        assert_eq!(again(&keep), Err(Damaged));
        keep.seal();
        assert_eq!(again(&keep), Ok(0x40_1000));
    }

    #[test]
    fn words_are_kept_beside_those_of_the_image_before() {
        let keep: &'static Record = std::boxed::Box::leak(std::boxed::Box::new(ended()));
        assert_eq!((keep.words(), keep.set_next_words(None)), (None, Some(0)));
        let first = keep.set_next_words(Some("log=debug"));
        // Not entered yet.
        assert_eq!((keep.words(), first), (None, Some(1)));
        keep.words_of_own.set(1);
        assert_eq!((keep.words(), keep.set_next_words(None)), (Some("log=debug"), Some(1)));
        assert_eq!(keep.set_next_words(Some("")), Some(0));
        assert_eq!(keep.words(), Some("log=debug"));
        keep.words_of_own.set(0);
        assert_eq!(keep.words(), Some(""));
        let long = "x".repeat(WORDS + 1);
        assert_eq!((keep.set_next_words(Some(&long[1..])), keep.set_next_words(Some(&long))), (Some(1), None));
        keep.words_of_own.set(7);
        assert_eq!(keep.words(), None);
    }

    #[test]
    fn a_box_whose_header_is_not_sound_has_no_place() {
        let memory = 0x60_0000..0x140_0000;
        let sound = BoxHeader::new(0x70_0000, 4, 3 * PAGE_SIZE + 1, 99);
        assert_eq!(sound.place(&memory), Some(0x70_0000..0x70_4000));
        assert_eq!(BoxHeader::default().place(&memory), None);
        for bit in 0..64 {
            let bit = 1_u64 << bit;
            for damaged in [
                BoxHeader { address: sound.address ^ bit, ..sound },
                BoxHeader { pages: sound.pages ^ bit, ..sound },
                BoxHeader { length: sound.length ^ bit, ..sound },
                BoxHeader { checksum: sound.checksum ^ bit, ..sound },
                BoxHeader { seal: sound.seal ^ bit, ..sound },
            ] {
                assert_eq!(damaged.place(&memory), None, "{damaged:x?}");
            }
        }
    }

    #[test]
    fn a_box_outside_of_memory_has_no_place() {
        let memory = 0x60_0000..0x70_0000;
        for (address, pages, length) in [
            (0x5f_f000, 2, 1),
            (0x6f_f000, 2, 1),
            (0x60_0001, 1, 1),
            (0x60_0000, 0, 0),
            (0x60_0000, 1, PAGE_SIZE + 1),
            (0x60_0000, usize::MAX / 2, 1),
            (usize::MAX & !0xfff, 1, 1),
        ] {
            assert_eq!(BoxHeader::new(address, pages, length, 0).place(&memory), None, "{address:#x}, {pages} pages");
        }
    }
}

//! What one life of the domain leaves to the next: a record at a fixed place that no restart clears. Floor 2.
//!
//! Unsafe because the place is the linker script's. All of it is plain numbers: any content is a valid one, and zero is that of a domain
//! which has just been built.

use crate::memory::layout;
use core::cell::Cell;
use core::fmt;

/// Changes with the layout of [`Keep`]: an image of another layout cannot take the place of this one.
pub(crate) const LAYOUT: u32 = 3;
/// Set once the record holds something.
const MAGIC: u64 = 0x6f78_6964_6f6d_0000 | LAYOUT as u64;
/// Room for what the old life's log had not yet passed on, and its report.
const TEXT: usize = 20 * 1024;
/// Pages of the room that an image has at the most; those of a larger room are not replaced.
pub(crate) const ROOM_PAGES: usize = 512;
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

/// The recovery box: pages that hold what the image wrote.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BoxHeader {
    /// First page; 0 for none.
    pub(crate) address: u64,
    /// How many.
    pub(crate) pages: u64,
    /// Bytes of content.
    pub(crate) length: u64,
    /// Of the content and of the three above.
    pub(crate) checksum: u64,
}

/// The record.
#[repr(C)]
pub(crate) struct Keep {
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
    /// Ports that are bound, a bit each.
    pub(crate) ports: [Cell<u64>; PORT_WORDS],
    /// The frames (plus one) of the ledger of grant mappings; 0 for none.
    pub(crate) ledger: [Cell<u32>; layout::AREA_PAGES / 1024],
    /// For each page of the room, where the old image's page is kept until the new one has taken over; 0 where it is the same page.
    pub(crate) replaced: [Cell<u32>; ROOM_PAGES],
    /// The plan of the exchange with the old image, and the code that makes it.
    pub(crate) swap_plan: Cell<u64>,
    /// See `swap_plan`.
    pub(crate) swap_code: Cell<u64>,
    /// Where the old image is entered.
    pub(crate) old_entry: Cell<u64>,
    text_length: Cell<u32>,
    report_start: Cell<u32>,
    text: [Cell<u8>; TEXT],
}

const _: () = assert!(size_of::<Keep>() <= layout::KEEP_SIZE);

/// The record of this domain.
pub(crate) fn keep() -> &'static Keep {
    // SAFETY: memory of the image's own, of KEEP_SIZE bytes, page-aligned, mapped writable in every life and named by nothing else; any
    // content is valid; one thread (local.rs).
    unsafe { &*(layout::keep() as *const Keep) }
}

impl Keep {
    /// Whether this is not the domain's first life.
    pub(crate) fn is_again(&self) -> bool {
        self.lives.get() > 0
    }

    /// Keeps what Xen handed over to the first life; gives it to each.
    pub(crate) fn birth(&self, first: Birth) -> Birth {
        if self.magic.replace(MAGIC) == MAGIC {
            return Birth {
                start_info: self.start_info.get() as usize,
                boot_stack: self.boot_stack.get() as usize,
                first_time_stamp: self.first_time_stamp.get(),
            };
        }
        self.start_info.set(first.start_info as u64);
        self.boot_stack.set(first.boot_stack as u64);
        self.first_time_stamp.set(first.first_time_stamp);
        first
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
        keep().add_text(text.as_bytes());
        Ok(())
    }
}

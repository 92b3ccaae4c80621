//! Which machine frame each of our frames is, and which of them peers and devices may reach. Floor 2.
//!
//! Unsafe because the list is memory that the domain builder filled, found by its address in `start_info`.

use crate::layout;
use crate::local::Local;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use xen_pv_sys::{Mfn, Pfn};

static LIST: Local<Cell<&'static [AtomicU64]>> = Local::new(Cell::new(&[]));
/// A bit for each frame of a `Page`, of `Pages`, or of DMA memory.
static SHARED: Bitmap = Bitmap::new();
/// A bit for each frame that a device may write for as long as nobody stops the device, also in the next life: such a frame of an earlier
/// life is withheld as well.
static DEVICE: Bitmap = Bitmap::new();
/// A bit for each frame that an earlier life had and this one must not use yet.
static WITHHELD: Bitmap = Bitmap::new();
/// A bit for each frame of a `KeptPage`: the next life finds it as this one leaves it.
static KEPT: Bitmap = Bitmap::new();
/// A bit for each frame that an earlier life kept and this one has not taken over.
static INHERITED: Bitmap = Bitmap::new();
/// A bit for each withheld frame that a device may write which was never seen to stop: no life uses it again.
static LOST: Bitmap = Bitmap::new();
/// How many bitmaps there are: these, and one for the frames that are free.
pub(super) const BITMAPS: usize = 7;

/// A bit for each frame.
struct Bitmap(Local<Cell<&'static [AtomicU64]>>);

impl Bitmap {
    const fn new() -> Self {
        Self(Local::new(Cell::new(&[])))
    }
    fn words(&self) -> &'static [AtomicU64] {
        self.0.get()
    }
    fn get(&self, frame: Pfn) -> bool {
        let word = self.words().get((frame.0 / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (frame.0 % 64)) != 0)
    }
    fn set(&self, frame: Pfn, value: bool) {
        if let Some(word) = self.words().get((frame.0 / 64) as usize) {
            let bit = 1 << (frame.0 % 64);
            let before = word.load(Ordering::Relaxed);
            word.store(if value { before | bit } else { before & !bit }, Ordering::Relaxed);
        }
    }
    fn clear(&self) {
        for word in self.words() {
            word.store(0, Ordering::Relaxed);
        }
    }
    fn frames(&self) -> impl Iterator<Item = Pfn> + use<> {
        self.words().iter().zip(0_u64..).flat_map(|(word, index)| {
            let bits = word.load(Ordering::Relaxed);
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| Pfn(index * 64 + bit))
        })
    }
}

/// Takes over the list that the domain builder made.
///
/// # Safety
/// `count` entries are at `address`, mapped writable, for good, and used through here only.
pub(super) unsafe fn set_list(address: usize, count: usize) {
    // SAFETY: by the caller; u64 and AtomicU64 are laid out alike.
    LIST.set(unsafe { core::slice::from_raw_parts(address as *const AtomicU64, count) });
}

/// Takes the bitmaps; gives the one for the frames that are free.
///
/// # Safety
/// [`BITMAPS`] times `words` words are at `address`, mapped writable, for good, and used through here only.
pub(super) unsafe fn set_bitmaps(address: usize, words: usize) -> &'static [AtomicU64] {
    // SAFETY: by the caller; the parts do not overlap.
    let part = |index| unsafe { core::slice::from_raw_parts((address as *const AtomicU64).add(index * words), words) };
    for (index, bitmap) in [&SHARED, &DEVICE, &WITHHELD, &KEPT, &INHERITED, &LOST].into_iter().enumerate() {
        bitmap.0.set(part(index));
    }
    part(BITMAPS - 1)
}

/// In a new life: what devices could write is withheld, what is kept is an earlier life's, and nothing is shared.
pub(super) fn begin_life() {
    for (inherited, kept) in INHERITED.words().iter().zip(KEPT.words()) {
        inherited.store(kept.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    for (withheld, device) in WITHHELD.words().iter().zip(DEVICE.words()) {
        withheld.fetch_or(device.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    SHARED.clear();
}

/// Withholds a frame from the next life.
pub(super) fn withhold(frame: Pfn) {
    WITHHELD.set(frame, true);
}

/// Withholds a frame no longer.
pub(super) fn do_not_withhold(frame: Pfn) {
    WITHHELD.set(frame, false);
    DEVICE.set(frame, false);
}

/// What earlier lives' devices could write is lost: one of them was not seen to stop. Gives how many frames that are.
pub(super) fn lose_device_frames() -> usize {
    let words = LOST.words().iter().zip(WITHHELD.words()).zip(DEVICE.words());
    words
        .map(|((lost, withheld), device)| {
            let reached = withheld.load(Ordering::Relaxed) & device.load(Ordering::Relaxed);
            let before = lost.fetch_or(reached, Ordering::Relaxed);
            (reached & !before).count_ones() as usize
        })
        .sum()
}

/// Whether a frame is lost.
pub(super) fn is_lost(frame: Pfn) -> bool {
    LOST.get(frame)
}

/// Whether a device may write a frame.
pub(super) fn is_device_frame(frame: Pfn) -> bool {
    DEVICE.get(frame)
}

/// Whether a frame is withheld.
pub(super) fn is_withheld(frame: Pfn) -> bool {
    WITHHELD.get(frame)
}

/// The frames that are withheld.
pub(super) fn withheld() -> impl Iterator<Item = Pfn> {
    WITHHELD.frames()
}

/// Keeps a frame for the next life, or no longer. An earlier life's is this one's from then on.
pub(super) fn set_kept(frame: Pfn, kept: bool) {
    KEPT.set(frame, kept);
    INHERITED.set(frame, false);
}

/// The frames that an earlier life kept, and that nobody has taken over.
pub(super) fn inherited() -> impl Iterator<Item = Pfn> {
    INHERITED.frames()
}

/// Pages that the domain was given, as far as they are used.
pub(crate) fn len() -> usize {
    LIST.get().len()
}

/// The machine frame of a frame of ours; the invalid frame beyond the end.
pub(crate) fn physical_to_machine(frame: Pfn) -> Mfn {
    let entry = usize::try_from(frame.0).ok().and_then(|index| LIST.get().get(index));
    Mfn(entry.map_or(u64::MAX, |entry| entry.load(Ordering::Relaxed)))
}

/// Changes the machine frame of a frame of ours, after `XENMEM_exchange`.
pub(crate) fn set_machine(frame: Pfn, machine: Mfn) {
    if let Some(entry) = LIST.get().get(frame.0 as usize) {
        entry.store(machine.0, Ordering::Relaxed);
    }
}

/// Marks a frame as one that peers and devices may reach, or not any more.
pub(crate) fn set_shared_frame(frame: Pfn, shared: bool) {
    SHARED.set(frame, shared);
}

/// [`set_shared_frame`] of a frame that a device may write on its own.
pub(crate) fn set_device_frame(frame: Pfn, shared: bool) {
    SHARED.set(frame, shared);
    DEVICE.set(frame, shared);
}

/// Marks what is withheld or kept as shared, for the beginning of a life.
pub(super) fn share_withheld() {
    for bitmap in [&WITHHELD, &KEPT] {
        for (shared, taken) in SHARED.words().iter().zip(bitmap.words()) {
            shared.fetch_or(taken.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Whether the frame begins a word of the bitmap in which no frame is shared.
pub(super) fn none_shared_from(frame: Pfn) -> bool {
    frame.0.is_multiple_of(64)
        && SHARED.words().get((frame.0 / 64) as usize).is_some_and(|word| word.load(Ordering::Relaxed) == 0)
}

/// Whether a frame of ours is marked as shared.
pub(super) fn is_shared_frame(frame: Pfn) -> bool {
    SHARED.get(frame)
}

/// Whether a machine frame is one of ours that peers and devices may reach.
pub(crate) fn is_shared(machine: Mfn) -> bool {
    let Some(frame) = layout::machine_to_physical_checked(machine) else {
        return false;
    };
    physical_to_machine(frame) == machine && SHARED.get(frame)
}

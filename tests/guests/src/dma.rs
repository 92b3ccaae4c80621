//! DMA memory: contiguous, within a device's reach, and none of it lost.

use crate::{Result, check, value};
use core::sync::atomic::Ordering;
use runtime::dma::DmaFrames;
use runtime::memory::usage;
use split_driver::memory::{BusMaster, DmaAllocator, DmaMemory, OutOfMemory, Reach, SharedMemory};

pub(crate) fn dma() -> Result {
    plain()?;
    exchanged()?;
    refused()?;
    lost()
}

/// Memory as it comes: zeroed, page-aligned, all of it ours to write, given back.
fn plain() -> Result {
    let before = usage();
    let small = value!(DmaFrames::new(Reach::default()).allocate(1));
    let large = value!(DmaFrames::new(Reach::default()).allocate(5 * 4096 + 1));
    check!(small.words().len() == 1024 && large.words().len() == 6 * 1024);
    check!(large.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
    for word in large.words() {
        word.store(u32::MAX, Ordering::Relaxed);
    }
    // No device was told of them, so that they go back.
    drop((small, large));
    check!(usage() == before);
    let again = value!(DmaFrames::new(Reach::default()).allocate(6 * 4096));
    check!(again.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
    Ok(())
}

/// Memory that only an exchange with Xen gives: our frames lie high, and it is asked for ever lower. The frames that come in their
/// place work like any other, before and after they are given back.
fn exchanged() -> Result {
    // What holds the old address is freed at the end only, so that the next buffer cannot be the same one.
    let all = DmaFrames::new(Reach::default());
    let first = value!(all.allocate(16 * 4096));
    let high = first.device_address(0).get();
    let mut held = 0;
    for bits in [40_u8, 32, 31, 30, 29, 28] {
        if high >> bits == 0 {
            continue;
        }
        for pages in [1, 3, 16] {
            let before = usage();
            let dma = DmaFrames::within(bits, Reach::default());
            let Ok(low) = dma.allocate(pages * 4096) else {
                log::info!("none of {pages} pages within {bits} bits");
                continue;
            };
            held += 1;
            let address = low.device_address(0).get();
            log::info!("{pages} pages within {bits} bits: {address:#x}");
            check!(address.is_multiple_of(4096) && (address + pages as u64 * 4096 - 1) >> bits == 0);
            for (index, word) in low.words().iter().enumerate() {
                check!(word.load(Ordering::Relaxed) == 0);
                word.store(index as u32, Ordering::Relaxed);
            }
            for (index, word) in low.words().iter().enumerate() {
                check!(word.load(Ordering::Relaxed) == index as u32);
            }
            // The device is told of it by then: it goes back with a proof alone.
            check!(!dma.release(&value!(Ended(Reach::default()).quiesced().ok_or(OutOfMemory))));
            check!(dma.release(&value!(Ended(dma.reach().clone()).quiesced().ok_or(OutOfMemory))));
            drop((low, dma));
            check!(usage() == before);
        }
    }
    check!(held > 0);
    check!(all.release(&value!(Ended(all.reach().clone()).quiesced().ok_or(OutOfMemory))));
    Ok(())
}

/// Memory of a device that does not say that it has stopped is lost.
fn lost() -> Result {
    let before = usage().free_frames;
    let memory = value!(DmaFrames::new(Reach::default()).allocate(3 * 4096));
    let _told = memory.device_address(0);
    drop(memory);
    check!(before - usage().free_frames == 3);
    Ok(())
}

/// The device that there is not, whose bus mastering is off.
struct Ended(Reach);

impl BusMaster for Ended {
    fn reach(&self) -> Reach {
        self.0.clone()
    }

    fn has_ended(&self) -> bool {
        true
    }
}

/// What Xen cannot give is refused, and costs nothing.
fn refused() -> Result {
    let before = usage();
    for (bits, pages) in [(13_u8, 16_usize), (0, 1 << 24)] {
        check!(matches!(DmaFrames::within(bits, Reach::default()).allocate(pages * 4096), Err(OutOfMemory)));
    }
    check!(usage() == before);
    Ok(())
}

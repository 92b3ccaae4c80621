//! Sectors that are not the disk's, segments that are not in their page, and operations that nobody knows.

use super::frontend::{Frontend, PAGE_SECTORS, is_filled, segment, span, transfer, whole};
use crate::error::{Error, Result};
use alloc::format;
use alloc::vec::Vec;
use xen_pv_sys::PAGE_SIZE;
use xen_pv_sys::io::blkif::{
    BLKIF_DISCARD_SECURE, BLKIF_OP_DISCARD, BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_READ, BLKIF_OP_WRITE,
    BLKIF_OP_WRITE_BARRIER, BLKIF_RSP_OKAY, RequestDiscard,
};
use zerocopy::{FromZeros, IntoBytes};

const TRANSFERS: [u8; 3] = [BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER];
/// Sectors of the longest request without indirect pages.
const LONGEST: u64 = 88;
/// Where arithmetic in narrower numbers, or in bytes, comes round to a small number.
const ROUNDS: [u32; 6] = [31, 32, 41, 54, 55, 63];

pub(crate) async fn attack(frontend: &mut Frontend, name: &str) -> Result<bool> {
    match name {
        "sectors" => sectors(frontend).await?,
        "borders" => borders(frontend).await?,
        "segment-bounds" => segment_bounds(frontend).await?,
        "segment-counts" => segment_counts(frontend).await?,
        "operations" => operations(frontend).await?,
        "discards" => discards(frontend).await?,
        "writes" => writes(frontend).await?,
        _ => return Ok(false),
    }
    frontend.works().await?;
    Ok(true)
}

/// Sectors far beyond the end, and where a sum or a product does not fit its number.
async fn sectors(frontend: &mut Frontend) -> Result<()> {
    let (page, reference) = frontend.lend_filled(0xee)?;
    let mut starts = [frontend.sectors, frontend.sectors + 1, u64::MAX, u64::MAX - 7, u64::MAX - 87].to_vec();
    for round in ROUNDS {
        starts.extend([(1 << round) - PAGE_SECTORS, 1 << round, (1 << round) + PAGE_SECTORS]);
    }
    starts.retain(|start| *start >= frontend.sectors);
    for start in starts {
        for operation in TRANSFERS {
            for sectors in [PAGE_SECTORS, LONGEST] {
                let request = transfer(operation, start, &span(reference, sectors));
                frontend.refused(&format!("{operation}: {sectors} at {start}"), request.as_bytes()).await?;
            }
        }
    }
    if is_filled(&page, 0xee) { Ok(()) } else { Err(Error::Wrong("what was refused was read")) }
}

/// Each way a request can lie across the disk's end, or from before its start: what is wholly inside is done, all else is not.
async fn borders(frontend: &mut Frontend) -> Result<()> {
    let (page, reference) = frontend.lend_filled(0x5a)?;
    let (end, block) = (frontend.sectors, frontend.block);
    for operation in [BLKIF_OP_WRITE, BLKIF_OP_READ] {
        // What is read is what was written, whatever the page held before.
        let fill = if operation == BLKIF_OP_READ && frontend.writable { 0 } else { 0x5a };
        for blocks in [1, 2, 7, 8, 9, 10, 11] {
            let sectors = blocks * block;
            let segments = span(reference, sectors);
            for before in 0..=12 {
                let before = before * block;
                let inside = before >= sectors && (frontend.writable || operation == BLKIF_OP_READ);
                let place = format!("{operation}: {sectors} at {before} before the end");
                let request = transfer(operation, end - before, &segments);
                if inside {
                    page.write(0, &[fill; PAGE_SIZE]);
                    match frontend.ask(request.as_bytes()).await? {
                        BLKIF_RSP_OKAY => {}
                        status => {
                            log::error!("{place}");
                            return Err(Error::Answer(status));
                        }
                    }
                    if sectors >= PAGE_SECTORS && !is_filled(&page, 0x5a) && frontend.writable {
                        return Err(Error::Wrong("what was read is not what was written"));
                    }
                } else {
                    frontend.refused(&place, request.as_bytes()).await?;
                }
                if before > 0 {
                    // From before the first sector, over it if the sum is not looked at.
                    let request = transfer(operation, before.wrapping_neg(), &segments);
                    frontend.refused(&format!("{operation}: {sectors} at -{before}"), request.as_bytes()).await?;
                }
            }
        }
    }
    Ok(())
}

/// Segments that end before they begin, or beyond their page, alone and behind good ones.
async fn segment_bounds(frontend: &mut Frontend) -> Result<()> {
    let (_page, reference) = frontend.lend_filled(0)?;
    for (first, last) in [(1, 0), (7, 6), (7, 0), (0, 8), (8, 8), (8, 15), (0, 255), (255, 0), (255, 255), (200, 7)] {
        for good in [0, 1, 10] {
            let mut segments: Vec<_> = (0..good).map(|_| whole(reference)).collect();
            segments.push(segment(reference, first, last));
            for operation in TRANSFERS {
                let request = transfer(operation, 0, &segments);
                let what = format!("{operation}: {good} segments and {first} to {last}");
                frontend.refused(&what, request.as_bytes()).await?;
            }
        }
    }
    Ok(())
}

async fn segment_counts(frontend: &mut Frontend) -> Result<()> {
    let (_page, reference) = frontend.lend_filled(0)?;
    let segments = [whole(reference); 11];
    for operation in [BLKIF_OP_READ, BLKIF_OP_WRITE] {
        for count in [0, 12, 13, 128, 255] {
            let mut request = transfer(operation, 0, &segments);
            request.nr_segments = count;
            frontend.refused(&format!("{operation}: {count} segments"), request.as_bytes()).await?;
        }
    }
    let mut barrier = transfer(BLKIF_OP_WRITE_BARRIER, 0, &segments);
    barrier.nr_segments = 12;
    frontend.refused("a barrier of 12 segments", barrier.as_bytes()).await
}

async fn operations(frontend: &mut Frontend) -> Result<()> {
    let (_page, reference) = frontend.lend_filled(0)?;
    for operation in [4, 7, 8, 99, 127, 128, 255] {
        for segments in [&[][..], &[whole(reference)]] {
            let request = transfer(operation, 0, segments);
            frontend.refused(&format!("operation {operation}"), request.as_bytes()).await?;
        }
    }
    Ok(())
}

pub(crate) fn discard(sector: u64, sectors: u64, flag: u8) -> RequestDiscard {
    let mut request = RequestDiscard::new_zeroed();
    request.operation = BLKIF_OP_DISCARD;
    request.flag = flag;
    request.sector_number = sector;
    request.nr_sectors = sectors;
    request
}

/// Discards of what is not the disk's; with all sectors and the sums that come round.
async fn discards(frontend: &mut Frontend) -> Result<()> {
    let end = frontend.sectors;
    let mut ranges = [
        (end, PAGE_SECTORS),
        (end - PAGE_SECTORS, 2 * PAGE_SECTORS),
        (0, end + PAGE_SECTORS),
        (0, u64::MAX),
        (PAGE_SECTORS, u64::MAX - 7),
        (PAGE_SECTORS, u64::MAX),
        (u64::MAX - 7, PAGE_SECTORS),
        (u64::MAX - 7, 2 * PAGE_SECTORS),
    ]
    .to_vec();
    for round in ROUNDS.into_iter().filter(|round| 1 << round >= end) {
        ranges.extend([(1 << round, PAGE_SECTORS), (0, 1 << round), (1 << round, 1 << round)]);
    }
    for (sector, sectors) in ranges {
        for flag in [0, BLKIF_DISCARD_SECURE, 255] {
            let request = discard(sector, sectors, flag);
            frontend.refused(&format!("discard of {sectors} at {sector}"), request.as_bytes()).await?;
        }
    }
    Ok(())
}

/// All that changes a disk, on one that may not be changed; a flush harms nobody.
async fn writes(frontend: &mut Frontend) -> Result<()> {
    if frontend.writable {
        return Err(Error::Wrong("this attack needs a vbd that may not be written"));
    }
    let (_page, reference) = frontend.lend_filled(0x5a)?;
    for operation in [BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER] {
        let request = transfer(operation, 0, &[whole(reference)]);
        frontend.refused(&format!("operation {operation}"), request.as_bytes()).await?;
    }
    frontend.refused("a discard", discard(0, PAGE_SECTORS, 0).as_bytes()).await?;
    frontend.refused("an erasure", discard(0, PAGE_SECTORS, BLKIF_DISCARD_SECURE).as_bytes()).await?;
    super::indirect::refused_writes(frontend).await?;
    // Done or not.
    frontend.ask(transfer(BLKIF_OP_FLUSH_DISKCACHE, 0, &[]).as_bytes()).await.map(|_| ())
}

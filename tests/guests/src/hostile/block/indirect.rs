//! Indirect requests whose counts, operations, pages or segments are wrong.

use super::frontend::{Frontend, PAGE_SECTORS, indirect, segment, whole};
use super::grants::{self, BEYOND_ANY, NEVER_GRANTED};
use crate::error::{Error, Result};
use alloc::format;
use alloc::rc::Rc;
use runtime::memory::Page;
use xen_pv_sys::io::blkif::{BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_RSP_OKAY, RequestSegment};
use xen_pv_sys::{GrantRef, PAGE_SIZE};
use zerocopy::IntoBytes;

/// Segments of an indirect request, at most.
const MOST: u16 = 256;
const TRANSFERS: [u8; 2] = [BLKIF_OP_READ, BLKIF_OP_WRITE];

pub(crate) async fn attack(frontend: &mut Frontend, name: &str) -> Result<bool> {
    match name {
        "indirect" => good(frontend).await?,
        "indirect-counts" => counts(frontend).await?,
        "indirect-operations" => operations(frontend).await?,
        "indirect-pages" => pages(frontend).await?,
        "indirect-segments" => segments(frontend).await?,
        "indirect-sectors" => sectors(frontend).await?,
        _ => return Ok(false),
    }
    good(frontend).await?;
    frontend.works().await?;
    Ok(true)
}

/// A page of descriptors, all of them of the same page of data; granted for reading alone, as is enough.
pub(crate) fn table(frontend: &mut Frontend) -> Result<(Rc<Page>, GrantRef)> {
    let data = frontend.share()?;
    let page = Rc::new(Page::new()?);
    for (index, reference) in (0..PAGE_SIZE / size_of::<RequestSegment>()).zip(data.into_iter().cycle()) {
        describe(&page, index, whole(reference));
    }
    let reference = frontend.lend(Rc::clone(&page), true)?;
    Ok((page, reference))
}

/// Overwrites a descriptor.
pub(crate) fn describe(page: &Page, index: usize, segment: RequestSegment) {
    page.write(index * size_of::<RequestSegment>(), segment.as_bytes());
}

async fn good(frontend: &mut Frontend) -> Result<()> {
    let (_, page) = table(frontend)?;
    for count in [1, 12, MOST] {
        let status = frontend.ask(indirect(BLKIF_OP_READ, 0, count, page).as_bytes()).await?;
        if status != BLKIF_RSP_OKAY {
            log::error!("a read of {count} segments that are all in order");
            return Err(Error::Answer(status));
        }
    }
    Ok(())
}

async fn counts(frontend: &mut Frontend) -> Result<()> {
    let (_, page) = table(frontend)?;
    for operation in TRANSFERS {
        for count in [0, MOST + 1, 512, 513, 4095, 4096, 4097, 32768, u16::MAX] {
            let request = indirect(operation, 0, count, page);
            frontend.refused(&format!("{operation}: {count} segments"), request.as_bytes()).await?;
        }
    }
    Ok(())
}

async fn operations(frontend: &mut Frontend) -> Result<()> {
    let (_, page) = table(frontend)?;
    for operation in [2, 3, 4, 5, 6, 7, 128, 255] {
        let request = indirect(operation, 0, 12, page);
        frontend.refused(&format!("operation {operation} within"), request.as_bytes()).await?;
    }
    Ok(())
}

/// Pages of descriptors that are not there.
async fn pages(frontend: &mut Frontend) -> Result<()> {
    for reference in grants::none(frontend) {
        for operation in TRANSFERS {
            for count in [1, MOST] {
                let request = indirect(operation, 0, count, reference);
                let what = format!("{operation}: {count} segments in page {}", reference.0);
                frontend.refused(&what, request.as_bytes()).await?;
            }
        }
    }
    Ok(())
}

/// One wrong descriptor: the first, one in the midst, the last; then a page of nonsense.
async fn segments(frontend: &mut Frontend) -> Result<()> {
    let (page, reference) = table(frontend)?;
    let [data, ..] = frontend.share()?;
    let wrong = [
        segment(data, 1, 0),
        segment(data, 0, 8),
        segment(data, 255, 255),
        whole(NEVER_GRANTED),
        whole(BEYOND_ANY),
        segment(BEYOND_ANY, 255, 0),
    ];
    for place in [0, 100, MOST - 1] {
        for wrong in wrong {
            describe(&page, place.into(), wrong);
            for operation in TRANSFERS {
                let request = indirect(operation, 0, MOST, reference);
                frontend.refused(&format!("{operation}: {wrong:?} at {place}"), request.as_bytes()).await?;
            }
        }
        describe(&page, place.into(), whole(data));
    }
    page.write(0, &[0xff; PAGE_SIZE]);
    frontend.refused("a page of ones", indirect(BLKIF_OP_WRITE, 0, MOST, reference).as_bytes()).await
}

/// Across the end, and where the sum does not fit.
async fn sectors(frontend: &mut Frontend) -> Result<()> {
    let (_, page) = table(frontend)?;
    let end = frontend.sectors;
    for count in [1, 12, 255, MOST] {
        let length = u64::from(count) * PAGE_SECTORS;
        for start in [end - length + PAGE_SECTORS, end, u64::MAX - 7, u64::MAX - length + 2, 1 << 55, 1 << 63] {
            for operation in TRANSFERS {
                let request = indirect(operation, start, count, page);
                frontend.refused(&format!("{operation}: {count} pages at {start}"), request.as_bytes()).await?;
            }
        }
        let status = frontend.ask(indirect(BLKIF_OP_READ, end - length, count, page).as_bytes()).await?;
        if status != BLKIF_RSP_OKAY {
            return Err(Error::Answer(status));
        }
    }
    Ok(())
}

/// Writes of all sizes, on a disk that may not be written.
pub(crate) async fn refused_writes(frontend: &mut Frontend) -> Result<()> {
    let (_, page) = table(frontend)?;
    for count in [1, MOST] {
        frontend.refused("an indirect write", indirect(BLKIF_OP_WRITE, 0, count, page).as_bytes()).await?;
    }
    Ok(())
}

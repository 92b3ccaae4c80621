//! Data in pages that were never granted, are granted to others or for reading alone, or are no more.

use super::frontend::{Frontend, PAGE_SECTORS, segment, transfer, whole};
use crate::error::{Error, Result};
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use runtime::grants::grant_access;
use runtime::memory::Page;
use xen_pv_sys::io::blkif::{BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER, BLKIF_RSP_OKAY};
use xen_pv_sys::{DomainId, GrantRef};
use zerocopy::IntoBytes;

/// Beyond any table that Xen lets a domain have by default.
pub(crate) const NEVER_GRANTED: GrantRef = GrantRef(0x00ff_ffff);
/// Also what Linux takes for none.
pub(crate) const BEYOND_ANY: GrantRef = GrantRef(u32::MAX);
/// The toolstack's, for dom0: the console's ring.
const CONSOLE: GrantRef = GrantRef(0);
/// Requests whose grants end too soon.
const REQUESTS: u32 = 3200;

pub(crate) async fn attack(frontend: &mut Frontend, name: &str) -> Result<bool> {
    match name {
        "grants" => bad(frontend).await?,
        "read-only-page" => read_only(frontend).await?,
        "revoked" => revoked(frontend, When::Before).await?,
        "revoke-race" => revoked(frontend, When::After).await?,
        "revoke-in-flight" => revoked(frontend, When::Amid).await?,
        _ => return Ok(false),
    }
    frontend.works().await?;
    Ok(true)
}

/// References that are nothing for the backend.
pub(crate) fn none(frontend: &Frontend) -> impl Iterator<Item = GrantRef> + use<> {
    let console = (frontend.device.domain != DomainId(0)).then_some(CONSOLE);
    [NEVER_GRANTED, BEYOND_ANY, GrantRef(1 << 31)].into_iter().chain(console)
}

/// One bad page: alone, behind good ones, before them, and nothing but such.
async fn bad(frontend: &mut Frontend) -> Result<()> {
    let (_page, good) = frontend.lend_filled(0)?;
    let foreign = grant_access(DomainId(frontend.device.domain.0 ^ 1), Rc::new(Page::new()?), false)?;
    for reference in none(frontend).chain([foreign.reference()]) {
        for places in [0..1, 10..11, 0..2, 3..7, 0..11] {
            let mut segments = [whole(good); 11];
            segments.iter_mut().take(places.end).skip(places.start).for_each(|each| each.gref = reference);
            for operation in [BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER] {
                let used = segments.get(..places.end).unwrap_or(&segments);
                let what = format!("{operation}: grant {} at {places:?}", reference.0);
                frontend.refused(&what, transfer(operation, 0, used).as_bytes()).await?;
            }
        }
    }
    Ok(())
}

/// What may only be read is not read into; it is written from.
async fn read_only(frontend: &mut Frontend) -> Result<()> {
    let page = Rc::new(Page::new()?);
    page.write(0, b"as it was");
    let reference = frontend.lend(Rc::clone(&page), true)?;
    for segments in [&[whole(reference)][..], &[segment(reference, 0, 0), segment(reference, 7, 7)]] {
        frontend.refused("a read into such a page", transfer(BLKIF_OP_READ, 0, segments).as_bytes()).await?;
    }
    let status = frontend.ask(transfer(BLKIF_OP_WRITE, 0, &[whole(reference)]).as_bytes()).await?;
    // Linux, too, maps what is persistent for writing, whichever way the data go.
    if status != BLKIF_RSP_OKAY && !frontend.manners.persistent {
        return Err(Error::Answer(status));
    }
    let mut bytes = [0; 9];
    page.read(0, &mut bytes);
    if &bytes == b"as it was" { Ok(()) } else { Err(Error::Wrong("such a page was written")) }
}

/// When grants end that are in requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Before the backend is told of them.
    Before,
    /// Right after.
    After,
    /// When it has answered one.
    Amid,
}

/// Rings full of requests whose grants end too soon.
async fn revoked(frontend: &mut Frontend, when: When) -> Result<()> {
    let page = Rc::new(Page::new()?);
    let domain = frontend.device.domain;
    let (mut refused, mut asked) = (0, 0);
    let sectors = frontend.sectors;
    for operation in [BLKIF_OP_READ, BLKIF_OP_WRITE].into_iter().cycle() {
        // One queue after the other: what ended in one may begin anew in the next.
        for queue in &mut frontend.queues {
            asked += queue.ring.free();
            let mut grants = Vec::new();
            while queue.ring.free() > 0 {
                let grant = grant_access(domain, Rc::clone(&page), false)?;
                let sector = u64::from(asked + queue.ring.free()) * PAGE_SECTORS % sectors;
                queue.ring.push(transfer(operation, sector, &[whole(grant.reference())]).as_bytes())?;
                grants.push(grant);
            }
            if when == When::Before {
                grants.clear();
            }
            queue.publish();
            if when == When::Amid {
                refused += u32::from(queue.answer().await?.status != BLKIF_RSP_OKAY);
            }
            drop(grants);
            refused += queue.drain().await?;
        }
        if asked >= REQUESTS {
            break;
        }
    }
    log::info!("{refused} of {asked} refused");
    if when == When::Before && refused != asked {
        return Err(Error::Wrong("a grant was used that had ended"));
    }
    Ok(())
}

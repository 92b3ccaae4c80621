//! Grants from the domain to itself. As dom0 its number is 0.

use crate::{Result, check, value};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use runtime::grants::{self, grant_access};
use runtime::memory::{Page, Pages, usage};
use split_driver::hypervisor::XenError;
use split_driver::memory::{PageArray, SharedMemory};
use xen_pv_sys::grant_table::{CopyEnd, GNTST_BAD_PAGE, GNTST_OKAY, GrantCopy};
use xen_pv_sys::{DomainId, GrantRef, Mfn};

const OURSELVES: DomainId = DomainId(0);

fn page() -> core::result::Result<Rc<Page>, split_driver::memory::OutOfMemory> {
    Page::new().map(Rc::new)
}

pub(crate) async fn grants() -> Result {
    // The first grant sets the table up, for good.
    drop(value!(grant_access(OURSELVES, value!(page()), false)));
    mapping()?;
    let before = usage();
    mapping()?;
    in_use()?;
    copying()?;
    check!(usage() == before);
    many()?;
    check!(grants::in_use() == 0 && grants::lingering() == 0);
    Ok(())
}

/// Four pages mapped in an order of our own show the same memory.
fn mapping() -> Result {
    let mut granted = Vec::new();
    for number in 0..4 {
        let page = value!(page());
        page.words()[9].store(number, Ordering::Relaxed);
        granted.push(value!(grant_access(OURSELVES, page, false)));
    }
    let references: Vec<GrantRef> = granted.iter().rev().map(|grant| grant.reference()).collect();
    let mapped = value!(grants::map(OURSELVES, &references));
    check!(mapped.words().len() == 4 * 1024);
    for (index, grant) in granted.iter().rev().enumerate() {
        let word = &mapped.words()[index * 1024 + 9];
        check!(word.load(Ordering::Relaxed) == 3 - index as u32);
        word.store(77, Ordering::Relaxed);
        check!(grant.page().words()[9].load(Ordering::Relaxed) == 77);
    }
    drop(mapped);
    let bad = grants::map(OURSELVES, &[references[0], GrantRef(4000), references[1]]);
    check!(matches!(bad, Err(XenError::Grant(_))));
    let read_only = value!(grant_access(OURSELVES, value!(page()), true));
    check!(grants::map(OURSELVES, &[read_only.reference()]).is_err());
    for grant in granted {
        check!(grant.end().is_ok());
    }
    Ok(())
}

/// A grant whose page is mapped does not end; dropped, its page waits for the peer.
fn in_use() -> Result {
    let grant = value!(grant_access(OURSELVES, value!(page()), false));
    let mapped = value!(grants::map(OURSELVES, &[grant.reference()]));
    let Err(grant) = grant.end() else {
        check!(false);
        return Ok(());
    };
    let free = usage().free_frames;
    drop(grant);
    check!(grants::lingering() == 1);
    check!(usage().free_frames == free);
    mapped.words()[0].store(1, Ordering::Relaxed);
    drop(mapped);
    check!(grants::lingering() == 0);
    check!(usage().free_frames == free + 1);
    Ok(())
}

/// Copies between grants and pages of ours, good and bad ones in a batch.
fn copying() -> Result {
    let pages = value!(Pages::new(2));
    let grant = value!(grant_access(OURSELVES, value!(page()), false));
    let local = |index: usize, offset| CopyEnd::local(pages.frame(index).unwrap_or(Mfn(u64::MAX)), offset);
    let granted = |offset| CopyEnd::granted(OURSELVES, grant.reference(), offset);
    let copy =
        |source, destination, length, flags| GrantCopy { source, destination, length, flags, status: 1, padding: 0 };
    check!(pages.write(0, 100, b"hello"));
    let ours = (&raw const copy) as u64 >> 12;
    let mut batch = [
        copy(local(0, 100), granted(4091), 5, GrantCopy::DESTINATION_GRANT),
        copy(local(0, 100), granted(4092), 5, GrantCopy::DESTINATION_GRANT),
        copy(CopyEnd::local(Mfn(ours), 0), granted(0), 5, GrantCopy::DESTINATION_GRANT),
        copy(granted(4091), local(1, 7), 5, GrantCopy::SOURCE_GRANT),
        copy(CopyEnd::granted(OURSELVES, GrantRef(4000), 0), local(1, 7), 5, GrantCopy::SOURCE_GRANT),
        copy(granted(4091), granted(0), 5, GrantCopy::SOURCE_GRANT | GrantCopy::DESTINATION_GRANT),
    ];
    grants::copy(&mut batch);
    let statuses = batch.map(|each| each.status);
    log::info!("statuses {statuses:?}");
    check!(statuses[0] == GNTST_OKAY && statuses[3] == GNTST_OKAY && statuses[5] == GNTST_OKAY);
    check!(statuses[1] < 0 && statuses[4] < 0);
    check!(statuses[2] == GNTST_BAD_PAGE);
    let mut bytes = [0; 5];
    check!(pages.read(1, 7, &mut bytes) && &bytes == b"hello");
    check!(grant.page().read(0, &mut bytes) && &bytes == b"hello");
    Ok(())
}

/// The table grows beyond its first frame.
fn many() -> Result {
    let page = value!(page());
    let mut granted = Vec::new();
    for _ in 0..1500 {
        granted.push(value!(grant_access(OURSELVES, Rc::clone(&page), true)));
    }
    let mut references: Vec<u32> = granted.iter().map(|grant| grant.reference().0).collect();
    references.sort_unstable();
    references.dedup();
    check!(references.len() == 1500);
    check!(references.first().is_some_and(|first| *first >= 8));
    drop(granted);
    check!(Rc::strong_count(&page) == 1);
    Ok(())
}

//! What is mapped how; all memory usable; the heap.

use crate::{Result, check, value};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::memory::{Page, Pages, usage};
use runtime::trap::probe::{Access, probe, probe_execution};
use split_driver::memory::{PageArray, SharedMemory};

static CONSTANT: [u64; 4] = [1, 2, 3, 4];
static VARIABLE: AtomicU64 = AtomicU64::new(7);

/// Text R-X, constants R--, data RW-, the null page and the page below the stack not at all.
pub(crate) fn protection() -> Result {
    let text = protection as *const () as usize;
    check!(probe(text, Access::Read));
    check!(!probe(text, Access::Write));
    let constant = (&raw const CONSTANT) as usize;
    check!(probe(constant, Access::Read));
    check!(!probe(constant, Access::Write));
    let variable = (&raw const VARIABLE) as usize;
    check!(probe(variable, Access::Write));
    check!(VARIABLE.load(Ordering::Relaxed) == 7);
    check!(!probe(0, Access::Read));
    check!(!probe(4095, Access::Write));
    check!(!probe(0x3f_ffff, Access::Read));
    let local = 0u64;
    check!(probe((&raw const local) as usize, Access::Write));
    let stack = runtime::memory::stack();
    check!(stack.contains(&((&raw const local) as usize)));
    check!(probe(stack.start, Access::Write));
    check!(!probe(stack.start - 1, Access::Read));
    check!(!probe(stack.start - 4096, Access::Read));
    let boxed = Box::new(1u64);
    check!(probe((&raw const *boxed) as usize, Access::Write));
    let mut page = value!(Page::new());
    check!(!probe_execution(&mut page));
    Ok(())
}

/// Every frame can be had, written and read, and is there again when given back.
pub(crate) fn all() -> Result {
    let before = usage();
    // Image, boot structures, page tables and the bitmap: little, at any size.
    check!(before.total_pages - before.free_frames - before.room_frames < 200 + before.total_pages / 128);
    let mut pages: Vec<Page> = Vec::new();
    value!(pages.try_reserve_exact(before.free_frames));
    while let Ok(page) = Page::new() {
        page.words()[0].store(page.pfn().0 as u32, Ordering::Relaxed);
        page.words()[1023].store(!page.pfn().0 as u32, Ordering::Relaxed);
        check!(page.words()[1..1023].iter().all(|word| word.load(Ordering::Relaxed) == 0));
        pages.push(page);
    }
    log::info!("{} pages allocated", pages.len());
    check!(usage().free_frames == 0);
    check!(pages.len() + usage().heap_frames >= before.free_frames);
    for page in &pages {
        check!(page.words()[0].load(Ordering::Relaxed) == page.pfn().0 as u32);
        check!(page.words()[1023].load(Ordering::Relaxed) == !page.pfn().0 as u32);
    }
    check!(Page::new().is_err());
    check!(Pages::new(1).is_err());
    drop(pages);
    check!(usage().free_frames + usage().heap_frames == before.free_frames + before.heap_frames);
    bounds()
}

/// A page array keeps within its pages.
fn bounds() -> Result {
    let pages = value!(Pages::new(3));
    check!(pages.len() == 3);
    check!(pages.write(2, 4090, b"sixsix"));
    check!(!pages.write(2, 4091, b"sixsix"));
    check!(!pages.write(3, 0, b"x"));
    check!(!pages.write(0, usize::MAX, b"x"));
    let mut bytes = [0; 6];
    check!(pages.read(2, 4090, &mut bytes));
    check!(&bytes == b"sixsix");
    check!(!pages.read(2, 4097, &mut []));
    check!(pages.frame(3).is_none());
    check!(pages.frame(0).is_some() && pages.frame(0) != pages.frame(1));
    Ok(())
}

/// The heap grows, says when there is no more, and shrinks again.
pub(crate) fn heap() -> Result {
    let before = usage();
    let mut large: Vec<u8> = Vec::new();
    check!(large.try_reserve_exact(before.total_pages * 4096).is_err());
    check!(large.try_reserve_exact(isize::MAX as usize).is_err());
    value!(large.try_reserve_exact(3 << 20));
    large.resize(3 << 20, 0xa5);
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    value!(pieces.try_reserve_exact(1 << 14));
    loop {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(5000).is_err() {
            break;
        }
        piece.resize(5000, pieces.len() as u8);
        pieces.push(piece);
    }
    log::info!("{} pieces, then none left: {:?}", pieces.len(), usage());
    // All but what the power-of-two runs of frames cannot be cut into.
    check!(pieces.len() * 5000 + (3 << 20) > before.free_frames * 4096 * 9 / 10);
    check!(pieces.iter().enumerate().all(|(index, piece)| piece.iter().all(|byte| *byte == index as u8)));
    check!(large.iter().all(|byte| *byte == 0xa5));
    drop(pieces);
    drop(large);
    check!(usage().heap_bytes == before.heap_bytes);
    check!(usage().free_frames + 64 >= before.free_frames);
    churn()
}

/// Sizes of all kinds, freed in another order than allocated; none overlaps another.
fn churn() -> Result {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut live: Vec<(u8, Vec<u8>)> = Vec::new();
    for round in 0..20_000_u32 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if live.len() > 300 || (random & 3 == 0 && !live.is_empty()) {
            let (mark, bytes) = live.swap_remove((random >> 8) as usize % live.len());
            check!(bytes.iter().all(|byte| *byte == mark));
        } else {
            let mark = round as u8;
            live.push((mark, alloc::vec![mark; (random >> 16) as usize % 2048]));
        }
    }
    check!(live.iter().all(|(mark, bytes)| bytes.iter().all(|byte| byte == mark)));
    Ok(())
}

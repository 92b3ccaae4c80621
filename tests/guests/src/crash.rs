//! Tests that end in a crash on purpose.

use crate::{Result, check};
use alloc::vec::Vec;
use core::hint::black_box;

#[inline(never)]
pub(crate) fn panic() -> Result {
    check!(black_box(true));
    panic!("as the test asks");
}

#[inline(never)]
pub(crate) fn fault() -> Result {
    runtime::trap::probe::raise();
}

pub(crate) fn out_of_memory() -> Result {
    let all = runtime::memory::usage().total_pages * 4096;
    let bytes: Vec<u8> = black_box(Vec::with_capacity(all));
    check!(bytes.is_empty());
    Ok(())
}

pub(crate) fn stack_overflow() -> Result {
    check!(deeper(0) == 0);
    Ok(())
}

#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    let below = if black_box(true) { deeper(depth + 1) } else { 0 };
    frame.iter().sum::<u64>() + below
}

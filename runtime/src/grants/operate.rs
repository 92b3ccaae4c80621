//! `grant_table_op` on arrays. Floor 2.
//!
//! Unsafe because it is a hypercall, which does to memory what its arguments ask for.

use crate::hypercall::{self, number};

/// A grant table operation on an array. Where the hypercall itself fails, the statuses stay as they were.
///
/// # Safety
/// `T` is the operation's struct, and what it asks for breaks no rule of Rust.
pub(super) unsafe fn operate<T>(operation: u64, array: &mut [T]) {
    // SAFETY: by the caller.
    unsafe {
        hypercall::call4::<{ number::GRANT_TABLE_OP }>(operation, array.as_mut_ptr() as u64, array.len() as u64, 0);
    }
}

//! `io/console.h`. Floor 0: no behaviour.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The console page (`struct xencons_interface`). The console daemon writes it too: access by atomics at these offsets.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConsoleInterface {
    /// What was typed (`in`).
    pub input: [u8; 1024],
    /// What the guest says (`out`).
    pub output: [u8; 2048],
    /// Bytes read of the input, wrapping at 2^32 (`in_cons`).
    pub in_cons: u32,
    /// Bytes written to it (`in_prod`).
    pub in_prod: u32,
    /// Bytes read of the output (`out_cons`).
    pub out_cons: u32,
    /// Bytes written to it (`out_prod`).
    pub out_prod: u32,
}

const _: () = assert!(size_of::<ConsoleInterface>() == 3088);

//! `grant_table.h`. Floor 0: no behaviour.

use crate::{DomainId, GrantRef, Mfn};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One end of a copy (`gnttab_copy.source` and `.dest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyEnd {
    /// The grant reference (low 32 bits) where the end is a grant, else the machine frame.
    pub reference_or_frame: u64,
    /// The granting domain, or [`DomainId::SELF`].
    pub domain: DomainId,
    /// Bytes into the page.
    pub offset: u16,
    /// Padding of the C union's alignment.
    pub padding: u32,
}

impl CopyEnd {
    /// A page of the local domain.
    pub const fn local(frame: Mfn, offset: u16) -> Self {
        Self {
            reference_or_frame: frame.0,
            domain: DomainId::SELF,
            offset,
            padding: 0,
        }
    }

    /// A page that `domain` granted.
    pub const fn granted(domain: DomainId, reference: GrantRef, offset: u16) -> Self {
        Self {
            reference_or_frame: reference.0 as u64,
            domain,
            offset,
            padding: 0,
        }
    }
}

/// `GNTTABOP_copy`'s argument (`gnttab_copy`): 40 bytes; `length` bytes from `source` to `destination`, neither crossing its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantCopy {
    /// Where from.
    pub source: CopyEnd,
    /// Where to.
    pub destination: CopyEnd,
    /// Bytes to copy.
    pub length: u16,
    /// [`GrantCopy::SOURCE_GRANT`], [`GrantCopy::DESTINATION_GRANT`].
    pub flags: u16,
    /// Out: `GNTST_*`, 0 for success.
    pub status: i16,
    /// Tail padding of the C struct.
    pub padding: u16,
}

const _: () = assert!(size_of::<GrantCopy>() == 40);

impl GrantCopy {
    /// `GNTCOPY_source_gref`.
    pub const SOURCE_GRANT: u16 = 1;
    /// `GNTCOPY_dest_gref`.
    pub const DESTINATION_GRANT: u16 = 2;
}

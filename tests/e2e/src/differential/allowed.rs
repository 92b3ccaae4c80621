//! Where the real store may answer otherwise than `xenstore-lite`: each is a row of the table in `docs/XENSTORE.md`. Host.

use guests::script::{Message, Request};
use lab::{Row, StorePlace};
use xen_pv_sys::io::xs_wire::ServerFeatures;

/// What a row's store can do, which `xenstore-lite` then is told to do.
pub(super) fn features(row: Row) -> ServerFeatures {
    match row.store {
        StorePlace::Domain => ServerFeatures::all(),
        StorePlace::Daemon => ServerFeatures::RECONNECTION | ServerFeatures::ERROR,
    }
}

/// Whether the row's answer may be that one in place of ours.
pub(super) fn is_allowed(row: Row, domain: u16, request: Option<&Request>, theirs: &Message, ours: &Message) -> bool {
    let _ = (domain, request, theirs, ours);
    row.store == StorePlace::Daemon && false
}

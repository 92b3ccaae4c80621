//! Where the real store may answer otherwise than `xenstore-lite`: each is a row of the table in `docs/XENSTORE.md`. Host.

use guests::script::{Message, Request};
use lab::{Release, Row, StorePlace};
use xen_pv_sys::io::xs_wire::{self as abi, ServerFeatures};

use super::script::request;

/// What a row's store can do, which `xenstore-lite` then is told to do.
pub(super) fn features(row: Row) -> ServerFeatures {
    match row.store {
        StorePlace::Domain => ServerFeatures::all(),
        StorePlace::Daemon | StorePlace::OcamlDaemon => ServerFeatures::RECONNECTION | ServerFeatures::ERROR,
    }
}

/// What `xenstore-lite` is told first, so that it begins as the row's store does.
pub(super) fn beginning(row: Row) -> Vec<Request> {
    match row.store {
        StorePlace::Domain => Vec::new(),
        // "who may hear `@releaseDomain`".
        StorePlace::Daemon | StorePlace::OcamlDaemon => vec![request(abi::XS_SET_PERMS, b"@releaseDomain\0n0\0")],
    }
}

/// Makes another request of one that the row's store does not outlive, or answers by what happened to be before.
pub(super) fn spare(row: Row, request: &mut Request) {
    if row.store == StorePlace::Daemon && request.kind == abi::XS_RM {
        // "`RM` in a transaction": its own view of a directory and the others' are mixed.
        request.transaction = 0;
    }
    if !is_oldest(row) {
        return;
    }
    match request.kind {
        // "a request whose payload is not the one word that it must be": the error is the last one, whoever's, and without one xenstored ends.
        abi::XS_DIRECTORY | abi::XS_READ | abi::XS_GET_PERMS | abi::XS_MKDIR | abi::XS_RM => {
            let zero = request.payload.iter().position(|byte| *byte == 0);
            if zero.is_none_or(|zero| zero + 1 != request.payload.len()) {
                request.payload = b"/t\0".to_vec();
            }
        }
        // "`RESET_WATCHES` in a transaction": xenstored ends (XSA-484).
        abi::XS_RESET_WATCHES => request.transaction = 0,
        _ => {}
    }
}

/// Whether the row's answer may be that one in place of ours.
pub(super) fn is_allowed(row: Row, request: Option<&Request>, theirs: &Message, ours: &Message) -> bool {
    let Some(request) = request.filter(|_| is_oldest(row)) else {
        return false;
    };
    let is_error = |message: &Message, name: &[u8]| message.kind == abi::XS_ERROR && message.payload == name;
    let special = request.payload.starts_with(b"@");
    match request.kind {
        // "`GET_PERMS` of a special path".
        abi::XS_GET_PERMS if special => is_error(theirs, b"EINVAL\0") && !is_error(ours, b"EINVAL\0"),
        // "`SET_PERMS` of a special path that is not there".
        abi::XS_SET_PERMS if special => is_error(theirs, b"ENOENT\0") && is_error(ours, b"EACCES\0"),
        // "`UNWATCH` of a path that is none".
        abi::XS_UNWATCH => is_error(theirs, b"ENOENT\0") && is_error(ours, b"EINVAL\0"),
        _ => false,
    }
}

/// 4.17, whose xenstored is the oldest here.
fn is_oldest(row: Row) -> bool {
    (row.store, row.release) == (StorePlace::Daemon, Release::Debian12)
}

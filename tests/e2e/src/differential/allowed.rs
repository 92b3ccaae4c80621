//! Where the real store may answer otherwise than `xenstore-lite`: each is a row of the table in `docs/XENSTORE.md`. Host.

use guests::script::{Message, Request};
use lab::{Release, Row, StorePlace};
use xen_pv_sys::io::xs_wire::{self as abi, ServerFeatures};
use xenstore_lite::Resource;

use super::script::{Step, request};

/// The words of a `CONTROL` request that sets a quota, before its name and value.
const SET_QUOTA: &str = "quota\0set\0";

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

/// Sets a quota of the row's store to a number.
pub(super) fn quota(row: Row, resource: Resource, value: u32) -> Request {
    request(abi::XS_CONTROL, format!("{SET_QUOTA}{}\0{value}\0", quota_name(row, resource)))
}

/// What the row's store calls a quota.
fn quota_name(row: Row, resource: Resource) -> &'static str {
    match resource {
        Resource::NodePermissions if is_oldest(row) => "permissions",
        _ => resource.name(),
    }
}

/// "the most that a quota lets be": what the row's store really lets be where a quota is set to `value`, as `xenstore-lite` counts it.
pub(super) fn lets(row: Row, resource: Resource, value: u32) -> u32 {
    if row.store != StorePlace::Daemon {
        return value;
    }
    match resource {
        // "watches and transactions": refused where there are more than that before the new one.
        Resource::Watches | Resource::Transactions => value + 1,
        // "bytes of a node": refused where they are as many, and a record's head is 24 of them in place of 16.
        Resource::NodeSize if is_oldest(row) => value.saturating_sub(9),
        // Nodes are refused where there are as many before the new one. A transaction's nodes, permissions, a path's bytes and, in 4.20, a
        // node's are counted with what is asked for, and refused where they are more.
        _ => value,
    }
}

/// The quota that a request sets, and to what.
fn quota_that_is_set(row: Row, request: &Request) -> Option<(Resource, u32)> {
    let words = str::from_utf8(&request.payload).ok().filter(|_| request.kind == abi::XS_CONTROL)?;
    let (name, value) = words.strip_prefix(SET_QUOTA)?.strip_suffix('\0')?.split_once('\0')?;
    let resource = Resource::ALL.into_iter().find(|resource| quota_name(row, *resource) == name)?;
    Some((resource, value.parse().ok()?))
}

/// The payload of a request as `xenstore-lite` is told it.
pub(super) fn told(row: Row, request: &Request) -> Vec<u8> {
    let Some((resource, value)) = quota_that_is_set(row, request) else {
        return request.payload.clone();
    };
    format!("{SET_QUOTA}{}\0{}\0", resource.name(), lets(row, resource, value)).into_bytes()
}

/// Makes other requests of those that the row's store does not outlive, or answers by what happened to be before, or counts in its own way.
pub(super) fn spare(row: Row, steps: &mut [Step]) {
    let bounded =
        |step: &Step| quota_that_is_set(row, &step.request).is_some_and(|(resource, _)| resource == Resource::Nodes);
    let few_nodes = steps.iter().any(bounded);
    for step in steps {
        if few_nodes {
            spare_accounts(row, &mut step.request);
        }
        spare_request(row, &mut step.request);
    }
}

/// "nodes that a transaction makes", where they are few.
fn spare_accounts(row: Row, request: &mut Request) {
    match request.kind {
        // Not counted before the commit.
        abi::XS_WRITE | abi::XS_MKDIR if is_oldest(row) => request.transaction = 0,
        // Refused where there are as many with them. On the oldest, none are made in transactions by now.
        abi::XS_TRANSACTION_END if row.store == StorePlace::Daemon && !is_oldest(row) && request.payload == b"T\0" => {
            request.payload = b"F\0".to_vec();
        }
        _ => {}
    }
}

fn spare_request(row: Row, request: &mut Request) {
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
        // "`SET_PERMS` of a special path": likewise, and after a watch was set there is none.
        abi::XS_SET_PERMS if request.payload.starts_with(b"@") => request.payload = b"/t/c\0n0\0".to_vec(),
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
        // "`UNWATCH` of a path that is none".
        abi::XS_UNWATCH => is_error(theirs, b"ENOENT\0") && is_error(ours, b"EINVAL\0"),
        _ => false,
    }
}

/// 4.17, whose xenstored is the oldest here.
fn is_oldest(row: Row) -> bool {
    (row.store, row.release) == (StorePlace::Daemon, Release::Debian12)
}

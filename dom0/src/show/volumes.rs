//! `oxidom volumes`: what a `target=` may name, and which guests have it. Pure. Host.

use serde_json::{Value, json};

use super::{Cell, size, table};
use crate::model::{DriverDomain, Vbd, Volume};

/// A target without what says how it is shared, and without `/dev/`.
fn name(target: &str) -> &str {
    let target = target.strip_prefix("w!:").unwrap_or(target);
    target.strip_prefix("/dev/").unwrap_or(target)
}

fn users<'a>(domain: &'a DriverDomain, volume: &Volume) -> Vec<&'a Vbd> {
    let names =
        |vbd: &&Vbd| vbd.target.as_deref().is_some_and(|target| volume.names.iter().any(|known| known == name(target)));
    domain.vbds.iter().filter(names).collect()
}

/// For people.
pub(crate) fn volumes(domain: &DriverDomain) -> String {
    let row = |volume: &Volume| -> [Cell; 4] {
        let (first, others) =
            volume.names.split_first().map_or((String::new(), &[][..]), |(first, others)| (first.clone(), others));
        let users: Vec<String> =
            users(domain, volume).into_iter().map(|vbd| format!("{} as {}", vbd.guest.shown(), vbd.shown())).collect();
        [first.into(), size(volume.sectors).into(), users.join(", ").into(), Cell::faint(others.join("  "))]
    };
    let rows: Vec<_> = domain.volumes.iter().map(row).collect();
    let table = table(["VOLUME", "SIZE", "USED BY", "OTHER NAMES"], &rows);
    match domain.more_volumes {
        0 => table,
        more => {
            format!("{table}and {more} more, which `volumes` on its console (`xl console {}`) lists\n", domain.name)
        }
    }
}

/// For programs.
pub(crate) fn volumes_json(domain: &DriverDomain) -> Value {
    let one = |volume: &Volume| {
        let users: Vec<Value> = users(domain, volume)
            .into_iter()
            .map(|vbd| json!({"domain": vbd.guest.id, "name": vbd.guest.name, "device": vbd.shown()}))
            .collect();
        json!({"names": volume.names, "bytes": volume.sectors.saturating_mul(512), "users": users})
    };
    json!({"domain": domain.id, "name": domain.name, "volumes": domain.volumes.iter().map(one).collect::<Vec<_>>(), "more": domain.more_volumes})
}

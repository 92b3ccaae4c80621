//! What the store's domain says of its lives on its console. Host.

use anyhow::{Context, Result};
use lab::Lab;

/// The image that it runs, in dom0.
pub(super) const IMAGE: &str = "/usr/lib/oxidom/xenstore-stubdom";
/// Its console in dom0, and what it says there of each life but the first.
pub(super) const LOG: &str = "/var/log/xen/console/guest-Xenstore.log";
pub(super) const SERVES: &str = "serves .* domains after";

/// How many lives but the first have come to serve.
pub(super) fn count(lab: &Lab) -> Result<u64> {
    let said = lab.must(&format!("cat {LOG} 2>/dev/null | grep -c '{SERVES}' || true"))?;
    said.trim().parse().with_context(|| format!("'{said}'"))
}

/// What the store says of its last pause.
pub(super) fn last_pause(lab: &Lab) -> Result<String> {
    let said = lab.must(&format!("grep -o 'pause .*' {LOG} | tail -n 1"))?;
    Ok(said.trim().to_owned())
}

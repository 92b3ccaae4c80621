//! A device as libxl keeps it in the store, and the words by which `xl` attaches it again. Pure. Host.

use std::collections::BTreeMap;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A network interface.
    Vif,
    /// A disk.
    Vbd,
}

impl Kind {
    /// All.
    pub(crate) const ALL: [Self; 2] = [Self::Vif, Self::Vbd];

    /// Its name in paths.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vif => "vif",
            Self::Vbd => "vbd",
        }
    }

    /// The word of `xl`'s commands for it, as in `xl network-attach`.
    pub(crate) const fn command(self) -> &'static str {
        match self {
            Self::Vif => "network",
            Self::Vbd => "block",
        }
    }
}

/// What libxl wrote of a device below `/libxl` (`libxl__device_generic_add`: a copy of what the backend was given).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// The guest's number.
    pub(crate) guest: u32,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its number among those of its kind.
    pub(crate) id: u32,
    /// The nodes and their values.
    pub(crate) nodes: BTreeMap<String, String>,
}

impl Device {
    /// The backend's directory.
    pub(crate) fn backend(&self) -> Option<&str> {
        self.nodes.get("backend").map(String::as_str)
    }

    /// The number of the backend's domain.
    pub(crate) fn backend_domain(&self) -> Option<u32> {
        self.backend()?.strip_prefix("/local/domain/")?.split('/').next()?.parse().ok()
    }

    fn node(&self, name: &str) -> Option<&str> {
        self.nodes.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// How it is called in `xl`'s commands: a vif by its number, a disk by its name in the guest.
    pub(crate) fn name(&self) -> String {
        match (self.kind, self.node("dev")) {
            (Kind::Vbd, Some(name)) => name.to_owned(),
            _ => self.id.to_string(),
        }
    }

    /// The arguments of `xl network-attach` or `block-attach` behind the guest, for a backend domain of that name.
    ///
    /// # Errors
    /// What of it cannot be said.
    pub(crate) fn words(&self, backend: &str) -> Result<Vec<String>, String> {
        match self.kind {
            Kind::Vif => self.vif_words(backend),
            Kind::Vbd => self.vbd_words(backend).map(|words| vec![words]),
        }
    }

    fn vif_words(&self, backend: &str) -> Result<Vec<String>, String> {
        let mut words = vec![format!("devid={}", self.id), format!("backend={backend}")];
        for (node, key) in [
            ("mac", "mac"),
            ("bridge", "bridge"),
            ("script", "script"),
            ("ip", "ip"),
            ("gatewaydev", "gatewaydev"),
            ("vifname", "vifname"),
            ("mtu", "mtu"),
            ("vlan", "vlan"),
        ] {
            words.extend(self.node(node).map(|value| format!("{key}={value}")));
        }
        if let Some(rate) = self.node("rate") {
            words.push(format!("rate={}", rate_words(rate).ok_or_else(|| format!("its rate is \"{rate}\""))?));
        }
        Ok(words)
    }

    fn vbd_words(&self, backend: &str) -> Result<String, String> {
        if self.node("type") != Some("phy") {
            return Err(format!(
                "it is served by \"{}\", not by a driver domain",
                self.node("type").unwrap_or_default()
            ));
        }
        let target = self.node("params").ok_or("its target is not known")?;
        let access = if self.node("mode") == Some("r") { "ro" } else { "rw" };
        let mut words = vec![
            "format=raw".to_owned(),
            format!("vdev={}", self.name()),
            format!("access={access}"),
            format!("backend={backend}"),
            "backendtype=phy".to_owned(),
        ];
        for (node, value, word) in [
            ("device-type", "cdrom", "devtype=cdrom"),
            ("discard-enable", "0", "no-discard"),
            ("discard-enable", "1", "discard"),
            ("direct-io-safe", "1", "direct-io-safe"),
        ] {
            if self.node(node) == Some(value) {
                words.push(word.to_owned());
            }
        }
        // All that follows is the target's, commas among it.
        words.push(format!("target={target}"));
        Ok(words.join(","))
    }
}

/// A rate in `xl`'s words, of the store's: bytes in each interval of so many microseconds (`libxl__set_xenstore_nic`).
fn rate_words(rate: &str) -> Option<String> {
    let (bytes, interval) = rate.split_once(',')?;
    let (bytes, interval): (u128, u128) = (bytes.parse().ok()?, interval.parse().ok()?);
    let per_second = (bytes * 1_000_000).checked_div(interval)?;
    Some(format!("{per_second}B/s@{interval}us"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: Kind, id: u32, nodes: &[(&str, &str)]) -> Device {
        let nodes = nodes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Device { guest: 5, kind, id, nodes }
    }

    #[test]
    fn a_vif_keeps_what_it_was_given() {
        let vif = device(
            Kind::Vif,
            2,
            &[
                ("backend", "/local/domain/3/backend/vif/5/2"),
                ("frontend-id", "5"),
                ("mac", "00:16:3e:00:00:01"),
                ("bridge", "xenbr0.100"),
                ("script", "/etc/xen/scripts/vif-bridge"),
                ("ip", "10.0.0.1 fd00::1"),
                ("rate", "62500,50000"),
                ("type", "vif"),
                ("state", "1"),
            ],
        );
        assert_eq!((vif.backend_domain(), vif.name()), (Some(3), "2".to_owned()));
        let words = [
            "devid=2",
            "backend=netdom",
            "mac=00:16:3e:00:00:01",
            "bridge=xenbr0.100",
            "script=/etc/xen/scripts/vif-bridge",
            "ip=10.0.0.1 fd00::1",
            "rate=1250000B/s@50000us",
        ];
        assert_eq!(vif.words("netdom").unwrap(), words);
        let odd = device(Kind::Vif, 0, &[("rate", "fast")]);
        assert_eq!(odd.words("netdom").unwrap_err(), "its rate is \"fast\"");
        assert_eq!((odd.backend_domain(), rate_words("1,0")), (None, None));
    }

    #[test]
    fn a_disk_keeps_what_it_was_given() {
        let nodes = [
            ("backend", "/local/domain/4/backend/vbd/5/51712"),
            ("dev", "xvda"),
            ("device-type", "disk"),
            ("discard-enable", "1"),
            ("mode", "w"),
            ("params", "w!:vg0/a,b"),
            ("type", "phy"),
        ];
        let disk = device(Kind::Vbd, 51712, &nodes);
        assert_eq!((disk.backend_domain(), disk.name()), (Some(4), "xvda".to_owned()));
        let words = "format=raw,vdev=xvda,access=rw,backend=blkdom,backendtype=phy,discard,target=w!:vg0/a,b";
        assert_eq!(disk.words("blkdom").unwrap(), [words]);
        let mut cdrom = disk.clone();
        cdrom.nodes.extend(
            [("device-type", "cdrom"), ("mode", "r"), ("discard-enable", "0")]
                .map(|(n, v)| (n.to_owned(), v.to_owned())),
        );
        let words =
            "format=raw,vdev=xvda,access=ro,backend=blkdom,backendtype=phy,devtype=cdrom,no-discard,target=w!:vg0/a,b";
        assert_eq!(cdrom.words("blkdom").unwrap(), [words]);
        let qdisk = device(Kind::Vbd, 51712, &[("type", "qdisk")]);
        assert!(qdisk.words("blkdom").unwrap_err().contains("qdisk"));
    }
}

//! Every node that a toolstack writes into a vif's backend directory (`libxl_nic.c`, `libxl_device.c`), and what netdom makes of it. Pure.
//! Floor 3.
//!
//! In dom0 most of these are read by hotplug scripts. netdom runs no scripts: what one of them would have done to the packets is refused, as
//! an administrator relies on it; what it would have done to dom0's interface alone is named in the log.

use alloc::format;
use alloc::string::{String, ToString};
use split_driver::xenbus::Directory;
use split_driver::xenbus::toolstack::{Node, Treatment, is_said, node};

/// All of them.
pub const NODES: &[Node] = &[
    node("bridge", Treatment::Heeded),
    node("handle", Treatment::Heeded),
    node("mac", Treatment::Heeded),
    node("rate", Treatment::Heeded),
    node("frontend", Treatment::Harmless),
    node("frontend-id", Treatment::Harmless),
    node("online", Treatment::Harmless),
    node("state", Treatment::Harmless),
    node("hotplug-status", Treatment::Harmless),
    // Whether the guest has an emulated NIC beside the vif, which its device model connects.
    node("type", Treatment::Harmless),
    // For the frontend alone, which reads its own directory.
    node("trusted", Treatment::Harmless),
    // xapi's, for its own scripts and statistics.
    node("model", Treatment::Harmless),
    node(
        "script",
        Treatment::Refused(
            is_other_script,
            "netdom runs no scripts: it does what vif-bridge does, and with address= in its extra= what vif-nat and vif-route do",
        ),
    ),
    node("ip", Treatment::Heeded),
    node("vlan", Treatment::Heeded),
    // Where it is more than the NICs carry, the log says so: `mtu_remark`.
    node("mtu", Treatment::Heeded),
    node("vifname", Treatment::Named(is_said, "netdom has no interface that could be called so")),
    // libxl writes it beside `vif-route`; netdom has one way out.
    node("gatewaydev", Treatment::Named(is_said, "a guest that is routed goes the way of address= in netdom's extra=")),
    // COLO, which mirrors a guest's packets.
    node("forwarddev", Treatment::Named(is_said, "netdom mirrors no packets")),
    node("colo_*", Treatment::Harmless),
];

/// Those of [`NODES`] that are read.
pub const READ: &[&str] =
    &["bridge", "handle", "mac", "rate", "script", "ip", "vlan", "mtu", "vifname", "gatewaydev", "forwarddev"];

/// What the script that a vif names would do to its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Script {
    /// They go to a bridge.
    #[default]
    Bridge,
    /// They are routed, and the guest's addresses translated.
    Nat,
    /// They are routed.
    Route,
}

impl Script {
    /// By its name, with its path or without: libxl writes `vif-bridge` with it where a config names none.
    fn find(value: &str) -> Option<Self> {
        match value.rsplit('/').next()? {
            "" if value.is_empty() => Some(Self::Bridge),
            "vif-bridge" => Some(Self::Bridge),
            "vif-nat" => Some(Self::Nat),
            "vif-route" => Some(Self::Route),
            _ => None,
        }
    }
}

/// The script of a vif that was not refused.
pub fn script(nodes: &Directory) -> Script {
    nodes.get("script").and_then(|value| core::str::from_utf8(value).ok()).and_then(Script::find).unwrap_or_default()
}

fn is_other_script(value: &str) -> bool {
    is_said(value) && Script::find(value).is_none()
}

/// What the log says of a vif's `mtu`, where the NICs of its bridge carry IP packets of `carried` bytes at most.
pub fn mtu_remark(nodes: &Directory, carried: usize) -> Option<String> {
    nodes.get("mtu").filter(|value| !value.is_empty())?;
    match nodes.required::<usize>("mtu") {
        Ok(mtu) if mtu <= carried => None,
        Ok(mtu) => Some(format!(
            "mtu={mtu} is more than the NICs of its bridge carry: packets to and from the wire have {carried} bytes at most, as the word \
             mtu= of netdom's command line says"
        )),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use split_driver::xenbus::toolstack;
    use split_driver::xenbus::toolstack::Refusal;

    fn refuse(nodes: &Directory) -> Result<(), Refusal> {
        toolstack::refuse(NODES, nodes)
    }

    fn remarks(nodes: &Directory) -> Vec<String> {
        toolstack::remarks(NODES, nodes)
    }

    fn directory(nodes: &[(&str, &str)]) -> Directory {
        nodes.iter().copied().collect()
    }

    #[test]
    fn what_is_read_is_what_matters() {
        let mut read: Vec<_> =
            NODES.iter().filter(|node| !matches!(node.treatment, Treatment::Harmless)).map(|node| node.name).collect();
        read.sort_unstable();
        let mut stated = READ.to_vec();
        stated.sort_unstable();
        assert_eq!(read, stated);
    }

    /// What libxl 4.17 and 4.20 write for `vif = [ 'backend=netdom' ]`.
    #[test]
    fn an_ordinary_vif_is_not_remarked_upon() {
        let nodes = directory(&[
            ("frontend", "/local/domain/5/device/vif/0"),
            ("frontend-id", "5"),
            ("online", "1"),
            ("state", "1"),
            ("script", "/etc/xen/scripts/vif-bridge"),
            ("mac", "00:16:3e:01:02:03"),
            ("bridge", "xenbr0"),
            ("handle", "0"),
            ("type", "vif"),
            ("hotplug-status", ""),
        ]);
        assert_eq!(refuse(&nodes), Ok(()));
        assert_eq!(remarks(&nodes), Vec::<String>::new());
        for name in ["frontend", "frontend-id", "online", "state", "type", "hotplug-status"] {
            assert!(NODES.iter().any(|node| node.name == name), "{name}");
        }
    }

    #[test]
    fn what_would_filter_or_route_is_refused() {
        for (name, value, refused) in [
            ("ip", "10.0.0.5", false),
            ("script", "/etc/xen/scripts/vif-nat", false),
            ("script", "/etc/xen/scripts/vif-nat2", true),
            ("script", "vif-route", false),
            ("script", "/etc/xen/scripts/vif-openvswitch", true),
            ("script", "/opt/my-vif-bridge", true),
            ("script", "/usr/local/etc/xen/scripts/vif-bridge", false),
            ("script", "vif-bridge", false),
            ("script", "", false),
            ("vlan", "5", false),
            ("gatewaydev", "eth0", false),
            ("vifname", "web", false),
            ("mtu", "9000", false),
        ] {
            let error = refuse(&directory(&[(name, value)])).err();
            assert_eq!(error.as_ref().map(|error| error.name), refused.then_some(name), "{name}={value}");
            if let Some(error) = error {
                assert!(format!("{error}").starts_with(&format!("{name}={value}: netdom")), "{error}");
            }
        }
    }

    #[test]
    fn what_has_no_meaning_is_named() {
        let nodes = [("vifname", "web"), ("gatewaydev", "eth0"), ("forwarddev", "eth1"), ("colo_x", "1")];
        let remarks = remarks(&directory(&nodes));
        assert_eq!(remarks.len(), 3);
        for (name, value) in &nodes[..3] {
            let beginning = format!("{name}={value} is not heeded: ");
            assert!(remarks.iter().any(|remark| remark.starts_with(&beginning)), "{remarks:?}");
        }
    }

    #[test]
    fn an_mtu_beyond_the_wires_is_named() {
        for (mtu, carried, named) in [
            ("1500", 1500, false),
            ("1400", 1500, false),
            ("1501", 1500, true),
            ("many", 1500, true),
            ("", 1500, false),
            ("9000", 9000, false),
            ("9001", 9000, true),
        ] {
            let remark = mtu_remark(&directory(&[("mtu", mtu)]), carried);
            assert_eq!(remark.is_some(), named, "{mtu}: {remark:?}");
        }
        assert_eq!(mtu_remark(&directory(&[]), 1500), None);
    }
}

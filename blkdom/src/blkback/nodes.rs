//! Every node that a toolstack writes into a vbd's backend directory (`libxl_disk.c`, `libxl_device.c`), and what blkdom makes of it. Pure.
//! Floor 3.

use split_driver::xenbus::toolstack::{Node, Treatment, is_said, node};

/// The kind of device that libxl makes of a disk which QEMU is to serve. It does so where a config says `backendtype=qdisk`, and where it
/// names a format and no `backendtype`.
pub const QDISK: &str = "qdisk";

/// All of them.
pub const NODES: &[Node] = &[
    node("params", Treatment::Heeded),
    node("mode", Treatment::Heeded),
    node("device-type", Treatment::Heeded),
    node("removable", Treatment::Heeded),
    node("discard-enable", Treatment::Heeded),
    node("dev", Treatment::Heeded),
    node("frontend", Treatment::Harmless),
    node("frontend-id", Treatment::Harmless),
    node("online", Treatment::Harmless),
    node("state", Treatment::Harmless),
    node("hotplug-status", Treatment::Harmless),
    // For the guest's boot loader and its device model.
    node("bootable", Treatment::Harmless),
    // What a hotplug script found in dom0.
    node("physical-device*", Treatment::Harmless),
    // All input and output is direct.
    node("direct-io-safe", Treatment::Harmless),
    node("trusted", Treatment::Harmless),
    node("colo-*", Treatment::Harmless),
    node(
        "type",
        Treatment::Refused(
            is_other_type,
            "blkdom serves disks and volumes as they are, and no image files: say format=raw,backendtype=phy",
        ),
    ),
    node(
        "script",
        Treatment::Refused(is_other_script, "blkdom runs no scripts: target= names a disk or a volume of its own"),
    ),
    node("specification", Treatment::Refused(is_other_specification, "blkdom serves PV disks, not virtio")),
];

/// Those of [`NODES`] that are read.
pub const READ: &[&str] =
    &["params", "mode", "device-type", "removable", "discard-enable", "dev", "type", "script", "specification"];

fn is_other_type(value: &str) -> bool {
    is_said(value) && value != "phy"
}

/// libxl writes `block` with its path where a config names no script.
fn is_other_script(value: &str) -> bool {
    is_said(value) && value.rsplit('/').next() != Some("block")
}

fn is_other_specification(value: &str) -> bool {
    is_said(value) && value != "xen"
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use split_driver::xenbus::Directory;
    use split_driver::xenbus::toolstack::{refuse, remarks};

    #[test]
    fn what_is_read_is_what_matters() {
        let matters = |node: &&Node| !matches!(node.treatment, Treatment::Harmless);
        let mut read: Vec<_> = NODES.iter().filter(matters).map(|node| node.name).collect();
        read.sort_unstable();
        let mut stated = READ.to_vec();
        stated.sort_unstable();
        assert_eq!(read, stated);
    }

    /// What libxl 4.17 and 4.20 write for `format=raw,backendtype=phy`.
    #[test]
    fn an_ordinary_vbd_is_not_remarked_upon() {
        let names = [
            ("params", "vg0/a"),
            ("script", "/etc/xen/scripts/block"),
            ("frontend", "/local/domain/5/device/vbd/51712"),
            ("frontend-id", "5"),
            ("online", "1"),
            ("removable", "0"),
            ("bootable", "1"),
            ("state", "1"),
            ("dev", "xvda"),
            ("type", "phy"),
            ("mode", "w"),
            ("device-type", "disk"),
            ("discard-enable", "1"),
            ("specification", "xen"),
        ];
        let nodes: Directory = names.into_iter().collect();
        assert_eq!((refuse(NODES, &nodes), remarks(NODES, &nodes).len()), (Ok(()), 0));
        for (name, _) in names {
            assert!(NODES.iter().any(|node| node.name == name), "{name}");
        }
    }

    #[test]
    fn what_would_be_served_otherwise_is_refused() {
        for (name, value) in
            [("type", "qdisk"), ("type", "tap"), ("script", "block-iscsi"), ("specification", "virtio")]
        {
            let nodes: Directory = [(name, value)].into_iter().collect();
            let error = refuse(NODES, &nodes).map_err(|refusal| refusal.to_string());
            assert!(error.unwrap_err().starts_with(&alloc::format!("{name}={value}: blkdom ")));
        }
    }
}

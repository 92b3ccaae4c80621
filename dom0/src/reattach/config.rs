//! A guest's config, as `xl list -l` tells it: whose its backends are, and which disk has its root. Pure. Host.

use serde_json::Value;

use super::device::{Device, Kind};

/// The config of one guest; empty where it cannot be had, as dom0's.
#[derive(Default)]
pub(crate) struct Config(Value);

/// Whether the guest's root file system is on a disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// It is on none, or on another one.
    No,
    /// It is on this one; why that is known.
    Yes(String),
    /// Nothing outside of the guest tells; why not.
    Unknown(String),
}

impl Config {
    /// Of `xl`'s JSON.
    pub(crate) fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap_or_default())
    }

    fn config(&self) -> Option<&Value> {
        self.0.get(0).unwrap_or(&self.0).get("config")
    }

    fn devices(&self, list: &str) -> &[Value] {
        let devices = self.config().and_then(|config| config.get(list)?.as_array());
        devices.map(Vec::as_slice).unwrap_or_default()
    }

    /// The name of the domain of a device's backend.
    pub(crate) fn backend(&self, device: &Device) -> Option<&str> {
        let (list, key, value) = match device.kind {
            Kind::Vif => ("nics", "devid", Value::from(device.id)),
            Kind::Vbd => ("disks", "vdev", Value::from(device.name())),
        };
        let found = self.devices(list).iter().find(|found| found.get(key) == Some(&value))?;
        found.get("backend_domname")?.as_str()
    }

    /// Whether the root file system is on a device, as far as the config says.
    pub(crate) fn root(&self, device: &Device) -> Root {
        let Some(build) = self.config().and_then(|config| config.get("b_info")).filter(|_| device.kind == Kind::Vbd)
        else {
            return Root::No;
        };
        if build.get("kernel").is_none_or(Value::is_null) {
            let why = "the guest boots by what is on its disks, and its config does not say which one has its root";
            return Root::Unknown(why.to_owned());
        }
        let line = build.get("cmdline").and_then(Value::as_str).unwrap_or_default();
        // The last one counts, as in Linux.
        let Some(root) = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("root=")).next_back() else {
            return Root::No;
        };
        let named = root.strip_prefix("/dev/");
        if let Some((disk, _)) = named.and_then(split_partition) {
            let own = named.is_some_and(|named| named == device.name()) || disk == device.name();
            return if own {
                Root::Yes(format!("it is the guest's root disk by its command line (root={root})"))
            } else {
                Root::No
            };
        }
        if !names_a_file_system(root) {
            return Root::No;
        }
        match self.devices("disks").iter().filter(|disk| !is_set(disk.get("is_cdrom"))).count() {
            0 | 1 if self.devices("pcidevs").is_empty() => {
                Root::Yes(format!("it is the guest's only disk, so its root is there (root={root})"))
            }
            _ => Root::Unknown(format!(
                "the guest's command line names its root by root={root}, which does not say on which disk that is"
            )),
        }
    }
}

/// The disk and the number of a partition that Linux calls so; an empty number for the whole disk. `None` where it is no such name.
fn split_partition(name: &str) -> Option<(&str, &str)> {
    let letters = name.trim_end_matches(|sign: char| sign.is_ascii_digit());
    let drive = ["xvd", "sd", "hd"].iter().find_map(|kind| letters.strip_prefix(kind))?;
    let is_disk = !drive.is_empty() && drive.bytes().all(|byte| byte.is_ascii_lowercase());
    is_disk.then(|| name.split_at(letters.len()))
}

/// Whether `root=` is something that is found on a disk: by what it holds, or by a name that the guest gives.
fn names_a_file_system(root: &str) -> bool {
    let word = root.split_once('=').map(|(word, _)| word.to_ascii_uppercase());
    match word.as_deref() {
        Some("UUID" | "LABEL" | "PARTUUID" | "PARTLABEL" | "ID") => true,
        Some(_) => false,
        None => root.strip_prefix("/dev/").is_some_and(|name| !name.starts_with("ram") && name != "nfs"),
    }
}

/// A flag of libxl's JSON, which some versions write as a number or as a text (`libxl_defbool_to_string`).
pub(crate) fn is_set(flag: Option<&Value>) -> bool {
    match flag {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text == "True",
        Some(Value::Number(number)) => number.as_u64() != Some(0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device(kind: Kind, dev: &str) -> Device {
        Device { guest: 5, kind, id: 0, nodes: [("dev".to_owned(), dev.to_owned())].into() }
    }

    fn config(line: &str, disks: &[&str]) -> Value {
        let disks: Vec<Value> = disks.iter().map(|disk| json!({"vdev": disk})).collect();
        json!([{"config": {"b_info": {"kernel": "/boot/vmlinuz", "cmdline": line}, "disks": disks}}])
    }

    /// What is said of a disk: `yes`, `no`, `unknown`.
    fn said(config: Value, disk: &str) -> &'static str {
        match Config(config).root(&device(Kind::Vbd, disk)) {
            Root::No => "no",
            Root::Yes(_) => "yes",
            Root::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn a_root_that_is_named_by_its_disk_is_found() {
        for (line, disk, root) in [
            ("root=/dev/xvda1 ro", "xvda", "yes"),
            ("quiet root=/dev/xvda", "xvda", "yes"),
            ("root=/dev/xvda1", "xvda1", "yes"),
            ("root=/dev/xvda2", "xvda1", "no"),
            ("root=/dev/xvdb1", "xvda", "no"),
            ("root=/dev/xvdaa1", "xvda", "no"),
            ("noroot=/dev/xvda1", "xvda", "no"),
            ("root=/dev/xvda1 root=/dev/xvdb1", "xvda", "no"),
            ("root=/dev/xvdb1 root=/dev/xvda1", "xvda", "yes"),
            ("", "xvda", "no"),
        ] {
            for disks in [["xvda"].as_slice(), &["xvda", "xvdb"]] {
                assert_eq!(said(config(line, disks), disk), root, "{line:?}, {disk}, of {disks:?}");
            }
        }
        let any = Config(config("root=/dev/xvda1", &["xvda"]));
        assert_eq!(any.root(&device(Kind::Vif, "xvda")), Root::No);
        assert_eq!(Config::default().root(&device(Kind::Vbd, "xvda")), Root::No);
    }

    #[test]
    fn a_root_that_is_named_by_what_it_holds_is_on_the_only_disk_or_nobody_knows() {
        for root in [
            "UUID=0f0e0d0c-0b0a-4908-8706-050403020100",
            "LABEL=root",
            "label=root",
            "PARTUUID=0f0e0d0c-01",
            "PARTLABEL=vm1-root",
            "/dev/disk/by-uuid/0f0e0d0c-0b0a-4908-8706-050403020100",
            "/dev/mapper/vg-root",
            "/dev/vg0/root",
        ] {
            let line = format!("quiet root={root} ro");
            assert_eq!(said(config(&line, &["xvda"]), "xvda"), "yes", "{root}");
            assert_eq!(said(config(&line, &["xvda", "xvdb"]), "xvda"), "unknown", "{root}");
            assert_eq!(said(config(&line, &["xvda", "xvdb"]), "xvdb"), "unknown", "{root}");
            // A CD holds no root; a disk of a controller that was passed to the guest may.
            let mut cd = config(&line, &["xvda", "xvdb"]);
            cd[0]["config"]["disks"][1]["is_cdrom"] = json!(1);
            assert_eq!(said(cd, "xvda"), "yes", "{root}");
            let mut passed = config(&line, &["xvda"]);
            passed[0]["config"]["pcidevs"] = json!([{"dev": 3}]);
            assert_eq!(said(passed, "xvda"), "unknown", "{root}");
        }
        for elsewhere in ["/dev/nfs", "/dev/ram0", "nfs:server:/root", "9p", "ZFS=pool/root"] {
            assert_eq!(said(config(&format!("root={elsewhere}"), &["xvda"]), "xvda"), "no", "{elsewhere}");
        }
    }

    #[test]
    fn a_guest_that_boots_by_its_disks_does_not_say_where_its_root_is() {
        let mut loader = config("", &["xvda"]);
        loader[0]["config"]["b_info"] = json!({"bootloader": "pygrub"});
        assert_eq!(said(loader, "xvda"), "unknown");
    }
}

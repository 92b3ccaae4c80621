//! pciback's file and dom0's disks, in a directory that is like a host's. Host.

use super::*;

struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("oxidom-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("bus/pci/devices")).unwrap();
        Self(root)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sysfs(&self) -> Sysfs {
        Sysfs { sys: self.0.clone(), mounts: self.0.join("mountinfo"), swaps: self.0.join("swaps") }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

const ADDRESS: &str = "0000:01:00.0";

fn address() -> PciAddress {
    ADDRESS.parse().unwrap()
}

#[test]
fn hidden_devices_are_written_once() {
    let host = Host::new("hide");
    let file = host.0.join("hide.conf");
    let none = BTreeSet::new();
    assert!(!hide(&none, &file).unwrap());
    let two: BTreeSet<PciAddress> = [address(), "00:19.0".parse().unwrap()].into();
    assert!(hide(&two, &file).unwrap());
    assert!(!hide(&two, &file).unwrap());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.ends_with("\noptions xen-pciback hide=(0000:00:19.0)(0000:01:00.0)\n"), "{text}");
    assert!(hide(&none, &file).unwrap());
    assert!(!fs::read_to_string(&file).unwrap().contains("options"));
}

#[test]
fn a_device_is_with_pciback_with_a_driver_with_none_or_not_there() {
    let host = Host::new("place");
    assert!(host.sysfs().place(address()).is_err_and(|error| error.to_string().contains("lspci -D")));
    host.put(&format!("bus/pci/devices/{ADDRESS}/vendor"), "0x8086");
    assert_eq!(host.sysfs().place(address()).unwrap(), Place::Free);
    let link = host.0.join(format!("bus/pci/devices/{ADDRESS}/driver"));
    for (driver, place) in [("nvme", Place::Driver("nvme".into())), ("pciback", Place::Pciback)] {
        fs::remove_file(&link).ok();
        std::os::unix::fs::symlink(format!("../../drivers/{driver}"), &link).unwrap();
        assert_eq!(host.sysfs().place(address()).unwrap(), place);
    }
}

#[test]
fn a_disk_in_use_is_not_taken() {
    let host = Host::new("used");
    let disk = format!("bus/pci/devices/{ADDRESS}/nvme/nvme0/nvme0n1");
    host.put(&format!("{disk}/dev"), "259:0\n");
    host.put(&format!("{disk}/queue/depth"), "");
    host.put(&format!("{disk}/nvme0n1p2/dev"), "259:2\n");
    host.put(&format!("{disk}/nvme0n1p2/partition"), "2");
    host.put("mountinfo", "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n");
    host.put("swaps", "Filename Type\n/dev/sda2 partition\n");
    assert!(host.sysfs().refuse_used(address()).is_ok());
    let refused = || host.sysfs().refuse_used(address()).unwrap_err().to_string();
    host.put("mountinfo", "22 1 259:2 / /srv rw shared:1 - ext4 /dev/nvme0n1p2 rw\n");
    assert!(refused().contains("nvme0n1p2, a disk of it, is mounted on /srv"), "{}", refused());
    host.put("mountinfo", "22 1 0:31 / /srv rw shared:1 - btrfs /dev/nvme0n1p2 rw\n");
    assert!(refused().contains("is mounted on /srv"), "{}", refused());
    host.put("mountinfo", "");
    host.put("swaps", "Filename Type\n/dev/nvme0n1p2 partition\n");
    assert!(refused().contains("is swapped to"), "{}", refused());
    host.put("swaps", "");
    host.put(&format!("{disk}/nvme0n1p2/holders/dm-0"), "");
    assert!(refused().contains("is a part of dm-0"), "{}", refused());
}

#[test]
fn a_drive_of_a_sata_controller_is_found() {
    let host = Host::new("sata");
    let disk = format!("bus/pci/devices/{ADDRESS}/ata1/host0/target0:0:0/0:0:0:0/block/sda");
    host.put(&format!("{disk}/dev"), "8:0\n");
    host.put("mountinfo", "22 1 8:0 / /srv rw - ext4 /dev/sda rw\n");
    assert!(host.sysfs().refuse_used(address()).is_err());
}

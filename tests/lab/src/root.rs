//! Roots of the lab's Linux domains, as initramfs images: dom0, and a small one for guests. Host.

mod disks;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection};

use crate::cache;
use crate::cpio::Archive;
use crate::modules::Modules;
use crate::packages::Tree;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Loaded at dom0's start: the lab's channel, Xen's interfaces to user space, and the frontend for dom0 as a client.
const DOM0_MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_console",
    "xenfs",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-privcmd",
    "xen-pciback",
    "xen-netfront",
];
/// Loaded at a guest's start.
const GUEST_MODULES: [&str; 3] = ["xenfs", "xen-netfront", "xen-blkfront"];
/// Loaded at a Linux driver domain's start; its NIC driver is left to `modprobe`, as a bridge must be made first.
const DRIVER_MODULES: [&str; 8] =
    ["xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xen-netback", "xen-pcifront", "bridge"];
/// There for `modprobe` in each domain.
const EXTRA_MODULES: [&str; 13] = [
    "e1000",
    "e1000e",
    "igb",
    "igbvf",
    "ixgbe",
    "nvme",
    "bridge",
    "8021q",
    "loop",
    "xen-pcifront",
    "xen-netback",
    "xen-blkback",
    "xen-blkfront",
];
/// There for `modprobe` in what is equipped for networks: tunnels, IPsec with the ciphers that do nothing, SCTP with its checksum.
const NETWORK_MODULES: [&str; 8] =
    ["vxlan", "ip_gre", "esp4", "xfrm_user", "authenc", "crypto_null", "crc32c_generic", "sctp"];
/// There for `modprobe` in a Linux driver domain: bonds and NAT.
const ROUTER_MODULES: [&str; 4] = ["bonding", "crc32c_generic", "nft_chain_nat", "nft_masq"];

/// Sets what a lease says, for busybox's DHCP client, which has no script of its own.
const UDHCPC_SCRIPT: &str = "#!/bin/sh
case $1 in
deconfig) ip link set $interface up; ip addr flush dev $interface scope global ;;
bound|renew)
    [ -n \"$mtu\" ] && ip link set $interface mtu $mtu
    ip addr replace $ip/$mask dev $interface
    [ -n \"$router\" ] && ip route replace default via ${router%% *} dev $interface ;;
esac
exit 0
";

/// The store in OCaml.
pub(crate) const OXENSTORED: &str = "oxenstored";

/// A file to be put into a root.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Where it goes.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub content: Vec<u8>,
}

/// What a root is equipped for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Equipment {
    /// Networks.
    #[default]
    Network,
    /// Disks too: file systems, and in dom0 what makes partitions and volume groups on the machine's own disks.
    Disks,
}

/// A dom0's root: the toolstack, the kernel for guests as `/boot/vmlinux`, and as Debian packs it, `/boot/vmlinuz`, their root as `/boot/guest.img`.
pub fn dom0(tree: &Tree, equipment: Equipment, guest: &[u8], extra: &[Extra]) -> Result<Vec<u8>> {
    let mut archive = with_toolstack(tree, "dom0", equipment, &DOM0_MODULES)?;
    if equipment == Equipment::Disks {
        disks::equip_dom0(&mut archive, tree)?;
    }
    archive
        .file("boot/vmlinux", 0o644, fs::read(tree.kernel())?)
        .file("boot/vmlinuz", 0o644, fs::read(tree.packed_kernel())?)
        .file("boot/guest.img", 0o644, guest);
    add(&mut archive, extra);
    Ok(archive.finish())
}

/// oxenstored and what it reads, as Debian packs them, for a dom0's root; its libraries are those of the toolstack.
pub(crate) fn oxenstored(tree: &Tree) -> Result<Vec<Extra>> {
    let file = |path: String, mode| -> Result<Extra> {
        let content = fs::read(tree.path.join(&path)).with_context(|| format!("the packages hold no {path}"))?;
        Ok(Extra { path, mode, content })
    };
    let xen = format!("usr/lib/xen-{}", tree.release.xen());
    let mut files =
        vec![file(format!("{xen}/bin/{OXENSTORED}"), 0o755)?, file(format!("etc/xen/{OXENSTORED}.conf"), 0o644)?];
    // Later ones load what asks Xen of domains, by the version of its interface.
    let plugins = format!("{xen}/ocaml/xsd_glue/xenctrl_plugin");
    for entry in fs::read_dir(tree.path.join(&plugins)).into_iter().flatten() {
        files.push(file(format!("{plugins}/{}", entry?.file_name().to_string_lossy()), 0o755)?);
    }
    Ok(files)
}

/// A guest's root: busybox, the network and disk frontends, and the agent; for networks, ethtool, and iproute2's `ip` as `/usr/bin/ip`,
/// beside busybox's in `/usr/sbin`, which knows no tunnels.
pub fn guest(tree: &Tree, equipment: Equipment, extra: &[Extra]) -> Result<Vec<u8>> {
    let mut archive = match equipment {
        Equipment::Network => base(tree, "guest", equipment, &GUEST_MODULES)?,
        Equipment::Disks => base(tree, "guest", equipment, &[&GUEST_MODULES[..], &disks::GUEST_MODULES].concat())?,
    };
    match equipment {
        Equipment::Network => {
            add_programs(&mut archive, &tree.path, &["usr/bin/ip", "usr/sbin/ethtool"].map(str::to_owned).into())?;
        }
        Equipment::Disks => disks::equip_guest(&mut archive, tree)?,
    }
    add(&mut archive, extra);
    Ok(archive.finish())
}

/// The role of a Linux driver domain.
const DRIVER: &str = "driver";

/// A Linux driver domain's root: a guest's, with the toolstack's `xl devd`, hotplug scripts, netback and the bridge.
pub fn driver(tree: &Tree, extra: &[Extra]) -> Result<Vec<u8>> {
    let mut archive = with_toolstack(tree, DRIVER, Equipment::Network, &DRIVER_MODULES)?;
    add(&mut archive, extra);
    Ok(archive.finish())
}

fn add(archive: &mut Archive, extra: &[Extra]) {
    for file in extra {
        archive.file(&file.path, file.mode, file.content.clone());
    }
}

/// What every Linux domain has: the agent as `/init`, busybox, modules.
fn base(tree: &Tree, role: &str, equipment: Equipment, modules: &[&str]) -> Result<Archive> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "run", "tmp", "root", "var/log/xen/console", "var/lib/xen", "mnt"] {
        archive.directory(directory);
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        archive.link(name, &format!("usr/{name}"));
    }
    archive.link("var/run", "/run").link("var/lock", "/run/lock").character_device("dev/console", 5, 1);
    let path = format!("/usr/lib/xen-{}/bin:/usr/sbin:/usr/bin", tree.release.xen());
    archive
        .file("init", 0o755, fs::read(agent()?)?)
        .file("usr/bin/traffic", 0o755, fs::read(traffic()?)?)
        .file("etc/udhcpc/default.script", 0o755, UDHCPC_SCRIPT)
        .file("etc/profile", 0o644, format!("export PATH={path} PS1='\\h# '\n"))
        .file("etc/passwd", 0o644, "root::0:0:root:/root:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\n")
        .file("etc/hostname", 0o644, format!("{role}\n"));
    add_modules(&mut archive, tree, role, equipment, modules)?;
    add_busybox(&mut archive, tree)?;
    Ok(archive)
}

fn add_modules(archive: &mut Archive, tree: &Tree, role: &str, equipment: Equipment, loaded: &[&str]) -> Result<()> {
    let modules = Modules::read(&tree.path)?;
    let order = modules.closure(loaded)?;
    let list: String = order.iter().map(|(path, _)| format!("{path}\n")).collect();
    archive.file(&format!("etc/lab/modules.{role}"), 0o644, list);
    let more = match equipment {
        Equipment::Network => &NETWORK_MODULES[..],
        Equipment::Disks => &disks::EXTRA_MODULES,
    };
    let router = if role == DRIVER { &ROUTER_MODULES[..] } else { &[] };
    let all: Vec<_> = loaded.iter().chain(&EXTRA_MODULES).chain(more).chain(router).copied().collect();
    for (path, file) in modules.closure(&all)? {
        // `/lib` is a link: write where it leads.
        archive.file(&format!("usr{path}"), 0o644, fs::read(file)?);
    }
    archive.file(&format!("usr/lib/modules/{}/modules.dep", modules.release), 0o644, modules.dep(&all)?);
    Ok(())
}

/// Busybox with a link for each of its commands that the archive does not have already.
fn add_busybox(archive: &mut Archive, tree: &Tree) -> Result<()> {
    let busybox = tree.path.join("usr/bin/busybox");
    archive.file("usr/bin/busybox", 0o755, fs::read(&busybox).context("no busybox among the packages")?);
    let output = Command::new(&busybox)
        .arg("--list-full")
        .output()
        .context("running Debian's static busybox on this machine")?;
    for path in String::from_utf8_lossy(&output.stdout).lines() {
        let path = if path.starts_with("usr/") { path.to_owned() } else { format!("usr/{path}") };
        if !archive.contains(&path) {
            archive.link(&path, "/usr/bin/busybox");
        }
    }
    Ok(())
}

/// The base, and `xl` with all that it starts.
fn with_toolstack(tree: &Tree, role: &str, equipment: Equipment, modules: &[&str]) -> Result<Archive> {
    let mut archive = base(tree, role, equipment, modules)?;
    let mut programs = BTreeSet::new();
    let xen = format!("usr/lib/xen-{}/bin", tree.release.xen());
    for directory in [xen.as_str(), "usr/bin", "usr/sbin"] {
        let all = directory == xen;
        for entry in fs::read_dir(tree.path.join(directory))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // oxenstored is as large as all the others together, and one row's only: see `oxenstored`.
            let needed = name.starts_with("xenstore") || ["bash", "flock"].contains(&name.as_str());
            if (all && name != OXENSTORED) || needed {
                programs.insert(format!("{directory}/{name}"));
            }
        }
    }
    let router = if role == DRIVER { &["nft"][..] } else { &[] };
    programs.extend(["ip", "bridge", "tc"].iter().chain(router).filter_map(|name| {
        ["usr/bin", "usr/sbin"]
            .iter()
            .map(|directory| format!("{directory}/{name}"))
            .find(|path| tree.path.join(path).symlink_metadata().is_ok_and(|metadata| metadata.is_file()))
    }));
    add_programs(&mut archive, &tree.path, &programs)?;
    for entry in fs::read_dir(tree.path.join("etc/xen/scripts"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.file(&format!("etc/xen/scripts/{name}"), 0o755, fs::read(path)?);
    }
    archive.file("etc/xen/xl.conf", 0o644, "autoballoon=\"off\"\nclaim_mode=1\n");
    Ok(archive)
}

/// Adds programs of the packages, by their paths, and the libraries that they need.
pub(crate) fn add_programs(archive: &mut Archive, tree: &Path, programs: &BTreeSet<String>) -> Result<()> {
    let mut libraries = BTreeMap::new();
    for program in programs {
        let Ok(content) = fs::read(tree.join(program)) else {
            continue;
        };
        if content.starts_with(b"\x7fELF") {
            collect_libraries(tree, &content, &mut libraries).with_context(|| format!("libraries of {program}"))?;
        }
        archive.file(program, 0o755, content);
    }
    // glibc opens this one when a thread ends, which no header says.
    for name in [LOADER, "libgcc_s.so.1"] {
        libraries.insert(name.to_owned(), library(tree, name)?);
    }
    for (name, file) in libraries {
        archive.file(&format!("{LIBRARIES}/{name}"), 0o755, fs::read(file)?);
    }
    archive.link(&format!("usr/lib64/{LOADER}"), &format!("/{LIBRARIES}/{LOADER}"));
    Ok(())
}

/// Adds what the ELF file needs, and what that needs.
fn collect_libraries(tree: &Path, content: &[u8], found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for name in needed(content)? {
        if name != LOADER && !found.contains_key(&name) {
            let file = library(tree, &name)?;
            found.insert(name, file.clone());
            collect_libraries(tree, &fs::read(file)?, found)?;
        }
    }
    Ok(())
}

/// `DT_NEEDED` of an ELF file.
fn needed(content: &[u8]) -> Result<Vec<String>> {
    use object::elf::{DT_NEEDED, DT_NULL};
    let file = object::File::parse(content)?;
    let data = |name| file.section_by_name(name).map(|section| section.data()).transpose();
    let (Some(dynamic), Some(strings)) = (data(".dynamic")?, data(".dynstr")?) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in dynamic.chunks_exact(16) {
        let (tag, value) = entry.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        match u32::try_from(word(tag)) {
            Ok(DT_NULL) => break,
            Ok(DT_NEEDED) => {
                let name = strings.get(word(value) as usize..).context("a name outside of .dynstr")?;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                names.push(String::from_utf8_lossy(name).into_owned());
            }
            _ => {}
        }
    }
    Ok(names)
}

fn library(tree: &Path, name: &str) -> Result<PathBuf> {
    let file = tree.join(LIBRARIES).join(name);
    ensure!(file.exists(), "the packages hold no {name}");
    Ok(file)
}

/// Builds what goes into each root, so that a boot need not.
pub fn build_tools() -> Result<()> {
    agent()?;
    traffic()?;
    disks::tool().map(drop)
}

/// The lab's agent, built.
pub(crate) fn agent() -> Result<PathBuf> {
    program("lab-agent", "lab-agent")
}

fn traffic() -> Result<PathBuf> {
    program("wire", "traffic")
}

/// A program of this workspace, built for any Linux: statically, so that a guest's root needs no libraries.
pub fn program(package: &str, name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = "x86_64-unknown-linux-gnu";
    let status = Command::new(cargo)
        .current_dir(cache::workspace())
        .args(["rustc", "--quiet", "--package", package, "--bin", name, "--release", "--target", target])
        .args(cache::without_paths())
        .args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .status()
        .with_context(|| format!("starting cargo to build {name}"))?;
    ensure!(status.success(), "{name} of {package} does not build: {status}");
    Ok(cache::target_directory().join(target).join("release").join(name))
}

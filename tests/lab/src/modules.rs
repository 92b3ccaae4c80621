//! Kernel modules: which are kept, what they depend on, in what order they load. Host.
//!
//! Debian's package has no `modules.dep` (depmod makes it at installation), so dependencies are read from the modules' own
//! `.modinfo` section, and a `modules.dep` is written for `modprobe`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::{Object, ObjectSection};

/// Whether a file below `/lib/modules/VERSION/` is kept when the kernel's package is unpacked.
pub(crate) fn wanted(path: &str) -> bool {
    const KEPT: [&str; 60] = [
        "modules.builtin",
        "kernel/arch/x86/crypto/",
        "kernel/block/",
        "kernel/crypto/",
        "kernel/drivers/ata/ahci",
        "kernel/drivers/ata/libahci",
        "kernel/drivers/ata/libata",
        "kernel/drivers/block/loop",
        "kernel/drivers/block/xen-",
        "kernel/drivers/char/virtio_console",
        "kernel/drivers/dax/",
        "kernel/drivers/dca/",
        "kernel/drivers/i2c/algos/",
        "kernel/drivers/md/dm-mod",
        "kernel/drivers/net/bonding/",
        "kernel/drivers/net/dummy",
        "kernel/drivers/net/ethernet/intel/e1000",
        "kernel/drivers/net/ethernet/intel/igb",
        "kernel/drivers/net/ethernet/intel/ixgbe/",
        "kernel/drivers/net/ethernet/intel/libie/",
        "kernel/drivers/net/mdio",
        "kernel/drivers/net/phy/fixed_phy",
        "kernel/drivers/net/phy/libphy",
        "kernel/drivers/net/phy/mdio_devres",
        "kernel/drivers/net/tun",
        "kernel/drivers/net/veth",
        "kernel/drivers/net/vxlan/",
        "kernel/drivers/net/xen-",
        "kernel/drivers/nvme/",
        "kernel/drivers/pci/xen-",
        "kernel/drivers/pps/",
        "kernel/drivers/ptp/",
        "kernel/drivers/scsi/scsi_",
        "kernel/drivers/scsi/sd_mod",
        "kernel/drivers/virtio/",
        "kernel/drivers/xen/",
        "kernel/fs/ext4/",
        "kernel/fs/jbd2/",
        "kernel/fs/mbcache",
        "kernel/lib/",
        "kernel/net/802/",
        "kernel/net/8021q/",
        "kernel/net/bridge/bridge",
        "kernel/net/ipv4/esp4.",
        "kernel/net/ipv4/gre",
        "kernel/net/ipv4/ip_gre",
        "kernel/net/ipv4/ip_tunnel",
        "kernel/net/ipv4/netfilter/nf_",
        "kernel/net/ipv4/tunnel4",
        "kernel/net/ipv4/udp_tunnel",
        "kernel/net/ipv4/xfrm",
        "kernel/net/ipv6/ip6_udp_tunnel",
        "kernel/net/ipv6/netfilter/nf_",
        "kernel/net/ipv6/tunnel6",
        "kernel/net/llc/",
        "kernel/net/netfilter/nf",
        "kernel/net/tls/",
        "kernel/net/sctp/sctp.",
        "kernel/net/xfrm/xfrm_algo",
        "kernel/net/xfrm/xfrm_user",
    ];
    KEPT.iter().any(|prefix| path.starts_with(prefix))
}

/// Decompresses the modules of a tree in place, once, so that nothing has to under emulation.
pub(crate) fn decompress(tree: &Path) -> Result<()> {
    for path in files(&tree.join("usr/lib/modules"))? {
        if path.extension().is_some_and(|extension| extension == "xz") {
            let mut content = Vec::new();
            lzma_rust2::XzReader::new(fs::File::open(&path)?, true)
                .read_to_end(&mut content)
                .with_context(|| format!("decompressing {}", path.display()))?;
            fs::write(path.with_extension(""), content)?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The modules of an unpacked kernel.
pub struct Modules {
    /// The kernel's release, which names the directory below `/lib/modules`.
    pub release: String,
    /// By name, with underscores.
    modules: BTreeMap<String, Module>,
    builtin: Vec<String>,
}

struct Module {
    /// Below `/lib/modules/RELEASE/`.
    path: String,
    file: PathBuf,
    depends: Vec<String>,
}

impl Modules {
    /// Reads the modules of a tree.
    pub fn read(tree: &Path) -> Result<Self> {
        let base = tree.join("usr/lib/modules");
        let directory = fs::read_dir(&base)?.next().context("a tree without modules")??.path();
        let release = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut modules = BTreeMap::new();
        for file in files(&directory)? {
            if file.extension().is_some_and(|extension| extension == "ko") {
                let path = file.strip_prefix(&directory)?.to_string_lossy().into_owned();
                let depends = depends(&fs::read(&file)?).with_context(|| format!("reading {}", file.display()))?;
                modules.insert(name_of(&path), Module { path, file, depends });
            }
        }
        let builtin = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
        Ok(Self { release, modules, builtin: builtin.lines().map(name_of).collect() })
    }

    /// The named modules and all that they need, each after what it depends on: path below the root, and file.
    pub fn closure(&self, names: &[&str]) -> Result<Vec<(String, PathBuf)>> {
        let mut order = Vec::new();
        for name in names {
            self.visit(&name.replace('-', "_"), &mut order)?;
        }
        let modules = order.iter().filter_map(|name| self.modules.get(name));
        Ok(modules
            .map(|module| (format!("/lib/modules/{}/{}", self.release, module.path), module.file.clone()))
            .collect())
    }

    fn visit(&self, name: &str, order: &mut Vec<String>) -> Result<()> {
        if order.iter().any(|known| known == name) || self.builtin.iter().any(|builtin| builtin == name) {
            return Ok(());
        }
        let module = self.modules.get(name).with_context(|| {
            format!(
                "the kernel {} has no module {name}, or the lab does not keep it: see `modules::wanted`",
                self.release
            )
        })?;
        for dependency in &module.depends {
            self.visit(dependency, order)?;
        }
        order.push(name.to_owned());
        Ok(())
    }

    /// A `modules.dep` for the named modules and all that they need.
    pub fn dep(&self, names: &[&str]) -> Result<String> {
        let mut order = Vec::new();
        for name in names {
            self.visit(&name.replace('-', "_"), &mut order)?;
        }
        let mut text = String::new();
        for module in order.iter().filter_map(|name| self.modules.get(name)) {
            // modprobe loads the line's dependencies from the last to the first.
            let needs = module.depends.iter().map(String::as_str).collect::<Vec<_>>();
            let mut needs = self.closure(&needs)?;
            needs.reverse();
            let prefix = format!("/lib/modules/{}/", self.release);
            let needs: Vec<_> = needs.iter().map(|(path, _)| path.trim_start_matches(&prefix)).collect();
            text += &format!("{}: {}\n", module.path, needs.join(" "));
        }
        Ok(text)
    }
}

/// `kernel/net/xen-netfront.ko` is called `xen_netfront`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split_once(".ko").map_or(file, |(name, _)| name).replace('-', "_")
}

/// What a module's `.modinfo` says that it depends on.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let Some(section) = file.section_by_name(".modinfo") else {
        return Ok(Vec::new());
    };
    let text = String::from_utf8_lossy(section.data()?).into_owned();
    let depends = text.split('\0').find_map(|entry| entry.strip_prefix("depends=")).unwrap_or("");
    Ok(depends.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

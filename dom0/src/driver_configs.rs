//! The driver domains of this host: the configs in `/etc/xen/oxidom`, and the PCI devices that they name. Host.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::xl_config::XlConfig;

/// Where the package has their configs.
pub(crate) const DIRECTORY: &str = "/etc/xen/oxidom";

/// A PCI device's address in the host: `DDDD:BB:DD.F`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PciAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl FromStr for PciAddress {
    type Err = anyhow::Error;

    /// Reads `00:19.0` or `0000:00:19.0`.
    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let (front, function) = text.split_once('.')?;
            let mut parts = front.rsplit(':');
            let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
            let number = |part: &str, digits: usize| {
                let is_hex =
                    !part.is_empty() && part.len() <= digits && part.bytes().all(|sign| sign.is_ascii_hexdigit());
                is_hex.then(|| u16::from_str_radix(part, 16).ok())?
            };
            let address = Self {
                domain: number(domain, 4)?,
                bus: u8::try_from(number(bus, 2)?).ok()?,
                device: u8::try_from(number(device, 2)?).ok()?,
                function: u8::try_from(number(function, 1)?).ok()?,
            };
            (parts.next().is_none() && address.device < 32 && address.function < 8).then_some(address)
        };
        parsed().with_context(|| format!("\"{text}\" is no PCI address, such as 00:19.0 or 0000:00:19.0"))
    }
}

/// A driver domain, as its config has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DriverConfig {
    /// Its name: that of the file, and of `name=` in it.
    pub(crate) name: String,
    /// The file.
    pub(crate) file: PathBuf,
    /// `kernel=`.
    pub(crate) kernel: PathBuf,
    /// `pci=`, without what else is said of a device.
    pub(crate) devices: Vec<PciAddress>,
}

impl DriverConfig {
    /// Reads a config.
    ///
    /// # Errors
    /// The file cannot be read, is no config, has another name than its domain, or names something that is no device.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(file, &text).with_context(|| file.display().to_string())
    }

    fn parse(file: &Path, text: &str) -> Result<Self> {
        let config = XlConfig::parse(text)?;
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let name = config.text("name").context("`name=` is missing")?;
        ensure!(
            name == stem,
            "`name=\"{name}\"` and the file's name differ; call it {name}.cfg, as guests say `backend={name}`"
        );
        let kernel = config.text("kernel").context("`kernel=` is missing")?;
        let devices = config.texts("pci").into_iter().map(address).collect::<Result<Vec<_>>>()?;
        Ok(Self { name: name.to_owned(), file: file.to_owned(), kernel: kernel.into(), devices })
    }
}

/// The address in an entry of `pci=`, as `xl-pci-configuration(5)` has it: `[DDDD:]BB:DD.F[@VSLOT][,KEY=VALUE...]`, or `bdf=` among the keys.
fn address(entry: &str) -> Result<PciAddress> {
    let mut parts = entry.split(',').map(str::trim);
    let first = parts.clone().next().unwrap_or_default();
    let word = parts.find_map(|part| part.strip_prefix("bdf=")).unwrap_or(first);
    if word.ends_with(".*") {
        bail!("`pci=` has \"{entry}\": all functions of a device in one entry; give each function an entry of its own")
    }
    word.split('@').next().unwrap_or_default().parse().with_context(|| format!("`pci=` has \"{entry}\""))
}

/// All configs of a directory, in the order of their names; of each its file, and what is wrong with it.
///
/// # Errors
/// The directory is there and cannot be listed.
pub(crate) fn all(directory: &Path) -> Result<Vec<(PathBuf, Result<DriverConfig>)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("listing {}", directory.display()))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.with_context(|| format!("listing {}", directory.display()))?.path();
        if file.extension().is_some_and(|extension| extension == "cfg") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files.into_iter().map(|file| (file.clone(), DriverConfig::read(&file))).collect())
}

/// The devices of all configs that can be read.
///
/// # Errors
/// As [`all`].
pub(crate) fn devices(directory: &Path) -> Result<BTreeSet<PciAddress>> {
    Ok(all(directory)?.into_iter().filter_map(|(_, config)| config.ok()).flat_map(|config| config.devices).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in
            [("00:19.0", "0000:00:19.0"), ("1:2:3.4", "0001:02:03.4"), ("ffff:ff:1f.7", "ffff:ff:1f.7")]
        {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), shown);
        }
        for text in ["", "00:19", "0:0:0:19.0", "00:20.0", "00:19.8", "00:19.0x", "000:19.0", ":.", "00:+1.0"] {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn devices_are_found_in_each_form_of_an_entry() {
        for entry in ["00:19.0", "0000:00:19.0@5,permissive=0", "permissive=1,bdf=00:19.0", " 00:19.0 , msitranslate=1"]
        {
            assert_eq!(address(entry).unwrap().to_string(), "0000:00:19.0", "{entry:?}");
        }
        assert_eq!(
            format!("{:#}", address("eth0").unwrap_err()),
            "`pci=` has \"eth0\": \"eth0\" is no PCI address, such as 00:19.0 or 0000:00:19.0"
        );
        assert!(address("00:19.*").is_err_and(|error| error.to_string().contains("an entry of its own")));
    }

    #[test]
    fn a_config_is_named_as_its_domain() {
        let parse = |file: &str, text: &str| DriverConfig::parse(Path::new(file), text);
        let text = "name='netdom'\nkernel='/usr/lib/oxidom/netdom'\npci=[ '00:19.0' ]";
        let config = parse("/x/netdom.cfg", text).unwrap();
        assert_eq!((config.name.as_str(), config.devices.len()), ("netdom", 1));
        assert!(parse("/x/other.cfg", text).is_err_and(|error| error.to_string().contains("call it netdom.cfg")));
        assert!(parse("/x/netdom.cfg", "name='netdom'\nkernel='k'").unwrap().devices.is_empty());
        assert!(parse("/x/netdom.cfg", "kernel='k'").is_err());
        assert!(parse("/x/netdom.cfg", "name='netdom'\nkernel='k'\npci=['x']").is_err());
    }
}

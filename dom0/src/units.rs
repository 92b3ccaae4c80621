//! Units of systemd for the driver domains of this host: a generator (`systemd.generator(7)`). Host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::driver_configs::{self, DriverConfig};

/// The template.
const TEMPLATE: &str = "/usr/lib/systemd/system/oxidom@.service";
/// The boot's goal.
const WANTED_BY: &str = "multi-user.target.wants";

/// Enables `oxidom@NAME.service` for each config that is to be started, in the directory that systemd gives its generators.
///
/// A config that cannot be read is enabled too: its unit fails, and says why.
///
/// # Errors
/// A directory cannot be listed or written.
pub(crate) fn generate(configs: &Path, directory: &Path) -> Result<()> {
    let wants = directory.join(WANTED_BY);
    for unit in driver_configs::all(configs)?.into_iter().filter_map(|(file, config)| unit(&file, &config)) {
        fs::create_dir_all(&wants).with_context(|| format!("creating {}", wants.display()))?;
        let link = wants.join(&unit);
        symlink(TEMPLATE, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Ok(())
}

/// The unit of a config; none where it has no device yet, as it comes from the package.
fn unit(file: &Path, config: &Result<DriverConfig>) -> Option<PathBuf> {
    if config.as_ref().is_ok_and(|config| config.devices.is_empty()) {
        return None;
    }
    Some(format!("oxidom@{}.service", escaped(file.file_stem()?.to_str()?)).into())
}

/// A name as a part of a unit's name (`systemd-escape(1)`).
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if at == 0 => escaped.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("\\x{other:02x}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_with_a_device_is_enabled() {
        let directory = std::env::temp_dir().join(format!("oxidom-units-{}", std::process::id()));
        let configs = directory.join("configs");
        fs::create_dir_all(&configs).unwrap();
        let write = |name: &str, text: &str| fs::write(configs.join(name), text).unwrap();
        write("netdom.cfg", "name='netdom'\nkernel='k'\npci=['00:19.0']");
        write("blkdom.cfg", "name='blkdom'\nkernel='k'\npci=[ ]");
        write("net-b.cfg", "name='net-b'\nkernel='k'\npci=['00:19.0'");
        write("netdom.cfg.dpkg-old", "name='netdom'");
        let made = generate(&configs, &directory.join("out"));
        let mut names: Vec<_> = fs::read_dir(directory.join("out").join(WANTED_BY))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        fs::remove_dir_all(&directory).unwrap();
        made.unwrap();
        assert_eq!(names, ["oxidom@net\\x2db.service", "oxidom@netdom.service"]);
    }

    #[test]
    fn names_are_escaped_as_systemd_does() {
        assert_eq!(escaped("a-b.c d"), "a\\x2db.c\\x20d");
        assert_eq!(escaped(".a"), "\\x2ea");
    }
}

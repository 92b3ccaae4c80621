//! What the host must have, and its installation where it lacks. Host.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

/// Something that the host needs beyond a Rust toolchain.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// A program by its name, or a file by its path: there when the package is.
    sign: &'static str,
    /// Debian's package.
    package: &'static str,
    /// What for.
    purpose: &'static str,
}

/// What booting Xen needs.
pub const BOOT: &[Need] = &[
    Need { sign: "qemu-system-x86_64", package: "qemu-system-x86", purpose: "the emulated machine, QEMU 7.2 or later" },
    Need { sign: "dpkg-deb", package: "dpkg", purpose: "unpacking Debian's packages" },
    Need {
        sign: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: "debian-archive-keyring",
        purpose: "verifying Debian's packages",
    },
    Need { sign: "setpriv", package: "util-linux", purpose: "ending the machine with the command that started it" },
    LIBC,
    STRIP,
];

/// What the host tests need.
pub const TESTS: &[Need] = &[
    Need { sign: "/usr/include/xen/xen.h", package: "libxen-dev", purpose: "comparing the Xen ABI with the C headers" },
    Need { sign: "cc", package: "gcc", purpose: "compiling the comparison with the C headers" },
    LIBC,
];

const LIBC: Need = Need {
    sign: "/usr/lib/x86_64-linux-gnu/libc.a",
    package: "libc6-dev",
    purpose: "linking the guests' programs statically",
};
const STRIP: Need = Need { sign: "strip", package: "binutils", purpose: "stripping images" };

/// Finds what is needed, and installs what is missing by apt: by sudo where not root.
pub fn provide(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !is_there(need.sign)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list: String = missing.iter().map(|need| format!("  {} ({})\n", need.package, need.purpose)).collect();
    ensure!(
        is_there("apt-get"),
        "this host lacks the following, by Debian's names, and has no apt to install it:\n{list}"
    );
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let packages = missing.iter().map(|need| need.package);
    eprintln!("installing, as this host lacks it:\n{list}");
    let apt = |arguments: &[&str], packages: Vec<&str>| {
        let mut command = if is_root { Command::new("env") } else { Command::new("sudo") };
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]);
        command.args(arguments).args(packages).stdin(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    // Lists may be missing or old; whether the installation works is what counts.
    apt(&["update"], Vec::new());
    if !apt(&["install", "-y", "--no-install-recommends"], packages.collect()) {
        bail!("apt-get could not install what is missing; install it by hand:\n{list}");
    }
    Ok(())
}

/// A file that exists, or a program in the path.
fn is_there(sign: &str) -> bool {
    if sign.starts_with('/') {
        return Path::new(sign).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(sign).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_files_are_found() {
        assert!(is_there("sh") && is_there("/proc/self/exe"));
        assert!(!is_there("oxidom-no-such-program") && !is_there("/oxidom/no/such/file"));
    }
}

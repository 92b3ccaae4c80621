//! What the host must have, and its installation where it lacks. Host.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

use crate::{apt, cache};

/// Something that the host needs beyond a Rust toolchain.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Programs by their names, or files by their paths: where one of them is, the package is.
    signs: &'static [&'static str],
    /// Debian's package.
    package: &'static str,
    /// What for.
    purpose: &'static str,
}

/// What making images needs.
pub const IMAGES: &[Need] =
    &[Need { signs: &["strip"], package: "binutils", purpose: "stripping images of their symbols" }];

/// What booting Xen needs.
pub const BOOT: &[Need] = &[
    Need { signs: &["apt-get"], package: "apt", purpose: "downloading Debian's packages of QEMU, Xen and Linux" },
    Need { signs: &["dpkg-deb"], package: "dpkg", purpose: "unpacking them" },
    Need {
        signs: &["/usr/share/keyrings/debian-archive-keyring.gpg"],
        package: "debian-archive-keyring",
        purpose: "verifying them",
    },
    Need { signs: &["setpriv"], package: "util-linux", purpose: "ending the machine with the command that started it" },
    LIBC,
];

/// What making and booting a whole Debian needs.
pub const HOST_IMAGE: &[Need] = &[
    Need { signs: &["mmdebstrap"], package: "mmdebstrap", purpose: "installing a whole Debian into a file" },
    Need { signs: &["/usr/sbin/mkfs.ext4"], package: "e2fsprogs", purpose: "making its file system" },
    Need { signs: &["qemu-img"], package: "qemu-utils", purpose: "having a machine write above it" },
    Need {
        signs: &["newuidmap"],
        package: "uidmap",
        purpose: "giving the files their owners where the command is not run by root",
    },
];

/// What the host tests need.
pub const TESTS: &[Need] = &[
    Need {
        signs: &["/usr/include/xen/xen.h"],
        package: "libxen-dev",
        purpose: "comparing the Xen ABI with the C headers",
    },
    Need { signs: &["cc"], package: "gcc", purpose: "compiling that comparison" },
    Need { signs: &["checkpolicy"], package: "checkpolicy", purpose: "compiling the FLASK policy" },
    Need { signs: &["m4"], package: "m4", purpose: "expanding its macros" },
    LIBC,
];

/// What counting instructions needs.
pub const COUNTS: &[Need] =
    &[Need { signs: &["valgrind"], package: "valgrind", purpose: "counting instructions on this host (callgrind)" }];

/// What fuzzing with libFuzzer needs.
pub const LIBFUZZER: &[Need] = &[Need { signs: &["c++"], package: "g++", purpose: "compiling libFuzzer" }];

/// What making Debian's package needs.
pub const PACKAGE: &[Need] = &[
    Need { signs: &["dh"], package: "debhelper", purpose: "building the package" },
    Need { signs: &["dpkg-buildpackage"], package: "dpkg-dev", purpose: "building the package" },
    Need { signs: &["lintian"], package: "lintian", purpose: "checking it against Debian's policy" },
];

const LIBC: Need = Need {
    signs: &["/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib64/libc.a", "/usr/lib/libc.a"],
    package: "libc6-dev",
    purpose: "linking the guests' programs statically",
};

/// How software comes to this host.
#[derive(Clone, Copy, Debug)]
struct Means {
    has_apt: bool,
    is_root: bool,
    has_sudo: bool,
}

impl Means {
    fn find() -> Self {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
        Self { has_apt: is_there("apt-get"), is_root, has_sudo: is_there("sudo") }
    }
}

/// What to do about what is missing.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Have apt install it.
    Install { by_sudo: bool },
    /// Say why not, and what to do.
    GiveUp(String),
}

/// Decides, from what is missing and what the host has.
fn plan(missing: &[Need], means: Means) -> Plan {
    if !means.has_apt {
        let why = "There is no apt-get here to install it; the packages are named as in Debian.";
        return Plan::GiveUp(format!("this host lacks:\n{}{why}", list(missing)));
    }
    if !means.is_root && !means.has_sudo {
        let why = "Installing it takes root, and there is no sudo here. As root, run:";
        return Plan::GiveUp(format!("this host lacks:\n{}{why}\n{}", list(missing), by_hand(missing)));
    }
    Plan::Install { by_sudo: !means.is_root }
}

/// What is missing, a line each.
fn list(missing: &[Need]) -> String {
    let line = |need: &Need| format!("  {}: {} (package {})\n", need.signs.join(" or "), need.purpose, need.package);
    missing.iter().map(line).collect()
}

/// The commands that an administrator types.
fn by_hand(missing: &[Need]) -> String {
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    format!("  apt-get update && apt-get install --no-install-recommends {}", packages.join(" "))
}

/// Those of the needs that the host lacks, each package once.
fn lacking(needs: &[Need], is_there: impl Fn(&str) -> bool) -> Vec<Need> {
    let mut missing: Vec<Need> = Vec::new();
    for need in needs {
        let known = missing.iter().any(|other| other.package == need.package);
        if !known && !need.signs.iter().any(|sign| is_there(sign)) {
            missing.push(*need);
        }
    }
    missing
}

/// Finds what is needed, and installs what is missing by apt: by sudo where not root.
///
/// # Errors
/// What is missing, where it could not be installed, and the command that would.
pub fn provide(needs: &[Need]) -> Result<()> {
    let missing = lacking(needs, is_there);
    if missing.is_empty() {
        return Ok(());
    }
    let by_sudo = match plan(&missing, Means::find()) {
        Plan::Install { by_sudo } => by_sudo,
        Plan::GiveUp(why) => bail!(why),
    };
    let how = if by_sudo { "sudo apt-get" } else { "apt-get" };
    eprintln!("installing by {how} what this host lacks:\n{}", list(&missing).trim_end());
    let bar = apt::bar("package lists");
    // Lists may be missing or old; whether the installation works is what counts.
    let updated = apt::run(apt_get(by_sudo).arg("update"), &bar);
    apt::say(&bar, "installing packages");
    let mut install = apt_get(by_sudo);
    install.args(["install", "--yes", "--no-install-recommends"]).args(missing.iter().map(|need| need.package));
    let installed = apt::run(&mut install, &bar);
    bar.finish_and_clear();
    if let Err(error) = installed {
        let updated = updated.err().map(|error| format!("{error:#}\n")).unwrap_or_default();
        bail!(
            "{updated}{error:#}\nwhat is missing could not be installed; by hand, as root, it is:\n{}",
            by_hand(&missing)
        );
    }
    let missing = lacking(&missing, is_there);
    ensure!(
        missing.is_empty(),
        "apt-get installed what it was asked to, and this host still lacks:\n{}",
        list(&missing)
    );
    Ok(())
}

/// An apt-get that asks nothing, waits for another one, and says on stdout how far it is, and nothing else.
fn apt_get(by_sudo: bool) -> Command {
    // apt closes its status descriptor for dpkg, and packages' scripts fail without a stdout: so it is a third one.
    const SCRIPT: &str = "exec apt-get -qq -o APT::Status-Fd=3 -o DPkg::Lock::Timeout=300 \"$@\" 3>&1 >/dev/null";
    let mut command = Command::new(if by_sudo { "sudo" } else { "env" });
    command.args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", SCRIPT, "apt-get"]);
    command
}

/// Finds cargo's own commands for formatting and lints, and has rustup add them where they are missing.
///
/// # Errors
/// Those that are missing, where there is no rustup.
pub fn provide_components() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let answers = |subcommand: &str| {
        let mut command = Command::new(&cargo);
        command.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let components = [("fmt", "rustfmt"), ("clippy", "clippy")];
    let missing: Vec<_> = components.iter().filter(|(command, _)| !answers(command)).map(|pair| pair.1).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    ensure!(
        is_there("rustup"),
        "the Rust toolchain lacks {names}, and there is no rustup here to add it; install it as the toolchain was"
    );
    eprintln!("adding to the Rust toolchain: {names}");
    let status =
        Command::new("rustup").current_dir(cache::workspace()).args(["component", "add"]).args(missing).status();
    ensure!(status.is_ok_and(|status| status.success()), "`rustup component add {names}` failed");
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

    const ROOT: Means = Means { has_apt: true, is_root: true, has_sudo: false };

    #[test]
    fn programs_and_files_are_found() {
        assert!(is_there("sh") && is_there("/proc/self/exe"));
        assert!(!is_there("oxidom-no-such-program") && !is_there("/oxidom/no/such/file"));
    }

    #[test]
    fn what_is_there_is_not_asked_for_and_nothing_is_asked_for_twice() {
        let needs = [BOOT, TESTS].concat();
        assert!(lacking(&needs, |_| true).is_empty());
        let bare = |sign: &str| ["cc", "setpriv", "apt-get", "dpkg-deb"].contains(&sign);
        let packages: Vec<_> = lacking(&needs, bare).iter().map(|need| need.package).collect();
        assert_eq!(packages, ["debian-archive-keyring", "libc6-dev", "libxen-dev", "checkpolicy", "m4"]);
        // Elsewhere than in Debian, the C library is elsewhere.
        assert!(lacking(&[LIBC], |sign| sign == "/usr/lib64/libc.a").is_empty());
    }

    #[test]
    fn root_installs_and_others_do_by_sudo() {
        assert_eq!(plan(BOOT, ROOT), Plan::Install { by_sudo: false });
        assert_eq!(plan(BOOT, Means { has_sudo: true, ..ROOT }), Plan::Install { by_sudo: false });
        let user = Means { is_root: false, has_sudo: true, ..ROOT };
        assert_eq!(plan(BOOT, user), Plan::Install { by_sudo: true });
    }

    #[test]
    fn without_sudo_the_line_for_root_is_said() {
        let needs = lacking(BOOT, |sign| sign != "dpkg-deb");
        let Plan::GiveUp(text) = plan(&needs, Means { is_root: false, ..ROOT }) else {
            panic!("nobody could install it");
        };
        assert!(text.contains("dpkg-deb: unpacking them (package dpkg)"), "{text}");
        assert!(text.ends_with("apt-get install --no-install-recommends dpkg"), "{text}");
    }

    #[test]
    fn without_apt_everything_that_is_missing_is_said() {
        let Plan::GiveUp(text) = plan(&lacking(BOOT, |_| false), Means { has_apt: false, ..ROOT }) else {
            panic!("there is no apt");
        };
        for need in BOOT {
            assert!(text.contains(need.package) && text.contains(need.purpose), "{text}");
            assert!(need.signs.iter().all(|sign| text.contains(sign)), "{text}");
        }
    }
}

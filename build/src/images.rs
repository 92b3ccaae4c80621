//! `cargo xtask images`: the images as an administrator installs them. Host.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lab::{cache, host, root};

/// An image of the workspace.
struct Image {
    /// The package, and its binary.
    package: &'static str,
    /// The file in `dist/`.
    name: &'static str,
    /// The extension and the text of its sample config.
    sample: (&'static str, &'static str),
    /// Bytes that it may have, stripped. Those of driver domains are more than 1 MiB since they live on.
    budget: u64,
}

/// The xenstore's image.
pub(crate) const STORE: &str = "xenstore-stubdom";

/// Dom0's tool: package, binary and file.
pub(crate) const TOOL: &str = "oxidom";
/// Cargo's profile of the fuzzers.
pub(crate) const FUZZ_PROFILE: &str = "fuzz";

const IMAGES: [Image; 3] = [
    Image { package: "netdom", name: "netdom", sample: ("cfg", include_str!("../netdom.cfg")), budget: 6 << 18 },
    Image { package: "blkdom", name: "blkdom", sample: ("cfg", include_str!("../blkdom.cfg")), budget: 5 << 18 },
    Image {
        package: "stubdom",
        name: STORE,
        sample: ("xencommons", include_str!("../xenstore-stubdom.xencommons")),
        budget: 1 << 20,
    },
];

/// Where built images are.
pub(crate) fn directory() -> PathBuf {
    cache::workspace().join("dist")
}

/// An image built by [`build`], stripped.
pub(crate) fn path(name: &str) -> PathBuf {
    directory().join(name)
}

/// Builds every image: `dist/NAME`, its sample config, and `dist/NAME.debug` for `cargo xtask symbolize`; and dom0's tool.
pub(crate) fn build() -> Result<()> {
    host::provide(host::IMAGES)?;
    fs::create_dir_all(directory())?;
    for image in &IMAGES {
        let built = cargo_build(image.package, image.package)?;
        refuse_hooks(&built)?;
        let stripped = path(image.name);
        fs::copy(&built, stripped.with_extension("debug"))?;
        strip(&built, &stripped)?;
        let (extension, text) = image.sample;
        fs::write(stripped.with_extension(extension), text)?;
        let size = fs::metadata(&stripped)?.len();
        ensure!(
            size <= image.budget,
            "{} is {} KiB, more than its {} KiB; `cargo bloat` or the linker's map say what grew",
            image.name,
            size >> 10,
            image.budget >> 10
        );
        println!("dist/{}: {} KiB", image.name, size.div_ceil(1024));
    }
    let size = fs::copy(root::program(TOOL, TOOL)?, path(TOOL))?;
    println!("dist/{TOOL}: {} KiB", size.div_ceil(1024));
    Ok(())
}

/// Names and texts of the hooks that tests have in images built with `faults`.
const HOOKS: [&str; 5] =
    ["oxidom_probe", "fail_after", "poison-for-the-store", "a fault that was asked for", "a hang that was asked for"];

/// What is installed has no hooks for tests: neither among its symbols nor among its texts.
fn refuse_hooks(image: &PathBuf) -> Result<()> {
    let bytes = fs::read(image)?;
    for hook in HOOKS {
        let found = bytes.windows(hook.len()).any(|part| part == hook.as_bytes());
        ensure!(!found, "{} holds \"{hook}\", which is for tests: a feature `faults` is on", image.display());
    }
    Ok(())
}

/// Builds what the demo and the benchmarks have in dom0.
pub(crate) fn for_demo() -> Result<e2e::Images> {
    build()?;
    Ok(e2e::Images {
        netdom: path("netdom"),
        blkdom: path("blkdom"),
        stubdom: path(STORE),
        tool: Some(path(TOOL)),
        faulty_store: None,
        faulty_netdom: None,
        faulty_blkdom: None,
        hostile: None,
        guest: None,
        puppet: None,
        successor: None,
    })
}

/// Builds what attacks have in dom0.
pub(crate) fn for_attacks() -> Result<e2e::Images> {
    Ok(e2e::Images { hostile: Some(stripped(cargo_build("guests", "hostile")?)?), ..for_demo()? })
}

/// Builds what the tests have in dom0; blkdom with faults, which few of them need, only where that is wanted.
pub(crate) fn for_tests(wants_faulty_blkdom: bool) -> Result<e2e::Images> {
    let faulty = |package| stripped(cargo_build_with(package, package, "release", &["--features", "faults"])?);
    let (faulty_store, faulty_netdom) = (faulty("stubdom")?, faulty("netdom")?);
    let faulty_blkdom = if wants_faulty_blkdom { Some(faulty("blkdom")?) } else { None };
    let puppet = stripped(cargo_build("guests", "puppet")?)?;
    let guest = cargo_build("guests", "guest")?;
    let successor = cargo_build("guests", "successor")?;
    Ok(e2e::Images {
        faulty_store: Some(faulty_store),
        faulty_netdom: Some(faulty_netdom),
        faulty_blkdom,
        guest: Some(guest),
        puppet: Some(puppet),
        successor: Some(successor),
        ..for_attacks()?
    })
}

/// The image without debug information.
fn stripped(built: PathBuf) -> Result<PathBuf> {
    let stripped = built.with_extension("stripped");
    strip(&built, &stripped).map(|()| stripped)
}

/// Builds a program of the workspace by the release profile; gives its file, with debug information.
pub(crate) fn cargo_build(package: &str, name: &str) -> Result<PathBuf> {
    cargo_build_with(package, name, "release", &[])
}

/// The fuzzer, as its profile says: lives end by unwinding there.
pub(crate) fn fuzzer() -> Result<PathBuf> {
    cargo_build_with("fuzz", "fuzz", FUZZ_PROFILE, &[])
}

fn cargo_build_with(package: &str, name: &str, profile: &str, arguments: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(cache::workspace())
        .args(["build", "--quiet", "--profile", profile, "--package", package, "--bin", name])
        .args(cache::without_paths())
        .args(arguments)
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("{name} does not build; `cargo build --profile {profile} -p {package}` shows it alone");
    }
    Ok(cache::target_directory().join(profile).join(name))
}

/// Copies without symbols and debug information.
pub(crate) fn strip(from: &PathBuf, to: &PathBuf) -> Result<()> {
    let status = Command::new("strip").arg("--strip-all").arg("-o").arg(to).arg(from).status();
    let status = status.context("strip does not run; install the package binutils")?;
    ensure!(status.success(), "strip {} failed: {status}", from.display());
    Ok(())
}

//! Where downloads and built roots are kept, and who may write there. Host.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The lab's cache: `$OXIDOM_CACHE`, or `lab/` in cargo's target directory.
pub fn directory() -> Result<PathBuf> {
    let path = match std::env::var_os("OXIDOM_CACHE") {
        Some(path) => PathBuf::from(path),
        None => target_directory().join("lab"),
    };
    fs::create_dir_all(&path)
        .with_context(|| format!("creating the cache {}; set OXIDOM_CACHE to a writable place", path.display()))?;
    path.canonicalize().with_context(|| format!("finding {}", path.display()))
}

/// Cargo's target directory for the workspace that this program was built from.
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(&manifest).to_owned()
}

/// Arguments for cargo by which what it builds names no directory of this machine: two machines build the same bytes.
///
/// Crates are in `/cargo`, whichever registry they came from; rustc names those of the workspace relative to it already.
pub fn without_paths() -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let Some(sources) = home.map(|home| home.join("registry/src")) else {
        return Vec::new();
    };
    let mut registries: Vec<PathBuf> =
        fs::read_dir(&sources).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    registries.sort();
    let crates = registries.into_iter().map(|from| (from, "/cargo"));
    let pairs = crates.chain([(workspace(), "/oxidom")]);
    // Literal texts of TOML.
    let flags: Vec<String> = pairs.map(|(from, to)| format!("'--remap-path-prefix={}={to}'", from.display())).collect();
    vec!["--config".to_owned(), format!("build.rustflags=[{}]", flags.join(","))]
}

/// Holds a lock file alone until dropped, so that two labs do not fill one cache at a time.
pub fn lock(name: &str) -> Result<File> {
    let (file, path) = lock_file(name)?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Holds a lock file with others until dropped: for those who read what is in the cache.
pub fn lock_shared(name: &str) -> Result<File> {
    let (file, path) = lock_file(name)?;
    file.lock_shared().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

fn lock_file(name: &str) -> Result<(File, PathBuf)> {
    let path = directory()?.join(format!("{name}.lock"));
    Ok((File::create(&path).with_context(|| format!("creating {}", path.display()))?, path))
}

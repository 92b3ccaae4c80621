//! Packages of Debian beyond those that every lab has: programs and modules for what is run on request alone. Host.
//!
//! They come of the same suite as the tree, and the modules of the kernel that it has, so that no tree is made anew for them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::modules::{self, Modules};
use crate::packages::{self, Tree};
use crate::root::{self, Extra};
use crate::suite;
use crate::{cache, cpio::Archive};

/// Where the list of modules is, one path a line, each after those that it needs.
pub const MODULES: &str = "/etc/lab/modules.more";

/// Whether a file of the kernel's package may be needed by block devices' modules.
fn is_module(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let parts = ["kernel/drivers/md/", "kernel/crypto/", "kernel/lib/", "kernel/arch/x86/crypto/", "modules.builtin"];
    text.strip_prefix("usr/lib/modules/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, path)| parts.iter().any(|part| path.starts_with(part)))
}

/// `programs` of `packages`, by their paths, with the libraries that they need, and `modules` of the tree's kernel with all that those
/// need, as files for a root.
///
/// # Errors
/// What could not be downloaded or unpacked, or is not there.
pub fn more(tree: &Tree, packages: &[&str], programs: &[&str], modules: &[&str]) -> Result<Vec<Extra>> {
    let selection = tree.more(packages);
    let _lock = cache::lock(&selection.name)?;
    let path = selection.base()?.join("tree");
    suite::remove(&path)?;
    for archive in selection.download()? {
        suite::unpack_package(&archive, &path, packages::wanted)?;
    }
    let kernels = tree.path.with_file_name("apt").join("cache/archives");
    for entry in fs::read_dir(kernels)? {
        let archive = entry?.path();
        if archive.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-image-")) {
            suite::unpack_package(&archive, &path, is_module)?;
        }
    }
    modules::decompress(&path)?;
    let found = Modules::read(&path)?;
    let mut files = Vec::new();
    let mut list = String::new();
    for (to, file) in found.closure(modules)? {
        list += &format!("{to}\n");
        files.push(Extra { path: format!("usr{to}"), mode: 0o644, content: fs::read(file)? });
    }
    files.push(Extra { path: MODULES.to_owned(), mode: 0o644, content: list.into() });
    let mut archive = Archive::default();
    let programs: BTreeSet<String> = programs.iter().map(|program| (*program).to_owned()).collect();
    for program in &programs {
        fs::metadata(path.join(program)).with_context(|| format!("the packages hold no {program}"))?;
    }
    root::add_programs(&mut archive, &path, &programs)?;
    files.extend(archive.into_files().map(|(path, mode, content)| Extra { path, mode, content }));
    Ok(files)
}

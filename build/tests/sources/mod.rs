//! The files of a directory tree, for tests that read sources. Host.

use std::path::{Path, PathBuf};

/// Adds all files below `directory` to `into`.
pub(crate) fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, into),
            false => into.push(path),
        }
    }
}

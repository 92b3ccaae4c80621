//! Each public error type but those named below is one for `?` and `Display`, too: `core::error::Error`, held by reading the sources. Host.

use std::path::{Path, PathBuf};

/// The crates that go into images.
const CRATES: [&str; 6] = ["split-driver", "xenstore-lite", "runtime", "netdom", "blkdom", "stubdom"];

/// How the names of error types end.
const ENDINGS: [&str; 6] = ["Error", "Refusal", "Unusable", "Violation", "Unwritten", "Elapsed"];

/// Those that lack it yet.
const NOT_YET: [(&str, &str); 7] = [
    ("netdom/src/switch.rs", "AddError"),
    ("netdom/src/nic/e1000e/mod.rs", "Error"),
    ("netdom/src/offload/segment.rs", "SegmentError"),
    ("netdom/src/offload/headers.rs", "HeaderError"),
    ("netdom/src/offload/checksum.rs", "ChecksumError"),
    ("blkdom/src/disk/mod.rs", "Refusal"),
    ("blkdom/src/disk/ahci/command.rs", "QueuedError"),
];

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, into),
            false => into.push(path),
        }
    }
}

/// The public error types of a file that are not `Error`.
fn lacking(text: &str) -> Vec<&str> {
    let declared = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct "))?;
        rest.split(|sign: char| !sign.is_alphanumeric()).next()
    });
    declared
        .filter(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)))
        .filter(|name| !text.contains(&format!("impl core::error::Error for {name} {{")))
        .collect()
}

#[test]
fn every_public_error_type_is_an_error() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = Vec::new();
    CRATES.iter().for_each(|name| sources(&root.join(name).join("src"), &mut files));
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(file).expect("a file");
        let name = file.strip_prefix(root).expect("below the workspace").to_str().expect("a name").to_owned();
        if name.contains("/fakes/") {
            continue;
        }
        found.extend(lacking(&text).into_iter().map(|error| (name.clone(), error.to_owned())));
    }
    found.sort();
    let mut expected: Vec<_> = NOT_YET.iter().map(|(file, error)| ((*file).to_owned(), (*error).to_owned())).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_type_that_lacks_it_is_found() {
    assert_eq!(lacking("pub enum RingError {\n}\npub struct Ring {\n}\nenum OwnError {}\n"), ["RingError"]);
    assert_eq!(lacking("pub struct A;\npub enum NoError {}\nimpl core::error::Error for NoError {}\n"), [""; 0]);
}

//! Each public error type is a `core::error::Error`, and texts hold what an error says: tested by reading the sources. Host.

mod sources;

use std::path::{Path, PathBuf};

use sources::sources;

/// The crates that go into images.
const CRATES: [&str; 6] = ["split-driver", "xenstore-lite", "runtime", "netdom", "blkdom", "stubdom"];

/// How the names of error types end.
const ENDINGS: [&str; 6] = ["Error", "Refusal", "Unusable", "Violation", "Unwritten", "Elapsed"];

/// What a text would hold that shows an error as the code writes it, not what it says.
const AS_WRITTEN: [&str; 5] = ["error:?}", "refusal:?}", "reason:?}", "fault:?}", "end:?}"];

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

/// The lines of a file, its tests at the end excepted, whose text holds an error by `Debug`.
fn as_written(text: &str) -> Vec<&str> {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text.get(..end).unwrap_or(text).lines();
    lines.filter(|line| AS_WRITTEN.iter().any(|part| line.contains(part))).collect()
}

/// The sources of the images without fakes, models and tests, by their names.
fn products() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = Vec::new();
    CRATES.iter().for_each(|name| sources(&root.join(name).join("src"), &mut files));
    let name =
        |file: &PathBuf| file.strip_prefix(root).expect("below the workspace").to_str().expect("a name").to_owned();
    let apart = ["/fakes/", "/model/", "/tests/", "/tests.rs"];
    files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .map(|file| (name(file), std::fs::read_to_string(file).expect("a file")))
        .filter(|(name, _)| !apart.iter().any(|part| name.contains(part)))
        .collect()
}

#[test]
fn every_public_error_type_is_an_error() {
    let files = products();
    let found: Vec<_> =
        files.iter().map(|(name, text)| (name, lacking(text))).filter(|(_, found)| !found.is_empty()).collect();
    assert!(found.is_empty(), "not core::error::Error: {found:?}");
}

#[test]
fn texts_hold_what_an_error_says() {
    let files = products();
    let found: Vec<_> =
        files.iter().map(|(name, text)| (name, as_written(text))).filter(|(_, found)| !found.is_empty()).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_type_that_lacks_it_is_found() {
    assert_eq!(lacking("pub enum RingError {\n}\npub struct Ring {\n}\nenum OwnError {}\n"), ["RingError"]);
    assert_eq!(lacking("pub struct A;\npub enum NoError {}\nimpl core::error::Error for NoError {}\n"), [""; 0]);
}

#[test]
fn a_text_that_shows_an_error_as_written_is_found() {
    let bad = "log::warn!(\"{path}: {error:?}\");";
    assert_eq!(as_written(bad), [bad]);
    assert_eq!(as_written("log::warn!(\"{path}: {error}\");"), [""; 0]);
}

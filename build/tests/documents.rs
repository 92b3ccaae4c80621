//! Links of the documents lead somewhere, and the index of docs/ has all of them. Host.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The Markdown files at the top, in docs/, and of each crate.
fn documents() -> Vec<PathBuf> {
    let directories = std::fs::read_dir(root()).expect("the workspace").map(|entry| entry.expect("an entry").path());
    let below = directories.filter(|path| path.is_dir() && !path.ends_with("target") && !path.ends_with("dist"));
    let mut found: Vec<PathBuf> = [root().to_owned()]
        .into_iter()
        .chain(below)
        .flat_map(|directory| std::fs::read_dir(directory).expect("a directory"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    found
}

/// The links of a text to files beside it, each with its heading where it names one.
fn links(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let inside = targets.filter(|target| !target.contains("://"));
    inside.map(|target| target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading))))
}

/// A heading as a link names it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars();
    let kept = kept.filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
    kept.map(|sign| if sign == ' ' { '-' } else { sign.to_ascii_lowercase() }).collect()
}

/// Links of a document that lead nowhere.
fn broken(document: &Path, text: &str) -> Vec<String> {
    let directory = document.parent().expect("a directory");
    let leads = |file: &str, heading: Option<&str>| {
        let target = if file.is_empty() { document.to_owned() } else { directory.join(file) };
        let Some(heading) = heading else {
            return target.exists();
        };
        let text = std::fs::read_to_string(target).unwrap_or_default();
        text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
    };
    links(text).filter(|(file, heading)| !leads(file, *heading)).map(|(file, _)| file.to_owned()).collect()
}

#[test]
fn links_lead_somewhere() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("a document");
        assert_eq!(broken(&document, &text), [""; 0], "{}", document.display());
    }
}

#[test]
fn the_index_has_each_document() {
    let index = root().join("docs/README.md");
    let text = std::fs::read_to_string(&index).expect("the index");
    let known: Vec<PathBuf> =
        links(&text).filter_map(|(file, _)| root().join("docs").join(file).canonicalize().ok()).collect();
    for document in documents().into_iter().filter(|document| *document != index) {
        let document = document.canonicalize().expect("a path");
        assert!(known.contains(&document), "docs/README.md does not name {}", document.display());
    }
}

#[test]
fn a_link_to_nowhere_is_found() {
    let document = root().join("README.md");
    let text = "[a](docs/README.md) [b](https://example.org/x) [c](docs/NOT-THERE.md) [d](docs/README.md#nothing) [e](docs/README.md#documents)";
    assert_eq!(broken(&document, text), ["docs/NOT-THERE.md", "docs/README.md"]);
}

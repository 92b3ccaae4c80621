//! A crate knows only the floors below it: the dependencies that `cargo metadata` reports, held against the table of floors. Host.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// The floor of each crate that goes into an image; `None` for what runs on a host only.
const FLOORS: [(&str, Option<u8>); 7] = [
    ("xen-pv-sys", Some(0)),
    ("split-driver", Some(1)),
    ("xenstore-lite", Some(1)),
    ("runtime", Some(2)),
    ("netdom", Some(3)),
    ("blkdom", Some(3)),
    ("stubdom", Some(3)),
];

fn floor(package: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == package).and_then(|(_, floor)| *floor)
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Workspace package → the workspace packages that it depends on in what it ships (not in its tests).
fn workspace_dependencies(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let packages = metadata["packages"].as_array().expect("packages");
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
            let inside = dependencies
                .filter(|dependency| dependency["kind"].is_null())
                .filter_map(|dependency| dependency["name"].as_str())
                .filter(|name| names.contains(name))
                .map(String::from)
                .collect();
            (package["name"].as_str().expect("a name").to_owned(), inside)
        })
        .collect()
}

/// What in `dependencies` breaks the rule, as (crate, dependency).
///
/// A library may know lower floors only. An image crate joins its library to the runtime, one floor below.
fn violations(dependencies: &BTreeMap<String, Vec<String>>) -> Vec<(String, String)> {
    dependencies
        .iter()
        .filter_map(|(package, on)| floor(package).map(|floor| (package, floor, on)))
        .flat_map(|(package, own, on)| {
            on.iter()
                .filter(move |name| floor(name).is_none_or(|other| other >= own) && !name.starts_with("image-"))
                .map(move |name| (package.clone(), name.clone()))
        })
        .collect()
}

#[test]
fn no_floor_reaches_up() {
    let dependencies = workspace_dependencies(&metadata());
    for (name, _) in FLOORS {
        assert!(dependencies.contains_key(name), "{name} is in the table of floors and not in the workspace");
    }
    assert_eq!(violations(&dependencies), []);
}

#[test]
fn a_floor_that_reaches_up_is_found() {
    let mut dependencies = workspace_dependencies(&metadata());
    dependencies.entry("split-driver".into()).or_default().push("runtime".into());
    assert_eq!(violations(&dependencies), [("split-driver".to_owned(), "runtime".to_owned())]);
}

/// The libraries on floors 0, 1 and 3 forbid unsafe code; only the runtime may hold it.
#[test]
fn only_the_runtime_may_be_unsafe() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    for (package, _) in FLOORS.iter().filter(|(name, _)| *name != "runtime") {
        let path = root.join(package).join("src/lib.rs");
        let text = std::fs::read_to_string(&path).expect("a library");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{} lacks #![forbid(unsafe_code)]", path.display());
    }
}

//! The bill of materials of what the package installs: the crates in the images and in dom0's tool, as CycloneDX 1.5. Host.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::cache;
use serde_json::{Value, json};

/// The packages that are installed.
const INSTALLED: [&str; 4] = ["netdom", "blkdom", "stubdom", "oxidom"];

/// Makes the bill for a version of the package.
///
/// # Errors
/// cargo does not tell the crates.
pub(crate) fn make(version: &str) -> Result<String> {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.current_dir(cache::workspace()).args(["tree", "--locked", "--edges", "normal", "--prefix", "none"]);
    tree.args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}\t{l}"]);
    tree.args(INSTALLED.iter().flat_map(|package| ["--package", package]));
    let output = tree.output().context("starting cargo")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let crates = crates(&String::from_utf8_lossy(&output.stdout))?;
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "operating-system", "name": "oxidom", "version": version}},
        "components": crates.iter().map(|((name, version), found)| found.component(name, version)).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

/// What is known of a crate beside its name and version.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    license: String,
    /// Not from a registry.
    is_own: bool,
}

impl Found {
    fn component(&self, name: &str, version: &str) -> Value {
        let mut component = json!({"type": "library", "name": name, "version": version});
        if !self.license.is_empty() {
            // SPDX, as a manifest has it; some still write `/` for `OR`.
            component["licenses"] = json!([{"expression": self.license.replace('/', " OR ")}]);
        }
        if !self.is_own {
            component["purl"] = json!(format!("pkg:cargo/{name}@{version}"));
        }
        component
    }
}

/// The crates of `cargo tree`'s lines: `NAME vVERSION [(...)]`, a tab, the licence.
fn crates(lines: &str) -> Result<BTreeMap<(String, String), Found>> {
    let mut crates = BTreeMap::new();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let parsed = || {
            let (package, license) = line.split_once('\t')?;
            let mut words = package.split(' ');
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            let license = license.trim_end_matches(" (*)").to_owned();
            Some(((name.to_owned(), version.to_owned()), Found { license, is_own: package.contains(" (/") }))
        };
        let (key, found) = parsed().with_context(|| format!("cargo tree says \"{line}\""))?;
        crates.insert(key, found);
    }
    Ok(crates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree_are_read() {
        let lines = "netdom v0.2.0 (/x/netdom)\tMIT OR Apache-2.0\n\nbitflags v2.9.0\tMIT OR Apache-2.0\n\
                     bitflags v2.9.0\tMIT OR Apache-2.0 (*)\nserde_derive v1.0.0 (proc-macro)\tMIT/Apache-2.0\n";
        let crates = crates(lines).unwrap();
        assert_eq!(crates.len(), 3);
        let key = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let found = &crates[&key("serde_derive", "1.0.0")];
        assert_eq!(
            found.component("serde_derive", "1.0.0"),
            json!({"type": "library", "name": "serde_derive", "version": "1.0.0",
                "licenses": [{"expression": "MIT OR Apache-2.0"}], "purl": "pkg:cargo/serde_derive@1.0.0"})
        );
        assert!(crates[&key("netdom", "0.2.0")].is_own);
        assert!(super::crates("what is this\n").is_err());
    }

    #[test]
    fn the_bill_names_crates_of_images_and_tool() {
        let bill = make("1").unwrap();
        let bill: Value = serde_json::from_str(&bill).unwrap();
        let names: Vec<&str> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["name"].as_str().unwrap())
            .collect();
        for name in ["netdom", "blkdom", "stubdom", "oxidom", "runtime", "zerocopy", "clap"] {
            assert!(names.contains(&name), "{name}");
        }
        // Only what is installed, and no tool of the workspace.
        assert!(!names.contains(&"lab") && !names.contains(&"plotters"));
    }
}

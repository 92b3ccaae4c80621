//! The runtime lies in layers: what its files name by `crate::` and `super::`, held against the table of layers. Host.
//!
//! A room is a module at the crate's root. A file may name its own room and rooms of lower layers, and no two files of a room may need each
//! other. A module counts as needing its children; nothing but the root itself may name what the root names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms, bottom first. `lib.rs` is the roof.
const LAYERS: [&[&str]; 11] = [
    // Words.
    &["checksum", "hypercall", "intrinsics", "local", "select", "signal"],
    // Facts.
    &["domains", "environment", "layout"],
    // What a life leaves to the next.
    &["record"],
    &["memory"],
    // Xen's objects.
    &["dma", "events", "grants", "mmio"],
    &["clock", "hypervisor"],
    &["console", "executor"],
    &["end", "restart", "time"],
    &["shutdown", "trap"],
    &["boot", "pci", "store"],
    &["service"],
];

/// A room whose files need the module above them, which needs them.
const NOT_YET: &str = "service";

type Module = Vec<String>;

/// What each module names, as paths from the crate's root.
type Names = BTreeMap<Module, BTreeSet<Module>>;

fn layer(module: &[String]) -> Option<usize> {
    let room = module.first()?;
    LAYERS.iter().position(|rooms| rooms.contains(&room.as_str()))
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, into),
            false => into.push(path),
        }
    }
}

/// The module that a file is.
fn module(file: &Path) -> Module {
    let path = file.with_extension("");
    let parts = path.iter().map(|part| part.to_str().expect("a name").to_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text.get(..end).unwrap_or(text).lines();
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Reads what follows a path's beginning: `a::b`, or `{a, b::{c, d}}`.
fn tree(text: &str, before: &[String], into: &mut BTreeSet<Module>) -> usize {
    let word = text.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(text.len());
    let path: Module = match text.get(..word).filter(|word| !word.is_empty() && *word != "self") {
        Some(word) => before.iter().cloned().chain([word.to_owned()]).collect(),
        None => before.to_vec(),
    };
    let rest = text.get(word..).unwrap_or_default();
    if let Some(after) = rest.strip_prefix("::") {
        return word + 2 + tree(after, &path, into);
    }
    let Some(list) = rest.strip_prefix('{').filter(|_| word == 0) else {
        into.insert(path);
        return word;
    };
    let mut at = 0;
    while let Some(sign) = list.get(at..).and_then(|left| left.chars().next()) {
        match sign {
            '}' => break,
            ',' => at += 1,
            sign if sign.is_whitespace() => at += 1,
            _ => at += tree(list.get(at..).unwrap_or_default(), before, into).max(1),
        }
    }
    at + 2
}

/// What a module's text names.
fn named(module: &[String], text: &str) -> BTreeSet<Module> {
    let code = code(text);
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        if before.is_some_and(|sign| sign.is_alphanumeric() || "_$:".contains(sign)) {
            continue;
        }
        let mut rest = code.get(at..).unwrap_or_default();
        let mut base = module;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, base) = (after, base.split_last().map_or(base, |(_, above)| above));
        }
        if let Some(after) = rest.strip_prefix("crate::") {
            (rest, base) = (after, &[]);
        }
        tree(rest, base, &mut names);
    }
    names
}

/// The runtime as it is.
fn runtime() -> BTreeMap<Module, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("runtime/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let relative = |file: &PathBuf| file.strip_prefix(&root).expect("below the root").to_owned();
    files.iter().map(|file| (module(&relative(file)), std::fs::read_to_string(file).expect("a file"))).collect()
}

/// Which module each module needs.
fn needs(texts: &BTreeMap<Module, String>) -> Names {
    let file_of = |path: &Module| {
        (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|known| texts.contains_key(known))
    };
    let mut needs: Names = texts
        .iter()
        .map(|(module, text)| (module.clone(), named(module, text).iter().filter_map(file_of).collect()))
        .collect();
    for child in texts.keys().filter(|module| !module.is_empty()) {
        let above = child[..child.len() - 1].to_vec();
        needs.entry(above).or_default().insert(child.clone());
    }
    for (module, needed) in &mut needs {
        needed.remove(module);
    }
    needs
}

/// What breaks the rule.
fn violations(texts: &BTreeMap<Module, String>) -> Vec<String> {
    let needs = needs(texts);
    let mut found = Vec::new();
    for (module, needed) in needs.iter().filter(|(module, _)| !module.is_empty()) {
        let own = layer(module);
        if own.is_none() {
            found.push(format!("{} is in no layer", module.join("::")));
        }
        for other in needed.iter().filter(|other| other.first() != module.first()) {
            if other.is_empty() || layer(other) >= own {
                found.push(format!("{} names crate::{}", module.join("::"), other.join("::")));
            }
        }
        let within =
            |other: &&Module| other.first() == module.first() && module.first().is_some_and(|room| room != NOT_YET);
        for other in needed.iter().filter(within) {
            if reaches(&needs, other, module) {
                found.push(format!("{} and {} need each other", module.join("::"), other.join("::")));
            }
        }
    }
    found
}

/// Whether a module needs another one, by others of its room.
fn reaches(needs: &Names, from: &Module, to: &Module) -> bool {
    let mut seen = BTreeSet::new();
    let mut left = vec![from];
    while let Some(module) = left.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            left.extend(needs.get(module).into_iter().flatten().filter(|other| other.first() == from.first()));
        }
    }
    false
}

#[test]
fn no_layer_of_the_runtime_reaches_up() {
    let texts = runtime();
    for room in LAYERS.iter().flat_map(|rooms| *rooms) {
        assert!(
            texts.contains_key(&vec![(*room).to_owned()]),
            "{room} is in the table of layers and not in the runtime"
        );
    }
    assert_eq!(violations(&texts), [""; 0]);
}

#[test]
fn a_file_that_reaches_up_is_found() {
    let check = |module: &str, line: &str, expected: &str| {
        let mut texts = runtime();
        let module: Module = module.split("::").map(str::to_owned).collect();
        texts.get_mut(&module).expect("a module of the runtime").insert_str(0, line);
        assert!(violations(&texts).iter().any(|found| found == expected), "{line:?}: {:?}", violations(&texts));
    };
    check("memory::tables", "use crate::grants;\n", "memory::tables names crate::grants");
    check(
        "memory::tables",
        "use crate::{\n    layout::{self, text},\n    events,\n};\n",
        "memory::tables names crate::events",
    );
    check("hypercall", "fn f() { crate::console::write(\"\") }\n", "hypercall names crate::console");
    check("clock::scale", "use super::super::executor;\n", "clock::scale names crate::executor");
    check("events", "use crate::spawn;\n", "events names crate::");
    check("memory::tables", "use super::usage;\n", "memory and memory::tables need each other");
    check("memory::runs", "use super::area::Area;\n", "memory::runs and memory::area need each other");
}

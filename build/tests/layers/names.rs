//! Which modules the files of a crate name: by `crate::` and `super::`, read from the sources. Host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::sources::sources;

/// A module by its path from the crate's root.
pub(crate) type Module = Vec<String>;

/// The sources of a crate.
pub(crate) type Texts = BTreeMap<Module, String>;

/// What each module names, as paths from the crate's root.
pub(crate) type Names = BTreeMap<Module, BTreeSet<Module>>;

/// The module that a file is.
fn module(file: &Path) -> Module {
    let path = file.with_extension("");
    let parts = path.iter().map(|part| part.to_str().expect("a name").to_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let mut lines = Vec::new();
    for (line, next) in text.lines().zip(text.lines().skip(1).chain([""])) {
        if is_test(line) && next == "mod tests {" {
            break;
        }
        lines.push(line.split("//").next().unwrap_or_default());
    }
    lines.join("\n")
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

/// The files that only a test build has: `#[cfg(test)]`, and `mod name;` after it.
fn only_for_tests(texts: &Texts) -> Vec<Module> {
    let mut found = Vec::new();
    for (module, text) in texts {
        for (mark, line) in text.lines().zip(text.lines().skip(1)) {
            let name = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
            if let Some(name) = name.filter(|_| is_test(mark)) {
                found.push(module.iter().cloned().chain([name.to_owned()]).collect());
            }
        }
    }
    found
}

/// Whether a line says that what follows it is in tests alone.
fn is_test(line: &str) -> bool {
    line.starts_with("#[cfg(") && line.contains("test") && !line.contains("any(") && !line.contains("not(test")
}

/// The sources of a crate as they are, by modules; those of its tests are left out.
pub(crate) fn texts(root: &str) -> Texts {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join(root).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let relative = |file: &PathBuf| file.strip_prefix(&root).expect("below the root").to_owned();
    let mut texts: Texts =
        files.iter().map(|file| (module(&relative(file)), std::fs::read_to_string(file).expect("a file"))).collect();
    for apart in only_for_tests(&texts) {
        texts.retain(|module, _| !module.starts_with(&apart));
    }
    texts
}

/// What the root names of its modules by `use`, and which paths these names stand for.
fn exports(texts: &Texts) -> BTreeMap<String, Module> {
    let root = texts.get(&Vec::new()).map(|text| code(text)).unwrap_or_default();
    let mut paths = BTreeSet::new();
    for (at, _) in root.match_indices("use ") {
        tree(root.get(at + 4..).unwrap_or_default(), &[], &mut paths);
    }
    let known = paths.into_iter().filter(|path| texts.contains_key(path.get(..1).unwrap_or_default()));
    known.filter_map(|path| Some((path.last()?.clone(), path))).collect()
}

/// Which module each module names. What the root exports is looked for where it is.
pub(crate) fn needs(texts: &Texts) -> Names {
    let exports = exports(texts);
    let file_of = |path: &Module| {
        let path = match path.first().filter(|name| !texts.contains_key(&vec![(*name).clone()])) {
            Some(name) => exports.get(name).unwrap_or(path),
            None => path,
        };
        (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|known| texts.contains_key(known))
    };
    texts
        .iter()
        .map(|(module, text)| {
            let needed = named(module, text).iter().filter_map(file_of).filter(|needed| needed != module).collect();
            (module.clone(), needed)
        })
        .collect()
}

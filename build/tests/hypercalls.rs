//! docs/HYPERCALLS.md has the hypercalls and operations that the runtime's sources name, and no others. Host.

mod sources;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use e2e::asked;
use sources::sources;

/// How the names of a hypercall's operations begin.
const OPERATIONS: [(&str, &str); 11] = [
    ("callback_op", "CALLBACKOP_"),
    ("console_io", "CONSOLEIO_"),
    ("domctl", "XEN_DOMCTL_GET"),
    ("event_channel_op", "EVTCHNOP_"),
    ("grant_table_op", "GNTTABOP_"),
    ("memory_op", "XENMEM_"),
    ("mmu_update", "MMU_"),
    ("mmuext_op", "MMUEXT_"),
    ("physdev_op", "PHYSDEVOP_"),
    ("sched_op", "SCHEDOP_"),
    ("vcpu_op", "VCPUOP_"),
];

/// Names that begin so and are no operations.
const OTHERS: [&str; 3] = ["XEN_DOMCTL_GETDOMSTATE_", "MMU_UPDATE", "MMUEXT_OP"];

/// Hypercalls whose first argument is no operation: it lies in memory, or there is none.
const WITHOUT: [&str; 5] = ["DOMCTL", "MMUEXT_OP", "MMU_UPDATE", "SET_TRAP_TABLE", "UPDATE_VA_MAPPING"];

/// Functions that take the operation, with how its name begins. They alone pass it on as a variable.
const PASS_ON: [(&str, &str, &str); 3] =
    [("grants", "operate(", "GNTTABOP_"), ("events.rs", "bind(", "EVTCHNOP_"), ("domains.rs", "call(", "XEN_DOMCTL_")];

/// What is for tests alone.
const FOR_TESTS: [&str; 4] = ["faults.rs", "probe.rs", "tests.rs", "/tests/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// A file without its tests and its comments. Those of assembly stay: they name what the assembly has as numbers.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text.get(..end).unwrap_or(text).lines();
    lines.map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The runtime's files with their names.
fn runtime() -> Vec<(String, String)> {
    let directory = root().join("runtime/src");
    let mut files = Vec::new();
    sources(&directory, &mut files);
    let name = |file: &PathBuf| file.to_str().expect("a name").to_owned();
    let read = |file: &PathBuf| (name(file), code(&std::fs::read_to_string(file).expect("a file")));
    files
        .iter()
        .map(read)
        .filter(|(name, _)| !FOR_TESTS.iter().any(|part| name.ends_with(part) || name.contains("/tests/")))
        .collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_')
}

/// The operations that a text names, each with its hypercall.
fn operations(text: &str) -> BTreeSet<(String, String)> {
    let named = words(text).map(str::to_ascii_uppercase);
    named
        .filter(|word| !OTHERS.iter().any(|other| word.starts_with(other)))
        .filter_map(|word| {
            let (hypercall, _) = OPERATIONS.iter().find(|(_, prefix)| word.starts_with(prefix))?;
            Some(((*hypercall).to_owned(), word))
        })
        .collect()
}

/// The hypercalls by number, from the ABI's crate.
fn numbers() -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(root().join("xen-pv-sys/src/xen.rs")).expect("xen.rs");
    let (_, module) = text.split_once("pub mod hypercall {").expect("the numbers");
    let (module, _) = module.split_once("\n}").expect("its end");
    let constant = |line: &str| {
        let (name, value) = line.trim().strip_prefix("pub const ")?.split_once(": u64 = ")?;
        Some((value.strip_suffix(';')?.parse().ok()?, name.to_ascii_lowercase()))
    };
    module.lines().filter_map(constant).collect()
}

/// The hypercalls that a text names, be it by number in assembly.
fn hypercalls(text: &str) -> BTreeSet<String> {
    let by_name = text.split("number::").skip(1).filter_map(|rest| words(rest).next());
    let named = by_name.filter(|name| name.chars().all(|sign| sign.is_ascii_uppercase() || sign == '_'));
    let numbers = numbers();
    let name_of = |number: u64| numbers.iter().find(|(known, _)| *known == number).map(|(_, name)| name.clone());
    let in_assembly = text.split("oxidom_hypercall_page + ").skip(1);
    let numbered = in_assembly.filter_map(|rest| words(rest).next()?.parse().ok()).filter_map(name_of);
    named.map(str::to_ascii_lowercase).chain(numbered).collect()
}

/// Calls whose operation is no constant.
fn unnamed(file: &str, text: &str) -> Vec<String> {
    let constant = |argument: &str| {
        let word = words(argument.trim_start()).next().unwrap_or_default();
        word.len() > 3 && word.chars().all(|sign| sign.is_ascii_uppercase() || sign.is_ascii_digit() || sign == '_')
    };
    let mut found = Vec::new();
    for call in ["hypercall::call2::<", "hypercall::call4::<", "hypercall::operation::<"] {
        for rest in text.split(call).skip(1) {
            let (kind, arguments) = rest.split_once(">(").expect("a call");
            let without = WITHOUT.iter().any(|name| words(kind).any(|word| word == *name));
            let passes_on =
                PASS_ON.iter().any(|(place, ..)| file.contains(place)) && arguments.starts_with("operation");
            if !without && !passes_on && !constant(arguments) {
                found.push(rest.lines().next().unwrap_or_default().to_owned());
            }
        }
    }
    for (_, call, prefix) in PASS_ON.iter().filter(|(place, ..)| file.contains(place)) {
        for (before, rest) in text.match_indices(call).map(|(at, _)| (&text[..at], &text[at + call.len()..])) {
            let is_other = before.ends_with("fn ")
                || before.ends_with(|sign: char| sign.is_alphanumeric() || sign == '_' || sign == '.');
            if !is_other && !rest.trim_start().starts_with(prefix) {
                found.push(format!("{call}{}", rest.lines().next().unwrap_or_default()));
            }
        }
    }
    found
}

#[test]
fn the_table_has_the_operations_of_the_sources() {
    let files = runtime();
    let named: BTreeSet<_> = files.iter().flat_map(|(_, text)| operations(text)).collect();
    let rows = asked::documented().expect("the table");
    let documented = rows.iter().filter_map(|row| Some((row.hypercall.clone(), row.operation.clone()?)));
    assert_eq!(documented.collect::<BTreeSet<_>>(), named);
}

#[test]
fn the_table_has_the_hypercalls_of_the_sources() {
    let named: BTreeSet<_> = runtime().iter().flat_map(|(_, text)| hypercalls(text)).collect();
    let rows = asked::documented().expect("the table");
    assert_eq!(rows.into_iter().map(|row| row.hypercall).collect::<BTreeSet<_>>(), named);
}

#[test]
fn each_call_names_its_operation() {
    let found: Vec<_> = runtime().iter().flat_map(|(file, text)| unnamed(file, text)).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn no_other_crate_of_the_images_calls_xen() {
    for name in ["xen-pv-sys", "split-driver", "xenstore-lite", "netdom", "blkdom", "stubdom"] {
        let mut files = Vec::new();
        sources(&root().join(name).join("src"), &mut files);
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
            let text = code(&std::fs::read_to_string(file).expect("a file"));
            assert!(!text.contains("asm!") && !text.contains("oxidom_hypercall_page"), "{}", file.display());
        }
    }
}

#[test]
fn what_is_not_in_the_table_would_be_found() {
    let text = code(
        "x(XENMEM_POPULATE_PHYSMAP); // SCHEDOP_POLL\n    mov $1, %edi # SCHEDOP_block\n#[cfg(test)]\nmod tests { VCPUOP_UP }",
    );
    let expected = [("memory_op", "XENMEM_POPULATE_PHYSMAP"), ("sched_op", "SCHEDOP_BLOCK")];
    assert_eq!(operations(&text), expected.map(|(call, name)| (call.to_owned(), name.to_owned())).into());
    let text = "number::MULTICALL }>(..); call oxidom_hypercall_page + 23 * 32; oxidom_hypercall_page + {vcpu_op} * 32";
    assert_eq!(hypercalls(text), ["iret", "multicall"].map(str::to_owned).into());
    let call = "hypercall::operation::<{ number::SCHED_OP }, u32>(";
    assert_eq!(unnamed("end.rs", &format!("{call}SCHEDOP_SHUTDOWN, &mut x)")), [""; 0]);
    assert_eq!(unnamed("end.rs", &format!("{call}operation, &mut x)")).len(), 1);
    assert_eq!(unnamed("end.rs", &format!("{call}2, &mut x)")).len(), 1);
    assert_eq!(unnamed("events.rs", "unsafe fn bind(operation) { bind(operation, x) }").len(), 1);
}

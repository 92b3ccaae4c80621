//! Fuzz targets: backends in isolation on a host, and the loop that feeds them. On stable Rust, without instrumentation. Host.
//!
//! An input is bytes; a target reads them as a list of what a hostile peer does, and checks what must hold whatever that is. In place of
//! coverage, a target tells what was to be seen from outside (answers, drops, reasons for closing, rounds), coarsely; an input that
//! shows something new is kept, and mutated further.

pub mod ahci;
pub mod blkback;
pub mod mutate;
pub mod netback;
pub mod nvme;
pub mod volumes;
pub mod xenstore;

use mutate::Random;
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is fuzzed.
pub trait Target {
    /// Runs one input; panics where something does not hold. What was to be seen goes into `seen`, as numbers of any meaning.
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>);

    /// Operations in all inputs up to now, for a target that counts them.
    fn operations(&self) -> Option<u64> {
        None
    }
}

/// The targets by their names; a corpus goes by the same.
pub const TARGETS: [&str; 7] = ["netback", "blkback", "lvm", "gpt", "nvme", "ahci", "xenstore"];

/// The target of that name.
pub fn target(name: &str) -> Option<Box<dyn Target>> {
    match name {
        "netback" => Some(Box::new(netback::Netback::new())),
        "blkback" => Some(Box::new(blkback::Blkback::new())),
        "lvm" => Some(Box::new(volumes::VolumeGroups)),
        "nvme" => Some(Box::new(nvme::Nvme)),
        "ahci" => Some(Box::new(ahci::Ahci)),
        "gpt" => Some(Box::new(volumes::PartitionTables)),
        "xenstore" => Some(Box::new(xenstore::Xenstore::default())),
        _ => None,
    }
}

/// An input of that target as it is read, for a look at it.
pub fn describe(name: &str, input: &[u8]) -> String {
    match name {
        "netback" => netback::describe(input),
        "blkback" => blkback::describe(input),
        "lvm" | "gpt" => volumes::describe(input),
        "xenstore" => xenstore::describe(input),
        _ => String::new(),
    }
}

/// What came out of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Inputs run.
    pub executions: u64,
    /// Operations in them, where the target counts them.
    pub operations: Option<u64>,
    /// Inputs kept.
    pub kept: usize,
    /// Things seen.
    pub seen: usize,
    /// Time it took.
    pub elapsed: Duration,
}

impl Report {
    /// Executions a second.
    pub fn rate(&self) -> u64 {
        self.a_second(self.executions)
    }

    /// Of so many, how many a second.
    pub fn a_second(&self, count: u64) -> u64 {
        let nanoseconds = self.elapsed.as_nanos().max(1);
        u64::try_from(u128::from(count) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
    }
}

/// Bytes of an input, at most.
pub const INPUT_BYTES: usize = 512;

thread_local! {
    static CURRENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where a target's corpus is kept.
pub fn corpus_directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs of a corpus, by name, so that a run can be repeated.
///
/// # Errors
/// Why the directory or a file of it could not be read.
pub fn read_corpus(directory: &Path) -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let input = std::fs::read(&path)?;
        inputs.push((path, input));
    }
    inputs.sort();
    Ok(inputs)
}

/// Has a panic write the input that brought it about to `directory` before the process ends.
pub fn save_on_panic(directory: PathBuf) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        let input = CURRENT.with_borrow(Clone::clone);
        let path = directory.join(format!("crash-{:016x}", hash(&input)));
        match std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&path, &input)) {
            Ok(()) => eprintln!("the input is in {}", path.display()),
            Err(error) => eprintln!("{}: {error}; the input is {input:02x?}", path.display()),
        }
    }));
}

/// Runs one input of `target`, known to [`save_on_panic`].
pub fn run_one(target: &mut dyn Target, input: &[u8], seen: &mut Vec<u64>) {
    CURRENT.with_borrow_mut(|current| {
        current.clear();
        current.extend_from_slice(input);
    });
    seen.clear();
    target.run(input, seen);
}

/// Feeds `target` for `duration`, beginning with `corpus`, to which what shows something new is added.
pub fn run(target: &mut dyn Target, corpus: &mut Vec<Vec<u8>>, duration: Duration, seed: u64) -> Report {
    let start = Instant::now();
    let mut random = Random::new(seed);
    let mut known = HashSet::new();
    let mut seen = Vec::new();
    let mut executions = 0;
    for input in corpus.iter() {
        run_one(target, input, &mut seen);
        known.extend(seen.iter().copied());
        executions += 1;
    }
    let mut input = Vec::with_capacity(INPUT_BYTES);
    // The clock is looked at now and then only: it costs as much as a short input.
    while executions % 64 != 0 || start.elapsed() < duration {
        mutate::mutate(&mut random, corpus, &mut input);
        run_one(target, &input, &mut seen);
        executions += 1;
        let before = known.len();
        known.extend(seen.iter().copied());
        if known.len() > before {
            corpus.push(input.clone());
        }
    }
    let operations = target.operations();
    Report { executions, operations, kept: corpus.len(), seen: known.len(), elapsed: start.elapsed() }
}

/// The inputs that together show all that `corpus` shows, the shortest first: what is worth keeping.
pub fn minimise(target: &mut dyn Target, mut corpus: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    corpus.sort_by_key(Vec::len);
    let mut known = HashSet::new();
    let mut seen = Vec::new();
    corpus.retain(|input| {
        run_one(target, input, &mut seen);
        let before = known.len();
        known.extend(seen.iter().copied());
        known.len() > before
    });
    corpus
}

/// Notes numbers by their magnitude, each alone and with its neighbour.
fn see(seen: &mut Vec<u64>, closed: bool, counts: impl Iterator<Item = u64>) {
    let mut before = u64::from(closed);
    for (place, count) in counts.enumerate() {
        let magnitude = u64::from(u64::BITS - count.leading_zeros());
        seen.push((place as u64) << 32 | magnitude << 8 | before);
        before = magnitude;
    }
}

/// FNV-1a: to name things by their bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

//! Fuzz targets: backends in isolation on a host, and the loop that feeds them. On stable Rust, without instrumentation. Host.
//!
//! An input is bytes; a target reads them as a list of the acts of a hostile peer, and checks what must hold. In place of coverage, a
//! target tells what was to be seen from outside (answers, drops, reasons for closing, rounds), coarsely; an input that shows
//! something new is kept, and mutated further. The program `libfuzzer` feeds the same targets by coverage.
//!
//! A target may keep its world over several inputs. A [`World`] is made anew after [`LIFE`] of them, and a failure is saved with all the
//! inputs that ran in its world, so that it happens again.

pub mod blkback;
mod flicker;
pub mod hostile;
pub mod inputs;
pub mod lacp;
pub mod multicast;
pub mod mutate;
pub mod netback;
pub mod policy;
mod recorder;
pub mod router;
pub mod shrink;
pub mod switch;
pub mod volumes;
pub mod xenstore;

use devices::hostile::{Disks, Nics};
use hostile::Lives;
use mutate::Random;
use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
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
pub const TARGETS: [&str; 18] = [
    "netback",
    "switch",
    "policy",
    "multicast",
    "lacp",
    "nat",
    "route4",
    "route6",
    "dhcp",
    "blkback",
    "lvm",
    "gpt",
    "nvme",
    "ahci",
    "ixgbe",
    "igb",
    "e1000e",
    "xenstore",
];

/// The target of that name.
pub fn target(name: &str) -> Option<Box<dyn Target>> {
    match name {
        "netback" => Some(Box::new(netback::Netback::new())),
        "blkback" => Some(Box::new(blkback::Blkback::new())),
        "switch" => Some(Box::new(switch::Bridges::default())),
        "policy" => Some(Box::new(policy::Policy::default())),
        "lacp" => Some(Box::new(lacp::Bonds::default())),
        "multicast" => Some(Box::new(multicast::Groups::default())),
        "nat" => Some(Box::new(router::nat::Translation::default())),
        "route4" => Some(Box::new(router::route4::Ways::default())),
        "route6" => Some(Box::new(router::route6::Ways::default())),
        "dhcp" => Some(Box::new(router::dhcp::Server::default())),
        "lvm" => Some(Box::new(volumes::VolumeGroups)),
        "nvme" => Some(Box::new(Lives::<Disks<devices::nvme::Nvme>>::default())),
        "ahci" => Some(Box::new(Lives::<Disks<devices::ahci::Ahci>>::default())),
        "ixgbe" => Some(Box::new(Lives::<Nics<devices::ixgbe::Ixgbe>>::default())),
        "igb" => Some(Box::new(Lives::<Nics<devices::igb::Igb>>::default())),
        "e1000e" => Some(Box::new(Lives::<Nics<devices::e1000e::E1000e>>::default())),
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
        "switch" => switch::describe(input),
        "policy" => policy::describe(input),
        "lacp" => lacp::describe(input),
        "multicast" => multicast::describe(input),
        "nat" => router::nat::describe(input),
        "route4" => router::route4::describe(input),
        "route6" => router::route6::describe(input),
        "dhcp" => router::dhcp::describe(input),
        "lvm" | "gpt" => volumes::describe(input),
        "xenstore" => xenstore::describe(input),
        _ => String::new(),
    }
}

/// The inputs of that target as a frontend under Xen can play them ([`guests::tape`]); none for a target that is no backend.
pub fn tape(name: &str, inputs: &[Vec<u8>]) -> Option<Vec<guests::tape::Life>> {
    match name {
        "netback" => Some(netback::tape(inputs)),
        "blkback" => Some(blkback::tape(inputs)),
        _ => None,
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

/// Inputs that run in one world, at most.
pub const LIFE: usize = 64;

/// Inputs, one behind the other.
struct History {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl History {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, input: &[u8]) {
        self.bytes.extend_from_slice(input);
        self.ends.push(self.bytes.len());
    }

    fn list(&self) -> Vec<Vec<u8>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.bytes[start..*end].to_vec()).collect()
    }
}

thread_local! {
    /// What ran in the world that this thread runs, the input that runs now included.
    static HISTORY: RefCell<History> = const { RefCell::new(History { bytes: Vec::new(), ends: Vec::new() }) };
}

/// A target that is made anew now and then. One at a time on a thread.
pub struct World<'a> {
    make: &'a dyn Fn() -> Box<dyn Target>,
    target: Box<dyn Target>,
    /// Operations in the worlds before this one.
    operations: Option<u64>,
}

impl<'a> World<'a> {
    /// The first world.
    pub fn new(make: &'a dyn Fn() -> Box<dyn Target>) -> Self {
        HISTORY.with_borrow_mut(History::clear);
        Self { make, target: make(), operations: None }
    }

    /// Runs one input, known to [`save_on_panic`]. What was to be seen is in `seen` afterwards.
    pub fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        if HISTORY.with_borrow(|history| history.ends.len()) >= LIFE {
            self.operations = self.operations();
            self.target = (self.make)();
            HISTORY.with_borrow_mut(History::clear);
        }
        HISTORY.with_borrow_mut(|history| history.push(input));
        seen.clear();
        self.target.run(input, seen);
    }

    /// Operations in all inputs up to now, for a target that counts them.
    pub fn operations(&self) -> Option<u64> {
        let now = self.target.operations()?;
        Some(self.operations.unwrap_or_default() + now)
    }
}

/// What ran in this thread's world, the last input included.
pub fn history() -> Vec<Vec<u8>> {
    HISTORY.with_borrow(History::list)
}

/// The things seen up to now.
type Known = HashSet<u64, BuildHasherDefault<Mixed>>;

/// A hash of one number: what was seen is a hash already, or comes from the target alone.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

/// The file of a target's corpus.
pub fn corpus_file(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Has a panic write the world's inputs to `directory` before the process ends.
pub fn save_on_panic(directory: PathBuf) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // First: the hook before may end the process.
        let inputs = history();
        let path = directory.join(format!("crash-{:016x}", hash(&inputs.concat())));
        match std::fs::create_dir_all(&directory).and_then(|()| inputs::write(&path, &inputs)) {
            Ok(()) => {
                let (count, path) = (inputs.len(), path.display());
                eprintln!("the last input failed; it is in {path} with the {} before it", count.saturating_sub(1));
                eprintln!(
                    "`cargo xtask fuzz TARGET --one {path}` runs them again, `--minimise` finds the least that fails"
                );
            }
            Err(error) => eprintln!("{}: {error}; the inputs are {inputs:02x?}", path.display()),
        }
        report(info);
    }));
}

/// Feeds worlds for `duration`, beginning with `corpus`, to which what shows something new is added.
pub fn run(world: &mut World<'_>, corpus: &mut Vec<Vec<u8>>, duration: Duration, seed: u64) -> Report {
    let start = Instant::now();
    let mut random = Random::new(seed);
    let mut known = Known::default();
    let mut seen = Vec::new();
    let mut executions = 0;
    for input in corpus.iter() {
        world.run(input, &mut seen);
        known.extend(seen.iter().copied());
        executions += 1;
    }
    let mut input = Vec::with_capacity(INPUT_BYTES);
    // The clock is looked at now and then only: it costs as much as a short input.
    while executions % 64 != 0 || start.elapsed() < duration {
        mutate::mutate(&mut random, corpus, &mut input);
        world.run(&input, &mut seen);
        executions += 1;
        let before = known.len();
        known.extend(seen.iter().copied());
        if known.len() > before {
            corpus.push(input.clone());
        }
    }
    let operations = world.operations();
    Report { executions, operations, kept: corpus.len(), seen: known.len(), elapsed: start.elapsed() }
}

/// The inputs that together show all that `corpus` shows, the shortest first: what is worth keeping.
pub fn minimise(world: &mut World<'_>, mut corpus: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    corpus.sort_by_key(Vec::len);
    let mut known = Known::default();
    let mut seen = Vec::new();
    corpus.retain(|input| {
        world.run(input, &mut seen);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A world that ends with the third 0x42 that it is shown.
    #[derive(Default)]
    struct Brittle(u32);

    impl Target for Brittle {
        fn run(&mut self, input: &[u8], _seen: &mut Vec<u64>) {
            self.0 += u32::from(input.contains(&0x42));
            assert!(self.0 < 3, "the third");
        }
    }

    fn fails(inputs: &[Vec<u8>]) -> bool {
        let make = || Box::new(Brittle::default()) as Box<dyn Target>;
        std::panic::catch_unwind(|| {
            let mut world = World::new(&make);
            inputs.iter().for_each(|input| world.run(input, &mut Vec::new()));
        })
        .is_err()
    }

    #[test]
    fn a_failure_that_others_prepared_happens_again() {
        // Two in each life.
        let mut inputs: Vec<_> = (0..256).map(|number| vec![if number % 32 == 1 { 0x42 } else { 0 }]).collect();
        assert!(!fails(&inputs));
        inputs[140] = vec![0x42];
        assert!(fails(&inputs));
        // The third life begins with input 128; its third 0x42 is input 161.
        let history = history();
        assert_eq!(history, inputs[128..=161]);
        assert!(fails(&history));
        assert_eq!(shrink::shrink(history, fails), [[0x42], [0x42], [0x42]]);
    }
}

//! `cargo xtask bench path`: netdom's own instructions a packet, counted on this host by callgrind, without Xen. Host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use lab::{cache, host};

/// What `cargo xtask bench path` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only loads whose names have one of these in them, such as "to-wire-64,joined"
    #[arg(long, default_value = "")]
    only: String,
    /// Also list the functions of each load that have the most instructions, this many of them
    #[arg(long, default_value_t = 0)]
    functions: usize,
}

/// The program that is counted, and the function of it in which netdom runs.
const EXAMPLE: &str = "path_cost";
const COUNTED: &str = "*serve_counted*";

/// The loads of `tests/devices/examples/path_cost.rs`, and what they are.
const LOADS: [(&str, &str); 18] = [
    ("to-wire-64", "64 bytes to the wire, the checksum left to the NIC"),
    ("to-wire-64-complete", "64 bytes to the wire, the checksum complete"),
    ("to-wire-64-flows", "64 bytes to the wire, of eight flows in turn"),
    ("from-wire-64", "64 bytes from the wire"),
    ("from-wire-64-flows", "64 bytes from the wire, of eight flows in turn"),
    ("between-64", "64 bytes guest to guest"),
    ("to-wire-1518", "1,518 bytes to the wire"),
    ("from-wire-1518", "1,518 bytes from the wire"),
    ("between-1518", "1,518 bytes guest to guest"),
    ("to-wire-super", "super-frame of 62 KiB to the wire"),
    ("between-super", "super-frame of 62 KiB guest to guest"),
    ("from-wire-joined", "segment from the wire, 44 joined"),
    ("nat-to-wire-64", "64 bytes to the wire by NAT"),
    ("nat-to-wire-64-flows", "64 bytes to the wire by NAT, of eight flows in turn"),
    ("nat-from-wire-64", "64 bytes from the wire by NAT"),
    ("nat-from-wire-64-flows", "64 bytes from the wire by NAT, of eight flows in turn"),
    ("nat-to-wire-super", "super-frame of 62 KiB to the wire by NAT"),
    ("nat-from-wire-joined", "segment from the wire by NAT, 44 joined"),
];

/// What is not netdom: the fakes of Xen and of the guests, and the model of the device.
const FAKES: [&str; 3] = ["split_driver::fakes::", "netdom::fakes::", "devices::"];
/// A read or a write of a packet's page, which the image does in a few dozen instructions and the fake word by word.
const PAGES: &str = "split_driver::fakes::memory::FakePages";

/// The functions that compiled code calls for runs of bytes.
const RUNS: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

/// Calls of one function by another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    count: u64,
    /// Instructions in them, those of what they called included.
    inclusive: u64,
}

/// What callgrind wrote.
#[derive(Debug, Default)]
struct Profile {
    /// Instructions of each function by itself.
    own: BTreeMap<String, u64>,
    /// By caller and callee.
    calls: BTreeMap<(String, String), Calls>,
}

/// What is netdom's of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Share {
    instructions: u64,
    /// Of them those in [`RUNS`].
    runs: u64,
    /// Reads and writes of packets' pages, which are not among them.
    pages: u64,
    /// Instructions by function; those of [`RUNS`] by the function that called them, too.
    functions: BTreeMap<String, u64>,
}

impl Profile {
    /// Reads the format of Valgrind's manual, "Callgrind Format Specification", with strings that are not compressed.
    fn parse(text: &str) -> Result<Self> {
        let mut profile = Self::default();
        let (mut function, mut callee, mut call) = (String::new(), String::new(), None::<u64>);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = name.into();
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = name.into();
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let count = calls.split(' ').next().unwrap_or_default();
                call = Some(count.parse().with_context(|| format!("a number of calls in {line:?}"))?);
            } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
                let cost = line.split(' ').nth(1).unwrap_or("0");
                let cost: u64 = cost.parse().with_context(|| format!("a cost in {line:?}"))?;
                match call.take() {
                    Some(count) => {
                        let calls = profile.calls.entry((function.clone(), callee.clone())).or_default();
                        calls.count += count;
                        calls.inclusive += cost;
                    }
                    None => *profile.own.entry(function.clone()).or_default() += cost,
                }
            }
        }
        ensure!(!profile.own.is_empty(), "callgrind counted nothing: {COUNTED} was not called");
        Ok(profile)
    }

    /// Takes off what the fakes do, and all that they call.
    fn share(&self) -> Share {
        let mut share = Share { instructions: self.own.values().sum(), ..Share::default() };
        // What netdom calls by ways that lead through no fake.
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> =
            self.own.keys().map(String::as_str).filter(|name| name.contains("serve_counted")).collect();
        while let Some(caller) = next.pop() {
            if reached.insert(caller) {
                let called = self.calls.keys().filter(|(from, to)| from == caller && !is_fake(to));
                next.extend(called.map(|(_, to)| to.as_str()));
            }
        }
        let mut shared: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for ((caller, callee), calls) in &self.calls {
            let by_netdom = reached.contains(caller.as_str());
            if by_netdom && is_fake(callee) {
                share.instructions -= calls.inclusive;
                share.pages += if callee.contains(PAGES) { calls.count } else { 0 };
            } else if by_netdom && let Some(run) = run(callee) {
                share.runs += calls.inclusive;
                *share.functions.entry(format!("{run} for {caller}")).or_default() += calls.inclusive;
            }
            let [by_all, own] = shared.entry(callee).or_default();
            *by_all += calls.inclusive;
            *own += if by_netdom { calls.inclusive } else { 0 };
        }
        for (function, cost) in &self.own {
            if reached.contains(function.as_str()) && run(function).is_none() {
                // Of what fakes call too, the part that netdom's calls have.
                let [by_all, own] =
                    shared.get(function.as_str()).copied().filter(|[all, _]| *all > 0).unwrap_or([1, 1]);
                share
                    .functions
                    .insert(function.clone(), (u128::from(*cost) * u128::from(own) / u128::from(by_all)) as u64);
            }
        }
        share
    }
}

/// Whether a function is a fake's. Fakes are also among the type arguments of netdom's own functions.
fn is_fake(name: &str) -> bool {
    FAKES.iter().any(|fake| name.trim_start_matches('<').starts_with(fake))
}

/// Which of [`RUNS`] a function of the C library is, in one of its variants.
fn run(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('_');
    RUNS.into_iter().find(|run| name.strip_prefix(run).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

/// What the program says that it asked of Xen and of the device, by name.
fn numbers(output: &str) -> Result<BTreeMap<&str, u64>> {
    let number = |line| {
        let (name, value): (&str, &str) = str::split_once(line, ' ')?;
        Some((name, value.parse().ok()?))
    };
    output.lines().map(|line| number(line).with_context(|| format!("{EXAMPLE} said {line:?}"))).collect()
}

pub(crate) fn run_loads(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = |name: &str| arguments.only.split(',').any(|part| name.contains(part));
    let loads: Vec<_> = LOADS.iter().filter(|(load, _)| wanted(load)).collect();
    ensure!(!loads.is_empty(), "no load has \"{}\" in its name", arguments.only);
    host::provide(host::COUNTS)?;
    let program = build()?;
    println!(
        "| instructions a packet | netdom | of them memcpy and the like | page accesses | grant copies | hypercalls | register accesses |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let mut lists = Vec::new();
    for (load, title) in loads {
        let (share, output) = count(&program, load)?;
        let numbers = numbers(&output)?;
        let number = |name| numbers.get(name).copied().unwrap_or_default() as f64;
        let packets = number("packets").max(1.0);
        println!(
            "| {title} | {:.0} | {:.0} | {:.1} | {:.2} | {:.3} | {:.3} |",
            share.instructions as f64 / packets,
            share.runs as f64 / packets,
            share.pages as f64 / packets,
            number("copies") / packets,
            (number("copy-calls") + number("notifications")) / packets,
            number("registers") / packets,
        );
        lists.push((title, share, packets));
    }
    for (title, share, packets) in lists.iter().filter(|_| arguments.functions > 0) {
        println!("\n{title}:");
        let mut functions: Vec<_> = share.functions.iter().collect();
        functions.sort_by_key(|(_, cost)| core::cmp::Reverse(**cost));
        for (function, cost) in functions.iter().take(arguments.functions) {
            println!("{:>8.1}  {function}", **cost as f64 / packets);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the program by the profile of the images.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(cache::workspace())
        .args(["build", "--quiet", "--release", "--package", "devices", "--example", EXAMPLE])
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "{EXAMPLE} does not build");
    Ok(cache::target_directory().join("release/examples").join(EXAMPLE))
}

/// Runs one load under callgrind; gives also what the program said.
fn count(program: &Path, load: &str) -> Result<(Share, String)> {
    let file = cache::target_directory().join(format!("{EXAMPLE}.{load}.callgrind"));
    let directory = program.parent().context("the program has a directory")?;
    // The strings that a program is started with lie on its stack, and how that is aligned changes what memcpy does: they have the same
    // length everywhere, for each load.
    let output = Command::new("valgrind")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(directory)
        .args(["--quiet", "--tool=callgrind", "--compress-strings=no"])
        .args([format!("--toggle-collect={COUNTED}"), format!("--callgrind-out-file={}", file.display())])
        .arg(Path::new(".").join(EXAMPLE))
        .arg(format!("{load:<24}"))
        .output()
        .context("starting valgrind")?;
    ensure!(output.status.success(), "{load}: {}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let profile = Profile::parse(&text)?;
    // Inlined or renamed, it would be taken for netdom's own.
    let copies = profile.calls.keys().any(|(_, callee)| is_fake(callee) && callee.ends_with("::grant_copy"));
    ensure!(copies, "{load}: the fakes' grant_copy is not among the functions that callgrind saw");
    Ok((profile.share(), String::from_utf8(output.stdout)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten instructions of the loop, 20 of memcpy for it, 3 of memcpy for a fake, which has 100 by itself and is called twice.
    const TEXT: &str = "\
events: Ir
fl=/x/y.rs
fn=path_cost::Bench::serve_counted
10 4
cfn=netdom::datapath::DataPath<split_driver::fakes::hypervisor::FakeXen>::poll
calls=1 0
+1 129
fn=netdom::datapath::DataPath<split_driver::fakes::hypervisor::FakeXen>::poll
12 5
fi=/x/z.rs
* 1
cfn=__memcpy_avx_unaligned
calls=4 0
* 20
cfn=<split_driver::fakes::memory::FakePages as split_driver::memory::PageArray>::read
calls=2 0
-3 103
fn=<split_driver::fakes::memory::FakePages as split_driver::memory::PageArray>::read
7 100
cfn=__memcpy_avx_unaligned
calls=1 0
7 3
fn=__memcpy_avx_unaligned
1 23
totals: 133
";

    #[test]
    fn the_fakes_share_is_taken_off() {
        let share = Profile::parse(TEXT).unwrap().share();
        assert_eq!((share.instructions, share.runs, share.pages), (30, 20, 2));
        let functions: Vec<_> = share.functions.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        let poll = "netdom::datapath::DataPath<split_driver::fakes::hypervisor::FakeXen>::poll";
        let copies = format!("memcpy for {poll}");
        assert_eq!(functions, [(copies.as_str(), 20), (poll, 6), ("path_cost::Bench::serve_counted", 4)]);
    }

    #[test]
    fn nothing_counted_is_an_error() {
        assert!(Profile::parse("events: Ir\ntotals: 0\n").is_err());
        assert!(Profile::parse("fn=a\n1 x\n").is_err());
        assert!(numbers("packets 3\ncopies x").is_err());
        assert_eq!(numbers("packets 3").unwrap(), [("packets", 3)].into());
    }

    #[test]
    fn variants_of_the_c_library_are_known() {
        assert_eq!(run("__memset_avx2_unaligned_erms"), Some("memset"));
        assert_eq!(run("memmove"), Some("memmove"));
        assert_eq!(run("memory_of"), None);
        assert!(is_fake("<devices::fake::Device<devices::e1000e::E1000e> as split_driver::memory::Mmio>::write32"));
        assert!(!is_fake("<netdom::nic::e1000e::models::Model>::find"));
    }
}

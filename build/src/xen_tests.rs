//! The tests that need Xen: small guests booted directly, and scenarios with a dom0. Host.

use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use e2e::cases::block::{Block, DiskStorm, ManyDisks};
use e2e::cases::store::{Lives, Many, Store};
use e2e::cases::{self, Case, HangStorm, ManyVifs, Network, Play, Rows, Storm};
use e2e::torture::{self, Setting, Victim};
use e2e::{Images, asked, symbolize};
use lab::{GuestKind, Row, StorePlace, direct};

use crate::images;
use crate::test::Tally;
use crate::torture::seed_by_the_clock;

/// Power cuts on each row.
const KILLS: u64 = 3;

/// In the names of cases that run only where that is asked for.
const ON_REQUEST: &str = "on request";

/// The name of a test.
const ASKED: &str = "the images ask of Xen what docs/HYPERCALLS.md says";

/// How long QEMU may take to end after the lab has lost it.
const DEATH: Duration = Duration::from_secs(5);

/// Runs them on the rows, or those whose name contains one of `only`, where there are such. The rows run side by side: QEMU's emulation takes one core.
///
/// Where the whole matrix is asked for, each family of cases runs where its [`cases::Rows`] say; `--row` and `--only` run them all.
pub(crate) fn run(tally: &mut Tally, rows: &[Row], only: &[String]) {
    let start = Instant::now();
    // What takes long wants to be named: by a part of its name that says so.
    let asked_for = |name: &str| only.iter().any(|part| part.contains(ON_REQUEST) && name.contains(part));
    let wanted = |name: &str| {
        asked_for(name)
            || !name.contains(ON_REQUEST) && (only.is_empty() || only.iter().any(|part| name.contains(part)))
    };
    let whole = rows.len() > 1 && only.is_empty();
    let storms = rows.iter().any(|row| selected::<DiskStorm>(*row, whole, &wanted).next().is_some());
    let images = match images::for_tests(storms) {
        Ok(built) => built,
        Err(error) => return tally.record("the images build", start, Err(error)),
    };
    if wanted(ASKED) {
        tally.record(ASKED, start, asked_of_xen(&images));
    }
    let shared = Mutex::new(tally);
    thread::scope(|scope| {
        for row in rows {
            let (shared, images, wanted) = (&shared, &images, &wanted);
            scope.spawn(move || {
                // The guests boot without a toolstack, and so without a store.
                if let (Some(guest), Some(successor), StorePlace::Daemon, GuestKind::Pv) =
                    (&images.guest, &images.successor, row.store, row.guests)
                {
                    run_guests(shared, *row, guest, successor, wanted);
                }
                run_cases::<Store>(shared, *row, images, whole, wanted);
                run_cases::<Lives>(shared, *row, images, whole, wanted);
                run_cases::<Many>(shared, *row, images, whole, wanted);
                run_cases::<Network>(shared, *row, images, whole, wanted);
                run_cases::<Storm>(shared, *row, images, whole, wanted);
                run_cases::<HangStorm>(shared, *row, images, whole, wanted);
                run_cases::<ManyVifs>(shared, *row, images, whole, wanted);
                run_cases::<Block>(shared, *row, images, whole, wanted);
                run_cases::<ManyDisks>(shared, *row, images, whole, wanted);
                run_cases::<DiskStorm>(shared, *row, images, whole, wanted);
                if Rows::StoreInDom0.contain(*row, whole) {
                    run_torture(shared, *row, images, wanted);
                }
                println!("        {row} took {:.0} s", start.elapsed().as_secs_f64());
            });
        }
    });
}

/// Holds the images that are installed against the table.
fn asked_of_xen(images: &Images) -> Result<()> {
    for (name, path) in asked::IMAGES.iter().zip([&images.netdom, &images.blkdom, &images.stubdom]) {
        asked::check(name, &std::fs::read(path)?)?;
    }
    Ok(())
}

fn record(tally: &Mutex<&mut Tally>, name: impl Display, start: Instant, result: Result<()>) {
    tally.lock().unwrap_or_else(PoisonError::into_inner).record(name, start, result);
}

/// The name under which a case of a play runs on a row.
fn name<P: Play>(row: Row, case: &Case<P>) -> String {
    format!("{row} {}", case.name)
}

/// The cases of a play that are to run on a row.
fn selected<P: Play>(row: Row, whole: bool, wanted: &impl Fn(&str) -> bool) -> impl Iterator<Item = &'static Case<P>> {
    let families = P::FAMILIES.iter().filter(move |family| family.rows.contain(row, whole));
    families.flat_map(|family| family.cases).filter(move |case| wanted(&name(row, case)))
}

/// The end-to-end cases of a play on a row. They share a boot; a case that fails may have spoilt it, so the next gets a
/// new one. What QEMU itself does not outlive is tried once more, and said.
fn run_cases<P: Play>(
    tally: &Mutex<&mut Tally>,
    row: Row,
    images: &Images,
    whole: bool,
    wanted: &impl Fn(&str) -> bool,
) {
    let mut cases = selected::<P>(row, whole, wanted).peekable();
    // The case that was under way when QEMU died.
    let mut again = None;
    while again.is_some() || cases.peek().is_some() {
        let start = Instant::now();
        let stage = P::boot(row, images);
        let scene = stage.as_ref().map_err(|error| anyhow!("{error:#}")).and_then(P::set);
        let scene = match scene {
            Ok(scene) => scene,
            Err(error) => {
                let rest: Vec<_> = again.into_iter().chain(cases).map(|case| case.name).collect();
                let error = error.context(format!("not tried: {}", rest.join("; ")));
                return record(tally, format!("{row} {}", P::UP), start, Err(error));
            }
        };
        record(tally, format!("{row} {}", P::UP), start, Ok(()));
        let repeated = again.take();
        for case in repeated.into_iter().chain(cases.by_ref()) {
            let start = Instant::now();
            let witness = P::witness(&scene);
            let lived = || if P::FAILS { Ok(()) } else { cases::lived_through(witness) };
            let result = (case.run)(&scene).and_then(|said| lived().map(|()| said));
            let result = witness.0.with_console(witness.1, result);
            if let Err(error) = &result
                && repeated.is_none_or(|repeated| repeated.name != case.name)
                && let Some(signal) = witness.0.machine().died_of(DEATH)
            {
                println!("QEMU died of signal {signal} in {}, which is tried once more:\n{error:#}", name(row, case));
                again = Some(case);
                break;
            }
            let failed = result.is_err();
            let measured = result.as_ref().map_or("", String::as_str).to_owned();
            record(tally, format!("{} {measured}", name(row, case)), start, result.map(drop));
            if failed {
                break;
            }
        }
    }
}

/// Some kills of what `cargo xtask torture blk` does many of; each boots for itself.
fn run_torture(tally: &Mutex<&mut Tally>, row: Row, images: &Images, wanted: &impl Fn(&str) -> bool) {
    for kill in 0..KILLS {
        let setting = Setting::of_round(kill);
        let name = format!("{row} torture: a power cut under load loses nothing that was flushed: {setting}");
        if wanted(&name) {
            let start = Instant::now();
            let result = torture::round(row, images, setting, Victim::Machine, seed_by_the_clock());
            let measured = result.as_ref().map_or_else(|_| String::new(), |round| format!(": {round}"));
            record(tally, format!("{name}{measured}"), start, result.map(drop));
        }
    }
}

fn run_guests(tally: &Mutex<&mut Tally>, row: Row, image: &Path, successor: &Path, wanted: &impl Fn(&str) -> bool) {
    for test in guests::TESTS {
        let name = format!("{row} guest {} {}", test.name, test.memory);
        if wanted(&name) {
            let start = Instant::now();
            let result = run_guest(row, image, successor, test);
            record(tally, name, start, result);
        }
    }
}

fn run_guest(row: Row, image: &Path, successor: &Path, test: &guests::Test) -> Result<()> {
    let arguments = format!("test={}", test.name);
    let module = test.successor.then_some(successor);
    let guest = direct::Guest { image, arguments: &arguments, module, memory: test.memory, vcpus: test.vcpus };
    let report = direct::run(row.release, guest, Duration::from_secs(60))?;
    let expected = test.expected.name();
    let end = || symbolize::symbolize(image, &report.tail(30)).unwrap_or_else(|_| report.tail(30));
    if report.verdict.to_string() != expected {
        bail!("{} instead of {expected}; the console's end:\n{}", report.verdict, end());
    }
    let mut rest = report.console.as_str();
    for text in test.console {
        let Some((_, after)) = rest.split_once(text) else {
            bail!("the console lacks '{text}', or has it too early; its end:\n{}", end());
        };
        rest = after;
    }
    Ok(())
}

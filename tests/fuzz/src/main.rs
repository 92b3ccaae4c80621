//! `fuzz TARGET`: feeds a fuzz target, runs a failure again, shrinks it, keeps a corpus. Host.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use fuzz::{World, inputs, shrink};

const USAGE: &str = "usage: fuzz TARGET [--seconds N] [--seed S] [--keep] [--one FILE] [--minimise FILE] [--tape FILE] [--unpack DIR] [--pack DIR]

  --seconds N      how long (default 10)
  --seed S         where the random numbers begin (default 1)
  --keep           keep what shows something new in the corpus, and of the rest what shows something no shorter one shows
  --one FILE       run the inputs of a file, in one world
  --minimise FILE  find the least of a failing file that still fails; it goes into FILE.min
  --tape FILE      print what the hostile guest does in the inputs of a file, for a frontend under Xen
  --unpack DIR     write each input of the corpus to a file of its own in DIR
  --pack DIR       make the corpus of the files in DIR";

/// What is asked for.
enum Task {
    Feed,
    One(PathBuf),
    Minimise(PathBuf),
    Tape(PathBuf),
    Unpack(PathBuf),
    Pack(PathBuf),
}

struct Options {
    target: String,
    seconds: u64,
    seed: u64,
    keep: bool,
    task: Task,
}

fn options(mut words: impl Iterator<Item = String>) -> Option<Options> {
    let target = words.next().filter(|word| fuzz::TARGETS.contains(&word.as_str()))?;
    let mut options = Options { target, seconds: 10, seed: 1, keep: false, task: Task::Feed };
    while let Some(word) = words.next() {
        let mut path = || words.next().map(PathBuf::from);
        match word.as_str() {
            "--one" => options.task = Task::One(path()?),
            "--minimise" => options.task = Task::Minimise(path()?),
            "--tape" => options.task = Task::Tape(path()?),
            "--unpack" => options.task = Task::Unpack(path()?),
            "--pack" => options.task = Task::Pack(path()?),
            "--seconds" => options.seconds = words.next()?.parse().ok()?,
            "--seed" => options.seed = words.next()?.parse().ok()?,
            "--keep" => options.keep = true,
            _ => return None,
        }
    }
    Some(options)
}

fn run(options: &Options) -> Result<()> {
    let name = options.target.as_str();
    match &options.task {
        Task::Feed => feed(options),
        Task::One(file) => one(name, file),
        Task::Minimise(file) => minimise(name, file),
        Task::Tape(file) => tape(name, file),
        Task::Unpack(directory) => unpack(name, directory),
        Task::Pack(directory) => pack(name, directory),
    }
}

fn feed(options: &Options) -> Result<()> {
    let name = options.target.as_str();
    let make = || fuzz::target(name).unwrap_or_else(|| unreachable!("{name} is in TARGETS"));
    fuzz::save_on_panic(std::env::temp_dir().join(format!("oxidom-fuzz-{name}")));
    let mut world = World::new(&make);
    let mut corpus = inputs::read(&fuzz::corpus_file(name))?;
    let known = corpus.len();
    let report = fuzz::run(&mut world, &mut corpus, Duration::from_secs(options.seconds), options.seed);
    if options.keep {
        inputs::write(&fuzz::corpus_file(name), &fuzz::minimise(&mut world, corpus))?;
    }
    let operations = report.operations.map(|count| format!(", {} operations a second", report.a_second(count)));
    println!(
        "fuzz {name}: {} executions in {:.1} s, {} a second{}, {} inputs ({} new), nothing found",
        report.executions,
        report.elapsed.as_secs_f64(),
        report.rate(),
        operations.unwrap_or_default(),
        report.kept,
        report.kept - known,
    );
    Ok(())
}

fn one(name: &str, file: &Path) -> Result<()> {
    let make = || fuzz::target(name).unwrap_or_else(|| unreachable!("{name} is in TARGETS"));
    let mut world = World::new(&make);
    let inputs = inputs::read(file)?;
    for (place, input) in inputs.iter().enumerate() {
        print!("input {place}, {} bytes:\n{}", input.len(), fuzz::describe(name, input));
        world.run(input, &mut Vec::new());
    }
    println!("fuzz {name}: {} inputs, nothing found", inputs.len());
    Ok(())
}

/// Each trial is a process of its own: a failure may end it by any means.
fn minimise(name: &str, file: &Path) -> Result<()> {
    let program = std::env::current_exe()?;
    let trial = std::env::temp_dir().join(format!("oxidom-fuzz-trial-{}", std::process::id()));
    let mut trials = 0;
    let mut fails = |list: &[Vec<u8>]| {
        trials += 1;
        let mut command = Command::new(&program);
        command.args([name, "--one"]).arg(&trial).stdout(Stdio::null()).stderr(Stdio::null());
        inputs::write(&trial, list).is_ok() && command.status().is_ok_and(|status| !status.success())
    };
    let list = inputs::read(file)?;
    let least = fails(&list).then(|| shrink::shrink(list, &mut fails));
    std::fs::remove_file(&trial).ok();
    let Some(least) = least else {
        return Err(Error::other(format!("{} does not fail", file.display())));
    };
    let mut path = file.to_path_buf().into_os_string();
    path.push(".min");
    let path = PathBuf::from(path);
    inputs::write(&path, &least)?;
    for input in &least {
        println!("{} bytes:\n{}", input.len(), fuzz::describe(name, input));
    }
    println!("fuzz {name}: {} inputs are left after {trials} trials, in {}", least.len(), path.display());
    Ok(())
}

fn tape(name: &str, file: &Path) -> Result<()> {
    let lives = fuzz::tape(name, &inputs::read(file)?);
    let lives = lives.ok_or_else(|| Error::other(format!("{name} is no backend; netback and blkback are")))?;
    print!("{}", guests::tape::write(&lives));
    Ok(())
}

fn unpack(name: &str, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    for input in inputs::read(&fuzz::corpus_file(name))? {
        std::fs::write(directory.join(format!("{:016x}", fuzz::hash(&input))), input)?;
    }
    Ok(())
}

fn pack(name: &str, directory: &Path) -> Result<()> {
    let mut paths = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let list = paths.iter().map(std::fs::read).collect::<Result<Vec<_>>>()?;
    println!("fuzz {name}: the corpus has {} inputs now", list.len());
    inputs::write(&fuzz::corpus_file(name), &list)
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}\n\ntargets: {}", fuzz::TARGETS.join(", "));
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `fuzz TARGET --seconds N [--seed S] [--keep]`: feeds a fuzz target. Host.

use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: fuzz TARGET [--seconds N] [--seed S] [--keep] [--one FILE]

  --seconds N   how long (default 10)
  --seed S      where the random numbers begin (default 1)
  --keep        keep what shows something new in the corpus, and of the rest what shows something no shorter one shows
  --one FILE    run one input";

struct Options {
    target: String,
    seconds: u64,
    seed: u64,
    keep: bool,
    one: Option<String>,
}

fn options(mut words: impl Iterator<Item = String>) -> Option<Options> {
    let target = words.next().filter(|word| fuzz::TARGETS.contains(&word.as_str()))?;
    let mut options = Options { target, seconds: 10, seed: 1, keep: false, one: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => options.seconds = words.next()?.parse().ok()?,
            "--seed" => options.seed = words.next()?.parse().ok()?,
            "--keep" => options.keep = true,
            "--one" => options.one = Some(words.next()?),
            _ => return None,
        }
    }
    Some(options)
}

fn run(options: &Options) -> std::io::Result<()> {
    let name = options.target.as_str();
    let directory = fuzz::corpus_directory(name);
    fuzz::save_on_panic(std::env::temp_dir().join(format!("oxidom-fuzz-{name}")));
    let mut target = fuzz::target(name).ok_or_else(|| std::io::Error::other(format!("no target {name}")))?;
    let target = target.as_mut();
    if let Some(file) = &options.one {
        let input = std::fs::read(file)?;
        print!("{}", fuzz::describe(name, &input));
        fuzz::run_one(target, &input, &mut Vec::new());
        return Ok(());
    }
    let mut corpus: Vec<_> = fuzz::read_corpus(&directory)?.into_iter().map(|(_, input)| input).collect();
    let known = corpus.len();
    let report = fuzz::run(target, &mut corpus, Duration::from_secs(options.seconds), options.seed);
    let kept = report.kept;
    if options.keep {
        for (path, _) in fuzz::read_corpus(&directory)? {
            std::fs::remove_file(path)?;
        }
        for input in fuzz::minimise(target, corpus) {
            std::fs::write(directory.join(format!("{:016x}", fuzz::hash(&input))), input)?;
        }
    }
    let operations = report.operations.map(|count| format!(", {} operations a second", report.a_second(count)));
    println!(
        "fuzz {name}: {} executions in {:.1} s, {} a second{}, {} inputs ({} new), nothing found",
        report.executions,
        report.elapsed.as_secs_f64(),
        report.rate(),
        operations.unwrap_or_default(),
        kept,
        kept - known,
    );
    Ok(())
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

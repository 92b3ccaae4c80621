//! `cargo xtask attack`: hostile frontends against any backend, each with its verdict. Host.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use e2e::attack::campaign::{Backend, Battlefield, Sortie, Verdict};
use lab::{Row, host};

use crate::images;
use crate::torture::seed_by_the_clock;

/// Lines of the kernels' logs that are shown of an attack that ended as it must not.
const LOG_LINES: usize = 30;

/// What `cargo xtask attack` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The kind of frontend that attacks
    what: What,
    /// What is attacked: linux is netback or blkback of a Linux driver domain; by default netdom or blkdom
    #[arg(long)]
    backend: Option<Side>,
    /// The row of the matrix: debian12 or debian13, either with -stubdom
    #[arg(long, default_value = "debian12")]
    row: Row,
    /// Only attacks whose name contains this
    #[arg(long, conflicts_with = "rounds")]
    only: Option<String>,
    /// Replay what a fuzzer's hostile guest did in a file of inputs (`cargo xtask fuzz` writes one where it finds something)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "rounds"])]
    replay: Option<PathBuf>,
    /// Number of attackers that make attacks by chance, one after the other, in place of each attack once
    #[arg(long)]
    rounds: Option<u64>,
    /// The first round's seed, those after it follow; without it, one by the clock
    #[arg(long, requires = "rounds")]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// A network frontend
    Net,
    /// A block frontend
    Blk,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Linux,
    Netdom,
    Blkdom,
}

fn backend(arguments: &Arguments) -> Result<Backend> {
    Ok(match (arguments.what, arguments.backend) {
        (What::Net, None | Some(Side::Netdom)) => Backend::Netdom,
        (What::Blk, None | Some(Side::Blkdom)) => Backend::Blkdom,
        (What::Net, Some(Side::Linux)) => Backend::Netback,
        (What::Blk, Some(Side::Linux)) => Backend::Blkback,
        (What::Net, Some(Side::Blkdom)) => bail!("blkdom has no network backend; `attack blk` attacks it"),
        (What::Blk, Some(Side::Netdom)) => bail!("netdom has no block backend; `attack net` attacks it"),
    })
}

fn sorties(arguments: &Arguments, backend: Backend) -> Result<Vec<Sortie>> {
    if let Some(file) = &arguments.replay {
        let tape = tape(arguments.what, file)?;
        let lives = tape.lines().filter(|line| line.starts_with("life")).count();
        ensure!(lives > 0, "{} has no input", file.display());
        println!("The tape has {lives} lives");
        return Ok(vec![Sortie::replay(tape)]);
    }
    if let Some(rounds) = arguments.rounds {
        let first = arguments.seed.unwrap_or_else(seed_by_the_clock);
        println!("{rounds} rounds, seeds from {first} on");
        return Ok((0..rounds).map(|round| Sortie::random(backend, first.wrapping_add(round))).collect());
    }
    let only = arguments.only.as_deref().unwrap_or_default();
    let attacks = backend.attacks().into_iter().filter(|attack| attack.name.contains(only));
    Ok(attacks.map(Sortie::single).collect())
}

/// What the hostile guest does in a file of the fuzzer's inputs.
fn tape(what: What, file: &Path) -> Result<String> {
    let program = images::fuzzer()?;
    let target = match what {
        What::Net => "netback",
        What::Blk => "blkback",
    };
    let output = Command::new(&program).arg(target).arg("--tape").arg(file).output();
    let output = output.with_context(|| format!("starting {}", program.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).context("the tape is no text")
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let backend = backend(arguments)?;
    let sorties = sorties(arguments, backend)?;
    ensure!(!sorties.is_empty(), "there is no attack of that name");
    host::provide(&[host::IMAGES, host::BOOT].concat())?;
    println!("Building the images, which takes minutes the first time");
    let images = images::for_attacks()?;
    println!("Booting Xen, dom0, the driver domain and a neighbour on {}", arguments.row);
    let start = Instant::now();
    let field = Battlefield::boot(arguments.row, &images, backend)?;
    let scene = field.set()?;
    let mut verdicts = Vec::new();
    for (index, sortie) in sorties.iter().enumerate() {
        let verdict = scene.attack(sortie)?;
        println!("{:3} of {}  {}: {verdict}", index + 1, sorties.len(), verdict.sortie);
        verdicts.push(verdict);
    }
    show(&verdicts);
    let wrong = verdicts.iter().filter(|verdict| !verdict.is_right()).count();
    println!(
        "{} attacks in {:.0} s: {} right, {wrong} wrong",
        verdicts.len(),
        start.elapsed().as_secs_f64(),
        verdicts.len() - wrong
    );
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The table.
fn show(verdicts: &[Verdict]) {
    let width = verdicts.iter().map(|verdict| verdict.sortie.chars().count()).max().unwrap_or(0).min(60);
    println!("\n{:<width$}  {:<7}  {:<4}  {:<9}", "attack", "device", "logs", "all right");
    for verdict in verdicts {
        let device = if verdict.closed.is_some() { "closed" } else { "borne" };
        let device = if verdict.wrong.is_some() { "-" } else { device };
        let logs = if verdict.alarms().next().is_none() { "-" } else { "loud" };
        let right = if verdict.is_right() { "yes" } else { "NO" };
        println!("{:<width$}  {device:<7}  {logs:<4}  {right:<9}", verdict.sortie);
    }
    for verdict in verdicts {
        if let Some(wrong) = &verdict.wrong {
            println!("\n{} is wrong: {wrong}", verdict.sortie);
            let last = verdict.logs.len().saturating_sub(LOG_LINES);
            verdict.logs.iter().skip(last).for_each(|line| println!("in the log of {line}"));
        }
    }
}

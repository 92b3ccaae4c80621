//! `cargo xtask torture`: power cuts under load, again and again. Host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use e2e::Images;
use e2e::torture::{self, Setting, Victim};
use lab::{Row, host};

use crate::images;

/// What `cargo xtask torture` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// blkdom: what a guest wrote and flushed must outlive kills of the machine whose drive has a volatile cache
    Blk(Blk),
}

#[derive(clap::Args)]
struct Blk {
    /// The row of the matrix: debian12 or debian13, either with -stubdom
    #[arg(long, default_value = "debian12")]
    row: Row,
    /// How often the machine is killed; each time costs a boot
    #[arg(long, default_value_t = 20)]
    kills: u64,
    /// The first round's seed, those after it follow; without it, one by the clock
    #[arg(long)]
    seed: Option<u64>,
    /// What is killed: machine (QEMU), or domain (blkdom by `xl destroy`, then QEMU)
    #[arg(long, default_value = "machine")]
    what: Victim,
    /// Another image in place of blkdom's, such as one that is broken: to see that this finds it
    #[arg(long)]
    image: Option<PathBuf>,
}

/// A seed that nobody has chosen.
pub(crate) fn seed_by_the_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let What::Blk(Blk { row, kills, seed, what, image }) = &arguments.what;
    host::provide(&[host::IMAGES, host::BOOT].concat())?;
    let built = match image {
        // netdom has no part in this.
        Some(image) => Images {
            netdom: image.clone(),
            blkdom: image.clone(),
            stubdom: images::path(images::STORE),
            tool: None,
            faulty_store: None,
            faulty_netdom: None,
            faulty_blkdom: None,
            hostile: None,
            guest: None,
            puppet: None,
            successor: None,
        },
        None => images::for_demo()?,
    };
    let first = seed.unwrap_or_else(seed_by_the_clock);
    println!("{kills} kills on {row}, seeds from {first} on");
    let start = Instant::now();
    let (mut operations, mut sectors, mut lost, mut kept) = (0, 0, 0, 0);
    for kill in 0..*kills {
        let (setting, seed) = (Setting::of_round(kill), first.wrapping_add(kill));
        let round = torture::round(*row, &built, setting, *what, seed)
            .with_context(|| format!("kill {} of {kills}", kill + 1))?;
        println!("kill {:2} of {kills}: {setting}: {round}", kill + 1);
        operations += round.checked.operations;
        sectors += round.checked.sectors;
        lost += round.loss.lost;
        kept += round.loss.kept;
    }
    println!(
        "{kills} kills, nothing lost that was flushed, nothing torn: {operations} operations durable, {sectors} stamped sectors right, \
         {lost} unflushed sectors lost and {kept} kept, in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

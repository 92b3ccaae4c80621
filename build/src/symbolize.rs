//! `cargo xtask symbolize`: addresses of a console's log, turned into functions and lines. Host.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::Result;
use e2e::symbolize::Symbols;

/// What `cargo xtask symbolize` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image that wrote the log, e.g. dist/netdom; its debug information is found beside it
    image: PathBuf,
}

/// Copies stdin to stdout; a line with addresses of the image's code gets a line for each below it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let symbols = Symbols::load(&arguments.image)?;
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        writeln!(output, "{line}")?;
        for place in symbols.places(&line)? {
            writeln!(output, "      {place}")?;
        }
    }
    Ok(())
}

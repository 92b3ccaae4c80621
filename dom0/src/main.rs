//! `oxidom`, the tool of dom0. Host.
#![forbid(unsafe_code)]

mod connection;
mod console;
mod counters;
mod cpu;
mod domain;
mod exporter;
mod look;
mod model;
mod reattach;
mod replace;
mod report;
mod show;
mod top;
mod xenstore;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use connection::Connection;
use look::Look;
use reattach::{Reattach, Xl};
use report::Report;
use split_driver::control::WORDS_MAX;

/// Looks after driver domains from dom0: shows what they do, replaces images while guests run, restarts domains in place, attaches devices anew
#[derive(Parser)]
#[command(name = "oxidom", version, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 it was done; 1 it was not, and nothing has changed; 2 the command line is wrong; 3 the new image did not take over, \
and the one before it is back; 4 some device could not be attached; 5 the name given to reattach is no domain's, nor that of a \
backend that is gone; 6 status shows a driver domain that is not ready or says what is wrong, or a device that is refused.

Examples:
  oxidom status
  oxidom --json stats netdom
  oxidom top
  oxidom log netdom -f
  oxidom exporter --listen 127.0.0.1:9710
  oxidom update netdom /usr/lib/oxidom/netdom
  oxidom update netdom /usr/lib/oxidom/netdom --words 'bridge=xenbr0 log=debug'
  oxidom --json restart netdom
  oxidom restart Xenstore
  xl destroy netdom; xl create /etc/xen/netdom.cfg; oxidom reattach netdom")]
struct Arguments {
    /// Print the result as one line of JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put another image in the place of a domain's running one; guests stay connected
    Update {
        /// The domain, by name or number
        domain: String,
        /// The image, as for `kernel=`
        file: PathBuf,
        /// The command line of the new image, in place of the one that the domain has; it stays until the domain ends
        #[arg(long)]
        words: Option<String>,
    },
    /// Have a domain begin a new life inside itself; guests stay connected
    Restart {
        /// The domain, by name or number
        domain: String,
    },
    /// Attach vifs and disks anew whose backend's domain is gone, to the domain that has its name now
    Reattach {
        /// Only those of this backend's domain, by name or number
        domain: Option<String>,
    },
    #[command(flatten)]
    Look(Look),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => report::print_error(&error, arguments.json),
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.command {
        Command::Look(look) => look::run(look, arguments.json),
        command => change(command, arguments.json),
    }
}

/// Carries out a command that changes something; gives the exit code.
fn change(command: &Command, as_json: bool) -> Result<ExitCode> {
    let connection = Connection::open()?;
    let (store, clock) = (connection.store(), connection.clock());
    connection.run(async {
        match command {
            Command::Update { domain, file, words } => {
                check_words(words.as_deref().unwrap_or_default())?;
                let image = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
                let domain = domain::find(store, domain).await?;
                let _lock = domain.lock()?;
                let bar = report::progress(image.len(), as_json);
                let told = |bytes: usize| bar.set_position(bytes as u64);
                let file = (image.as_slice(), words.as_deref());
                let answer = if xenstore::is_served_by(store, &domain).await? {
                    xenstore::update(store, file, told).await
                } else {
                    replace::update(store, &clock, &domain, number(), file, told).await
                };
                bar.finish_and_clear();
                Ok(Report { domain, answer: answer? }.print(as_json))
            }
            Command::Restart { domain } => {
                let domain = domain::find(store, domain).await?;
                let _lock = domain.lock()?;
                let answer = if xenstore::is_served_by(store, &domain).await? {
                    xenstore::restart(store).await
                } else {
                    replace::restart(store, &clock, &domain, number()).await
                };
                Ok(Report { domain, answer: answer? }.print(as_json))
            }
            Command::Reattach { domain } => {
                let toolstack = Xl(clock.clone());
                let attached = Reattach { store, clock: &clock, toolstack }.run(domain.as_deref()).await?;
                Ok(report::print_attached(&attached, as_json))
            }
            // Of another kind.
            Command::Look(look) => look::run(look, as_json),
        }
    })?
}

/// Whether a domain can keep the words.
fn check_words(words: &str) -> Result<()> {
    ensure!(words.len() <= WORDS_MAX, "--words have {} bytes, and a domain keeps {WORDS_MAX} at most", words.len());
    ensure!(words.bytes().all(|byte| matches!(byte, b' '..=b'~')), "--words hold something else than printable ASCII");
    Ok(())
}

/// A number for a request: none that an earlier one is likely to have had.
fn number() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_nanos() as u32 ^ std::process::id().rotate_left(16)).max(1)
}

//! The commands that look at the host and change nothing. Host.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Subcommand};
use futures_util::future::{Either, select};
use split_driver::time::Timer;

use crate::connection::Connection;
use crate::exporter::{self, Place};
use crate::model::{DriverDomain, Image, Snapshot};
use crate::reattach::Xl;
use crate::{console, cpu, domain, model, report, show, top, xenstore};

/// How long the store may take for one picture.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is looked at.
#[derive(Subcommand)]
pub(crate) enum Look {
    /// Show driver domains, what they own, whom they serve, and what is wrong
    Status {
        /// Only this driver domain, or what this guest is served; by name or number
        domain: Option<String>,
    },
    /// Show bridges with their ports, and the addresses learnt there
    Bridge {
        /// Only bridges of this name
        name: Option<String>,
    },
    /// Print all counters once, with their units
    Stats {
        /// Only of this driver domain, or of this guest's devices; by name or number
        domain: Option<String>,
    },
    /// Show what happens now, by vif, disk and driver domain
    Top(Top),
    /// Print a domain's console, from the file in which xenconsoled keeps it
    Log(Log),
    /// Show what a `target=` may name on a blkdom, and who has it
    Volumes {
        /// The driver domain, by name or number
        domain: String,
    },
    /// Serve all counters in OpenMetrics' format, for Prometheus
    Exporter(Exporter),
}

/// Words of `oxidom top`.
#[derive(Args)]
pub(crate) struct Top {
    /// Seconds from one look to the next; driver domains say what they count once a second
    #[arg(long, short, default_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// End after so many looks
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Words of `oxidom log`.
#[derive(Args)]
pub(crate) struct Log {
    /// The domain, by name or number; its file stays when it is gone
    domain: String,
    /// Go on with what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines, so many of them
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..))]
    lines: Option<u32>,
}

/// Words of `oxidom exporter`.
#[derive(Args)]
pub(crate) struct Exporter {
    /// The address at which scrapers are listened to
    #[arg(long, default_value = "127.0.0.1:9710", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// A socket in the file system, in place of an address
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    unix: Option<PathBuf>,
    /// Print the metrics once, and end
    #[arg(long, conflicts_with_all = ["listen", "unix"])]
    once: bool,
}

/// A picture of now. With what `xl` says of CPU times, where that is wanted.
fn picture(with_cpu: bool) -> Result<Snapshot> {
    let connection = Connection::open()?;
    let (store, clock) = (connection.store(), connection.clock());
    let read = async {
        let mut snapshot = model::read(store).await?;
        if let Some(domain) = &mut snapshot.store
            && let Ok(life) = xenstore::life(store).await
        {
            let split_driver::control::Image { name, version } = life.image;
            (domain.image, domain.lives) = (Some(Image { name, version }), Some(life.lives));
        }
        if with_cpu {
            cpu::note(&mut snapshot, &Xl(clock.clone())).await;
        }
        Ok(snapshot)
    };
    connection.run(async {
        match select(pin!(read), pin!(clock.sleep(PATIENCE))).await {
            Either::Left((snapshot, _)) => snapshot,
            Either::Right(_) => Err(anyhow!("the xenstore did not answer within {PATIENCE:?}")),
        }
    })?
}

/// The domain that a word means.
fn find(word: &str) -> Result<domain::Domain> {
    let connection = Connection::open()?;
    connection.run(domain::find(connection.store(), word))?
}

/// A picture of now, of what concerns one domain, where one is named.
fn picture_of(word: Option<&str>, with_cpu: bool) -> Result<Snapshot> {
    let mut snapshot = picture(with_cpu)?;
    if let Some(word) = word {
        let found = find(word)?;
        let names: Vec<String> = snapshot.domains.iter().map(|domain| domain.name.clone()).collect();
        ensure!(
            snapshot.retain(found.id),
            "{} (domain {}) is no driver domain, and no driver domain serves it; driver domains: {}",
            found.name,
            found.id,
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        );
    }
    Ok(snapshot)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Looks; gives the exit code.
///
/// # Errors
/// Of the store, or there is nothing of what was asked for.
pub(crate) fn run(look: &Look, as_json: bool) -> Result<ExitCode> {
    match look {
        Look::Status { domain } => {
            let snapshot = picture_of(domain.as_deref(), false)?;
            let printed = match as_json {
                true => report::print_json(&show::json(&snapshot)),
                false => report::print_text(&show::status(&snapshot, now())),
            };
            Ok(report::well(printed, snapshot.domains.iter().all(DriverDomain::is_well)))
        }
        Look::Bridge { name } => {
            let snapshot = picture(false)?;
            let found = show::bridges(&snapshot, name.as_deref());
            let (text, json) = found.with_context(|| {
                format!("no driver domain has a bridge {} with ports", name.as_deref().unwrap_or_default())
            })?;
            Ok(if as_json { report::print_json(&json) } else { report::print_text(&text) })
        }
        Look::Stats { domain } => {
            let snapshot = picture_of(domain.as_deref(), true)?;
            Ok(match as_json {
                true => report::print_json(&show::stats_json(&snapshot)),
                false => report::print_text(&show::stats(&snapshot)),
            })
        }
        Look::Top(Top { interval, count }) => {
            let interval = Duration::from_secs(*interval);
            let picture = || picture(true);
            ended(if as_json { top::print(interval, *count, picture) } else { top::show(interval, *count, picture) })
        }
        Look::Log(log) => log.run(as_json),
        Look::Volumes { domain } => volumes(domain, as_json),
        Look::Exporter(exporter) => exporter.run(),
    }
}

/// The exit code of a command that prints for as long as somebody reads.
fn ended(result: Result<()>) -> Result<ExitCode> {
    let Err(error) = result else {
        return Ok(ExitCode::SUCCESS);
    };
    match error.downcast_ref::<std::io::Error>() {
        Some(output) if output.kind() == std::io::ErrorKind::BrokenPipe => Ok(report::broken(output)),
        _ => Err(error),
    }
}

impl Log {
    fn run(&self, as_json: bool) -> Result<ExitCode> {
        let directory = Path::new(console::DIRECTORY);
        let mut path = console::file(directory, &self.domain)?;
        // A name first, as with xl; a domain that is gone is in the store no longer.
        if !path.exists() && self.domain.parse::<u32>().is_ok() {
            path = console::file(directory, &find(&self.domain)?.name)?;
        }
        let lines = self.lines.map(|lines| lines as usize);
        ended(console::print(&path, lines, self.follow, as_json, &mut std::io::stdout().lock()))
    }
}

fn volumes(word: &str, as_json: bool) -> Result<ExitCode> {
    let snapshot = picture_of(Some(word), false)?;
    let Some(domain) = snapshot.domains.first().filter(|domain| !domain.volumes.is_empty()) else {
        bail!(
            "{word} tells of no volumes: either it is no blkdom, or it has no disk (`oxidom status {word}` says so), or its image is older \
             than this tool, and `volumes` on its console lists them"
        );
    };
    Ok(match as_json {
        true => report::print_json(&show::volumes_json(domain)),
        false => report::print_text(&show::volumes(domain)),
    })
}

impl Exporter {
    fn run(&self) -> Result<ExitCode> {
        let metrics = || Ok(exporter::text(&picture(true)?)?);
        if self.once {
            return Ok(report::print_text(&metrics()?));
        }
        let place = match &self.unix {
            Some(path) => Place::Path(path.clone()),
            None => Place::Address(self.listen),
        };
        exporter::serve(&place, metrics)?;
        Ok(ExitCode::SUCCESS)
    }
}

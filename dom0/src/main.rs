//! `oxidom`, the tool of dom0. Host.
#![forbid(unsafe_code)]

mod connection;
mod console;
mod counters;
mod cpu;
mod domain;
mod driver_configs;
mod exporter;
mod guests;
mod host;
mod keep;
mod look;
mod model;
mod pciback;
mod reattach;
mod replace;
mod report;
mod show;
mod store_domain;
mod top;
mod units;
mod xenstore;
mod xl_config;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::{CommandFactory, Parser, Subcommand};

use connection::Connection;
use domain::Domain;
use host::{Dom0, Signals};
use keep::{End, Keep};
use look::Look;
use reattach::{Reattach, Toolstack, Xl};
use report::Report;
use split_driver::control::WORDS_MAX;
use store_domain::StoreDomain;

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
  oxidom update --all
  oxidom --json restart netdom
  oxidom restart Xenstore
  oxidom store enable
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
        #[arg(required_unless_present = "all")]
        domain: Option<String>,
        /// The image, as for `kernel=`
        #[arg(required_unless_present = "all")]
        file: Option<PathBuf>,
        /// The command line of the new image, in place of the one that the domain has; it stays until the domain ends
        #[arg(long)]
        words: Option<String>,
        /// All driver domains that have a config in /etc/xen/oxidom, to their `kernel=`, and the xenstore's domain
        #[arg(long, conflicts_with_all = ["domain", "file", "words"])]
        all: bool,
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
    /// Whether the xenstore has a domain of its own from the next boot on
    Store {
        #[command(subcommand)]
        what: StoreCommand,
    },
    /// Have pciback take the devices of the driver domains at the next boot, before dom0's drivers do
    Hide {
        /// Where that changes something, have the initial RAM file systems made anew
        #[arg(long)]
        initramfs: bool,
    },
    /// Have a driver domain run: create it, build it again where it ends, and shut it down on SIGTERM (oxidom@NAME.service runs this)
    Keep {
        /// The name of a config in /etc/xen/oxidom, or a config file
        config: String,
    },
    /// `xl list -l` without driver domains and the store's domain, for Debian's xendomains
    #[command(hide = true)]
    Guests,
    /// Enable the units of configured driver domains, in a directory of systemd's generators
    #[command(hide = true)]
    Units {
        /// The directory
        directory: PathBuf,
    },
    /// Write the man pages and the shells' completions into a directory
    #[command(hide = true)]
    Documents {
        /// The directory
        directory: PathBuf,
    },
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Put the xenstore into its own domain, at the next boot
    Enable,
    /// Have a daemon in dom0 serve the xenstore again, from the next boot on
    Disable,
    /// Tell where the xenstore is, and where the next boot has it
    Status,
    /// Give dom0 and the store's domain the weights they need, where it has one (oxidom-store.service runs this)
    Weights,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => report::print_error(&error, arguments.json),
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let json = arguments.json;
    let done = match &arguments.command {
        Command::Update { domain: Some(domain), file: Some(file), words, .. } => {
            return update(domain, file, words.as_deref(), json);
        }
        Command::Update { .. } => return update_all(json),
        Command::Restart { domain } => return restart(domain, json),
        Command::Reattach { domain } => return reattach(domain.as_deref(), json),
        Command::Look(look) => return look::run(look, json),
        Command::Store { what } => store(what),
        Command::Hide { initramfs } => hide(*initramfs),
        Command::Keep { config } => keep(config),
        Command::Guests => guests(),
        Command::Units { directory } => units::generate(Path::new(driver_configs::DIRECTORY), directory),
        Command::Documents { directory } => documents(directory),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn update(domain: &str, file: &Path, words: Option<&str>, json: bool) -> Result<ExitCode> {
    check_words(words.unwrap_or_default())?;
    let connection = Connection::open()?;
    let (store, clock) = (connection.store(), connection.clock());
    connection.run(async {
        let image = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let domain = domain::find(store, domain).await?;
        let _lock = domain.lock()?;
        let bar = report::progress(image.len(), json);
        let told = |bytes: usize| bar.set_position(bytes as u64);
        let file = (image.as_slice(), words);
        let answer = if xenstore::is_served_by(store, &domain).await? {
            xenstore::update(store, file, told).await
        } else {
            replace::update(store, &clock, &domain, number(), file, told).await
        };
        bar.finish_and_clear();
        Ok(Report { domain, answer: answer? }.print(json))
    })?
}

/// Updates the driver domains that have a config, and the store's; the first exit code that is not 0.
fn update_all(json: bool) -> Result<ExitCode> {
    let connection = Connection::open()?;
    let store = connection.store();
    let (running, of_store) =
        connection.run(async { anyhow::Ok((domain::all(store).await?, xenstore::domain_number(store).await?)) })??;
    let mut images: Vec<(Domain, PathBuf)> = Vec::new();
    for (_, config) in driver_configs::all(Path::new(driver_configs::DIRECTORY))? {
        let domain = config.as_ref().ok().and_then(|config| running.iter().find(|domain| domain.name == config.name));
        images.extend(domain.cloned().zip(config.ok().map(|config| config.kernel)));
    }
    let store = running.iter().find(|domain| Some(domain.id) == of_store);
    images.extend(store.cloned().map(|store| (store, PathBuf::from("/").join(store_domain::IMAGE))));
    let mut code = ExitCode::SUCCESS;
    for (domain, file) in images {
        let done = update(&domain.id.to_string(), &file, None, json);
        let done = done.with_context(|| format!("updating {}", domain.name));
        let came = done.unwrap_or_else(|error| report::print_error(&error, json));
        if code == ExitCode::SUCCESS {
            code = came;
        }
    }
    Ok(code)
}

fn restart(domain: &str, json: bool) -> Result<ExitCode> {
    let connection = Connection::open()?;
    let (store, clock) = (connection.store(), connection.clock());
    connection.run(async {
        let domain = domain::find(store, domain).await?;
        let _lock = domain.lock()?;
        let answer = if xenstore::is_served_by(store, &domain).await? {
            xenstore::restart(store).await
        } else {
            replace::restart(store, &clock, &domain, number()).await
        };
        Ok(Report { domain, answer: answer? }.print(json))
    })?
}

fn reattach(domain: Option<&str>, json: bool) -> Result<ExitCode> {
    let connection = Connection::open()?;
    let (store, clock) = (connection.store(), connection.clock());
    let reattach = Reattach { store, clock: &clock, toolstack: Xl(clock.clone()) };
    let attached = connection.run(reattach.run(domain))??;
    Ok(report::print_attached(&attached, json))
}

fn guests() -> Result<()> {
    let connection = Connection::open()?;
    let clock = connection.clock();
    connection.run(async {
        let id = xenstore::domain_number(connection.store()).await?;
        let list = Xl(clock).xl(&["list", "-l"]).await?;
        println!("{}", guests::only_guests(&list, id.map(u64::from))?);
        Ok(())
    })?
}

fn hide(initramfs: bool) -> Result<()> {
    let devices = driver_configs::devices(Path::new(driver_configs::DIRECTORY))?;
    if pciback::hide(&devices, Path::new(pciback::HIDE_FILE))? {
        println!("{}: {} devices", pciback::HIDE_FILE, devices.len());
        if initramfs {
            pciback::update_initramfs()?;
        } else {
            println!("`update-initramfs -u` has the next boot know that before it loads drivers");
        }
    }
    Ok(())
}

fn store(what: &StoreCommand) -> Result<()> {
    let files = StoreDomain::default();
    match what {
        StoreCommand::Enable => {
            files.enable()?;
            println!("The next boot puts the xenstore into its own domain: reboot the host.");
        }
        StoreCommand::Disable => {
            files.disable()?;
            println!("The next boot has a daemon in dom0 serve the xenstore: reboot the host.");
        }
        StoreCommand::Status => {
            let connection = Connection::open()?;
            let id = connection.run(xenstore::domain_number(connection.store()))??;
            match id {
                Some(id) => println!("The xenstore is in domain {id}."),
                None => println!("The xenstore is in dom0."),
            }
            println!("The next boot has it in {}.", if files.is_enabled() { "a domain of its own" } else { "dom0" });
        }
        StoreCommand::Weights => {
            let connection = Connection::open()?;
            let clock = connection.clock();
            connection.run(async {
                if let Some(id) = xenstore::domain_number(connection.store()).await? {
                    let weight = store_domain::WEIGHT.to_string();
                    for id in ["0".to_owned(), id.to_string()] {
                        Xl(clock.clone()).xl(&["sched-credit2", "-d", &id, "-w", &weight]).await?;
                    }
                }
                anyhow::Ok(())
            })??;
        }
    }
    Ok(())
}

fn keep(word: &str) -> Result<()> {
    let config = keep::config(word)?;
    let signals = Signals::take()?;
    let connection = Connection::open()?;
    let (store, clock) = (connection.store(), connection.clock());
    let host = Dom0::new(clock.clone(), signals);
    let keep = Keep { config: &config, store, clock: &clock, toolstack: Xl(clock.clone()), host };
    match connection.run(keep.run())?? {
        End::Stopped => Ok(()),
        End::Reloaded => {
            let mut arguments = std::env::args_os();
            let program = arguments.next().context("this program has no name")?;
            Err(std::process::Command::new(program).args(arguments).exec()).context("beginning anew")
        }
    }
}

/// The man pages and completions of this program, as a package has them.
fn documents(directory: &Path) -> Result<()> {
    let mut command = Arguments::command();
    command.build();
    clap_mangen::generate_to(command.clone(), directory)?;
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "oxidom", directory)?;
    }
    Ok(())
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

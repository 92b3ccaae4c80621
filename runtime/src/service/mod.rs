//! What images do alike. Every one says what it is, reads its command line, answers on the console, and lives on when it fails ([`Service`]). A
//! driver domain connects to the store besides, follows its PCI devices and its events, says in the store what it counts, and ends when asked
//! ([`run`]); the store itself does none of that ([`serve`]). Safe code only. Floor 2.

pub mod command_line;
mod complaints;
mod control;
mod devices;
mod events;
#[cfg(feature = "faults")]
mod faults;
mod image;
mod lives;
mod report;
mod terminal;

use command_line::Wrong;

pub use command_line::Options;
pub use complaints::Complaints;
pub use events::Wait;
#[cfg(feature = "faults")]
pub use faults::{Fault, Faults};
pub use image::{DriverDomain, Service, Standalone};

use crate::counts;
use crate::end::{self, Exit};
use crate::environment::Environment;
use crate::executor;
use crate::memory;
use crate::pci::Frontend;
use crate::restart::{self, Parts, Recovered};
use crate::shutdown::{self, Kind, Requests};
use crate::signal::Signal;
use crate::{store, time};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::pending;
use core::time::Duration;
use split_driver::control::IMAGE;
use split_driver::store::{Store, StoreError, Transaction};
use split_driver::xenbus::{Available, DeviceMemory, NodeRoom};
use split_driver::xenstore_client::Client;
use xen_pv_sys::PAGE_SIZE;

/// The topic of the command line's words.
const COMMAND_LINE: &str = "command line";

/// How long the start has the store to itself: whatever else is asked of it delays the domain's readiness.
const HEAD_START: Duration = Duration::from_secs(1);

/// Says in the log what this is.
fn introduce(name: &str, version: &str, environment: &Environment) {
    log::info!(
        "{name} {version}: {} pages, command line \"{}\"",
        environment.pages,
        environment.command_line.escape_debug()
    );
}

/// Reads the command line and obeys the words that every image knows.
fn read_words<S: Service>(environment: &Environment) -> (Options, S::Words, Wrong) {
    let mut words = S::Words::default();
    let (options, wrong) =
        command_line::parse(environment.command_line, |name, value| S::word(&mut words, name, value));
    log::set_max_level(options.level);
    if options.profile {
        counts::time_register_accesses();
    }
    (options, words, wrong)
}

/// Runs an image that is the client of no store, for good.
pub async fn serve<S: Standalone>(name: &str, version: &str, environment: Environment) {
    let recovered = restart::recovered();
    if recovered.is_none() {
        introduce(name, version, &environment);
    }
    let (options, words, wrong) = read_words::<S>(&environment);
    if let Some(text) = wrong.text() {
        log::error!("{text}");
    }
    let service = match S::new(options, words, recovered.as_ref()) {
        Ok(service) => Rc::new(service),
        Err(reason) => {
            log::error!("{name} cannot start: {reason}");
            if let Some(recovered) = recovered {
                // Comes back where there is no old image.
                recovered.give_up(format_args!("the new image cannot start: {reason}"));
            }
            end::exit(Exit::Crash);
        }
    };
    let mut room = lives::Room::plain();
    if !room.make(&service)
        && let Some(recovered) = &recovered
    {
        // Comes back where there is no old image. Then what this life does counts, not what the last one left.
        recovered.give_up(format_args!("the new image has no memory for the state"));
    }
    match recovered {
        None => {
            let what = service.ready().await;
            log::info!("ready in {} ms: {what}", time::now().0 / 1_000_000);
        }
        Some(mut recovered) => {
            let (pause, own) = recovered.taken_over();
            // What has to wait for the service need not wait for these lines as well.
            introduce(name, version, &environment);
            service.taken_over(&recovered, pause, own);
        }
    }
    #[cfg(feature = "faults")]
    if let Some(faults) = options.faults {
        faults.arm();
    }
    executor::spawn(lives::keep(Rc::clone(&service), room));
    executor::spawn(terminal::run(Rc::clone(&service)));
    service.serve().await;
}

/// Runs a driver domain from the first instruction to the end that the toolstack asks for.
pub async fn run<S: DriverDomain>(name: &str, version: &str, environment: Environment) {
    introduce(name, version, &environment);
    let store = match store::connect() {
        Ok(store) => store,
        Err(error) => {
            log::error!("no xenstore: {error}; nothing can be done without it");
            return;
        }
    };
    let (options, words, wrong) = read_words::<S>(&environment);
    let recovered = restart::recovered();
    if let (Some(recovered), Some(text), false) = (&recovered, wrong.text(), wrong.fatal.is_empty()) {
        // Before anything is touched. Comes back where there is no old image.
        recovered.give_up(format_args!("{text}"));
    }
    let complaints = Rc::new(Complaints::new(store.clone()));
    if recovered.is_none() {
        say_image(&store).await;
    }
    if let Some(text) = wrong.text() {
        complaints.complain(COMMAND_LINE, &text).await;
    }
    let frontend = match &recovered {
        Some(recovered) => Some(lives::go_on(recovered, &store).await),
        None => None,
    };
    let service = if wrong.fatal.is_empty() {
        let inherited = recovered.as_ref().map(|recovered| Parts::new(recovered.bytes()));
        S::new(store.clone(), Rc::clone(&complaints), options, words, inherited)
    } else {
        Err("words of the command line are wrong".into())
    };
    if let (Err(reason), Some(recovered)) = (&service, &recovered) {
        // Comes back where there is no old image.
        recovered.give_up(format_args!("the new image does not start: {reason}"));
    }
    let kind = match service {
        Ok(service) => {
            let service = Rc::new(service);
            executor::spawn(lives::keep(Rc::clone(&service), lives::Room::with_devices()));
            let ready = Rc::new(Signal::new());
            let beginning = Beginning { recovered, frontend, ready: Rc::clone(&ready) };
            executor::spawn(start(Rc::clone(&service), beginning, complaints, options));
            // A request from before the watch is not lost.
            let _late = time::timeout(HEAD_START, ready.wait()).await;
            let kind = asked_to_end(&store).await;
            service.stop().await;
            kind
        }
        Err(reason) => {
            complaints.complain("start", &format!("not started: {reason}")).await;
            log::error!("correct that and create the domain anew");
            let why = format!("the domain did not start: {reason}; correct that and create it anew");
            executor::spawn(control::run(store.clone(), Err(why), None));
            asked_to_end(&store).await
        }
    };
    log::info!("{kind} as asked");
    shutdown::finish(kind);
}

/// What [`start`] begins with.
struct Beginning {
    /// What the last life left.
    recovered: Option<Recovered>,
    /// The connection to pciback, where the last life's goes on.
    frontend: Option<Frontend<Client>>,
    /// Set when the domain is ready.
    ready: Rc<Signal>,
}

/// Starts all tasks, and says when the domain is ready.
async fn start<S: DriverDomain>(service: Rc<S>, beginning: Beginning, complaints: Rc<Complaints>, options: Options) {
    let Beginning { recovered, frontend, ready } = beginning;
    let devices = Rc::new(devices::Progress::default());
    executor::spawn(events::run(Rc::clone(&service)));
    executor::spawn(devices::run(Rc::clone(&service), frontend, Rc::clone(&devices), Rc::clone(&complaints)));
    devices.asked_for.wait().await;
    executor::spawn(Rc::clone(&service).serve());
    executor::spawn(terminal::run(Rc::clone(&service)));
    devices.seen.wait().await;
    let outcome = match recovered {
        Some(recovered) => Some(lives::take_over(&*service, recovered).await),
        None => None,
    };
    if outcome.is_some() {
        // Now that nobody waits.
        complaints.begin_anew().await;
        say_image(service.store()).await;
    }
    executor::spawn(control::run(service.store().clone(), Ok(()), outcome));
    let what = service.ready().await;
    let milliseconds = time::now().0 / 1_000_000;
    log::info!("ready in {milliseconds} ms: {what}");
    write_node(service.store(), "data/ready", &format!("{milliseconds} ms: {what}")).await;
    ready.set();
    #[cfg(feature = "faults")]
    if let Some(faults) = options.faults {
        faults.arm();
    }
    executor::spawn(report::run(service, options));
}

/// Complains while devices take so many nodes of the store that soon no more can be attached. `count` gives the nodes in their
/// directories, and the devices: each has a node of statistics beside.
pub async fn watch_nodes(store: &Client, complaints: &Complaints, count: impl Fn() -> (usize, usize)) {
    const TOPIC: &str = "nodes";
    const INTERVAL: Duration = Duration::from_secs(2);
    /// Intervals until a quota that was met is tried again.
    const AGAIN: u32 = 15;
    let room = NodeRoom::new();
    let mut rounds: u32 = 0;
    loop {
        time::sleep(INTERVAL).await;
        rounds = rounds.wrapping_add(1);
        let (nodes, devices) = count();
        match room.is_short(store, nodes + devices, rounds.is_multiple_of(AGAIN)).await {
            Ok(false) => complaints.retract(TOPIC).await,
            // No number, which would be news with each device.
            Ok(true) => {
                let text = "the store lets this domain have less than a quarter more nodes than it has: raise that quota \
                            before more devices are attached, see \"Many devices\" in the README";
                complaints.complain(TOPIC, text).await;
            }
            Err(error) => log::debug!("the room for nodes: {error}"),
        }
    }
}

/// Bytes that devices leave to all else: tables that grow, the store's requests, a device that is passed later.
const MEMORY_RESERVE: usize = 1 << 20;

/// The domain's memory, for a back end that must not promise its devices more than there is; `shared` bytes of it are for what devices
/// share.
pub fn device_memory(shared: usize) -> DeviceMemory {
    DeviceMemory::new(MEMORY_RESERVE + shared, || {
        let usage = memory::usage();
        let pages = usage.free_frames + usage.room_frames + usage.heap_frames;
        let free = (pages * PAGE_SIZE).saturating_sub(usage.heap_bytes);
        Available { free, heap: usage.heap_bytes }
    })
}

/// Waits until the toolstack asks for an end.
async fn asked_to_end(store: &Client) -> Kind {
    match Requests::new(store.clone()).await {
        Ok(mut requests) => requests.requested().await,
        Err(error) => {
            log::error!("control/shutdown cannot be watched: {error}; only xl destroy ends this domain");
            pending().await
        }
    }
}

/// Writes a node of the domain's own; a failure is logged.
pub async fn write_node(store: &Client, path: &str, value: &str) {
    match store.write(Transaction::NONE, path, value.as_bytes()).await {
        Ok(()) | Err(StoreError::Closed) => {}
        Err(error) => log::warn!("{path} not written: {error}"),
    }
}

/// Says in the store which image this is.
async fn say_image(store: &Client) {
    let own = restart::own_identity();
    write_node(store, IMAGE, &format!("{} {}", own.name, own.version)).await;
}

/// What the domain has on loan now, as `name value` pairs: the same before a frontend came and after it went.
fn resources<S: Service>(service: &S) -> String {
    let usage = memory::usage();
    let (requests, watches) = service.requests();
    format!(
        "free-pages {}, heap-pages {}, heap-bytes {}, mapped-pages {}, grants {}, ports {}, {}, store-requests {requests}, watches {watches}, lives {}",
        usage.free_frames,
        usage.heap_frames,
        usage.heap_bytes,
        usage.mapped_pages,
        crate::grants::in_use(),
        crate::events::bound(),
        service.resources(),
        restart::lives(),
    )
}

/// What the domain asked of Xen and of its devices since its life began, as `name value` pairs: first the time at which that was so, how long
/// the vCPU has run since Xen made it, and how much of that passed in register accesses.
fn counted() -> String {
    let register_ns = counts::register_cycles().map_or(0, time::nanoseconds);
    let times = [
        ("uptime-ms", time::now().0 / 1_000_000),
        ("running-us", u64::try_from(time::running().as_micros()).unwrap_or(u64::MAX)),
        ("register-us", register_ns / 1_000),
    ];
    let pairs: Vec<String> =
        times.into_iter().chain(counts::all()).map(|(name, count)| format!("{name} {count}")).collect();
    pairs.join(", ")
}

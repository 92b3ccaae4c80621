//! What every driver domain does alike: it connects to the store, follows its PCI devices and its events, answers on the console, says
//! in the store what it counts, and ends when asked. Safe code only. Floor 2.

pub mod command_line;
mod complaints;
mod control;
mod devices;
mod events;
#[cfg(feature = "faults")]
mod faults;
mod lives;
mod report;
mod terminal;

pub use command_line::Options;
pub use complaints::Complaints;
pub use events::Wait;
#[cfg(feature = "faults")]
pub use faults::{Fault, Faults};

use crate::counts;
use crate::environment::Environment;
use crate::events::EventSet;
use crate::executor;
use crate::memory;
use crate::pci::{Device, Frontend, PciAddress};
use crate::restart::{self, BoxWriter, Parts, Policy, Recovered};
use crate::shutdown::{self, Kind, Requests};
use crate::signal::Signal;
use crate::{store, time};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::{Future, pending};
use core::time::Duration;
use split_driver::store::{Store, StoreError, Transaction};
use split_driver::xenbus::{Available, DeviceMemory, NodeRoom};
use split_driver::xenstore_client::Client;
use xen_pv_sys::{PAGE_SIZE, Port};

/// The topic of the command line's words.
const COMMAND_LINE: &str = "command line";

/// How long the start has the store to itself: whatever else is asked of it delays the domain's readiness.
const HEAD_START: Duration = Duration::from_secs(1);

/// A driver domain. Its methods take turns on one vCPU: none keeps a borrow across an `await`.
pub trait Service: Sized + 'static {
    /// Its commands on the console, for `help`: a line each.
    const HELP: &'static str;

    /// Whether it goes on in a new life where one fails.
    const LIVES: bool = false;

    /// How often it does.
    const POLICY: Policy = if cfg!(feature = "faults") {
        Policy { in_a_row: 32, settled_after: Duration::from_millis(50) }
    } else {
        Policy { in_a_row: 5, settled_after: Duration::from_secs(10) }
    };

    /// What the words of the command line ask for that only this domain knows.
    type Words: Default;

    /// Obeys a word `name=value`; false where it is none of this domain's.
    ///
    /// # Errors
    /// What is wrong with the value: the domain does not start.
    fn word(words: &mut Self::Words, name: &str, value: &str) -> Result<bool, String>;

    /// Begins; in a domain that lived before from `inherited`, what [`write_state`](Self::write_state) wrote in the last life.
    ///
    /// # Errors
    /// Why nothing can be served. The administrator reads it in the log and in `data/error`; the domain waits for its end.
    fn new(
        store: Client,
        complaints: Rc<Complaints>,
        options: Options,
        words: Self::Words,
        inherited: Option<Parts<'_>>,
    ) -> Result<Self, String>;

    /// Bytes that [`write_state`](Self::write_state) writes at most, about.
    fn state_length(&self) -> usize {
        0
    }

    /// Writes what the next life begins from, without allocating. It is called when a life ends, wherever that was: what is borrowed then may
    /// be half-changed, and is left out.
    fn write_state(&self, out: &mut BoxWriter) {
        let _ = out;
    }

    /// Its store.
    fn store(&self) -> &Client;

    /// Where the events of its frontends and devices arrive.
    fn events(&self) -> EventSet;

    /// Set by whoever gave [`round`](Self::round) something to do.
    fn work(&self) -> &Signal;

    /// A round of the data path: takes the ports whose events arrived, and says what to wait for.
    fn round(&self, ports: &mut Vec<Port>) -> Wait;

    /// Serves frontends for good. Begins when pciback knows of the domain, which then has much to do.
    fn serve(self: Rc<Self>) -> impl Future<Output = ()>;

    /// `xl` passed a device to the domain, at its creation or later.
    fn device_added(&self, device: Device) -> impl Future<Output = ()>;

    /// `xl` takes a device away.
    fn device_removed(&self, address: PciAddress) -> impl Future<Output = ()>;

    /// All devices of the domain's creation were added: waits until they can be used, and says what it is ready with.
    fn ready(&self) -> impl Future<Output = String>;

    /// Waits until the frontends that the last life had connected are served on, in a domain that lived before.
    fn adopted(&self) -> impl Future<Output = ()> {
        core::future::ready(())
    }

    /// A line for each thing that counts, by a path in the store: that of a device is `vif/3/0`, as its backend's.
    fn statistics(&self) -> Vec<(String, String)>;

    /// What it has on loan beside what every domain has, as `name value` pairs with commas.
    fn resources(&self) -> String;

    /// A command on the console; false where there is no such command.
    fn command(self: &Rc<Self>, words: &[&str]) -> bool;

    /// Quiets the hardware, for the domain's end.
    fn stop(&self) -> impl Future<Output = ()>;
}

/// Runs the service from the first instruction to the end that the toolstack asks for.
pub async fn run<S: Service>(name: &str, version: &str, environment: Environment) {
    log::info!(
        "{name} {version}: {} pages, command line \"{}\"",
        environment.pages,
        environment.command_line.escape_debug()
    );
    let store = match store::connect() {
        Ok(store) => store,
        Err(error) => {
            log::error!("no xenstore: {error}; nothing can be done without it");
            return;
        }
    };
    let mut words = S::Words::default();
    let (options, wrong) =
        command_line::parse(environment.command_line, |name, value| S::word(&mut words, name, value));
    log::set_max_level(options.level);
    if options.profile {
        counts::time_register_accesses();
    }
    let recovered = if S::LIVES { restart::recovered() } else { None };
    if let (Some(recovered), Some(text), false) = (&recovered, wrong.text(), wrong.fatal.is_empty()) {
        // Before anything is touched. Comes back where there is no old image.
        recovered.give_up(format_args!("{text}"));
    }
    let complaints = Rc::new(Complaints::new(store.clone()));
    match wrong.text() {
        Some(text) => complaints.complain(COMMAND_LINE, &text).await,
        None if recovered.is_some() => complaints.begin_anew().await,
        None => {}
    }
    let frontend = match &recovered {
        Some(recovered) if S::LIVES => Some(lives::go_on(recovered, &store).await),
        _ => None,
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
            if S::LIVES {
                executor::spawn(lives::keep(Rc::clone(&service)));
            }
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
async fn start<S: Service>(service: Rc<S>, beginning: Beginning, complaints: Rc<Complaints>, options: Options) {
    let Beginning { recovered, frontend, ready } = beginning;
    let devices = Rc::new(devices::Progress::default());
    executor::spawn(events::run(Rc::clone(&service)));
    executor::spawn(devices::run(Rc::clone(&service), frontend, Rc::clone(&devices), complaints));
    devices.asked_for.wait().await;
    executor::spawn(Rc::clone(&service).serve());
    executor::spawn(terminal::run(Rc::clone(&service)));
    devices.seen.wait().await;
    let outcome = match recovered {
        Some(recovered) if S::LIVES => Some(lives::take_over(&*service, recovered).await),
        _ => None,
    };
    let able = if S::LIVES { Ok(()) } else { Err("its image cannot begin a new life: create the domain anew".into()) };
    executor::spawn(control::run(service.store().clone(), able, outcome));
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

/// What the domain has on loan now, as `name value` pairs: the same before a frontend came and after it went.
fn resources<S: Service>(service: &S) -> String {
    let usage = memory::usage();
    let (requests, watches) = service.store().live();
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

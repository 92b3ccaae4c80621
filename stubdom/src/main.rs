//! stubdom, the image: joins the library to the runtime. Floor 3.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use runtime::domains::Domains;
use runtime::events::{self, Channel};
use runtime::hypervisor::Xen;
use runtime::restart::{self, BoxWriter, Cause, Policy, Recovered, ReplaceError, Staging, Unwritten};
use runtime::select::select;
use runtime::service::{self, Options, Service, Standalone};
use runtime::signal::Signal;
use runtime::{Environment, memory, time};
use split_driver::hypervisor::XenError;
#[cfg(feature = "faults")]
use stubdom::command_line::Fails;
use stubdom::command_line::Words;
use stubdom::{Keeper, Means, STATE, Saved, Server, Successor, Wait};
use xen_pv_sys::xen::VIRQ_DOM_EXC;
use xen_pv_sys::{PAGE_SIZE, Port};
use xenstore_lite::Config;

/// Turns without a look at events, at the console and at the room for the state. More would let a domain that always has a request be served so often before another's
/// event is seen.
const TURNS: usize = 1;

/// How long a request that the store holds back waits at least.
const HELD: Duration = Duration::from_millis(1);

/// Changes between two looks at whether the box is large enough, at least.
const CHANGES: usize = 64;

runtime::entry!(main, writes: STATE, reads: STATE);

async fn main(environment: Environment) {
    service::serve::<Image>(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), environment).await;
}

/// The running store.
struct Image {
    xen: Xen,
    changes: Channel,
    server: RefCell<Server<Xen, Domains>>,
    keeper: Rc<Keeper>,
    /// So much has changed that the state may have outgrown its box.
    grown: Signal,
}

impl Service for Image {
    const HELP: &'static str = "";

    /// A life that has lasted so long is sound: what fails later is the first failure of a new row.
    const POLICY: Policy = Policy { in_a_row: 32, settled_after: Duration::from_millis(50) };

    const SPARE_PAGES: usize = 32;

    type Words = Words;

    fn word(words: &mut Words, name: &str, value: &str) -> Result<bool, String> {
        words.set(name, value)
    }

    fn state_length(&self) -> usize {
        self.keeper.bound()
    }

    async fn grown(&self) {
        self.grown.wait().await;
    }

    fn write_state(&self, out: &mut BoxWriter) -> Result<(), Unwritten> {
        let usage = memory::usage();
        let frames = usage.heap_frames + usage.free_frames;
        // A growth that failed and was borne, before an update say, is no shortage.
        let ran_out = out.cause() == Cause::Failure && memory::has_run_out();
        let means = Means { room: out.room(), heap: frames * PAGE_SIZE, ran_out };
        let mut result = Ok(());
        let written = self.keeper.write(&means, &mut |bytes| {
            if result.is_ok() {
                result = out.write(bytes);
            }
        });
        if written { result } else { Err(Unwritten::Inconsistent) }
    }

    async fn ready(&self) -> String {
        format!("{} domains", self.server.borrow().connected())
    }

    fn statistics(&self) -> Vec<(String, String)> {
        let server = self.server.borrow();
        let line = |(domain, usage): (_, xenstore_lite::Usage)| {
            let xenstore_lite::Usage { nodes, watches, transactions, memory } = usage;
            let text = format!("nodes {nodes}, watches {watches}, transactions {transactions}, memory {memory}");
            (format!("domain/{domain}"), text)
        };
        server.usages().map(line).collect()
    }

    fn resources(&self) -> String {
        format!("domains {}", self.server.borrow().connected())
    }

    fn command(self: &Rc<Self>, _words: &[&str]) -> bool {
        false
    }
}

impl Standalone for Image {
    fn new(_options: Options, words: Words, recovered: Option<&Recovered>) -> Result<Self, String> {
        let image = match recovered {
            None => {
                let none = "no --event PORT in the command line; only init-xenstore-domain can start this domain";
                fresh(words.event.ok_or(none)?).map_err(|error| error.to_string())?
            }
            #[cfg(feature = "faults")]
            Some(_) if words.fails == Some(Fails::GivesUp) => return Err("as its command line says".into()),
            #[cfg(feature = "faults")]
            Some(_) if words.fails == Some(Fails::Panics) => {
                panic!("a new image fails, as its command line says")
            }
            Some(recovered) => resume(recovered)?,
        };
        let mut server = image.server.borrow_mut();
        #[cfg(feature = "faults")]
        if words.faults {
            server.allow_faults(memory::fail_after);
        }
        server.allow_updates(|size| {
            let image = Staging::new(size).map(|image| Box::new(Sent(image)));
            image.map(|image| image as Box<dyn Successor>).map_err(refusal)
        });
        server.allow_restarts(|| {
            format!("There is no new life: {}.", restart::again(format_args!("as it was asked to")))
        });
        server.set_life(life(0, (Duration::ZERO, Duration::ZERO), 0));
        drop(server);
        Ok(image)
    }

    fn taken_over(&self, recovered: &Recovered, pause: Duration, own: Duration) {
        let mut server = self.server.borrow_mut();
        server.set_life(life(recovered.lives(), (pause, own), recovered.exchanged()));
        log::info!(
            "life {} serves {} domains after {:?}, {} pages exchanged, {} ports, {} mapped pages, pause {} us, of which it ran {} us",
            recovered.lives(),
            server.connected(),
            recovered.cause(),
            recovered.exchanged(),
            events::bound(),
            memory::usage().mapped_pages,
            pause.as_micros(),
            own.as_micros()
        );
        log::info!("the last one ended so: {}", recovered.report().escape_debug());
    }

    async fn serve(self: Rc<Self>) {
        let Self { xen, changes, server, keeper, grown } = &*self;
        let mut ports: Vec<Port> = Vec::new();
        // Whatever happened before anybody listened.
        changes.unmask();
        server.borrow_mut().look_at_all();
        loop {
            if keeper.is_due(CHANGES) {
                grown.set();
            }
            xen.events().take(&mut ports);
            match self.turn(&mut ports) {
                Wait::No => runtime::yield_now().await,
                // Else Xen lets us go on for as long as the flood of another one gives us work, up to a millisecond (`sched_ratelimit_us`).
                Wait::AfterOthers => {
                    runtime::yield_cpu();
                    runtime::yield_now().await;
                }
                Wait::ForEvent => xen.events().next(&mut ports).await,
                Wait::Briefly => {
                    select(xen.events().next(&mut ports), time::sleep_until(time::now() + HELD)).await;
                    server.borrow_mut().retry_held();
                }
            }
        }
    }
}

/// What is told of this life: lives before it, how long nobody was served before it and what of that the domain ran (in microseconds), pages that
/// were exchanged, and the image.
fn life(lives: u64, (pause, own): (Duration, Duration), exchanged: u32) -> String {
    format!("{lives} {} {} {exchanged} {}", pause.as_micros(), own.as_micros(), restart::own_identity())
}

/// An image that is sent by a live update.
struct Sent(Staging);

impl Successor for Sent {
    fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.add(bytes).map_err(refusal)
    }

    fn enter(self: Box<Self>, command_line: Option<&str>) -> String {
        refusal(self.0.enter(format_args!("live update"), command_line))
    }
}

fn refusal(error: ReplaceError) -> String {
    format!("The image cannot take over: {error}.")
}

/// Bytes of the domain that are not for what domains have in the store: the image, its tables, and a reserve of some 1,500 KiB that
/// the privileged domain and the next life have for themselves.
const RESERVE: usize = 5 << 19;

/// What all domains may take in the store: it has to fit twice, as it lies in the heap and as it is kept for the next life.
fn own_config() -> Result<Config, XenError> {
    let memory = (memory::usage().total_pages * PAGE_SIZE).saturating_sub(RESERVE) / 2;
    Ok(Config { own: events::own_domain()?, memory: memory.max(PAGE_SIZE), ..Config::default() })
}

impl Image {
    /// Takes the ports whose events arrived, and serves the next in turn.
    fn turn(&self, ports: &mut Vec<Port>) -> Wait {
        let mut server = self.server.borrow_mut();
        if let Some(place) = ports.iter().position(|port| *port == self.changes.port()) {
            ports.swap_remove(place);
            self.changes.unmask();
            server.handle_domain_change();
        }
        server.handle_events(ports);
        server.round(TURNS)
    }

    fn with(xen: Xen, changes: Channel, server: Server<Xen, Domains>) -> Self {
        let keeper = Rc::clone(server.keeper());
        Self { xen, changes, server: RefCell::new(server), keeper, grown: Signal::new() }
    }
}

fn fresh(port: Port) -> Result<Image, XenError> {
    let xen = Xen::new();
    let config = own_config()?;
    // Bound before the domains are looked at: one that goes meanwhile is not missed.
    let changes = events::bind_virq(VIRQ_DOM_EXC)?;
    xen.events().add(&changes);
    let domains = Domains::new()?;
    log::info!("this is domain {}; Xen tells of domains by {:?}", config.own.0, domains.interface());
    let mut server = Server::new(xen.clone(), domains, config);
    server.start(port)?;
    Ok(Image::with(xen, changes, server))
}

/// Goes on from what the last life left.
fn resume(recovered: &Recovered) -> Result<Image, String> {
    let saved = Saved::parse(recovered.bytes()).ok_or("what the last life left is not a state of the store")?;
    let text = |error: XenError| error.to_string();
    let xen = Xen::new();
    let config = own_config().map_err(text)?;
    let changes = events::bind_virq(VIRQ_DOM_EXC).map_err(text)?;
    xen.events().add(&changes);
    let domains = Domains::new().map_err(text)?;
    let failed = recovered.cause() == Cause::Failure;
    let mut server = Server::resume(xen.clone(), domains, config, &saved, failed).map_err(|error| error.to_string())?;
    match recovered.cause() {
        Cause::Replaced | Cause::Asked => server.set_verdict(Ok(())),
        Cause::GivenUp => server.set_verdict(Err(recovered.report())),
        Cause::Failure => {}
    }
    Ok(Image::with(xen, changes, server))
}

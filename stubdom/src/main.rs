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
use core::time::Duration;

use runtime::domains::Domains;
use runtime::events::{self, Channel};
use runtime::hypervisor::Xen;
use runtime::restart::{self, BoxWriter, Cause, Policy, Recovered, ReplaceError, Staging, Unwritten};
use runtime::select::select;
use runtime::{Environment, Exit, time};
use split_driver::hypervisor::XenError;
#[cfg(feature = "faults")]
use stubdom::command_line::Fails;
use stubdom::{Keeper, Means, Saved, Server, Successor, Wait, command_line};
use xen_pv_sys::xen::VIRQ_DOM_EXC;
use xen_pv_sys::{PAGE_SIZE, Port};
use xenstore_lite::Config;

/// Turns without a look at events, at the console and at the room for the state. More would let a domain that always has a request be served so often before another's
/// event is seen.
const TURNS: usize = 1;

/// How long a request that the store holds back waits at least.
const HELD: Duration = Duration::from_millis(1);

runtime::entry!(main, writes: stubdom::STATE, reads: stubdom::STATE);

/// Pages that the box of the last state has at least, and of its room the share that is spare when it is made.
const BOX_PAGES: usize = 32;
const SPARE: usize = 4;
/// Changes between two looks at whether the box is large enough, at least.
const CHANGES: usize = 64;

/// A life that has lasted so long is sound: what fails later is the first failure of a new row.
const POLICY: Policy = Policy { in_a_row: 32, settled_after: Duration::from_millis(50) };

async fn main(environment: Environment) {
    let recovered = restart::recovered();
    if recovered.is_none() {
        introduce(&environment);
    }
    let saved = recovered.as_ref().and_then(|recovered| Saved::parse(recovered.bytes()));
    let options = command_line::parse(environment.command_line);
    for complaint in &options.complaints {
        log::error!("command line: {complaint}");
    }
    let started = match (&recovered, &saved) {
        (None, _) => match options.event {
            Some(port) => start(port),
            None => Err("no --event PORT in the command line; only init-xenstore-domain can start this domain".into()),
        },
        #[cfg(feature = "faults")]
        (Some(_), _) if options.fails == Some(Fails::GivesUp) => Err("as its command line says".into()),
        #[cfg(feature = "faults")]
        (Some(_), _) if options.fails == Some(Fails::Panics) => panic!("a new image fails, as its command line says"),
        (Some(recovered), saved) => resume(recovered, saved.as_ref()),
    };
    let mut parts = match started {
        Ok(parts) => parts,
        Err(reason) => {
            log::error!("the store cannot start: {reason}");
            drop(saved);
            if let Some(recovered) = recovered {
                recovered.give_up(format_args!("the new image cannot start: {reason}"));
            }
            runtime::exit(Exit::Crash);
        }
    };
    drop(saved);
    #[cfg(feature = "faults")]
    if options.faults {
        parts.server.allow_faults(runtime::memory::fail_after);
    }
    parts.server.allow_updates(|size| {
        let image = Staging::new(size).map(|image| Box::new(Image(image)));
        image.map(|image| image as Box<dyn Successor>).map_err(refusal)
    });
    parts
        .server
        .allow_restarts(|| format!("There is no new life: {}.", restart::again(format_args!("as it was asked to"))));
    parts.server.set_life(life(0, (Duration::ZERO, Duration::ZERO), 0));
    let mut kept = Kept::default();
    if !kept.make_room(parts.server.keeper()) {
        log::error!("no memory to keep the state in: the store cannot outlive a failure");
        if let Some(recovered) = &recovered {
            // Comes back where there is no old image. Then what this life does counts, not what the last one left.
            recovered.give_up(format_args!("the new image has no memory for the state"));
        }
    }
    if let Some(mut recovered) = recovered {
        let (pause, own) = recovered.taken_over();
        parts.server.set_life(life(recovered.lives(), (pause, own), recovered.exchanged()));
        // Whoever has to wait for the store need not wait for this as well.
        introduce(&environment);
        log::info!(
            "life {} serves {} domains after {:?}, {} pages exchanged, {} ports, {} mapped pages, pause {} us, of which it ran {} us",
            recovered.lives(),
            parts.server.connected(),
            recovered.cause(),
            recovered.exchanged(),
            events::bound(),
            runtime::memory::usage().mapped_pages,
            pause.as_micros(),
            own.as_micros()
        );
        log::info!("the last one ended so: {}", recovered.report().escape_debug());
    }
    serve(parts, kept).await;
}

/// What is told of this life: lives before it, how long nobody was served before it and what of that the domain ran (in microseconds), pages that
/// were exchanged, and the image.
fn life(lives: u64, (pause, own): (Duration, Duration), exchanged: u32) -> String {
    format!("{lives} {} {} {exchanged} {}", pause.as_micros(), own.as_micros(), restart::own_identity())
}

/// Says in the log what this is.
fn introduce(environment: &Environment) {
    log::info!(
        "{} {}: {} pages, command line \"{}\"",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        environment.pages,
        environment.command_line.escape_debug()
    );
}

/// What is up when the first request can be served.
struct Parts {
    xen: Xen,
    changes: Channel,
    server: Server<Xen, Domains>,
}

/// The box that the state goes to.
#[derive(Default)]
struct Kept {
    pages: usize,
}

impl Kept {
    /// Makes the box as large as the state may be, and somewhat more; whether there is one.
    fn make_room(&mut self, keeper: &Rc<Keeper>) -> bool {
        let bound = keeper.bound();
        if self.pages * PAGE_SIZE >= bound + bound / (2 * SPARE) {
            return true;
        }
        let least = (bound + bound / (2 * SPARE)).div_ceil(PAGE_SIZE);
        let pages = (bound + bound / SPARE).div_ceil(PAGE_SIZE) + BOX_PAGES;
        let own = keeper.clone();
        let write = move |out: &mut BoxWriter| {
            let mut result = Ok(());
            let usage = runtime::memory::usage();
            let frames = usage.heap_frames + usage.free_frames;
            // A growth that failed and was borne, before an update say, is no shortage.
            let ran_out = out.cause() == Cause::Failure && runtime::memory::has_run_out();
            let means = Means { room: out.room(), heap: frames * PAGE_SIZE, ran_out };
            let written = own.write(&means, &mut |bytes| {
                if result.is_ok() {
                    result = out.write(bytes);
                }
            });
            if written { result } else { Err(Unwritten::Inconsistent) }
        };
        match restart::keep(least, pages, POLICY, write) {
            Ok(pages) => self.pages = pages,
            Err(error) => {
                log::error!("the state may take {bound} bytes, {} can be kept: {error}", self.pages * PAGE_SIZE)
            }
        }
        self.pages > 0
    }

    /// Looks again from time to time.
    fn look(&mut self, keeper: &Rc<Keeper>) {
        if keeper.is_due(CHANGES) {
            self.make_room(keeper);
        }
    }
}

/// An image that is sent by a live update.
struct Image(Staging);

impl Successor for Image {
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
    let memory = (runtime::memory::usage().total_pages * PAGE_SIZE).saturating_sub(RESERVE) / 2;
    Ok(Config { own: events::own_domain()?, memory: memory.max(PAGE_SIZE), ..Config::default() })
}

fn start(port: Port) -> Result<Parts, String> {
    fresh(port).map_err(|error| error.to_string())
}

fn fresh(port: Port) -> Result<Parts, XenError> {
    let xen = Xen::new();
    let config = own_config()?;
    // Bound before the domains are looked at: one that goes meanwhile is not missed.
    let changes = events::bind_virq(VIRQ_DOM_EXC)?;
    xen.events().add(&changes);
    let domains = Domains::new()?;
    log::info!("this is domain {}; Xen tells of domains by {:?}", config.own.0, domains.interface());
    let mut server = Server::new(xen.clone(), domains, config);
    server.start(port)?;
    log::info!("ready in {} ms", time::now().0 / 1_000_000);
    Ok(Parts { xen, changes, server })
}

/// Goes on from what the last life left.
fn resume(recovered: &Recovered, saved: Option<&Saved<'_>>) -> Result<Parts, String> {
    let saved = saved.ok_or("what the last life left is not a state of the store")?;
    let text = |error: XenError| error.to_string();
    let xen = Xen::new();
    let config = own_config().map_err(text)?;
    let changes = events::bind_virq(VIRQ_DOM_EXC).map_err(text)?;
    xen.events().add(&changes);
    let domains = Domains::new().map_err(text)?;
    let failed = recovered.cause() == Cause::Failure;
    let server = Server::resume(xen.clone(), domains, config, saved, failed).map_err(|error| error.to_string())?;
    let mut parts = Parts { xen, changes, server };
    match recovered.cause() {
        Cause::Replaced | Cause::Asked => parts.server.set_verdict(Ok(())),
        Cause::GivenUp => parts.server.set_verdict(Err(recovered.report())),
        Cause::Failure => {}
    }
    Ok(parts)
}

/// Serves for good.
async fn serve(parts: Parts, mut kept: Kept) {
    let Parts { xen, changes, mut server } = parts;
    let mut ports: Vec<Port> = Vec::new();
    // Whatever happened before anybody listened.
    changes.unmask();
    server.look_at_all();
    loop {
        kept.look(server.keeper());
        xen.events().take(&mut ports);
        if let Some(place) = ports.iter().position(|port| *port == changes.port()) {
            ports.swap_remove(place);
            changes.unmask();
            server.handle_domain_change();
        }
        server.handle_events(&mut ports);
        match server.round(TURNS) {
            Wait::No => runtime::yield_now().await,
            // Else Xen lets us go on for as long as the flood of another one gives us work, up to a millisecond (`sched_ratelimit_us`).
            Wait::AfterOthers => {
                runtime::yield_cpu();
                runtime::yield_now().await;
            }
            Wait::ForEvent => xen.events().next(&mut ports).await,
            Wait::Briefly => {
                select(xen.events().next(&mut ports), time::sleep_until(time::now() + HELD)).await;
                server.retry_held();
            }
        }
    }
}

//! stubdom, the image: joins the library to the runtime. Floor 3.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;

use runtime::domains::Domains;
use runtime::events::{self, Channel};
use runtime::hypervisor::Xen;
use runtime::select::select;
use runtime::{Environment, Exit, time};
use split_driver::hypervisor::XenError;
use stubdom::{Server, Wait, command_line};
use xen_pv_sys::Port;
use xen_pv_sys::xen::VIRQ_DOM_EXC;
use xenstore_lite::Config;

/// Turns without a look at events and the console. More would let a domain that always has a request be served so often before another's
/// event is seen.
const TURNS: usize = 1;

/// How long a request that the store holds back waits at least.
const HELD: Duration = Duration::from_millis(1);

runtime::entry!(main);

async fn main(environment: Environment) {
    log::info!(
        "{} {}: {} pages, command line \"{}\"",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        environment.pages,
        environment.command_line.escape_debug()
    );
    let options = command_line::parse(environment.command_line);
    for complaint in &options.complaints {
        log::error!("command line: {complaint}");
    }
    let Some(port) = options.event else {
        log::error!("command line: no --event PORT; only init-xenstore-domain can start this domain");
        runtime::exit(Exit::Crash);
    };
    match start(port) {
        Ok(parts) => serve(parts).await,
        Err(error) => {
            log::error!("the store cannot start: {error:?}");
            runtime::exit(Exit::Crash);
        }
    }
}

/// What is up when the first request can be served.
struct Parts {
    xen: Xen,
    changes: Channel,
    server: Server<Xen, Domains>,
}

fn start(port: Port) -> Result<Parts, XenError> {
    let xen = Xen::new();
    let own = events::own_domain()?;
    // Bound before the domains are looked at: one that goes meanwhile is not missed.
    let changes = events::bind_virq(VIRQ_DOM_EXC)?;
    xen.events().add(&changes);
    let domains = Domains::new()?;
    log::info!("this is domain {}; Xen tells of domains by {:?}", own.0, domains.interface());
    let mut server = Server::new(xen.clone(), domains, Config { own, ..Config::default() });
    server.start(port)?;
    log::info!("ready in {} ms", time::now().0 / 1_000_000);
    Ok(Parts { xen, changes, server })
}

/// Serves for good.
async fn serve(parts: Parts) {
    let Parts { xen, changes, mut server } = parts;
    let mut ports: Vec<Port> = Vec::new();
    loop {
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
            Wait::AfterOthers => runtime::yield_cpu(),
            Wait::ForEvent => xen.events().next(&mut ports).await,
            Wait::Briefly => {
                select(xen.events().next(&mut ports), time::sleep_until(time::now() + HELD)).await;
                server.retry_held();
            }
        }
    }
}

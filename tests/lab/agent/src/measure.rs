//! The store under measurement: domains that are only simulated, and how long its requests take. Linux.
//!
//! All times are of this domain's own clock, in microseconds.

use std::io;
use std::thread;
use std::time::Instant;

use crate::store::Store;

/// The first simulated domain's number: no real one gets there.
const FIRST: u32 = 10_000;

/// Domains that are written at a time, each by a connection of its own.
const WRITERS: usize = 16;

/// Children of a directory that is listed.
const CHILDREN: u32 = 10;

/// What `xl` and the drivers leave for a Linux guest with one vif and one vbd of a driver domain: paths and values, where `@` is its number.
/// The driver domain is simulated, too: dom0's kernel, which enumerates its own backends, has no part in it.
const NODES: [(&str, &str); 37] = [
    ("/vm/SIM@/name", "guest-@"),
    ("/libxl/@/type", "pv"),
    ("/libxl/@/device/vif/0/backend", "/local/domain/9999/backend/vif/@/0"),
    ("/libxl/@/device/vbd/51712/backend", "/local/domain/9999/backend/vbd/@/51712"),
    ("/local/domain/@/vm", "/vm/SIM@"),
    ("/local/domain/@/name", "guest-@"),
    ("/local/domain/@/domid", "@"),
    ("/local/domain/@/cpu/0/availability", "online"),
    ("/local/domain/@/memory/static-max", "1048576"),
    ("/local/domain/@/memory/target", "1048577"),
    ("/local/domain/@/control/shutdown", ""),
    ("/local/domain/@/control/feature-poweroff", "1"),
    ("/local/domain/@/store/port", "1"),
    ("/local/domain/@/store/ring-ref", "1044447"),
    ("/local/domain/@/console/backend", "/local/domain/0/backend/console/@/0"),
    ("/local/domain/@/console/port", "2"),
    ("/local/domain/@/console/ring-ref", "1044446"),
    ("/local/domain/@/device/vif/0/backend", "/local/domain/9999/backend/vif/@/0"),
    ("/local/domain/@/device/vif/0/state", "4"),
    ("/local/domain/@/device/vif/0/mac", "00:16:3e:5e:6c:01"),
    ("/local/domain/@/device/vif/0/tx-ring-ref", "768"),
    ("/local/domain/@/device/vif/0/rx-ring-ref", "769"),
    ("/local/domain/@/device/vif/0/event-channel-tx", "7"),
    ("/local/domain/@/device/vif/0/event-channel-rx", "8"),
    ("/local/domain/@/device/vbd/51712/backend", "/local/domain/9999/backend/vbd/@/51712"),
    ("/local/domain/@/device/vbd/51712/state", "4"),
    ("/local/domain/@/device/vbd/51712/ring-ref", "8"),
    ("/local/domain/@/device/vbd/51712/event-channel", "6"),
    ("/local/domain/0/backend/console/@/0/frontend", "/local/domain/@/console"),
    ("/local/domain/9999/backend/vif/@/0/frontend", "/local/domain/@/device/vif/0"),
    ("/local/domain/9999/backend/vif/@/0/frontend-id", "@"),
    ("/local/domain/9999/backend/vif/@/0/state", "4"),
    ("/local/domain/9999/backend/vif/@/0/hotplug-status", "connected"),
    ("/local/domain/9999/backend/vbd/@/51712/frontend", "/local/domain/@/device/vbd/51712"),
    ("/local/domain/9999/backend/vbd/@/51712/frontend-id", "@"),
    ("/local/domain/9999/backend/vbd/@/51712/state", "4"),
    ("/local/domain/9999/backend/vbd/@/51712/params", "/dev/vg0/guest-@"),
];

/// Directories that the guest may read.
const READABLE: [&str; 3] =
    ["/local/domain/@", "/local/domain/9999/backend/vif/@/0", "/local/domain/9999/backend/vbd/@/51712"];

/// What the kernel's backends watch of each frontend and of each device of theirs.
const BACKEND_WATCHES: [&str; 4] = [
    "/local/domain/@/device/vif/0/state",
    "/local/domain/@/device/vbd/51712/state",
    "/local/domain/9999/backend/vif/@/0/hotplug-status",
    "/local/domain/9999/backend/vbd/@/51712/params",
];
/// What xenconsoled watches.
const CONSOLE_WATCH: &str = "/local/domain/@/console";
/// What the toolstack that waits for the domain's end watches.
const TOOLSTACK_WATCH: &str = "/local/domain/@/device/vbd/51712/eject";

fn of(pattern: &str, domain: u32) -> String {
    pattern.replace('@', &domain.to_string())
}

/// Runs `simulate FROM TO READER` or `store COUNT DOMAINS`.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let number = |text: &String| text.parse::<u32>().map_err(io::Error::other);
    match arguments {
        [what, from, to, reader] if what == "simulate" => simulate(number(from)?, number(to)?, number(reader)?),
        [what, count, domains] if what == "store" => measure(number(count)? as usize, number(domains)?),
        _ => Err(io::Error::other("simulate FROM TO READER, or store COUNT DOMAINS")),
    }
}

/// Writes what domains `from..to` leave in a store, readable by `reader`; says so, and watches for ever, as a host's daemons do.
fn simulate(from: u32, to: u32, reader: u32) -> io::Result<()> {
    let mut kernel = Store::open()?;
    let mut console = Store::open_as_library()?;
    let mut toolstack = Store::open_as_library()?;
    let permissions = format!("n0 r{reader}");
    // The readable ones first, so that what is made below has the permissions, too.
    let directories = READABLE.iter().flat_map(|path| [(*path, Request::Write("")), (*path, Request::Permissions)]);
    let nodes = NODES.iter().map(|(path, value)| (*path, Request::Write(value)));
    let requests: Vec<(&str, Request)> = directories.chain(nodes).collect();
    let domains: Vec<u32> = (from..to).map(|index| FIRST + index).collect();
    // The kernel's device takes one request of an opener at a time.
    let mut writers: Vec<Store> = (0..WRITERS).map(|_| Store::open_as_library()).collect::<io::Result<_>>()?;
    for domains in domains.chunks(WRITERS) {
        for (path, request) in &requests {
            for (writer, domain) in writers.iter_mut().zip(domains) {
                match request {
                    Request::Write(value) => writer.send_write(&of(path, *domain), &of(value, *domain))?,
                    Request::Permissions => writer.send_permissions(&of(path, *domain), &permissions)?,
                }
            }
            for (writer, _) in writers.iter_mut().zip(domains) {
                writer.answer()?;
            }
        }
    }
    drop(writers);
    for domain in domains {
        for path in BACKEND_WATCHES {
            kernel.watch(&of(path, domain))?;
        }
        console.watch(&of(CONSOLE_WATCH, domain))?;
        toolstack.watch(&of(TOOLSTACK_WATCH, domain))?;
    }
    println!("simulated");
    let drain = |mut store: Store| thread::spawn(move || while store.wait().is_ok() {});
    let threads = [drain(kernel), drain(console), drain(toolstack)];
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// A request of [`simulate`]'s.
enum Request {
    Write(&'static str),
    Permissions,
}

/// Prints the median time of each request, `count` times done. In dom0 each goes to another of the simulated domains; a guest, which may
/// write only what is its own, asks of that.
fn measure(count: usize, domains: u32) -> io::Result<()> {
    let mut store = Store::open_as_library()?;
    let is_guest = domains == 0;
    let base = |turn: usize| match is_guest {
        true => "data/bench".to_owned(),
        // A step that meets them all.
        false => format!("/local/domain/{}/data/bench", FIRST + (turn as u32).wrapping_mul(7919) % domains),
    };
    // Made before the time is taken.
    let places = if is_guest { 1 } else { count.min(domains as usize) };
    for turn in 0..places {
        for child in 0..CHILDREN {
            store.write(&format!("{}/{child}", base(turn)), b"0")?;
        }
    }
    let own = |turn: usize| format!("{}/{}", base(turn), turn as u32 % CHILDREN);
    report("read", count, |turn| store.read(&own(turn)).map(drop))?;
    report("write", count, |turn| store.write(&own(turn), turn.to_string().as_bytes()))?;
    report("directory", count, |turn| store.list(&base(turn)).map(drop))?;
    report("transaction", count, |turn| {
        let transaction = store.start()?;
        let value = store.read_in(transaction, &own(turn))?;
        store.write_in(transaction, &own(turn), &value)?;
        store.commit(transaction)
    })?;
    let mut watcher = Store::open_as_library()?;
    for turn in 0..places {
        watcher.watch(&base(turn))?;
        watcher.wait()?;
    }
    report("watch", count, |turn| {
        store.write(&own(turn), turn.to_string().as_bytes())?;
        watcher.wait()
    })
}

/// Does a thing so often, and a tenth as often before that; prints its name and its median time.
fn report(name: &str, count: usize, mut act: impl FnMut(usize) -> io::Result<()>) -> io::Result<()> {
    for turn in 0..count / 10 {
        act(turn)?;
    }
    let mut times = Vec::with_capacity(count);
    for turn in 0..count {
        let start = Instant::now();
        act(turn)?;
        times.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{name} {:.1}", times.get(count / 2).copied().unwrap_or_default());
    Ok(())
}

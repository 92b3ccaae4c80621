//! The running domain: the data path, netback and the NICs as a service of the runtime. Floor 3.

mod kept;
mod nics;
mod statistics;

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use netdom::backend::Netback;
use netdom::blame::Suspect;
use netdom::command_line;
use netdom::datapath::{BondId, DataPath, Held, LeaseChange, Poll};
use netdom::kept::{Kept, write_suspect, write_waiting};
use netdom::nic::ledger::Ledgers;
use netdom::packet::Pool;
use nics::Nics;
use runtime::events::EventSet;
use runtime::hypervisor::Xen;
use runtime::memory::{self, Pages};
use runtime::pci::{Device, PciAddress};
use runtime::restart::{self, BoxWriter, Part, Parts, Unwritten};
use runtime::secret;
use runtime::select::{Either, select};
use runtime::service::{self, Complaints, DriverDomain, Options, Service, Wait};
use runtime::signal::Signal;
use runtime::time::{self, Clock};
use split_driver::kept::Written;
use split_driver::xenbus::{Bus, Connections};
use split_driver::xenstore_client::Client;
use xen_pv_sys::Port;

/// Pages for packets: enough for a NIC's receive ring and some queues, but never so many that rings and heap go short.
const POOL_PAGES: usize = 8192;

/// They are a multiple of this, so that a life has as many as the one before: tables that outlive it take some pages.
const POOL_STEP: usize = 32;

/// What the tasks share.
pub(crate) struct Domain {
    store: Client,
    complaints: Rc<Complaints>,
    options: Options,
    words: command_line::Options,
    events: EventSet,
    path: Rc<RefCell<DataPath<Xen>>>,
    bus: Bus<Client, Clock, Netback<Xen>>,
    work: Rc<Signal>,
    nics: RefCell<Nics>,
    /// As the command line has them.
    bonds: Vec<BondId>,
    /// What the next life will know of them.
    ledgers: Ledgers,
    /// The devices that the domain began with were seen.
    ready: Cell<bool>,
    stopping: Cell<bool>,
    /// Nobody is served until this life has taken over: what it then fails of is known to the next one.
    held: Cell<bool>,
    /// What the last life knew of ports, until each is there again.
    inherited: RefCell<Kept>,
    /// What the next life will know of them.
    written: Written,
    /// The port that is served now.
    suspect: Suspect,
    /// Packets that wait, and those that were lost with earlier lives.
    waiting: Held,
    lost: u64,
    /// Set when a guest changed what it will not say again.
    changed: Signal,
}

impl Service for Domain {
    const HELP: &'static str = "";

    type Words = command_line::Options;

    fn word(words: &mut Self::Words, name: &str, value: &str) -> Result<bool, String> {
        words.set(name, value)
    }

    fn state_length(&self) -> usize {
        const SHORT_PARTS: usize = 128;
        self.bus.connections().length() + self.written.length() + self.ledgers.length() + SHORT_PARTS
    }

    fn write_state(&self, out: &mut BoxWriter) -> Result<(), Unwritten> {
        // The short ones first: they fit into any box.
        if out.has_failed() {
            out.part(Part::Suspect, |out| write_suspect(self.bus.backend(), &self.suspect, out));
        }
        out.part(Part::Waiting, |out| write_waiting(&self.waiting, out));
        out.part(Part::Nics, |out| self.ledgers.write(out));
        #[cfg(feature = "faults")]
        out.part(Part::Trial, |out| {
            out(b"a part that no other image knows");
            true
        });
        out.part(Part::Connections, |out| self.bus.connections().write(out));
        out.part(Part::Image, |out| self.written.write(out));
        Ok(())
    }

    async fn ready(&self) -> String {
        self.ready.set(true);
        nics::tell(self).await;
        let nics = self.nics.borrow();
        let nics: Vec<String> = nics.active().iter().map(ToString::to_string).collect();
        if nics.is_empty() { "no NIC".into() } else { nics.join(", ") }
    }

    fn statistics(&self) -> Vec<(String, String)> {
        statistics::lines(self)
    }

    fn resources(&self) -> String {
        let path = self.path.borrow();
        format!("packet-pages {}, packet-pages-free {}", path.pool().capacity(), path.pool().available())
    }

    fn requests(&self) -> (usize, usize) {
        self.store.live()
    }

    #[cfg(not(feature = "faults"))]
    fn command(self: &Rc<Self>, _words: &[&str]) -> bool {
        false
    }

    #[cfg(feature = "faults")]
    fn command(self: &Rc<Self>, words: &[&str]) -> bool {
        if words != ["hang"] {
            return false;
        }
        log::warn!("a hang that was asked for");
        loop {
            core::hint::spin_loop();
        }
    }
}

impl DriverDomain for Domain {
    fn new(
        store: Client,
        complaints: Rc<Complaints>,
        options: Options,
        words: Self::Words,
        inherited: Option<Parts<'_>>,
    ) -> Result<Self, String> {
        let bridges = words.bridges().map_err(|error| format!("command line: {error}"))?;
        let free = memory::usage().free_frames + restart::frames_to_come();
        let pages = Pages::new(POOL_PAGES.min(free / 2 / POOL_STEP * POOL_STEP));
        let pages = pages.map_err(|_| "no memory for packets: give the domain more")?;
        let xen = Xen::new();
        let events = xen.events().clone();
        let keep = xen.clone();
        let mut path = DataPath::new(xen, Pool::new(Box::new(pages)), secret::secret());
        path.write_ahead(&keep).map_err(|_| "no memory: give the domain more")?;
        let (suspect, waiting) = (path.suspect(), path.held());
        let path = Rc::new(RefCell::new(path));
        let work = Rc::new(Signal::new());
        let wake = Rc::clone(&work);
        path.borrow_mut().begin_at(time::now());
        path.borrow_mut().set_bpdus_on_wire(words.bpdus_on_wire());
        path.borrow_mut().set_storm_limit(words.storm());
        path.borrow_mut().set_isolated(words.isolated());
        let router = words.router().map_err(|error| format!("command line: {error}"))?;
        if let Some(setup) = &router {
            let set = path.borrow_mut().set_router(setup, words.mtu(), secret::secret());
            set.map_err(|error| format!("router: {error}"))?;
        }
        let uplink = router.as_ref().and_then(|setup| setup.uplink.as_ref());
        let netback = Netback::new(Rc::clone(&path), bridges, Rc::new(move || wake.set()));
        let netback = netback
            .with_memory(service::device_memory(0))
            .with_queues(words.queues())
            .with_uplink(uplink.map(|uplink| uplink.bridge.as_str()))
            .with_antispoof(words.antispoof());
        let image = inherited.and_then(|parts| parts.get(Part::Image));
        let mut kept = Kept::parse(image);
        let blame = kept.take_blame(inherited.and_then(|parts| parts.get(Part::Suspect)), time::now());
        let lost = kept.lost(inherited.and_then(|parts| parts.get(Part::Waiting)));
        path.borrow_mut().restore_leases(&kept.take_leases());
        let bonds = nics::add_bonds(&mut path.borrow_mut(), &words, &kept.take_bonds())?;
        let netback = netback.with_inherited(kept.take_vifs(), kept.take_carriers(), blame);
        let mut bus = Bus::new(store.clone(), Clock, netback);
        if restart::lives() > 0 {
            bus = bus.adopting(inherited.and_then(|parts| parts.get(Part::Connections)).map(Connections::parse));
        }
        let ledgers = Ledgers::parse(inherited.and_then(|parts| parts.get(Part::Nics)));
        let nics = RefCell::default();
        let (ready, stopping, held) = (Cell::new(false), Cell::new(false), Cell::new(restart::lives() > 0));
        let (inherited, written, changed) = (RefCell::new(kept), Written::new(image), Signal::new());
        Ok(Self {
            store,
            complaints,
            options,
            words,
            events,
            path,
            bus,
            work,
            nics,
            bonds,
            ledgers,
            ready,
            stopping,
            held,
            inherited,
            written,
            suspect,
            waiting,
            lost,
            changed,
        })
    }

    fn store(&self) -> &Client {
        &self.store
    }

    fn events(&self) -> EventSet {
        self.events.clone()
    }

    fn work(&self) -> &Signal {
        &self.work
    }

    fn round(&self, ports: &mut Vec<Port>) -> Wait {
        let now = time::now();
        let mut path = self.path.borrow_mut();
        let nics = self.nics.borrow();
        path.begin_at(now);
        for port in ports.drain(..) {
            match nics.interrupt(port) {
                Some((nic, vector, channel)) => {
                    path.handle_interrupt(nic, vector);
                    // The device keeps the interrupt disabled until the data path has nothing left to do.
                    channel.unmask();
                }
                None => path.handle_event(port, now),
            }
        }
        if self.held.get() {
            return Wait::Until(None);
        }
        let Poll { again, deadline } = path.poll(now);
        if path.take_changed() {
            self.changed.set();
        }
        nics::tell_active(self, &mut path);
        tell_lease(&mut path);
        drop(path);
        drop(nics);
        self.bus.backend().report();
        if again { Wait::No } else { Wait::Until(deadline) }
    }

    async fn serve(self: Rc<Self>) {
        runtime::spawn(nics::watch(Rc::clone(&self)));
        runtime::spawn(kept::run(Rc::clone(&self)));
        let bus = &self.bus;
        let crowded = service::watch_nodes(&self.store, &self.complaints, || (bus.store_nodes(), bus.device_count()));
        if let Either::Left(Err(error)) = select(bus.run(), crowded).await {
            log::error!("vifs are no longer served: {error}");
        }
    }

    async fn device_added(&self, device: Device) {
        nics::added(self, device).await;
    }

    async fn device_removed(&self, address: PciAddress) {
        nics::removed(self, address).await;
    }

    async fn adopted(&self) {
        self.bus.begun().await;
        self.bus.backend().forget_inherited();
        self.inherited.borrow_mut().forget_nics();
        self.path.borrow_mut().settle_bonds();
        nics::forget_gone(self);
        self.held.set(false);
        self.work.set();
    }

    async fn stop(&self) {
        self.stopping.set(true);
        nics::stop(self).await;
    }
}

/// Tells the log of the lease of the domain's own address, where that changed.
fn tell_lease(path: &mut DataPath<Xen>) {
    while let Some(LeaseChange { bridge, lease }) = path.poll_lease() {
        match lease {
            Some(lease) => log::info!("{bridge}: address {lease}"),
            None => log::warn!("{bridge}: no address, as the lease is over: guests behind the router have no way out"),
        }
    }
}

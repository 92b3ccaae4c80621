//! The running domain: the data path, blkback and the disk controllers as a service of the runtime. Floor 3.

mod controllers;
mod statistics;
mod volumes;

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use blkdom::backend::Blkback;
use blkdom::blkback::buses::run_both;
use blkdom::datapath::{DataPath, PAGES_MIN, Poll};
use blkdom::disk::Event;
use blkdom::kept::{INTERVAL, Kept};
use controllers::Controllers;
use core::cell::{Cell, RefCell};
use runtime::events::EventSet;
use runtime::hypervisor::Xen;
use runtime::memory::{self, Pages};
use runtime::pci::{Device, PciAddress};
use runtime::restart::{self, BoxWriter, Part, Parts, Unwritten};
use runtime::select::{Either, select};
use runtime::service::{self, Complaints, DriverDomain, Options, Service, Wait};
use runtime::signal::Signal;
use runtime::time::{self, Clock};
use split_driver::kept::Written;
use split_driver::xenbus::{Bus, Connections};
use split_driver::xenstore_client::Client;
use volumes::Volumes;
use xen_pv_sys::{PAGE_SIZE, Port};

/// Pages for what cannot be read or written in place: enough for some requests of each guest, but never so many that rings and heap go
/// short.
const POOL_PAGES: usize = 4096;

/// They are a multiple of this, so that a life has as many as the one before: tables that outlive it take some pages.
const POOL_STEP: usize = 32;

/// The part of the memory left that is for tables of mapped grants.
const TABLES: usize = 6;

/// Words of the command line.
#[derive(Default)]
pub(crate) struct Words {
    /// `data=map`: data of frontends that do not keep their grants are not copied, but their pages mapped for the device with each
    /// request. The default is `data=copy`.
    map_requests: bool,
}

/// What the tasks share.
pub(crate) struct Domain {
    store: Client,
    complaints: Rc<Complaints>,
    options: Options,
    events: EventSet,
    path: Rc<RefCell<DataPath<Xen>>>,
    bus: Bus<Client, Clock, Blkback<Xen, Volumes>>,
    work: Rc<Signal>,
    controllers: Rc<RefCell<Controllers>>,
    volumes: Rc<Volumes>,
    /// What the last life counted, until each is there again.
    inherited: Rc<RefCell<Kept>>,
    /// What the next life will know of that.
    written: Written,
    /// A controller is of no use any longer.
    failed: Signal,
    stopping: Cell<bool>,
}

impl Service for Domain {
    const HELP: &'static str = "volumes      what a target= may name\nrescan       looks at the disks again\n";

    type Words = Words;

    fn word(words: &mut Words, name: &str, value: &str) -> Result<bool, String> {
        match (name, value) {
            ("data", "copy") => words.map_requests = false,
            ("data", "map") => words.map_requests = true,
            ("data", _) => return Err(format!("\"data={}\" is neither copy nor map", value.escape_debug())),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn state_length(&self) -> usize {
        const SHORT_PARTS: usize = 64;
        self.bus.connections().length() + self.written.length() + SHORT_PARTS
    }

    fn write_state(&self, out: &mut BoxWriter) -> Result<(), Unwritten> {
        out.part(Part::Connections, |out| self.bus.connections().write(out));
        out.part(Part::Image, |out| self.written.write(out));
        Ok(())
    }

    async fn ready(&self) -> String {
        self.controllers.borrow_mut().all_seen();
        self.volumes.look_again();
        self.volumes.looked().await;
        self.inherited.borrow_mut().forget();
        let names = self.volumes.units();
        self.tell_of_disks().await;
        format!("{} disks ({})", names.len(), names.join(", "))
    }

    fn statistics(&self) -> Vec<(String, String)> {
        statistics::lines(self)
    }

    fn resources(&self) -> String {
        let path = self.path.borrow();
        format!("data-pages {}, data-pages-free {}", path.pages().capacity(), path.pages().available())
    }

    fn requests(&self) -> (usize, usize) {
        self.store.live()
    }

    fn command(self: &Rc<Self>, words: &[&str]) -> bool {
        match words {
            ["volumes"] => self.volumes.print(),
            ["rescan"] => self.volumes.look_again(),
            _ => return false,
        }
        true
    }
}

impl DriverDomain for Domain {
    fn new(
        store: Client,
        complaints: Rc<Complaints>,
        options: Options,
        words: Words,
        inherited: Option<Parts<'_>>,
    ) -> Result<Self, String> {
        let free = memory::usage().free_frames + restart::frames_to_come();
        // Where memory was lost with a controller, the others need their pages all the same.
        let least = PAGES_MIN.next_multiple_of(POOL_STEP).min(free / 2);
        let pages = Pages::new(POOL_PAGES.min(free / 4 / POOL_STEP * POOL_STEP).max(least));
        let pages = pages.map_err(|_| "no memory for data: give the domain more")?;
        let xen = Xen::new();
        let events = xen.events().clone();
        let mut path = DataPath::new(xen, Box::new(pages));
        path.map_requests(words.map_requests);
        let tables = memory::usage().free_frames * PAGE_SIZE / TABLES;
        path.bound_tables(tables);
        let path = Rc::new(RefCell::new(path));
        let work = Rc::new(Signal::new());
        let image = inherited.and_then(|parts| parts.get(Part::Image));
        let kept = Kept::parse(image);
        let controllers = Rc::new(RefCell::new(Controllers::again(&kept)));
        let kept = Rc::new(RefCell::new(kept));
        let volumes = Volumes::new(Rc::clone(&path), Rc::clone(&controllers), Rc::clone(&kept), Rc::clone(&work));
        let volumes = Rc::new(volumes);
        let wake = Rc::clone(&work);
        let blkback = Blkback::new(Rc::clone(&path), Rc::clone(&volumes), Rc::new(move || wake.set()));
        let blkback = blkback.with_memory(service::device_memory(tables)).with_inherited(Rc::clone(&kept));
        let (failed, stopping) = (Signal::new(), Cell::new(false));
        let mut bus = Bus::new(store.clone(), Clock, blkback);
        if restart::lives() > 0 {
            bus = bus.adopting(inherited.and_then(|parts| parts.get(Part::Connections)).map(Connections::parse));
        }
        let (inherited, written) = (kept, Written::new(image));
        Ok(Self {
            store,
            complaints,
            options,
            events,
            path,
            bus,
            work,
            controllers,
            volumes,
            inherited,
            written,
            failed,
            stopping,
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
        let mut controllers = self.controllers.borrow_mut();
        for port in ports.drain(..) {
            match controllers.interrupt(port) {
                Some((controller, vector, channel)) => {
                    path.handle_interrupt(controller, vector);
                    // The device keeps the interrupt disabled until the data path has nothing left to do.
                    channel.unmask();
                }
                None => path.handle_event(port, now),
            }
        }
        let Poll { again, deadline } = path.poll(now);
        let mut changed = false;
        while let Some((controller, event)) = path.poll_disk_event() {
            let disk = path.disk(controller).map(|disk| disk.name()).unwrap_or_default();
            changed |= controllers.note(controller, &disk, &event);
            if matches!(event, Event::Failed(_)) {
                self.failed.set();
            }
        }
        drop(controllers);
        drop(path);
        if changed {
            self.volumes.look_again();
        }
        self.bus.backend().report();
        if again { Wait::No } else { Wait::Until(deadline) }
    }

    async fn serve(self: Rc<Self>) {
        runtime::spawn(follow_volumes(Rc::clone(&self)));
        runtime::spawn(follow_failures(Rc::clone(&self)));
        runtime::spawn(write_down(Rc::clone(&self)));
        let bus = &self.bus;
        let mut images = Bus::new(self.store.clone(), Clock, bus.backend().refusing_images());
        if restart::lives() > 0 {
            images = images.adopting(None);
        }
        let crowded = service::watch_nodes(&self.store, &self.complaints, || {
            (bus.store_nodes() + images.store_nodes(), bus.device_count() + images.device_count())
        });
        if let Either::Left(Err(error)) = select(run_both(bus.run(), images.run()), crowded).await {
            log::error!("disks are no longer served: {error}");
        }
    }

    async fn device_added(&self, device: Device) {
        if !self.stopping.get() {
            controllers::added(self, device).await;
        }
    }

    async fn device_removed(&self, address: PciAddress) {
        controllers::removed(self, address).await;
    }

    async fn adopted(&self) {
        // They are served on as soon as their disks are up, and may have been looked at.
        self.controllers.borrow_mut().all_seen();
        self.volumes.look_again();
        self.bus.begun().await;
    }

    async fn stop(&self) {
        self.stopping.set(true);
        controllers::stop(self).await;
    }
}

impl Domain {
    /// Complains while there is no disk.
    async fn tell_of_disks(&self) {
        const TOPIC: &str = "disks";
        if self.volumes.units().is_empty() {
            self.complaints.complain(TOPIC, "no disk: nothing can be served").await;
        } else {
            self.complaints.retract(TOPIC).await;
        }
    }
}

/// Looks at the disks whenever that is asked for, for good.
async fn follow_volumes(domain: Rc<Domain>) {
    loop {
        domain.volumes.next_look().await;
        domain.bus.backend().handle_rescan();
        if !domain.stopping.get() {
            domain.tell_of_disks().await;
            domain.volumes.tell(&domain.store).await;
        }
    }
}

/// Writes down for good what the next life has to know.
async fn write_down(domain: Rc<Domain>) {
    loop {
        let (units, vbds) = (statistics::units(&domain), statistics::vbds(&domain));
        let kept = Kept::new(vbds, units, domain.controllers.borrow().kept(), &domain.inherited.borrow());
        domain.written.set(kept.to_bytes());
        time::sleep(INTERVAL).await;
    }
}

/// Takes controllers that failed away, for good. Not behind a look at the disks: what that reads may be on such a controller, and is
/// answered only when the controller reaches no memory any longer.
async fn follow_failures(domain: Rc<Domain>) {
    let mut again = None;
    loop {
        match again {
            Some(at) => {
                select(domain.failed.wait(), time::sleep_until(at)).await;
            }
            None => domain.failed.wait().await,
        }
        again = controllers::bury(&domain).await;
    }
}

//! What the disks hold, by name: looked at when a disk comes, when a name is asked for that is not known or may mean something else by
//! now, and on command. Floor 3.

use super::controllers::Controllers;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use blkdom::backend::Inventory;
use blkdom::datapath::{DataPath, Reader};
use blkdom::disk::Unit;
use blkdom::kept::Kept;
use blkdom::volume::{self, Catalogue, Claims, NameError, Resolved, Source, UnitRef, Volume};
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};
use runtime::console;
use runtime::hypervisor::Xen;
use runtime::service;
use runtime::signal::Signal;
use split_driver::store::{Store, StoreError, Transaction};
use split_driver::xenstore_client::Client;

/// Where dom0's tool finds what a `target=` may name, and beside it how many had no room.
const TOP: &str = "data/volumes";
const MORE: &str = "more";

/// What the disks hold, and who has what of it.
pub(super) struct Volumes {
    path: Rc<RefCell<DataPath<Xen>>>,
    controllers: Rc<RefCell<Controllers>>,
    /// What units had counted in the last life, until each is there again.
    inherited: Rc<RefCell<Kept>>,
    reader: Reader<Xen>,
    catalogue: RefCell<Catalogue>,
    claims: Claims,
    sources: RefCell<Vec<Source>>,
    /// Set where the disks are to be looked at.
    wanted: Signal,
    /// Looks asked for, and those that are through: equal where the catalogue is as the disks are.
    asked: Cell<u64>,
    through: Cell<u64>,
    waiters: RefCell<Vec<Waker>>,
    /// What the store was told of them; nothing known of what the last life told.
    told: RefCell<Option<(Vec<String>, usize)>>,
}

impl Volumes {
    pub(super) fn new(
        path: Rc<RefCell<DataPath<Xen>>>,
        controllers: Rc<RefCell<Controllers>>,
        inherited: Rc<RefCell<Kept>>,
        work: Rc<Signal>,
    ) -> Self {
        let reader = Reader::new(Rc::clone(&path), move || work.set());
        Self {
            path,
            controllers,
            inherited,
            reader,
            catalogue: RefCell::default(),
            claims: Claims::new(),
            sources: RefCell::default(),
            wanted: Signal::new(),
            // The first look comes when the domain's devices were seen.
            asked: Cell::new(1),
            through: Cell::new(0),
            waiters: RefCell::default(),
            told: RefCell::default(),
        }
    }

    /// The disks may hold something else now.
    pub(super) fn look_again(&self) {
        self.asked.set(self.asked.get() + 1);
        self.wanted.set();
    }

    /// Waits until the catalogue is as the disks were when this was called.
    pub(super) async fn looked(&self) {
        let asked = self.asked.get();
        poll_fn(|context| {
            if self.through.get() >= asked {
                return Poll::Ready(());
            }
            self.waiters.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The next look: begins when it is asked for and no controller is starting any more.
    pub(super) async fn next_look(&self) {
        loop {
            self.wanted.wait().await;
            // Whoever starts asks again when it is ready.
            if self.controllers.borrow().settled() {
                break;
            }
        }
        let asked = self.asked.get();
        self.look().await;
        self.through.set(asked);
        for waiter in self.waiters.take() {
            waiter.wake();
        }
    }

    async fn look(&self) {
        let sources = self.gather();
        self.sources.replace(sources.clone());
        let catalogue = volume::scan(&self.reader, &sources, &self.claims.begin_scan()).await;
        for note in catalogue.notes() {
            log::warn!("{note}");
        }
        let names: Vec<&str> = catalogue.names().collect();
        log::info!("volumes: {}", names.join(", "));
        drop(names);
        self.catalogue.replace(catalogue);
    }

    /// The units of all controllers.
    fn gather(&self) -> Vec<Source> {
        let mut path = self.path.borrow_mut();
        let mut controllers = self.controllers.borrow_mut();
        controllers.settle_names();
        let numbers: Vec<u16> = path.controllers().collect();
        let mut sources = Vec::new();
        for number in numbers {
            if let Some(disk) = path.disk(number) {
                sources.extend(controllers.sources(number, disk));
            }
        }
        let mut inherited = self.inherited.borrow_mut();
        for Source { unit, name, .. } in &sources {
            if let Some(counted) = inherited.take_unit(name) {
                path.restore_unit(*unit, counted);
            }
        }
        sources
    }

    /// The units as they were looked at last.
    pub(super) fn sources(&self) -> Vec<Source> {
        self.sources.borrow().clone()
    }

    /// Their names.
    pub(super) fn units(&self) -> Vec<String> {
        self.sources.borrow().iter().map(|source| source.name.clone()).collect()
    }

    /// Tells the store what a `target=` may name, where that has changed.
    pub(super) async fn tell(&self, store: &Client) {
        let volumes =
            volume::listing(self.catalogue.borrow().listing().map(|(names, volume)| (names, volume.sectors())));
        if self.told.borrow().as_ref() == Some(&volumes) {
            return;
        }
        let (nodes, left_out) = &volumes;
        match store.remove(Transaction::NONE, TOP).await {
            Ok(()) | Err(StoreError::NotFound | StoreError::Closed) => {}
            Err(error) => log::warn!("{TOP} not removed: {error}"),
        }
        for (number, text) in nodes.iter().enumerate() {
            service::write_node(store, &format!("{TOP}/{number}"), text).await;
        }
        if *left_out > 0 {
            service::write_node(store, &format!("{TOP}/{MORE}"), &left_out.to_string()).await;
        }
        self.told.replace(Some(volumes));
    }

    /// Lists on the console what a `target=` may name.
    pub(super) fn print(&self) {
        for (names, volume) in self.catalogue.borrow().listing() {
            let (name, others) = names.split_first().map_or(("", &[][..]), |(first, others)| (first.as_str(), others));
            console::write(&format!("{name}: {} MiB {}\n", volume.sectors() >> 11, others.join(" ")));
        }
    }
}

impl Inventory for Volumes {
    async fn ready(&self) {
        self.looked().await;
    }

    async fn rescan(&self) {
        self.look_again();
        self.looked().await;
    }

    async fn is_current(&self, target: &str) -> bool {
        let grounds = self.catalogue.borrow().grounds(target, &self.claims);
        grounds.hold(&self.reader).await
    }

    fn resolve(&self, target: &str) -> Result<Resolved, NameError> {
        self.catalogue.borrow().resolve_beside(target, &self.claims)
    }

    fn whereabouts(&self, volume: &Volume, sectors: u64) -> Option<u64> {
        let mut path = self.path.borrow_mut();
        let controllers = self.controllers.borrow();
        volume.whereabouts(sectors, |UnitRef { controller, unit }| {
            let disk = path.disk(controller)?;
            let Unit { kind, model, serial, wwn, .. } = disk.units().iter().find(|known| known.id == unit)?;
            let host = controllers.host(controller).filter(|_| serial.is_empty() && wwn.is_empty());
            Some(format!("{host:?} {kind:?} {model:?} {serial:?} {wwn:?}"))
        })
    }

    fn claims(&self) -> &Claims {
        &self.claims
    }
}

//! The running domain: what its tasks share. Floor 3.

mod nic;
mod polling;
mod report;
mod terminal;

use alloc::format;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use netdom::command_line::Options;
use netdom::datapath::DataPath;
use netdom::netback::driver::Netback;
use netdom::nic::e1000e::E1000e;
use netdom::packet::Pool;
use nic::ActiveNic;
use runtime::dma::DmaBuffer;
use runtime::hypervisor::Xen;
use runtime::mmio::MmioRegion;
use runtime::signal::Signal;
use runtime::time::{self, Clock};
use split_driver::xenbus::Bus;
use split_driver::xenstore_client::Client;

/// The driver of the one family there is so far.
type Driver = E1000e<MmioRegion, DmaBuffer>;

/// What the tasks share. They take turns on one vCPU: nobody keeps a borrow across an `await`.
pub(crate) struct Domain {
    store: Client,
    options: Options,
    path: Rc<RefCell<DataPath<Xen, Driver>>>,
    netback: Netback<Xen, Driver>,
    /// Set by whoever gave the data path something to do.
    work: Rc<Signal>,
    nic: RefCell<Option<ActiveNic>>,
    /// Set when pciback was told of us. It has much to do then, and all else that is asked of the store waits until it can begin.
    devices_asked_for: Signal,
    /// Set when what the toolstack passed to the domain at its creation was looked at.
    devices_seen: Signal,
    ready: Signal,
    stopping: Cell<bool>,
}

impl Domain {
    pub(crate) fn new(store: Client, pool: Pool, options: Options) -> Self {
        let path = Rc::new(RefCell::new(DataPath::new(Xen::new(), pool, time::now().0)));
        let work = Rc::new(Signal::new());
        let wake = Rc::clone(&work);
        Self {
            store,
            options,
            netback: Netback::new(Rc::clone(&path), Rc::new(move || wake.set())),
            path,
            work,
            nic: RefCell::default(),
            devices_asked_for: Signal::new(),
            devices_seen: Signal::new(),
            ready: Signal::new(),
            stopping: Cell::new(false),
        }
    }

    pub(crate) fn store(&self) -> &Client {
        &self.store
    }

    /// Starts all tasks; returns when the domain is ready: backends served, and the NIC up where there is one.
    pub(crate) async fn start(self: Rc<Self>) {
        runtime::spawn(polling::run(Rc::clone(&self)));
        runtime::spawn(nic::run(Rc::clone(&self)));
        self.devices_asked_for.wait().await;
        runtime::spawn(serve_vifs(Rc::clone(&self)));
        runtime::spawn(terminal::run(Rc::clone(&self)));
        self.devices_seen.wait().await;
        let nic = match &*self.nic.borrow() {
            Some(nic) => format!("{} on bridge {}", nic.name(), self.options.bridge),
            None => "no NIC".into(),
        };
        let milliseconds = time::now().0 / 1_000_000;
        log::info!("ready in {milliseconds} ms: {nic}, backends served");
        let ready = format!("{milliseconds} ms: {nic}");
        crate::write_node(&self.store, "data/ready", &ready).await;
        self.ready.set();
        runtime::spawn(report::run(self));
    }

    /// Waits until [`Self::start`] is through. For one task.
    pub(crate) async fn ready(&self) {
        self.ready.wait().await;
    }

    /// Quiets the hardware, for the domain's end.
    pub(crate) async fn stop(&self) {
        self.stopping.set(true);
        nic::stop(self).await;
    }
}

/// netback's control plane, on this domain's store, for good.
async fn serve_vifs(domain: Rc<Domain>) {
    let bus = Bus::new(domain.store.clone(), Clock, domain.netback.clone());
    if let Err(error) = bus.run().await {
        log::error!("vifs are served no more: {error:?}");
    }
}

//! The running domain: what its tasks share. Floor 3.

mod nic;
mod polling;
mod report;
mod terminal;
mod vifs;

use alloc::format;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use netdom::command_line::Options;
use netdom::datapath::DataPath;
use netdom::nic::e1000e::E1000e;
use netdom::packet::Pool;
use nic::ActiveNic;
use runtime::dma::DmaBuffer;
use runtime::hypervisor::Xen;
use runtime::mmio::MmioRegion;
use runtime::signal::Signal;
use runtime::time;
use split_driver::xenstore_client::Client;

/// The driver of the one family there is so far.
type Driver = E1000e<MmioRegion, DmaBuffer>;

/// What the tasks share. They take turns on one vCPU: nobody keeps a borrow across an `await`.
pub(crate) struct Domain {
    store: Client,
    options: Options,
    path: RefCell<DataPath<Xen, Driver>>,
    /// Set by whoever gave the data path something to do.
    work: Signal,
    nic: RefCell<Option<ActiveNic>>,
    /// Set when what the toolstack passed to the domain at its creation was looked at.
    devices_seen: Signal,
    stopping: Cell<bool>,
}

impl Domain {
    pub(crate) fn new(store: Client, pool: Pool, options: Options) -> Self {
        Self {
            store,
            options,
            path: RefCell::new(DataPath::new(Xen::new(), pool)),
            work: Signal::new(),
            nic: RefCell::default(),
            devices_seen: Signal::new(),
            stopping: Cell::new(false),
        }
    }

    /// Starts all tasks; returns when the domain is ready: backends served, and the NIC up where there is one.
    pub(crate) async fn start(self: &Rc<Self>) {
        runtime::spawn(polling::run(Rc::clone(self)));
        vifs::start(self).await;
        runtime::spawn(nic::run(Rc::clone(self)));
        runtime::spawn(terminal::run(Rc::clone(self)));
        self.devices_seen.wait().await;
        let nic = match &*self.nic.borrow() {
            Some(nic) => format!("{} on bridge {}", nic.name(), self.options.bridge),
            None => "no NIC".into(),
        };
        let milliseconds = time::now().0 / 1_000_000;
        log::info!("ready in {milliseconds} ms: {nic}, backends served");
        let ready = format!("{milliseconds} ms: {nic}");
        crate::write_node(&self.store, "data/ready", &ready).await;
        runtime::spawn(report::run(Rc::clone(self)));
    }

    /// Quiets the hardware, for the domain's end.
    pub(crate) async fn stop(&self) {
        self.stopping.set(true);
        nic::stop(self).await;
    }
}

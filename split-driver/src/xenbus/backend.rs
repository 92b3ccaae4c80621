//! What a kind of device says to the bus, and its data path's way back. Pure. Floor 1.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Display};
use core::future::{Future, ready};
use core::task::{Context, Poll, Waker};

use xen_pv_sys::io::xenbus::XenbusState;

use super::{DeviceId, Directory, Nodes};
use crate::time::Duration;

/// A kind of device. All methods are synchronous: the bus reads the nodes that they need before, and writes what they return after.
pub trait Backend {
    /// A connected device. The bus holds it while its frontend is connected; [`disconnect`](Self::disconnect) gets it back.
    type Device;
    /// Why a device is refused; becomes the text of its `error` node.
    type Error: Display;

    /// Whether the frontend broke the protocol, where [`connect`](Self::connect) or [`changed`](Self::changed) says this. It waits
    /// longer each time, as it does not for what the toolstack says, or for want of memory.
    fn is_violation(&self, error: &Self::Error) -> bool;

    /// The directory's name below `backend/`: `vif`, `vbd`.
    fn kind(&self) -> &'static str;

    /// The nodes of the backend directory that the methods below need. A change of one calls [`changed`](Self::changed).
    fn backend_nodes(&self) -> &[&str];

    /// The nodes of the frontend directory that [`connect`](Self::connect) and [`changed`](Self::changed) need; with a `/` for
    /// those in sub-directories (`queue-0/tx-ring-ref`).
    fn frontend_nodes(&self) -> &[&str];

    /// Further nodes of the frontend directory, which those read already lead to (one of each ring page, where it says how many).
    fn further_frontend_nodes(&self, frontend: &Directory) -> Vec<String> {
        let _ = frontend;
        Vec::new()
    }

    /// Those of the frontend's nodes that may change while it is connected; a change calls [`changed`](Self::changed).
    fn watched_frontend_nodes(&self) -> &[&str] {
        &[]
    }

    /// Whether the frontend has said all in this state of its own. (blkfront stops at `Initialised`, netfront goes on to
    /// `Connected`.)
    fn connects(&self, frontend: XenbusState) -> bool {
        matches!(frontend, XenbusState::Initialised | XenbusState::Connected)
    }

    /// Makes ready what [`probe`](Self::probe) looks at, and may take its time (a device that is still starting, volumes to be looked
    /// for). Other devices are served meanwhile. Dropped half-way where the device is removed.
    fn prepare(&self, id: DeviceId, nodes: &Nodes) -> impl Future<Output = ()> {
        let _ = (id, nodes);
        ready(())
    }

    /// What a device offers: nodes for its backend directory. `nodes.frontend` is empty still.
    ///
    /// # Errors
    /// Why this device cannot be.
    fn probe(&self, id: DeviceId, nodes: &Nodes) -> Result<Vec<(String, String)>, Self::Error>;

    /// Takes the frontend's rings up. What it [writes](DeviceHandle::write_node) goes into the store together with `Connected`.
    ///
    /// # Errors
    /// What is wrong with what the frontend says.
    fn connect(&self, handle: &DeviceHandle, nodes: &Nodes) -> Result<Self::Device, Self::Error>;

    /// Serves a device on that the last life had connected, which was [prepared](Self::prepare) and not probed. What it
    /// [writes](DeviceHandle::write_node) goes into the store where that says something else.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect): the device is closed.
    fn adopt(&self, handle: &DeviceHandle, nodes: &Nodes) -> Result<Self::Device, Self::Error> {
        self.connect(handle, nodes)
    }

    /// A connected device in few words, for the log: what it is connected to, and how.
    fn describe(&self, device: &Self::Device) -> String {
        let _ = device;
        String::new()
    }

    /// A node changed while connected, or the frontend asks for reconfiguration.
    ///
    /// # Errors
    /// What is wrong; the device is closed.
    fn changed(&self, device: &mut Self::Device, nodes: &Nodes) -> Result<(), Self::Error> {
        let _ = (device, nodes);
        Ok(())
    }

    /// Gives rings and channels back; nothing of the frontend's may be in use afterwards, or, where a device of ours still works on its
    /// memory, once [`settled`](Self::settled) says so.
    fn disconnect(&self, device: Self::Device) {
        drop(device);
    }

    /// Waits until nothing of a disconnected frontend's is in use any more. The frontend is told `Closed`, and the device found anew, only
    /// then; also called for one that was probed and never connected.
    fn settled(&self, id: DeviceId) -> impl Future<Output = ()> {
        let _ = id;
        ready(())
    }
}

/// How long the bus waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For a connected frontend to close when its device is removed. libxl gives up on us after 10 s.
    pub patience: Duration,
    /// Between `Closed` and the deletion of our directory. libxl calls it an error when the `state` node is gone before it has read
    /// `Closed` (`devstate_callback` in libxl_event.c).
    pub linger: Duration,
    /// The same at most, where several devices of one frontend go together: libxl comes round to them one by one.
    pub linger_max: Duration,
    /// In `InitWait`, when a device is new: libxl calls it an error, after 10 s, when it reads the `state` node only once that says
    /// `Connected`. A hotplug script gives it as long elsewhere.
    pub announcement: Duration,
}

impl Timing {
    /// The default, but that a frontend of a test, in which no toolstack looks, is served at once.
    #[cfg(any(test, feature = "fakes"))]
    pub const AT_ONCE: Self = Self { announcement: Duration::ZERO, ..Self::DEFAULT };

    const DEFAULT: Self = Self {
        patience: Duration::from_secs(2),
        linger: Duration::from_millis(500),
        linger_max: Duration::from_secs(6),
        announcement: Duration::from_millis(100),
    };
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What reaches a device's task from outside.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Something may have changed.
    poked: Cell<bool>,
    /// A node that the kind reads may have changed.
    nodes_changed: Cell<bool>,
    /// How often the device was connected: what belongs to an earlier connection is dropped.
    connection: Cell<u64>,
    /// Nodes of its directory, as counted last.
    nodes: Cell<usize>,
    fault: RefCell<Option<String>>,
    writes: RefCell<BTreeMap<String, String>>,
    waker: RefCell<Option<Waker>>,
}

impl Mailbox {
    pub(super) fn poke(&self) {
        self.poked.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn nodes_changed(&self) {
        self.nodes_changed.set(true);
        self.poke();
    }

    pub(super) fn take_poke(&self) -> bool {
        self.poked.take()
    }

    pub(super) fn take_nodes_changed(&self) -> bool {
        self.nodes_changed.take()
    }

    pub(super) fn take_fault(&self) -> Option<String> {
        self.fault.borrow_mut().take()
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.get()
    }

    pub(super) fn set_nodes(&self, count: usize) {
        self.nodes.set(count);
    }

    pub(super) fn has_writes(&self) -> bool {
        !self.writes.borrow().is_empty()
    }

    /// The writes to be done, and the connection that they belong to.
    pub(super) fn take_writes(&self) -> (u64, BTreeMap<String, String>) {
        (self.connection.get(), self.writes.take())
    }

    /// Writes that could not be done, unless their connection is over. What was asked for since counts.
    pub(super) fn return_writes(&self, connection: u64, mut writes: BTreeMap<String, String>) {
        if connection == self.connection.get() {
            let mut newer = self.writes.borrow_mut();
            writes.append(&mut newer);
            *newer = writes;
        }
    }

    pub(super) fn poll_poke(&self, context: &Context<'_>) -> Poll<()> {
        if self.take_poke() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    /// What the data path said of the last connection is of no interest any longer.
    pub(super) fn end_connection(&self) {
        self.connection.set(self.connection.get() + 1);
        self.fault.take();
        self.writes.take();
    }
}

/// The data path's way to the bus, of one connection of a device. What comes after that connection ended is dropped.
#[derive(Clone)]
pub struct DeviceHandle {
    id: DeviceId,
    connection: u64,
    mailbox: Rc<Mailbox>,
}

impl fmt::Debug for DeviceHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DeviceHandle({})", self.id)
    }
}

impl DeviceHandle {
    pub(super) fn new(id: DeviceId, mailbox: &Rc<Mailbox>) -> Self {
        Self { id, connection: mailbox.connection.get(), mailbox: mailbox.clone() }
    }

    /// A handle that no bus listens to, for tests of a data path: [`take_fault`](Self::take_fault) tells what it said.
    pub fn unheard(id: DeviceId) -> Self {
        Self::new(id, &Rc::default())
    }

    /// Which device.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    fn is_current(&self) -> bool {
        self.connection == self.mailbox.connection.get()
    }

    /// The frontend broke the protocol. The data path stops serving it at once; the bus takes the device back soon, with `reason` in
    /// the device's `error` node, and it stays closed until the frontend begins anew. The first reason counts.
    pub fn fail(&self, reason: impl Display) {
        if self.is_current() {
            let mut fault = self.mailbox.fault.borrow_mut();
            fault.get_or_insert_with(|| reason.to_string());
            drop(fault);
            self.mailbox.poke();
        }
    }

    /// Writes a node of the backend directory, soon (`carrier`). Of values that follow fast, the last one counts.
    pub fn write_node(&self, name: &str, value: impl Display) {
        if self.is_current() {
            let mut writes = self.mailbox.writes.borrow_mut();
            writes.insert(name.into(), value.to_string());
            drop(writes);
            self.mailbox.poke();
        }
    }

    /// The reason of the first [`fail`](Self::fail), once.
    pub fn take_fault(&self) -> Option<String> {
        self.mailbox.take_fault()
    }
}

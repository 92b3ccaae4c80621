//! Finds the devices of a kind and runs a task for each. Pure over the store's trait. Floor 1.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{self, Poll};

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, Stream};
use xen_pv_sys::DomainId;

use super::backend::{Backend, Mailbox, Timing};
use super::connections::{Connection, Connections};
use super::context::{Context, retry_after};
use super::device::Session;
use super::{DeviceId, canonical, domain};
use crate::store::{Store, StoreError, Transaction, Watch};
use crate::time::{Duration, Instant, Timer};

/// The backend side of xenbus for one kind of device: [`run`](Self::run) it as a task.
pub struct Bus<S, T, B> {
    context: Context<S, T, B>,
    /// Devices with a task.
    devices: RefCell<BTreeMap<DeviceId, Rc<Mailbox>>>,
    /// Devices that shall have one.
    births: RefCell<Vec<DeviceId>>,
}

/// What an event below `backend/<kind>` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// Anything.
    All,
    /// The devices of a frontend domain.
    Frontend(DomainId),
    /// A device as a whole, or a node of it.
    Device(DeviceId, Option<&'a str>),
    /// Nothing of ours.
    Nothing,
}

/// What the changed `path` is about, where `top` is `backend/<kind>`.
pub(super) fn subject<'a>(top: &str, path: &'a str) -> Subject<'a> {
    let Some(rest) = path.strip_prefix(top) else {
        return Subject::Nothing;
    };
    if rest.is_empty() {
        return Subject::All;
    }
    let mut parts = rest.splitn(4, '/');
    if parts.next() != Some("") {
        return Subject::Nothing;
    }
    let Some(frontend) = parts.next().and_then(domain) else {
        return Subject::Nothing;
    };
    match parts.next() {
        None => Subject::Frontend(frontend),
        Some(handle) => match canonical(handle) {
            Some(handle) => Subject::Device(DeviceId { frontend, handle }, parts.next()),
            None => Subject::Nothing,
        },
    }
}

impl<S: Store, T: Timer, B: Backend> Bus<S, T, B> {
    /// A bus that has not begun.
    pub fn new(store: S, timer: T, backend: B) -> Self {
        Self::with_timing(store, timer, backend, Timing::default())
    }

    /// As [`new`](Self::new), with other patience.
    pub fn with_timing(store: S, timer: T, backend: B, timing: Timing) -> Self {
        let context = Context::new(store, timer, backend, timing);
        let (devices, births) = Default::default();
        Self { context, devices, births }
    }

    /// In a domain that lived before: devices that the last life had connected are served on, and none of their nodes changes. Those that
    /// it wrote down are served before the store is asked; `None` where it left nothing that can be read.
    #[must_use]
    pub fn adopting(mut self, connections: Option<Vec<Connection>>) -> Self {
        self.context.adopts = true;
        if let Some(connections) = connections {
            let mut inherited = self.context.inherited.borrow_mut();
            for connection in connections {
                if inherited.iter().any(|known| known.id == connection.id) {
                    continue;
                }
                self.context.beginning.expect(connection.id);
                self.births.borrow_mut().push(connection.id);
                // A life that ends before it has taken all over leaves them to the next.
                self.context.connections.note(&connection);
                inherited.push(connection);
            }
            drop(inherited);
            // Others were not connected, or are found in the store; nobody waits for them.
            self.context.beginning.complete();
        }
        self
    }

    /// Waits until all devices that were there at the beginning are served, or refused: those that the last life wrote down, or else those
    /// in the store.
    pub async fn begun(&self) {
        poll_fn(|context| self.context.beginning.poll(context)).await;
    }

    /// The connected devices, for the next life.
    pub fn connections(&self) -> Rc<Connections> {
        Rc::clone(&self.context.connections)
    }

    /// The kind of device that this bus serves.
    pub fn backend(&self) -> &B {
        &self.context.backend
    }

    /// Devices that have a task: those in the store.
    pub fn device_count(&self) -> usize {
        self.devices.borrow().len()
    }

    /// Nodes of the store in the directories of all devices, as counted when each was announced and connected. They are this domain's, and
    /// count against its quota.
    pub fn store_nodes(&self) -> usize {
        self.devices.borrow().values().map(|mailbox| mailbox.nodes()).sum()
    }

    /// Serves devices until the store is gone. Dropping the future disconnects all.
    ///
    /// # Errors
    /// Never ends otherwise: why the store does not serve us.
    pub async fn run(&self) -> Result<(), StoreError> {
        let top = self.context.top();
        let dispatch = pin!(async {
            let mut watch = self.persist(async || self.context.store.watch(&top).await).await?;
            self.dispatch(&top, &mut watch).await
        });
        let mut tasks = FuturesUnordered::new();
        let devices = pin!(poll_fn(|waker| {
            self.poll_devices(&mut tasks, |id, mailbox| self.serve(id, mailbox), waker);
            Poll::<Infallible>::Pending
        }));
        match select(dispatch, devices).await {
            Either::Left((end, _)) => end,
            Either::Right((never, _)) => match never {},
        }
    }

    /// Follows the events of our directory. What the store refuses for now is looked at later, all at once, and holds up nothing else.
    async fn dispatch(&self, top: &str, watch: &mut S::Watch) -> Result<(), StoreError> {
        let mut attempt = 0;
        // When all is to be looked at.
        let mut due: Option<Instant> = None;
        loop {
            let event = match due.map(|due| due.since(self.context.timer.now())) {
                None => Some(watch.next().await),
                Some(Duration::ZERO) => None,
                Some(left) => match select(pin!(watch.next()), pin!(self.context.timer.sleep(left))).await {
                    Either::Left((path, _)) => Some(path),
                    Either::Right(((), _)) => None,
                },
            };
            let path = event.as_deref().unwrap_or(top);
            let outcome = self.handle_event(top, path).await;
            match outcome {
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                Err(error) if error.is_transient() => {
                    if due.is_none() {
                        log::warn!("{path}: {error}, looking again later");
                    }
                    if due.is_none() || event.is_none() {
                        attempt += 1;
                        due = Some(self.context.timer.now() + retry_after(attempt));
                    }
                    continue;
                }
                Err(error) => log::warn!("{path}: {error}"),
                Ok(()) => {}
            }
            if event.is_none() {
                (attempt, due) = (0, None);
            }
        }
    }

    /// Does `request`, again and again where the store refuses for now.
    async fn persist<R>(&self, request: impl AsyncFn() -> Result<R, StoreError>) -> Result<R, StoreError> {
        let mut attempt = 0;
        loop {
            match request().await {
                Err(error) if error.is_transient() => {
                    attempt += 1;
                    if attempt == 1 {
                        log::warn!("{}: {error}, trying again", self.context.top());
                    }
                    self.context.timer.sleep(retry_after(attempt)).await;
                }
                other => return other,
            }
        }
    }

    /// One device, from its directory's appearance to its disappearance.
    async fn serve(&self, id: DeviceId, mailbox: Rc<Mailbox>) -> DeviceId {
        Session::new(&self.context, id, mailbox).run().await;
        id
    }

    /// Begins tasks for new devices and polls those that were woken. Dispatch is polled before, in the same task, so that a birth
    /// needs no wake.
    fn poll_devices<F: Future<Output = DeviceId>>(
        &self,
        tasks: &mut FuturesUnordered<F>,
        begin: impl Fn(DeviceId, Rc<Mailbox>) -> F,
        waker: &mut task::Context<'_>,
    ) {
        loop {
            for id in self.births.take() {
                let mut devices = self.devices.borrow_mut();
                if let Entry::Vacant(entry) = devices.entry(id) {
                    let mailbox = Rc::<Mailbox>::default();
                    entry.insert(mailbox.clone());
                    tasks.push(begin(id, mailbox));
                }
            }
            match Pin::new(&mut *tasks).poll_next(waker) {
                Poll::Ready(Some(id)) => {
                    let mailbox = self.devices.borrow_mut().remove(&id);
                    // Its directory is gone; where something was said of it since, it may be back.
                    if mailbox.is_some_and(|mailbox| mailbox.take_poke()) {
                        self.births.borrow_mut().push(id);
                    }
                }
                Poll::Ready(None) | Poll::Pending if self.births.borrow().is_empty() => return,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
    }

    /// An event of the watch on `backend/<kind>`.
    async fn handle_event(&self, top: &str, path: &str) -> Result<(), StoreError> {
        match subject(top, path) {
            Subject::All => {
                self.poke(|_| true);
                for name in self.names(top).await? {
                    match domain(&name) {
                        Some(frontend) => self.scan(top, frontend).await?,
                        None => log::warn!("{top}/{name}: not a domain"),
                    }
                }
                self.context.beginning.complete();
            }
            Subject::Frontend(frontend) => {
                self.poke(|id| id.frontend == frontend);
                self.scan(top, frontend).await?;
            }
            Subject::Device(id, node) => {
                let mailbox = self.devices.borrow().get(&id).cloned();
                match (mailbox, node) {
                    (None, _) => self.births.borrow_mut().push(id),
                    (Some(mailbox), None | Some("state" | "online" | "frontend" | "frontend-id")) => {
                        mailbox.poke();
                    }
                    (Some(mailbox), Some(node)) if self.context.backend.backend_nodes().contains(&node) => {
                        mailbox.nodes_changed();
                    }
                    // Mostly what we wrote ourselves.
                    (Some(_), Some(_)) => {}
                }
            }
            Subject::Nothing => log::warn!("{path}: not a device"),
        }
        Ok(())
    }

    fn poke(&self, which: impl Fn(&DeviceId) -> bool) {
        for (_, mailbox) in self.devices.borrow().iter().filter(|(id, _)| which(id)) {
            mailbox.poke();
        }
    }

    /// The names below a directory; none where it is not there.
    async fn names(&self, path: &str) -> Result<Vec<String>, StoreError> {
        match self.context.store.directory(Transaction::NONE, path).await {
            Err(StoreError::NotFound) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Looks for devices of a frontend domain.
    async fn scan(&self, top: &str, frontend: DomainId) -> Result<(), StoreError> {
        let path = format!("{top}/{}", frontend.0);
        for name in self.names(&path).await? {
            match canonical(&name) {
                Some(handle) => {
                    let id = DeviceId { frontend, handle };
                    if !self.devices.borrow().contains_key(&id) {
                        self.context.beginning.expect(id);
                        self.births.borrow_mut().push(id);
                    }
                }
                None => log::warn!("{path}/{name}: not a device"),
            }
        }
        Ok(())
    }
}

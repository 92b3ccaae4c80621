//! One device's life on the bus, from its directory's appearance to its disappearance. Pure over the store's trait. Floor 1.

mod adoption;
mod refusal;
mod writes;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use core::future::poll_fn;
use core::pin::pin;

use futures_util::future::{Either, join, join_all, join3, select};
use log::Level;
use xen_pv_sys::io::xenbus::XenbusState;

use super::backend::{Backend, DeviceHandle, Mailbox};
use super::context::{Context, retry_after};
use super::limits::{Budget, Lines, Violations};
use super::states::{Phase, Seen, Step, next};
use super::{DeviceId, Directory, Excerpt, Nodes, domain};
use crate::store::{Store, StoreError, Transaction, Watch, parse};
use crate::time::{Duration, Instant, Timer};
use refusal::{Fault, Refusal, StoreRefusal};
use writes::Written;

/// Why a device's task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its directory is gone.
    Gone,
    /// The store serves us no more.
    Store(StoreError),
}

impl Display for End {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Gone => formatter.write_str("its directory is gone"),
            Self::Store(error) => error.fmt(formatter),
        }
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The other end's directory, watched as a whole: it is one watch, and it fires too when all of it goes.
struct Frontend<W> {
    path: String,
    /// None where the store has no room for it: then the device is not in use, and is looked at now and then.
    watch: Option<W>,
}

pub(super) struct Session<'a, S: Store, T, B: Backend> {
    context: &'a Context<S, T, B>,
    id: DeviceId,
    /// `backend/<kind>/<frontend>/<handle>`.
    path: String,
    mailbox: Rc<Mailbox>,
    phase: Phase,
    /// When the toolstack was first told that the device is there.
    announced: Option<Instant>,
    device: Option<B::Device>,
    frontend: Option<Frontend<S::Watch>>,
    /// What the frontend's `state` node said at the last look.
    frontend_state: XenbusState,
    refusal: Option<Refusal>,
    /// There are `error` nodes of ours.
    error_written: bool,
    /// What our `state` node said when last read or written.
    state: XenbusState,
    reconfigured: bool,
    patience_over: bool,
    /// How often in a row the store refused for now.
    setbacks: u32,
    /// The reason of the last refusal, if our directory says it still.
    told: Option<String>,
    /// Nodes that the data path wrote for this connection, and those of earlier ones that are there still.
    properties: BTreeSet<String>,
    stale: BTreeSet<String>,
    /// It was taken over from the last life, whose nodes are there: those that say what they shall are not written again.
    adopted: bool,
    /// Whether the last life had connected it was looked up.
    looked_up: bool,
    lines: Lines,
    beginnings: Budget,
    violations: Violations,
}

/// How often a frontend may begin anew at once; then once a second. Each time, the toolstack's nodes are read and volumes looked for.
const BEGINNINGS: u32 = 8;

/// How often in a row the store may have no room for a device that is not in use yet.
const SETBACKS_MAX: u32 = 6;

/// A `state` node's value.
fn state(value: Option<&[u8]>) -> XenbusState {
    value.and_then(parse).map_or(XenbusState::Unknown, XenbusState::from_number)
}

/// Whether a `state` node's value is one that the header knows.
fn is_state(value: &[u8]) -> bool {
    let known = |number| number == 0 || XenbusState::from_number(number) != XenbusState::Unknown;
    parse(value).is_some_and(known)
}

impl<'a, S: Store, T: Timer, B: Backend> Session<'a, S, T, B> {
    pub(super) fn new(context: &'a Context<S, T, B>, id: DeviceId, mailbox: Rc<Mailbox>) -> Self {
        Self {
            context,
            id,
            path: format!("{}/{}/{}", context.top(), id.frontend.0, id.handle),
            mailbox,
            phase: Phase::New,
            announced: None,
            device: None,
            frontend: None,
            frontend_state: XenbusState::Initialising,
            refusal: None,
            error_written: false,
            state: XenbusState::Unknown,
            reconfigured: false,
            patience_over: false,
            setbacks: 0,
            told: None,
            properties: BTreeSet::new(),
            stale: BTreeSet::new(),
            adopted: false,
            looked_up: false,
            lines: Lines::new(),
            beginnings: Budget::new(BEGINNINGS, Duration::from_secs(1)),
            violations: Violations::default(),
        }
    }

    /// Serves the device till its directory is gone.
    pub(super) async fn run(mut self) {
        if let Some(connection) = self.context.take_inherited(self.id) {
            self.resume(connection).await;
        }
        let end = self.live().await;
        self.context.beginning.begun(self.id);
        self.disconnect();
        self.context.backend.settled(self.id).await;
        self.frontend = None;
        if end == End::Gone {
            self.forget_error().await;
        } else {
            log::error!("{self}: {end}");
        }
    }

    async fn live(&mut self) -> End {
        loop {
            match self.turn().await {
                Ok(()) => {
                    self.setbacks = 0;
                    if self.phase != Phase::New {
                        self.context.beginning.begun(self.id);
                    }
                }
                // Our directory is gone or made anew: the next look tells.
                Err(End::Store(StoreError::NotFound)) => {}
                Err(end @ End::Store(StoreError::Closed)) | Err(end @ End::Gone) => return end,
                Err(End::Store(error)) => self.handle_setback(error).await,
            }
        }
    }

    /// The store refused. What it refuses for now is tried again later. Only a device that is not in use yet is given up for want of room,
    /// so that its toolstack hears why.
    async fn handle_setback(&mut self, error: StoreError) {
        self.setbacks = self.setbacks.saturating_add(1);
        let in_use = self.phase == Phase::Connected && self.state == XenbusState::Connected;
        // A closed device whose frontend begins anew is on its way, too.
        let begins = self.phase == Phase::Closed && self.frontend_state == XenbusState::Initialising;
        let opening = begins || matches!(self.phase, Phase::New | Phase::InitWait | Phase::Connected) && !in_use;
        let hopeless = !error.is_transient() || opening && self.setbacks >= SETBACKS_MAX;
        if hopeless && self.refusal.is_none() {
            let fault = if error.is_transient() { Fault::NoRoom } else { Fault::Host };
            self.refuse(fault, &StoreRefusal(error)).await;
            return;
        }
        log::debug!("{self}: {error}, trying again");
        self.context.timer.sleep(retry_after(self.setbacks)).await;
    }

    /// Looks, and takes one step.
    async fn turn(&mut self) -> Result<(), End> {
        self.mailbox.take_poke();
        if let Some(reason) = self.mailbox.take_fault() {
            self.refuse(Fault::Frontend, &reason).await;
        }
        let seen = self.look().await?;
        if self.may_have_room(seen) {
            return self.try_room().await;
        }
        if self.phase == Phase::New && self.context.adopts && !self.looked_up {
            let inherited = self.inherit(seen).await?;
            self.looked_up = true;
            self.context.beginning.begun(self.id);
            if inherited {
                return Ok(());
            }
        }
        let step = next(self.phase, seen, |state| self.context.backend.connects(state));
        match step {
            Step::Wait => self.idle(seen).await,
            Step::WaitBriefly => self.wait_for_frontend().await,
            Step::Announce => self.announce().await,
            Step::Connect => self.connect().await,
            Step::Reconfigure => self.reconfigure().await,
            Step::Reconfigured => self.reconfigured().await,
            Step::Close => {
                self.disconnect();
                self.enter(Phase::Closing).await
            }
            Step::Finish => {
                self.disconnect();
                self.context.backend.settled(self.id).await;
                self.enter(Phase::Closed).await
            }
            Step::Remove if self.state != XenbusState::Closed => {
                self.context.backend.settled(self.id).await;
                self.enter(Phase::Closed).await
            }
            Step::Remove => self.remove().await,
        }
    }

    /// Nothing to be done for the states: tends to what the data path and the nodes ask for, else waits.
    async fn idle(&mut self, seen: Seen) -> Result<(), End> {
        let expected = if self.reconfigured { XenbusState::Reconfigured } else { self.phase.state() };
        if self.mailbox.take_nodes_changed() && self.device.is_some() {
            return self.tell_changed().await;
        }
        let stale = self.state != expected && !seen.removing;
        if self.adopted {
            return self.keep_nodes().await;
        }
        if stale || self.mailbox.has_writes() {
            return self.publish_writes(expected).await;
        }
        if self.refusal.is_some_and(|refusal| refusal.fault == Fault::NoRoom && !refusal.was_elsewhere) {
            self.wait_at_most(refusal::ROOM_INTERVAL).await;
        } else {
            self.wait().await;
        }
        Ok(())
    }

    /// Waits for a word of the bus, of the data path, or of the frontend's directory.
    async fn wait(&mut self) {
        let mailbox = &self.mailbox;
        let mut poked = pin!(poll_fn(|context| mailbox.poll_poke(context)));
        let Some(Frontend { path, watch }) = &mut self.frontend else {
            return poked.await;
        };
        let Some(watch) = watch else {
            select(poked, pin!(self.context.timer.sleep(refusal::ROOM_INTERVAL))).await;
            return;
        };
        loop {
            let event = match select(poked.as_mut(), pin!(watch.next())).await {
                Either::Left(_) => return,
                Either::Right((event, _)) => event,
            };
            let watched = self.context.backend.watched_frontend_nodes();
            match event.strip_prefix(path.as_str()) {
                // The directory itself: made, gone, or too many events to tell apart.
                Some("") => mailbox.nodes_changed(),
                Some("/state") => return,
                Some(node) if watched.contains(&node.trim_start_matches('/')) => {
                    mailbox.nodes_changed();
                }
                _ => {}
            }
        }
    }

    /// Waits for a word as [`wait`](Self::wait), but not longer than that.
    async fn wait_at_most(&mut self, limit: Duration) {
        let timer = &self.context.timer;
        select(pin!(timer.sleep(limit)), pin!(self.wait())).await;
    }

    /// Writes a line into the log, unless there were many about this device.
    fn say(&mut self, level: Level, text: &dyn Display) {
        match self.lines.take(self.context.timer.now()) {
            Some(0) => log::log!(level, "{self}: {text}"),
            Some(left_out) => log::log!(level, "{self}: {text} (before it, {left_out} lines were left out)"),
            None => {}
        }
    }

    /// A device is being removed under a connected frontend: gives it time to close.
    async fn wait_for_frontend(&mut self) -> Result<(), End> {
        let timer = &self.context.timer;
        let patience = timer.sleep(self.context.timing.patience);
        let closes = async {
            loop {
                let seen = self.look().await?;
                let open = matches!(seen.frontend, XenbusState::Connected | XenbusState::Closing);
                if !open || !seen.removing {
                    return Ok(());
                }
                self.wait().await;
            }
        };
        let outcome = match select(pin!(closes), pin!(patience)).await {
            Either::Left((closed, _)) => return closed,
            Either::Right(((), _)) => Ok(()),
        };
        self.patience_over = true;
        outcome
    }

    /// Reads where everybody is.
    async fn look(&mut self) -> Result<Seen, End> {
        if self.frontend.is_none() && self.refusal.is_none() {
            self.open().await?;
        }
        if let Some(frontend) = &mut self.frontend
            && frontend.watch.is_none()
        {
            match self.context.store.watch(&frontend.path).await {
                Ok(watch) => frontend.watch = Some(watch),
                Err(error) if self.refusal.is_none() => return Err(End::Store(error)),
                // It was said already.
                Err(_) => {}
            }
        }
        let store = &self.context.store;
        let none = Transaction::NONE;
        let state_path = format!("{}/state", self.path);
        let online_path = format!("{}/online", self.path);
        let frontend_path = match &self.frontend {
            Some(frontend) => format!("{}/state", frontend.path),
            None => String::new(),
        };
        let frontend_state = async {
            if frontend_path.is_empty() {
                return Err(StoreError::NotFound);
            }
            store.read(none, &frontend_path).await
        };
        let (own, online, frontend) =
            join3(store.read(none, &state_path), store.read(none, &online_path), frontend_state).await;
        let own = match own {
            Err(StoreError::NotFound) => return Err(End::Gone),
            other => state(Some(&other?)),
        };
        if own == XenbusState::Initialising && self.phase != Phase::New {
            // Removed and made again behind our back.
            self.begin_anew();
            return Err(End::Store(StoreError::NotFound));
        }
        self.state = own;
        let value = match frontend {
            // It says nothing of the frontend.
            Err(error) if error == StoreError::Closed || error.is_transient() => return Err(End::Store(error)),
            other => other.ok(),
        };
        let frontend = state(value.as_deref());
        self.note_frontend(frontend);
        if self.refusal.is_none()
            && let Some(value) = value
            && !is_state(&value)
        {
            let text = String::from_utf8_lossy(&value);
            let reason = format!("the frontend's state is \"{}\", which is none", Excerpt(&text));
            self.refuse(Fault::Frontend, &reason).await;
        }
        let removing = online.is_ok_and(|online| parse::<u32>(&online) == Some(0));
        self.patience_over &= removing;
        Ok(Seen {
            frontend,
            removing,
            refused: self.refusal.is_some(),
            waits: self.refusal.is_some_and(|refusal| !refusal.was_elsewhere || self.frontend.is_none()),
            reconfigured: self.reconfigured,
            patience_over: self.patience_over,
        })
    }

    /// Reads who the frontend is, and watches it. The toolstack wrote this, so nonsense is worth a refusal but no suspicion.
    async fn open(&mut self) -> Result<(), End> {
        let store = &self.context.store;
        let frontend_path = format!("{}/frontend", self.path);
        let id_path = format!("{}/frontend-id", self.path);
        let none = Transaction::NONE;
        let (path, id) = join(store.read_optional(none, &frontend_path), store.read_optional(none, &id_path)).await;
        let (path, id) = (path?, id?);
        let path = path.and_then(|path| String::from_utf8(path).ok());
        let home = format!("/local/domain/{}/", self.id.frontend.0);
        let legal = |c: char| c.is_ascii_alphanumeric() || "-/_@".contains(c);
        let id = id.as_deref().and_then(|id| str::from_utf8(id).ok());
        let path = path.filter(|path| {
            path.starts_with(&home)
                && path.chars().all(legal)
                && !path.ends_with('/')
                && !path.contains("//")
                && id.and_then(domain) == Some(self.id.frontend)
        });
        match path {
            Some(path) => self.frontend = Some(Frontend { path, watch: None }),
            // Where the directory is gone altogether, whoever looks on will see it.
            None => {
                let state_path = format!("{}/state", self.path);
                let there = store.read_optional(none, &state_path).await?.is_some();
                if !there {
                    return Err(End::Gone);
                }
                self.refuse(Fault::Host, &"frontend or frontend-id is missing or malformed").await;
            }
        }
        Ok(())
    }

    /// Reads the nodes that the kind asked for.
    async fn nodes(&self, with_frontend: bool) -> Result<Nodes, End> {
        let backend = self.directory(&self.path, self.context.backend.backend_nodes());
        let frontend = async {
            match (&self.frontend, with_frontend) {
                (Some(frontend), true) => {
                    let backend = &self.context.backend;
                    let mut nodes = self.directory(&frontend.path, backend.frontend_nodes()).await?;
                    let further = backend.further_frontend_nodes(&nodes);
                    nodes.0.extend(self.directory(&frontend.path, &further).await?.0);
                    Ok::<_, StoreError>(nodes)
                }
                _ => Ok(Directory::default()),
            }
        };
        let (backend, frontend) = join(backend, frontend).await;
        Ok(Nodes { frontend: frontend?, backend: backend? })
    }

    async fn directory<N: AsRef<str>>(&self, path: &str, names: &[N]) -> Result<Directory, StoreError> {
        let store = &self.context.store;
        let reads = names.iter().map(|name| async move {
            let name = name.as_ref();
            let value = store.read_optional(Transaction::NONE, &format!("{path}/{name}")).await?;
            Ok(value.map(|value| (name, value)))
        });
        let values: Result<Vec<_>, StoreError> = join_all(reads).await.into_iter().collect();
        Ok(values?.into_iter().flatten().collect())
    }

    /// Has the kind make itself ready. False where the device shall not be after all, which is not to wait for that.
    async fn prepare(&mut self, nodes: &Nodes) -> Result<bool, End> {
        let context = self.context;
        let mut ready = pin!(context.backend.prepare(self.id, nodes));
        loop {
            if let Either::Left(((), _)) = select(ready.as_mut(), pin!(self.wait())).await {
                return Ok(true);
            }
            let seen = self.look().await?;
            if seen.removing || seen.refused {
                return Ok(false);
            }
        }
    }

    async fn announce(&mut self) -> Result<(), End> {
        // What it would have may be a device's of the last life.
        if self.context.adopts && !self.context.beginning.is_over() {
            let context = self.context;
            let over = pin!(poll_fn(|waker| context.beginning.poll(waker)));
            select(over, pin!(self.wait())).await;
            return Ok(());
        }
        // Another try of one beginning is none of its own.
        if self.setbacks == 0
            && let Err(delay) = self.beginnings.take(self.context.timer.now())
        {
            self.wait_at_most(delay).await;
            return Ok(());
        }
        // Where the device was removed and made again behind our back, its last connection may not be over.
        self.context.backend.settled(self.id).await;
        let nodes = self.nodes(false).await?;
        if !self.prepare(&nodes).await? {
            return Ok(());
        }
        let offer = match self.context.backend.probe(self.id, &nodes) {
            Ok(offer) => offer,
            Err(error) => {
                self.refuse(Fault::Host, &error).await;
                return Ok(());
            }
        };
        let mut entries: Vec<(&str, Option<&str>)> =
            offer.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
        // What hotplug scripts do elsewhere. xapi waits for it.
        entries.push(("hotplug-status", Some("connected")));
        if self.error_written {
            entries.push(("error", None));
        }
        if self.publish(XenbusState::InitWait, &entries).await? == Written::Done {
            self.phase = Phase::InitWait;
            self.announced.get_or_insert(self.context.timer.now());
            self.forget_error().await;
            self.count_nodes().await;
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), End> {
        let now = self.context.timer.now();
        let seen_by_toolstack = self.announced.map_or(now, |at| at + self.context.timing.announcement);
        let penance = self.violations.poll_delay(now).unwrap_or(Duration::ZERO);
        let delay = penance.max(seen_by_toolstack.since(now));
        if delay > Duration::ZERO {
            self.wait_at_most(delay).await;
            return Ok(());
        }
        if !self.take_up(false).await? {
            return Ok(());
        }
        self.mailbox.take_nodes_changed();
        self.stale.append(&mut self.properties);
        self.phase = Phase::Connected;
        self.publish_writes(XenbusState::Connected).await?;
        self.count_nodes().await;
        Ok(())
    }

    async fn reconfigure(&mut self) -> Result<(), End> {
        self.tell_changed().await?;
        if self.refusal.is_none() {
            self.reconfigured = true;
            self.publish(XenbusState::Reconfigured, &[]).await?;
        }
        Ok(())
    }

    /// Reads again: Linux' netfront changes its state first, and writes `xdp-headroom` after it.
    async fn reconfigured(&mut self) -> Result<(), End> {
        self.tell_changed().await?;
        if self.refusal.is_none() {
            self.reconfigured = false;
            self.publish(XenbusState::Connected, &[]).await?;
        }
        Ok(())
    }

    async fn tell_changed(&mut self) -> Result<(), End> {
        // What could not be read is still to be told.
        let nodes = self.nodes(true).await.inspect_err(|_| self.mailbox.nodes_changed())?;
        if let Some(device) = &mut self.device
            && let Err(error) = self.context.backend.changed(device, &nodes)
        {
            self.refuse(self.fault(&error), &error).await;
        }
        self.note_connection(nodes);
        Ok(())
    }

    /// The rings go back.
    fn disconnect(&mut self) {
        self.context.connections.forget(self.id);
        self.mailbox.end_connection();
        (self.reconfigured, self.adopted) = (false, false);
        if let Some(device) = self.device.take() {
            self.context.backend.disconnect(device);
            self.say(Level::Info, &"disconnected");
        }
    }

    /// Back to the state of a device just found.
    fn begin_anew(&mut self) {
        self.disconnect();
        self.phase = Phase::New;
        self.announced = None;
        self.frontend = None;
        self.refusal = None;
        self.told = None;
        self.properties.clear();
        self.stale.clear();
        self.patience_over = false;
    }
}

impl<S: Store, T, B: Backend> Drop for Session<'_, S, T, B> {
    /// Also where the bus itself is dropped.
    fn drop(&mut self) {
        if let Some(device) = self.device.take() {
            self.context.backend.disconnect(device);
        }
    }
}

impl<S: Store, T, B: Backend> Display for Session<'_, S, T, B> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{}{}", self.context.backend.kind(), self.id)
    }
}

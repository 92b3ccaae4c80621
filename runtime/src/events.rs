//! Event channels of the two-level ABI. Floor 2.
//!
//! Unsafe because the shared info page is memory that Xen writes, and because a hypercall binds and closes.
//!
//! A delivered event masks its channel until `unmask` (or the next `wait`): whoever storms us costs itself one bit. Delivery is a scan
//! of the bits that are set, nothing else: one word says which words of the pending bits are worth a look.

use crate::counts::{self, Count};
use crate::environment::environment;
use crate::hypercall::{self, number};
use crate::layout;
use crate::local::Local;
use crate::memory::{self, Page, tables};
use crate::record::record;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell, RefCell};
use core::future::poll_fn;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use core::task::{Context, Poll, Waker};
use split_driver::hypervisor::{EventChannel, XenError};
use xen_pv_sys::event_channel::{
    AllocUnbound, BIND_PIRQ_WILL_SHARE, BindInterdomain, BindPirq, BindVirq, Close, EVTCHN_2L_NR_CHANNELS,
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_PIRQ, EVTCHNOP_BIND_VIRQ, EVTCHNOP_CLOSE,
    EVTCHNOP_SEND, EVTCHNOP_STATUS, EVTCHNSTAT_INTERDOMAIN, EVTCHNSTAT_PIRQ, EVTCHNSTAT_VIRQ, Send, Status,
};
use xen_pv_sys::physdev::{
    Eoi, IrqStatus, IrqStatusQuery, PHYSDEVOP_EOI, PHYSDEVOP_IRQ_STATUS_QUERY, PHYSDEVOP_PIRQ_EOI_GMFN_V2, PirqEoiGmfn,
};
use xen_pv_sys::xen::SharedInfo;
use xen_pv_sys::{DomainId, Mfn, Port};

/// `shared_info_t` as memory that Xen writes at any time (`xen.h`): the one vCPU's part, then the channels' bits. Every field is an atomic,
/// those that nobody reads among them: a reference to the page is one to all of it.
#[repr(C)]
pub(crate) struct Shared {
    upcall_pending: AtomicU8,
    upcall_mask: AtomicU8,
    padding: [AtomicU8; 6],
    pending_words: AtomicU64,
    fault_address: AtomicU64,
    padding2: AtomicU64,
    pub(crate) time: TimePage,
    other_vcpus: [AtomicU64; 31 * 8],
    pending: [AtomicU64; 64],
    mask: [AtomicU64; 64],
}

/// `struct vcpu_time_info`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct TimePage {
    pub(crate) version: AtomicU32,
    padding: AtomicU32,
    pub(crate) time_stamp: AtomicU64,
    pub(crate) system_time: AtomicU64,
    pub(crate) multiplier: AtomicU32,
    pub(crate) shift: AtomicU8,
    padding2: [AtomicU8; 3],
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Shared, time) == offset_of!(xen_pv_sys::xen::VcpuInfo, time));
    assert!(offset_of!(Shared, pending) == offset_of!(SharedInfo, evtchn_pending));
    assert!(offset_of!(Shared, mask) == offset_of!(SharedInfo, evtchn_mask));
};

/// The shared info page.
pub(crate) fn shared() -> &'static Shared {
    // SAFETY: a page of the image's own, for good, which `initialize` maps Xen's page over. Every field is an atomic, of any value.
    unsafe { &*(layout::shared_info() as *const Shared) }
}

/// The address of the last page fault (`cr2`).
pub(crate) fn fault_address() -> u64 {
    shared().fault_address.load(Ordering::Relaxed)
}

/// Who is told of a channel's events.
enum Delivery {
    /// The one that waits on the channel; whether an event came since the last wait.
    Waiter { fired: bool, waker: Option<Waker> },
    /// A set.
    Set(Rc<SetState>),
}

/// What is known of a bound port.
struct Binding {
    delivery: Delivery,
    /// The physical interrupt that may have to be ended before the next one comes.
    interrupt: Option<u32>,
}

/// Ports that an earlier life bound and this one has not adopted.
static INHERITED: Local<[Cell<u64>; 64]> = Local::new([const { Cell::new(0) }; 64]);

/// A port of an earlier life, and what it is bound to in another domain.
struct Peer {
    domain: DomainId,
    remote: Port,
    local: Port,
}

/// All of them.
static PEERS: Local<OnceCell<Vec<Peer>>> = Local::new(OnceCell::new());

/// Bindings by port.
static BINDINGS: Local<RefCell<Vec<Option<Binding>>>> = Local::new(RefCell::new(Vec::new()));

/// The page in which Xen keeps a bit for each physical interrupt that has to be ended; none where Xen gave none, and each has to be.
static ENDS: Local<OnceCell<Option<Page>>> = Local::new(OnceCell::new());

/// Asks Xen to keep that page, before the first interrupt is bound. An interrupt by message that can be masked needs no end then: without the
/// page Xen says of every one that it has to be ended (`PHYSDEVOP_irq_status_query`).
fn ends() -> Option<&'static Page> {
    let ask = || {
        // Xen takes one page for the domain's whole life.
        // SAFETY: once in a life.
        if let Some(page) = unsafe { memory::interrupt_ends() } {
            return Some(page);
        }
        let page = Page::new().ok()?;
        let mut argument = PirqEoiGmfn { gmfn: page.mfn() };
        // SAFETY: the operation's struct; the page is Xen's to write from then on, and never given back.
        let asked =
            unsafe { hypercall::operation::<{ number::PHYSDEV_OP }, _>(PHYSDEVOP_PIRQ_EOI_GMFN_V2, &mut argument) };
        asked.inspect_err(|error| log::debug!("no page of interrupts to be ended: {error}")).ok()?;
        record().interrupt_ends.set(page.pfn().0 + 1);
        Some(page)
    };
    ENDS.get_or_init(ask).as_ref()
}

/// Whether an interrupt has to be ended.
fn needs_end(pirq: u32) -> bool {
    let mut word = [0; 4];
    match ENDS.get().and_then(Option::as_ref) {
        Some(page) if page.read((pirq / 32 * 4) as usize, &mut word) => {
            u32::from_le_bytes(word) & 1 << (pirq % 32) != 0
        }
        _ => true,
    }
}

/// A channel's word and bit.
fn bit(port: Port) -> (usize, u64) {
    ((port.0 / 64) as usize, 1 << (port.0 % 64))
}

/// Maps the shared info page, with all channels masked.
pub(crate) fn initialize(machine_address: u64) {
    let entry = tables::Entry::data(Mfn(machine_address >> 12));
    // SAFETY: the page is kept for this; Xen's page takes its place.
    if let Err(error) = unsafe { tables::set_mapping(layout::shared_info(), entry) } {
        panic!("cannot map the shared info: {error}");
    }
    shared().upcall_mask.store(1, Ordering::Relaxed);
    for word in &shared().mask {
        word.store(u64::MAX, Ordering::Relaxed);
    }
    for (inherited, bound) in INHERITED.iter().zip(&record().ports) {
        inherited.set(bound.get());
    }
}

/// Has Xen make no upcalls to vCPU 1, which is not up yet.
pub(crate) fn mask_upcalls_of_vcpu_1() {
    let [first, ..] = &shared().other_vcpus;
    // Its second byte, as with `upcall_mask`.
    first.fetch_or(1 << 8, Ordering::Relaxed);
}

/// Whether an earlier life bound the port and nobody has taken it over yet.
fn is_inherited(port: Port) -> bool {
    let (index, bit) = bit(port);
    INHERITED.get(index).is_some_and(|word| word.get() & bit != 0)
}

/// Notes for the next life whether a port is bound.
fn set_bound(port: Port, bound: bool) {
    let (index, bit) = bit(port);
    if let Some(word) = record().ports.get(index) {
        word.set(if bound { word.get() | bit } else { word.get() & !bit });
    }
    if let Some(word) = INHERITED.get(index) {
        word.set(word.get() & !bit);
    }
}

/// What a port is bound to (`EVTCHNOP_status`).
fn status(port: Port) -> Option<Status> {
    let mut argument =
        Status { dom: DomainId::SELF, padding: 0, port, status: 0, vcpu: 0, target: 0, remote_port: Port(0) };
    // SAFETY: the operation's struct.
    unsafe { bind(EVTCHNOP_STATUS, &mut argument) }.ok().map(|()| argument)
}

/// Ports that an earlier life bound and nobody has taken over yet.
fn inherited() -> impl Iterator<Item = Port> {
    (0..EVTCHN_2L_NR_CHANNELS).map(Port).filter(|port| is_inherited(*port))
}

/// The port of an earlier life that is bound to `target` (a virtual or physical interrupt, by `kind`).
fn find_inherited(kind: u32, target: u32) -> Option<Port> {
    inherited().find(|port| status(*port).is_some_and(|status| status.status == kind && status.target == target))
}

/// The port of an earlier life whose other end is `remote` of `domain`. Xen is asked once for all, as there may be hundreds.
fn find_inherited_peer(domain: DomainId, remote: Port) -> Option<Port> {
    let peers = PEERS.get_or_init(|| {
        let peer = |port| {
            let status = status(port).filter(|status| status.status == EVTCHNSTAT_INTERDOMAIN)?;
            Some(Peer { domain: DomainId(status.target as u16), remote: status.remote_port, local: port })
        };
        inherited().filter_map(peer).collect()
    });
    let peer = peers.iter().find(|peer| (peer.domain, peer.remote) == (domain, remote))?;
    is_inherited(peer.local).then_some(peer.local)
}

/// Closes the ports of earlier lives that are bound to physical interrupts, those of `which`: before their devices are told to raise none.
pub(crate) fn close_inherited_interrupts(which: impl Fn(u32) -> bool) {
    for port in inherited() {
        if status(port).is_some_and(|status| status.status == EVTCHNSTAT_PIRQ && which(status.target)) {
            drop(Channel { port });
        }
    }
}

/// Takes over a port that an earlier life bound; `None` where none did, or it is taken over already.
pub(crate) fn adopt_inherited(port: Port) -> Option<Channel> {
    is_inherited(port).then(|| Channel::new(port, None))
}

/// Closes the ports of earlier lives that were not adopted; not those that the toolstack bound.
pub(crate) fn close_inherited() {
    let environment = environment();
    let toolstack = [environment.store, environment.console].map(|ring| ring.map(|(_, port)| port));
    inherited().filter(|port| !toolstack.contains(&Some(*port))).for_each(|port| drop(Channel { port }));
}

/// Delivers the events that have come; whether there were any.
pub(crate) fn deliver() -> bool {
    let shared = shared();
    if shared.upcall_pending.load(Ordering::Relaxed) == 0 {
        return false;
    }
    shared.upcall_pending.store(0, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let mut words = shared.pending_words.swap(0, Ordering::SeqCst);
    let mut bindings = BINDINGS.borrow_mut();
    while words != 0 {
        let index = words.trailing_zeros();
        words &= words - 1;
        let (Some(pending), Some(mask)) = (shared.pending.get(index as usize), shared.mask.get(index as usize)) else {
            continue;
        };
        let mut bits = pending.load(Ordering::SeqCst) & !mask.load(Ordering::Relaxed);
        // Masked first: an event from now on stays pending, and unmask() finds it.
        mask.fetch_or(bits, Ordering::SeqCst);
        pending.fetch_and(!bits, Ordering::SeqCst);
        while bits != 0 {
            let port = Port(index * 64 + bits.trailing_zeros());
            bits &= bits - 1;
            if let Some(Some(binding)) = bindings.get_mut(port.0 as usize) {
                match &mut binding.delivery {
                    Delivery::Waiter { fired, waker } => {
                        *fired = true;
                        if let Some(waker) = waker.take() {
                            waker.wake();
                        }
                    }
                    Delivery::Set(set) => set.deliver(port),
                }
            }
        }
    }
    true
}

/// Lets events of a port through, and raises one that came while it was masked, as Xen would have: no hypercall, as there is one vCPU,
/// and it is the one that runs this.
fn open(port: Port) {
    let shared = shared();
    let (index, bit) = bit(port);
    let (Some(pending), Some(mask)) = (shared.pending.get(index), shared.mask.get(index)) else {
        return;
    };
    mask.fetch_and(!bit, Ordering::SeqCst);
    if pending.load(Ordering::SeqCst) & bit != 0 {
        shared.pending_words.fetch_or(1 << index, Ordering::SeqCst);
        shared.upcall_pending.store(1, Ordering::SeqCst);
    }
}

/// Sends an event through a port (`EVTCHNOP_send`).
pub(crate) fn notify(port: Port) {
    counts::add(Count::Notifications, 1);
    // SAFETY: the operation's struct; it changes no memory of ours but event bits. It fails only where the other end is gone.
    let _ = unsafe { hypercall::operation::<{ number::EVENT_CHANNEL_OP }, _>(EVTCHNOP_SEND, &mut Send { port }) };
}

/// A bound event channel; closed by `Drop`. It starts unmasked, and is masked from the moment an event is delivered until the next
/// [`Channel::wait`] or [`Channel::unmask`].
#[derive(Debug)]
pub struct Channel {
    port: Port,
}

impl Channel {
    /// A channel whose events go to whoever waits.
    fn new(port: Port, interrupt: Option<u32>) -> Self {
        let mut bindings = BINDINGS.borrow_mut();
        let index = port.0 as usize;
        if bindings.len() <= index {
            bindings.resize_with(index + 1, || None);
        }
        if let Some(binding) = bindings.get_mut(index) {
            *binding = Some(Binding { delivery: Delivery::Waiter { fired: false, waker: None }, interrupt });
        }
        if is_inherited(port)
            && let Some(pending) = shared().pending.get(index / 64)
        {
            // The last life may have taken an event and not got to what it was for.
            pending.fetch_or(1 << (index % 64), Ordering::SeqCst);
        }
        set_bound(port, true);
        open(port);
        Self { port }
    }

    /// The local port.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Sends an event to the other end.
    pub fn notify(&self) {
        notify(self.port);
    }

    /// Whether an event was delivered since the channel was last unmasked.
    pub(crate) fn is_masked(&self) -> bool {
        let (index, bit) = bit(self.port);
        shared().mask.get(index).is_some_and(|mask| mask.load(Ordering::Relaxed) & bit != 0)
    }

    /// Lets the next event through; one that came meanwhile is delivered. Ends the interrupt where the channel is a physical one
    /// that needs it.
    pub fn unmask(&self) {
        let interrupt = self.with_binding(|binding| binding.interrupt).flatten();
        open(self.port);
        if let Some(irq) = interrupt
            && needs_end(irq)
        {
            // SAFETY: the operation's struct; the interrupt is ours.
            let _ = unsafe { hypercall::operation::<{ number::PHYSDEV_OP }, _>(PHYSDEVOP_EOI, &mut Eoi { irq }) };
        }
    }

    /// Waits for the next event; returns at once where one came since the last wait. One task at a time, and not for a channel of an
    /// [`EventSet`], whose events go there.
    pub async fn wait(&self) {
        let mut unmasked = false;
        poll_fn(|context| {
            if self.take_fired(context) {
                return Poll::Ready(());
            }
            if !unmasked {
                unmasked = true;
                self.unmask();
            }
            Poll::Pending
        })
        .await;
    }

    fn take_fired(&self, context: &Context<'_>) -> bool {
        self.with_binding(|binding| match &mut binding.delivery {
            Delivery::Waiter { fired, waker } => {
                *waker = Some(context.waker().clone());
                core::mem::take(fired)
            }
            Delivery::Set(_) => false,
        })
        .unwrap_or(false)
    }

    fn with_binding<T>(&self, action: impl FnOnce(&mut Binding) -> T) -> Option<T> {
        BINDINGS.borrow_mut().get_mut(self.port.0 as usize).and_then(Option::as_mut).map(action)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let (index, bit) = bit(self.port);
        if let Some(mask) = shared().mask.get(index) {
            mask.fetch_or(bit, Ordering::SeqCst);
        }
        let mut close = Close { port: self.port };
        // SAFETY: the operation's struct; nobody uses the port any more.
        let _ = unsafe { hypercall::operation::<{ number::EVENT_CHANNEL_OP }, _>(EVTCHNOP_CLOSE, &mut close) };
        set_bound(self.port, false);
        if let Some(pending) = shared().pending.get(index) {
            pending.fetch_and(!bit, Ordering::SeqCst);
        }
        let binding = BINDINGS.borrow_mut().get_mut(self.port.0 as usize).and_then(Option::take);
        if let Some(Binding { delivery: Delivery::Set(set), .. }) = binding {
            set.forget(self.port);
        }
    }
}

impl EventChannel for Channel {
    fn port(&self) -> Port {
        Channel::port(self)
    }
    fn notify(&self) {
        Channel::notify(self);
    }
    fn unmask(&self) {
        Channel::unmask(self);
    }
}

/// An event channel operation that binds.
///
/// # Safety
/// `T` is the struct of this operation.
unsafe fn bind<T>(operation: u64, argument: &mut T) -> Result<(), XenError> {
    // SAFETY: by the caller.
    unsafe { hypercall::operation::<{ number::EVENT_CHANNEL_OP }, T>(operation, argument) }.map(|_| ())
}

/// Channels bound now, those that the runtime itself holds included.
pub fn bound() -> usize {
    BINDINGS.borrow().iter().flatten().count()
}

/// A channel for `remote` to bind to (`EVTCHNOP_alloc_unbound`).
///
/// # Errors
/// The errno of the hypercall.
pub fn alloc_unbound(remote: DomainId) -> Result<Channel, XenError> {
    let mut argument = AllocUnbound { dom: DomainId::SELF, remote_dom: remote, port: Port(0) };
    // SAFETY: the operation's struct.
    unsafe { bind(EVTCHNOP_ALLOC_UNBOUND, &mut argument)? };
    Ok(Channel::new(argument.port, None))
}

/// The number of the domain that this is. Xen has no call for it: it is what stands at the far end of a channel that we ourselves may
/// bind to (`EVTCHNOP_status`).
///
/// # Errors
/// The errno of the hypercall that makes the channel; [`XenError::Exhausted`] where Xen says nothing of it.
pub fn own_domain() -> Result<DomainId, XenError> {
    let channel = alloc_unbound(DomainId::SELF)?;
    let status = status(channel.port()).ok_or(XenError::Exhausted)?;
    Ok(DomainId(status.target as u16))
}

/// Binds to the unbound channel `port` of `domain` (`EVTCHNOP_bind_interdomain`). Where an earlier life did, its port is taken over, as by
/// [`adopt`], and the other end gets an event as well.
///
/// # Errors
/// The errno of the hypercall.
pub fn bind_interdomain(domain: DomainId, port: Port) -> Result<Channel, XenError> {
    let mut argument = BindInterdomain { remote_dom: domain, padding: 0, remote_port: port, local_port: Port(0) };
    // SAFETY: the operation's struct.
    match unsafe { bind(EVTCHNOP_BIND_INTERDOMAIN, &mut argument) } {
        Ok(()) => Ok(Channel::new(argument.local_port, None)),
        Err(error) => {
            let channel = find_inherited_peer(domain, port).map(adopt).ok_or(error)?;
            // The last life may have published something and not got to saying so.
            channel.notify();
            Ok(channel)
        }
    }
}

/// Takes over a port that the toolstack bound (console, xenstore), or that an earlier life did; the latter begins with an event, as the
/// earlier life may have taken one and not got to what it was for. It is closed when dropped, like any other.
pub fn adopt(port: Port) -> Channel {
    Channel::new(port, None)
}

/// Binds a virtual interrupt to the one vCPU (`EVTCHNOP_bind_virq`).
///
/// # Errors
/// The errno of the hypercall.
pub fn bind_virq(virq: u32) -> Result<Channel, XenError> {
    let mut argument = BindVirq { virq, vcpu: 0, port: Port(0) };
    // SAFETY: the operation's struct.
    match unsafe { bind(EVTCHNOP_BIND_VIRQ, &mut argument) } {
        Ok(()) => Ok(Channel::new(argument.port, None)),
        Err(error) => find_inherited(EVTCHNSTAT_VIRQ, virq).map(adopt).ok_or(error),
    }
}

/// Binds a physical interrupt (`EVTCHNOP_bind_pirq`). [`Channel::unmask`] ends the interrupt where Xen asks for it.
///
/// # Errors
/// The errno of the hypercall.
pub fn bind_pirq(pirq: u32, shareable: bool) -> Result<Channel, XenError> {
    let mut argument = BindPirq { pirq, flags: if shareable { BIND_PIRQ_WILL_SHARE } else { 0 }, port: Port(0) };
    // Before the first is bound.
    ends();
    // SAFETY: the operation's struct.
    if let Err(error) = unsafe { bind(EVTCHNOP_BIND_PIRQ, &mut argument) } {
        argument.port = find_inherited(EVTCHNSTAT_PIRQ, pirq).ok_or(error)?;
    }
    Ok(interrupt_channel(argument.port, pirq))
}

/// Takes over the port of a physical interrupt that an earlier life bound; `None` where it is bound to another or to none.
pub(crate) fn adopt_pirq(pirq: u32, port: Port) -> Option<Channel> {
    let bound = |status: Status| status.status == EVTCHNSTAT_PIRQ && status.target == pirq;
    (is_inherited(port) && status(port).is_some_and(bound)).then(|| interrupt_channel(port, pirq))
}

fn interrupt_channel(port: Port, pirq: u32) -> Channel {
    let mut status = IrqStatusQuery { irq: pirq, flags: 0 };
    // SAFETY: the operation's struct.
    let may_need_end = ends().is_some()
        || unsafe { hypercall::operation::<{ number::PHYSDEV_OP }, _>(PHYSDEVOP_IRQ_STATUS_QUERY, &mut status) }
            .is_ok()
            && IrqStatus::from_bits_retain(status.flags).contains(IrqStatus::NEEDS_EOI);
    let channel = Channel::new(port, may_need_end.then_some(pirq));
    // One that came before the binding is ended too, or none would follow.
    channel.unmask();
    channel
}

/// A set's events.
#[derive(Debug, Default)]
struct SetState {
    /// Ports delivered and not taken. It has room for all members, so delivery takes no memory.
    ports: RefCell<Vec<Port>>,
    members: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl SetState {
    fn deliver(&self, port: Port) {
        self.ports.borrow_mut().push(port);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn forget(&self, port: Port) {
        self.members.set(self.members.get() - 1);
        self.ports.borrow_mut().retain(|other| *other != port);
    }
}

/// Channels whose events are delivered to one task, as a list of ports. A clone is another handle to the same set.
#[derive(Clone, Debug, Default)]
pub struct EventSet {
    state: Rc<SetState>,
}

impl EventSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Delivers the channel's events to this set from now on, until the channel is dropped.
    pub fn add(&self, channel: &Channel) {
        let members = self.state.members.get() + 1;
        self.state.members.set(members);
        let waiting = self.state.ports.borrow().len();
        self.state.ports.borrow_mut().reserve(members - usize::min(waiting, members));
        let previous = channel
            .with_binding(|binding| core::mem::replace(&mut binding.delivery, Delivery::Set(Rc::clone(&self.state))));
        match previous {
            Some(Delivery::Waiter { fired: true, .. }) => self.state.deliver(channel.port()),
            Some(Delivery::Set(set)) => set.forget(channel.port()),
            _ => {}
        }
    }

    /// Waits for events, and appends their ports to `into`. Each port comes once, and again only after its `unmask`.
    pub async fn next(&self, into: &mut Vec<Port>) {
        poll_fn(|context| {
            if self.state.ports.borrow().is_empty() {
                *self.state.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            } else {
                into.append(&mut self.state.ports.borrow_mut());
                Poll::Ready(())
            }
        })
        .await;
    }

    /// Appends the ports of the events that are there, also those that came since the executor last looked. Never waits.
    pub fn take(&self, into: &mut Vec<Port>) {
        deliver();
        into.append(&mut self.state.ports.borrow_mut());
    }
}

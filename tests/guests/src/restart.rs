//! Restart in place: what goes over from life to life, and what does not.

use crate::{Result, check, value};
use alloc::rc::Rc;
use alloc::vec::Vec;

use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use runtime::events::{self, Channel};
use runtime::grants::{self, Grant, GrantMapping, Place};
use runtime::memory::{KeptFrame, Page, usage};
use runtime::restart::{self, BoxWriter, Cause, ImageError, Policy, Recovered, ReplaceError, Staging, Unwritten};
use runtime::{dma::DmaFrames, time};
use split_driver::hypervisor::DeviceMap;
use split_driver::kept::{KEPT_WORDS, KeptPage};
use split_driver::memory::{DmaAllocator, Reach, SharedMemory};
use xen_pv_sys::{DomainId, GrantRef, PAGE_SIZE, Port};

/// Lives of the test `restart`, beside the first.
const LIVES: u64 = 100;
const OURSELVES: DomainId = DomainId(0);

static VARIABLE: AtomicU64 = AtomicU64::new(0x1234_5678_9abc);
static ZERO: AtomicU64 = AtomicU64::new(0);

/// What goes from life to life, as numbers.
#[derive(Clone, Debug, Default)]
struct State {
    lives: u64,
    ports: [u32; 2],
    reference: u32,
    place: [u32; 2],
    /// Of the second life, when it had taken over.
    free: u64,
    bound: u64,
    /// Nanoseconds.
    pauses: Vec<u64>,
}

impl State {
    fn write(&self, out: &mut BoxWriter) -> core::result::Result<(), Unwritten> {
        let [one, other] = self.ports.map(u64::from);
        let [first, pages] = self.place.map(u64::from);
        for number in [self.lives, one, other, self.reference.into(), first, pages, self.free, self.bound] {
            out.write(&number.to_le_bytes())?;
        }
        self.pauses.iter().try_for_each(|pause| out.write(&pause.to_le_bytes()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut next = || numbers.next();
        let lives = next()?;
        let [one, other, reference, first, pages] = [next()?, next()?, next()?, next()?, next()?].map(|n| n as u32);
        let (free, bound) = (next()?, next()?);
        Some(Self {
            lives,
            ports: [one, other],
            reference,
            place: [first, pages],
            free,
            bound,
            pauses: numbers.collect(),
        })
    }
}

/// What a life holds.
struct Held {
    one: Channel,
    other: Channel,
    grant: Grant,
    mapping: GrantMapping,
}

impl Held {
    fn new() -> core::result::Result<Self, split_driver::hypervisor::XenError> {
        let one = events::alloc_unbound(DomainId::SELF)?;
        let other = events::bind_interdomain(DomainId::SELF, one.port())?;
        let page = Page::new().map_err(|_| split_driver::hypervisor::XenError::Exhausted)?;
        let grant = grants::grant_access(OURSELVES, Rc::new(page), false)?;
        let mapping = grants::map(OURSELVES, &[grant.reference()])?;
        Ok(Self { one, other, grant, mapping })
    }

    fn adopt(state: &State) -> Option<Self> {
        let [one, other] = state.ports.map(|port| events::adopt(Port(port)));
        let grant = grants::adopt(GrantRef(state.reference))?;
        let [first, pages] = state.place;
        let mapping = grants::adopt_mapping(Place { first, pages })?;
        Some(Self { one, other, grant, mapping })
    }

    /// Both ends of each still belong together.
    async fn work(&self) -> Result {
        for (from, to) in [(&self.one, &self.other), (&self.other, &self.one)] {
            while time::timeout(Duration::from_millis(1), to.wait()).await.is_ok() {}
            from.notify();
            check!(time::timeout(Duration::from_millis(500), to.wait()).await.is_ok());
        }
        let (ours, theirs) = (&self.grant.page().words()[5], &self.mapping.words()[5]);
        check!(ours.load(Ordering::Relaxed) == theirs.load(Ordering::Relaxed));
        ours.fetch_add(1, Ordering::Relaxed);
        check!(ours.load(Ordering::Relaxed) == theirs.load(Ordering::Relaxed));
        Ok(())
    }
}

/// `.data` and `.bss` are as in the first life.
fn fresh() -> Result {
    check!(VARIABLE.load(Ordering::Relaxed) == 0x1234_5678_9abc);
    check!(ZERO.load(Ordering::Relaxed) == 0);
    VARIABLE.store(1, Ordering::Relaxed);
    ZERO.store(1, Ordering::Relaxed);
    Ok(())
}

fn keep(state: &Rc<RefCell<State>>, policy: Policy) -> Result {
    let state = Rc::clone(state);
    value!(restart::keep(1, 1, policy, move |out| {
        state.try_borrow().map_err(|_| Unwritten::Inconsistent)?.write(out)
    }));
    Ok(())
}

/// A state, two ports, a mapped grant and kept pages survive a hundred failures of three kinds; what is not adopted is given back.
pub(crate) async fn restart() -> Result {
    fresh()?;
    let policy = Policy { in_a_row: 3, settled_after: Duration::ZERO };
    let (state, held) = match restart::recovered() {
        None => {
            let held = value!(Held::new());
            let place = held.mapping.place();
            let state = State {
                ports: [held.one.port().0, held.other.port().0],
                reference: held.grant.reference().0,
                place: [place.first, place.pages],
                ..State::default()
            };
            let state = Rc::new(RefCell::new(state));
            keep(&state, policy)?;
            (state, held)
        }
        Some(recovered) => resume(recovered, policy)?,
    };
    held.work().await?;
    check!(held.grant.page().words()[5].load(Ordering::Relaxed) == state.borrow().lives as u32 + 1);
    if state.borrow().lives == LIVES {
        return finish(&state.borrow());
    }
    waste()?;
    leave_pages(state.borrow().lives)?;
    state.borrow_mut().lives += 1;
    let number = state.borrow().lives;
    match number % 3 {
        0 => panic!("life {number} ends"),
        1 if number % 2 == 0 => {
            // Mapped by Xen, and not noted: the grants would stay in use.
            grants::end_behind_mapping(|| runtime::trap::probe::raise());
            for_device()?;
            check!(false);
        }
        1 => runtime::trap::probe::raise(),
        _ => {
            let refusal = restart::again(format_args!("life {number} asks"));
            log::error!("{refusal:?}");
            check!(false);
        }
    }
    Ok(())
}

fn resume(
    mut recovered: Recovered,
    policy: Policy,
) -> core::result::Result<(Rc<RefCell<State>>, Held), crate::Failure> {
    let parsed = State::parse(recovered.bytes());
    let mut state = value!(parsed.ok_or("the box"));
    let cause = if state.lives % 3 == 2 { Cause::Asked } else { Cause::Failure };
    check!(recovered.is_intact() && recovered.lives() == state.lives && recovered.cause() == cause);
    if state.lives % 3 == 0 {
        check!(recovered.report().contains(&alloc::format!("life {} ends", state.lives)));
    }
    let held = value!(Held::adopt(&state).ok_or("the mapping or the grant"));
    check!(grants::adopt(held.grant.reference()).is_none());
    check!(grants::adopt_mapping(held.mapping.place()).is_none());
    state.pauses.push(recovered.pause().as_nanos() as u64);
    find_pages(state.lives - 1)?;
    let room = alloc::vec::Vec::<u64>::with_capacity(200);
    state.pauses = state.pauses.iter().copied().chain(room).collect();
    let state = Rc::new(RefCell::new(state));
    keep(&state, policy)?;
    recovered.taken_over();
    check!(recovered.bytes().is_empty());
    let (free, bound) = (usage().free_frames as u64, events::bound() as u64);
    let mut inner = state.borrow_mut();
    if inner.lives == 1 {
        (inner.free, inner.bound) = (free, bound);
    }
    if (inner.free, inner.bound) != (free, bound) {
        log::error!("free {} now {free}, bound {} now {bound}", inner.free, inner.bound);
        check!(false);
    }
    check!(usage().mapped_pages <= 64 + 1 && grants::in_use() == 1 && grants::lingering() == 0);
    drop(inner);
    Ok((state, held))
}

/// What the end of the life takes away: memory of all kinds, ports, a mapped grant, a task.
fn waste() -> Result {
    let held = value!(Held::new());
    core::mem::forget(held);
    core::mem::forget(alloc::vec![0xa5_u8; 3 << 20]);
    core::mem::forget(value!(DmaFrames::new(Reach::default()).allocate(5 * 4096)));
    core::mem::forget(value!(runtime::memory::Pages::new(30)));
    for_device()?;
    let _task = runtime::spawn(core::future::pending());
    Ok(())
}

/// The first words of a page that life `life` keeps for the next one.
fn first_words(life: u64, number: u32) -> [u32; 3] {
    [0x6b65_7074, life as u32, number]
}

/// Keeps three pages for the next life, and one that it gives back.
fn leave_pages(life: u64) -> Result {
    for number in 0..4 {
        let page = value!(KeptFrame::new().map_err(|_| "a page"));
        page.store_all(1, &[life as u32, number, !number]);
        page.store(KEPT_WORDS - 1, number);
        page.store(0, 0x6b65_7074);
        if number < 3 {
            core::mem::forget(page);
        }
    }
    Ok(())
}

/// Takes over two of the pages, after memory was given out, and leaves the third to whoever frees what nobody wants.
fn find_pages(life: u64) -> Result {
    let others = value!(runtime::memory::Pages::new(60).map_err(|_| "pages"));
    let heap = alloc::vec![0xa5_u8; 1 << 20];
    for number in 0..2 {
        let page = value!(KeptFrame::inherit(&first_words(life, number)).ok_or("a kept page"));
        check!(page.load(3) == !number && page.load(KEPT_WORDS - 1) == number && page.load(4) == 0);
        check!(KeptFrame::inherit(&first_words(life, number)).is_none());
    }
    check!(KeptFrame::inherit(&first_words(life, 3)).is_none());
    drop((others, heap));
    Ok(())
}

/// A page that is mapped for a device, and one that no longer is.
fn for_device() -> Result {
    let [mapped, unmapped] = [value!(Page::new().map_err(|_| "a page")), value!(Page::new().map_err(|_| "a page"))]
        .map(|page| grants::grant_access(OURSELVES, Rc::new(page), false));
    let [mapped, unmapped] = [value!(mapped), value!(unmapped)];
    let mut batch = [DeviceMap::new(mapped.reference(), false), DeviceMap::new(unmapped.reference(), true)];
    grants::map_for_device(OURSELVES, &mut batch);
    let [kept, given_back] = batch.map(|element| element.result);
    core::mem::forget((value!(kept), mapped));
    grants::unmap_for_device(&mut alloc::vec![value!(given_back)]);
    check!(unmapped.end().is_ok());
    Ok(())
}

fn finish(state: &State) -> Result {
    let mut pauses = state.pauses.clone();
    pauses.sort_unstable();
    check!(pauses.len() as u64 == LIVES);
    let at = |index: usize| pauses.get(index).copied().unwrap_or(0) / 1000;
    log::info!("{LIVES} restarts: pause at best {} us, median {} us, at worst {} us", at(0), at(50), at(99));
    Ok(())
}

/// Lives that speak and fail; nothing of what they say is lost. For a domain made by `xl`, which has a ring.
pub(crate) async fn console() -> Result {
    fresh()?;
    let mut life = 0;
    let recovered = restart::recovered();
    if let Some(recovered) = &recovered {
        life = recovered.lives();
        log::info!("life {life} after a pause of {:?}, {:?}", recovered.pause(), recovered.cause());
    }
    value!(restart::keep(1, 1, Policy { in_a_row: 1, settled_after: Duration::ZERO }, |_| Ok(())));
    if let Some(mut recovered) = recovered {
        recovered.taken_over();
    }
    for line in 0..20 {
        log::info!("life {life} line {line}");
    }
    if life == 5 {
        // The task that writes the console runs in this life, too.
        time::sleep(Duration::from_millis(100)).await;
        return Ok(());
    }
    panic!("life {life} ends");
}

/// A life that fails before it has taken over is followed by others, but not for ever.
pub(crate) fn limit() -> Result {
    fresh()?;
    let state = Rc::new(RefCell::new(State::default()));
    match restart::recovered() {
        None => keep(&state, Policy { in_a_row: 4, settled_after: Duration::from_secs(3600) })?,
        Some(recovered) => {
            log::info!("life {} is there", recovered.lives());
            check!(recovered.is_intact() && State::parse(recovered.bytes()).is_some());
        }
    }
    panic!("as the test asks");
}

/// A writer that fails in turn ends in the crash, with both reports.
pub(crate) fn twice() -> Result {
    value!(restart::keep(1, 1, Policy::default(), |_| panic!("while it ended")));
    panic!("as the test asks");
}

/// A state that does not fit, or that is not there, is a crash as well; asked for, it is no more than an error.
pub(crate) fn refused() -> Result {
    value!(restart::keep(1, 1, Policy::default(), |out| out.write(&[0; 4097])));
    // More than there is leaves what there was.
    let free = usage().free_frames;
    check!(restart::keep(1 << 20, 1 << 21, Policy::default(), |_| Ok(())).is_err());
    check!(usage().free_frames == free);
    check!(restart::again(format_args!("too large")) == restart::Refusal::BoxFull(4096));
    value!(restart::keep(2, 2, Policy::default(), |_| Err(Unwritten::Inconsistent)));
    check!(restart::again(format_args!("nothing")) == restart::Refusal::Inconsistent);
    panic!("as the test asks");
}

/// Another image takes over, gives up, or fails before it has taken over; the last two are followed by this one again.
pub(crate) async fn replace(environment: &runtime::Environment, comes_back: bool) -> Result {
    fresh()?;
    let policy = Policy { in_a_row: 3, settled_after: Duration::ZERO };
    let file = value!(environment.module.ok_or("no second image"));
    let Some(mut recovered) = restart::recovered() else {
        let held = value!(Held::new());
        let place = held.mapping.place();
        let state = State {
            lives: 41,
            ports: [held.one.port().0, held.other.port().0],
            reference: held.grant.reference().0,
            place: [place.first, place.pages],
            ..State::default()
        };
        let state = Rc::new(RefCell::new(state));
        keep(&state, policy)?;
        held.work().await?;
        refusals(file)?;
        held.work().await?;
        state.borrow_mut().lives += 1;
        let words = alloc::format!("{} words", environment.command_line);
        let error = replace_by(file, Some(&words));
        log::error!("{error:?}");
        check!(false);
        return Ok(());
    };
    check!(comes_back && recovered.cause() == Cause::GivenUp && recovered.is_intact());
    // The words were the other image's.
    check!(!environment.command_line.contains("words"));
    log::info!("back after {:?}: {}", recovered.pause(), recovered.report());
    let state = value!(State::parse(recovered.bytes()).ok_or("the box"));
    check!(state.lives == 42);
    let held = value!(Held::adopt(&state).ok_or("the mapping or the grant"));
    let state = Rc::new(RefCell::new(state));
    keep(&state, policy)?;
    recovered.taken_over();
    held.work().await?;
    crate::memory::protection()?;
    let free = usage().free_frames;
    refusals(file)?;
    check!(usage().free_frames == free);
    Ok(())
}

/// Puts an image in the place of this one, whose file comes in pieces that are no pages; returns only where it cannot.
fn replace_by(file: &[u8], words: Option<&str>) -> ReplaceError {
    let staged = Staging::new(file.len()).and_then(|mut staging| {
        file.chunks(900).try_for_each(|bytes| staging.add(bytes))?;
        Ok(staging)
    });
    staged.map_or_else(|error| error, |staging| staging.enter(format_args!("the test replaces the image"), words))
}

/// What is no image, or is damaged, changes nothing.
fn refusals(file: &[u8]) -> Result {
    let before = usage();
    check!(replace_by(&[], None) == ReplaceError::Image(ImageError::NotElf));
    let beginning = file.get(..2 * PAGE_SIZE).unwrap_or(&[]);
    check!(replace_by(beginning, None) == ReplaceError::Image(ImageError::NotOurs));
    let mut damaged = file.to_vec();
    if let Some(flags) = damaged.get_mut(68) {
        *flags |= 2;
    }
    check!(matches!(replace_by(&damaged, None), ReplaceError::Image(ImageError::Permissions(_))));
    drop(damaged);
    let long = "x".repeat(1025);
    for words in [long.as_str(), "a\nb", "\u{e9}"] {
        check!(replace_by(file, Some(words)) == ReplaceError::Words);
    }
    // More than was told, and less.
    let mut staging = value!(Staging::new(100));
    check!(staging.add(&[0; 101]) == Err(ReplaceError::Image(ImageError::NotElf)));
    drop(staging);
    // An image behind something else is none, however it comes.
    let mut staging = value!(Staging::new(PAGE_SIZE + file.len()));
    check!(staging.add(&[0; PAGE_SIZE]) == Err(ReplaceError::Image(ImageError::NotElf)));
    check!(staging.add(file) == Err(ReplaceError::Image(ImageError::NotElf)));
    check!(staging.enter(format_args!("not at all"), None) == ReplaceError::Image(ImageError::NotElf));
    let mut staging = value!(Staging::new(file.len()));
    check!(file.split_last().is_some_and(|(_, most)| staging.add(most) == Ok(())));
    check!(staging.enter(format_args!("not at all"), None) == ReplaceError::Image(ImageError::NotElf));
    check!(usage().free_frames == before.free_frames);
    Ok(())
}

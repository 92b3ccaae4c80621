//! The cage of an 82599 for an SFP+ module: which module is in it, the set-up that its kind needs, and modules that come and go. Floor 3.
//!
//! A module is looked for at the start, and later once a second while there is no link, or where SDP2 told that one was put in. What is set up
//! for one is what Linux' ixgbe does: the start-up sequence that the card's memory holds for its kind, and AUTOC. Optics of both speeds do
//! not negotiate which: each is tried in turn. Where firmware has the link to itself (MMNGC), it is left alone.
//!
//! Guests wait while a look is under way, so what takes long is done in steps of a millisecond or two, a look each:
//!
//! ```text
//! Rest, Begin -> Identify (8 bytes a step) -> Tune (some words a step) -> Toggled (4 ms or more) -> Rest
//!     |                                                                      ^
//!     +---------------------------- Told (40 ms) ----------------------------+
//! ```

use super::i2c;
use super::mdio;
use super::module::{ADDRESS, BYTES, Module};
use super::nvm;
use super::registers::{self as reg, Autoc, Esdp};
use crate::nic::Delay;
use crate::nic::semaphores::Semaphores;
use alloc::string::{String, ToString};
use core::cell::RefCell;
use core::fmt;
use core::mem;
use core::time::Duration;
use log::Level;
use split_driver::memory::Mmio;
use split_driver::time::Instant;

/// `SW_FW_SYNC`, `MAC_CSR_SM`: the registers of the link of both ports, which firmware writes as well.
const LINK_REGISTERS: u32 = 1 << 3;
/// Bytes of a module's memory that a step reads, in some 1.2 ms.
const CHUNK: usize = 8;
/// The time between two steps, in which guests are served.
const SOON: Duration = Duration::from_millis(2);
/// Steps that are taken at once when the device is started: more than a module with its sequence needs.
const STEPS: usize = 100;
/// How long the path to the wire has for its reset before it is looked at, and how often that is (Linux: `ixgbe_reset_pipeline_82599`).
const RESET: Duration = Duration::from_millis(4);
const RESET_LOOKS: u8 = 10;
/// How long a module has to change its speed (Linux: `ixgbe_setup_mac_link_multispeed_fiber`).
const CHANGE: Duration = Duration::from_millis(40);
/// AUTOC.LMS of the two speeds.
const GIGABIT: u8 = 2;
const TEN_GIGABIT: u8 = 3;
/// How long each speed is tried. They differ, so that two ends that both do so meet at the higher one.
const FAST: Duration = Duration::from_secs(3);
const SLOW: Duration = Duration::from_secs(2);
/// Lines of the log in a minute, about a module that comes and goes.
const LINES: u32 = 8;
const MINUTE: Duration = Duration::from_secs(60);

/// What is in the cage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    /// It was not looked at yet.
    #[default]
    Unknown,
    /// Nothing.
    Empty,
    /// A module that cannot be read.
    Unreadable(i2c::Error),
    /// A module.
    Module(Module),
}

/// What is done next.
#[derive(Debug, Default)]
enum Step {
    /// The cage is looked at in a second.
    #[default]
    Rest,
    /// The cage is looked at: the device was reset.
    Begin,
    /// A module's memory is read, from the byte `next` on. One that was just put in may not be ready (SFF-8472 4.6): it is read twice.
    Identify { bytes: [u8; BYTES], next: usize, last: bool },
    /// The start-up sequence is read, and played.
    Tune(nvm::Sequence),
    /// The module was told of a speed; the MAC is to change to it.
    Told { fast: bool },
    /// The path to the wire is reset by an AUTOC whose LMS has a bit set otherwise; `control` is to follow.
    Toggled { control: Autoc, looks: u8 },
}

/// What a module's set-up lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Sequence(nvm::Error),
    /// Another owner has the registers of the link.
    Registers,
    /// Firmware keeps the link.
    Veto,
}

impl fmt::Display for Lack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(error) => write!(formatter, "the SFP+ module's start-up sequence was not played: {error}"),
            Self::Registers => {
                formatter.write_str("firmware has the registers of the link: the SFP+ module's set-up waits")
            }
            Self::Veto => formatter.write_str("firmware keeps the link as it is: the SFP+ module's set-up waits"),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    content: Content,
    step: Step,
    /// When that step is to be taken.
    due: Instant,
    /// The cage is to be looked at in any case: SDP2 told of a module, or firmware had the wires.
    again: bool,
    /// The link is still to be begun with.
    pending: bool,
    /// The start-up sequence was played, or there is none.
    tuned: bool,
    /// What was last said to be lacking.
    lack: Option<Lack>,
    /// Lines of the log since then.
    lines: (Instant, u32),
    /// AUTOC is set to 10 Gbit/s, and tried since then.
    fast: bool,
    since: Option<Instant>,
    /// AUTOC as the first reset left it (Linux: `orig_autoc`).
    base: Option<Autoc>,
    /// The card may see a link where there is no module.
    crosstalk: bool,
    /// The link was set up by an earlier life, for the module that is still to be looked at.
    kept: bool,
}

/// The cage.
#[derive(Debug, Default)]
pub(super) struct Cage(RefCell<State>);

impl Cage {
    /// The module in it, in words.
    pub(super) fn module(&self) -> Option<String> {
        match self.0.borrow().content {
            Content::Module(module) => Some(module.to_string()),
            Content::Empty => Some("none".to_string()),
            Content::Unreadable(_) => Some("unreadable".to_string()),
            Content::Unknown => None,
        }
    }

    /// SDP2 interrupted: a module was put in.
    pub(super) fn look_again(&self) {
        self.0.borrow_mut().again = true;
    }

    /// Whether a link that the MAC sees is none.
    pub(super) fn is_crosstalk<M: Mmio>(&self, mmio: &M) -> bool {
        self.0.borrow().crosstalk && !reg::ESDP.read(mmio, 0).module()
    }

    /// Begins with the link after a reset: at once where it is the first, else by [`Self::watch`]. `keep`: a link that is up stays, and its module
    /// is only named.
    pub(super) fn start<M: Mmio>(&self, mmio: &M, semaphores: &Semaphores, keep: bool, delay: Delay<'_>) {
        let mut state = self.0.borrow_mut();
        (state.step, state.due, state.pending) = (Step::Begin, Instant::default(), true);
        if state.base.is_some() {
            return;
        }
        semaphores.clear(mmio, mdio::bit(mmio), delay);
        semaphores.wait_for(mmio, LINK_REGISTERS, delay);
        state.base = Some(reg::AUTOC.read(mmio, 0));
        state.crosstalk = nvm::has_crosstalk(mmio, delay);
        if keep && has_link(mmio) && (!state.crosstalk || reg::ESDP.read(mmio, 0).module()) {
            // Where it is lost, its module is set up as a new one.
            (state.step, state.pending, state.tuned) = (Step::Rest, false, false);
            (state.kept, state.again) = (true, true);
            state.fast = reg::AUTOC.read(mmio, 0).mode() == TEN_GIGABIT;
            return;
        }
        let mut now = Instant::default();
        for _ in 0..STEPS {
            state.advance(mmio, semaphores, now, false, delay);
            if matches!(state.step, Step::Rest) {
                break;
            }
            delay(state.due.since(now));
            now = state.due;
        }
        // That was no clock's time.
        state.due = Instant::default();
    }

    /// Takes the next step, where it is due. To be called about once a second, and at [`Self::next_look`].
    pub(super) fn watch<M: Mmio>(&self, mmio: &M, semaphores: &Semaphores, now: Instant, up: bool, delay: Delay<'_>) {
        let mut state = self.0.borrow_mut();
        if now >= state.due {
            state.advance(mmio, semaphores, now, up, delay);
        }
    }

    /// When the next step is to be taken, where that is before the second is over.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let state = self.0.borrow();
        (!matches!(state.step, Step::Rest)).then_some(state.due)
    }
}

impl State {
    fn advance<M: Mmio>(&mut self, mmio: &M, semaphores: &Semaphores, now: Instant, up: bool, delay: Delay<'_>) {
        self.due = now + SOON;
        self.step = match mem::take(&mut self.step) {
            Step::Rest | Step::Begin => {
                self.due = now;
                self.look(mmio, semaphores, now, up, delay)
            }
            Step::Identify { bytes, next, last } => {
                self.identify(mmio, semaphores, now, up, (bytes, next, last), delay)
            }
            Step::Tune(sequence) => self.tune(mmio, semaphores, now, sequence, delay),
            Step::Told { .. } if up => {
                select(mmio, self.fast);
                Step::Rest
            }
            Step::Told { fast } => self.relink(mmio, semaphores, now, fast, delay),
            Step::Toggled { control, looks } => self.finish(mmio, semaphores, now, (control, looks), delay),
        };
    }

    /// Looks whether the module still answers, and what is to be done about it.
    fn look<M: Mmio>(&mut self, mmio: &M, semaphores: &Semaphores, now: Instant, up: bool, delay: Delay<'_>) -> Step {
        let again = mem::take(&mut self.again);
        match self.content {
            _ if up && !again => {
                self.since = None;
                Step::Rest
            }
            Content::Module(module) if !again && is_there(mmio, semaphores, delay) => match (self.pending, module) {
                (true, _) => self.set_up(mmio, semaphores, now, &module, delay),
                (false, Module { both_speeds: true, .. }) => self.try_speeds(mmio, now),
                (false, _) => Step::Rest,
            },
            _ => Step::Identify { bytes: [0; BYTES], next: 0, last: false },
        }
    }

    /// Reads some bytes of a module.
    fn identify<M: Mmio>(
        &mut self,
        mmio: &M,
        semaphores: &Semaphores,
        now: Instant,
        up: bool,
        (mut bytes, next, last): ([u8; BYTES], usize, bool),
        delay: Delay<'_>,
    ) -> Step {
        let (start, chunk) = (next as u8, bytes.iter_mut().skip(next).take(CHUNK));
        let mut part = [0; CHUNK];
        let read = |delay: Delay<'_>| i2c::read(mmio, ADDRESS, start, &mut part, delay);
        let read = semaphores.try_hold(mmio, mdio::bit(mmio), delay, read);
        chunk.zip(part).for_each(|(byte, read)| *byte = read);
        let content = match read {
            None => {
                // Firmware has the wires: again in a second.
                self.again = true;
                return Step::Rest;
            }
            Some(Ok(())) if next + CHUNK < BYTES => return Step::Identify { bytes, next: next + CHUNK, last },
            Some(Ok(())) => Content::Module(Module::parse(&bytes)),
            Some(Err(i2c::Error::Silent)) if !reg::ESDP.read(mmio, 0).module() => Content::Empty,
            Some(Err(error)) => Content::Unreadable(error),
        };
        match content {
            Content::Unreadable(_) | Content::Module(Module { intact: false, .. }) if !last => {
                Step::Identify { bytes: [0; BYTES], next: 0, last: true }
            }
            _ => self.found(mmio, semaphores, now, up, content, delay),
        }
    }

    /// Notes what is in the cage, and begins with what it needs.
    fn found<M: Mmio>(
        &mut self,
        mmio: &M,
        semaphores: &Semaphores,
        now: Instant,
        up: bool,
        content: Content,
        delay: Delay<'_>,
    ) -> Step {
        let known = mem::replace(&mut self.content, content);
        let kept = mem::take(&mut self.kept);
        if content != known {
            self.lack = None;
            match &content {
                Content::Module(module) => self.say(now, Level::Info, format_args!("SFP+ module: {module}")),
                Content::Unreadable(error) => {
                    self.say(now, Level::Warn, format_args!("the SFP+ module cannot be read: {error}"));
                }
                Content::Empty | Content::Unknown => {
                    self.say(now, Level::Info, format_args!("no SFP+ module is in the cage"));
                }
            }
            if matches!(content, Content::Module(Module { intact: false, .. })) {
                let wrong = "the SFP+ module's memory has a wrong checksum (CC_BASE); its contents are believed";
                self.say(now, Level::Warn, format_args!("{wrong}"));
            }
        }
        match content {
            // A link that works is left alone.
            _ if up && (content == known || kept) => Step::Rest,
            Content::Module(module) => {
                self.tuned = false;
                self.set_up(mmio, semaphores, now, &module, delay)
            }
            // A link may come up all the same.
            _ if self.pending => self.relink(mmio, semaphores, now, self.fast, delay),
            _ => Step::Rest,
        }
    }

    /// Begins with what the module needs: first its start-up sequence, then the link.
    fn set_up<M: Mmio>(
        &mut self,
        mmio: &M,
        semaphores: &Semaphores,
        now: Instant,
        module: &Module,
        delay: Delay<'_>,
    ) -> Step {
        if is_vetoed(mmio) {
            return self.wait(now, Lack::Veto);
        }
        if !self.tuned
            && let Some(name) = module.sequence(u16::from(reg::STATUS.read(mmio, 0).port() & 1))
        {
            return Step::Tune(nvm::Sequence::new(mmio, name));
        }
        if module.both_speeds {
            select(mmio, true);
        }
        let step = self.relink(mmio, semaphores, now, !module.is_gigabit(), delay);
        if module.both_speeds && matches!(step, Step::Toggled { .. }) {
            flap(mmio, delay);
        }
        step
    }

    /// Reads some words of the start-up sequence, and plays it at the end.
    fn tune<M: Mmio>(
        &mut self,
        mmio: &M,
        semaphores: &Semaphores,
        now: Instant,
        mut sequence: nvm::Sequence,
        delay: Delay<'_>,
    ) -> Step {
        match sequence.read(mmio, delay) {
            None => return Step::Tune(sequence),
            Some(Ok(())) => {
                if semaphores.try_hold(mmio, LINK_REGISTERS, delay, |_| sequence.play(mmio)).is_none() {
                    return self.wait(now, Lack::Registers);
                }
            }
            Some(Err(error)) => self.tell(now, Lack::Sequence(error)),
        }
        self.tuned = true;
        let Content::Module(module) = self.content else { return Step::Rest };
        self.set_up(mmio, semaphores, now, &module, delay)
    }

    /// Tries the other speed where one has had its time. The module is told before the MAC is changed.
    fn try_speeds<M: Mmio>(&mut self, mmio: &M, now: Instant) -> Step {
        let since = *self.since.get_or_insert(now);
        if is_vetoed(mmio) || now < since + if self.fast { FAST } else { SLOW } {
            return Step::Rest;
        }
        select(mmio, !self.fast);
        self.due = now + CHANGE;
        Step::Told { fast: !self.fast }
    }

    /// Begins anew with the link, at one of the module's speeds. The bit of LMS that is set otherwise for a moment resets the whole path to the
    /// wire (Linux: `ixgbe_reset_pipeline_82599`).
    fn relink<M: Mmio>(
        &mut self,
        mmio: &M,
        semaphores: &Semaphores,
        now: Instant,
        fast: bool,
        delay: Delay<'_>,
    ) -> Step {
        if is_vetoed(mmio) {
            return self.wait(now, Lack::Veto);
        }
        let base = self.base.unwrap_or_default();
        let control = match &self.content {
            Content::Module(module) => autoc(base, module, fast),
            Content::Unknown | Content::Empty | Content::Unreadable(_) => base,
        };
        let control = control.with_restart(true);
        let begun = semaphores.try_hold(mmio, LINK_REGISTERS, delay, |_| {
            reg::AUTOC2.update(mmio, 0, |control: reg::Autoc2| control.with_disabled(0));
            reg::AUTOC.write(mmio, 0, control.with_mode(control.mode() ^ 4));
        });
        if begun.is_none() {
            return self.wait(now, Lack::Registers);
        }
        (self.fast, self.since, self.due) = (fast, None, now + RESET);
        Step::Toggled { control, looks: RESET_LOOKS }
    }

    /// Ends the reset of the path to the wire, once it is seen.
    fn finish<M: Mmio>(
        &mut self,
        mmio: &M,
        semaphores: &Semaphores,
        now: Instant,
        (control, looks): (Autoc, u8),
        delay: Delay<'_>,
    ) -> Step {
        if looks > 0 && reg::ANLP1.read(mmio, 0).state() == 0 {
            self.due = now + RESET;
            return Step::Toggled { control, looks: looks - 1 };
        }
        let write = |_: Delay<'_>| reg::AUTOC.write(mmio, 0, control);
        if semaphores.try_hold(mmio, LINK_REGISTERS, delay, write).is_none() {
            self.due = now + RESET;
            return Step::Toggled { control, looks };
        }
        self.pending = false;
        Step::Rest
    }

    /// The set-up is tried again in a second.
    fn wait(&mut self, now: Instant, lack: Lack) -> Step {
        self.pending = true;
        self.tell(now, lack);
        Step::Rest
    }

    /// Says what the set-up lacks, once.
    fn tell(&mut self, now: Instant, lack: Lack) {
        if self.lack.replace(lack) != Some(lack) {
            self.say(now, Level::Warn, format_args!("{lack}"));
        }
    }

    /// Logs a line, unless there were many in the last minute.
    fn say(&mut self, now: Instant, level: Level, line: fmt::Arguments<'_>) {
        let (since, count) = self.lines;
        let (since, count) = if now >= since + MINUTE { (now, 1) } else { (since, count + 1) };
        self.lines = (since, count);
        match count {
            ..LINES => log::log!(level, "ixgbe: {line}"),
            LINES => log::warn!("ixgbe: the SFP+ module changes often: no more is said of it for a minute"),
            _ => {}
        }
    }
}

/// Whether there is a link now. A link that fell reads as down once.
pub(super) fn has_link<M: Mmio>(mmio: &M) -> bool {
    let _fell = reg::LINKS.read(mmio, 0);
    reg::LINKS.read(mmio, 0).up()
}

/// Whether firmware keeps the link to itself.
pub(super) fn is_vetoed<M: Mmio>(mmio: &M) -> bool {
    reg::MMNGC.read(mmio, 0).veto()
}

/// AUTOC for a module at one of its speeds: what the reset left where its kind is not known.
fn autoc(base: Autoc, module: &Module, fast: bool) -> Autoc {
    match (module.sequence(0), fast) {
        (None, _) => base,
        (Some(_), true) => base.with_mode(TEN_GIGABIT),
        (Some(_), false) if base.backplane() => base,
        (Some(_), false) => base.with_mode(GIGABIT),
    }
}

/// Tells the module which speed (SFF-8431, RS0 and RS1).
fn select<M: Mmio>(mmio: &M, fast: bool) {
    reg::ESDP.update(mmio, 0, |pins: Esdp| pins.with_fast(fast).with_fast_driven(true));
}

/// Has the laser dark for a moment: the other end then begins with its own trial (Linux: `ixgbe_flap_tx_laser_multispeed_fiber`).
fn flap<M: Mmio>(mmio: &M, delay: Delay<'_>) {
    for dark in [true, false] {
        reg::ESDP.update(mmio, 0, |pins: Esdp| pins.with_laser_off(dark));
        delay(Duration::from_micros(100));
    }
}

/// Whether a module still answers.
fn is_there<M: Mmio>(mmio: &M, semaphores: &Semaphores, delay: Delay<'_>) -> bool {
    let answers = |delay: Delay<'_>| i2c::read(mmio, ADDRESS, 0, &mut [], delay).is_ok();
    semaphores.try_hold(mmio, mdio::bit(mmio), delay, answers).unwrap_or(true)
}

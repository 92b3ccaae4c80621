//! The cage of an 82599 for an SFP+ module: which module is in it, the set-up that its kind needs, and modules that come and go. Floor 3.
//!
//! A module is looked for at the start, and later once a second while there is no link, or where SDP2 told that one was put in. What is set up
//! for one is what Linux' ixgbe does: the start-up sequence that the card's memory holds for its kind, and AUTOC. Optics of both speeds do
//! not negotiate which: each is tried in turn. Where firmware has the link to itself (MMNGC), it is left alone.

use super::i2c;
use super::mdio;
use super::module::{ADDRESS, BYTES, Module};
use super::nvm;
use super::registers::{self as reg, Autoc, Esdp};
use crate::nic::Delay;
use crate::nic::family::wait;
use crate::nic::semaphores::Semaphores;
use alloc::string::{String, ToString};
use core::cell::Cell;
use core::time::Duration;
use split_driver::memory::Mmio;
use split_driver::time::Instant;

/// `SW_FW_SYNC`, `MAC_CSR_SM`: the registers of the link, which firmware writes as well.
pub(super) const LINK_REGISTERS: u32 = 1 << 3;
/// How often a module is asked at a time. One that was just put in may not be ready (SFF-8472 4.6): it is asked again in a second.
const TRIES: usize = 2;
/// AUTOC.LMS of the two speeds.
const GIGABIT: u8 = 2;
const TEN_GIGABIT: u8 = 3;
/// How long each speed is tried. They differ, so that two ends that both do so meet at the higher one.
const FAST: Duration = Duration::from_secs(3);
const SLOW: Duration = Duration::from_secs(2);

/// What is in the cage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// Nothing.
    Empty,
    /// A module that cannot be read.
    Unreadable(i2c::Error),
    /// A module.
    Module(Module),
}

/// What is done next about optics of both speeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// A speed is tried, since then.
    Running { fast: bool, since: Option<Instant> },
    /// The module was told of a speed, and has its time to change.
    Told { fast: bool },
}

impl Default for Trial {
    fn default() -> Self {
        Self::Running { fast: true, since: None }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    content: Content,
    /// SDP2 told of a module.
    told: bool,
    /// What the module needs is still to be done: firmware had the link's registers.
    pending: bool,
    trial: Trial,
    /// AUTOC as the reset left it.
    base: Autoc,
    /// The card may see a link where there is no module.
    crosstalk: bool,
}

/// The cage.
#[derive(Debug, Default)]
pub(super) struct Cage(Cell<State>);

impl Cage {
    /// The module in it, in words.
    pub(super) fn module(&self) -> Option<String> {
        match self.0.get().content {
            Content::Module(module) => Some(module.to_string()),
            Content::Empty => Some("none".to_string()),
            Content::Unreadable(_) => Some("unreadable".to_string()),
            Content::Unknown => None,
        }
    }

    /// SDP2 interrupted.
    pub(super) fn tell(&self) {
        self.0.set(State { told: true, ..self.0.get() });
    }

    /// Whether a link that the MAC sees is none.
    pub(super) fn is_crosstalk<M: Mmio>(&self, mmio: &M) -> bool {
        self.0.get().crosstalk && !reg::ESDP.read(mmio, 0).module()
    }

    /// Begins with the link after a reset.
    pub(super) fn start<M: Mmio>(&self, mmio: &M, semaphores: &Semaphores, delay: Delay<'_>) {
        let crosstalk = nvm::has_crosstalk(mmio, delay);
        self.0.set(State { base: reg::AUTOC.read(mmio, 0), told: false, crosstalk, ..self.0.get() });
        self.look(mmio, semaphores, delay);
    }

    /// To be called about once a second.
    pub(super) fn watch<M: Mmio>(&self, mmio: &M, semaphores: &Semaphores, now: Instant, up: bool, delay: Delay<'_>) {
        let mut state = self.0.get();
        let module = match state.content {
            Content::Module(module) if !state.told => module,
            Content::Unknown | Content::Empty | Content::Unreadable(_) if up && !state.told => return,
            _ => {
                self.0.set(State { told: false, ..state });
                return self.look(mmio, semaphores, delay);
            }
        };
        if up {
            state.trial = match state.trial {
                Trial::Running { fast, .. } | Trial::Told { fast } => Trial::Running { fast, since: None },
            };
            return self.0.set(state);
        }
        if !is_there(mmio, semaphores, delay) {
            self.look(mmio, semaphores, delay);
        } else if state.pending {
            self.set_up(mmio, semaphores, &module, delay);
        } else if module.both_speeds {
            self.try_speeds(mmio, semaphores, now, delay);
        }
    }

    /// Looks which module there is, and sets it up.
    fn look<M: Mmio>(&self, mmio: &M, semaphores: &Semaphores, delay: Delay<'_>) {
        let known = self.0.get().content;
        let Some(content) = identify(mmio, semaphores, delay) else {
            // Firmware has the wires: again in a second.
            return self.tell();
        };
        self.0.set(State { content, ..self.0.get() });
        if content != known {
            match &content {
                Content::Module(module) => log::info!("ixgbe: SFP+ module: {module}"),
                Content::Unreadable(error) => log::warn!("ixgbe: the SFP+ module cannot be read: {error}"),
                Content::Empty | Content::Unknown => log::info!("ixgbe: no SFP+ module is in the cage"),
            }
        }
        if let Content::Module(module) = content {
            if !module.intact {
                log::warn!("ixgbe: the SFP+ module's memory has a wrong checksum (CC_BASE); its contents are believed");
            }
            self.set_up(mmio, semaphores, &module, delay);
        } else if known == Content::Unknown {
            // A link may come up all the same.
            self.0.set(State { pending: !relink(mmio, semaphores, self.0.get().base, delay), ..self.0.get() });
        }
    }

    /// Does what the module needs.
    fn set_up<M: Mmio>(&self, mmio: &M, semaphores: &Semaphores, module: &Module, delay: Delay<'_>) {
        let mut state = self.0.get();
        state.trial = Trial::default();
        if module.both_speeds {
            select(mmio, true);
        }
        let mut done = true;
        if let Some(name) = module.sequence(u16::from(reg::STATUS.read(mmio, 0).port() & 1))
            && !is_vetoed(mmio)
        {
            match semaphores.try_hold(mmio, LINK_REGISTERS, delay, |delay| nvm::play(mmio, name, delay)) {
                Some(Ok(())) => {}
                Some(Err(error)) => log::warn!("ixgbe: the SFP+ module's start-up sequence was not played: {error}"),
                None => done = false,
            }
        }
        done = done && relink(mmio, semaphores, autoc(state.base, module, !module.is_gigabit()), delay);
        if done && module.both_speeds {
            flap(mmio, delay);
        }
        if !done && !state.pending {
            log::info!("ixgbe: firmware has the registers of the link: the SFP+ module waits");
        }
        state.pending = !done;
        self.0.set(state);
    }

    /// Tries the other speed where one has had its time. The module is told a second before the MAC is changed, in place of a wait of 40 ms
    /// (Linux: `ixgbe_setup_mac_link_multispeed_fiber`).
    fn try_speeds<M: Mmio>(&self, mmio: &M, semaphores: &Semaphores, now: Instant, delay: Delay<'_>) {
        let mut state = self.0.get();
        let Content::Module(module) = state.content else { return };
        state.trial = match state.trial {
            Trial::Running { fast, since } => {
                let since = since.unwrap_or(now);
                if now < since + if fast { FAST } else { SLOW } {
                    Trial::Running { fast, since: Some(since) }
                } else {
                    select(mmio, !fast);
                    Trial::Told { fast: !fast }
                }
            }
            Trial::Told { fast } => {
                if !relink(mmio, semaphores, autoc(state.base, &module, fast), delay) {
                    return;
                }
                Trial::Running { fast, since: Some(now) }
            }
        };
        self.0.set(state);
    }
}

/// Whether firmware lets nobody else change the link.
fn is_vetoed<M: Mmio>(mmio: &M) -> bool {
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

/// Reads what is in the cage. `None` where another owner has the wires now.
fn identify<M: Mmio>(mmio: &M, semaphores: &Semaphores, delay: Delay<'_>) -> Option<Content> {
    semaphores.try_hold(mmio, mdio::bit(mmio), delay, |delay| {
        let mut bytes = [0; BYTES];
        let mut seen = Content::Empty;
        for _ in 0..TRIES {
            seen = match i2c::read(mmio, ADDRESS, 0, &mut bytes, delay) {
                Ok(()) => Content::Module(Module::parse(&bytes)),
                Err(i2c::Error::Silent) if !reg::ESDP.read(mmio, 0).module() => Content::Empty,
                Err(error) => Content::Unreadable(error),
            };
            if matches!(&seen, Content::Module(module) if module.intact) {
                break;
            }
        }
        seen
    })
}

/// Whether a module still answers.
fn is_there<M: Mmio>(mmio: &M, semaphores: &Semaphores, delay: Delay<'_>) -> bool {
    let answers = |delay: Delay<'_>| i2c::read(mmio, ADDRESS, 0, &mut [], delay).is_ok();
    semaphores.try_hold(mmio, mdio::bit(mmio), delay, answers).unwrap_or(true)
}

/// Begins anew with the link of an 82599, as `control` says. The bit of LMS that is set otherwise for a moment resets the whole path to the
/// wire (Linux: `ixgbe_reset_pipeline_82599`). False where another owner has the registers now.
fn relink<M: Mmio>(mmio: &M, semaphores: &Semaphores, control: Autoc, delay: Delay<'_>) -> bool {
    if is_vetoed(mmio) {
        log::debug!("ixgbe: firmware keeps the link as it is");
        return true;
    }
    let done = semaphores.try_hold(mmio, LINK_REGISTERS, delay, |delay| {
        reg::AUTOC2.update(mmio, 0, |control: reg::Autoc2| control.with_disabled(0));
        let control = control.with_restart(true);
        reg::AUTOC.write(mmio, 0, control.with_mode(control.mode() ^ 4));
        if !wait(delay, Duration::from_millis(1), 40, || reg::ANLP1.read(mmio, 0).state() != 0) {
            log::debug!("ixgbe: the link does not say that it begins anew");
        }
        reg::AUTOC.write(mmio, 0, control);
    });
    done.is_some()
}

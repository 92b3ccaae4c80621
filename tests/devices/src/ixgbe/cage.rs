//! The cage of an 82599 for SFP+: the module in it, what the card must be set to for its kind, and the light that comes of that. Pure.

use std::time::Duration;

use super::eeprom::{CABLE, OPTICS};
use super::registers::{self as reg};
use crate::i2c::{Kind, Module};
use crate::registers::Registers;

/// How long it takes until a link follows its settings.
const SETTLE: Duration = Duration::from_millis(50);
/// Words that are kept of what the analogue part took.
const KEPT: usize = 16;

/// The cage.
#[derive(Debug)]
pub(super) struct Cage {
    /// The card has one.
    there: bool,
    module: Option<Module>,
    partner: u32,
    /// What the analogue part took last.
    words: Vec<u16>,
    /// Mbit/s of the light that is there.
    speed: Option<u32>,
    /// The MAC sees a link in any case.
    crosstalk: bool,
    /// Its settings ask for another state since then.
    differs: Option<Duration>,
    now: Duration,
}

impl Cage {
    pub(super) const fn new(module: Option<Module>, there: bool) -> Self {
        let now = Duration::ZERO;
        Self { there, module, partner: 10_000, words: Vec::new(), speed: None, crosstalk: false, differs: None, now }
    }

    /// The card's firmware starts the module that it finds.
    pub(super) fn power_on(&mut self, registers: &Registers) {
        if let Some(sequence) = self.sequence() {
            self.words = sequence.to_vec();
        }
        self.speed = self.light(registers);
        self.differs = None;
    }

    pub(super) const fn is_full(&self) -> bool {
        self.module.is_some()
    }

    pub(super) const fn set_partner_speed(&mut self, speed: u32) {
        self.partner = speed;
    }

    pub(super) fn words(&self) -> &[u16] {
        &self.words
    }

    /// The module is new to the analogue part.
    pub(super) fn put_in(&mut self, module: Module) {
        self.module = Some(module);
        self.words.clear();
    }

    pub(super) fn take_out(&mut self) {
        (self.module, self.speed, self.differs) = (None, None, None);
    }

    /// The host moves its ends of the wires.
    pub(super) fn drive(&mut self, clock: bool, data: bool) {
        if let Some(module) = &mut self.module {
            module.drive(clock, data);
        }
    }

    /// The data wire, where a module is on it.
    pub(super) fn data(&self) -> Option<bool> {
        self.module.as_ref().map(Module::data)
    }

    /// A word for the analogue part.
    pub(super) fn tune(&mut self, word: u16) {
        self.words.push(word);
        let beyond = self.words.len().saturating_sub(KEPT);
        self.words.drain(..beyond);
    }

    /// Mbit/s of the light that is there.
    pub(super) const fn speed(&self) -> Option<u32> {
        self.speed
    }

    pub(super) const fn has_carrier(&self) -> bool {
        !self.there || self.speed.is_some() || self.crosstalk
    }

    pub(super) const fn see_crosstalk(&mut self) {
        self.crosstalk = true;
    }

    fn sequence(&self) -> Option<&'static [u16]> {
        match self.module.as_ref()?.kind() {
            Kind::PassiveCable => Some(CABLE),
            Kind::Unknown => None,
            _ => Some(OPTICS),
        }
    }

    /// What its settings ask for: the right sequence was played last, the laser is on, and LMS, the rate select and the partner fit.
    fn light(&self, registers: &Registers) -> Option<u32> {
        let kind = self.module.as_ref()?.kind();
        let (autoc, pins) = (registers.get(reg::AUTOC), registers.get(reg::ESDP));
        let tuned = self.sequence().is_none_or(|sequence| self.words.ends_with(sequence));
        if !tuned || pins & reg::ESDP_SDP3 != 0 {
            return None;
        }
        let fast = pins & (reg::ESDP_SDP5 | reg::ESDP_SDP5_DIR) == reg::ESDP_SDP5 | reg::ESDP_SDP5_DIR;
        let speed = match autoc >> 13 & 7 {
            3 => 10_000,
            2 if autoc & reg::AUTOC_1G_BACKPLANE == 0 => 1000,
            _ => return None,
        };
        let fits = match kind {
            Kind::BothSpeeds => speed == self.partner && fast == (speed == 10_000),
            Kind::Copper | Kind::ShortWave | Kind::LongWave => speed == 1000,
            _ => speed == 10_000,
        };
        fits.then_some(speed)
    }

    /// Time passes; whether there is light now, where that changed.
    pub(super) fn settle(&mut self, now: Duration, registers: &Registers) -> Option<bool> {
        self.now = now;
        let light = self.light(registers);
        if light == self.speed {
            self.differs = None;
            return None;
        }
        let since = *self.differs.get_or_insert(now);
        if now < since + SETTLE {
            return None;
        }
        (self.speed, self.differs) = (light, None);
        Some(light.is_some())
    }

    /// When a link that is to change does so.
    pub(super) fn poll_time(&self) -> Option<Duration> {
        self.differs.map(|since| since + SETTLE).filter(|at| *at > self.now)
    }
}

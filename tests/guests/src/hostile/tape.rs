//! Plays what a fuzzer's hostile guest did (`guests::tape`), from the domain's module: `attack=tape`, or `attack=blk-tape`.
//!
//! Each life of the tape is a connection. After the last one a proper frontend connects, which shows whether it is served if dom0 asks for that.

use crate::Pair;
use crate::block;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::frontend::{Frontend, Manners};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use guests::tape::{self, Area, Life, Step, Word};
use runtime::grants::{Grant, grant_access};
use runtime::memory::Page;
use runtime::time::{self, Duration};
use split_driver::memory::SharedMemory;
use xen_pv_sys::{DomainId, GrantRef, PAGE_SIZE};

const PAGE_WORDS: usize = PAGE_SIZE / 4;
/// How often a word flickers while an event is under way.
const FLICKERS: u32 = 1000;
/// A fuzzer's time costs nothing; here no backend has a limit that is longer and that a frontend could wait for.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// What the backend has at the end of a life for all that it was told of.
const REST: Duration = Duration::from_millis(20);

/// A connected frontend's rings.
pub(crate) trait Rings {
    /// A word of a ring's pages.
    fn word(&self, ring: u8, place: usize) -> Option<&AtomicU32>;
    /// Sends an event by a ring's channel.
    fn notify(&self, ring: u8);
}

impl Rings for Frontend {
    fn word(&self, ring: u8, place: usize) -> Option<&AtomicU32> {
        let page = if ring == 0 { &self.transmit_page } else { &self.receive_page };
        page.words().get(place)
    }

    fn notify(&self, ring: u8) {
        if ring == 0 {
            self.transmit_channel.notify()
        } else {
            self.receive_channel.notify()
        };
    }
}

/// The lives on the domain's module.
pub(crate) fn lives(module: Option<&[u8]>) -> Result<Vec<Life>> {
    let bytes = module.ok_or(Error::Wrong("there is no tape: the domain has no module"))?;
    // The toolstack fills the module's last page with zeros.
    let text = core::str::from_utf8(bytes).map_err(|_| Error::Text)?.trim_end_matches('\0');
    tape::read(text).map_err(|line| {
        log::error!("this is no line of a tape: {line}");
        Error::Text
    })
}

/// Against a network backend; gives the proper frontend of the end.
pub(crate) async fn play(vif: Device, lives: &[Life]) -> Result<Pair> {
    let mut player = Player::new(vif.domain);
    for (number, life) in lives.iter().enumerate() {
        log::info!("life {number}: {} steps", life.steps.len());
        let features: Vec<_> = life.words.iter().filter_map(|word| word.split_once('=')).collect();
        let manners = Manners { posts: false, features: &features, ..Manners::GOOD };
        let frontend = Frontend::connect(vif.clone(), manners).await?;
        player.live(&frontend, life).await?;
        vif.begin_anew().await?;
    }
    Ok(Pair { attacker: Frontend::connect(vif, Manners::GOOD).await?, helper: None, linux: false })
}

/// Against a block backend; gives the proper frontend of the end.
pub(crate) async fn play_block(vbd: Device, lives: &[Life]) -> Result<block::Frontend> {
    let mut player = Player::new(vbd.domain);
    for (number, life) in lives.iter().enumerate() {
        log::info!("life {number}: {} steps", life.steps.len());
        let frontend = block::connect(vbd.clone(), &life.words.join(" ")).await?;
        player.live(&frontend, life).await?;
        vbd.begin_anew().await?;
    }
    block::connect(vbd, "").await
}

/// What the steps name: pages, and grants of them, which outlive a connection.
struct Player {
    domain: DomainId,
    pages: Vec<((Area, usize), Rc<Page>)>,
    grants: Vec<((Area, u8, bool), Grant)>,
    fickle: Option<Grant>,
    /// A word whose bits are turned over all the time.
    flicker: Option<(Area, usize, u32)>,
}

impl Player {
    fn new(domain: DomainId) -> Self {
        Self { domain, pages: Vec::new(), grants: Vec::new(), fickle: None, flicker: None }
    }

    async fn live(&mut self, rings: &dyn Rings, life: &Life) -> Result<()> {
        self.flicker = None;
        for step in &life.steps {
            self.step(rings, step).await?;
        }
        time::sleep(REST).await;
        Ok(())
    }

    async fn step(&mut self, rings: &dyn Rings, step: &Step) -> Result<()> {
        match step {
            Step::Store { area, place, words } => {
                for (word, place) in words.iter().zip(*place as usize..) {
                    let value = self.value(*word)?;
                    self.change(rings, (*area, place), |memory| memory.store(value, Ordering::SeqCst))?;
                }
            }
            Step::Add { area, place, value } => {
                self.change(rings, (*area, *place as usize), |memory| {
                    memory.fetch_add(*value, Ordering::SeqCst);
                })?;
            }
            Step::Flicker { area, place, bits } => self.flicker = Some((*area, *place as usize, *bits)),
            Step::Notify(ring) => {
                rings.notify(*ring);
                self.do_flicker(rings)?;
            }
            Step::Revoke => {
                if let Some(Err(busy)) = self.fickle.take().map(Grant::end) {
                    self.fickle = Some(busy);
                }
            }
            Step::Wait(milliseconds) => {
                self.do_flicker(rings)?;
                time::sleep(LONGEST_WAIT.min(Duration::from_millis((*milliseconds).into()))).await;
            }
        }
        Ok(())
    }

    fn do_flicker(&mut self, rings: &dyn Rings) -> Result<()> {
        let Some((area, place, bits)) = self.flicker else {
            return Ok(());
        };
        for _ in 0..FLICKERS {
            self.change(rings, (area, place), |memory| {
                memory.fetch_xor(bits, Ordering::SeqCst);
            })?;
        }
        Ok(())
    }

    /// Changes a word. A place beyond the end of a ring is ignored.
    fn change(&mut self, rings: &dyn Rings, word: (Area, usize), change: impl FnOnce(&AtomicU32)) -> Result<()> {
        let (area, place) = word;
        if let Area::Ring(ring) = area {
            rings.word(ring, place).map(change);
            return Ok(());
        }
        let page = self.page(area, place / PAGE_WORDS)?;
        page.words().get(place % PAGE_WORDS).map(change);
        Ok(())
    }

    fn page(&mut self, area: Area, number: usize) -> Result<Rc<Page>> {
        if let Some((_, page)) = self.pages.iter().find(|(key, _)| *key == (area, number)) {
            return Ok(Rc::clone(page));
        }
        let page = Rc::new(Page::new()?);
        self.pages.push(((area, number), Rc::clone(&page)));
        Ok(page)
    }

    fn value(&mut self, word: Word) -> Result<u32> {
        Ok(match word {
            Word::Number(value) => value,
            Word::Grant { area, page, writable } => self.grant(area, page, writable)?.0,
            Word::Fickle => {
                let page = self.page(Area::Data, 0)?;
                let fickle = match self.fickle.take() {
                    Some(grant) => grant,
                    None => grant_access(self.domain, page, false)?,
                };
                self.fickle.insert(fickle).reference().0
            }
        })
    }

    fn grant(&mut self, area: Area, page: u8, writable: bool) -> Result<GrantRef> {
        if let Some((_, grant)) = self.grants.iter().find(|(key, _)| *key == (area, page, writable)) {
            return Ok(grant.reference());
        }
        let memory = self.page(area, page.into())?;
        let grant = grant_access(self.domain, memory, !writable)?;
        let reference = grant.reference();
        self.grants.push(((area, page, writable), grant));
        Ok(reference)
    }
}

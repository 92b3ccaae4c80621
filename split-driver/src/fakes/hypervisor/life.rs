//! A domain that begins anew inside itself: pages that outlive a life, and a life that ends at any step. Floor 1.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use super::FakeXen;
use crate::kept::{KEPT_WORDS, Keep, KeptPage};
use crate::memory::OutOfMemory;

type Words = Rc<Vec<Cell<u32>>>;
/// When a life ends, and how.
#[derive(Clone, Copy, Debug)]
struct End {
    /// Steps until then.
    left: u64,
    /// Of which hypercalls alone are counted.
    calls: bool,
    end: fn(),
}

/// What is known of the domain's lives.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// Pages that are kept.
    kept: RefCell<Vec<Words>>,
    /// Those among them that the last life had, and that nobody took over.
    inherited: RefCell<Vec<Words>>,
    /// Of the life, if it is to end.
    end: Cell<Option<End>>,
    /// It has ended, and the next one has not begun.
    ended: Cell<bool>,
}

impl Lives {
    pub(super) fn kept(&self) -> usize {
        self.kept.borrow().len()
    }
}

/// A page that outlives a life.
#[derive(Debug)]
pub struct FakeKeptPage {
    xen: FakeXen,
    words: Words,
}

fn remove(pages: &RefCell<Vec<Words>>, page: &Words) {
    pages.borrow_mut().retain(|other| !Rc::ptr_eq(other, page));
}

impl FakeXen {
    /// The life ends at a step: `end` is called behind so many more of them, and must not return (it unwinds). A step is a store to a kept
    /// page, an access to a ring, a copy or mapping of a grant, an event, a command of a fake disk.
    pub fn end_life(&self, after: u64, end: fn()) {
        self.0.lives.end.set(Some(End { left: after, calls: false, end }));
    }

    /// The same, where only hypercalls are steps: a copy or mapping of a grant, a channel's binding, an event.
    pub fn end_life_at_call(&self, after: u64, end: fn()) {
        self.0.lives.end.set(Some(End { left: after, calls: true, end }));
    }

    /// The life ends here: what it has is to be dropped.
    pub fn end_life_now(&self) {
        self.0.lives.end.take();
        self.0.lives.ended.set(true);
    }

    /// A step of the code under test, other than a hypercall.
    #[inline]
    pub fn step(&self) {
        if let Some(end) = self.0.lives.end.get()
            && !end.calls
        {
            self.count_step(end);
        }
    }

    /// A hypercall of the code under test.
    #[inline]
    pub(super) fn call(&self) {
        if let Some(end) = self.0.lives.end.get() {
            self.count_step(end);
        }
    }

    #[inline(never)]
    fn count_step(&self, end: End) {
        self.0.lives.end.set(end.left.checked_sub(1).map(|left| End { left, ..end }));
        if end.left == 0 {
            self.0.lives.ended.set(true);
            (end.end)();
        }
    }

    /// The steps that were left when the life did not end after all.
    pub fn spare_life(&self) -> Option<u64> {
        self.0.lives.end.take().map(|end| end.left)
    }

    /// The next life begins; what the last one had must have been dropped. Its pages are there still, and its device mappings are gone.
    pub fn begin_life(&self) {
        let lives = &self.0.lives;
        lives.ended.set(false);
        lives.inherited.replace(lives.kept.borrow().clone());
        let pages: Vec<_> = core::mem::take(&mut *self.0.device_pages.borrow_mut()).into_values().collect();
        self.0.mapped_pages.set(self.0.mapped_pages.get() - pages.len());
        for mapped in pages {
            if let Some(state) = self.0.domains.borrow_mut().get_mut(&mapped.domain)
                && let Some(Some(grant)) = state.grants.get_mut(mapped.reference.0 as usize)
            {
                grant.maps -= 1;
            }
        }
        self.0.events.borrow_mut().clear();
    }

    /// The life has taken over: what it did not take of the last one's pages is gone. Gives how many those were.
    pub fn taken_over(&self) -> usize {
        let rest = self.0.lives.inherited.take();
        for page in &rest {
            remove(&self.0.lives.kept, page);
        }
        rest.len()
    }

    /// Changes a word of one of the pages that the last life kept, as code that went astray.
    pub fn damage(&self, page: usize, word: usize, change: impl FnOnce(u32) -> u32) {
        let kept = self.0.lives.kept.borrow();
        if let Some(word) = kept.get(page).and_then(|page| page.get(word)) {
            word.set(change(word.get()));
        }
    }
}

impl KeptPage for FakeKeptPage {
    fn load(&self, word: usize) -> u32 {
        self.words.get(word).map_or(0, Cell::get)
    }

    #[inline(never)]
    fn store(&self, word: usize, value: u32) {
        self.xen.step();
        if let Some(word) = self.words.get(word) {
            word.set(value);
        }
    }

    #[inline(never)]
    fn store_all(&self, word: usize, values: &[u32]) {
        self.xen.step();
        for (word, value) in self.words.iter().skip(word).zip(values) {
            word.set(*value);
        }
    }
}

impl Keep for FakeXen {
    type Page = FakeKeptPage;

    fn keep_page(&self) -> Result<FakeKeptPage, OutOfMemory> {
        let words: Words = Rc::new(alloc::vec![Cell::new(0); KEPT_WORDS]);
        self.0.lives.kept.borrow_mut().push(Rc::clone(&words));
        Ok(FakeKeptPage { xen: self.clone(), words })
    }

    fn inherit_page(&self, first: &[u32]) -> Option<FakeKeptPage> {
        let mut inherited = self.0.lives.inherited.borrow_mut();
        let begins = |page: &Words| first.iter().zip(page.iter()).all(|(is, word)| *is == word.get());
        let found = inherited.iter().position(begins)?;
        Some(FakeKeptPage { xen: self.clone(), words: inherited.remove(found) })
    }
}

impl Drop for FakeKeptPage {
    fn drop(&mut self) {
        // What a life has is not dropped where it ends.
        if !self.xen.0.lives.ended.get() {
            remove(&self.xen.0.lives.kept, &self.words);
        }
    }
}

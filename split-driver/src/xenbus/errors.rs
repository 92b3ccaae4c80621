//! Why devices were refused, kept below `data/errors/` when they are gone: `xl` takes a device that fails away at once. Pure over the
//! store's trait. Floor 1.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use core::cell::{Cell, RefCell};

use super::DeviceId;
use crate::store::{Store, StoreError, Transaction};

/// Texts that are kept, and how many of them may be about what frontends did: a guest that breaks the protocol, reboots and has another
/// number then is not to take the toolstack's faults from sight.
const KEPT: usize = 16;
const OF_FRONTENDS: usize = 8;
/// Texts of one domain, at most.
const OF_DOMAIN: usize = 4;
/// Bytes of a text, at most.
const TEXT_BYTES: usize = 512;
/// Where they are, with the kind of device behind it: a node each, by a number that grows, and `removed`, how many gave way.
const TOP: &str = "data/errors";

#[derive(Debug)]
struct Told {
    id: DeviceId,
    number: u32,
    text: String,
    /// It is about what the frontend did.
    of_frontend: bool,
}

/// The texts of one kind of device, oldest first; one a device.
#[derive(Debug, Default)]
pub(super) struct Errors {
    told: RefCell<VecDeque<Told>>,
    next: Cell<u32>,
    removed: Cell<u32>,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    number: u32,
    text: String,
    /// The text that gives way: the device's last, or the oldest.
    gone: Option<u32>,
    /// How many of other devices did, where this is one more.
    removed: Option<u32>,
}

/// `text`, cut at a character's end.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES)).unwrap_or_default()
}

/// What a text says of its device.
fn reason(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, reason)| reason)
}

/// The place of the text that gives way to another one, where one must: the oldest of the same domain, where it has its share; of what
/// frontends did, the same of a device of that number, which may be this one before its guest rebooted, or the oldest; or the oldest.
fn giving_way(told: &VecDeque<Told>, id: DeviceId, text: &str, of_frontend: bool) -> Option<usize> {
    let places = |counts: &dyn Fn(&Told) -> bool, most: usize| {
        let found = told.iter().enumerate().filter(|(_, known)| counts(known));
        (found.clone().count() >= most).then(|| found.map(|(place, _)| place).next()).flatten()
    };
    let again = |known: &Told| known.of_frontend && known.id.handle == id.handle && reason(&known.text) == reason(text);
    let own = places(&|known| known.id.frontend == id.frontend, OF_DOMAIN);
    let of_frontends = || {
        let oldest = places(&|known| known.of_frontend, OF_FRONTENDS).filter(|_| of_frontend)?;
        Some(places(&again, 1).unwrap_or(oldest))
    };
    own.or_else(of_frontends).or_else(|| (told.len() >= KEPT).then_some(0))
}

impl Errors {
    /// A device was refused, for what its frontend did or not; nothing where the same was said of it last.
    fn note(&self, id: DeviceId, text: &str, of_frontend: bool) -> Option<Change> {
        let mut told = self.told.borrow_mut();
        let last = told.iter().position(|known| known.id == id).and_then(|place| told.remove(place));
        if let Some(known) = last.as_ref().filter(|known| known.text == text) {
            told.push_back(Told { id, number: known.number, text: text.into(), of_frontend });
            return None;
        }
        let mut removed = None;
        let gone = match last {
            Some(last) => Some(last),
            None => giving_way(&told, id, text, of_frontend).and_then(|place| {
                self.removed.set(self.removed.get().saturating_add(1));
                removed = Some(self.removed.get());
                told.remove(place)
            }),
        };
        let number = self.next.replace(self.next.get().wrapping_add(1));
        told.push_back(Told { id, number, text: text.into(), of_frontend });
        Some(Change { number, text: text.into(), gone: gone.map(|gone| gone.number), removed })
    }

    /// Says why a device was refused. Where the store has no room for it, it is said when the device is refused again.
    pub(super) async fn tell(&self, store: &impl Store, kind: &str, id: DeviceId, reason: &str, of_frontend: bool) {
        let text = format!("{kind}{id}: {reason}");
        let Some(change) = self.note(id, cut(&text), of_frontend) else {
            return;
        };
        let top = format!("{TOP}/{kind}");
        if let Err(error) = write(store, &top, &change).await {
            log::debug!("{top}: {error}");
            self.told.borrow_mut().retain(|told| told.number != change.number);
        }
    }
}

async fn write(store: &impl Store, top: &str, change: &Change) -> Result<(), StoreError> {
    let none = Transaction::NONE;
    if let Some(number) = change.gone {
        // It may not have been written.
        let _ = store.remove(none, &format!("{top}/{number}")).await;
    }
    store.write(none, &format!("{top}/{}", change.number), change.text.as_bytes()).await?;
    match change.removed {
        Some(removed) => store.write(none, &format!("{top}/removed"), removed.to_string().as_bytes()).await,
        None => Ok(()),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use xen_pv_sys::DomainId;

    /// A device of a domain that has no other.
    fn device(domain: u32) -> DeviceId {
        DeviceId { frontend: DomainId(domain as u16), handle: 0 }
    }

    fn numbers(errors: &Errors) -> Vec<u32> {
        errors.told.borrow().iter().map(|told| told.number).collect()
    }

    #[test]
    fn a_guest_that_reboots_takes_no_other_text_from_sight() {
        let errors = Errors::default();
        let other = DeviceId { handle: 7, ..device(1) };
        errors.note(other, "vif1.7: too many slots", true);
        for number in 2..10 {
            errors.note(device(number), "no bridge", false);
        }
        // Its domain has another number each time.
        for number in 10..60 {
            errors.note(device(number), &format!("vif{number}.0: too many slots"), true).expect("news");
        }
        assert_eq!(numbers(&errors), [(0..9).collect::<Vec<_>>(), (52..59).collect()].concat());
        // One that does something else each time takes the texts of other frontends alone.
        for number in 60..90 {
            errors.note(device(number), &format!("vif{number}.0: {number} slots"), true).expect("news");
        }
        assert_eq!(numbers(&errors), [(1..9).collect::<Vec<_>>(), (81..89).collect()].concat());
        assert_eq!(errors.removed.get(), 73);
    }

    #[test]
    fn a_domain_has_a_share() {
        let errors = Errors::default();
        errors.note(device(1), "no bridge", false);
        for handle in 0..20 {
            errors.note(DeviceId { handle, ..device(2) }, "no bridge", handle % 2 == 0).expect("news");
        }
        assert_eq!(numbers(&errors), [0, 17, 18, 19, 20]);
    }

    #[test]
    fn the_oldest_gives_way_and_is_counted() {
        let errors = Errors::default();
        for number in 0..16 {
            let change = errors.note(device(number), "no bridge", false);
            assert_eq!(change, Some(Change { number, text: "no bridge".into(), gone: None, removed: None }));
        }
        assert_eq!(errors.note(device(3), "no bridge", true), None, "said already");
        // Another text of one device is the newest, and takes the place of its first.
        let change = errors.note(device(0), "no memory", false).expect("news");
        assert_eq!((change.number, change.gone, change.removed), (16, Some(0), None));
        for (number, gone, removed) in [(17, 1, 1), (18, 2, 2)] {
            let change = errors.note(device(number), "no bridge", false).expect("news");
            assert_eq!((change.number, change.gone, change.removed), (number, Some(gone), Some(removed)));
        }
        assert_eq!(errors.told.borrow().len(), KEPT);
    }

    #[test]
    fn a_long_text_is_cut() {
        let text = "\u{e9}".repeat(1000);
        assert_eq!(cut(&text).len(), TEXT_BYTES);
        assert_eq!(cut(&text[2..]).len(), TEXT_BYTES);
        assert_eq!(cut(&format!("a{text}")).len(), TEXT_BYTES - 1);
        assert_eq!(cut("short"), "short");
    }
}

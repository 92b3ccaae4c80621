//! Why devices were refused, kept below `data/errors/` when they are gone: `xl` takes a device that fails away at once. Pure over the
//! store's trait. Floor 1.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use core::cell::{Cell, RefCell};

use super::DeviceId;
use crate::store::{Store, StoreError, Transaction};

/// Texts that are kept. The oldest gives way.
const KEPT: usize = 16;
/// Bytes of a text, at most.
const TEXT_BYTES: usize = 512;
/// Where they are, with the kind of device behind it: a node each, by a number that grows, and `removed`, how many gave way.
const TOP: &str = "data/errors";

#[derive(Debug)]
struct Told {
    id: DeviceId,
    number: u32,
    text: String,
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

impl Errors {
    /// A device was refused; nothing where the same was said of it last.
    fn note(&self, id: DeviceId, text: &str) -> Option<Change> {
        let mut told = self.told.borrow_mut();
        let last = told.iter().position(|known| known.id == id).and_then(|place| told.remove(place));
        if let Some(known) = last.as_ref().filter(|known| known.text == text) {
            told.push_back(Told { id, number: known.number, text: text.into() });
            return None;
        }
        let mut removed = None;
        let gone = match last {
            Some(last) => Some(last),
            None if told.len() < KEPT => None,
            None => {
                self.removed.set(self.removed.get().saturating_add(1));
                removed = Some(self.removed.get());
                told.pop_front()
            }
        };
        let number = self.next.replace(self.next.get().wrapping_add(1));
        told.push_back(Told { id, number, text: text.into() });
        Some(Change { number, text: text.into(), gone: gone.map(|gone| gone.number), removed })
    }

    /// Says why a device was refused. Where the store has no room for it, it is said when the device is refused again.
    pub(super) async fn tell(&self, store: &impl Store, kind: &str, id: DeviceId, reason: &str) {
        let text = format!("{kind}{id}: {reason}");
        let Some(change) = self.note(id, cut(&text)) else {
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
    use xen_pv_sys::DomainId;

    fn device(handle: u32) -> DeviceId {
        DeviceId { frontend: DomainId(3), handle }
    }

    #[test]
    fn the_oldest_gives_way_and_is_counted() {
        let errors = Errors::default();
        for number in 0..16 {
            let change = errors.note(device(number), "no bridge");
            assert_eq!(change, Some(Change { number, text: "no bridge".into(), gone: None, removed: None }));
        }
        assert_eq!(errors.note(device(3), "no bridge"), None, "said already");
        // Another text of one device is the newest, and takes the place of its first.
        let change = errors.note(device(0), "no memory").expect("news");
        assert_eq!((change.number, change.gone, change.removed), (16, Some(0), None));
        for (number, gone, removed) in [(17, 1, 1), (18, 2, 2)] {
            let change = errors.note(device(number), "no bridge").expect("news");
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

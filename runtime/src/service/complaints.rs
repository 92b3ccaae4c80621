//! What is wrong with the domain as a whole, for the administrator: `data/error` and the log. Safe code only. Floor 2.

use super::write_node;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::store::{Store, StoreError, Transaction};
use split_driver::xenstore_client::Client;

/// The node that says what is wrong; there is none where nothing is.
const NODE: &str = "data/error";

/// One text a topic. All of them are in `data/error`, joined, until each is retracted.
pub struct Complaints {
    store: Client,
    texts: RefCell<BTreeMap<&'static str, String>>,
}

impl Complaints {
    pub(super) fn new(store: Client) -> Self {
        Self { store, texts: RefCell::default() }
    }

    /// Says what is wrong with a topic, in place of what was said of it before.
    pub async fn complain(&self, topic: &'static str, text: &str) {
        if self.texts.borrow().get(topic).is_some_and(|known| known == text) {
            return;
        }
        log::error!("{text}");
        self.texts.borrow_mut().insert(topic, text.into());
        self.write().await;
    }

    /// What was wrong with a topic is no longer.
    pub async fn retract(&self, topic: &'static str) {
        if self.texts.borrow_mut().remove(topic).is_some() {
            self.write().await;
        }
    }

    async fn write(&self) {
        let text = joined(&self.texts.borrow());
        if !text.is_empty() {
            return write_node(&self.store, NODE, &text).await;
        }
        match self.store.remove(Transaction::NONE, NODE).await {
            Ok(()) | Err(StoreError::Closed | StoreError::NotFound) => {}
            Err(error) => log::warn!("{NODE} not removed: {error:?}"),
        }
    }
}

fn joined(texts: &BTreeMap<&'static str, String>) -> String {
    texts.values().map(String::as_str).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_topics_are_said() {
        let mut texts = BTreeMap::new();
        assert_eq!(joined(&texts), "");
        texts.insert("nic", String::from("no NIC"));
        texts.insert("command line", String::from("unknown word"));
        assert_eq!(joined(&texts), "unknown word; no NIC");
    }
}

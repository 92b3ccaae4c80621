//! What is wrong with the domain as a whole, for the administrator: `data/error` and the log. Safe code only. Floor 2.

use super::write_node;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
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

    /// Forgets what an earlier life complained of.
    pub(super) async fn begin_anew(&self) {
        self.write().await;
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
            Err(error) => log::warn!("{NODE} not removed: {error}"),
        }
    }
}

/// Bytes of [`NODE`], at most: a store takes 2,048 of a node (xenstored's `node-size`), less what it keeps beside.
const NODE_BYTES: usize = 1800;

/// All texts; where they are too long together, each has its share.
fn joined(texts: &BTreeMap<&'static str, String>) -> String {
    const BETWEEN: &str = "; ";
    let share = NODE_BYTES / texts.len().max(1) - BETWEEN.len();
    let long = texts.values().map(|text| text.len() + BETWEEN.len()).sum::<usize>() > NODE_BYTES;
    let cut = |text: &String| match long {
        true => text.get(..text.floor_char_boundary(share)).unwrap_or_default().to_string(),
        false => text.clone(),
    };
    texts.values().map(cut).collect::<Vec<_>>().join(BETWEEN)
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

    #[test]
    fn long_texts_fit_into_the_node() {
        let texts = [("a", 100), ("b", 5000), ("c", 3000)].map(|(topic, length)| (topic, topic.repeat(length)));
        let text = joined(&BTreeMap::from(texts));
        assert!(text.len() <= NODE_BYTES, "{}", text.len());
        assert!(["a", "b", "c"].iter().all(|topic| text.contains(&topic.repeat(100))), "{text}");
    }
}

//! What dom0's tool asks for: a new life, another image. Safe code only. Floor 2.
//!
//! Guests are served while an image comes. What it takes beside them is memory: a page for each page that differs from the running image's.

use crate::restart::{self, Cause, Recovered, ReplaceError, Staging};
use crate::time;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;
use split_driver::control::{Act, Ended, Image, Outcome, REQUEST, Receiver, Successor};
use split_driver::store::{Store, StoreError, Watch};
use split_driver::xenstore_client::Client;

/// How long the next piece of an image may take; then its memory is given back.
const PATIENCE: Duration = Duration::from_secs(30);

impl Successor for Staging {
    fn begin(size: usize) -> Result<Self, String> {
        Self::new(size).map_err(refusal)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.add(bytes).map_err(refusal)
    }
}

fn refusal(error: ReplaceError) -> String {
    format!("the image cannot take over: {error}")
}

/// How the last life ended.
pub(super) fn ended(recovered: &Recovered) -> Ended {
    match recovered.cause() {
        Cause::Asked => Ended::Asked,
        Cause::Replaced => Ended::Replaced,
        Cause::GivenUp => Ended::GivenUp(recovered.report()),
        Cause::Failure => Ended::Failed(recovered.report()),
    }
}

/// Serves dom0's requests for good; says to each why not, where this image is not `able` to. Begins with the answer that the last life left to
/// this one.
pub(super) async fn run(store: Client, able: Result<(), String>, outcome: Option<Outcome>) {
    let own = restart::own_identity();
    let own = Image { name: own.name.to_string(), version: own.version.to_string() };
    let mut watch = match store.watch(REQUEST).await {
        Ok(watch) => watch,
        Err(error) => return log::error!("{REQUEST} cannot be watched: {error}; dom0's `oxidom` is not answered"),
    };
    let mut receiver: Receiver<Client, Staging> = Receiver::new(store, own, able);
    let mut result = receiver.begin(outcome).await;
    while result != Err(StoreError::Closed) {
        if let Err(error) = result {
            log::warn!("{REQUEST}: {error}");
        }
        if !receiver.is_receiving() {
            watch.next().await;
        } else if time::timeout(PATIENCE, watch.next()).await.is_err() {
            result = receiver.give_up().await;
            continue;
        }
        let act = receiver.look().await;
        let reason = match act {
            Ok(None) => {
                result = Ok(());
                continue;
            }
            Err(error) => {
                result = Err(error);
                continue;
            }
            Ok(Some(Act::Restart)) => restart::again(format_args!("a new life, as dom0 asked")).to_string(),
            Ok(Some(Act::Enter(image, words))) => {
                refusal(image.enter(format_args!("another image, as dom0 asked"), words.as_deref()))
            }
        };
        result = receiver.refuse(receiver.answered(), &reason).await;
    }
}

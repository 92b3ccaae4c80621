//! A device that is not served: whose fault that is, where the reason is said, and when it is tried again. Pure over the store's trait.
//! Floor 1.

use alloc::format;
use alloc::string::ToString;
use core::fmt::Display;

use log::Level;
use xen_pv_sys::io::xenbus::XenbusState;

use super::{Backend, End, Phase, Seen, Session, Store, StoreError, Timer, Transaction};
use crate::time::{Duration, Instant};

/// Who has to do something about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The frontend broke the protocol.
    Frontend,
    /// The toolstack, or this domain: its memory, say.
    Host,
    /// The store has no room: looked at again until it has.
    NoRoom,
}

/// A device is not served, till the frontend begins anew: is `Initialising` after having been something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) fault: Fault,
    pub(super) since: Instant,
    pub(super) was_elsewhere: bool,
}

/// How often a device for which the store had no room is looked at.
pub(super) const ROOM_INTERVAL: Duration = Duration::from_secs(5);

/// The store does not let us serve a device.
pub(super) struct StoreRefusal(pub(super) StoreError);

impl Display for StoreRefusal {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            StoreError::Quota => formatter.write_str(
                "the store lets the driver domain have no more nodes or watches (xenstored: 1000 and 128 by default): \
                 raise that quota, see \"Many devices\" in the README",
            ),
            error => write!(formatter, "store: {error}"),
        }
    }
}

impl<S: Store, T: Timer, B: Backend> Session<'_, S, T, B> {
    /// This device is over until its frontend begins anew; says why. What is said already is not said again.
    pub(super) async fn refuse(&mut self, fault: Fault, reason: &dyn Display) {
        let since = self.context.timer.now();
        if fault == Fault::Frontend && matches!(self.phase, Phase::InitWait | Phase::Connected) {
            self.violations.handle_violation(since);
        }
        self.disconnect();
        // By the next look it may have begun anew already.
        let was_elsewhere = self.frontend_state != XenbusState::Initialising;
        self.refusal = Some(Refusal { fault, since, was_elsewhere });
        let reason = reason.to_string();
        if self.told.as_ref() == Some(&reason) {
            return;
        }
        self.say(Level::Warn, &reason);
        self.error_written = true;
        let store = &self.context.store;
        let state_path = format!("{}/state", self.path);
        let here = format!("{}/error", self.path);
        // One node of a directory that is there, and that nobody but the toolstack can make again: no transaction is needed.
        let written = match store.read(Transaction::NONE, &state_path).await {
            Ok(_) => self.write_in_any_room(&here, &reason).await,
            Err(error) => Err(error),
        };
        let elsewhere = format!("error/{}/error", self.path);
        let elsewhere = store.write(Transaction::NONE, &elsewhere, reason.as_bytes()).await;
        let of_frontend = fault == Fault::Frontend;
        self.context.errors.tell(store, self.context.backend.kind(), self.id, &reason, of_frontend).await;
        match (written, elsewhere) {
            (Ok(()), Ok(())) => self.told = Some(reason),
            (Err(error), _) | (_, Err(error)) => {
                self.say(Level::Warn, &format_args!("the reason could not be written: {error}"));
            }
        }
    }

    /// Writes a node of our directory; where we may have no more nodes, in place of one that nobody needs when the device is refused.
    async fn write_in_any_room(&self, path: &str, value: &str) -> Result<(), StoreError> {
        let store = &self.context.store;
        let none = Transaction::NONE;
        match store.write(none, path, value.as_bytes()).await {
            Err(StoreError::Quota) => {
                store.remove(none, &format!("{}/hotplug-status", self.path)).await?;
                store.write(none, path, value.as_bytes()).await
            }
            other => other,
        }
    }

    /// Removes the `error` nodes outside the device's own directory.
    pub(super) async fn forget_error(&mut self) {
        self.told = None;
        if !core::mem::take(&mut self.error_written) {
            return;
        }
        let store = &self.context.store;
        let none = Transaction::NONE;
        let mut path = format!("error/{}", self.path);
        let _ = store.remove(none, &path).await;
        // And what was made above it, as far as it is empty.
        while let Some((above, _)) = path.rsplit_once('/')
            && above != "error"
            && store.directory(none, above).await.is_ok_and(|names| names.is_empty())
        {
            let _ = store.remove(none, above).await;
            path = above.into();
        }
    }

    /// A refusal ends when the frontend begins anew.
    pub(super) fn note_frontend(&mut self, frontend: XenbusState) {
        self.frontend_state = frontend;
        if let Some(refusal) = &mut self.refusal {
            if frontend != XenbusState::Initialising {
                refusal.was_elsewhere = true;
            } else if refusal.was_elsewhere && self.phase == Phase::Closed {
                self.refusal = None;
            }
        }
    }

    /// Whose fault an error of a connected device, or one about to be, is.
    pub(super) fn fault(&self, error: &B::Error) -> Fault {
        if self.context.backend.is_violation(error) { Fault::Frontend } else { Fault::Host }
    }

    /// Whether a device that was refused for want of room is to be tried again: its frontend has not come yet, and nobody but us can
    /// tell when there is room.
    pub(super) fn may_have_room(&self, seen: Seen) -> bool {
        let watched = self.frontend.as_ref().is_some_and(|frontend| frontend.watch.is_some());
        let due = |refusal: Refusal| {
            refusal.fault == Fault::NoRoom
                && !refusal.was_elsewhere
                && self.context.timer.now().since(refusal.since) >= ROOM_INTERVAL
        };
        let here = (self.phase, seen.frontend) == (Phase::Closing, XenbusState::Initialising);
        here && !seen.removing && watched && self.refusal.is_some_and(due)
    }

    /// Offers the device after all. From `Closing`: a frontend that is being probed does not wait for that, but would for `Closed`.
    pub(super) async fn try_room(&mut self) -> Result<(), End> {
        let refusal = self.refusal.take();
        self.phase = Phase::New;
        match self.announce().await {
            Err(End::Store(error)) if error.is_transient() => {
                self.phase = Phase::Closing;
                self.refusal = refusal.map(|refusal| Refusal { since: self.context.timer.now(), ..refusal });
                Ok(())
            }
            other => other,
        }
    }
}

//! The domain's PCI devices, from pcifront to the service. Safe code only. Floor 2.

use super::{Complaints, DriverDomain};
use crate::pci::{Event, Frontend, PciAddress};
use crate::signal::Signal;
use crate::time;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use split_driver::xenstore_client::Client;

/// How long the domain's readiness waits for devices that the toolstack announced.
const PATIENCE: Duration = Duration::from_secs(10);

/// The topics of [`Complaints`].
const TOPIC: &str = "pci";
const LOST: &str = "lost pci devices";

/// How far it has come.
#[derive(Default)]
pub(super) struct Progress {
    /// Set when pciback was told of us. It has much to do then, and all else that is asked of the store waits until it can begin.
    pub(super) asked_for: Signal,
    /// Set when what the toolstack passed to the domain at its creation was looked at.
    pub(super) seen: Signal,
}

/// Follows pcifront for good.
pub(super) async fn run<S: DriverDomain>(
    service: Rc<S>,
    frontend: Option<Frontend<Client>>,
    progress: Rc<Progress>,
    complaints: Rc<Complaints>,
) {
    let frontend = match frontend {
        Some(frontend) => Ok(frontend),
        None => Frontend::new(service.store().clone()).await,
    };
    progress.asked_for.set();
    let mut frontend = match frontend {
        Ok(frontend) => frontend,
        Err(error) => {
            complaints.complain(TOPIC, &format!("pcifront: {error}; going on without devices")).await;
            progress.seen.set();
            return;
        }
    };
    let mut follower = Follower { service: &*service, complaints: &complaints, lost: Vec::new() };
    follower.first(&mut frontend).await;
    progress.seen.set();
    loop {
        let event = frontend.next_event().await;
        if matches!(event, Event::Added(_)) {
            complaints.retract(TOPIC).await;
        }
        follower.handle(event).await;
    }
}

/// Hands the devices on to the service.
struct Follower<'a, S> {
    service: &'a S,
    complaints: &'a Complaints,
    /// Those that this life goes on without, by the host's addresses.
    lost: Vec<PciAddress>,
}

impl<S: DriverDomain> Follower<'_, S> {
    /// Waits for what the toolstack passed to the domain at its creation.
    async fn first(&mut self, frontend: &mut Frontend<Client>) {
        let complaints = self.complaints;
        if !frontend.is_linked() {
            complaints.complain(TOPIC, "no PCI device was passed to this domain (pci=[...])").await;
            return;
        }
        let mut next = if frontend.has_resumed() {
            // It knows the devices of the last life, and pciback may have no more to say.
            frontend.found()
        } else if let Ok(first) = time::timeout(PATIENCE, frontend.next_event()).await {
            Some(first)
        } else {
            let text = format!("pciback said nothing for {PATIENCE:?}: going on without devices");
            complaints.complain(TOPIC, &text).await;
            return;
        };
        while let Some(event) = next {
            self.handle(event).await;
            next = frontend.found();
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Added(device) => {
                let before = self.lost.len();
                self.lost.retain(|host| *host != device.host_address());
                if self.lost.len() < before {
                    self.tell_of_lost().await;
                }
                self.service.device_added(device).await;
            }
            Event::Removed(address) => self.service.device_removed(address).await,
            Event::Lost(host) => {
                self.lost.push(host);
                self.tell_of_lost().await;
            }
            Event::Failed(error) => log::error!("pcifront: {error}"),
        }
    }

    /// Says which devices are lost, until they are there again.
    async fn tell_of_lost(&self) {
        let lost: Vec<String> = self.lost.iter().map(ToString::to_string).collect();
        if lost.is_empty() {
            return self.complaints.retract(LOST).await;
        }
        let text = format!(
            "pci {}: pciback no longer knows it, as where it was unbound in dom0: this domain goes on without it, and without the memory that it \
         could write; create the domain anew to have both again",
            lost.join(", ")
        );
        self.complaints.complain(LOST, &text).await;
    }
}

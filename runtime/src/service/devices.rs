//! The domain's PCI devices, from pcifront to the service. Safe code only. Floor 2.

use super::{Complaints, DriverDomain};
use crate::pci::{Event, Frontend};
use crate::signal::Signal;
use crate::time;
use alloc::format;
use alloc::rc::Rc;
use core::time::Duration;
use split_driver::xenstore_client::Client;

/// How long the domain's readiness waits for devices that the toolstack announced.
const PATIENCE: Duration = Duration::from_secs(10);

/// The topic of [`Complaints`].
const TOPIC: &str = "pci";

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
    first(&*service, &mut frontend, &complaints).await;
    progress.seen.set();
    loop {
        let event = frontend.next_event().await;
        if matches!(event, Event::Added(_)) {
            complaints.retract(TOPIC).await;
        }
        handle(&*service, event).await;
    }
}

/// Waits for what the toolstack passed to the domain at its creation.
async fn first<S: DriverDomain>(service: &S, frontend: &mut Frontend<Client>, complaints: &Complaints) {
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
        handle(service, event).await;
        next = frontend.found();
    }
}

async fn handle<S: DriverDomain>(service: &S, event: Event) {
    match event {
        Event::Added(device) => service.device_added(device).await,
        Event::Removed(address) => service.device_removed(address).await,
        Event::Failed(error) => log::error!("pcifront: {error}"),
    }
}

//! A driver domain's lives: what one that failed leaves to the next, and how that one goes on. Safe code only. Floor 2.
//!
//! Nothing is written down at a life's end: rings, store and pciback know how far it had come, and pages that are kept from life to life
//! ([`crate::memory::KeptFrame`]) know what rings do not. Frontends are served on by xenbus
//! ([`split_driver::xenbus::Bus::adopting`]), devices are stopped and started anew.

use super::Service;
use crate::end::{self, Exit};
use crate::pci::Frontend;
use crate::restart::{self, Policy, Recovered};
use crate::time;
use core::fmt;
use core::time::Duration;
use split_driver::xenstore_client::Client;

/// How long the devices of the last life may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for a new life where this one fails.
pub(super) fn keep() {
    if let Err(error) = restart::keep(1, 1, Policy::default(), |_| Ok(())) {
        log::warn!("a failure ends this domain: no memory for its next life: {error}");
    }
}

/// Goes on in a domain whose last life failed: stops its devices, so that they write to no memory of this life. The connection to pciback.
/// Where they cannot be stopped, the domain crashes: a device that goes on may write to any page.
pub(super) async fn go_on(recovered: &Recovered, store: &Client) -> Frontend<Client> {
    log::error!("life {} after one that failed: {}", recovered.lives(), recovered.report());
    let frontend = match Frontend::new(store.clone()).await {
        Ok(frontend) => frontend,
        Err(error) => crash(format_args!("pcifront does not go on: {error}")),
    };
    match time::timeout(PATIENCE, frontend.stop_inherited()).await {
        Ok(Some(())) => {}
        Ok(None) | Err(_) => crash(format_args!("a device of the last life may still write to memory")),
    }
    recovered.devices_stopped();
    frontend
}

fn crash(reason: fmt::Arguments<'_>) -> ! {
    log::error!("{reason}: no life can go on from here");
    end::exit(Exit::Crash)
}

/// Takes over once all frontends of the last life are served on.
pub(super) async fn take_over<S: Service>(service: &S, mut recovered: Recovered) {
    service.adopted().await;
    let life = recovered.lives();
    let (away, ran) = recovered.taken_over();
    log::info!("life {life} has taken over, {away:?} after the last one ended; the domain ran {ran:?} of that");
}

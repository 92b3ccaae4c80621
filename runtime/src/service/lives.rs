//! A driver domain's lives: what one that failed leaves to the next, and how that one goes on. Safe code only. Floor 2.
//!
//! Nothing is written down: rings, store and pciback know how far the last life had come. Frontends are served on by xenbus
//! ([`split_driver::xenbus::Bus::adopting`]), devices are stopped and started anew.

use super::{Service, control};
use crate::end::{self, Exit};
use crate::pci::Frontend;
use crate::restart::{self, Cause, Policy, Recovered};
use crate::time;
use core::fmt;
use core::time::Duration;
use split_driver::control::{Outcome, Pause};
use split_driver::xenstore_client::Client;

/// How long the devices of the last life may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for a new life where this one fails.
pub(super) fn keep() {
    if let Err(error) = restart::keep(1, 1, Policy::default(), |_| Ok(())) {
        log::warn!("a failure ends this domain: no memory for its next life: {error}");
    }
}

/// Goes on in a domain whose last life ended: stops its devices, so that they write to no memory of this life. The connection to pciback.
/// Where they cannot be stopped, the domain crashes: a device that goes on may write to any page.
pub(super) async fn go_on(recovered: &Recovered, store: &Client) -> Frontend<Client> {
    let (life, report) = (recovered.lives(), recovered.report());
    match recovered.cause() {
        Cause::Failure => log::error!("life {life} after one that failed: {report}"),
        Cause::Asked | Cause::Replaced => log::info!("life {life}: {report}"),
        Cause::GivenUp => {
            log::error!("life {life}, of the old image again, as the new one did not take over: {report}")
        }
    }
    let crash = |reason: fmt::Arguments<'_>| -> ! {
        // Comes back where there is no old image.
        recovered.give_up(reason);
        log::error!("{reason}: no life can go on from here");
        end::exit(Exit::Crash)
    };
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

/// Takes over once all frontends of the last life are served on. Gives what dom0 is told, where it asked for this life.
pub(super) async fn take_over<S: Service>(service: &S, mut recovered: Recovered) -> Outcome {
    service.adopted().await;
    let (life, ended, exchanged) = (recovered.lives(), control::ended(&recovered), recovered.exchanged());
    let (away, ran) = recovered.taken_over();
    log::info!("life {life} has taken over, {away:?} after the last one ended; the domain ran {ran:?} of that");
    Outcome { life, ended, pause: Pause { whole: away, own: ran }, exchanged }
}

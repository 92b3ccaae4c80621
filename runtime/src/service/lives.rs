//! A driver domain's lives: what one that failed leaves to the next, and how that one goes on. Safe code only. Floor 2.
//!
//! Rings, store and pciback know how far the last life had come, and pages that are kept from life to life ([`crate::memory::KeptFrame`]) know
//! what rings do not. What would take long to ask for again is in the recovery box, in parts ([`crate::restart::Part`]): frontends are served on
//! by xenbus ([`split_driver::xenbus::Bus::adopting`]), devices are stopped and started anew.

use super::{DriverDomain, Service, control};
use crate::end::{self, Exit};
use crate::pci::{Frontend, kept};
use crate::restart::{self, Cause, Part, Parts, Recovered};
use crate::time;
use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;
use split_driver::control::{Outcome, Pause};
use split_driver::memory::OutOfMemory;
use split_driver::xenstore_client::Client;
use xen_pv_sys::PAGE_SIZE;

/// How long the devices of the last life may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pages of the box, at least, and of its room the share that is spare when it is made.
const BOX_PAGES: usize = 2;
const SPARE: usize = 2;
/// How often it is looked at whether the box is large enough.
const INTERVAL: Duration = Duration::from_secs(1);

/// Asks for a new life where this one fails, and makes the box larger when the state grows, for good. A state that does not fit is left out
/// part by part, and the next life asks the store for it.
pub(super) async fn keep<S: Service>(service: Rc<S>) {
    let mut pages = 0;
    loop {
        let length = service.state_length() + kept::length();
        if pages * PAGE_SIZE < length {
            let wanted = (length + length / SPARE).div_ceil(PAGE_SIZE) + BOX_PAGES;
            match make_box(&service, pages.max(1), wanted.max(pages)) {
                Ok(made) => pages = made,
                Err(error) if pages == 0 => {
                    log::warn!("a failure ends this domain: no memory for its next life: {error}");
                    pages = 1;
                }
                Err(error) => log::debug!("the box stays at {pages} pages: {error}"),
            }
        }
        time::sleep(INTERVAL).await;
    }
}

fn make_box<S: Service>(service: &Rc<S>, least: usize, pages: usize) -> Result<usize, OutOfMemory> {
    let own = Rc::clone(service);
    restart::keep(least, pages, S::POLICY, move |out| {
        out.part(Part::Devices, kept::write);
        own.write_state(out);
        Ok(())
    })
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
    let written = Parts::new(recovered.bytes()).get(Part::Devices);
    let frontend = match written.and_then(|bytes| Frontend::resume(store.clone(), bytes)) {
        Some(frontend) => frontend,
        None => match Frontend::new(store.clone()).await {
            Ok(frontend) => frontend,
            Err(error) => crash(format_args!("pcifront does not go on: {error}")),
        },
    };
    match time::timeout(PATIENCE, frontend.stop_inherited()).await {
        Ok(Some(())) => {}
        Ok(None) | Err(_) => crash(format_args!("a device of the last life may still write to memory")),
    }
    recovered.devices_stopped();
    frontend
}

/// Takes over once all frontends of the last life are served on. Gives what dom0 is told, where it asked for this life.
pub(super) async fn take_over<S: DriverDomain>(service: &S, mut recovered: Recovered) -> Outcome {
    service.adopted().await;
    let (life, ended, exchanged) = (recovered.lives(), control::ended(&recovered), recovered.exchanged());
    let (away, ran) = recovered.taken_over();
    log::info!("life {life} has taken over, {away:?} after the last one ended; the domain ran {ran:?} of that");
    Outcome { life, ended, pause: Pause { whole: away, own: ran }, exchanged }
}

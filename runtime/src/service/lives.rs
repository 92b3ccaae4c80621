//! A domain's lives: what one that failed leaves to the next, and how that one goes on. Safe code only. Floor 2.
//!
//! Rings, store and pciback know how far the last life had come, and pages that are kept from life to life ([`crate::memory::KeptFrame`]) know
//! what rings do not. What would take long to ask for again is in the recovery box, in parts ([`crate::restart::Part`]): frontends are served on
//! by xenbus ([`split_driver::xenbus::Bus::adopting`]), devices are stopped and started anew.

use super::{DriverDomain, Service, control};
use crate::end::{self, Exit};
use crate::pci::{Frontend, PciError, kept};
use crate::restart::{self, BoxWriter, Cause, Part, Parts, Recovered};
use crate::time;
use alloc::rc::Rc;
use core::time::Duration;
use core::{fmt, mem};
use split_driver::control::{Outcome, Pause};
use split_driver::xenstore_client::Client;
use xen_pv_sys::PAGE_SIZE;

/// How long the devices of the last life may take to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of the state's length, the share by which the box is longer when it is made.
const SPARE: usize = 4;

/// The box of the next life.
pub(super) struct Room {
    /// Writes what the image does not know of.
    write_more: fn(&mut BoxWriter),
    /// What does not fit may be left out, as the state is in parts.
    in_parts: bool,
    pages: usize,
    /// The log was told that the state does not fit.
    told: bool,
}

impl Room {
    /// Of an image with devices: those that pcifront has are written, too.
    pub(super) const fn with_devices() -> Self {
        Self { write_more: |out| out.part(Part::Devices, kept::write), in_parts: true, pages: 0, told: false }
    }

    /// Of an image that has none.
    pub(super) const fn plain() -> Self {
        Self { write_more: |_| (), in_parts: false, pages: 0, told: false }
    }

    /// Asks for a new life where this one fails, and makes the box larger where the state may not fit; whether there is one. A driver domain's
    /// state that does not fit is left out part by part, and the next life asks the store for it.
    pub(super) fn make<S: Service>(&mut self, service: &Rc<S>) -> bool {
        let length = service.state_length() + kept::length();
        let least = (length + length / (2 * SPARE)).max(1);
        if self.pages * PAGE_SIZE >= least {
            self.told = false;
            return true;
        }
        let pages = (length + length / SPARE).div_ceil(PAGE_SIZE) + S::SPARE_PAGES;
        let least = if self.in_parts { self.pages.max(1) } else { least.div_ceil(PAGE_SIZE) };
        let (own, write_more) = (Rc::clone(service), self.write_more);
        let made = restart::keep(least, pages.max(least), S::POLICY, move |out| {
            write_more(out);
            own.write_state(out)
        });
        match made {
            Ok(made) => (self.pages, self.told) = (made, false),
            Err(error) => {
                let room = self.pages * PAGE_SIZE;
                match (mem::replace(&mut self.told, true), room) {
                    (true, _) => {}
                    (false, 0) => log::error!("a failure ends this domain: no memory for its next life: {error}"),
                    (false, _) => {
                        log::warn!("{length} bytes are to be kept for the next life, and {room} can be: {error}");
                    }
                }
            }
        }
        self.pages > 0
    }
}

/// Makes room for the state whenever it has grown, for good.
pub(super) async fn keep<S: Service>(service: Rc<S>, mut room: Room) {
    loop {
        room.make(&service);
        service.grown().await;
    }
}

/// Goes on in a domain whose last life ended: stops its devices, so that they write to no memory of this life. The connection to pciback.
/// One that pciback does not know is given up, with the memory that it had. Where others cannot be stopped, the domain crashes: a device that goes
/// on may write to any page.
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
    let resumed = written.and_then(|bytes| Frontend::resume(store.clone(), bytes));
    let stopped = time::timeout(PATIENCE, async {
        let mut frontend = match resumed {
            Some(frontend) => frontend,
            None => Frontend::new(store.clone()).await?,
        };
        frontend.stop_inherited().await;
        Ok::<_, PciError>(frontend)
    });
    let frontend = match stopped.await {
        Ok(Ok(frontend)) => frontend,
        Err(_) => crash(format_args!("the devices of the last life were not stopped in {PATIENCE:?}")),
        Ok(Err(error)) => crash(format_args!("pcifront does not go on: {error}")),
    };
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

//! What an image says of itself: what every image has, what those with frontends and PCI devices have besides, and what one without a store has.
//! Safe code only. Floor 2.

use super::{Complaints, Options, Wait};
use crate::events::EventSet;
use crate::pci::{Device, PciAddress};
use crate::restart::{BoxWriter, Parts, Policy, Recovered, Unwritten};
use crate::signal::Signal;
use crate::time;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::time::Duration;
use split_driver::xenstore_client::Client;
use xen_pv_sys::Port;

/// An image. Its methods take turns on one vCPU: none keeps a borrow across an `await`.
pub trait Service: Sized + 'static {
    /// Its commands on the console, for `help`: a line each.
    const HELP: &'static str;

    /// How often it goes on in a new life where one fails.
    const POLICY: Policy = if cfg!(feature = "faults") {
        Policy { in_a_row: 32, settled_after: Duration::from_millis(50) }
    } else {
        Policy { in_a_row: 5, settled_after: Duration::from_secs(10) }
    };

    /// What the words of the command line ask for that only this image knows.
    type Words: Default;

    /// Obeys a word `name=value`, or `--name value` of a domain's builder; false where it is none of this image's.
    ///
    /// # Errors
    /// What is wrong with the value: a driver domain does not start.
    fn word(words: &mut Self::Words, name: &str, value: &str) -> Result<bool, String>;

    /// Pages of the box of the next life that are spare, beside a share of what is to be written.
    const SPARE_PAGES: usize = 2;

    /// Bytes that [`write_state`](Self::write_state) writes at most, about.
    fn state_length(&self) -> usize;

    /// Waits until the box may be too small for the state.
    fn grown(&self) -> impl Future<Output = ()> {
        const INTERVAL: Duration = Duration::from_secs(1);
        time::sleep(INTERVAL)
    }

    /// Writes what the next life begins from, without allocating. It is called when a life ends, wherever that was: what is borrowed then may
    /// be half-changed, and is left out.
    ///
    /// # Errors
    /// [`Unwritten`], where no life can begin from what there is.
    fn write_state(&self, out: &mut BoxWriter) -> Result<(), Unwritten>;

    /// Waits until it can be used, and says what it is ready with.
    fn ready(&self) -> impl Future<Output = String>;

    /// A line for each thing that counts, by a path in the store: that of a device is `vif/3/0`, as its backend's.
    fn statistics(&self) -> Vec<(String, String)>;

    /// What it has on loan beside what every domain has, as `name value` pairs with commas.
    fn resources(&self) -> String;

    /// Requests that it has with the store, and watches.
    fn requests(&self) -> (usize, usize) {
        (0, 0)
    }

    /// A command on the console; false where there is no such command.
    fn command(self: &Rc<Self>, words: &[&str]) -> bool;
}

/// An image that serves frontends, with PCI devices behind them. [`ready`](Service::ready) is asked when all devices of the domain's creation were
/// added.
pub trait DriverDomain: Service {
    /// Begins; in a domain that lived before from `inherited`, what [`write_state`](Service::write_state) wrote in the last life.
    ///
    /// # Errors
    /// Why nothing can be served. The administrator reads it in the log and in `data/error`; the domain waits for its end.
    fn new(
        store: Client,
        complaints: Rc<Complaints>,
        options: Options,
        words: Self::Words,
        inherited: Option<Parts<'_>>,
    ) -> Result<Self, String>;

    /// Its store.
    fn store(&self) -> &Client;

    /// Where the events of its frontends and devices arrive.
    fn events(&self) -> EventSet;

    /// Set by whoever gave [`round`](Self::round) something to do.
    fn work(&self) -> &Signal;

    /// A round of the data path: takes the ports whose events arrived, and says what to wait for.
    fn round(&self, ports: &mut Vec<Port>) -> Wait;

    /// Serves frontends for good. Begins when pciback knows of the domain, which then has much to do.
    fn serve(self: Rc<Self>) -> impl Future<Output = ()>;

    /// Waits until the frontends that the last life had connected are served on, in a domain that lived before.
    fn adopted(&self) -> impl Future<Output = ()>;

    /// `xl` passed a device to the domain, at its creation or later.
    fn device_added(&self, device: Device) -> impl Future<Output = ()>;

    /// `xl` takes a device away.
    fn device_removed(&self, address: PciAddress) -> impl Future<Output = ()>;

    /// Quiets what it uses, for the domain's end.
    fn stop(&self) -> impl Future<Output = ()>;
}

/// An image that is the client of no store, as it is the store: nobody asks it to end, and it begins whatever is wrong with its command line.
pub trait Standalone: Service {
    /// Begins; in a domain that lived before from `recovered`.
    ///
    /// # Errors
    /// Why nothing can be served: the domain crashes, or the old image goes on.
    fn new(options: Options, words: Self::Words, recovered: Option<&Recovered>) -> Result<Self, String>;

    /// This life goes on where the last one ended: nobody was served for `pause`, of which the domain ran for `own`.
    fn taken_over(&self, recovered: &Recovered, pause: Duration, own: Duration);

    /// Serves for good.
    fn serve(self: Rc<Self>) -> impl Future<Output = ()>;
}

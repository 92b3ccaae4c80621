//! A controller with commands of a life that has ended: once it is halted, none of them is carried out, and the next life's driver starts it. Host.

use super::random::Tried;
use super::{Bench, WRITE};
use blkdom::disk::halt::Halt;
use blkdom::disk::{Disk as _, Operation};
use devices::fake::Device;
use split_driver::fakes::FakeXen;
use split_driver::memory::PageArray;

/// Registers of a controller are read so often while its reset is waited for.
const LOOKS: usize = 1000;

fn bench<M: Tried>(xen: &FakeXen, device: &Device<M>) -> Bench<M, M::Driver> {
    let make = |device: &Device<M>| Ok::<_, ()>(M::driver(device));
    Bench::new(xen, device, make).expect("taken").ready()
}

/// Commands that were read and not carried out, and one that was not even read, are forgotten.
pub(crate) fn what_was_asked_before_is_not_done<M: Tried>(model: M, halt: Halt) {
    let xen = FakeXen::new();
    let device = Device::new(&xen, model);
    let mut old = bench(&xen, &device);
    assert!(old.pages.write(0, 0, &[0x77; 512]));
    let data = old.data(0, 512);
    device.with_model(|model| model.be_lazy(true));
    for sector in [3, 4] {
        old.submit(WRITE, sector, 1, &data).expect("taken");
        old.disk.ring();
        old.poll();
    }
    let (before, waiting) = device.with_model(|model| (model.held(), model.pending()));
    assert!(waiting > 0, "the controller has commands");
    let _patience = halt.begin(&device);
    assert!((0..LOOKS).any(|_| halt.is_over(&device)), "it does not halt");
    for place in (0..4).rev() {
        device.with_model(|model| model.execute(place));
    }
    device.with_model(|model| model.be_lazy(false));
    assert!(
        device.with_model(|model| (model.held(), model.pending())) == (before, 0),
        "it did what it was asked before"
    );
    // The life ended: nothing was quieted, and nothing of it is used.
    core::mem::forget(old);
    let mut new = bench(&xen, &device);
    assert!(new.pages.write(0, 0, &[0x55; 512]));
    assert_eq!((new.execute(WRITE, 4, 1), new.execute(Operation::Read, 3, 1)), (Ok(()), Ok(())));
    let held = device.with_model(|model| model.held());
    assert!(held[3 * 512..4 * 512] == [0; 512] && held[4 * 512..5 * 512] == [0x55; 512]);
}

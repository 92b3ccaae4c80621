//! blkback on a host: a guest writes to a volume and reads it back, with fakes in place of Xen and of a drive. Host.
//!
//!     cargo run -p blkdom --example blkback --no-default-features --features fakes

use blkdom::datapath::DataPath;
use blkdom::disk::UnitId;
use blkdom::fakes::{FakeDisk, Frontend, Setup, geometry};
use blkdom::volume::{UnitRef, Volume};
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::time::{Duration, Instant};
use xen_pv_sys::io::blkif::{BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_RSP_OKAY};

/// Sectors of 512 bytes.
const SECTORS: u64 = 4096;

fn main() {
    let xen = FakeXen::new();
    let mut blkback = DataPath::new(xen.clone(), Box::new(FakePages::new(&xen, 1024)));
    let geometry = geometry(SECTORS, 512);
    let (disk, drive) = FakeDisk::new(&xen, &[geometry]);
    blkback.add_disk(Box::new(disk));

    // A guest, whose volume begins at sector 8 of the drive.
    let mut guest = Frontend::new(&xen, 1, Setup::default());
    let unit = UnitRef { controller: 0, unit: UnitId(0) };
    let volume = Volume::linear(unit, 8, SECTORS - 8);
    blkback.attach(guest.config(volume, geometry)).expect("the vbd's rings are sound");

    // Its first page goes to the volume's beginning, and comes back into its second one.
    guest.write(0, b"written by a guest");
    let mut now = Instant(0);
    for (id, operation, page) in [(1, BLKIF_OP_WRITE, 0), (2, BLKIF_OP_READ, 1)] {
        assert!(guest.transfer(0, id, operation, 0, (page, 8)));
        guest.publish(0);
        loop {
            while let Some(port) = xen.next_event() {
                blkback.handle_event(port, now);
            }
            if !blkback.poll(now).again {
                break;
            }
            now = now + Duration::from_micros(10);
        }
        let responses = guest.responses(0);
        assert!(responses.iter().map(|response| (response.id, response.status)).eq([(id, BLKIF_RSP_OKAY)]));
    }

    assert_eq!(guest.read(1, 18), b"written by a guest");
    assert!(drive.borrow().contents(UnitId(0)).get(8 * 512..).is_some_and(|bytes| bytes.starts_with(b"written")));
    println!("what the guest wrote is on the drive, and came back");
}

#[cfg(test)]
#[test]
fn it_runs() {
    main();
}

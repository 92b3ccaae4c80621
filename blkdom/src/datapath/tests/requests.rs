//! Each operation, as a well-behaved guest asks for it.

use super::{SECTORS, World, pattern};
use crate::blkback::request::Abi;
use crate::fakes::Setup;
use crate::fakes::frontend::Response;
use alloc::vec::Vec;
use xen_pv_sys::io::blkif::{BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_READ, BLKIF_OP_WRITE};

fn setups() -> impl Iterator<Item = Setup> {
    let abis = [Abi::X86_64, Abi::X86_32].into_iter();
    abis.flat_map(|abi| [false, true].map(|persistent| Setup { abi, persistent, ..Setup::default() }))
}

#[test]
fn what_is_written_is_read() {
    for setup in setups() {
        let mut world = World::new(&[setup, setup]);
        for (number, sectors) in [1, 8, 9, 88, 89, 256, 2048].into_iter().enumerate() {
            let bytes = pattern(number as u64, sectors * 512);
            world.guests[1].write(0, &bytes);
            assert!(world.guests[1].transfer(0, 7, BLKIF_OP_WRITE, 100, (0, sectors)));
            assert_eq!(world.ask(1), [Response { id: 7, operation: BLKIF_OP_WRITE, status: 0 }]);
            assert_eq!(world.contents(1, 100, bytes.len()), bytes, "{sectors} sectors");
            assert!(world.guests[1].transfer(0, 8, BLKIF_OP_READ, 100, (256, sectors)));
            assert_eq!(world.ask(1), [Response { id: 8, operation: BLKIF_OP_READ, status: 0 }]);
            assert_eq!(world.guests[1].read(256, bytes.len()), bytes, "{sectors} sectors");
        }
        assert!(world.guests[1].queues[0].flush(9));
        assert_eq!(world.ask(1), [Response { id: 9, operation: BLKIF_OP_FLUSH_DISKCACHE, status: 0 }]);
        // The neighbour's sectors are as they were.
        assert!(world.contents(0, 0, SECTORS as usize * 512).iter().all(|byte| *byte == 0));
        let statistics = world.path.vbd_statistics(world.ids[1]).unwrap();
        let sectors: Vec<u64> = alloc::vec![1, 8, 9, 88, 89, 256, 2048];
        assert_eq!((statistics.reads, statistics.sectors_read), (7, sectors.iter().sum()));
        assert_eq!((statistics.writes, statistics.sectors_written), (7, sectors.iter().sum()));
        assert_eq!((statistics.flushes, statistics.failures), (1, [0; 6]));
        assert_eq!(world.xen.device_map_calls() > 0, setup.persistent);
        world.end();
    }
}

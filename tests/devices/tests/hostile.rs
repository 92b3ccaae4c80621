//! Each driver with a device that answers nonsense, see [`devices::hostile`]. Host.

use devices::ahci::Ahci;
use devices::e1000e::E1000e;
use devices::hostile::{Disks, Nics, run};
use devices::igb::Igb;
use devices::ixgbe::Ixgbe;
use devices::nvme::Nvme;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_nvme_controller_may_do_anything(input in proptest::collection::vec(any::<u8>(), 1..400)) {
        run::<Disks<Nvme>>(&input, &mut Vec::new());
    }

    #[test]
    fn an_ahci_adapter_may_do_anything(input in proptest::collection::vec(any::<u8>(), 1..400)) {
        run::<Disks<Ahci>>(&input, &mut Vec::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_ixgbe_may_do_anything(input in proptest::collection::vec(any::<u8>(), 1..400)) {
        run::<Nics<Ixgbe>>(&input, &mut Vec::new());
    }

    #[test]
    fn an_igb_may_do_anything(input in proptest::collection::vec(any::<u8>(), 1..400)) {
        run::<Nics<Igb>>(&input, &mut Vec::new());
    }

    #[test]
    fn an_e1000e_may_do_anything(input in proptest::collection::vec(any::<u8>(), 1..400)) {
        run::<Nics<E1000e>>(&input, &mut Vec::new());
    }
}

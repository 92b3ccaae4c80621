//! Each driver with a device that answers nonsense, see [`devices::hostile`]. Host.

use devices::ahci::Ahci;
use devices::hostile::{Disks, run};
use devices::nvme::Nvme;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_nvme_controller_may_do_anything(input in proptest::collection::vec(any::<u8>(), 1..400)) {
        run::<Disks<Nvme>>(&input, &mut Vec::new());
    }

    #[test]
    fn an_ahci_adapter_may_do_anything(input in proptest::collection::vec(any::<u8>(), 1..400)) {
        run::<Disks<Ahci>>(&input, &mut Vec::new());
    }
}

//! A device that does anything at all, between calls of the driver in any order: see [`super::model::hostile`].

use super::model::hostile;
use alloc::vec::Vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_device_may_do_anything(input in proptest::collection::vec(any::<u8>(), 1..400)) {
        hostile::run(&input, &mut Vec::new());
    }
}

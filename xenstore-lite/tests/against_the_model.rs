//! Random scripts of several domains, against the naive model: each answer, each event, each domain's accounts, and the state.

use proptest::prelude::*;
use xenstore_lite::differential::{Pair, script};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_as_the_model(input in prop::collection::vec(any::<u8>(), 0..800)) {
        let mut pair = Pair::new();
        let mut heard = Vec::new();
        // The domains are there in most scripts from the beginning.
        for step in script(&[230, 1, 0, 0, 230, 2, 0, 0, 230, 3, 0, 0]).chain(script(&input)) {
            println!("{step:?}");
            pair.step(&step, &mut heard);
        }
        pair.finish(&mut heard);
    }
}

//! The fuzz targets under libFuzzer, which feeds them by the coverage that it sees. Host.
//!
//! `cargo xtask fuzz TARGET --engine libfuzzer` builds it with the coverage that the stable compiler's LLVM can count, and runs it;
//! `OXIDOM_FUZZ_TARGET` names the target.
#![no_main]

use std::cell::RefCell;

use fuzz::World;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static WORLD: RefCell<Option<World<'static>>> = const { RefCell::new(None) };
}

fn make() -> Box<dyn fuzz::Target> {
    let name = std::env::var("OXIDOM_FUZZ_TARGET").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| {
        eprintln!("OXIDOM_FUZZ_TARGET must be one of: {}", fuzz::TARGETS.join(", "));
        std::process::exit(2);
    })
}

fuzz_target!(
    init: {
        let name = std::env::var("OXIDOM_FUZZ_TARGET").unwrap_or_default();
        fuzz::save_on_panic(std::env::temp_dir().join(format!("oxidom-fuzz-{name}")));
    },
    |input: &[u8]| {
        WORLD.with_borrow_mut(|world| world.get_or_insert_with(|| World::new(&make)).run(input, &mut Vec::new()));
    }
);

//! The image that takes the place of `guest` in its tests `replace`, `replace-gives-up`, `replace-fails` and `replace-hangs`: another one, laid out otherwise.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use runtime::grants::{self, Place};
use runtime::restart::{self, Cause, Policy};
use runtime::trap::probe::{Access, probe};
use runtime::{Environment, Exit, events, memory, time};
use split_driver::memory::SharedMemory;
use xen_pv_sys::{GrantRef, Port};

/// Larger than the guest's own initialised variables, and with a pattern.
static VARIABLES: [AtomicU64; 2000] = [const { AtomicU64::new(0x0bad_cafe) }; 2000];
static ZEROS: [AtomicU64; 30_000] = [const { AtomicU64::new(0) }; 30_000];

runtime::entry!(main);

/// What it does in place of taking over.
#[derive(Clone, Copy, Debug)]
struct Fails {
    gives_up: bool,
    panics: bool,
    hangs: bool,
}

async fn main(environment: Environment) {
    let line = environment.command_line;
    let does = |what: &str| line.contains(what);
    let fails =
        Fails { gives_up: does("replace-gives-up"), panics: does("replace-fails"), hangs: does("replace-hangs") };
    let outcome = match take_over(fails, line.ends_with(" words")).await {
        Ok(()) => "SUCCESS",
        Err(reason) => {
            log::error!("{reason}");
            "FAILURE"
        }
    };
    runtime::console::write_line(format_args!("Test result: {outcome}"));
    runtime::exit(Exit::Reboot);
}

fn is(condition: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if condition { Ok(()) } else { Err(otherwise) }
}

/// What is text, constant and variable in this image is mapped so, whatever was there in the old one.
fn protection() -> Result<(), &'static str> {
    static CONSTANT: [u64; 4] = [5; 4];
    let text = protection as *const () as usize;
    let constant = (&raw const CONSTANT) as usize;
    let stack = memory::stack();
    let closed = [(text, Access::Write), (constant, Access::Write), (stack.start - 1, Access::Read), (0, Access::Read)];
    is(closed.into_iter().all(|(address, access)| !probe(address, access)), "protection")?;
    let open = [(&raw const VARIABLES) as usize, (&raw const ZEROS) as usize + size_of_val(&ZEROS) - 1, stack.start];
    is(open.into_iter().all(|address| probe(address, Access::Write)), "what is writable")
}

async fn take_over(fails: Fails, words: bool) -> Result<(), &'static str> {
    is(VARIABLES.iter().all(|number| number.swap(1, Ordering::Relaxed) == 0x0bad_cafe), "variables")?;
    is(ZEROS.iter().all(|number| number.swap(1, Ordering::Relaxed) == 0), "zeros")?;
    protection()?;
    let mut recovered = restart::recovered().ok_or("nothing left")?;
    log::info!("the successor is there after {:?}: {}", recovered.pause(), recovered.report());
    is(recovered.cause() == Cause::Replaced && recovered.is_intact(), "the box")?;
    is(words, "the command line")?;
    if fails.gives_up {
        let refusal = recovered.give_up(format_args!("as the test asks"));
        log::error!("{refusal:?}");
        return Err("no way back");
    }
    assert!(!fails.panics, "the successor fails as the test asks");
    if fails.hangs {
        loop {
            core::hint::spin_loop();
        }
    }
    let numbers: Vec<u64> =
        recovered.bytes().as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let [lives, one, other, reference, first, pages, ..] = numbers[..] else {
        return Err("the box is short");
    };
    is(lives == 42, "lives")?;
    let [one, other] = [one, other].map(|port| events::adopt(Port(port as u32)));
    let grant = grants::adopt(GrantRef(reference as u32)).ok_or("the grant")?;
    let place = Place { first: first as u32, pages: pages as u32 };
    let mapping = grants::adopt_mapping(place).ok_or("the mapping")?;
    // All memory is there again: what was the old image's, too.
    restart::keep(1, 1, Policy::default(), |out| out.write(b"x")).map_err(|_| "no memory")?;
    let before = memory::usage().free_frames;
    recovered.taken_over();
    log::info!("{before} pages free before, {} after", memory::usage().free_frames);
    is(memory::usage().free_frames > before + 50, "memory")?;
    for (from, to) in [(&one, &other), (&other, &one)] {
        while time::timeout(Duration::from_millis(1), to.wait()).await.is_ok() {}
        from.notify();
        is(time::timeout(Duration::from_millis(500), to.wait()).await.is_ok(), "an event")?;
    }
    is(grant.page().words()[5].load(Ordering::Relaxed) == 2, "the page")?;
    is(mapping.words()[5].load(Ordering::Relaxed) == 2, "the mapping's words")
}

//! The runtime of a Xen PV domain: boot, memory, hypercalls, events, grants, executor, time, console. Floor 2.
//!
//! The one crate of the project with unsafe code. One vCPU runs Rust, no preemption: event upcalls stay masked but while the vCPU blocks,
//! so nothing here is ever interrupted by other code of the domain.
#![no_std]
#![expect(unsafe_code, reason = "each module that has it opens with why")]
#![cfg_attr(test, expect(dead_code, reason = "a host test has no boot, which uses the rest"))]

extern crate alloc;

#[cfg(not(test))]
mod boot;
mod checksum;
mod clock;
pub mod console;
mod counts;
pub mod dma;
pub mod domains;
mod end;
pub mod environment;
pub mod events;
pub mod executor;
#[cfg(feature = "faults")]
mod faults;
pub mod grants;
mod hypercall;
pub mod hypervisor;
mod intrinsics;
mod layout;
mod local;
pub mod memory;
pub mod mmio;
pub mod pci;
mod record;
pub mod restart;
pub mod secret;
pub mod select;
pub mod service;
pub mod shutdown;
pub mod signal;
pub mod store;
pub mod time;
mod time_stamp;
pub mod trap;
pub mod watchdog;

pub use end::{Exit, exit};
pub use environment::{Environment, command_line, environment};
pub use executor::{block_on, spawn, yield_now};
pub use hypercall::yield_cpu;

/// Makes `async fn main(environment: Environment)` of an image what the domain runs. The domain powers off when it returns.
///
/// The image is `#![no_std] #![no_main]`, and its `build.rs` calls `image_link::image()`. A note says that it is of this package, and of the state
/// that it leaves to the next life which version it writes, and which is the oldest that it reads.
#[macro_export]
macro_rules! entry {
    ($main:path, writes: $writes:expr, reads: $reads:expr, read_by: $read_by:expr) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".note.oxidom")]
        static oxidom_identity: $crate::restart::IdentityNote = $crate::restart::IdentityNote::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            $writes,
            $reads,
            $read_by,
        );

        #[unsafe(no_mangle)]
        extern "Rust" fn oxidom_image_main(environment: $crate::Environment) {
            $crate::block_on($main(environment));
        }
    };
    ($main:path, writes: $writes:expr, reads: $reads:expr) => {
        $crate::entry!($main, writes: $writes, reads: $reads, read_by: $writes);
    };
    ($main:path) => {
        $crate::entry!($main, writes: 1, reads: 1);
    };
}

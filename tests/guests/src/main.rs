//! The test image: runs the test that its command line names (`test=NAME`), directly under Xen.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use runtime::Environment;

runtime::entry!(main);

async fn main(environment: Environment) {
    log::info!("hello {:?} {:?}", environment, runtime::memory::usage());
    runtime::time::sleep(core::time::Duration::from_millis(100)).await;
    log::info!("end");
    runtime::exit(runtime::Exit::Reboot);
}

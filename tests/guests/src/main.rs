//! The test image: runs the test that its command line names (`test=NAME`), directly under Xen. A few need a domain made by `xl`:
//! `flood`, `typed`, `directory`, `restart-console` and `restart-store`, which the end-to-end cases run.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod console;
mod crash;
mod dma;
mod events;
mod executor;
mod grants;
mod memory;
mod restart;
mod store;
mod time;
mod watchdog;

use guests::Outcome;
use runtime::{Environment, Exit};

/// A check that did not hold.
struct Failure {
    line: u32,
    file: &'static str,
    check: &'static str,
}

/// What a test returns.
type Result = core::result::Result<(), Failure>;

/// Ends the test as failed where the condition does not hold.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            return Err($crate::Failure { line: line!(), file: file!(), check: stringify!($condition) });
        }
    };
}

/// The value of a `Result`, or the test ends as failed.
#[macro_export]
macro_rules! value {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => {
                log::error!("{error:?}");
                return Err($crate::Failure { line: line!(), file: file!(), check: stringify!($result) });
            }
        }
    };
}

runtime::entry!(main);

async fn main(environment: Environment) {
    let name =
        environment.command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("test=")).unwrap_or("");
    log::info!("test {name}, {} pages, {:?}", environment.pages, runtime::memory::usage());
    let result = match name {
        "protection" => memory::protection(),
        "memory" => memory::all(),
        "heap" => memory::heap(),
        "time" => time::time().await,
        "executor" => executor::executor().await,
        "events" => events::events().await,
        "grants" => grants::grants().await,
        "dma" => dma::dma(),
        "console" => console::console(),
        "flood" => console::flood().await,
        "typed" => console::typed().await,
        "directory" => store::directory().await,
        "panic" => crash::panic(),
        "fault" => crash::fault(),
        "out-of-memory" => crash::out_of_memory(),
        "stack-overflow" => crash::stack_overflow(),
        "restart" => restart::restart().await,
        "replace" => restart::replace(&environment, false).await,
        "replace-gives-up" | "replace-fails" | "replace-hangs" => restart::replace(&environment, true).await,
        "restart-console" => restart::console().await,
        "restart-store" => store::restart().await,
        "restart-limit" => restart::limit(),
        "restart-twice" => restart::twice(),
        "hang" => watchdog::hang().await,
        "hang-after-failure" => watchdog::after_failure(),
        "hang-after-hang" => watchdog::after_hang(),
        "restart-refused" => restart::refused(),
        _ => return finish(Outcome::Error),
    };
    finish(match result {
        Ok(()) => Outcome::Success,
        Err(failure) => {
            log::error!("{}:{}: {}", failure.file, failure.line, failure.check);
            Outcome::Failure
        }
    });
}

/// Prints the result, and ends QEMU (started with `-no-reboot`).
fn finish(outcome: Outcome) {
    runtime::console::write_line(format_args!("Test result: {}", outcome.name()));
    runtime::exit(Exit::Reboot);
}

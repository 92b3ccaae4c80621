//! `blocks`: loads, verifies and measures a block device inside the lab's guests; a JSON line for each result. Linux user space.
//!
//! It is linked statically, so that it runs in an initramfs with nothing else in it.
#![forbid(unsafe_code)]

mod bench;
mod device;
mod gaps;
mod torture;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};

/// Loads, verifies and measures a block device.
#[derive(Parser)]
enum Command {
    /// Measures for some seconds: operations, bytes, latencies
    Bench(bench::Arguments),
    /// Writes one block after the other: the longest time without a write, and errors; a device that goes is waited for
    Gaps(gaps::Arguments),
    /// Writes, reads back, flushes and discards for some seconds, by lanes side by side; all that is read must be what was written
    Verify(verify::Arguments),
    /// Writes until the machine is killed, and keeps a ledger of what is durable on another device
    Torture(torture::Arguments),
}

/// Any failure; it ends in the `error` field of the output.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Gaps(arguments) => gaps::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Torture(arguments) => torture::run(&arguments),
    };
    let good = result.is_ok();
    let value = result.unwrap_or_else(|error| json!({ "error": error.to_string() }));
    print_line(&value);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints `value` at once: what reads it may be a serial console that ends any moment.
fn print_line(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

//! `traffic`: makes, takes and checks traffic inside the lab's guests; a JSON line for each result. Linux user space.
//!
//! It is linked statically, so that it runs in an initramfs with nothing else in it.
#![forbid(unsafe_code)]

mod arguments;
mod frames;
mod ping;
mod tcp;
mod udp;

use std::io::Write;
use std::process::ExitCode;

use arguments::Arguments;
use serde_json::{Value, json};

const USAGE: &str = "\
usage: traffic COMMAND ARGUMENTS [options]

TCP (the peer is the wire or `tcp-serve`; data is pseudo-random and checked by digest unless --plain):
  tcp-send HOST BYTES      send BYTES (K, M, G understood)
  tcp-receive HOST BYTES   receive BYTES
  tcp-both HOST BYTES      both at once
  tcp-verify HOST BYTES    send, then receive; always checked
  tcp-serve [PORT]         serve such transfers until killed
UDP (SIZE is the payload; 18 makes the shortest frame):
  udp-flood HOST SIZE SECONDS     send as fast as it goes, then ask the sink what came
  udp-pace HOST PPS SECONDS       send at a pace, then ask the sink for loss and the longest gap
  udp-receive HOST SIZE SECONDS   ask the wire's generator for a flow (--pace PPS, or as fast as it goes)
  udp-sink [PORT [SECONDS]]       count flows and answer questions about them; 0 seconds: until killed
ICMP (needs root):
  ping HOST COUNT INTERVAL_MS     round trips; interval 0 sends on each reply
Ethernet (needs root):
  frames INTERFACE FRAME...       send frames as they are, each in hexadecimal digits; with --seconds again and again, with --vary
                                  AT:BYTES,... other bytes there in each (the same at all of these places), and IPv4's and IGMP's checksums made

options: --port N, --plain, --sctp (in place of TCP, between guests), --seconds S (ends a TCP transfer early, or a flood of frames), --size N,
  --until FILE (ends a transfer, a flow or pings as soon as there is such a file), --pace PPS,
  --window N (datagrams under way to udp-receive; 1024), --seed N, --timeout S";

fn main() -> ExitCode {
    let result = Arguments::parse(std::env::args().skip(1)).and_then(run);
    let (value, good) = match result {
        Ok(value) => {
            let good = value.get("ok").is_none_or(|ok| *ok == json!(true));
            (value, good)
        }
        Err(error) => (json!({ "error": error.to_string(), "ok": false }), false),
    };
    print_line(&value);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints `value` at once: what reads it may be a serial console that ends any moment.
fn print_line(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// Any failure; it ends in the `error` field of the output.
type Failure = Box<dyn std::error::Error>;

fn run(arguments: Arguments) -> Result<Value, Failure> {
    match arguments.command.as_str() {
        "tcp-send" | "tcp-receive" | "tcp-both" | "tcp-verify" => tcp::run(&arguments),
        "tcp-serve" => tcp::serve(&arguments),
        "udp-flood" | "udp-pace" => udp::send(&arguments),
        "udp-receive" => udp::receive(&arguments),
        "udp-sink" => udp::sink(&arguments),
        "ping" => ping::run(&arguments),
        "frames" => frames::run(&arguments),
        _ => Err(USAGE.into()),
    }
}

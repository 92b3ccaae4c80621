//! The wire as a program of its own: `wire [options] SOCKET...`. Host.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use wire::{Config, Congestion, Wire};

const USAGE: &str = "\
usage: wire [options] SOCKET...

Listens on each unix SOCKET for QEMU's `-netdev stream,server=off,addr.type=unix,addr.path=SOCKET`.
Wire number N (from 0) has the peer 10.(9+N).0.1/16, fd09:N::1/64, fe80::1/64. On SIGTERM it prints the counters as JSON.

  --joined        join all sockets in one segment with one peer
  --mtu N         largest IP packet of the peer (1500)
  --announce-mtu  tell it to DHCP clients
  --congestion C  none, reno or cubic (cubic)
  --control PATH  unix socket for commands, a line each, each answered by a line:
                  `stats`, `inject N HEX`, `capture N FRAMES`, `captured N`";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wire: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut sockets: Vec<String> = Vec::new();
    let (mut joined, mut announce, mut mtu, mut control) = (false, false, 1500, None);
    let mut congestion = Congestion::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--joined" => joined = true,
            "--announce-mtu" => announce = true,
            "--mtu" => mtu = arguments.next().ok_or(USAGE)?.parse()?,
            "--congestion" => congestion = arguments.next().as_deref().and_then(congestion_named).ok_or(USAGE)?,
            "--control" => control = Some(arguments.next().ok_or(USAGE)?),
            option if option.starts_with('-') => return Err(USAGE.into()),
            socket => sockets.push(socket.into()),
        }
    }
    let mut configs = Vec::new();
    for (socket, subnet) in sockets.iter().zip(0..) {
        match configs.first_mut() {
            Some(Config { ports, .. }) if joined => ports.push(socket.into()),
            _ => configs.push(Config::new(socket, subnet)),
        }
    }
    if configs.is_empty() {
        return Err(USAGE.into());
    }
    let mut wires = Vec::new();
    for mut config in configs {
        config.mtu = mtu;
        config.congestion = congestion;
        if let Some(dhcp) = &mut config.dhcp {
            dhcp.announce_mtu = announce;
        }
        wires.push(Wire::start(config)?);
    }
    serve(&wires, control)?;
    for wire in &wires {
        println!("{}", serde_json::to_string(&wire.stats())?);
    }
    Ok(())
}

fn congestion_named(name: &str) -> Option<Congestion> {
    match name {
        "none" => Some(Congestion::None),
        "reno" => Some(Congestion::Reno),
        "cubic" => Some(Congestion::Cubic),
        _ => None,
    }
}

fn serve(wires: &[Wire], control: Option<String>) -> Result<(), Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let listener = match &control {
        Some(path) => {
            let _ = std::fs::remove_file(path);
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Some(listener)
        }
        None => None,
    };
    eprintln!("wire: ready");
    while !stop.load(Ordering::Relaxed) {
        match listener.as_ref().map(UnixListener::accept) {
            Some(Ok((stream, _))) => {
                if let Err(error) = talk(wires, stream) {
                    eprintln!("wire: control: {error}");
                }
            }
            Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    if let Some(path) = control {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

fn talk(wires: &[Wire], stream: UnixStream) -> Result<(), Box<dyn Error>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut answers = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let answer = answer(wires, &line?).unwrap_or_else(|| r#"{"error":"not understood"}"#.into());
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

fn answer(wires: &[Wire], line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    let command = words.next()?;
    if command == "stats" {
        let all: Vec<_> = wires.iter().map(Wire::stats).collect();
        return serde_json::to_string(&all).ok();
    }
    let wire = wires.get(words.next()?.parse::<usize>().ok()?)?;
    match command {
        "inject" => wire.inject([unhex(words.next()?)?]),
        "capture" => wire.set_capture(words.next()?.parse().ok()?),
        "captured" => {
            let frames: Vec<_> = wire
                .captured()
                .iter()
                .map(|captured| {
                    (captured.time.as_secs_f64(), format!("{:?}", captured.direction), hex(&captured.frame))
                })
                .collect();
            return serde_json::to_string(&frames).ok();
        }
        _ => return None,
    }
    Some("{}".into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

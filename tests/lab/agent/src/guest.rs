//! Commands for guests by way of the xenstore: works without a network and without a quiet console. Linux.
//!
//! Under the guest's `data/lab`: dom0 writes `cmd/<id>`; the guest removes it, runs it, and writes `out/<id>/<n>` and then
//! `exit/<id>`; dom0 reads and removes those.

use std::io;
use std::process::{Command, Stdio};
use std::thread;

use crate::store::Store;

/// Fits a node of a C xenstored with its default quota of 2048 bytes.
const CHUNK: usize = 1024;
/// What one command may say; the rest is cut, and the cut is said.
const MAX_OUTPUT: usize = 96 * CHUNK;

/// The guest's side: runs what dom0 asks, for ever.
pub(crate) fn serve() -> io::Result<()> {
    let mut store = Store::open()?;
    store.write("data/lab/cmd", b"")?;
    store.watch("data/lab/cmd")?;
    loop {
        // A domain that was restored has a directory of its own, in which nothing is. Its kernel sets the watch anew, which fires.
        if store.read("data/lab/ready").is_err() {
            store.write("data/lab/cmd", b"")?;
            store.write("data/lab/ready", b"1")?;
        }
        store.wait()?;
        for id in store.list("data/lab/cmd").unwrap_or_default() {
            let path = format!("data/lab/cmd/{id}");
            let Ok(command) = store.read(&path) else {
                continue;
            };
            store.remove(&path)?;
            let command = String::from_utf8_lossy(&command).into_owned();
            thread::spawn(move || answer(&id, &command));
        }
    }
}

fn answer(id: &str, command: &str) -> io::Result<()> {
    // One file for both streams keeps their order.
    let script = format!("exec 2>&1; {command}");
    let output = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).output();
    let (status, mut text) = match output {
        Ok(output) => (crate::status_code(output.status), output.stdout),
        Err(error) => (127, error.to_string().into_bytes()),
    };
    if text.len() > MAX_OUTPUT {
        text.truncate(MAX_OUTPUT);
        text.extend_from_slice(b"\n[cut by the lab]\n");
    }
    let mut store = Store::open()?;
    for (index, chunk) in text.chunks(CHUNK).enumerate() {
        store.write(&format!("data/lab/out/{id}/{index}"), chunk)?;
    }
    store.write(&format!("data/lab/exit/{id}"), format!("{status} {}", text.len().div_ceil(CHUNK)).as_bytes())
}

/// Dom0's side: has one command run by a guest.
pub(crate) fn ask(domain: u32, id: u32, command: &[u8]) -> io::Result<(i32, Vec<u8>)> {
    let base = format!("/local/domain/{domain}/data/lab");
    let mut store = Store::open()?;
    store.watch(&format!("{base}/ready"))?;
    while store.read(&format!("{base}/ready")).is_err() {
        store.wait()?;
    }
    let exit = format!("{base}/exit/{id}");
    store.watch(&exit)?;
    store.write(&format!("{base}/cmd/{id}"), command)?;
    let answer = loop {
        store.wait()?;
        if let Ok(answer) = store.read(&exit) {
            break String::from_utf8_lossy(&answer).into_owned();
        }
        // The guest may have gone.
        store.read(&format!("{base}/ready"))?;
    };
    let parse = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    let mut words = answer.split(' ');
    let (Some(status), Some(chunks)) = (parse(words.next()), parse(words.next())) else {
        return Err(io::Error::other(format!("the guest answered '{answer}'")));
    };
    let mut output = Vec::new();
    for index in 0..chunks {
        output.extend(store.read(&format!("{base}/out/{id}/{index}"))?);
    }
    if chunks > 0 {
        store.remove(&format!("{base}/out/{id}"))?;
    }
    store.remove(&exit)?;
    Ok((status, output))
}

//! The dom0 side of the lab's channel: starts the toolstack, then serves frames from a virtio-serial port. Linux.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lab_agent::DOM0_WEIGHT;
use lab_agent::frame::{Frame, Kind, decode_guest, decode_put};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{guest, store};

/// Where virtio-serial has put the lab's port, once it has: it is the only one. Its name tells which virtio device it belongs to.
fn port() -> Option<PathBuf> {
    let entries = fs::read_dir("/dev").ok()?.flatten();
    let is_port = |name: &str| name.starts_with("vport");
    entries.map(|entry| entry.path()).find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_port))
}

/// Starts the store, its nodes of dom0 and xenconsoled, in that order; each says by ending that it is ready.
///
/// The store is C xenstored, the daemon that the kernel's command line names, or a domain of its own where that names the image of one.
/// Then no daemon must ever run in this boot: the kernel connects to one store only.
pub(crate) fn start_toolstack() -> io::Result<()> {
    fs::create_dir_all("/var/log/xen/console")?;
    if let Some(program) = crate::parameter("lab.start") {
        return run(&[&program, "start"]);
    }
    let image = crate::parameter("lab.store");
    let in_a_domain = image.is_some();
    // As much as Xen's own `launch-xenstore` gives it.
    let memory = crate::parameter("lab.store-memory").unwrap_or_else(|| "8".to_owned());
    let daemon = crate::parameter("lab.daemon").unwrap_or_else(|| "xenstored".to_owned());
    match image {
        Some(image) => {
            let mut command = vec!["init-xenstore-domain", "--kernel", &image, "--memory", &memory];
            let word = crate::parameter("lab.store-word");
            command.extend(word.iter().flat_map(|word| ["--param", word.as_str()]));
            run(&command)?;
        }
        None => {
            run(&[&daemon, "--pid-file", "/run/xenstored.pid"])?;
            // oxenstored goes to the background before it listens.
            while !Path::new(store::SOCKET).exists() {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
    run(&["xen-init-dom0"])?;
    run(&["xenconsoled", "--log=guest", "--log-dir=/var/log/xen/console", "--pid-file=/run/xenconsoled.pid"])?;
    if in_a_domain {
        // The store goes before those that keep it busy, too, or a flood's sender has the CPU while the store has others' requests to serve.
        for domain in ["0", "Xenstore"] {
            run(&["xl", "sched-credit2", "-d", domain, "-w", &DOM0_WEIGHT.to_string()])?;
        }
    }
    Ok(())
}

fn run(command: &[&str]) -> io::Result<()> {
    let [program, arguments @ ..] = command else {
        return Ok(());
    };
    let status = Command::new(program).args(arguments).status();
    let status = status.map_err(|error| io::Error::other(format!("{program}: {error}")))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program} failed: {status}"))) }
}

type Output = Arc<Mutex<File>>;
type Running = Arc<Mutex<HashMap<u32, Pid>>>;

/// Serves the lab until the channel ends.
pub(crate) fn serve() -> io::Result<()> {
    // The port appears some time after its driver was loaded.
    let path = loop {
        match port() {
            Some(path) => break path,
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut input = OpenOptions::new().read(true).write(true).open(path)?;
    let output: Output = Arc::new(Mutex::new(input.try_clone()?));
    let running = Running::default();
    let uptime = fs::read_to_string("/proc/uptime")?;
    send(&output, Kind::Ready, 0, uptime);
    loop {
        let frame = Frame::read(&mut input)?;
        let (output, running) = (output.clone(), running.clone());
        if frame.kind == Kind::Kill {
            if let Some(group) = lock(&running).get(&frame.id) {
                killpg(*group, Signal::SIGKILL).ok();
            }
            continue;
        }
        thread::spawn(move || {
            if let Err(error) = answer(&frame, &output, &running) {
                send(&output, Kind::Failed, frame.id, error.to_string());
            }
        });
    }
}

fn answer(frame: &Frame, output: &Output, running: &Running) -> io::Result<()> {
    let id = frame.id;
    let mut status = 0;
    match frame.kind {
        Kind::Run => status = run_shell(&frame.payload, id, output, running)?,
        Kind::Put => {
            let (path, mode, content) = decode_put(&frame.payload)?;
            if let Some(parent) = Path::new(path).parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, content)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Kind::Get => {
            let content = fs::read(&*String::from_utf8_lossy(&frame.payload))?;
            send(output, Kind::Output, id, content);
        }
        Kind::Guest => {
            let (domain, command) = decode_guest(&frame.payload)?;
            let (guest_status, text) = guest::ask(domain, id, command)?;
            send(output, Kind::Output, id, text);
            status = guest_status;
        }
        _ => return Err(io::Error::other("not a request")),
    }
    send(output, Kind::Exit, id, status.to_le_bytes());
    Ok(())
}

fn run_shell(command: &[u8], id: u32, output: &Output, running: &Running) -> io::Result<i32> {
    let script = format!("exec 2>&1; {}", String::from_utf8_lossy(command));
    let mut child = Command::new("/bin/sh")
        .args(["-c", &script])
        .current_dir("/root")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    lock(running).insert(id, Pid::from_raw(child.id().cast_signed()));
    // The shell's end ends the command, even if a daemon that it left keeps the pipe open: the reader is not waited for
    // longer than it takes to drain what is there.
    let pipe = child.stdout.take();
    let reader = thread::spawn({
        let output = output.clone();
        move || {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                send(&output, Kind::Output, id, buffer.get(..count).unwrap_or_default());
            }
        }
    });
    let status = child.wait()?;
    lock(running).remove(&id);
    for _ in 0..100 {
        if reader.is_finished() {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(crate::status_code(status))
}

fn send(output: &Output, kind: Kind, id: u32, payload: impl Into<Vec<u8>>) {
    // Nobody is left to be told when the channel is gone.
    Frame::new(kind, id, payload).write(&mut *lock(output)).ok();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

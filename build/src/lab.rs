//! `cargo xtask lab`: a dom0 to type in, or one that runs a script. Host.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::root::Extra;
use lab::scratch::Scratch;
use lab::{
    ControllerKind, Disk, DiskController, Equipment, GuestConfig, Lab, LabConfig, Network, Row, StorePlace, host,
};

use crate::images;

/// What `cargo xtask lab` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// debian12 (Xen 4.17, Linux 6.1) or debian13 (Xen 4.20, Linux 6.12); with -stubdom, the xenstore in a domain of its own, with -oxenstored, the daemon in OCaml, with -pvh, PVH guests
    #[arg(long, default_value = "debian12")]
    row: Row,
    /// Run this shell script in dom0, show its output and end with its status
    #[arg(long)]
    script: Option<PathBuf>,
    /// Put a file into dom0: PATH-HERE=PATH-IN-DOM0
    #[arg(long = "put", value_name = "FILE=PATH")]
    files: Vec<String>,
    /// Boot without building the images and putting them and their sample configs into dom0
    #[arg(long)]
    no_images: bool,
    /// Connect the NIC to QEMU's own network (DHCP, gateway 10.0.2.2), not to a wire
    #[arg(long)]
    user_network: bool,
    /// Show the machine's console (Xen and dom0) while a script runs
    #[arg(long)]
    console: bool,
    /// This program of dom0's, put there by --put, starts store and toolstack, called with the word `start`: as Debian's /etc/init.d/xen
    #[arg(long, value_name = "PATH")]
    start: Option<String>,
    /// How long a script may take, in seconds
    #[arg(long, default_value_t = 600)]
    timeout: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    host::provide(&if arguments.no_images { host::BOOT.to_vec() } else { [host::IMAGES, host::BOOT].concat() })?;
    let mut config = LabConfig::new(arguments.row);
    config.store = Some(images::path(images::STORE));
    config.start.clone_from(&arguments.start);
    config.shell = arguments.script.is_none();
    let scratch = Scratch::new()?;
    if !arguments.no_images {
        images::build()?;
        put_samples(&mut config)?;
        add_drive(&mut config, &scratch.path().join("drive"))?;
    }
    for pair in &arguments.files {
        let (file, path) = pair.split_once('=').with_context(|| format!("--put {pair}: write FILE=PATH"))?;
        config.put(path, 0o755, file.as_ref())?;
    }
    if arguments.user_network {
        config.nics.iter_mut().for_each(|nic| nic.network = Network::User);
    }
    if arguments.no_images && arguments.row.store == StorePlace::Domain {
        images::build()?;
    }
    eprintln!("lab: booting Xen {} with dom0", arguments.row.xen());
    let lab = Lab::boot(&config)?;
    eprintln!("lab: dom0 ready after {:.1} s ({:.1} s of its own time)", lab.boot_time.as_secs_f64(), lab.dom0_uptime);
    lab.machine().mirror_console(arguments.console);
    match &arguments.script {
        Some(script) => run_script(&lab, script, Duration::from_secs(arguments.timeout)),
        None => interact(&lab),
    }
}

/// The images where an administrator has them, a config for each, and configs of Linux guests: two on the network, one with a disk.
fn put_samples(config: &mut LabConfig) -> Result<()> {
    config.put("usr/lib/oxidom/netdom", 0o755, &images::path("netdom"))?;
    put_sample(config, "netdom", "00:03.0")?;
    config.put("usr/lib/oxidom/blkdom", 0o755, &images::path("blkdom"))?;
    config.put("usr/sbin/oxidom", 0o755, &images::path("oxidom"))?;
    put_sample(config, "blkdom", "00:04.0")?;
    let network = |name, number| GuestConfig::new(name).vif(&format!("backend=netdom,mac=00:16:3e:00:00:0{number}"));
    let disk = "format=raw,vdev=xvda,access=rw,backend=blkdom,backendtype=phy,target=nvme0n1";
    for mut guest in [network("a", 1), network("b", 2), GuestConfig::new("c").disk(disk)] {
        // The root for disks is larger.
        guest.memory = 160;
        guest.arguments = "lab.shell=1".to_owned();
        let path = format!("etc/xen/{}.cfg", guest.name);
        config.files.push(Extra { path, mode: 0o644, content: guest.to_string().into_bytes() });
    }
    let motd = include_str!("../lab.motd");
    config.files.push(Extra { path: "etc/motd".to_owned(), mode: 0o644, content: motd.into() });
    Ok(())
}

/// A sample config, with the device's address where it has none.
fn put_sample(config: &mut LabConfig, name: &str, device: &str) -> Result<()> {
    const NONE: &str = "\npci = [ ]\n";
    let text = fs::read_to_string(images::path(&format!("{name}.cfg")))?;
    ensure!(text.contains(NONE), "{name}.cfg has no line `pci = [ ]`");
    let content = text.replace(NONE, &format!("\npci = [ \"{device}\" ]\n")).into_bytes();
    config.files.push(Extra { path: format!("etc/xen/{name}.cfg"), mode: 0o644, content });
    Ok(())
}

/// An NVMe controller at `00:04.0`, with a drive that is empty in each lab.
fn add_drive(config: &mut LabConfig, image: &Path) -> Result<()> {
    const BYTES: u64 = 1 << 30;
    fs::File::create(image)?.set_len(BYTES)?;
    config.equipment = Equipment::Disks;
    config.controllers = vec![DiskController { kind: ControllerKind::Nvme, slot: 4, disks: vec![Disk::image(image)] }];
    Ok(())
}

fn run_script(lab: &Lab, script: &PathBuf, timeout: Duration) -> Result<ExitCode> {
    let content = fs::read(script).with_context(|| format!("reading {}", script.display()))?;
    lab.put("/root/script", 0o755, &content)?;
    let output = lab.run_watched("sh /root/script", timeout, |bytes| {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).ok();
        stdout.flush().ok();
    })?;
    Ok(ExitCode::from(u8::try_from(output.status).unwrap_or(1)))
}

/// Joins our terminal to dom0's console until Ctrl-\.
pub(crate) fn interact(lab: &Lab) -> Result<ExitCode> {
    // Ctrl-\; Ctrl-] is `xl console`'s own.
    const LEAVE: u8 = 0x1c;
    eprintln!("lab: this is dom0's console. Leave with Ctrl-\\\r");
    let raw = |mode: &[&str]| Command::new("stty").args(mode).status();
    raw(&["raw", "-echo"]).ok();
    lab.machine().mirror_console(true);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
            if bytes.contains(&LEAVE) || sender.send(bytes).is_err() {
                break;
            }
        }
    });
    lab.machine().type_on_console(b"cat /etc/motd 2>/dev/null\n")?;
    while lab.machine().is_running() {
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(bytes) => lab.machine().type_on_console(&bytes)?,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    raw(&["sane"]).ok();
    eprintln!("\nlab: ended");
    Ok(ExitCode::SUCCESS)
}

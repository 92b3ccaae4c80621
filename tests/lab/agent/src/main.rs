//! The init of the lab's Linux domains. Linux, statically linked.
//!
//! Process 1 mounts, loads modules, starts itself again to serve the lab, and reaps. `lab.role=` on the kernel's command line
//! says which domain this is: `dom0`, `guest` or `driver` (a Linux driver domain, which is a guest with `xl devd`). In a dom0 with an init of
//! its own, `serve host` is a service.
#![forbid(unsafe_code)]

mod dom0;
mod guest;
mod load;
mod measure;
mod puppets;
mod store;

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some("serve") => take_signals().and_then(|()| serve(&arguments.next().unwrap_or_default())),
        Some("load") => load::run(&arguments.collect::<Vec<_>>()),
        Some("puppets") => puppets::play(&arguments.next().unwrap_or_default()),
        Some(MEASURE) => measure::run(&arguments.collect::<Vec<_>>()),
        Some(SHELL) => take_signals().and_then(|()| Err(shell().exec())),
        Some(ON_DISK) if std::process::id() == 1 => run(),
        _ if std::process::id() == 1 => boot(),
        _ => Err(io::Error::other("this program is the init of a lab domain; start it as process 1")),
    };
    if let Err(error) = result {
        eprintln!("lab-agent: {error}");
        std::process::exit(1);
    }
}

fn serve(role: &str) -> io::Result<()> {
    match role {
        "dom0" => {
            dom0::start_toolstack()?;
            dom0::serve()
        }
        // A whole Debian, whose own init starts the toolstack, and this program as a service.
        "host" => dom0::serve(),
        _ => guest::serve(),
    }
}

/// Tells this program to measure the store; see [`measure::run`].
const MEASURE: &str = "measure";

/// Tells the agent of a root on a disk that all is mounted and loaded.
const ON_DISK: &str = "on-disk";

/// The last value of a parameter on the kernel's command line.
fn parameter(name: &str) -> Option<String> {
    let cmdline = fs::read_to_string("/proc/cmdline").ok()?;
    let value = cmdline.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next_back();
    value.map(str::to_owned)
}

/// What process 1 does first. Returns only with an error.
fn boot() -> io::Result<()> {
    mount_all();
    load_modules(&role());
    // xenfs has no file system type before its module is in.
    mount_one("xenfs", "/proc/xen", "xenfs").ok();
    match parameter("lab.root") {
        Some(device) => switch_root(&device),
        None => run(),
    }
}

fn role() -> String {
    parameter("lab.role").unwrap_or_else(|| "guest".to_owned())
}

/// Goes on with the agent that is on a disk, its root.
fn switch_root(device: &str) -> io::Result<()> {
    const TARGET: &str = "/mnt";
    // The frontend connects at its own time.
    while !Path::new(device).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    mount_one(device, TARGET, "ext4")?;
    for directory in ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/xen"] {
        let target = format!("{TARGET}{directory}");
        fs::create_dir_all(&target)?;
        mount(Some(directory), target.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    }
    std::env::set_current_dir(TARGET)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")?;
    Err(Command::new("/init").arg(ON_DISK).exec())
}

/// What process 1 does for good. Returns only with an error.
fn run() -> io::Result<()> {
    obey_signals();
    for command in [["ip", "link", "set", "lo", "up"].as_slice(), &["hostname", "-F", "/etc/hostname"]] {
        Command::new("/bin/busybox").args(command).status().ok();
    }
    let mut child = Command::new("/proc/self/exe").args(["serve", &role()]).env("PATH", path()).spawn()?;
    if parameter("lab.shell").is_some() {
        start_shell();
    }
    let child_id = child.id() as i32;
    loop {
        // Orphans come here too; only the end of our own child matters.
        match nix::sys::wait::wait() {
            Ok(status) if status.pid().is_some_and(|pid| pid.as_raw() != child_id) => {}
            _ => break,
        }
    }
    child.try_wait().ok();
    eprintln!("lab-agent: the lab's channel is gone; powering off");
    match reboot(RebootMode::RB_POWER_OFF) {
        Err(error) => Err(error.into()),
    }
}

/// Lets signals through again that process 1 has blocked for itself: programs inherit that, and `timeout` would be in vain.
fn take_signals() -> io::Result<()> {
    SigSet::empty().thread_set_mask().map_err(Into::into)
}

/// Ends the domain where busybox' `reboot` or `poweroff` says so, by these signals. The kernel starts them where the toolstack asks.
fn obey_signals() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGUSR2);
    // Blocked before any other thread is there, they wait for this one.
    if signals.thread_block().is_ok() {
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                let mode = if signal == Signal::SIGTERM { RebootMode::RB_AUTOBOOT } else { RebootMode::RB_POWER_OFF };
                let Err(error) = reboot(mode);
                eprintln!("lab-agent: {error}");
            }
        });
    }
}

/// Where programs are: Debian keeps Xen's in a directory named by its version.
fn path() -> String {
    let mut path = String::new();
    for entry in fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("xen-") {
            path += &format!("{}/bin:", entry.path().display());
        }
    }
    path + "/usr/sbin:/usr/bin"
}

fn mount_all() {
    let table: [(&str, &str, &str); 8] = [
        ("proc", "/proc", "proc"),
        ("sysfs", "/sys", "sysfs"),
        ("devtmpfs", "/dev", "devtmpfs"),
        ("devpts", "/dev/pts", "devpts"),
        ("tmpfs", "/dev/shm", "tmpfs"),
        ("tmpfs", "/run", "tmpfs"),
        ("tmpfs", "/tmp", "tmpfs"),
        ("tmpfs", "/var/lib/xen", "tmpfs"),
    ];
    for (source, target, kind) in table {
        fs::create_dir_all(target).ok();
        if let Err(error) = mount_one(source, target, kind) {
            eprintln!("lab-agent: mounting {target}: {error}");
        }
    }
    for directory in ["/run/xen", "/run/lock", "/run/xenstored"] {
        fs::create_dir_all(directory).ok();
    }
    // The kernel leaves these to udev; the toolstack's scripts use them.
    for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        std::os::unix::fs::symlink(format!("/proc/self/fd{target}"), format!("/dev/{name}")).ok();
    }
}

fn mount_one(source: &str, target: &str, kind: &str) -> io::Result<()> {
    mount(Some(source), target, Some(kind), MsFlags::empty(), None::<&str>).map_err(Into::into)
}

/// Loads the modules that the root's builder listed for this role, in the order of their dependencies, with the parameters that the
/// kernel's command line has for them, as `modprobe` does.
fn load_modules(role: &str) {
    let list = fs::read_to_string(format!("/etc/lab/modules.{role}")).unwrap_or_default();
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    for path in list.lines() {
        let parameters = module_parameters(path, &cmdline);
        let result = OpenOptions::new()
            .read(true)
            .open(path)
            .and_then(|file| Ok(finit_module(&file, &parameters, ModuleInitFlags::empty())?));
        if let Err(error) = result {
            eprintln!("lab-agent: loading {path}: {error}");
        }
    }
}

/// The words of a command line for a module: `xen_blkfront.max_queues=1` is `max_queues=1` for `.../xen-blkfront.ko`.
fn module_parameters(path: &str, cmdline: &str) -> CString {
    let name = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
    let of_module = |word: &str| {
        let (module, parameter) = word.split_once('.')?;
        (module.replace('-', "_") == name).then(|| parameter.to_owned())
    };
    let words: Vec<String> = cmdline.split_whitespace().filter_map(of_module).collect();
    CString::new(words.join(" ")).unwrap_or_default()
}

/// Tells this program to become a shell on the console.
const SHELL: &str = "shell";

fn shell() -> Command {
    let mut command = Command::new("/bin/busybox");
    command.args(["setsid", "cttyhack", "sh", "-l"]).current_dir("/root").env("PATH", path());
    command
}

/// A shell on the console that comes back when it is left.
fn start_shell() {
    std::thread::spawn(|| {
        loop {
            let shell = Command::new("/proc/self/exe").arg(SHELL).spawn();
            // Process 1 reaps; a shell that is gone has no /proc entry.
            let Ok(shell) = shell else { return };
            let path = format!("/proc/{}", shell.id());
            while fs::metadata(&path).is_ok() {
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
        }
    });
}

fn status_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_gets_its_own_parameters() {
        let cmdline =
            "console=hvc0 xen_blkfront.max_queues=1 loop.max_loop=9 xen-blkfront.feature_persistent=N quiet\n";
        let path = "/lib/modules/6.1.0/kernel/drivers/block/xen-blkfront.ko";
        assert_eq!(module_parameters(path, cmdline).as_c_str(), c"max_queues=1 feature_persistent=N");
        assert_eq!(module_parameters("/lib/x.ko", cmdline).as_c_str(), c"");
    }
}

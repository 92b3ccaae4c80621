//! The machine: QEMU with Xen, an emulated IOMMU, NICs and disks; its console; and its end. Host.
//!
//! The flags and why they are as they are: software emulation always, XSAVE off (with QEMU 10 it gave programs of PV domains random faults,
//! one in 400 processes; with 11.1 none was seen in 6,000), the interrupt controller split for the IOMMU's interrupt remapping, no fast string
//! instructions (Linux would copy with them a byte at a step, which no real CPU does), for a device behind vfio-user an IOMMU that is told of
//! new mappings, too (QEMU ends where it is not).

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use crate::emulator::Emulator;
use crate::qmp::Monitor;
use crate::scratch::Scratch;

/// The far end of an emulated NIC.
#[derive(Clone, Debug)]
pub enum Network {
    /// QEMU's own: DHCP, gateway 10.0.2.2. For trying things.
    User,
    /// Ethernet frames as a stream on a unix socket, on which a process listens before QEMU starts.
    Socket(PathBuf),
    /// A wire of the lab's own; its `ports` are the lab's to choose.
    Wire(Box<wire::Config>),
    /// One more port of the wire that the machine's NIC of this number is on: a learning switch joins them.
    Port(usize),
}

/// A NIC of the machine.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Its kind.
    pub model: NicModel,
    /// Its slot on bus 0: `3` makes it `00:03.0`.
    pub slot: u8,
    /// Its address.
    pub mac: String,
    /// The far end of its cable.
    pub network: Network,
}

impl Nic {
    /// The slot in `xl`'s notation.
    pub fn bdf(&self) -> String {
        format!("00:{:02x}.0", self.slot)
    }
}

/// The kind of a NIC, and the process that plays it.
#[derive(Clone, Debug)]
pub enum NicModel {
    /// QEMU, by its name of the device: `e1000e`, `igb`, or, for a device of another kind, say `e1000` or `ne2k_pci`.
    Emulated(&'static str),
    /// A vfio-user server that listens on this socket before QEMU starts, and has the far end of the cable.
    VfioUser(PathBuf),
    /// A vfio-user server that the lab starts.
    Served(Arc<dyn DeviceModel>),
}

/// A model of a NIC that QEMU lacks.
pub trait DeviceModel: fmt::Debug + Send + Sync {
    /// Starts a vfio-user server that listens on `socket` by the time this returns, and has the NIC's cable on the stream socket `wire`, in
    /// the frames of QEMU's `-netdev stream`; without one, a NIC without a cable.
    ///
    /// # Errors
    /// The reason why it cannot listen.
    fn serve(&self, nic: &Nic, socket: &Path, wire: Option<&Path>) -> Result<Box<dyn DeviceServer>>;
}

/// A running server of a NIC. Dropping it ends it; QEMU has ended before.
pub trait DeviceServer: Send + Sync {
    /// Pulls the cable out, or puts it in.
    ///
    /// # Errors
    /// The reason why it cannot.
    fn set_link(&self, up: bool) -> Result<()>;

    /// The offences of drivers against the datasheet since the machine was started; each once.
    fn misuse(&self) -> Vec<String>;

    /// Has it misbehave.
    fn misbehave(&self, how: Misbehaviour);

    /// Puts a module into the NIC's cage, in place of the one that is there; none takes that one out.
    ///
    /// # Errors
    /// It has no cage.
    fn change_module(&self, module: Option<SfpModule>) -> Result<()>;
}

/// A module for the cage of a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SfpModule {
    /// 10GBASE-SR.
    ShortReach,
    /// A passive cable, SFP+ at both ends.
    PassiveCable,
}

/// How a served NIC misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// From now on it sends nothing, although it has a link; or it sends again.
    Hang(bool),
    /// One of its memories loses its contents, and it says so, once.
    LostMemory,
}

/// The kind of an emulated disk controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerKind {
    /// An NVMe controller; its disks are namespaces, numbered from 1.
    Nvme,
    /// An AHCI controller (of the ICH9); its disks are on ports, numbered from 0.
    Ahci,
}

/// An emulated disk controller with its disks.
#[derive(Clone, Debug)]
pub struct DiskController {
    /// Its kind.
    pub kind: ControllerKind,
    /// Its slot on bus 0.
    pub slot: u8,
    /// Its disks.
    pub disks: Vec<Disk>,
}

impl DiskController {
    /// The slot in `xl`'s notation.
    pub fn bdf(&self) -> String {
        format!("00:{:02x}.0", self.slot)
    }
}

/// An emulated disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its medium.
    pub medium: DiskMedium,
    /// Bytes of a logical block; an AHCI disk knows 512 alone.
    pub logical_block: u32,
}

/// The medium of an emulated disk.
#[derive(Clone, Debug)]
pub enum DiskMedium {
    /// A raw image. Its contents survive QEMU's death.
    Image(PathBuf),
    /// A block server (`medium::Medium`) that listens on this socket before QEMU starts.
    Server(PathBuf),
}

impl Disk {
    /// An image with blocks of 512 bytes.
    pub fn image(path: impl Into<PathBuf>) -> Self {
        Self { medium: DiskMedium::Image(path.into()), logical_block: 512 }
    }

    /// The medium of a block server, in blocks of 512 bytes.
    pub fn served(socket: impl Into<PathBuf>) -> Self {
        Self { medium: DiskMedium::Server(socket.into()), logical_block: 512 }
    }
}

/// The base of a machine's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The host's time: guests see the cost of their emulation, and of other work on the host.
    #[default]
    Host,
    /// The instructions that they run, a nanosecond each, and the host's time only while the CPU is halted: what guests do takes as long on
    /// any host. Where they wait busily, it takes longer to emulate.
    Instructions,
}

/// What the machine starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Xen and, as its modules, dom0's kernel and initramfs.
    #[default]
    Xen,
    /// That kernel and initramfs, without Xen.
    Kernel,
    /// The boot loader of its first own drive.
    Drive,
}

/// A drive that stays dom0's: a virtio disk.
#[derive(Clone, Debug)]
pub struct OwnDrive {
    /// Its image.
    pub image: PathBuf,
    /// `raw` or `qcow2`.
    pub format: &'static str,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// The machine that QEMU is to boot.
#[derive(Clone, Debug, Default)]
pub struct MachineConfig {
    /// What it starts with. Where that is not Xen, the files and command lines of what it does not start with do nothing.
    pub start: Start,
    /// Drives of dom0's own; the first one is `/dev/vda`.
    pub drives: Vec<OwnDrive>,
    /// The hypervisor, uncompressed.
    pub hypervisor: PathBuf,
    /// Its command line, beyond the console.
    pub xen_arguments: String,
    /// Dom0's kernel, its command line, and modules after it.
    pub kernel: PathBuf,
    /// Dom0's command line.
    pub kernel_arguments: String,
    /// Dom0's initramfs.
    pub initramfs: Option<PathBuf>,
    /// Memory, in MiB.
    pub memory: u32,
    /// NICs.
    pub nics: Vec<Nic>,
    /// Disk controllers.
    pub controllers: Vec<DiskController>,
    /// A virtio-serial port on this unix socket.
    pub port: Option<PathBuf>,
    /// The base of its clocks.
    pub clock: Clock,
}

/// A running machine. Dropping it ends QEMU and removes its directory.
pub struct Machine {
    console: Arc<Console>,
    input: Mutex<ChildStdin>,
    child: Arc<Mutex<Child>>,
    directory: Scratch,
    /// Ends the thread that started QEMU, with which QEMU would die.
    _keeper: std::sync::mpsc::Sender<()>,
}

/// The text of the machine's serial console.
#[derive(Default)]
struct Console {
    text: Mutex<Text>,
    grown: Condvar,
}

#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    ended: bool,
    mirror: bool,
}

/// QEMU's monitor, a socket in the machine's directory.
const MONITOR: &str = "monitor";
/// How long QEMU may take for what it is asked there: it has one core among many.
const PATIENCE: Duration = Duration::from_secs(60);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Starts QEMU in a directory of its own.
    pub fn start(emulator: &Emulator, config: &MachineConfig, directory: Scratch) -> Result<Self> {
        let mut command = emulator.command();
        let monitor = format!("unix:{},server=on,wait=off", directory.path().join(MONITOR).display());
        command
            .args(arguments(config))
            .args(["-qmp", &monitor])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // The kernel's parent-death signal follows the thread, not the process: one thread stays for as long as the machine.
        let (keeper, kept) = std::sync::mpsc::channel::<()>();
        let (started, start) = std::sync::mpsc::channel();
        thread::spawn(move || {
            started.send(command.spawn()).ok();
            kept.recv().ok();
        });
        let mut child = start.recv()?.context("starting QEMU by setpriv")?;
        let input = child.stdin.take().context("QEMU's stdin")?;
        let console = Arc::new(Console::default());
        let log = File::create(directory.path().join("console.log"))?;
        let output = child.stdout.take().context("QEMU's stdout")?;
        let errors = child.stderr.take().context("QEMU's stderr")?;
        let reader = Arc::clone(&console);
        thread::spawn(move || follow(output, errors, log, &reader));
        Ok(Self { console, input: Mutex::new(input), child: Arc::new(Mutex::new(child)), directory, _keeper: keeper })
    }

    /// The machine's directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Pulls the cable of the `index`th NIC out, or puts it in.
    ///
    /// # Errors
    /// QEMU's error.
    pub fn set_link(&self, index: usize, up: bool) -> Result<()> {
        Monitor::connect(&self.directory().join(MONITOR), PATIENCE)?.set_link(&format!("n{index}"), up)
    }

    /// Whether QEMU itself answers within some time. It does not while a device that it emulates waits for its medium.
    pub fn answers(&self, patience: Duration) -> bool {
        Monitor::connect(&self.directory().join(MONITOR), patience).is_ok()
    }

    /// All that the serial console said: Xen's lines and dom0's.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&lock(&self.console.text).bytes).into_owned()
    }

    /// Whether the console has said the text.
    pub fn has_said(&self, needle: &str) -> bool {
        lock(&self.console.text).bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    }

    /// Shows the serial console on our own stdout from now on.
    pub fn mirror_console(&self, on: bool) {
        lock(&self.console.text).mirror = on;
    }

    /// Types on the serial console.
    pub fn type_on_console(&self, bytes: &[u8]) -> Result<()> {
        let mut input = lock(&self.input);
        input.write_all(bytes)?;
        input.flush().map_err(Into::into)
    }

    /// Where the machine hangs, for a reader of Xen's source: what Xen says of dom0's registers, its run queues, interrupts and domains (the keys
    /// `0`, `r`, `i` and `q` of its console), with the end of what was said before.
    pub fn describe_hang(&self) -> String {
        let before = self.console();
        // Three times Ctrl-A makes Xen the reader of its serial console.
        if let Err(error) = self.type_on_console(b"\x01\x01\x010riq") {
            return format!("{error:#}; the console's end:\n{}", tail(before.as_bytes(), 40));
        }
        let mut said = before.len();
        loop {
            thread::sleep(Duration::from_secs(5));
            let console = self.console();
            if console.len() == said {
                let answer = console.get(before.len()..).unwrap_or_default();
                let answer = if answer.is_empty() { "nothing: Xen hangs, or QEMU" } else { answer };
                return format!("the console's end:\n{}\nXen, asked:\n{answer}", tail(before.as_bytes(), 40));
            }
            said = console.len();
        }
    }

    /// Waits until the console has said the text; gives its line. The end of QEMU ends the wait.
    pub fn wait_for(&self, needle: &str, timeout: Duration) -> Result<String> {
        self.wait_for_any(&[needle], timeout)
    }

    /// Waits until the console has said one of the texts; gives its line. The end of QEMU ends the wait.
    pub fn wait_for_any(&self, needles: &[&str], timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut text = lock(&self.console.text);
        // Up to here no whole line has it.
        let mut seen = 0;
        loop {
            while let Some(length) = line_length(text.bytes.get(seen..).unwrap_or_default()) {
                let line = String::from_utf8_lossy(text.bytes.get(seen..seen + length).unwrap_or_default());
                if needles.iter().any(|needle| line.contains(needle)) {
                    return Ok(line.trim_end().to_owned());
                }
                seen += length;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.ended || left.is_zero() {
                let why = if text.ended { "QEMU ended before" } else { "in vain was waited for" };
                bail!("{why} {needles:?}; the console's end:\n{}", tail(&text.bytes, 40));
            }
            text = self.console.grown.wait_timeout(text, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for QEMU's own end.
    pub fn wait_end(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = lock(&self.child).try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(anyhow!("the machine still runs after {timeout:?}"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The signal that QEMU died of, where it does within some time: nothing that a machine does should bring that about.
    pub fn died_of(&self, patience: Duration) -> Option<i32> {
        self.wait_end(patience).ok()?.signal()
    }

    /// Whether QEMU runs.
    pub fn is_running(&self) -> bool {
        lock(&self.child).try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(keep) = std::env::var_os("OXIDOM_KEEP_CONSOLE") {
            fs::write(keep, self.console()).ok();
        }
        let mut child = lock(&self.child);
        child.kill().ok();
        child.wait().ok();
    }
}

/// The length of the first line with its end, if its end is there.
fn line_length(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1)
}

/// The last lines of a console.
pub(crate) fn tail(bytes: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<_> = text.lines().rev().take(lines).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn follow(mut output: impl Read, mut errors: impl Read, mut log: File, console: &Console) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        log.write_all(bytes).ok();
        let mut text = lock(&console.text);
        text.bytes.extend_from_slice(bytes);
        if text.mirror {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes).ok();
            stdout.flush().ok();
        }
        console.grown.notify_all();
    }
    let mut said = Vec::new();
    errors.read_to_end(&mut said).ok();
    let mut text = lock(&console.text);
    if !said.is_empty() {
        text.bytes.extend_from_slice(b"\nQEMU: ");
        text.bytes.extend_from_slice(&said);
    }
    text.ended = true;
    console.grown.notify_all();
}

/// A NIC, for QEMU's command line.
fn add_nic(add: &mut impl FnMut(&str, String), index: usize, nic: &Nic) {
    let slot = format!("{:x}", nic.slot);
    let device = match &nic.model {
        NicModel::Emulated(name) => format!("{name},netdev=n{index},mac={},addr={slot},bus=pcie.0", nic.mac),
        NicModel::VfioUser(path) => {
            let socket = json!({ "type": "unix", "path": path });
            return add(
                "-device",
                json!({ "driver": "vfio-user-pci", "socket": socket, "addr": slot, "bus": "pcie.0" }).to_string(),
            );
        }
        // The lab has replaced it by its socket; without one, an empty slot.
        NicModel::Served(_) => return,
    };
    let network = match &nic.network {
        Network::User => format!("user,id=n{index}"),
        Network::Socket(path) => {
            format!("stream,id=n{index},server=off,addr.type=unix,addr.path={}", path.display())
        }
        // The lab has replaced it by its socket; without one, a NIC without a cable.
        Network::Wire(_) | Network::Port(_) => format!("hubport,id=n{index},hubid={index}"),
    };
    add("-netdev", network);
    add("-device", device);
}

/// A controller with its disks, for QEMU's command line.
fn add_controller(add: &mut impl FnMut(&str, String), index: usize, controller: &DiskController) {
    let slot = format!("{:x}", controller.slot);
    match controller.kind {
        ControllerKind::Nvme => add("-device", format!("nvme,id=c{index},serial=lab{index},addr={slot}")),
        ControllerKind::Ahci => add("-device", format!("ich9-ahci,id=c{index},addr={slot}")),
    }
    for (place, disk) in controller.disks.iter().enumerate() {
        let drive = format!("c{index}d{place}");
        let medium = match &disk.medium {
            DiskMedium::Image(path) => format!("file={}", path.display()),
            DiskMedium::Server(path) => {
                format!("file.driver=nbd,file.server.type=unix,file.server.path={}", path.display())
            }
        };
        add("-drive", format!("{medium},if=none,id={drive},format=raw,discard=unmap,cache=writeback"));
        let block = disk.logical_block;
        match controller.kind {
            ControllerKind::Nvme => {
                let sizes = format!("logical_block_size={block},physical_block_size={block}");
                add("-device", format!("nvme-ns,drive={drive},bus=c{index},nsid={},{sizes}", place + 1));
            }
            ControllerKind::Ahci => {
                let identity = format!("serial=lab{index}-{place},discard_granularity=512");
                add("-device", format!("ide-hd,drive={drive},bus=c{index}.{place},{identity}"));
            }
        }
    }
}

/// What the machine starts with, for QEMU's command line.
fn add_start(add: &mut impl FnMut(&str, String), config: &MachineConfig) {
    match config.start {
        Start::Xen => {
            // In -initrd a comma separates modules, and two of them stand for one.
            let quote = |text: &str| text.replace(',', ",,");
            let mut modules = format!("{} {}", config.kernel.display(), quote(&config.kernel_arguments));
            if let Some(initramfs) = &config.initramfs {
                modules += &format!(",{}", initramfs.display());
            }
            add("-kernel", config.hypervisor.display().to_string());
            add(
                "-append",
                format!("console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all {}", config.xen_arguments),
            );
            add("-initrd", modules);
        }
        Start::Kernel => {
            add("-kernel", config.kernel.display().to_string());
            add("-append", config.kernel_arguments.clone());
            if let Some(initramfs) = &config.initramfs {
                add("-initrd", initramfs.display().to_string());
            }
        }
        Start::Drive => {}
    }
}

/// Dom0's own drives, for QEMU's command line: in the slots below that of the lab's port.
fn add_own_drives(add: &mut impl FnMut(&str, String), drives: &[OwnDrive]) {
    for (index, drive) in drives.iter().enumerate() {
        let OwnDrive { image, format, read_only } = drive;
        let read_only = if *read_only { "on" } else { "off" };
        add("-drive", format!("file={},if=none,id=own{index},format={format},readonly={read_only}", image.display()));
        add("-device", format!("virtio-blk-pci,drive=own{index},addr={:x},bootindex={}", 0x1a + index, index + 1));
    }
}

/// QEMU's command line.
fn arguments(config: &MachineConfig) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["-nodefaults", "-M", "q35,kernel-irqchip=split", "-smp", "1", "-accel", "tcg"].map(str::to_owned).into();
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    let cpu = "max,xsave=off,erms=off,fsrm=off";
    match config.clock {
        Clock::Host => add("-cpu", cpu.into()),
        Clock::Instructions => {
            add("-icount", "shift=0".into());
            // QEMU since 10 has an x2APIC, and 10 ends with "Bad icount read" soon after Xen has switched to it.
            add("-cpu", format!("{cpu},x2apic=off"));
        }
    }
    add("-m", config.memory.to_string());
    add("-display", "none".into());
    add("-monitor", "none".into());
    add("-chardev", "stdio,id=console,signal=off".into());
    add("-serial", "chardev:console".into());
    add_start(&mut add, config);
    let served = |nic: &Nic| matches!(nic.model, NicModel::VfioUser(_));
    // QEMU's vfio-user-pci wants to know of new mappings, which the IOMMU's driver tells in caching mode alone.
    let caching = if config.nics.iter().any(served) { ",caching-mode=on" } else { "" };
    add("-device", format!("intel-iommu,intremap=on{caching}"));
    for (index, nic) in config.nics.iter().enumerate() {
        add_nic(&mut add, index, nic);
    }
    for (index, controller) in config.controllers.iter().enumerate() {
        add_controller(&mut add, index, controller);
    }
    add_own_drives(&mut add, &config.drives);
    if let Some(port) = &config.port {
        add("-chardev", format!("socket,id=port,path={},server=on,wait=off", port.display()));
        add("-device", "virtio-serial-pci,addr=1e".into());
        add("-device", "virtserialport,chardev=port,name=lab".into());
    }
    arguments.push("-no-reboot".into());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(config: &MachineConfig, flag: &str) -> Vec<String> {
        let arguments = arguments(config);
        arguments.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].clone()).collect()
    }

    #[test]
    fn a_machine_starts_with_xen_a_kernel_or_a_drive() {
        let drive = |image: &str, format, read_only| OwnDrive { image: image.into(), format, read_only };
        let mut config = MachineConfig {
            hypervisor: "/xen".into(),
            kernel: "/linux".into(),
            kernel_arguments: "a,b".into(),
            initramfs: Some("/root.img".into()),
            drives: vec![drive("/disk", "qcow2", false), drive("/files", "raw", true)],
            ..MachineConfig::default()
        };
        assert_eq!(values(&config, "-kernel"), ["/xen"]);
        assert_eq!(values(&config, "-initrd"), ["/linux a,,b,/root.img"]);
        config.start = Start::Kernel;
        assert_eq!(values(&config, "-kernel"), ["/linux"]);
        assert_eq!(values(&config, "-append"), ["a,b"]);
        assert_eq!(values(&config, "-initrd"), ["/root.img"]);
        config.start = Start::Drive;
        assert!(values(&config, "-kernel").is_empty() && values(&config, "-append").is_empty());
        let drives = values(&config, "-drive");
        assert_eq!(drives[0], "file=/disk,if=none,id=own0,format=qcow2,readonly=off");
        assert_eq!(drives[1], "file=/files,if=none,id=own1,format=raw,readonly=on");
        let devices = values(&config, "-device");
        assert_eq!(
            devices[1..],
            ["virtio-blk-pci,drive=own0,addr=1a,bootindex=1", "virtio-blk-pci,drive=own1,addr=1b,bootindex=2"]
        );
    }

    #[test]
    fn a_nic_is_qemus_or_a_servers() {
        let network = Network::Socket("/s/n0".into());
        let igb = Nic { model: NicModel::Emulated("igb"), slot: 3, mac: "52:54:00:12:34:56".into(), network };
        let served = Nic { model: NicModel::VfioUser("/s/\"d,1".into()), slot: 0x1d, ..igb.clone() };
        let config = MachineConfig { nics: vec![igb.clone()], ..MachineConfig::default() };
        let netdev = "stream,id=n0,server=off,addr.type=unix,addr.path=/s/n0";
        assert_eq!(values(&config, "-netdev"), [netdev]);
        let igb_device = "igb,netdev=n0,mac=52:54:00:12:34:56,addr=3,bus=pcie.0";
        assert_eq!(values(&config, "-device"), ["intel-iommu,intremap=on", igb_device]);

        let config = MachineConfig { nics: vec![igb, served], ..MachineConfig::default() };
        assert_eq!(values(&config, "-netdev"), [netdev]);
        let devices = values(&config, "-device");
        assert_eq!(devices[..2], ["intel-iommu,intremap=on,caching-mode=on", igb_device]);
        let device: serde_json::Value = serde_json::from_str(&devices[2]).expect("it is JSON");
        let socket = json!({ "type": "unix", "path": "/s/\"d,1" });
        assert_eq!(device, json!({ "driver": "vfio-user-pci", "socket": socket, "addr": "1d", "bus": "pcie.0" }));
    }
}

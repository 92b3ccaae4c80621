//! A dom0 under real Xen, its guests, and commands for them. Host.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab_agent::frame::{Kind, encode_guest, encode_put};

use crate::channel::{Answer, Channel};
use crate::emulator::Emulator;
use crate::host;
use crate::machine::{
    self, Clock, DeviceServer, DiskController, Machine, MachineConfig, Misbehaviour, Network, Nic, NicModel, SfpModule,
};
use crate::packages::{GuestKind, Row, StorePlace, Tree};
use crate::root::{self, Equipment, Extra};
use crate::scratch::Scratch;
use wire::Wire;

/// How long a command may take if nothing else is said: generous, as machines differ.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long dom0 may take to say that it is there, after a command that had no end.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// Memory of a Linux guest, in MiB: with 96, Debian's kernel may run out of it as it boots.
pub const GUEST_MEMORY: u32 = 128;

/// Lines of the config of each domain of the lab. By default Xen emulates RDTSC where it does not trust the machine's counter, and that of an
/// emulated machine it does not trust: each look at a clock would then be a trap, as on no real machine.
pub const NATIVE_CLOCK: &str = "tsc_mode = \"native\"\n";

/// Spares Linux the tests of its ciphers: they take a sixth of the time in which a guest boots.
const NO_SELF_TESTS: &str = "cryptomgr.notests";

/// Where dom0 has the image of the xenstore's domain.
const STORE_IMAGE: &str = "usr/lib/oxidom/xenstore-stubdom";

/// The machine and the dom0 to boot.
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// The row of the matrix.
    pub row: Row,
    /// The image of the xenstore's domain, for the rows that have one.
    pub store: Option<PathBuf>,
    /// A word for that domain's command line.
    pub store_word: Option<&'static str>,
    /// The memory of the xenstore's domain, in MiB.
    pub store_memory: u32,
    /// The machine's memory, in MiB.
    pub memory: u32,
    /// Dom0's memory, in MiB.
    pub dom0_memory: u32,
    /// NICs.
    pub nics: Vec<Nic>,
    /// Emulated disk controllers.
    pub controllers: Vec<DiskController>,
    /// Files for dom0's root.
    pub files: Vec<Extra>,
    /// Files for the guests' root.
    pub guest_files: Vec<Extra>,
    /// The equipment of dom0 and guests.
    pub equipment: Equipment,
    /// Also make a Linux driver domain's root, `/boot/driver.img` in dom0.
    pub driver_root: bool,
    /// A shell on dom0's console, for people.
    pub shell: bool,
    /// More for Xen's command line.
    pub xen_arguments: String,
    /// The machine's clocks.
    pub clock: Clock,
    /// A program of dom0's that starts store and toolstack with the word `start`, in place of the lab.
    pub start: Option<String>,
}

impl LabConfig {
    /// A machine of 3 GiB with a dom0 of 768 MiB and one e1000e at `00:03.0` on a wire.
    pub fn new(row: Row) -> Self {
        Self {
            row,
            store: None,
            store_word: None,
            store_memory: 8,
            memory: 3072,
            dom0_memory: 768,
            nics: vec![Nic::wired(0)],
            controllers: Vec::new(),
            files: Vec::new(),
            guest_files: Vec::new(),
            equipment: Equipment::Network,
            driver_root: false,
            shell: false,
            xen_arguments: String::new(),
            clock: Clock::default(),
            start: None,
        }
    }

    /// Puts a file of the host into dom0's root.
    pub fn put(&mut self, path: &str, mode: u32, file: &Path) -> Result<&mut Self> {
        let content = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        self.files.push(Extra { path: path.to_owned(), mode, content });
        Ok(self)
    }

    /// Puts a text into dom0's root, in place of the file that would be there.
    pub fn put_text(&mut self, path: &str, text: &str) {
        self.files.push(Extra { path: path.to_owned(), mode: 0o644, content: text.into() });
    }
}

impl Nic {
    /// The `index`th e1000e, in slot `3 + index`, on a wire of its own.
    pub fn wired(index: u8) -> Self {
        Self {
            model: NicModel::Emulated("e1000e"),
            slot: 3 + index,
            mac: format!("52:54:00:12:34:{:02x}", 0x56 + index),
            network: Network::Wire(Box::new(wire::Config::new("", index))),
        }
    }
}

/// The result of a command in dom0 or in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 and more for a signal.
    pub status: i32,
    /// Its stdout and stderr.
    pub stdout: String,
}

impl Output {
    /// The text of a command that succeeded; an error with its text if it did not.
    pub fn success(self) -> Result<String> {
        if self.status != 0 {
            bail!("status {}: {}", self.status, self.stdout.trim_end());
        }
        Ok(self.stdout)
    }
}

impl From<Answer> for Output {
    fn from(answer: Answer) -> Self {
        Self { status: answer.status, stdout: String::from_utf8_lossy(&answer.output).into_owned() }
    }
}

/// A Linux guest's config, for `xl create`.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// The domain's name.
    pub name: String,
    /// Memory, in MiB.
    pub memory: u32,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Each a `vif` in `xl`'s words, as `backend=netdom,mac=...`.
    pub vifs: Vec<String>,
    /// Each a `pci` in `xl`'s words, as `00:04.0`.
    pub pci: Vec<String>,
    /// Each a `disk` in `xl`'s words, as `format=raw,vdev=xvda,access=rw,backend=blkdom,backendtype=phy,target=nvme0n1`.
    pub disks: Vec<String>,
    /// The kernel: `/boot/vmlinux`, or `/boot/vmlinuz` as Debian packs it.
    pub kernel: String,
    /// The root: `/boot/guest.img` or `/boot/driver.img`.
    pub root: String,
    /// `guest` or `driver`.
    pub role: String,
    /// More for the kernel's command line.
    pub arguments: String,
    /// More lines of the config.
    pub more: String,
    /// The kind of domain, where it owns no device: [`Lab::create`] takes the row's.
    pub kind: GuestKind,
}

impl GuestConfig {
    /// A guest of [`GUEST_MEMORY`] with no device.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            memory: GUEST_MEMORY,
            vcpus: 1,
            vifs: Vec::new(),
            pci: Vec::new(),
            disks: Vec::new(),
            kernel: "/boot/vmlinux".to_owned(),
            root: "/boot/guest.img".to_owned(),
            role: "guest".to_owned(),
            arguments: String::new(),
            more: String::new(),
            kind: GuestKind::Pv,
        }
    }

    /// With one more disk.
    pub fn disk(mut self, disk: &str) -> Self {
        self.disks.push(disk.to_owned());
        self
    }

    /// With one more vif.
    pub fn vif(mut self, vif: &str) -> Self {
        self.vifs.push(vif.to_owned());
        self
    }
}

/// The text of the config, as `xl` reads it.
impl fmt::Display for GuestConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, memory, vcpus, kernel, root, role, arguments, more, .. } = self;
        let kind = match self.kind {
            GuestKind::Pvh if self.pci.is_empty() => "pvh",
            _ => "pv",
        };
        writeln!(f, "name = \"{name}\"\ntype = \"{kind}\"\nkernel = \"{kernel}\"\nramdisk = \"{root}\"")?;
        // A driver domain is measured, and boots as Debian's kernel does.
        let tests = if role == "guest" { NO_SELF_TESTS } else { "" };
        writeln!(
            f,
            "memory = {memory}\nvcpus = {vcpus}\nextra = \"console=hvc0 rdinit=/init quiet {tests} lab.role={role} {arguments}\""
        )?;
        writeln!(f, "vif = {:?}\npci = {:?}\ndisk = {:?}\n{NATIVE_CLOCK}{more}", self.vifs, self.pci, self.disks)
    }
}

/// A machine with dom0 up. Dropping it ends everything.
pub struct Lab {
    channel: Channel,
    machine: Machine,
    row: Row,
    nics: Vec<Nic>,
    controllers: Vec<DiskController>,
    /// By the number of the NIC that they play. After the machine: QEMU is their peer.
    servers: BTreeMap<usize, Box<dyn DeviceServer>>,
    /// After the machine and the servers, which are their peers.
    wires: Vec<Option<Wire>>,
    /// Dom0 answered nothing, a command that does nothing included: it is asked no more, as each question would take its whole patience.
    hangs: AtomicBool,
    /// From QEMU's start to the toolstack's readiness.
    pub boot_time: Duration,
    /// Dom0's own uptime then.
    pub dom0_uptime: f64,
}

impl Lab {
    /// Prepares the row's root and boots it; returns when the toolstack answers.
    ///
    /// QEMU's software emulation now and then spoils a register of a booting dom0, which then crashes before anything of ours
    /// has run. Such a boot is tried again, and said.
    pub fn boot(config: &LabConfig) -> Result<Self> {
        Self::insist(|| Self::boot_once(config), |_| true)
    }

    /// Boots again where dom0 died in a way that may be the emulation's.
    pub(crate) fn insist(boot: impl Fn() -> Result<Self>, may_be: impl Fn(&Dom0Died) -> bool) -> Result<Self> {
        const ATTEMPTS: u32 = 3;
        let mut attempt = 1;
        loop {
            match boot() {
                Err(error) if attempt < ATTEMPTS && error.downcast_ref().is_some_and(&may_be) => {
                    attempt += 1;
                    eprintln!(
                        "lab: {error}\nlab: dom0 died before its toolstack was up; attempt {attempt} of {ATTEMPTS}"
                    );
                }
                result => return result,
            }
        }
    }

    fn boot_once(config: &LabConfig) -> Result<Self> {
        host::provide(host::BOOT)?;
        let emulator = Emulator::prepare()?;
        let tree = Tree::prepare(config.row.release)?;
        let directory = Scratch::new()?;
        let guest = root::guest(&tree, config.equipment, &config.guest_files)?;
        // Dom0 has the last of a name.
        let mut files = match config.row.store {
            StorePlace::OcamlDaemon => root::oxenstored(&tree)?,
            StorePlace::Daemon | StorePlace::Domain => Vec::new(),
        };
        files.extend_from_slice(&config.files);
        if config.driver_root {
            let content = root::driver(&tree, &[])?;
            files.push(Extra { path: "boot/driver.img".to_owned(), mode: 0o644, content });
        }
        let mut arguments = config.start.as_ref().map_or_else(String::new, |start| format!(" lab.start={start}"));
        if config.row.store == StorePlace::Domain {
            let image = config.store.as_ref();
            let image = image.with_context(|| format!("{} wants the image of the xenstore's domain", config.row))?;
            let content = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
            files.push(Extra { path: STORE_IMAGE.to_owned(), mode: 0o644, content });
            arguments += &format!(" lab.store=/{STORE_IMAGE} lab.store-memory={}", config.store_memory);
            if let Some(word) = config.store_word {
                arguments += &format!(" lab.store-word={word}");
            }
        }
        if config.row.store == StorePlace::OcamlDaemon {
            arguments += &format!(" lab.daemon={}", root::OXENSTORED);
        }
        let initramfs = directory.path().join("dom0.img");
        fs::write(&initramfs, root::dom0(&tree, config.equipment, &guest, &files)?)?;
        let memory = config.dom0_memory;
        if config.shell {
            arguments += " lab.shell=1";
        }
        let machine_config = MachineConfig {
            hypervisor: tree.hypervisor(),
            xen_arguments: format!("dom0_mem={memory}M,max:{memory}M {}", config.xen_arguments),
            kernel: tree.kernel(),
            kernel_arguments: format!("console=hvc0 rdinit=/init {NO_SELF_TESTS} lab.role=dom0 loglevel=5{arguments}"),
            initramfs: Some(initramfs),
            memory: config.memory,
            nics: config.nics.clone(),
            controllers: config.controllers.clone(),
            clock: config.clock,
            ..MachineConfig::default()
        };
        Self::start(&emulator, config.row, machine_config, directory, PATIENCE)
    }

    /// Starts a machine with its wires, its servers and the lab's port, and waits for the agent's first word.
    pub(crate) fn start(
        emulator: &Emulator,
        row: Row,
        mut config: MachineConfig,
        directory: Scratch,
        patience: Duration,
    ) -> Result<Self> {
        let port = directory.path().join("port");
        let (mut nics, wires) = start_wires(&config.nics, directory.path())?;
        let servers = start_servers(&mut nics, directory.path())?;
        config.nics.clone_from(&nics);
        config.port = Some(port.clone());
        let start = Instant::now();
        let machine = Machine::start(emulator, &config, directory)?;
        let channel = Channel::connect(&port).map_err(|error| error.context(machine.console()))?;
        let dom0_uptime = wait_ready(&machine, &channel, patience)?;
        let (controllers, boot_time) = (config.controllers, start.elapsed());
        let hangs = AtomicBool::new(false);
        Ok(Self { channel, machine, row, nics, controllers, servers, wires, hangs, boot_time, dom0_uptime })
    }

    /// The row that was booted.
    pub fn row(&self) -> Row {
        self.row
    }

    /// The machine's NICs, as QEMU has them.
    pub fn nics(&self) -> &[Nic] {
        &self.nics
    }

    /// The machine's disk controllers.
    pub fn controllers(&self) -> &[DiskController] {
        &self.controllers
    }

    /// The wire that the machine's `index`th NIC is on.
    pub fn wire(&self, index: usize) -> Result<&Wire> {
        let wire = self.wires.get(index).and_then(Option::as_ref);
        wire.with_context(|| format!("the machine's NIC {index} is not on a wire of the lab"))
    }

    /// Pulls the cable of the machine's `index`th NIC out, or puts it in.
    ///
    /// # Errors
    /// The error of QEMU, or of the server that plays the NIC.
    pub fn set_link(&self, index: usize, up: bool) -> Result<()> {
        self.servers.get(&index).map_or_else(|| self.machine.set_link(index, up), |server| server.set_link(up))
    }

    /// The offences of drivers against the datasheet of the machine's `index`th NIC, where the lab serves it; none for another.
    pub fn misuse(&self, index: usize) -> Vec<String> {
        self.servers.get(&index).map_or_else(Vec::new, |server| server.misuse())
    }

    /// Has the machine's `index`th NIC misbehave.
    ///
    /// # Errors
    /// Where the lab does not serve it.
    pub fn misbehave(&self, index: usize, how: Misbehaviour) -> Result<()> {
        let server = self.servers.get(&index);
        server.with_context(|| format!("the lab does not serve NIC {index}"))?.misbehave(how);
        Ok(())
    }

    /// Puts a module into the cage of the machine's `index`th NIC, in place of the one that is there; none takes that one out.
    ///
    /// # Errors
    /// The lab does not serve that NIC, or it has no cage.
    pub fn change_module(&self, index: usize, module: Option<SfpModule>) -> Result<()> {
        let server = self.servers.get(&index);
        server.with_context(|| format!("the lab does not serve NIC {index}"))?.change_module(module)
    }

    /// The machine, for its console.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The lab's directory: sockets, the console's log.
    pub fn directory(&self) -> PathBuf {
        self.machine.directory().to_owned()
    }

    /// Asks dom0's agent. Where it gives no answer in time, and none to a command that does nothing, the error says where the machine hangs.
    fn ask(&self, kind: Kind, payload: Vec<u8>, timeout: Duration, watch: impl FnMut(&[u8])) -> Result<Answer> {
        if self.hangs.load(Ordering::Relaxed) {
            bail!("dom0 hangs since an earlier command");
        }
        let start = Instant::now();
        let answer = self.channel.ask(kind, payload, timeout, watch);
        match answer {
            Err(error)
                if start.elapsed() >= timeout
                    && self.machine.is_running()
                    && self.channel.ask(Kind::Run, "true".into(), SIGN_OF_LIFE, |_| ()).is_err() =>
            {
                self.hangs.store(true, Ordering::Relaxed);
                Err(error.context(format!("dom0 answers nothing; {}", self.machine.describe_hang())))
            }
            answer => answer,
        }
    }

    /// Runs a shell command in dom0; any status is a result.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_for(command, PATIENCE)
    }

    /// Runs a shell command in dom0 that may take longer, or must not take as long.
    pub fn run_for(&self, command: &str, timeout: Duration) -> Result<Output> {
        let answer = self.ask(Kind::Run, command.into(), timeout, |_| ());
        answer.map(Output::from).with_context(|| format!("in dom0: {command}"))
    }

    /// Runs a shell command in dom0 and passes its output on as it comes.
    pub fn run_watched(&self, command: &str, timeout: Duration, watch: impl FnMut(&[u8])) -> Result<Output> {
        let answer = self.ask(Kind::Run, command.into(), timeout, watch);
        answer.map(Output::from).with_context(|| format!("in dom0: {command}"))
    }

    /// Runs a shell command in dom0 that must succeed; gives its output.
    pub fn must(&self, command: &str) -> Result<String> {
        self.run(command)?.success().with_context(|| format!("in dom0: {command}"))
    }

    /// Writes a file in dom0.
    pub fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.ask(Kind::Put, encode_put(path, mode, content), PATIENCE, |_| ())
            .with_context(|| format!("writing {path} in dom0"))?;
        Ok(())
    }

    /// Reads a file of dom0.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let answer = self.ask(Kind::Get, path.into(), PATIENCE, |_| ());
        Ok(answer.with_context(|| format!("reading {path} in dom0"))?.output)
    }

    /// Asks until the command succeeds; gives its output then.
    pub fn wait_until(&self, command: &str, timeout: Duration) -> Result<String> {
        // One command that polls in dom0, in place of many round trips.
        let script = format!(
            "while ! {{ {command}; }} >/tmp/.wait.$$ 2>&1; do usleep 20000 2>/dev/null || sleep 0.02; done; cat /tmp/.wait.$$; rm /tmp/.wait.$$"
        );
        self.run_for(&script, timeout)?.success().with_context(|| format!("in dom0: {command}"))
    }

    /// Waits until a xenstore node has a value.
    pub fn wait_for_node(&self, path: &str, value: &str, timeout: Duration) -> Result<()> {
        self.wait_until(&format!("test \"$(xenstore-read {path})\" = \"{value}\""), timeout).map(drop)
    }

    /// The number of a domain.
    pub fn domain_id(&self, name: &str) -> Result<u32> {
        let text = self.must(&format!("xl domid {name}"))?;
        text.trim().parse().with_context(|| format!("xl domid says '{text}'"))
    }

    /// A domain's console since its creation.
    pub fn console(&self, domain: &str) -> Result<String> {
        let path = format!("/var/log/xen/console/guest-{domain}.log");
        Ok(self.run(&format!("cat {path} 2>/dev/null"))?.stdout)
    }

    /// An error followed by the end of a domain's console, which mostly has its reason.
    ///
    /// # Errors
    /// The error given.
    pub fn with_console<T>(&self, domain: &str, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let console = self.console(domain).unwrap_or_default();
            let end = machine::tail(console.as_bytes(), 40);
            anyhow::anyhow!("{error:#}\nthe console of {domain} ends:\n{end}")
        })
    }

    /// Waits until a domain's console has said the text.
    pub fn wait_for_console(&self, domain: &str, needle: &str, timeout: Duration) -> Result<String> {
        let command = format!("grep -m1 -F -- '{needle}' /var/log/xen/console/guest-{domain}.log");
        self.wait_until(&command, timeout).with_context(|| {
            let console = self.console(domain).unwrap_or_default();
            format!("{domain} never said '{needle}'; its console's end:\n{}", machine::tail(console.as_bytes(), 40))
        })
    }

    /// Creates a Linux guest and waits until it takes commands.
    pub fn create(&self, config: &GuestConfig) -> Result<Guest<'_>> {
        let path = format!("/etc/xen/{}.cfg", config.name);
        let config = GuestConfig { kind: self.row.guests, ..config.clone() };
        self.put(&path, 0o644, config.to_string().as_bytes())?;
        self.must(&format!("xl create -q {path}"))?;
        let guest = self.guest(&config.name)?;
        guest.run("true").with_context(|| {
            let console = self.console(&config.name).unwrap_or_default();
            format!("{} did not come up; its console's end:\n{}", config.name, machine::tail(console.as_bytes(), 40))
        })?;
        Ok(guest)
    }

    /// A Linux guest that exists.
    pub fn guest(&self, name: &str) -> Result<Guest<'_>> {
        Ok(Guest { lab: self, id: self.domain_id(name)?, name: name.to_owned() })
    }

    /// Destroys a domain when its work is done; of two errors the work's is told, which came first.
    ///
    /// # Errors
    /// The work's, or those of `xl destroy`.
    pub fn destroy_after<T>(&self, name: &str, result: Result<T>) -> Result<T> {
        let destroyed = self.must(&format!("xl destroy {name}"));
        result.and_then(|value| destroyed.map(|_| value))
    }

    /// Makes a NIC assignable to a domain; gives its address in `xl`'s words.
    pub fn make_assignable(&self, nic: usize) -> Result<String> {
        let bdf = self.nics.get(nic).with_context(|| format!("the machine has no NIC {nic}"))?.bdf();
        self.hide(&bdf)
    }

    /// Hands a device to pciback, for `pci=` of a driver domain's config; gives its slot.
    pub fn hide(&self, bdf: &str) -> Result<String> {
        self.must(&format!("xl pci-assignable-list | grep -q {bdf} || xl pci-assignable-add {bdf}"))?;
        Ok(bdf.to_owned())
    }
}

/// Starts the wires, each on a socket in the directory, and gives the NICs as QEMU is to connect them.
fn start_wires(nics: &[Nic], directory: &Path) -> Result<(Vec<Nic>, Vec<Option<Wire>>)> {
    let mut connected = nics.to_vec();
    let mut wires = Vec::new();
    let path = |index: usize| directory.join(format!("n{index}"));
    for (index, nic) in connected.iter_mut().enumerate() {
        let mut started = None;
        match &nic.network {
            Network::Wire(config) => {
                let more = nics
                    .iter()
                    .enumerate()
                    .filter(|(_, other)| matches!(other.network, Network::Port(of) if of == index));
                let ports = [index].into_iter().chain(more.map(|(other, _)| other)).map(path).collect();
                started = Some(Wire::start(wire::Config { ports, ..(**config).clone() }).context("starting a wire")?);
                nic.network = Network::Socket(path(index));
            }
            Network::Port(_) => nic.network = Network::Socket(path(index)),
            Network::User | Network::Socket(_) => {}
        }
        wires.push(started);
    }
    Ok((connected, wires))
}

/// Starts the servers of NICs that QEMU lacks, each on a socket in the directory, and has QEMU connect to them.
fn start_servers(nics: &mut [Nic], directory: &Path) -> Result<BTreeMap<usize, Box<dyn DeviceServer>>> {
    let mut servers = BTreeMap::new();
    for (index, nic) in nics.iter_mut().enumerate() {
        if let NicModel::Served(model) = &nic.model {
            let socket = directory.join(format!("d{index}"));
            let wire = match &nic.network {
                Network::Socket(path) => Some(path.as_path()),
                Network::Wire(_) | Network::Port(_) => None,
                Network::User => bail!("NIC {index}, {model:?}: QEMU's own network has no socket for it"),
            };
            let server = model.serve(nic, &socket, wire).with_context(|| format!("serving NIC {index}, {model:?}"))?;
            servers.insert(index, server);
            nic.model = NicModel::VfioUser(socket);
        }
    }
    Ok(servers)
}

/// Dom0 crashed, or never spoke, before its toolstack was up.
#[derive(Debug)]
pub(crate) struct Dom0Died {
    why: &'static str,
    console: String,
}

impl Dom0Died {
    const CRASHED: &str = "it crashed";

    /// Xen saw it crash.
    pub(crate) fn crashed(&self) -> bool {
        self.why == Self::CRASHED
    }
}

impl std::error::Error for Dom0Died {}

impl fmt::Display for Dom0Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dom0 did not come up: {}; the console's end:\n{}", self.why, self.console)
    }
}

fn wait_ready(machine: &Machine, channel: &Channel, patience: Duration) -> Result<f64> {
    let deadline = Instant::now() + patience;
    let died = |why| Dom0Died { why, console: machine::tail(machine.console().as_bytes(), 60) };
    while Instant::now() < deadline {
        match channel.poll_ready(Duration::from_millis(200)) {
            Ok(Some(uptime)) => return Ok(uptime),
            Ok(None) if machine.is_running() => {}
            Ok(None) => return Err(died("QEMU ended").into()),
            Err(_) => return Err(died("its channel to the lab ended").into()),
        }
        if machine.has_said("Hardware Dom0 crashed") {
            return Err(died(Dom0Died::CRASHED).into());
        }
    }
    Err(died("no word from its agent").into())
}

/// A Linux guest that takes commands.
pub struct Guest<'lab> {
    lab: &'lab Lab,
    id: u32,
    name: String,
}

impl Guest<'_> {
    /// Its domain's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a shell command in the guest; any status is a result. Its output comes at its end, and at most 96 KiB of it.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_for(command, PATIENCE)
    }

    /// Runs a shell command in the guest with another patience.
    pub fn run_for(&self, command: &str, timeout: Duration) -> Result<Output> {
        let answer = self.lab.ask(Kind::Guest, encode_guest(self.id, command), timeout, |_| ());
        answer.map(Output::from).with_context(|| format!("in {}: {command}", self.name))
    }

    /// Runs a shell command in the guest that must succeed; gives its output.
    pub fn must(&self, command: &str) -> Result<String> {
        self.run(command)?.success().with_context(|| format!("in {}: {command}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::machine::DeviceModel;

    /// A model whose servers note their orders.
    #[derive(Debug, Default)]
    struct Noting(Arc<Mutex<Vec<String>>>);

    struct NotingServer(Arc<Mutex<Vec<String>>>);

    impl DeviceModel for Noting {
        fn serve(&self, nic: &Nic, socket: &Path, wire: Option<&Path>) -> Result<Box<dyn DeviceServer>> {
            self.0.lock().unwrap().push(format!("{} {} {wire:?}", nic.mac, socket.display()));
            Ok(Box::new(NotingServer(Arc::clone(&self.0))))
        }
    }

    impl DeviceServer for NotingServer {
        fn set_link(&self, up: bool) -> Result<()> {
            self.0.lock().unwrap().push(format!("link {up}"));
            Ok(())
        }

        fn misuse(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }

        fn misbehave(&self, how: Misbehaviour) {
            self.0.lock().unwrap().push(format!("{how:?}"));
        }

        fn change_module(&self, module: Option<SfpModule>) -> Result<()> {
            self.0.lock().unwrap().push(format!("{module:?}"));
            Ok(())
        }
    }

    #[test]
    fn a_served_nic_is_behind_its_servers_socket() {
        let notes = Arc::default();
        let model = NicModel::Served(Arc::new(Noting(Arc::clone(&notes))));
        let network = Network::Socket("/s/n1".into());
        let mut nics = [Nic::wired(0), Nic { model: model.clone(), network, ..Nic::wired(1) }];
        let servers = start_servers(&mut nics, Path::new("/s")).unwrap();
        assert_eq!(servers.keys().collect::<Vec<_>>(), [&1]);
        assert!(matches!(&nics[0].model, NicModel::Emulated("e1000e")));
        assert!(matches!(&nics[1].model, NicModel::VfioUser(path) if path == Path::new("/s/d1")));
        servers[&1].set_link(false).unwrap();
        servers[&1].misbehave(Misbehaviour::Hang(true));
        assert_eq!(*notes.lock().unwrap(), ["52:54:00:12:34:57 /s/d1 Some(\"/s/n1\")", "link false", "Hang(true)"]);

        let mut nics = [Nic { model, network: Network::User, ..Nic::wired(0) }];
        assert!(start_servers(&mut nics, Path::new("/s")).is_err());
    }
}

//! A NIC for tests: speaks QEMU's stream framing to a wire, and has smoltcp behind it. Host.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

/// A socket path that no other test has.
pub(crate) fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("oxidom-wire-{}-{name}", std::process::id()))
}

/// The framed stream that QEMU would have.
pub(crate) struct Cable {
    stream: UnixStream,
    input: Vec<u8>,
    frames: VecDeque<Vec<u8>>,
    output: Vec<u8>,
}

impl Cable {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the wire listens");
        stream.set_nonblocking(true).expect("a socket can be non-blocking");
        Self { stream, input: Vec::new(), frames: VecDeque::new(), output: Vec::new() }
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.output.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.output.extend_from_slice(frame);
    }

    pub(crate) fn poll(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the wire hung up: {error}"),
            }
        }
        let mut piece = [0; 65536];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => panic!("the wire hung up"),
                Ok(length) => self.input.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the wire hung up: {error}"),
            }
            if self.input.len() > 1 << 20 {
                break;
            }
        }
        let mut at = 0;
        while let Some(prefix) = self.input[at..].first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            let Some(frame) = self.input.get(at + 4..at + 4 + length) else {
                break;
            };
            self.frames.push_back(frame.to_vec());
            at += 4 + length;
        }
        self.input.drain(..at);
    }

    /// The next frame, waiting for it at most `wait`.
    pub(crate) fn receive(&mut self, wait: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + wait;
        loop {
            self.poll();
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

struct CableDevice {
    cable: Cable,
    mtu: usize,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut Cable);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl Device for CableDevice {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.cable.frames.pop_front()?;
        Some((Rx(frame), Tx(&mut self.cable)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Tx<'_>> {
        (self.cable.output.len() < 256 * 1024).then_some(Tx(&mut self.cable))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// A host behind a cable.
pub(crate) struct Host {
    device: CableDevice,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    start: Instant,
}

impl Host {
    pub(crate) fn new(path: &Path, mac: [u8; 6], addresses: &[IpCidr], mtu: usize) -> Self {
        let mut device = CableDevice { cable: Cable::connect(path), mtu };
        let config = Config::new(EthernetAddress(mac).into());
        let mut interface = Interface::new(config, &mut device, StackInstant::ZERO);
        interface.update_ip_addrs(|list| list.extend(addresses.iter().copied()));
        Self { device, interface, sockets: SocketSet::new(Vec::new()), start: Instant::now() }
    }

    pub(crate) fn poll(&mut self) {
        self.device.cable.poll();
        let now = StackInstant::from_micros(self.start.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        self.device.cable.poll();
    }

    /// Polls until `done` says so.
    pub(crate) fn poll_until(&mut self, mut done: impl FnMut(&mut SocketSet<'static>) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !done(&mut self.sockets) {
            assert!(Instant::now() < end, "nothing happens any more");
            self.poll();
        }
    }

    pub(crate) fn connect(&mut self, to: impl Into<IpAddress>, port: u16, local: u16, buffer: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.connect(self.interface.context(), (to.into(), port), local).expect("a fresh socket connects");
        let handle = self.sockets.add(socket);
        self.poll_until(|sockets| sockets.get::<tcp::Socket<'_>>(handle).may_send());
        handle
    }

    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

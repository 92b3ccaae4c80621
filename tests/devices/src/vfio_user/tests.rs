//! The server against a client in the same process, which plays QEMU. Host.

use std::collections::VecDeque;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::protocol::{HEADER, Header, double, errno, irq, region, word, words};
use super::*;
use crate::ixgbe::registers::{self as reg};
use crate::ixgbe::{Ixgbe, Kind, cause};
use crate::ring::{ENABLE, offset};

/// How long anything may take on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the client's memory lies on the bus.
const MEMORY: u64 = 0x4000_0000;

fn path(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("vfio-user-{}-{number}-{name}", std::process::id()))
}

fn model() -> Ixgbe {
    Ixgbe::new(Kind::Sfp, [0x00, 0x1B, 0x21, 0xAA, 0xBB, 0x01])
}

/// QEMU, as far as the server sees it.
struct Client {
    stream: UnixStream,
    memory: Vec<u8>,
    replies: VecDeque<(Header, Vec<u8>)>,
    next: u16,
    transfers: usize,
}

impl Client {
    fn connect<M: Model + Send + 'static>(server: &Server<M>) -> Self {
        let stream = UnixStream::connect(server.socket()).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, memory: vec![0; 1 << 20], replies: VecDeque::new(), next: 100, transfers: 0 }
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        let mut head = [0; HEADER];
        self.stream.read_exact(&mut head).expect("a header");
        let header = Header::parse(head);
        let mut body = vec![0; header.size as usize - HEADER];
        self.stream.read_exact(&mut body).expect("a body");
        (header, body)
    }

    /// Takes one message; transfers are answered, replies kept.
    fn step(&mut self) {
        let (header, body) = self.receive();
        if header.is_reply() {
            self.replies.push_back((header, body));
            return;
        }
        let (address, count) = (double(&body, 0).expect("an address"), double(&body, 8).expect("a count") as usize);
        let place = address.checked_sub(MEMORY).map(|start| start as usize);
        let place = place.and_then(|start| self.memory.get_mut(start..start + count));
        let reply = match (header.command, place) {
            (command::DMA_READ, Some(place)) => Ok([&body[..16], place].concat()),
            (command::DMA_WRITE, Some(place)) => {
                place.copy_from_slice(&body[16..]);
                Ok(body[..16].to_vec())
            }
            (command::DMA_READ | command::DMA_WRITE, None) => Err(14),
            other => panic!("a request of the server's: {other:?}"),
        };
        self.transfers += 1;
        let (flags, error, body) = match reply {
            Ok(body) => (flag::REPLY, 0, body),
            Err(error) => (flag::REPLY | flag::ERROR, error, Vec::new()),
        };
        self.stream.write_all(&Header { flags, error, ..header }.message(&body)).expect("a reply goes");
    }

    fn send(&mut self, command: u16, flags: u32, body: &[u8], descriptors: &[OwnedFd]) -> u16 {
        self.next += 1;
        let message = Header { id: self.next, command, flags, ..Header::default() }.message(body);
        let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(&message)];
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &parts, rights, MsgFlags::empty(), None);
        assert_eq!(sent.expect("it goes"), message.len());
        self.next
    }

    fn ask(&mut self, command: u16, body: &[u8], descriptors: &[OwnedFd]) -> Result<Vec<u8>, u32> {
        let id = self.send(command, 0, body, descriptors);
        loop {
            if let Some(place) = self.replies.iter().position(|(header, _)| header.id == id) {
                let (header, body) = self.replies.remove(place).expect("a reply");
                assert_eq!(header.command, command);
                return if header.flags & flag::ERROR == 0 { Ok(body) } else { Err(header.error) };
            }
            self.step();
        }
    }

    fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        let body = [&offset.to_le_bytes()[..], &words([region, count])].concat();
        self.ask(command::REGION_READ, &body, &[]).map(|reply| {
            assert_eq!(reply[..16], body);
            reply[16..].to_vec()
        })
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), u32> {
        let body = [&offset.to_le_bytes()[..], &words([region, data.len() as u32]), data].concat();
        self.ask(command::REGION_WRITE, &body, &[]).map(|reply| assert_eq!(reply, body[..16]))
    }

    fn get(&mut self, register: usize) -> u32 {
        let bytes = self.read(0, register as u64, 4).expect("a register");
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    }

    fn set(&mut self, register: usize, value: u32) {
        self.write(0, register as u64, &value.to_le_bytes()).expect("a register");
    }

    fn irqs(&mut self, flags: u32, index: u32, start: u32, count: u32, descriptors: &[OwnedFd]) -> Result<(), u32> {
        self.ask(command::SET_IRQS, &words([20, flags, index, start, count]), descriptors).map(|_| ())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Serves transfers until `done`.
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "it takes too long");
            self.get(reg::STATUS);
        }
    }
}

fn event() -> (OwnedFd, OwnedFd) {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).expect("an eventfd");
    let event = OwnedFd::from(event);
    (event.try_clone().expect("a second"), event)
}

fn count(event: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    nix::unistd::read(event, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}

const EVENTS: u32 = irq::SET_EVENTFD | irq::SET_TRIGGER;

#[test]
fn a_device_tells_what_it_is() {
    let server = Server::start(model(), path("s"), None).expect("it starts");
    assert_eq!(server.state(), State::Waiting);
    let mut client = Client::connect(&server);
    let version =
        [&[0, 0, 0, 0][..], b"{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576}}\0"].concat();
    let reply = client.ask(command::VERSION, &version, &[]).expect("the version is known");
    assert_eq!((&reply[..4], reply.last()), (&[0, 0, 0, 0][..], Some(&0)));
    assert_eq!(server.state(), State::Connected);
    assert_eq!(client.ask(command::GET_INFO, &words([16, 0, 0, 0]), &[]), Ok(words([16, 3, 9, 5])));
    let mut sizes = Vec::new();
    for index in 0..9 {
        let reply = client.ask(command::GET_REGION_INFO, &words([32, 0, index, 0, 0, 0, 0, 0]), &[]).expect("a region");
        sizes.push(double(&reply, 16).expect("a size"));
    }
    assert_eq!(sizes, [512 << 10, 0, 0, 0, 16 << 10, 0, 0, 4096, 0]);
    let reply = client.ask(command::GET_IRQ_INFO, &words([16, 0, irq::MSI_X, 0]), &[]).expect("interrupts");
    assert_eq!(word(&reply, 12), Some(64));
    assert_eq!(client.read(region::CONFIGURATION, 0, 4), Ok(vec![0x86, 0x80, 0xFB, 0x10]));
    client.write(region::CONFIGURATION, 4, &[6, 0]).expect("COMMAND");
    assert_eq!(client.read(region::CONFIGURATION, 4, 2), Ok(vec![6, 0]));
    assert_eq!(client.get(reg::RAL), 0xAA21_1B00);
    client.ask(command::DMA_MAP, &[0; 32], &[]).expect("nothing to be done");
    assert_eq!(client.ask(command::DMA_UNMAP, &[7; 24], &[]), Ok(vec![7; 24]));
    client.ask(command::RESET, &[], &[]).expect("a reset");
    assert_eq!(client.read(region::CONFIGURATION, 4, 2), Ok(vec![0, 0]));
    let socket = server.socket().to_owned();
    drop(server);
    assert!(!socket.exists());
}

#[test]
fn nonsense_is_refused() {
    let server = Server::start(model(), path("s"), None).expect("it starts");
    let mut client = Client::connect(&server);
    for command in [1, 3, 5, 7, 8, 9, 10] {
        assert_eq!(client.ask(command, &[], &[]), Err(errno::INVALID), "command {command}");
    }
    assert_eq!(client.ask(command::VERSION, &[1, 0, 0, 0], &[]), Err(errno::INVALID), "version 1.0");
    assert_eq!(client.ask(command::VERSION, b"\0\0\0\0{nonsense\0", &[]), Err(errno::INVALID));
    assert_eq!(client.ask(99, &[], &[]), Err(errno::NOT_SUPPORTED));
    assert_eq!(client.read(9, 0, 4), Err(errno::INVALID));
    assert_eq!(client.read(0, 512 << 10, 4), Err(errno::INVALID));
    assert_eq!(client.read(0, u64::MAX, 4), Err(errno::INVALID));
    assert_eq!(client.read(7, 0, u32::MAX), Err(errno::INVALID));
    let short = [&0u64.to_le_bytes()[..], &words([0, 8]), &[1, 2, 3, 4]].concat();
    assert_eq!(client.ask(command::REGION_WRITE, &short, &[]), Err(errno::INVALID), "fewer data than told");
    let (one, _) = event();
    assert_eq!(client.irqs(EVENTS, irq::MSI_X, 63, 2, &[]), Err(errno::INVALID));
    assert_eq!(client.irqs(EVENTS, irq::MSI_X, u32::MAX, 2, &[]), Err(errno::INVALID));
    assert_eq!(client.irqs(EVENTS, irq::MSI_X, 0, 2, &[one]), Err(errno::INVALID), "one eventfd for two");
    assert_eq!(client.irqs(irq::SET_NONE, irq::MSI_X, 0, 2, &[]), Err(errno::INVALID), "no action");
    assert_eq!(client.irqs(EVENTS, 5, 0, 0, &[]), Err(errno::INVALID));
    // A write that wants no answer gets none.
    let body = [&(reg::RETA as u64).to_le_bytes()[..], &words([0, 4]), &[1, 2, 3, 4]].concat();
    client.send(command::REGION_WRITE, flag::NO_REPLY, &body, &[]);
    assert_eq!(client.get(reg::RETA), 0x0403_0201);
    // A length that no message has ends the connection.
    client.stream.write_all(&Header { size: 3, ..Header::default() }.message(&[])[..4]).expect("it goes");
    client.stream.write_all(&[3; 12]).expect("it goes");
    let end = Instant::now() + PATIENCE;
    while !matches!(server.state(), State::Ended(Some(_))) {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn interrupts_reach_their_eventfds() {
    let server = Server::start(model(), path("s"), None).expect("it starts");
    let mut client = Client::connect(&server);
    client.write(region::CONFIGURATION, 4, &[6, 0]).expect("COMMAND");
    // The line: masked by itself until it is unmasked, and asserted until its cause is read.
    let (given, line) = event();
    client.irqs(EVENTS, irq::LINE, 0, 1, &[given]).expect("an eventfd");
    client.set(reg::EIMS, cause::LSC);
    client.set(reg::EICS, cause::LSC);
    assert_eq!(count(&line), 1);
    client.set(reg::EICS, cause::ECC);
    assert_eq!(count(&line), 0, "it is masked");
    client.get(reg::EICR);
    client.set(reg::EICS, cause::LSC | cause::ECC);
    assert_eq!(count(&line), 0, "it is still masked");
    client.irqs(irq::SET_NONE | irq::SET_UNMASK, irq::LINE, 0, 1, &[]).expect("an end of interrupt");
    assert_eq!(count(&line), 1, "and still asserted");
    assert_eq!(client.get(reg::EICR), cause::LSC | cause::ECC | cause::OTHER);
    client.irqs(irq::SET_NONE | irq::SET_UNMASK, irq::LINE, 0, 1, &[]).expect("an end of interrupt");
    assert_eq!(count(&line), 0);
    client.irqs(irq::SET_NONE | irq::SET_TRIGGER, irq::LINE, 0, 0, &[]).expect("all off");
    // MSI-X: a vector without an eventfd waits for it, and is pending.
    client.write(region::CONFIGURATION, 0x73, &[0x80]).expect("MSI-X");
    client.set(reg::GPIE, reg::GPIE_MSIX);
    client.set(reg::EIMS_EX + 4, 1 << 8);
    client.set(reg::EICS_EX + 4, 1 << 8);
    assert_eq!(client.read(4, 0x2000, 8), Ok(vec![0, 0, 0, 0, 0, 1, 0, 0]));
    let (given, vector) = event();
    client.irqs(EVENTS, irq::MSI_X, 40, 1, &[given]).expect("an eventfd");
    assert_eq!(count(&vector), 1);
    assert_eq!(client.read(4, 0x2000, 8), Ok(vec![0; 8]));
    client.set(reg::EICS_EX + 4, 1 << 8);
    assert_eq!(count(&vector), 1);
    client.irqs(EVENTS, irq::MSI_X, 40, 1, &[]).expect("taken away");
    client.set(reg::EICS_EX + 4, 1 << 8);
    assert_eq!(count(&vector), 0);
    // MSI, and the link.
    client.write(region::CONFIGURATION, 0x73, &[0]).expect("MSI-X");
    client.write(region::CONFIGURATION, 0x52, &[1]).expect("MSI");
    let (given, message) = event();
    client.irqs(EVENTS, irq::MSI, 0, 1, &[given]).expect("an eventfd");
    server.with_model(|model| model.set_link(false));
    assert_eq!(count(&message), 1);
}

#[test]
fn a_card_with_narrow_bars_and_a_link_that_comes_by_itself() {
    use crate::igb::{self, Igb, registers as igb_reg};
    let model = Igb::new(igb::Kind::I350, [0x00, 0x1B, 0x21, 0xAA, 0xBB, 0x01]);
    let server = Server::start(model, path("s"), None).expect("it starts");
    let mut client = Client::connect(&server);
    let size = |client: &mut Client, index: u32| {
        let reply = client.ask(command::GET_REGION_INFO, &words([32, 0, index, 0, 0, 0, 0, 0]), &[]).expect("a region");
        double(&reply, 16).expect("a size")
    };
    assert_eq!([0, 3, 4].map(|index| size(&mut client, index)), [128 << 10, 16 << 10, 0]);
    client.write(region::CONFIGURATION, 4, &[6, 0]).expect("COMMAND");
    client.write(region::CONFIGURATION, 0x73, &[0x80]).expect("MSI-X");
    client.set(igb_reg::GPIE, igb_reg::GPIE_MSIX);
    client.set(igb_reg::EIMS, 1 << 24);
    client.set(igb_reg::EICS, 1 << 24);
    assert_eq!(client.read(3, 0x2000, 8), Ok(vec![0, 0, 0, 1, 0, 0, 0, 0]));
    // The link comes some time after the cable, without any access.
    client.write(region::CONFIGURATION, 0x73, &[0]).expect("MSI-X");
    client.write(region::CONFIGURATION, 0x52, &[1]).expect("MSI");
    let (given, message) = event();
    client.irqs(EVENTS, irq::MSI, 0, 1, &[given]).expect("an eventfd");
    client.set(igb_reg::CTRL, igb_reg::CTRL_SLU);
    server.with_model(|model| model.set_link(false));
    client.set(igb_reg::IMS, igb::cause::LSC);
    client.get(igb_reg::ICR);
    count(&message);
    server.with_model(|model| model.set_link(true));
    let end = Instant::now() + PATIENCE;
    while count(&message) == 0 {
        assert!(Instant::now() < end, "no interrupt");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_ne!(client.get(igb_reg::STATUS) & igb_reg::STATUS_LU, 0);
}

/// Frames between the wire and the client's memory, by messages alone.
#[test]
fn frames_go_both_ways_by_messages() {
    let cable = path("wire");
    let listener = UnixListener::bind(&cable).expect("a wire");
    let server = Server::start(model(), path("s"), Some(cable.clone())).expect("it starts");
    let (mut wire, _) = listener.accept().expect("the cable");
    wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut client = Client::connect(&server);
    client.write(region::CONFIGURATION, 4, &[6, 0]).expect("COMMAND");
    client.set(reg::FCTRL, reg::FCTRL_BAM);
    client.set(reg::SECRXCTRL, reg::SECRXCTRL_RX_DIS);
    client.set(reg::RXCTRL, reg::RXCTRL_RXEN);
    client.set(reg::SECRXCTRL, 0);
    client.set(reg::DMATXCTL, 0x8100_0001);
    for (first, base) in [(reg::receive(0), MEMORY), (reg::transmit(0), MEMORY + 0x1000)] {
        client.set(first + offset::BASE, base as u32);
        client.set(first + offset::LENGTH, 128);
        if first == reg::receive(0) {
            client.set(first + reg::SRRCTL, 2 | 1 << 25);
        }
        client.set(first + offset::CONTROL, ENABLE);
    }
    // Two packets: one in two pieces, one that cannot be reached and costs itself alone.
    let frame: Vec<u8> = (0..100).collect();
    client.put(0x8000, &frame);
    let data = |address: u64, length: u32, end: u32, payload: u32| {
        words([address as u32, 0, 0x2230_0000 | (0x0900_0000 * end) | length, payload << 14])
    };
    client.put(0x1000, &data(MEMORY + 0x8000, 60, 0, 100));
    client.put(0x1010, &data(MEMORY + 0x803C, 40, 1, 100));
    client.set(reg::transmit(0) + offset::TAIL, 2);
    client.until(|client| client.memory[0x101C] == 1);
    let mut got = [0; 104];
    wire.read_exact(&mut got).expect("a frame");
    assert_eq!(got, *[&100u32.to_be_bytes()[..], &frame].concat());
    client.until(|client| client.get(reg::transmit(0) + offset::HEAD) == 2);
    assert_eq!(server.misuse(), Vec::<String>::new());
    client.put(0x1020, &data(0x10, 60, 1, 60));
    client.set(reg::transmit(0) + offset::TAIL, 3);
    client.until(|client| client.memory[0x102C] == 1);
    assert_eq!(server.misuse(), ["a packet lies where the device may not read"]);
    // One in.
    client.put(0, &words([(MEMORY + 0x9000) as u32, 0, 0, 0]));
    client.set(reg::receive(0) + offset::TAIL, 1);
    let broadcast = [&[0xFF; 12][..], &frame].concat();
    wire.write_all(&[&(broadcast.len() as u32).to_be_bytes()[..], &broadcast].concat()).expect("a frame");
    client.until(|client| client.memory[8] & 1 == 1);
    assert_eq!(client.memory[0x9000..0x9000 + broadcast.len()], broadcast);
    assert_eq!(client.memory[12..14], (broadcast.len() as u16).to_le_bytes());
    client.put(0x10, &words([0x10, 0, 0, 0]));
    client.set(reg::receive(0) + offset::TAIL, 2);
    wire.write_all(&[&(broadcast.len() as u32).to_be_bytes()[..], &broadcast].concat()).expect("a frame");
    client.until(|client| client.memory[0x18] & 1 == 1);
    client.until(|client| client.get(reg::receive(0) + offset::HEAD) == 2);
    assert_eq!(
        server.misuse().last().map(String::as_str),
        Some("a receive buffer or descriptor lies where the device may not write")
    );
    // QEMU goes while a transfer is out: the server ends.
    client.set(reg::transmit(0) + offset::TAIL, 4);
    drop(client);
    let end = Instant::now() + PATIENCE;
    while server.state() != State::Ended(None) {
        assert!(Instant::now() < end, "{:?}", server.state());
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(server);
    std::fs::remove_file(cable).expect("the wire's socket");
}

#[test]
fn a_wire_that_is_not_there_is_an_error() {
    let error = Server::start(model(), path("s"), Some(path("nowhere"))).err().expect("no wire");
    assert!(error.to_string().contains("the wire"), "{error}");
}

/// Bodies without rhyme or reason: each request is answered, and the server goes on.
#[test]
fn any_body_is_answered() {
    let server = Server::start(model(), path("s"), None).expect("it starts");
    let mut client = Client::connect(&server);
    // Marsaglia's xorshift32.
    let mut state = 0x9E37_79B9_u32;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut answered = 0;
    for _ in 0..3000 {
        let command = (next() % 20) as u16;
        let length = next() % 48;
        let small = next().is_multiple_of(2);
        let mut body: Vec<u8> = (0..length).map(|_| if small { next() as u8 % 4 } else { next() as u8 }).collect();
        // What lies within a region, now and then.
        if small && body.len() > 16 {
            body[4..8].fill(0);
            body[9..12].fill(0);
            body[13..16].fill(0);
        }
        let descriptors: Vec<_> = (0..next() % 3).map(|_| event().0).collect();
        answered += usize::from(client.ask(command, &body, &descriptors).is_ok());
    }
    assert!(answered > 100, "{answered} of them were right by chance");
    assert_eq!(server.state(), State::Connected);
    client.set(reg::RETA, 7);
    assert_eq!(client.get(reg::RETA), 7);
}

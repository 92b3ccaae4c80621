//! A client of the block server, as small as one can be: what it writes and flushes, faults, power cuts. Host.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use medium::{Fault, Kind, Medium, Request};

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const EIO: u32 = 5;

/// An image of 64 KiB with its medium, and where they are.
fn medium(name: &str) -> (Medium, PathBuf) {
    let directory = std::env::temp_dir().join(format!("medium-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let image = directory.join("image");
    File::create(&image).unwrap().set_len(64 << 10).unwrap();
    let socket = directory.join("socket");
    fs::remove_file(&socket).ok();
    (Medium::start(&image, &socket).unwrap(), directory)
}

struct Client(UnixStream);

impl Client {
    /// Connects by the oldest of the negotiations: `NBD_OPT_EXPORT_NAME`.
    fn connect(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert!(greeting.starts_with(b"NBDMAGICIHAVEOPT"));
        stream
            .write_all(&[&3_u32.to_be_bytes()[..], b"IHAVEOPT", &1_u32.to_be_bytes(), &0_u32.to_be_bytes()].concat())
            .unwrap();
        let mut export = [0; 10];
        stream.read_exact(&mut export).unwrap();
        assert_eq!(export[..8], (64_u64 << 10).to_be_bytes());
        Self(stream)
    }

    fn send(&mut self, handle: u64, command: u16, offset: u64, length: u32, data: &[u8]) {
        let head =
            [&0x2560_9513_u32.to_be_bytes()[..], &0_u16.to_be_bytes(), &command.to_be_bytes(), &handle.to_be_bytes()];
        let tail = [&offset.to_be_bytes()[..], &length.to_be_bytes(), data];
        self.0.write_all(&[head.concat(), tail.concat()].concat()).unwrap();
    }

    /// The next answer: its handle, its error, and as many bytes as are asked for where there is none.
    fn answer(&mut self, bytes: usize) -> (u64, u32, Vec<u8>) {
        let mut head = [0; 16];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[..4], 0x6744_6698_u32.to_be_bytes());
        let error = u32::from_be_bytes(head[4..8].try_into().unwrap());
        let mut data = vec![0; if error == 0 { bytes } else { 0 }];
        self.0.read_exact(&mut data).unwrap();
        (u64::from_be_bytes(head[8..].try_into().unwrap()), error, data)
    }
}

#[test]
fn what_is_flushed_is_in_the_image_and_the_rest_is_not() {
    let (medium, directory) = medium("client-flush");
    let mut client = Client::connect(medium.socket());
    client.send(1, WRITE, 4096, 512, &[7; 512]);
    assert_eq!(client.answer(0), (1, 0, Vec::new()));
    client.send(2, READ, 4096, 512, &[]);
    assert_eq!(client.answer(512), (2, 0, vec![7; 512]));
    assert_eq!(fs::read(directory.join("image")).unwrap()[4096], 0);
    client.send(3, FLUSH, 0, 0, &[]);
    assert_eq!(client.answer(0), (3, 0, Vec::new()));
    assert_eq!(fs::read(directory.join("image")).unwrap()[4096], 7);
    drop(medium);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_silent_request_is_overtaken_and_fails_when_it_is_told_to() {
    let (medium, directory) = medium("client-silence");
    let mut client = Client::connect(medium.socket());
    medium.inject(Fault { request: Request::Read, bytes: 0..512, kind: Kind::Silence, times: Some(1) });
    client.send(1, READ, 0, 512, &[]);
    client.send(2, READ, 512, 512, &[]);
    assert_eq!(client.answer(512).0, 2);
    medium.fail_unanswered();
    assert_eq!(client.answer(512), (1, EIO, Vec::new()));
    // Once was all.
    client.send(3, READ, 0, 512, &[]);
    assert_eq!(client.answer(512).1, 0);
    drop(medium);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_slow_medium_takes_its_time_for_each_request() {
    let (medium, directory) = medium("client-slow");
    let mut client = Client::connect(medium.socket());
    medium.slow_down(50_000);
    let start = Instant::now();
    client.send(1, READ, 0, 512, &[]);
    client.send(2, READ, 512, 512, &[]);
    assert_eq!([client.answer(512).0, client.answer(512).0], [1, 2]);
    assert!(start.elapsed() >= Duration::from_millis(100));
    drop(medium);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_power_cut_ends_all_connections() {
    let (medium, directory) = medium("client-cut");
    let mut client = Client::connect(medium.socket());
    client.send(1, WRITE, 0, 512, &[9; 512]);
    client.answer(0);
    let loss = medium.cut_power(1).unwrap();
    assert_eq!(loss.lost + loss.kept, 1);
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
    drop(medium);
    fs::remove_dir_all(directory).unwrap();
}

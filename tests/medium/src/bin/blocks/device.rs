//! A block device past the page cache, and memory that it can be read into. Linux user space.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// What direct reads and writes must be aligned to.
const ALIGNMENT: usize = 4096;

/// Opens a device or a file for direct reads and writes; with `durable`, a write returns when it is durable.
pub(crate) fn open(path: &Path, write: bool, durable: bool) -> io::Result<File> {
    let durable = if durable { OFlag::O_DSYNC } else { OFlag::empty() };
    OpenOptions::new().read(true).write(write).custom_flags((OFlag::O_DIRECT | durable).bits()).open(path)
}

/// Bytes of a device or a file.
pub(crate) fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Memory for direct reads and writes.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start, length }
    }

    pub(crate) fn all(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.start + self.length).unwrap_or_default()
    }

    /// The first `length` bytes.
    pub(crate) fn first(&mut self, length: usize) -> &mut [u8] {
        self.all().get_mut(..length).unwrap_or_default()
    }
}

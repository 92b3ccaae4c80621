//! The media behind a machine's disks: images in a directory of their own, each with a volatile cache over it. Host.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lab::scratch::Scratch;
use lab::{Disk, DiskMedium};
use medium::Medium;

/// Media, by their numbers. They must outlive the machine.
pub struct Media {
    media: Vec<Medium>,
    directory: Scratch,
}

impl Media {
    /// Makes empty ones of so many bytes each.
    ///
    /// # Errors
    /// Where there is no room, or no socket.
    pub fn new(sizes: &[u64]) -> Result<Self> {
        let directory = Scratch::new()?;
        let mut media = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let image = directory.path().join(format!("d{index}"));
            File::create(&image)?.set_len(*size)?;
            let socket = directory.path().join(format!("s{index}"));
            media.push(Medium::start(&image, &socket).with_context(|| format!("serving {}", image.display()))?);
        }
        Ok(Self { media, directory })
    }

    /// One of them.
    ///
    /// # Errors
    /// Where there is none of this number.
    pub fn medium(&self, index: usize) -> Result<&Medium> {
        self.media.get(index).with_context(|| format!("no medium {index}"))
    }

    /// An emulated disk on it.
    ///
    /// # Errors
    /// As [`Media::medium`].
    pub fn disk(&self, index: usize, logical_block: u32) -> Result<Disk> {
        Ok(Disk { medium: DiskMedium::Server(self.medium(index)?.socket().to_owned()), logical_block })
    }

    fn image(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("d{index}"))
    }

    /// SHA-256 of bytes of the image: of what is durable.
    ///
    /// # Errors
    /// Where the image is shorter.
    pub fn digest(&self, index: usize, bytes: Range<u64>) -> Result<String> {
        let content = self.read(index, bytes.start, usize::try_from(bytes.end - bytes.start)?)?;
        let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        // It says nothing before it has read all.
        child.stdin.take().context("sha256sum's stdin")?.write_all(&content)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "sha256sum: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// Bytes of the image: what is durable.
    ///
    /// # Errors
    /// Where the image is shorter.
    pub fn read(&self, index: usize, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut content = vec![0; length];
        File::open(self.image(index))?.read_exact_at(&mut content, offset)?;
        Ok(content)
    }

    /// Changes the image behind the machine's back.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, index: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = fs::OpenOptions::new().write(true).open(self.image(index))?;
        file.write_all_at(bytes, offset).map_err(Into::into)
    }
}

//! `oxidom log`: a domain's console, as xenconsoled keeps it in a file. Host.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::model::clean;

/// Where xenconsoled keeps them, unless it is told otherwise.
pub(crate) const DIRECTORY: &str = "/var/log/xen/console";
/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Bytes of a line, at most: what is longer is shown as several.
const LINE: usize = 4096;

/// The file of a domain's console.
///
/// # Errors
/// The name is none.
pub(crate) fn file(directory: &Path, name: &str) -> Result<PathBuf> {
    ensure!(!name.is_empty() && !name.contains(['/', '\0']), "\"{}\" is no domain's name", name.escape_debug());
    Ok(directory.join(format!("guest-{name}.log")))
}

/// Opens it.
///
/// # Errors
/// There is none: how to have one.
pub(crate) fn open(path: &Path) -> Result<File> {
    match File::open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "there is no {}: xenconsoled keeps consoles in files where it is started with --log=guest. On Debian that is \
             XENCONSOLED_ARGS=\"--log=guest\" in /etc/default/xen, then `mkdir -p {DIRECTORY}`, and a reboot; domains that are created \
             after that have a file. Until then, `xl console` shows what a domain writes from now on",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("opening {}; run this as root", path.display())),
    }
}

/// Where the last `lines` lines of a file begin.
fn tail(file: &mut File, lines: usize) -> std::io::Result<u64> {
    const PIECE: u64 = 64 << 10;
    let mut end = file.seek(SeekFrom::End(0))?;
    let (mut left, mut is_last) = (lines, true);
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&*file).take(end - start).read_to_end(&mut bytes)?;
        for (place, byte) in bytes.iter().enumerate().rev() {
            // The line feed at the end of the file begins no line.
            if *byte == b'\n' && !std::mem::take(&mut is_last) {
                if left <= 1 {
                    return Ok(start + place as u64 + 1);
                }
                left -= 1;
            }
            is_last = false;
        }
        end = start;
    }
    Ok(0)
}

/// Lines of a file that grows.
struct Lines {
    path: PathBuf,
    file: File,
    begun: Vec<u8>,
}

impl Lines {
    /// Prints what has come; `end` prints the line that is not whole yet as well. Whether there was anything.
    fn pass(&mut self, out: &mut impl Write, as_json: bool, end: bool) -> Result<bool> {
        let mut any = false;
        loop {
            let mut bytes = [0; 16 << 10];
            let count = self.file.read(&mut bytes).with_context(|| format!("reading {}", self.path.display()))?;
            for byte in bytes.get(..count).unwrap_or_default() {
                match byte {
                    b'\n' => self.print(out, as_json)?,
                    byte => self.begun.push(*byte),
                }
                if self.begun.len() >= LINE {
                    self.print(out, as_json)?;
                }
            }
            if count == 0 {
                break;
            }
            any = true;
        }
        if end && !self.begun.is_empty() {
            self.print(out, as_json)?;
        }
        out.flush()?;
        Ok(any)
    }

    fn print(&mut self, out: &mut impl Write, as_json: bool) -> std::io::Result<()> {
        let line = clean(&std::mem::take(&mut self.begun));
        match as_json {
            true => writeln!(out, "{}", json!({"line": line})),
            false => writeln!(out, "{line}"),
        }
    }

    /// Goes on at the beginning where the file was cut, or is another one.
    fn renew(&mut self) -> Result<()> {
        let Ok(now) = fs::metadata(&self.path) else {
            return Ok(());
        };
        let known = self.file.metadata()?;
        let place = self.file.stream_position()?;
        if (now.dev(), now.ino()) != (known.dev(), known.ino()) {
            self.file = open(&self.path)?;
        } else if now.len() < place {
            self.file.rewind()?;
        }
        Ok(())
    }
}

/// Prints a console's file, its last `lines` lines or all; with `follow` what comes after that as well, for good.
///
/// # Errors
/// There is no file, it cannot be read, or nobody reads what is printed any longer.
pub(crate) fn print(
    path: &Path,
    lines: Option<usize>,
    follow: bool,
    as_json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let mut file = open(path)?;
    let start = match lines {
        Some(lines) => tail(&mut file, lines)?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start))?;
    let mut lines = Lines { path: path.to_owned(), file, begun: Vec::new() };
    lines.pass(out, as_json, !follow)?;
    if !follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(LOOK);
        if !lines.pass(out, as_json, false)? {
            lines.renew()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of a test's own, which goes with it.
    struct Written(PathBuf);

    impl Written {
        fn new(name: &str, text: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("oxidom-console-{}-{name}", std::process::id()));
            fs::write(&path, text).unwrap();
            Self(path)
        }

        fn printed(&self, lines: Option<usize>, as_json: bool) -> String {
            let mut out = Vec::new();
            print(&self.0, lines, false, as_json, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            fs::remove_file(&self.0).ok();
        }
    }

    #[test]
    fn lines_are_printed_clean() {
        let file = Written::new("clean", b"one\r\n\x1b[31mtwo\nthree");
        assert_eq!(file.printed(None, false), "one\n\u{fffd}[31mtwo\nthree\n");
        assert_eq!(file.printed(Some(1), false), "three\n");
        assert_eq!(file.printed(Some(2), true), "{\"line\":\"\u{fffd}[31mtwo\"}\n{\"line\":\"three\"}\n");
        let long = Written::new("long", &[b"x".repeat(LINE * 2 + 1), b"\nend\n".to_vec()].concat());
        assert_eq!(long.printed(Some(1), false), "end\n");
        assert_eq!(long.printed(Some(9), false).lines().count(), 4);
    }

    #[test]
    fn a_file_that_grows_or_is_another_one_is_followed() {
        let file = Written::new("grows", b"one\ntw");
        let mut lines = Lines { path: file.0.clone(), file: open(&file.0).unwrap(), begun: Vec::new() };
        let pass = |lines: &mut Lines| {
            let mut out = Vec::new();
            lines.renew().unwrap();
            lines.pass(&mut out, false, false).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(pass(&mut lines), "one\n");
        fs::OpenOptions::new().append(true).open(&file.0).unwrap().write_all(b"o\n").unwrap();
        assert_eq!((pass(&mut lines).as_str(), pass(&mut lines).as_str()), ("two\n", ""));
        fs::write(&file.0, b"new\n").unwrap();
        assert_eq!(pass(&mut lines), "new\n");
        let other = Written::new("other", b"other\n");
        fs::rename(&other.0, &file.0).unwrap();
        assert_eq!(pass(&mut lines), "other\n");
    }

    #[test]
    fn a_file_that_is_not_there_is_explained() {
        let path = file(Path::new("/nonexistent"), "netdom").unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("--log=guest"));
        assert!(["", "a/b", "../x"].iter().all(|name| file(Path::new("/"), name).is_err()));
    }
}

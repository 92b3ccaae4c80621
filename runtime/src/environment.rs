//! What the domain was started with: the facts of `start_info`. Floor 2.
//!
//! Unsafe because `start_info` is memory that Xen wrote, found by the address in a register.

use crate::local::Local;
use core::cell::Cell;
use xen_pv_sys::start_info::{StartFlags, StartInfo};
use xen_pv_sys::{Mfn, Port};

static START_INFO: Local<Cell<Option<&'static StartInfo>>> = Local::new(Cell::new(None));
static WORDS: Local<Cell<Option<&'static str>>> = Local::new(Cell::new(None));

/// What Xen and the toolstack told the domain at its start (`start_info`, `xen.h`).
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    /// The kernel command line (`extra=` of the domain's config), cut at the first byte that is not ASCII; or the one that this image was
    /// given when it took the place of another.
    pub command_line: &'static str,
    /// `start_info.magic`, for example `xen-3.0-x86_64`.
    pub magic: &'static str,
    /// Pages the domain was given.
    pub pages: u64,
    /// `SIF_*` flags.
    pub flags: u32,
    /// The xenstore ring's frame and port; `None` where no store was set up (a test image run as dom0).
    pub store: Option<(Mfn, Port)>,
    /// The console ring's frame and port; `None` where the domain is dom0.
    pub console: Option<(Mfn, Port)>,
    /// The file that the domain was given beside its image (`ramdisk=` of the domain's config).
    pub module: Option<&'static [u8]>,
}

impl Environment {
    /// Whether the domain is dom0: a test image that Xen started without a toolstack.
    pub fn is_initial_domain(&self) -> bool {
        StartFlags::from_bits_retain(self.flags).contains(StartFlags::INITDOMAIN)
    }
}

/// Keeps where `start_info` is, and the command line that stands in place of its own.
///
/// # Safety
/// It stays mapped and unchanged for good.
pub(crate) unsafe fn set(start_info: &'static StartInfo, words: Option<&'static str>) {
    START_INFO.set(Some(start_info));
    WORDS.set(words);
}

/// The environment, from anywhere.
pub fn environment() -> Environment {
    let Some(info) = START_INFO.get() else {
        return Environment {
            command_line: "",
            magic: "",
            pages: 0,
            flags: 0,
            store: None,
            console: None,
            module: None,
        };
    };
    let initial = StartFlags::from_bits_retain(info.flags).contains(StartFlags::INITDOMAIN);
    let ring = |frame: Mfn, port: Port| (!initial && frame.0 != 0).then_some((frame, port));
    Environment {
        command_line: WORDS.get().unwrap_or_else(|| ascii(&info.cmd_line)),
        magic: ascii(&info.magic),
        pages: info.nr_pages,
        flags: info.flags,
        store: ring(info.store_mfn, info.store_evtchn),
        console: ring(info.console_mfn, info.console_evtchn),
        module: module(info),
    }
}

/// The module, which lies between the image and what the first free frame comes after.
fn module(info: &StartInfo) -> Option<&'static [u8]> {
    let by_frame = StartFlags::from_bits_retain(info.flags).contains(StartFlags::MOD_START_PFN);
    // SAFETY: the builder mapped it there, as no note of ours asks for anything else; it is left out of the memory that is given out, and
    // nothing writes to it.
    (info.mod_start != 0 && !by_frame)
        .then(|| unsafe { core::slice::from_raw_parts(info.mod_start as *const u8, info.mod_len as usize) })
}

/// The raw command line.
pub fn command_line() -> &'static str {
    environment().command_line
}

/// The text up to the first byte that is zero or not ASCII.
fn ascii(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| *byte == 0 || !byte.is_ascii()).unwrap_or(bytes.len());
    bytes.get(..end).and_then(|text| str::from_utf8(text).ok()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::ascii;

    #[test]
    fn text_ends_at_zero_and_at_what_is_not_ascii() {
        assert_eq!(ascii(b"log=debug\0junk"), "log=debug");
        assert_eq!(ascii(b"a\xffb"), "a");
        assert_eq!(ascii(b"full"), "full");
        assert_eq!(ascii(b""), "");
    }
}

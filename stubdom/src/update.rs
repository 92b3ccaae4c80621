//! `CONTROL live-update`: another image, sent in pieces, takes the place of this one. Pure. Floor 3.
//!
//! As Xen's `xenstore-control` speaks with a xenstore that is a PV domain: `-b SIZE`, then `-d SIZE` with bytes as often as it takes, `-c
//! WORDS` for another command line, `-s -t SECONDS [-F]` to begin, `-a` to give it up. What goes wrong is answered in words.
//!
//! `-s` is served twice. The first time it is not answered, and the state goes to the new image as if it still were to come; whoever has the
//! state then serves it a second time and says how it went: the new image, or the old one again.

use alloc::collections::TryReserveError;
use alloc::string::String;
use alloc::vec::Vec;

use xen_pv_sys::PAGE_SIZE;
use xenstore_lite::Error;

use crate::saved::is_heir;

/// Bytes of an image, at most: what `cargo xtask images` lets one have.
pub(crate) const IMAGE_MAX: usize = 1 << 20;

/// An image on its way.
#[derive(Debug)]
pub(crate) struct Staged {
    /// In pieces of a page each, since memory that is used may have no room in one place; the last may be shorter.
    pub(crate) image: Vec<Vec<u8>>,
    /// Bytes of it that are still to come.
    missing: usize,
    pub(crate) command_line: Option<String>,
}

/// How far an update is.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) staged: Option<Staged>,
    /// `-s` was asked, and is not answered.
    pub(crate) due: bool,
    /// How it went.
    pub(crate) verdict: Option<Result<(), String>>,
}

impl Staged {
    fn add(&mut self, mut data: &[u8]) -> Result<(), TryReserveError> {
        while !data.is_empty() {
            if self.image.last().is_none_or(|piece| piece.len() == PAGE_SIZE) {
                let mut piece = Vec::new();
                piece.try_reserve_exact(PAGE_SIZE.min(self.missing))?;
                self.image.try_reserve(1)?;
                self.image.push(piece);
            }
            let Some(piece) = self.image.last_mut() else { break };
            let (now, later) = data.split_at(data.len().min(PAGE_SIZE - piece.len()));
            piece.extend_from_slice(now);
            self.missing -= now.len();
            data = later;
        }
        Ok(())
    }
}

fn number(word: &[u8]) -> Option<usize> {
    core::str::from_utf8(word).ok()?.parse().ok()
}

impl Update {
    /// Serves the words after `live-update`.
    pub(crate) fn control(&mut self, words: &mut dyn Iterator<Item = &[u8]>, reply: &mut Vec<u8>) -> Result<(), Error> {
        let option = words.next().unwrap_or_default();
        let word = words.next();
        let said = match (option, word) {
            (b"-b", Some(size)) => self.begin(number(size).ok_or(Error::EINVAL)?),
            (b"-d", Some(size)) => self.add(number(size).ok_or(Error::EINVAL)?, words.next().unwrap_or_default()),
            (b"-c", Some(line)) => match &mut self.staged {
                Some(staged) => {
                    staged.command_line = Some(String::from_utf8_lossy(line).into_owned());
                    Ok(())
                }
                None => Err("Not in live-update session.".into()),
            },
            (b"-s", _) => self.start(),
            (b"-a", None) => match self.staged.take() {
                Some(_) => Ok(()),
                None => Err("No live-update session active.".into()),
            },
            _ => return Err(Error::EINVAL),
        };
        if let Err(text) = said {
            reply.extend_from_slice(text.as_bytes());
            reply.push(0);
        }
        Ok(())
    }

    fn begin(&mut self, size: usize) -> Result<(), String> {
        if self.staged.is_some() {
            return Err("live-update session already active.".into());
        }
        if size == 0 || size > IMAGE_MAX {
            return Err(alloc::format!("An image has at most {IMAGE_MAX} bytes, and this one {size}."));
        }
        self.staged = Some(Staged { image: Vec::new(), missing: size, command_line: None });
        Ok(())
    }

    fn add(&mut self, count: usize, data: &[u8]) -> Result<(), String> {
        let staged = self.staged.as_mut().ok_or("Not in live-update session.")?;
        let data = data.get(..count).ok_or("Too little kernel data.")?;
        if data.len() > staged.missing {
            return Err("Too much kernel data.".into());
        }
        staged.add(data).map_err(|_| "Allocation failure.".into())
    }

    fn start(&mut self) -> Result<(), String> {
        if let Some(verdict) = self.verdict.take() {
            return verdict;
        }
        let staged = self.staged.as_ref().ok_or("Not in live-update session.")?;
        if staged.missing > 0 {
            return Err("Kernel not complete.".into());
        }
        if !is_heir(&staged.image) {
            self.staged = None;
            return Err("This is no image of a xenstore that could go on from this one.".into());
        }
        self.due = true;
        Ok(())
    }
}

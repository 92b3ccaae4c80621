//! `CONTROL live-update`: another image, sent in pieces, takes the place of this one. `CONTROL restart`: a new life. Pure. Floor 3.
//!
//! As Xen's `xenstore-control` speaks with a xenstore that is a PV domain: `-b SIZE`, then `-d SIZE` with bytes as often as it takes, `-c
//! WORDS` for another command line, `-s -t SECONDS [-F]` to begin, `-a` to give it up. What goes wrong is answered in words.
//!
//! `-s` and `restart` are served twice. The first time it is not answered, and the state goes to the next life as if it still were to come; whoever has the
//! state then serves it a second time and says how it went: the new image, or the old one again. `CONTROL life` tells how the last life began.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use split_driver::control::IMAGE_MAX;
use xenstore_lite::Error;

/// An image on its way into the place of the running one.
pub trait Successor {
    /// Takes the next bytes of its file.
    ///
    /// # Errors
    /// In words, why it cannot be one.
    fn add(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Enters it, with another command line where there is one; returns only where that cannot be, with the reason.
    fn enter(self: Box<Self>, command_line: Option<&str>) -> String;
}

/// Begins with nothing of an image of so many bytes.
pub type Begin = fn(usize) -> Result<Box<dyn Successor>, String>;

/// An image on its way.
pub(crate) struct Staged {
    pub(crate) image: Box<dyn Successor>,
    /// Bytes of it that are still to come.
    missing: usize,
    pub(crate) command_line: Option<String>,
}

/// What ends a life on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The staged image.
    Image,
    /// Another life of this one.
    Restart,
}

/// How far an update is.
pub(crate) struct Update {
    pub(crate) begin: Begin,
    pub(crate) staged: Option<Staged>,
    /// This was asked, and is not answered.
    pub(crate) due: Option<Due>,
    /// How it went.
    pub(crate) verdict: Option<Result<(), String>>,
    /// Begins a new life.
    pub(crate) again: fn() -> String,
    /// What is told of this one.
    pub(crate) life: String,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            begin: |_| Err("There is no live update here.".into()),
            staged: None,
            due: None,
            verdict: None,
            again: || "There is no other life here.".into(),
            life: String::new(),
        }
    }
}

/// Puts a text into the answer; none for "OK".
fn say(said: Result<(), String>, reply: &mut Vec<u8>) {
    if let Err(text) = said {
        reply.extend_from_slice(text.as_bytes());
        reply.push(0);
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
        say(said, reply);
        Ok(())
    }

    fn begin(&mut self, size: usize) -> Result<(), String> {
        if self.staged.is_some() {
            return Err("live-update session already active.".into());
        }
        if size == 0 || size > IMAGE_MAX {
            return Err(alloc::format!("An image has at most {IMAGE_MAX} bytes, and this one {size}."));
        }
        let image = (self.begin)(size)?;
        self.staged = Some(Staged { image, missing: size, command_line: None });
        Ok(())
    }

    fn add(&mut self, count: usize, data: &[u8]) -> Result<(), String> {
        let staged = self.staged.as_mut().ok_or("Not in live-update session.")?;
        let data = data.get(..count).ok_or("Too little kernel data.")?;
        if data.len() > staged.missing {
            return Err("Too much kernel data.".into());
        }
        staged.missing -= data.len();
        staged.image.add(data)
    }

    fn start(&mut self) -> Result<(), String> {
        if let Some(verdict) = self.verdict.take() {
            return verdict;
        }
        let staged = self.staged.as_ref().ok_or("Not in live-update session.")?;
        if staged.missing > 0 {
            return Err("Kernel not complete.".into());
        }
        self.due = Some(Due::Image);
        Ok(())
    }

    /// Serves the words after `restart`: there are none.
    pub(crate) fn restart(&mut self, words: &mut dyn Iterator<Item = &[u8]>, reply: &mut Vec<u8>) -> Result<(), Error> {
        match (words.next(), self.verdict.take()) {
            (Some(_), _) => return Err(Error::EINVAL),
            (None, Some(verdict)) => say(verdict, reply),
            (None, None) => self.due = Some(Due::Restart),
        }
        Ok(())
    }

    /// Serves the words after `life`: there are none.
    pub(crate) fn tell_life(&self, words: &mut dyn Iterator<Item = &[u8]>, reply: &mut Vec<u8>) -> Result<(), Error> {
        if words.next().is_some() {
            return Err(Error::EINVAL);
        }
        say(Err(self.life.clone()), reply);
        Ok(())
    }
}

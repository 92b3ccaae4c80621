//! What dom0's tool asks of a driver domain through the store, and what it is answered: a new life, another image. Pure. Floor 1.
//!
//! Dom0 writes below `control/`, which the toolstack makes for it alone to write; the domain writes below `data/`, which is its own.
//!
//! ```text
//! control/oxidom/…                                            data/control
//!                                                             0 ready netdom 0.1.0      takes requests
//! image/0 … image/7, words, request: 7 update 983040 8a1f03c2 8
//!                                                             7 taken 8                 the first eight pieces
//! image/8 … image/15, request: 7 update 983040 8a1f03c2 16
//!                                                             7 taken 16
//! …                                                           7 enters netdom 0.1.0     all were taken: the life ends
//!                                                             7 done 3 1520 900 231 netdom 0.1.0 netdom 0.1.1
//! ```
//!
//! A request has a number that dom0 chose. One with another number takes its place, so what a tool left that ended in the middle disturbs
//! nobody. Only the life that follows says `done`, by what stands in the store: nothing of a request goes from life to life by itself.

mod receiver;

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::{FromStr, SplitN};
use core::time::Duration;

pub use receiver::{Act, Ended, Outcome, Receiver, Successor};

/// The directory of what dom0 asks, in the domain's own.
pub const DIRECTORY: &str = "control/oxidom";
/// The request: the one node that the domain watches.
pub const REQUEST: &str = "control/oxidom/request";
/// The command line that stands in place of the domain's own, where an update is to change it.
pub const WORDS: &str = "control/oxidom/words";
/// The answer.
pub const ANSWER: &str = "data/control";
/// The image that the domain runs, as [`Image`] is shown: there from the first life's beginning on.
pub const IMAGE: &str = "data/image";
/// Bytes of a piece of an image; the last one may have fewer. oxenstored takes no more in a node (`quota-maxsize`), not even of dom0.
pub const PIECE: usize = 2048;
/// Pieces that are in the store at the most.
pub const WINDOW: u32 = 16;
/// Bytes of an image, at most: what the room for one has.
pub const IMAGE_MAX: usize = 2 << 20;
/// Bytes of a command line, at most: what a domain keeps (`MAX_GUEST_CMDLINE` of Xen's ABI).
pub const WORDS_MAX: usize = 1024;
/// Bytes of a reason, at most: a store takes 2,048 of a node (xenstored's `node-size`), less what it keeps beside.
const REASON_MAX: usize = 1500;

/// The node that a piece is in.
pub fn piece(index: u32) -> String {
    format!("{DIRECTORY}/image/{}", index % WINDOW)
}

/// The checksum of an image (CRC-32 of ISO 3309).
pub static CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// By which its answers are known; not 0.
    pub number: u32,
    /// What is asked.
    pub order: Order,
}

/// What dom0 asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A new life.
    Restart,
    /// Another image.
    Update {
        /// Bytes of its file.
        size: u32,
        /// Their [`CHECKSUM`].
        checksum: u32,
        /// Pieces of it that are, or have been, in the store.
        pieces: u32,
    },
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            Order::Restart => write!(formatter, "{} restart", self.number),
            Order::Update { size, checksum, pieces } => {
                write!(formatter, "{} update {size} {checksum:08x} {pieces}", self.number)
            }
        }
    }
}

impl Request {
    /// Reads what [`Display`](fmt::Display) gives; the error is the request's number, 0 where it has none.
    ///
    /// # Errors
    /// It is none that is known here.
    pub fn parse(text: &str) -> Result<Self, u32> {
        let mut words = text.split(' ');
        let number = next(&mut words).ok_or(0_u32)?;
        let order = match words.next() {
            Some("restart") => Some(Order::Restart),
            Some("update") => update(&mut words),
            _ => None,
        };
        let order = order.filter(|_| words.next().is_none()).ok_or(number)?;
        Ok(Self { number, order })
    }
}

fn update(words: &mut core::str::Split<'_, char>) -> Option<Order> {
    let size = next(words)?;
    let checksum = u32::from_str_radix(words.next()?, 16).ok()?;
    Some(Order::Update { size, checksum, pieces: next(words)? })
}

fn next<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    words.next()?.parse().ok()
}

/// An image, by its package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl fmt::Display for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.version)
    }
}

impl Image {
    /// Reads what [`Display`](fmt::Display) gives; `None` where it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        image(&mut words).filter(|_| words.next().is_none())
    }
}

/// How long nobody was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// By the clock, from the end of the one life until the next had taken over.
    pub whole: Duration,
    /// What of that the domain ran itself.
    pub own: Duration,
}

/// What the domain answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nobody asked yet: it takes requests.
    Ready(Image),
    /// So many pieces of the image were taken.
    Taken(u32),
    /// The life ends.
    Enters(Image),
    /// Nothing has changed; why.
    Refused(String),
    /// A new life has taken over.
    Done {
        /// Lives before it.
        life: u64,
        /// Until then.
        pause: Pause,
        /// Pages of the image that are others than before.
        exchanged: u32,
        /// The image of the last life.
        before: Image,
        /// The image now.
        after: Image,
    },
    /// The new image did not take over, and the one before it is back.
    Returned {
        /// Lives before this one.
        life: u64,
        /// Until it had taken over, from the end of the life that was not to be.
        pause: Pause,
        /// Why.
        reason: String,
    },
}

impl Answer {
    /// Whether nothing comes after it.
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Done { .. } | Self::Returned { .. })
    }
}

/// An answer and the number of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// 0 for [`Answer::Ready`].
    pub number: u32,
    /// The answer.
    pub answer: Answer,
}

impl fmt::Display for Answered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.number)?;
        let reason =
            |reason: &str| reason.get(..reason.floor_char_boundary(REASON_MAX)).unwrap_or_default().to_string();
        match &self.answer {
            Answer::Ready(image) => write!(formatter, "ready {image}"),
            Answer::Taken(pieces) => write!(formatter, "taken {pieces}"),
            Answer::Enters(image) => write!(formatter, "enters {image}"),
            Answer::Refused(why) => write!(formatter, "refused {}", reason(why)),
            Answer::Done { life, pause, exchanged, before, after } => {
                write!(formatter, "done {life} {pause} {exchanged} {before} {after}")
            }
            Answer::Returned { life, pause, reason: why } => {
                write!(formatter, "returned {life} {pause} {}", reason(why))
            }
        }
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.whole.as_micros(), self.own.as_micros())
    }
}

impl Answered {
    /// Reads what [`Display`](fmt::Display) gives; `None` where it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let (number, state, rest) = (next(&mut words)?, words.next()?, words.next().unwrap_or_default());
        let mut words = rest.split(' ');
        let answer = match state {
            "ready" => Answer::Ready(image(&mut words)?),
            "taken" => Answer::Taken(next(&mut words)?),
            "enters" => Answer::Enters(image(&mut words)?),
            "refused" => Answer::Refused(rest.into()),
            "done" => Answer::Done {
                life: next(&mut words)?,
                pause: pause(&mut words)?,
                exchanged: next(&mut words)?,
                before: image(&mut words)?,
                after: image(&mut words)?,
            },
            "returned" => {
                let mut words: SplitN<'_, char> = rest.splitn(4, ' ');
                let (life, pause) = (next(&mut words)?, pause(&mut words)?);
                Answer::Returned { life, pause, reason: words.next().unwrap_or_default().into() }
            }
            _ => return None,
        };
        Some(Self { number, answer })
    }
}

fn image<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Image> {
    Some(Image { name: words.next()?.into(), version: words.next()?.into() })
}

fn pause<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Pause> {
    let mut micros = || next(words).map(Duration::from_micros);
    Some(Pause { whole: micros()?, own: micros()? })
}

#[cfg(all(test, not(loom)))]
mod tests;

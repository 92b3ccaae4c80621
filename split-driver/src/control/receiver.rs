//! The domain's half: requests are read, images are taken piece by piece. Pure. Floor 1.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::future::poll_fn;
use core::ops::Range;
use core::task::Poll;

use futures_util::future::maybe_done;

use super::{
    ANSWER, Answer, Answered, CHECKSUM, IMAGE_MAX, Image, Order, PIECE, Pause, REQUEST, Request, WINDOW, WORDS, piece,
};
use crate::store::{Store, StoreError, Transaction};

/// An image on its way into the place of the running one.
pub trait Successor: Sized {
    /// Begins with nothing of a file of so many bytes.
    ///
    /// # Errors
    /// In words, why it cannot begin.
    fn begin(size: usize) -> Result<Self, String>;

    /// Takes the next bytes of its file.
    ///
    /// # Errors
    /// In words, why it cannot be one.
    fn add(&mut self, bytes: &[u8]) -> Result<(), String>;
}

/// What is to be done for a request; where it fails, [`Receiver::refuse`] says so.
#[derive(Debug)]
pub enum Act<I> {
    /// End this life.
    Restart,
    /// Put the image in the place of this one, with the command line that it is to have, where that is another.
    Enter(I, Option<String>),
}

/// How the last life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it was asked to.
    Asked,
    /// By another image: the one that runs now.
    Replaced,
    /// It was a new image's, which did not take over, for that reason.
    GivenUp(String),
    /// It failed, for that reason.
    Failed(String),
}

/// How this life began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Lives before this one.
    pub life: u64,
    /// How the last one ended.
    pub ended: Ended,
    /// Until this one had taken over.
    pub pause: Pause,
    /// Pages of the image that are others than before.
    pub exchanged: u32,
}

/// An image that comes.
struct Staged<I> {
    image: I,
    number: u32,
    size: u32,
    taken: u32,
    checksum: crc::Digest<'static, u32>,
}

/// Takes requests of dom0 in one life of a domain.
pub struct Receiver<S, I> {
    store: S,
    own: Image,
    /// Why nothing can be done here.
    able: Result<(), String>,
    staged: Option<Box<Staged<I>>>,
    /// The request that has got its last answer.
    answered: u32,
}

impl<S: Store, I: Successor> Receiver<S, I> {
    /// In a domain that runs this image, and refuses all requests where it is not `able` to.
    pub fn new(store: S, own: Image, able: Result<(), String>) -> Self {
        Self { store, own, able, staged: None, answered: 0 }
    }

    /// Says that requests are taken, and answers the one that the last life ended with. `outcome` is none in a first life.
    ///
    /// # Errors
    /// Of the store.
    pub async fn begin(&mut self, outcome: Option<Outcome>) -> Result<(), StoreError> {
        let said = self.text(ANSWER).await?.and_then(|text| Answered::parse(&text));
        let Some(Answered { number, answer }) = said else {
            return self.say(0, Answer::Ready(self.own.clone())).await;
        };
        self.answered = number;
        let answer = match (answer, outcome) {
            (Answer::Ready(_), _) => Answer::Ready(self.own.clone()),
            (Answer::Enters(before), Some(Outcome { life, ended, pause, exchanged })) => match ended {
                Ended::Asked | Ended::Replaced => {
                    Answer::Done { life, pause, exchanged, before, after: self.own.clone() }
                }
                Ended::GivenUp(reason) => Answer::Returned { life, pause, reason },
                Ended::Failed(reason) => Answer::Refused(format!("the domain failed before: {reason}")),
            },
            (Answer::Taken(_), Some(Outcome { ended: Ended::Failed(reason), .. })) => {
                Answer::Refused(format!("the domain failed meanwhile: {reason}"))
            }
            (Answer::Enters(_) | Answer::Taken(_), _) => Answer::Refused("the domain began anew meanwhile".into()),
            // Whoever asked may not have read it yet.
            _ => return Ok(()),
        };
        self.say(number, answer).await
    }

    /// Looks at the request.
    ///
    /// # Errors
    /// Of the store.
    pub async fn look(&mut self) -> Result<Option<Act<I>>, StoreError> {
        let Some(text) = self.text(REQUEST).await?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let Request { number, order } = match Request::parse(&text) {
            Ok(request) => request,
            Err(number) if number == 0 || number == self.answered => return Ok(None),
            Err(number) => {
                self.refuse(number, "this image does not know that request").await?;
                return Ok(None);
            }
        };
        if number == self.answered {
            return Ok(None);
        }
        if let Err(reason) = self.able.clone() {
            self.refuse(number, &reason).await?;
            return Ok(None);
        }
        match order {
            Order::Restart => {
                self.staged = None;
                self.enters(number).await?;
                Ok(Some(Act::Restart))
            }
            Order::Update { size, checksum, pieces } => match self.take(number, size, pieces).await? {
                Err(reason) => self.refuse(number, &reason).await.map(|()| None),
                Ok(None) => Ok(None),
                Ok(Some(staged)) if staged.checksum.clone().finalize() != checksum => {
                    self.refuse(number, "the image is damaged: its checksum is wrong").await.map(|()| None)
                }
                Ok(Some(staged)) => {
                    let words = self.text(WORDS).await?;
                    self.enters(number).await?;
                    Ok(Some(Act::Enter(staged.image, words)))
                }
            },
        }
    }

    /// Whether an image is on its way.
    pub const fn is_receiving(&self) -> bool {
        self.staged.is_some()
    }

    /// No piece comes any more: gives the memory of the image back that was on its way.
    ///
    /// # Errors
    /// Of the store.
    pub async fn give_up(&mut self) -> Result<(), StoreError> {
        match self.staged.take() {
            Some(staged) => self.refuse(staged.number, "the rest of the image did not come").await,
            None => Ok(()),
        }
    }

    /// Says why nothing came of a request.
    ///
    /// # Errors
    /// Of the store.
    pub async fn refuse(&mut self, number: u32, reason: &str) -> Result<(), StoreError> {
        log::warn!("dom0's request {number} is refused: {reason}");
        self.staged = None;
        self.answered = number;
        self.say(number, Answer::Refused(reason.to_string())).await
    }

    /// The number of the request that was answered last.
    pub const fn answered(&self) -> u32 {
        self.answered
    }

    async fn enters(&mut self, number: u32) -> Result<(), StoreError> {
        self.answered = number;
        self.say(number, Answer::Enters(self.own.clone())).await
    }

    /// Takes the pieces that are there; gives the image once it is whole. The inner error is why it cannot be one.
    async fn take(
        &mut self,
        number: u32,
        size: u32,
        pieces: u32,
    ) -> Result<Result<Option<Box<Staged<I>>>, String>, StoreError> {
        let mut staged = match self.staged.take().filter(|staged| (staged.number, staged.size) == (number, size)) {
            Some(staged) => staged,
            None if size == 0 || size as usize > IMAGE_MAX => {
                return Ok(Err(format!("an image has at most {IMAGE_MAX} bytes, and this one {size}")));
            }
            // That of another request is given back before.
            None => match I::begin(size as usize) {
                Ok(image) => Box::new(Staged { image, number, size, taken: 0, checksum: CHECKSUM.digest() }),
                Err(reason) => return Ok(Err(reason)),
            },
        };
        let all = size.div_ceil(PIECE as u32);
        let end = pieces.min(all);
        if end.saturating_sub(staged.taken) > WINDOW {
            return Ok(Err("more pieces came than may be under way".into()));
        }
        let before = staged.taken;
        for bytes in self.pieces(before..end).await {
            let Some(bytes) = bytes? else {
                return Ok(Err(format!("piece {} is missing", staged.taken)));
            };
            let expected = (size as usize - staged.taken as usize * PIECE).min(PIECE);
            if bytes.len() != expected {
                return Ok(Err(format!("piece {} has {} bytes in place of {expected}", staged.taken, bytes.len())));
            }
            staged.checksum.update(&bytes);
            if let Err(reason) = staged.image.add(&bytes) {
                return Ok(Err(reason));
            }
            staged.taken += 1;
        }
        if staged.taken == all {
            return Ok(Ok(Some(staged)));
        }
        let taken = staged.taken;
        self.staged = Some(staged);
        if taken > before {
            self.say(number, Answer::Taken(taken)).await?;
        }
        Ok(Ok(None))
    }

    /// Reads pieces, all at once: the store is a domain away.
    async fn pieces(&self, which: Range<u32>) -> Vec<Result<Option<Vec<u8>>, StoreError>> {
        let read = async |index| self.store.read_optional(Transaction::NONE, &piece(index)).await;
        // Smaller than `join_all`, which is made for many.
        let mut reads: Vec<_> = which.map(|index| Box::pin(maybe_done(read(index)))).collect();
        poll_fn(|context| {
            let waiting =
                reads.iter_mut().map(|read| usize::from(read.as_mut().poll(context).is_pending())).sum::<usize>();
            if waiting > 0 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        reads.iter_mut().filter_map(|read| read.as_mut().take_output()).collect()
    }

    async fn text(&self, path: &str) -> Result<Option<String>, StoreError> {
        let value = self.store.read_optional(Transaction::NONE, path).await?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    async fn say(&self, number: u32, answer: Answer) -> Result<(), StoreError> {
        self.store.write_text(Transaction::NONE, ANSWER, &Answered { number, answer }).await
    }
}

//! A new life or another image for a driver domain, through the store: dom0's half. Host.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::{Either, select};
use split_driver::control::{
    ANSWER, Answer, Answered, CHECKSUM, DIRECTORY, Order, PIECE, REQUEST, Request, WINDOW, WORDS, piece,
};
use split_driver::store::{Store, StoreError, Transaction, Watch};
use split_driver::time::Timer;

use crate::domain::{Domain, text};

/// How long a domain may be silent that takes an image, or is asked for a life.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the next life may take to say that it has taken over.
const LIFE: Duration = Duration::from_secs(120);
/// Pieces that are announced at once.
const BATCH: u32 = WINDOW / 2;

/// A conversation with a domain about one request.
struct Talk<'a, S: Store, T> {
    store: &'a S,
    clock: &'a T,
    domain: &'a Domain,
    watch: S::Watch,
    number: u32,
}

impl<'a, S: Store, T: Timer> Talk<'a, S, T> {
    /// Begins; what an earlier one left is removed.
    async fn begin(store: &'a S, clock: &'a T, domain: &'a Domain, number: u32) -> Result<Self> {
        let said = text(store, &domain.node(ANSWER)).await?;
        if said.and_then(|text| Answered::parse(&text)).is_none() {
            bail!(
                "{} (domain {}) takes no requests: it is no driver domain of oxidom's, its image is older than this tool, \
                 or it is not ready yet",
                domain.name,
                domain.id
            );
        }
        let talk = Self { store, clock, domain, watch: store.watch(&domain.node(ANSWER)).await?, number };
        talk.clear().await?;
        Ok(talk)
    }

    /// The same behind an answer, which counts more than what stays in the store.
    async fn clear_in_the_end(&self) {
        if let Err(error) = self.clear().await {
            eprintln!("warning: the request stays in the store: {error:#}");
        }
    }

    async fn clear(&self) -> Result<()> {
        match self.store.remove(Transaction::NONE, &self.domain.node(DIRECTORY)).await {
            Ok(()) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("removing {}", self.domain.node(DIRECTORY))),
        }
    }

    async fn put(&self, node: &str, value: &[u8]) -> Result<()> {
        let path = self.domain.node(node);
        self.store.write(Transaction::NONE, &path, value).await.with_context(|| format!("writing {path}"))
    }

    async fn ask(&self, order: Order) -> Result<()> {
        self.put(REQUEST, Request { number: self.number, order }.to_string().as_bytes()).await
    }

    /// The next answer that `wanted` takes; none where it does not come in time.
    async fn answer<A>(&mut self, patience: Duration, wanted: impl Fn(Answer) -> Option<A>) -> Result<Option<A>> {
        let deadline = self.clock.now() + patience;
        loop {
            let left = deadline.since(self.clock.now());
            if left.is_zero() {
                return Ok(None);
            }
            let in_time = {
                let (change, sleep) = (pin!(self.watch.next()), pin!(self.clock.sleep(left)));
                matches!(select(change, sleep).await, Either::Left(_))
            };
            if !in_time {
                return Ok(None);
            }
            let said = text(self.store, &self.domain.node(ANSWER)).await?;
            let Some(said) = said else {
                bail!("{} (domain {}) has ended meanwhile", self.domain.name, self.domain.id);
            };
            let said = Answered::parse(&said).filter(|said| said.number == self.number);
            if let Some(answer) = said.and_then(|said| wanted(said.answer)) {
                return Ok(Some(answer));
            }
        }
    }

    /// Waits for the end of a request.
    async fn end(&mut self) -> Result<Answer> {
        let begun = |answer: Answer| (answer.is_last() || matches!(answer, Answer::Enters(_))).then_some(answer);
        let Some(answer) = self.answer(PATIENCE, begun).await? else {
            return Err(self.silent());
        };
        if answer.is_last() {
            return Ok(answer);
        }
        let Some(answer) = self.answer(LIFE, |answer| answer.is_last().then_some(answer)).await? else {
            bail!(
                "{name} has begun its new life and says nothing since {LIFE:?}: `xl console {name}` may tell why. \
                 `xl trigger {name} nmi` ends a life that hangs; a new image that hangs is followed by the old one then",
                name = self.domain.name
            );
        };
        Ok(answer)
    }

    fn silent(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "{name} (domain {}) did not answer for {PATIENCE:?}: `xl console {name}` may tell why; nothing was changed",
            self.domain.id,
            name = self.domain.name
        )
    }
}

/// A new life for a domain. The answer is its last one.
///
/// # Errors
/// It takes no requests, or does not answer; or of the store.
pub(crate) async fn restart<S: Store>(store: &S, clock: &impl Timer, domain: &Domain, number: u32) -> Result<Answer> {
    let mut talk = Talk::begin(store, clock, domain, number).await?;
    talk.ask(Order::Restart).await?;
    let answer = talk.end().await;
    talk.clear_in_the_end().await;
    answer
}

/// Another image for a domain, with another command line where there are `words`. `progress` is told how many bytes were taken.
///
/// # Errors
/// It takes no requests, or does not answer; or of the store.
pub(crate) async fn update<S: Store>(
    store: &S,
    clock: &impl Timer,
    domain: &Domain,
    number: u32,
    (file, words): (&[u8], Option<&str>),
    progress: impl FnMut(usize),
) -> Result<Answer> {
    let mut talk = Talk::begin(store, clock, domain, number).await?;
    if let Some(words) = words {
        talk.put(WORDS, words.as_bytes()).await?;
    }
    let answer = send(&mut talk, file, progress).await;
    // Whatever came of it: nothing of it stays in the store.
    talk.clear_in_the_end().await;
    answer
}

async fn send<S: Store>(
    talk: &mut Talk<'_, S, impl Timer>,
    file: &[u8],
    mut progress: impl FnMut(usize),
) -> Result<Answer> {
    let size = u32::try_from(file.len()).context("the file is too large for an image")?;
    let checksum = CHECKSUM.checksum(file);
    let pieces: Vec<&[u8]> = file.chunks(PIECE).collect();
    let all = size.div_ceil(PIECE as u32);
    let (mut sent, mut taken) = (0, 0);
    // One for a file of no bytes, too: the domain says what is wrong with it.
    loop {
        let end = all.min(sent + BATCH);
        // One after the other: by Linux' /dev/xen/xenbus, pieces that are sent together arrive with the bytes of the last one, or not at all.
        for (index, bytes) in (sent..end).zip(pieces.iter().skip(sent as usize)) {
            talk.put(&piece(index), bytes).await?;
        }
        if end > sent || all == 0 {
            sent = end;
            talk.ask(Order::Update { size, checksum, pieces: sent }).await?;
        }
        if sent == all {
            return talk.end().await.inspect(|_| progress(file.len()));
        }
        if sent < taken + WINDOW {
            continue;
        }
        let further = |answer: Answer| match answer {
            Answer::Taken(pieces) if (taken + 1..=sent).contains(&pieces) => Some(Ok(pieces)),
            answer if answer.is_last() => Some(Err(answer)),
            _ => None,
        };
        match talk.answer(PATIENCE, further).await? {
            None => return Err(talk.silent()),
            Some(Err(answer)) => return Ok(answer),
            Some(Ok(pieces)) => taken = pieces,
        }
        progress(taken as usize * PIECE);
    }
}

#[cfg(test)]
mod tests;

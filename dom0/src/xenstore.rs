//! A new life or another image for the xenstore's own domain: messages to the store itself, as Xen's `xenstore-control` sends them. Host.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use split_driver::control::{Answer, Image, Pause};
use split_driver::store::StoreError;
use split_driver::xenstore_client::Client;
use split_driver::xs_wire::EINVAL;

use crate::domain::{Domain, text};

/// Bytes of a piece of an image: with the words before it they fit into a message.
const PIECE: usize = 3 << 10;

/// Whether the store is served by this domain (`init-xenstore-domain` says which).
///
/// # Errors
/// Of the store.
pub(crate) async fn is_served_by(store: &Client, domain: &Domain) -> Result<bool> {
    Ok(domain_number(store).await? == Some(domain.id))
}

/// The number of the domain that serves the store; none of a daemon in dom0.
///
/// # Errors
/// Of the store.
pub(crate) async fn domain_number(store: &Client) -> Result<Option<u32>> {
    let id = text(store, "/tool/xenstored/domid").await?;
    Ok(id.and_then(|id| id.parse().ok()).filter(|id| *id != 0))
}

/// What the store tells of its life.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// Lives before this one.
    pub(crate) lives: u64,
    pause: Pause,
    exchanged: u32,
    /// The image that it runs.
    pub(crate) image: Image,
}

impl Life {
    fn parse(said: &str) -> Option<Self> {
        let mut words = said.split(' ');
        let (lives, whole, own) = (number(&mut words)?, number(&mut words)?, number(&mut words)?);
        let exchanged = u32::try_from(number(&mut words)?).ok()?;
        let image = Image { name: words.next()?.into(), version: words.next()?.into() };
        let pause = Pause { whole: Duration::from_micros(whole), own: Duration::from_micros(own) };
        Some(Self { lives, pause, exchanged, image })
    }
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<u64> {
    words.next()?.parse().ok()
}

/// Gives a command; the answer as text.
async fn control(store: &Client, words: &[&[u8]]) -> Result<String> {
    let answer = store.control(words).await;
    let answer = answer.with_context(|| format!("asking the xenstore for \"{}\"", shown(words)))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A command without the bytes of an image.
fn shown(words: &[&[u8]]) -> String {
    words.iter().take(3).map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ")
}

/// The life of the store now.
///
/// # Errors
/// It does not run an image of oxidom's.
pub(crate) async fn life(store: &Client) -> Result<Life> {
    let said = match store.control(&[b"life"]).await {
        Err(StoreError::Errno(EINVAL)) => {
            bail!(
                "the xenstore's domain does not run an image of oxidom's that knows this tool; `xenstore-control live-update` may"
            )
        }
        other => other.context("asking the xenstore for its life")?,
    };
    let said = String::from_utf8_lossy(&said);
    Life::parse(&said).with_context(|| format!("the xenstore said \"{said}\" of its life"))
}

/// What came of it, by the life before and the one now.
fn answer(before: Life, now: Life, said: &str) -> Answer {
    match (said, now.lives > before.lives) {
        ("OK", _) => Answer::Done {
            life: now.lives,
            pause: now.pause,
            exchanged: now.exchanged,
            before: before.image,
            after: now.image,
        },
        (reason, true) => Answer::Returned { life: now.lives, pause: now.pause, reason: reason.into() },
        (reason, false) => Answer::Refused(reason.into()),
    }
}

/// A new life.
///
/// # Errors
/// The store does not know the command, or its connection broke.
pub(crate) async fn restart(store: &Client) -> Result<Answer> {
    let before = life(store).await?;
    let said = control(store, &[b"restart"]).await?;
    Ok(answer(before, life(store).await?, &said))
}

/// Another image, with another command line where there are `words`. `progress` is told how many bytes were taken.
///
/// # Errors
/// The store does not know the command, or its connection broke.
pub(crate) async fn update(
    store: &Client,
    (file, words): (&[u8], Option<&str>),
    progress: impl FnMut(usize),
) -> Result<Answer> {
    let before = life(store).await?;
    let refused = match send(store, (file, words), progress).await? {
        None => {
            let said = control(store, &[b"live-update", b"-s", b"-t", b"60"]).await?;
            return Ok(answer(before, life(store).await?, &said));
        }
        Some(refused) => refused,
    };
    // Gives its memory back; where nothing was begun that is an answer in words.
    control(store, &[b"live-update", b"-a"]).await?;
    Ok(Answer::Refused(refused))
}

/// Sends the image; gives why it was refused.
async fn send(
    store: &Client,
    (file, words): (&[u8], Option<&str>),
    mut progress: impl FnMut(usize),
) -> Result<Option<String>> {
    let size = file.len().to_string();
    let begin: [&[u8]; 3] = [b"live-update", b"-b", size.as_bytes()];
    let mut said = control(store, &begin).await?;
    if said.contains("already active") {
        // What a tool left that ended in the middle: another one of this kind does not run now.
        control(store, &[b"live-update", b"-a"]).await?;
        said = control(store, &begin).await?;
    }
    if said != "OK" {
        return Ok(Some(said));
    }
    let mut sent = 0;
    for piece in file.chunks(PIECE) {
        let said = control(store, &[b"live-update", b"-d", piece.len().to_string().as_bytes(), piece]).await?;
        if said != "OK" {
            return Ok(Some(said));
        }
        sent += piece.len();
        progress(sent);
    }
    let Some(words) = words else {
        return Ok(None);
    };
    let said = control(store, &[b"live-update", b"-c", words.as_bytes()]).await?;
    Ok(Some(said).filter(|said| said != "OK"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_and_compared() {
        let life = |lives: u64| Life::parse(&format!("{lives} 410 380 109 stubdom 0.1.0")).unwrap();
        let image = Image { name: "stubdom".into(), version: "0.1.0".into() };
        let pause = Pause { whole: Duration::from_micros(410), own: Duration::from_micros(380) };
        assert_eq!(life(3), Life { lives: 3, pause, exchanged: 109, image: image.clone() });
        for text in ["", "3 410 380 109 stubdom", "3 410 380 x stubdom 1"] {
            assert_eq!(Life::parse(text), None, "{text:?}");
        }
        let done = Answer::Done { life: 4, pause, exchanged: 109, before: image.clone(), after: image };
        assert_eq!(answer(life(3), life(4), "OK"), done);
        assert_eq!(answer(life(3), life(3), "no"), Answer::Refused("no".into()));
        assert_eq!(answer(life(3), life(5), "no"), Answer::Returned { life: 5, pause, reason: "no".into() });
    }
}

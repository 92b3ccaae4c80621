//! Attacks on a block backend, `attack=blk-NAME`: the vbd must be closed for it, or a request refused and the next one served.
//!
//! The words `narrow` (a 32-bit guest's layout), `persistent`, `queues=N` and `pages=N` of the command line say how the frontend connects
//! first.

mod bounds;
mod frontend;
mod grants;
mod indirect;
mod noise;
mod ring;
mod rings;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::Rings;
use core::sync::atomic::AtomicU32;
use frontend::Manners;
use runtime::time;
use split_driver::xenstore_client::Client;

pub(crate) use frontend::{Frontend, find};

/// Connects, makes the attack, and gives what must stay as it is after it.
pub(crate) async fn run(store: &Client, name: &str, words: &str) -> Result<Frontend> {
    let device = frontend::find(store).await?;
    let manners = manners(words);
    if let Some(lies) = rings::lies(name) {
        crate::go(store, words).await?;
        let frontend =
            Frontend::offer(device, Manners { read_only: name == "ring-read-only", lies, ..manners }).await?;
        frontend.device.wait_for_end().await?;
        return Ok(frontend);
    }
    let mut frontend = Frontend::connect(device, manners).await?;
    frontend.works().await?;
    log::info!("the vbd works, {} sectors", frontend.sectors);
    crate::go(store, words).await?;
    for name in name.split(',') {
        let start = time::now();
        attack(&mut frontend, name).await.inspect_err(|_| log::error!("attack {name}"))?;
        log::info!("attack {name}: {} ms", (time::now().0 - start.0) / 1_000_000);
    }
    Ok(frontend)
}

/// Each family of attacks says whether the name is one of its own.
async fn attack(frontend: &mut Frontend, name: &str) -> Result<()> {
    let known = name == "none"
        || bounds::attack(frontend, name).await?
        || indirect::attack(frontend, name).await?
        || grants::attack(frontend, name).await?
        || rings::attack(frontend, name).await?
        || noise::attack(frontend, name).await?;
    if known { Ok(()) } else { Err(Error::Unknown) }
}

/// Connects as these words of a command line say.
pub(crate) async fn connect(device: Device, words: &str) -> Result<Frontend> {
    Frontend::connect(device, manners(words)).await
}

impl Rings for Frontend {
    fn word(&self, ring: u8, place: usize) -> Option<&AtomicU32> {
        self.queues.get(usize::from(ring))?.ring.word(place)
    }

    fn notify(&self, ring: u8) {
        if let Some(queue) = self.queues.get(usize::from(ring)) {
            queue.channel.notify();
        }
    }
}

fn manners(words: &str) -> Manners {
    let number = |name: &str| words.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok());
    let said = |name: &str| words.split_ascii_whitespace().any(|word| word == name);
    Manners {
        queues: number("queues=").unwrap_or(1),
        pages: number("pages=").unwrap_or(1),
        narrow: said("narrow"),
        persistent: said("persistent"),
        read_only: false,
        linux: said("linux"),
        lies: &[],
    }
}

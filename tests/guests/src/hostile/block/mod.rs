//! Attacks on a block backend, `attack=blk-NAME`: the vbd must be closed for it, or a request refused and the next one served.
//!
//! The words `persistent`, `queues=N` and `pages=N` of the command line say how the frontend connects first.

mod bounds;
mod frontend;
mod grants;
mod indirect;
mod noise;
mod ring;
mod rings;

use crate::error::{Error, Result};
use alloc::boxed::Box;
use core::any::Any;
use frontend::{Frontend, Manners};
use split_driver::xenstore_client::Client;

/// Connects, makes the attack, and gives what must stay as it is after it.
pub(crate) async fn run(store: &Client, name: &str, words: &str) -> Result<Box<dyn Any>> {
    let device = frontend::find(store).await?;
    let manners = manners(words);
    if let Some(lies) = rings::lies(name) {
        crate::go(store, words).await?;
        let frontend =
            Frontend::offer(device, Manners { read_only: name == "ring-read-only", lies, ..manners }).await?;
        frontend.device.wait_for_end().await?;
        return Ok(Box::new(frontend));
    }
    let mut frontend = Frontend::connect(device, manners).await?;
    frontend.works().await?;
    log::info!("attack {name}: the vbd works, {} sectors", frontend.sectors);
    crate::go(store, words).await?;
    // Each family of attacks says whether the name is one of its own.
    let known = name == "none"
        || bounds::attack(&mut frontend, name).await?
        || indirect::attack(&mut frontend, name).await?
        || grants::attack(&mut frontend, name).await?
        || rings::attack(&mut frontend, name).await?
        || noise::attack(&mut frontend, name).await?;
    if known { Ok(Box::new(frontend)) } else { Err(Error::Unknown) }
}

fn manners(words: &str) -> Manners {
    let number = |name: &str| words.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok());
    let persistent = words.split_ascii_whitespace().any(|word| word == "persistent");
    Manners {
        queues: number("queues=").unwrap_or(1),
        pages: number("pages=").unwrap_or(1),
        persistent,
        read_only: false,
        lies: &[],
    }
}

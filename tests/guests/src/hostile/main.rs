//! A hostile frontend: connects as a proper one, then does what its command line names, `attack=NAME`, and stays.
//!
//! With the word `wait` it says `ready` in its node `data/hostile` first and waits for `data/go`, so that neighbours can be measured
//! meanwhile; in the end it says `done` there, or `failed`, and why on the console. With a second vif it sends itself packets.
//! When `data/go` says `2` then, it says `works` once its device has carried traffic again ([`Attacker::works`]).
//!
//! `attack=blk-NAME` is against a block backend, with the first vbd; else it is against a network backend. Several names, with commas
//! between them, are made one after the other; `seed=N` decides what is random in them.
//!
//! The word `linux` says that the backend is Linux', which serves no frontend again after some attacks: those end there.
//!
//! `attack=tape` and `attack=blk-tape` play what a fuzzer's hostile guest did ([`tape`]), which is the domain's module.
//!
//! `attack=member`, `attack=station` and `attack=steered` are none: they are proper frontends of kinds that Linux has not, with the same code.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod block;
mod chains;
mod device;
mod error;
mod frames;
mod frontend;
mod grants;
mod member;
mod neighbour;
mod noise;
mod offloads;
mod proof;
mod random;
mod rings;
mod segment;
mod station;
mod steered;
mod tape;

use alloc::boxed::Box;
use device::Device;
use error::{Error, Result};
use frontend::{Frontend, Manners};
use runtime::Environment;
use runtime::shutdown::{self, Requests};
use split_driver::store::{Store, Transaction, Watch};
use split_driver::xenstore_client::Client;

runtime::entry!(main);

async fn main(environment: Environment) {
    let mut words = environment.command_line.split_ascii_whitespace();
    let name = words.find_map(|word| word.strip_prefix("attack=")).unwrap_or("none");
    random::take_seed(environment.command_line);
    let store = match runtime::store::connect() {
        Ok(store) => store,
        Err(error) => {
            log::error!("no store: {error:?}");
            return;
        }
    };
    runtime::spawn(obey(store.clone()));
    let words = &environment.command_line;
    let result = match (name, name.strip_prefix("blk-")) {
        ("tape" | "blk-tape", _) => play(&store, name, &environment).await,
        (_, Some(name)) => block::run(&store, name, words).await.map(|frontend| Attacker::Block(Box::new(frontend))),
        (_, None) => run(&store, name, words).await.map(|pair| Attacker::Network(Box::new(pair))),
    };
    match result {
        Ok(mut attacker) => {
            log::info!("attack {name} done");
            say(&store, "done").await;
            if let Err(error) = attacker.prove(&store, words).await {
                log::error!("the device no longer works: {error:?}");
                say(&store, "failed").await;
            }
            // What is granted and bound stays so, or the backend would see the end of that in place of the attack's.
            core::mem::forget(attacker);
        }
        Err(error) => {
            log::error!("attack {name} failed: {error:?}");
            say(&store, "failed").await;
        }
    }
    core::future::pending().await
}

/// The frontend that has made an attack.
enum Attacker {
    Network(Box<Pair>),
    Block(Box<block::Frontend>),
}

impl Attacker {
    /// Shows that the device works, where and when dom0 asks for it.
    async fn prove(&mut self, store: &Client, words: &str) -> Result<()> {
        if !waits(words) {
            return Ok(());
        }
        order(store, Some("2")).await?;
        self.works(words).await?;
        say(store, "works").await;
        Ok(())
    }

    /// Has the device carry traffic: packets both ways with the station that the word `witness=ADDRESS` names, or blocks.
    async fn works(&mut self, words: &str) -> Result<()> {
        match self {
            Self::Block(frontend) => frontend.works().await,
            Self::Network(pair) => {
                let witness = words.split_ascii_whitespace().find_map(|word| word.strip_prefix("witness="));
                let witness = witness.and_then(|address| address.parse().ok()).ok_or(Error::Text)?;
                proof::carries(&mut pair.attacker, witness).await
            }
        }
    }
}

/// Ends the domain when the toolstack says so.
async fn obey(store: Client) {
    if let Ok(mut requests) = Requests::new(store).await {
        shutdown::finish(requests.requested().await);
    }
}

/// Says in `data/hostile` how far it is.
pub(crate) async fn say(store: &Client, word: &str) {
    if let Err(error) = store.write(Transaction::NONE, "data/hostile", word.as_bytes()).await {
        log::error!("data/hostile: {error:?}");
    }
}

/// Waits for dom0's word, where the command line says so.
pub(crate) async fn go(store: &Client, words: &str) -> Result<()> {
    if !waits(words) {
        return Ok(());
    }
    say(store, "ready").await;
    order(store, None).await
}

fn waits(words: &str) -> bool {
    words.split_ascii_whitespace().any(|word| word == "wait")
}

/// Waits until `data/go` is there, or says this.
async fn order(store: &Client, word: Option<&str>) -> Result<()> {
    let mut watch = store.watch("data/go").await?;
    loop {
        let said = store.read_optional(Transaction::NONE, "data/go").await?;
        if said.is_some_and(|said| word.is_none_or(|word| said == word.as_bytes())) {
            return Ok(());
        }
        watch.next().await;
    }
}

/// A vif of ours, and another that sends it packets where there is one.
pub(crate) struct Pair {
    pub(crate) attacker: Frontend,
    pub(crate) helper: Option<Frontend>,
    /// The backend is Linux': it serves no vif again that it has halted, and unregisters one whose frontend writes a value that is no state.
    pub(crate) linux: bool,
}

impl Pair {
    /// Has the helper send packets to the attacker.
    pub(crate) async fn flood(&mut self, packets: u32) -> Result<()> {
        let mac = self.attacker.mac;
        let helper = self.helper.as_mut().ok_or(Error::Wrong("this attack needs a second vif"))?;
        let frame = frames::datagram(mac, helper.mac, 1000);
        let reference = helper.lend_bytes(&frame)?;
        let size = u16::try_from(frame.len()).map_err(|_| Error::Text)?;
        let mut left = packets;
        while left > 0 {
            let batch = left.min(128);
            for _ in 0..batch {
                helper.slot(reference, 0, size, xen_pv_sys::io::netif::TxFlags::empty());
            }
            helper.publish();
            helper.responses(batch as usize).await?;
            left -= batch;
        }
        Ok(())
    }
}

/// Plays the tape.
async fn play(store: &Client, name: &str, environment: &Environment) -> Result<Attacker> {
    let lives = tape::lives(environment.module)?;
    if name == "tape" {
        let vif = Device::find(store, "device/vif/0".into()).await?;
        go(store, environment.command_line).await?;
        return Ok(Attacker::Network(Box::new(tape::play(vif, &lives).await?)));
    }
    let vbd = block::find(store).await?;
    go(store, environment.command_line).await?;
    Ok(Attacker::Block(Box::new(tape::play_block(vbd, &lives).await?)))
}

async fn run(store: &Client, name: &str, words: &str) -> Result<Pair> {
    let vif = Device::find(store, "device/vif/0".into()).await?;
    match name {
        "member" => match member::run(vif).await? {},
        "station" => match station::run(vif).await? {},
        "steered" => match steered::run(vif).await? {},
        _ => {}
    }
    let helper = match Device::find(store, "device/vif/1".into()).await {
        Ok(vif) => Some(Frontend::connect(vif, Manners::GOOD).await?),
        Err(_) => None,
    };
    let linux = words.split_ascii_whitespace().any(|word| word == "linux");
    let posts = !rings::posts_nothing(name);
    if rings::is_handshake(name) {
        go(store, words).await?;
        let attacker = rings::handshake(vif, name).await?;
        return Ok(Pair { attacker, helper, linux });
    }
    let attacker = Frontend::connect(vif, Manners { posts, ..Manners::GOOD }).await?;
    let mut pair = Pair { attacker, helper, linux };
    let hello = frames::hello(pair.attacker.mac);
    pair.attacker.send(&hello).await?;
    log::info!("attack {name}: the vif works");
    go(store, words).await?;
    for name in name.split(',') {
        attack(&mut pair, name).await.inspect_err(|_| log::error!("attack {name}"))?;
    }
    Ok(pair)
}

/// Each family of attacks says whether the name is one of its own.
async fn attack(pair: &mut Pair, name: &str) -> Result<()> {
    if name == "none"
        || grants::attack(pair, name).await?
        || chains::attack(&mut pair.attacker, name).await?
        || offloads::attack(&mut pair.attacker, name).await?
        || rings::attack(pair, name).await?
        || noise::attack(pair, name).await?
    {
        return Ok(());
    }
    Err(Error::Unknown)
}

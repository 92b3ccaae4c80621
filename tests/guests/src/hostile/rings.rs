//! Rings whose indices lie, that are never filled, or never were rings; and the handshake that names them.

use crate::Pair;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::frames;
use crate::frontend::{Frontend, Manners};
use runtime::time::{self, Duration};

/// Where `req_prod` is (`io/ring.h`).
const REQUEST_PRODUCER: usize = 0;

/// Whether the attack needs a frontend without receive slots.
pub(crate) fn posts_nothing(name: &str) -> bool {
    name == "rx-never-filled"
}

/// Whether the attack is made while connecting.
pub(crate) fn is_handshake(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "ring-never-granted",
        "channel-of-nobody",
        "queues-too-many",
        "queues-missing",
        "control-ring-never-granted",
        "headroom-of-a-page",
    ];
    NAMES.contains(&name)
}

/// Connects with what is not there.
pub(crate) async fn handshake(vif: Device, name: &str) -> Result<Frontend> {
    let manners = match name {
        "ring-never-granted" => Manners { ring: Some(0x00ff_ffff), ..Manners::GOOD },
        "queues-too-many" => Manners { features: &[("multi-queue-num-queues", "9")], ..Manners::GOOD },
        // The nodes of the rings are where those of a single queue are.
        "queues-missing" => Manners { features: &[("multi-queue-num-queues", "2")], ..Manners::GOOD },
        "control-ring-never-granted" => {
            Manners { features: &[("ctrl-ring-ref", "16777215"), ("event-channel-ctrl", "3000")], ..Manners::GOOD }
        }
        "headroom-of-a-page" => Manners { features: &[("xdp-headroom", "4096")], ..Manners::GOOD },
        _ => Manners { port: Some(3000), ..Manners::GOOD },
    };
    let frontend = Frontend::offer(vif, manners).await?;
    frontend.vif.wait_for_end().await?;
    Ok(frontend)
}

pub(crate) async fn attack(pair: &mut Pair, name: &str) -> Result<bool> {
    let frontend = &mut pair.attacker;
    let state = frontend.transmit.state();
    match name {
        "producer-overrun" => {
            Frontend::scribble(&frontend.transmit_page, REQUEST_PRODUCER, state.produced.wrapping_add(257));
        }
        "producer-far-ahead" => {
            Frontend::scribble(&frontend.transmit_page, REQUEST_PRODUCER, state.produced.wrapping_add(0x8000_0000));
        }
        "producer-goes-back" => {
            Frontend::scribble(&frontend.transmit_page, REQUEST_PRODUCER, state.produced.wrapping_sub(1));
        }
        "rx-producer-overrun" => {
            let produced = frontend.receive.state().produced;
            Frontend::scribble(&frontend.receive_page, REQUEST_PRODUCER, produced.wrapping_add(257));
            // The backend looks when it needs slots beyond those that it knows.
            pair.flood(256).await?;
        }
        "rx-never-filled" => {
            pair.flood(20_000).await?;
            late(pair).await?;
        }
        "begin-anew" => begin_anew(pair).await?,
        _ => return Ok(false),
    }
    pair.attacker.transmit_channel.notify();
    pair.attacker.receive_channel.notify();
    Ok(true)
}

/// After all that, one who posts slots gets packets.
async fn late(pair: &mut Pair) -> Result<()> {
    for _ in 0..16 {
        let page = runtime::memory::Page::new()?;
        let slot = pair.attacker.lend(page.into(), false)?;
        pair.attacker.post(slot);
    }
    pair.attacker.publish();
    for _ in 0..100 {
        if pair.attacker.received()? > 0 {
            return Ok(());
        }
        time::sleep(Duration::from_millis(50)).await;
    }
    Err(Error::Wrong("slots were posted late and never filled"))
}

/// Breaks the protocol, is closed for it, begins anew, and must be served like anyone.
async fn begin_anew(pair: &mut Pair) -> Result<()> {
    for _ in 0..5 {
        let frontend = &mut pair.attacker;
        Frontend::scribble(&frontend.transmit_page, REQUEST_PRODUCER, u32::MAX);
        frontend.transmit_channel.notify();
        let vif = frontend.vif.clone();
        if pair.linux {
            return Ok(());
        }
        vif.wait_for_end().await?;
        vif.begin_anew().await?;
        pair.attacker = Frontend::connect(vif, Manners::GOOD).await?;
        let hello = frames::hello(pair.attacker.mac);
        pair.attacker.send(&hello).await?;
    }
    Ok(())
}

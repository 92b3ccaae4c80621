//! Too much of anything: events, states, and bytes at random.

use crate::Pair;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::frames;
use crate::frontend::{Frontend, Manners};
use crate::random::Random;
use runtime::events::Channel;
use runtime::time::{self, Duration};
use xen_pv_sys::GrantRef;
use xen_pv_sys::io::netif::TxFlags;

/// How long a storm goes on.
pub(crate) const STORM: Duration = Duration::from_secs(3);

pub(crate) async fn attack(pair: &mut Pair, name: &str) -> Result<bool> {
    match name {
        "event-storm" => storm([&pair.attacker.transmit_channel, &pair.attacker.receive_channel].into_iter()),
        "state-flapping" => states(pair).await?,
        "ring-scribble" => scribble(pair),
        "random-slots" => slots(pair).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Notifies as fast as Xen takes it, with nothing to do.
pub(crate) fn storm<'a>(channels: impl Iterator<Item = &'a Channel> + Clone) {
    let end = time::now() + STORM;
    let mut count = 0_u64;
    while time::now() < end {
        for channel in core::iter::repeat_n(channels.clone(), 100).flatten() {
            channel.notify();
            count += 1;
        }
    }
    log::info!("{count} events");
}

/// Any state after any other, and nonsense in the nodes beside; then must be able to begin anew.
async fn states(pair: &mut Pair) -> Result<()> {
    const NODES: [&str; 5] =
        ["tx-ring-ref", "event-channel-tx", "request-rx-copy", "request-multicast-control", "feature-sg"];
    let vif = pair.attacker.vif.clone();
    flap(&vif, &NODES).await?;
    if pair.linux {
        return Ok(());
    }
    vif.begin_anew().await?;
    pair.attacker = Frontend::connect(vif, Manners::GOOD).await?;
    let hello = frames::hello(pair.attacker.mac);
    pair.attacker.send(&hello).await
}

/// Any state after any other, and nonsense in these nodes beside.
pub(crate) async fn flap(device: &Device, nodes: &[&str]) -> Result<()> {
    const STATES: [&str; 12] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "x", ""];
    const VALUES: [&str; 8] = ["0", "1", "9", "-1", "4294967296", "", "\u{7f}", "moo"];
    let mut random = Random::new();
    let end = time::now() + STORM;
    let mut count = 0;
    while time::now() < end {
        device.write("state", random.pick(&STATES)).await?;
        if random.below(4) == 0 {
            device.write(random.pick(nodes), random.pick(&VALUES)).await?;
        }
        if random.below(16) == 0 {
            time::sleep(Duration::from_millis(random.below(20).into())).await;
        }
        count += 1;
    }
    log::info!("{count} states");
    Ok(())
}

/// Writes anything anywhere on both rings, indices included, while the backend looks.
fn scribble(pair: &mut Pair) {
    let mut random = Random::new();
    let frontend = &pair.attacker;
    let end = time::now() + Duration::from_secs(1);
    while time::now() < end {
        for page in [&frontend.transmit_page, &frontend.receive_page] {
            let (word, value) = (random.below(1024) as usize, random.next());
            Frontend::scribble(page, word, value);
            // Indices that are near the truth get further.
            Frontend::scribble(page, random.below(4) as usize, random.below(300));
        }
        frontend.transmit_channel.notify();
        frontend.receive_channel.notify();
    }
}

/// Slots of random fields that are mostly near what is legal, for as long as the vif lives.
async fn slots(pair: &mut Pair) -> Result<()> {
    let mut random = Random::new();
    let frontend = &mut pair.attacker;
    let frame = frames::tcp(frontend.mac, 3000);
    let good = frontend.lend_bytes(&frame)?;
    let end = time::now() + STORM;
    let mut count = 0;
    while time::now() < end {
        for _ in 0..random.below(40) {
            let gref = if random.below(400) == 0 { GrantRef(random.below(5000)) } else { good };
            let flags = TxFlags::from_bits_retain((random.below(16) & random.below(16)) as u16);
            let placed = match random.below(4) {
                0 => frontend.extra((random.below(80) / 16) as u8, (random.below(5) / 4) as u8, [60, 0, 1, 0, 0, 0]),
                _ => frontend.slot(gref, random.below(1000) as u16, random.below(3000) as u16, flags),
            };
            count += u32::from(placed);
        }
        frontend.publish();
        time::sleep(Duration::from_millis(2)).await;
        match frontend.transmit.unconsumed() {
            Ok(waiting) => {
                for _ in 0..waiting {
                    let _ = frontend.transmit.take();
                }
            }
            Err(_) => return Err(Error::Wrong("the backend answered what was not asked")),
        }
    }
    log::info!("{count} slots");
    Ok(())
}

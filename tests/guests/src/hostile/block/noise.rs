//! Too much of anything: events, states, and bytes at random.

use super::frontend::{Frontend, segment, transfer};
use crate::error::{Error, Result};
use crate::noise::{STORM, flap, storm};
use crate::random::Random;
use runtime::time::{self, Duration};
use xen_pv_sys::GrantRef;
use zerocopy::IntoBytes;

/// Nodes that the backend reads.
const NODES: [&str; 6] =
    ["ring-ref", "event-channel", "ring-page-order", "multi-queue-num-queues", "feature-persistent", "protocol"];

pub(crate) async fn attack(frontend: &mut Frontend, name: &str) -> Result<bool> {
    match name {
        "event-storm" => {
            storm(frontend.queues.iter().map(|queue| &queue.channel));
            frontend.works().await?;
        }
        "state-flapping" => {
            let (device, manners) = (frontend.device.clone(), frontend.manners);
            flap(&device, &NODES).await?;
            if manners.linux {
                return Ok(true);
            }
            device.begin_anew().await?;
            *frontend = Frontend::connect(device, manners).await?;
            frontend.works().await?;
        }
        "ring-scribble" => scribble(frontend)?,
        "random-slots" => slots(frontend).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Writes anything anywhere on the ring, indices included, while the backend looks.
fn scribble(frontend: &mut Frontend) -> Result<()> {
    let mut random = Random::new();
    let queue = frontend.queue()?;
    let end = time::now() + Duration::from_secs(1);
    while time::now() < end {
        queue.ring.store(random.below(queue.ring.words() as u32) as usize, random.next());
        // Indices that are near the truth get further.
        queue.ring.store(random.below(4) as usize, random.below(40));
        queue.channel.notify();
    }
    Ok(())
}

/// Slots of random fields that are mostly near what is legal; each must be answered.
async fn slots(frontend: &mut Frontend) -> Result<()> {
    let mut random = Random::new();
    let (_page, good) = frontend.lend_filled(0x5a)?;
    let end = time::now() + STORM;
    let (mut count, mut refused) = (0_u64, 0);
    let sectors = frontend.sectors as u32;
    while time::now() < end {
        let queue = frontend.queue()?;
        for _ in 0..=random.below(queue.ring.slots - 1) {
            let grant = if random.below(40) == 0 { GrantRef(random.below(5000)) } else { good };
            let first = random.below(9) as u8;
            let segments = [segment(grant, first, first + random.below(8) as u8); 11];
            let sector = u64::from(random.below(sectors + sectors / 8)) << (random.below(20) / 19 * 24);
            let mut request = transfer(random.below(8) as u8, sector, &segments);
            request.nr_segments = random.below(13) as u8;
            queue.ring.push(request.as_bytes())?;
            count += 1;
        }
        queue.publish();
        refused += queue.drain().await?;
    }
    log::info!("{refused} of {count} refused");
    if refused == 0 { Err(Error::Wrong("nothing was refused")) } else { frontend.works().await }
}

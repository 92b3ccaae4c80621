//! Rings whose indices lie, whose requests change, that are always full or never emptied; and the handshake that names them.

use super::bounds::discard;
use super::frontend::{Frontend, indirect, transfer, whole};
use super::indirect::{describe, table};
use crate::error::Result;
use crate::random::Random;
use crate::say;
use alloc::vec::Vec;
use runtime::time::{self, Duration};
use xen_pv_sys::io::blkif::{
    BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER, RequestSegment,
};
use zerocopy::IntoBytes;

/// How long a flood goes on.
const FLOOD: Duration = Duration::from_secs(3);
/// Rings full of requests that change.
const ROUNDS: u32 = 60;

/// Nodes that name what is not there; none where the attack is not made while connecting.
pub(crate) fn lies(name: &str) -> Option<&'static [(&'static str, Option<&'static str>)]> {
    Some(match name {
        "ring-read-only" => &[],
        "ring-never-granted" => &[("ring-ref", Some("16777215"))],
        "ring-missing" => &[("ring-ref", None)],
        "ring-page-missing" => &[("ring-page-order", Some("2")), ("ring-ref0", Some("8"))],
        "ring-page-order" => &[("ring-page-order", Some("99"))],
        "ring-no-number" => &[("ring-ref", Some("moo"))],
        "channel-missing" => &[("event-channel", None)],
        "channel-of-nobody" => &[("event-channel", Some("3000"))],
        "no-queue" => &[("multi-queue-num-queues", Some("0"))],
        "too-many-queues" => &[("multi-queue-num-queues", Some("9999"))],
        "queues-missing" => &[("multi-queue-num-queues", Some("4"))],
        "protocol" => &[("protocol", Some("ia64-abi"))],
        _ => return None,
    })
}

pub(crate) async fn attack(frontend: &mut Frontend, name: &str) -> Result<bool> {
    match name {
        "producer-overrun" => claim(frontend, |produced, slots| produced.wrapping_add(slots + 1))?,
        "producer-thousand" => claim(frontend, |produced, _| produced.wrapping_add(1000))?,
        "producer-far-ahead" => claim(frontend, |produced, _| produced.wrapping_add(1 << 31))?,
        "producer-goes-back" => claim(frontend, |produced, _| produced.wrapping_sub(1))?,
        "overrun-in-flight" => {
            fill(frontend, BLKIF_OP_WRITE)?;
            claim(frontend, |produced, _| produced.wrapping_add(1))?;
        }
        "begin-anew" => begin_anew(frontend).await?,
        "changed" => changed(frontend).await?,
        "changed-indirect" => changed_indirect(frontend).await?,
        "barriers" => flood(frontend, BLKIF_OP_WRITE_BARRIER).await?,
        "flushes" => flood(frontend, BLKIF_OP_FLUSH_DISKCACHE).await?,
        "full-rings" => full(frontend).await?,
        "never-consumed" => never_consumed(frontend).await?,
        "vanish" => vanish(frontend).await?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Claims an index that cannot be.
fn claim(frontend: &mut Frontend, index: fn(u32, u32) -> u32) -> Result<()> {
    let queue = frontend.queue()?;
    queue.ring.claim(index(queue.ring.produced, queue.ring.slots));
    queue.channel.notify();
    Ok(())
}

/// Breaks the protocol, is closed for it, begins anew, and must be served like anyone.
async fn begin_anew(frontend: &mut Frontend) -> Result<()> {
    for _ in 0..5 {
        fill(frontend, BLKIF_OP_READ)?;
        claim(frontend, |produced, slots| produced.wrapping_add(slots))?;
        let (device, manners) = (frontend.device.clone(), frontend.manners);
        if !manners.linux {
            device.wait_for_end().await?;
        }
        device.begin_anew().await?;
        *frontend = Frontend::connect(device, manners).await?;
        frontend.works().await?;
    }
    Ok(())
}

/// Fills each ring with requests of 11 pages, all over the disk.
fn fill(frontend: &mut Frontend, operation: u8) -> Result<()> {
    let mut pages = frontend.share()?.into_iter().cycle();
    let places = frontend.sectors.saturating_sub(88) / 8;
    for (number, queue) in frontend.queues.iter_mut().enumerate() {
        while queue.ring.free() > 0 {
            let place = u64::from(queue.ring.produced) * 977 + number as u64 * 31;
            let sector = place % places.max(1) * 8;
            let segments: Vec<_> = pages.by_ref().take(11).map(whole).collect();
            queue.ring.push(transfer(operation, sector, &segments).as_bytes())?;
        }
    }
    Ok(())
}

/// Requests that become others, within the bounds and beyond, while they are served: each is answered, as one or as the other.
async fn changed(frontend: &mut Frontend) -> Result<()> {
    let mut random = Random::new();
    let (_page, reference) = frontend.lend_filled(0x5a)?;
    let end = frontend.sectors;
    let words = [
        // Operation and number of segments.
        (0, [0x0b00, 0x0b01, 0x0100, 0xff01, 0x0001, 0x0c00, 0x0b06, 0x0105]),
        // The sector, low and high.
        (4, [0, 8, end as u32, (end - 8) as u32, u32::MAX, 0x8000_0000, 1, 16]),
        (5, [0, 0, 0, 1, u32::MAX, 0x80_0000, 0, 0]),
        // The first segment's page and sectors.
        (6, [reference.0, reference.0, 0x00ff_ffff, u32::MAX, reference.0 + 1, reference.0, reference.0, 0]),
        (7, [0x0700, 0x0700, 0x0007, 0xff00, 0x0800, 0xffff, 0x0707, 0x0300]),
    ];
    let mut refused = 0;
    for _ in 0..ROUNDS {
        fill(frontend, BLKIF_OP_READ)?;
        let queue = frontend.queue()?;
        queue.publish();
        let until = time::now() + Duration::from_millis(20);
        while time::now() < until && queue.ring.answered()? != queue.ring.produced {
            // Only what is not yet answered: answers lie in the same slots.
            let ahead = queue.ring.produced.wrapping_sub(queue.ring.answered()?);
            let index = queue.ring.produced.wrapping_sub(1 + random.below(ahead.saturating_sub(1)));
            let (word, values) = random.pick(&words);
            queue.ring.store(queue.ring.slot(index) + word, random.pick(&values));
        }
        refused += queue.drain().await?;
    }
    log::info!("{refused} refused");
    frontend.works().await
}

/// The same with the pages that describe segments.
async fn changed_indirect(frontend: &mut Frontend) -> Result<()> {
    let mut random = Random::new();
    let (page, reference) = table(frontend)?;
    let shares = frontend.share()?;
    let [data, ..] = shares;
    let good = whole(data);
    let versions = [
        good,
        RequestSegment { first_sect: 7, ..good },
        RequestSegment { last_sect: 255, ..good },
        RequestSegment { first_sect: 200, last_sect: 100, ..good },
        RequestSegment { gref: super::grants::NEVER_GRANTED, ..good },
    ];
    let mut refused = 0;
    for round in 0..ROUNDS {
        for (index, share) in (0..256).zip(shares.into_iter().cycle()) {
            describe(&page, index, whole(share));
        }
        let sector = frontend.sectors - 2048;
        let queue = frontend.queue()?;
        for _ in 0..8 {
            queue.ring.push(indirect((round % 2) as u8, sector, 256, reference).as_bytes())?;
        }
        queue.publish();
        let until = time::now() + Duration::from_millis(20);
        while time::now() < until && queue.ring.answered()? != queue.ring.produced {
            let version = versions.get(random.below(versions.len() as u32) as usize).copied().unwrap_or(good);
            describe(&page, random.below(256) as usize, version);
        }
        refused += queue.drain().await?;
    }
    log::info!("{refused} refused");
    frontend.works().await
}

/// Rings full of flushes or barriers, with a write here and there so that there is something to flush.
async fn flood(frontend: &mut Frontend, operation: u8) -> Result<()> {
    let (_page, reference) = frontend.lend_filled(0x5a)?;
    let flood = match operation {
        BLKIF_OP_FLUSH_DISKCACHE => transfer(operation, 0, &[]),
        _ => transfer(operation, 8, &[whole(reference)]),
    };
    let write = transfer(BLKIF_OP_WRITE, 16, &[whole(reference)]);
    let end = time::now() + FLOOD;
    while time::now() < end {
        for queue in &mut frontend.queues {
            while queue.ring.free() > 0 {
                let request = if queue.ring.produced % 8 == 0 { &write } else { &flood };
                queue.ring.push(request.as_bytes())?;
            }
            queue.publish();
        }
        for queue in &mut frontend.queues {
            queue.drain().await?;
        }
    }
    frontend.works().await
}

/// All queues' rings full of long reads, then of long writes, then of discards; all are answered.
async fn full(frontend: &mut Frontend) -> Result<()> {
    for operation in [BLKIF_OP_READ, BLKIF_OP_WRITE] {
        fill(frontend, operation)?;
        drain(frontend).await?;
    }
    for queue in &mut frontend.queues {
        for sector in 0..queue.ring.slots {
            queue.ring.push(discard(u64::from(sector) * 8, 8, 0).as_bytes())?;
        }
    }
    drain(frontend).await?;
    frontend.works().await
}

async fn drain(frontend: &mut Frontend) -> Result<()> {
    for queue in &frontend.queues {
        queue.publish();
    }
    let mut refused = 0;
    for queue in &mut frontend.queues {
        refused += queue.drain().await?;
    }
    log::info!("all answered, {refused} refused");
    Ok(())
}

/// Asks again and again, and never looks at an answer nor asks for an event; only as fast as there is room.
async fn never_consumed(frontend: &mut Frontend) -> Result<()> {
    let (_page, reference) = frontend.lend_filled(0)?;
    let end = time::now() + FLOOD;
    while time::now() < end {
        for queue in &mut frontend.queues {
            queue.ring.consumed = queue.ring.answered()?;
            while queue.ring.free() > 0 {
                queue.ring.push(transfer(BLKIF_OP_READ, 8, &[whole(reference)]).as_bytes())?;
            }
            queue.publish();
        }
        time::sleep(Duration::from_millis(1)).await;
    }
    // In the end like anyone.
    drain(frontend).await?;
    frontend.works().await
}

/// Keeps all rings full until the domain is no more.
async fn vanish(frontend: &mut Frontend) -> Result<()> {
    say(&frontend.device.store, "done").await;
    loop {
        for operation in [BLKIF_OP_WRITE, BLKIF_OP_READ] {
            fill(frontend, operation)?;
            for queue in &frontend.queues {
                queue.publish();
            }
            // Some room in each: the rest stays in flight.
            for queue in &mut frontend.queues {
                queue.answer().await?;
            }
        }
    }
}

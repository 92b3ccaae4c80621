//! Offloads asked for on packets that they make no sense for, and lists of groups without end.

use crate::error::{Error, Result};
use crate::frames;
use crate::frontend::Frontend;
use alloc::vec::Vec;
use xen_pv_sys::io::netif::{
    NETIF_RSP_ERROR, NETIF_RSP_OKAY, TxFlags, XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_TYPE_MCAST_ADD,
};

pub(crate) async fn attack(frontend: &mut Frontend, name: &str) -> Result<bool> {
    match name {
        "gso-of-zero" => super_frame(frontend, 0, 1)?,
        "gso-bad-type" => super_frame(frontend, 1448, 77)?,
        "gso-of-one" => {
            super_frame(frontend, 1, 1)?;
            frontend.publish();
            // The header names no least size: taken or not.
            frontend.responses(2).await?;
        }
        "csum-garbage" => garbage(frontend, false).await?,
        "gso-garbage" => garbage(frontend, true).await?,
        "group-flood" => groups(frontend).await?,
        _ => return Ok(false),
    }
    frontend.publish();
    Ok(true)
}

/// A TCP packet with a GSO extra of that size and type.
fn super_frame(frontend: &mut Frontend, size: u16, kind: u8) -> Result<()> {
    let frame = frames::tcp(frontend.mac, 3900);
    let reference = frontend.lend_bytes(&frame)?;
    let [low, high] = size.to_le_bytes();
    let flags = TxFlags::EXTRA_INFO | TxFlags::CSUM_BLANK | TxFlags::DATA_VALIDATED;
    frontend.slot(reference, 0, u16::try_from(frame.len()).map_err(|_| Error::Text)?, flags);
    frontend.extra(XEN_NETIF_EXTRA_TYPE_GSO, 0, [low, high, kind, 0, 0, 0]);
    Ok(())
}

/// Headers that lie, or are cut off, in many ways.
fn lies(mac: [u8; 6]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for length in [0, 1, 19, 20, 21, 27, 28, 39, 40, 59, 60, 100] {
        for protocol in [6, 17, 1, 255] {
            frames.push(frames::ipv4(mac, 5, 60, protocol, length));
        }
        for next in [0, 6, 17, 43, 44, 60, 58] {
            frames.push(frames::ipv6(mac, next, 60, length));
        }
    }
    for words in 0..16 {
        frames.push(frames::ipv4(mac, words, 0, 6, 120));
        frames.push(frames::ipv4(mac, words, u16::MAX, 17, 120));
    }
    // Extension headers up to the packet's end.
    frames.push(frames::ipv6(mac, 60, 4000, 4040));
    frames.push(frames::ipv6(mac, 44, u16::MAX, 4040));
    frames.push(frames::hello(mac));
    let mut offset = frames::tcp(mac, 2000);
    for (byte, value) in offset.iter_mut().skip(14 + 20 + 12).zip([0xf0]) {
        *byte = value;
    }
    frames.push(offset);
    frames
}

async fn garbage(frontend: &mut Frontend, gso: bool) -> Result<()> {
    for frame in lies(frontend.mac) {
        let reference = frontend.lend_bytes(&frame)?;
        let size = u16::try_from(frame.len()).map_err(|_| Error::Text)?;
        let flags = TxFlags::CSUM_BLANK | TxFlags::DATA_VALIDATED;
        if gso {
            for kind in [1, 2] {
                frontend.slot(reference, 0, size, flags | TxFlags::EXTRA_INFO);
                frontend.extra(XEN_NETIF_EXTRA_TYPE_GSO, 0, [60, 0, kind, 0, 0, 0]);
            }
        } else {
            frontend.slot(reference, 0, size, flags);
        }
        frontend.publish();
        frontend.responses(if gso { 4 } else { 1 }).await?;
    }
    Ok(())
}

/// Lists far more groups than a backend keeps: those beyond must be refused.
async fn groups(frontend: &mut Frontend) -> Result<()> {
    let mut refused = 0;
    let reference = frontend.lend_bytes(&[])?;
    for group in 0..2000_u16 {
        let [high, low] = group.to_be_bytes();
        frontend.slot(reference, 0, 0, TxFlags::EXTRA_INFO);
        frontend.extra(XEN_NETIF_EXTRA_TYPE_MCAST_ADD, 0, [0x01, 0, 0x5e, 0, high, low]);
        frontend.publish();
        match frontend.responses(2).await?.as_slice() {
            [NETIF_RSP_OKAY, _] => {}
            [NETIF_RSP_ERROR, _] => refused += 1,
            _ => return Err(Error::Wrong("a group was answered strangely")),
        }
    }
    log::info!("{refused} of 2000 groups refused");
    if refused < 1000 { Err(Error::Wrong("any number of groups is taken")) } else { Ok(()) }
}

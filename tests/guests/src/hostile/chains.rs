//! Packets whose slots and extra infos are no packet.

use crate::error::{Error, Result};
use crate::frames;
use crate::frontend::Frontend;
use xen_pv_sys::GrantRef;
use xen_pv_sys::io::netif::{
    NETIF_RSP_ERROR, TxFlags, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_TYPE_HASH,
};

/// A frame's page; what it holds does not matter to these.
fn page(frontend: &mut Frontend) -> Result<GrantRef> {
    let frame = frames::datagram(frames::BROADCAST, frontend.mac, 4000);
    frontend.lend_bytes(&frame)
}

/// A packet of that many slots of 100 bytes each.
fn chain(frontend: &mut Frontend, page: GrantRef, slots: u16) {
    for slot in 0..slots {
        let size = if slot == 0 { slots * 100 } else { 100 };
        let more = if slot + 1 < slots { TxFlags::MORE_DATA } else { TxFlags::empty() };
        frontend.slot(page, 0, size, more);
    }
}

/// What was published must be answered with errors, all of it.
async fn refused(frontend: &mut Frontend, slots: usize) -> Result<()> {
    frontend.publish();
    match frontend.responses(slots).await?.iter().all(|status| *status == NETIF_RSP_ERROR) {
        true => Ok(()),
        false => Err(Error::Wrong("a malformed packet was taken")),
    }
}

pub(crate) async fn attack(frontend: &mut Frontend, name: &str) -> Result<bool> {
    let page = page(frontend)?;
    let none = TxFlags::empty();
    match name {
        "beyond-page" => drop(frontend.slot(page, 4000, 200, none)),
        "far-beyond-page" => drop(frontend.slot(page, u16::MAX, u16::MAX, none)),
        "beyond-page-later" => {
            frontend.slot(page, 0, 300, TxFlags::MORE_DATA);
            frontend.slot(page, 4095, 2, none);
        }
        "chain-too-long" => chain(frontend, page, 20),
        "chain-of-a-ring" => while frontend.slot(page, 0, 60, TxFlags::MORE_DATA) {},
        "chain-a-bit-long" => {
            // A backend takes 18 at least (`XEN_NETIF_NR_SLOTS_MIN`); some take more.
            chain(frontend, page, 19);
            frontend.publish();
            let statuses = frontend.responses(19).await?;
            if statuses.iter().any(|status| Some(status) != statuses.first()) {
                return Err(Error::Wrong("a packet was taken in part"));
            }
        }
        "chain-cut-short" => {
            frontend.slot(page, 0, 300, TxFlags::MORE_DATA);
            frontend.slot(page, 0, 100, TxFlags::MORE_DATA);
        }
        "chain-of-more-than-it-says" => {
            frontend.slot(page, 0, 100, TxFlags::MORE_DATA);
            frontend.slot(page, 0, 101, none);
            refused(frontend, 2).await?;
        }
        "short-packet" => {
            for size in [1, 13] {
                frontend.slot(page, 0, size, none);
            }
            refused(frontend, 2).await?;
        }
        "zero-size" => {
            frontend.slot(page, 0, 0, none);
            frontend.slot(page, 4096, 0, none);
            refused(frontend, 2).await?;
            // Slots without bytes within a packet that has some.
            frontend.slot(page, 0, 60, TxFlags::MORE_DATA);
            frontend.slot(page, 4096, 0, TxFlags::MORE_DATA);
            frontend.slot(page, 0, 60, none);
            frontend.publish();
            frontend.responses(3).await?;
        }
        "unknown-extra" | "extra-of-no-type" | "extra-missing" | "extra-flood" | "extra-many" => {
            extras(frontend, page, name).await?;
        }
        _ => return Ok(false),
    }
    frontend.publish();
    Ok(true)
}

async fn extras(frontend: &mut Frontend, page: GrantRef, name: &str) -> Result<()> {
    frontend.slot(page, 0, 100, TxFlags::EXTRA_INFO);
    let more = XEN_NETIF_EXTRA_FLAG_MORE;
    match name {
        "unknown-extra" => drop(frontend.extra(99, 0, [0; 6])),
        "extra-of-no-type" => drop(frontend.extra(0, 0, [0; 6])),
        "extra-missing" => {}
        "extra-flood" => while frontend.extra(XEN_NETIF_EXTRA_TYPE_HASH, more, [0; 6]) {},
        _ => {
            // A whole ring of them, and they do end: odd, and allowed.
            for _ in 0..254 {
                frontend.extra(XEN_NETIF_EXTRA_TYPE_HASH, more, [0; 6]);
            }
            frontend.extra(XEN_NETIF_EXTRA_TYPE_GSO, 0, [100, 0, 1, 0, 0, 0]);
            frontend.publish();
            frontend.responses(256).await?;
        }
    }
    Ok(())
}

//! Grant references that are none, or are none any more, or not for this.

use crate::Pair;
use crate::error::Result;
use crate::frames;
use crate::frontend::Frontend;
use alloc::rc::Rc;
use alloc::vec::Vec;
use runtime::grants::grant_access;
use runtime::memory::Page;
use runtime::time::{self, Duration};
use xen_pv_sys::io::netif::TxFlags;
use xen_pv_sys::io::xenbus::XenbusState;
use xen_pv_sys::{DomainId, GrantRef};

/// Beyond any table that Xen lets a domain have by default.
const NEVER_GRANTED: GrantRef = GrantRef(0x00ff_ffff);
const SIZE: u16 = 1000;

pub(crate) async fn attack(pair: &mut Pair, name: &str) -> Result<bool> {
    let none = TxFlags::empty();
    let frontend = &mut pair.attacker;
    match name {
        "bad-grant" => drop(frontend.slot(NEVER_GRANTED, 0, 100, none)),
        "bad-grant-later" => {
            let page = frontend.lend_bytes(&frames::hello(frontend.mac))?;
            frontend.slot(page, 0, 3000, TxFlags::MORE_DATA);
            frontend.slot(NEVER_GRANTED, 0, 2000, none);
        }
        "bad-grants" => while frontend.slot(NEVER_GRANTED, 0, 4096, none) {},
        "foreign-grant" => {
            let page = Rc::new(Page::new()?);
            page.write(0, &frames::hello(frontend.mac));
            let grant = grant_access(DomainId(0), page, false)?;
            frontend.slot(grant.reference(), 0, 100, none);
            core::mem::forget(grant);
        }
        "revoked-grant" => revoked(frontend, true)?,
        "revoke-race" => race(frontend).await?,
        "bad-grant-rx" => {
            for _ in 0..200 {
                frontend.post(NEVER_GRANTED);
            }
            frontend.publish();
            // The good slots come first.
            pair.flood(256).await?;
        }
        "read-only-rx" => {
            let page = frontend.lend(Rc::new(Page::new()?), true)?;
            for _ in 0..200 {
                frontend.post(page);
            }
            frontend.publish();
            pair.flood(256).await?;
        }
        "same-page-rx" => {
            // All slots are one page, and that the transmit ring itself.
            let page = frontend.lend(Rc::clone(&frontend.transmit_page), false)?;
            for _ in 0..200 {
                frontend.post(page);
            }
            frontend.publish();
            pair.flood(256).await?;
        }
        _ => return Ok(false),
    }
    pair.attacker.publish();
    Ok(true)
}

/// Sends a ring full of packets whose grants end before the backend is told of them, or right after.
fn revoked(frontend: &mut Frontend, before: bool) -> Result<()> {
    let mut grants = Vec::new();
    let page = Rc::new(Page::new()?);
    page.write(0, &frames::datagram(frames::NOBODY, frontend.mac, usize::from(SIZE)));
    for _ in 0..frontend.transmit.free() {
        grants.push(grant_access(frontend.vif.domain, Rc::clone(&page), true)?);
    }
    for grant in &grants {
        frontend.slot(grant.reference(), 0, SIZE, TxFlags::empty());
    }
    if before {
        drop(grants);
        frontend.publish();
    } else {
        frontend.publish();
        drop(grants);
    }
    Ok(())
}

/// Ends grants while the backend copies from them, until it has met one that is gone.
async fn race(frontend: &mut Frontend) -> Result<()> {
    for _ in 0..200 {
        revoked(frontend, false)?;
        time::sleep(Duration::from_millis(5)).await;
        for _ in 0..frontend.transmit.unconsumed()? {
            frontend.transmit.take();
        }
        if frontend.vif.backend_state().await? != XenbusState::Connected {
            return Ok(());
        }
    }
    revoked(frontend, true)
}

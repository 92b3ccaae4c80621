//! A proper frontend with multicast control: lists groups, counts what comes, and says so after each mark.
//!
//! A mark is a broadcast whose payload begins with a number, as text up to a space; the node `data/groups` then has that number, and how
//! many frames came for each of three groups since the mark before. The first group is listed; the second was, and is no more.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::frames::{BROADCAST, EXPERIMENT};
use crate::frontend::{Frontend, Manners};
use alloc::format;
use alloc::string::String;
use core::convert::Infallible;
use split_driver::store::{Store, Transaction};
use xen_pv_sys::io::netif::{NETIF_RSP_OKAY, TxFlags, XEN_NETIF_EXTRA_TYPE_MCAST_ADD, XEN_NETIF_EXTRA_TYPE_MCAST_DEL};

const GROUPS: [[u8; 6]; 3] = [group(1), group(2), group(3)];

/// An address of IPv4 multicast (RFC 1112, 6.4).
const fn group(number: u8) -> [u8; 6] {
    [0x01, 0x00, 0x5e, 0x07, 0x07, number]
}

const MANNERS: Manners<'static> =
    Manners { features: &[("feature-no-csum-offload", "1"), ("request-multicast-control", "1")], ..Manners::GOOD };

pub(crate) async fn run(vif: Device) -> Result<Infallible> {
    let mut frontend = Frontend::connect(vif, MANNERS).await?;
    change(&mut frontend, XEN_NETIF_EXTRA_TYPE_MCAST_ADD, GROUPS[0]).await?;
    change(&mut frontend, XEN_NETIF_EXTRA_TYPE_MCAST_ADD, GROUPS[1]).await?;
    change(&mut frontend, XEN_NETIF_EXTRA_TYPE_MCAST_DEL, GROUPS[1]).await?;
    crate::say(&frontend.vif.store, "ready").await;
    let mut counts = [0_u32; 3];
    loop {
        while let Some((_, frame)) = frontend.take_frame()? {
            let Some((destination, kind, payload)) = parse(&frame) else {
                continue;
            };
            if kind != EXPERIMENT {
                continue;
            }
            if destination == BROADCAST {
                let [first, second, third] = core::mem::take(&mut counts);
                let said = format!("{} {first} {second} {third}", mark(payload));
                frontend.vif.store.write(Transaction::NONE, "data/groups", said.as_bytes()).await?;
            }
            for (group, count) in GROUPS.iter().zip(&mut counts) {
                *count += u32::from(destination == *group);
            }
        }
        frontend.publish();
        if frontend.receive.final_check_for_responses()? == 0 {
            frontend.receive_channel.wait().await;
        }
    }
}

/// Lists a group, or takes it off the list.
async fn change(frontend: &mut Frontend, kind: u8, group: [u8; 6]) -> Result<()> {
    let reference = frontend.lend_bytes(&[])?;
    frontend.slot(reference, 0, 0, TxFlags::EXTRA_INFO);
    frontend.extra(kind, 0, group);
    frontend.publish();
    match frontend.responses(2).await?.as_slice() {
        [NETIF_RSP_OKAY, _] => Ok(()),
        other => Err(Error::Answer(other.first().copied().unwrap_or(0))),
    }
}

/// Destination, ethertype, payload.
fn parse(frame: &[u8]) -> Option<([u8; 6], [u8; 2], &[u8])> {
    let (destination, rest) = frame.split_first_chunk::<6>()?;
    let (_source, rest) = rest.split_first_chunk::<6>()?;
    let (kind, payload) = rest.split_first_chunk::<2>()?;
    Some((*destination, *kind, payload))
}

/// The number of a mark.
fn mark(payload: &[u8]) -> String {
    payload.iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect()
}

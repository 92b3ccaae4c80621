//! A proper frontend with two queues and a control ring, as Windows' xenvif is one: it asks for the Toeplitz hash and a mapping, and holds
//! each packet's hash and queue against them.
//!
//! It says in `data/steered` how many packets came in each queue, how many of them with a hash of addresses and ports, and how many with
//! one of addresses alone. One that is in the wrong queue, or has a wrong hash, ends it.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::frames;
use crate::frontend::{Frontend, Manners};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::convert::Infallible;
use runtime::events::{self, Channel};
use runtime::memory::Page;
use runtime::select::select;
use runtime::time;
use split_driver::ring::FrontRing;
use split_driver::store::{Store, Transaction};
use xen_pv_sys::io::netif::{
    CtrlRequest, CtrlResponse, ExtraHash, HashTypes, RxFlags, XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ,
    XEN_NETIF_CTRL_STATUS_SUCCESS, XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS, XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE,
    XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM, XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, XEN_NETIF_CTRL_TYPE_SET_HASH_KEY,
    XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, XEN_NETIF_EXTRA_TYPE_HASH,
};
use xen_pv_sys::io::xenbus::XenbusState;

const KEY_BYTES: usize = 40;
/// Which queue each hash goes to, modulo 8: the first has five of them.
const MAPPING: [u32; 8] = [1, 0, 0, 1, 0, 1, 0, 0];
const MANNERS: Manners<'static> =
    Manners { features: &[("feature-no-csum-offload", "1"), ("multi-queue-num-queues", "2")], ..Manners::GOOD };

/// A key of no meaning, without repetitions.
fn key() -> [u8; KEY_BYTES] {
    core::array::from_fn(|place| (place as u8).wrapping_mul(151).wrapping_add(29))
}

/// The hash as `io/netif.h` says it in words: the key is shifted left for each bit of the data.
fn toeplitz(data: &[u8]) -> u32 {
    let mut key = key();
    let mut value = 0;
    for bit in data.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        if bit == 1 {
            value ^= u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
        }
        let mut carry = 0;
        for byte in key.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
    }
    value
}

/// The hash of a frame of IPv4 without options, as this frontend asked for it.
fn expected(frame: &[u8]) -> Option<ExtraHash> {
    let algorithm = XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ as u8;
    match (frame.get(12..14)?, *frame.get(23)?) {
        ([0x08, 0x00], 6) => Some(ExtraHash { kind: 1, algorithm, value: toeplitz(frame.get(26..38)?).to_le_bytes() }),
        ([0x08, 0x00], _) => Some(ExtraHash { kind: 0, algorithm, value: toeplitz(frame.get(26..34)?).to_le_bytes() }),
        _ => None,
    }
}

/// The control ring.
struct Control {
    ring: FrontRing<Rc<Page>, CtrlRequest, CtrlResponse>,
    channel: Channel,
}

impl Control {
    /// Asks, and gives the answer's data; it must be one of success.
    async fn ask(&mut self, kind: u16, data: [u32; 3]) -> Result<u32> {
        let id = kind ^ 0x5a00;
        if !self.ring.push(&CtrlRequest { id, kind, data }) {
            return Err(Error::Wrong("the control ring is full"));
        }
        if self.ring.push_and_check_notify() {
            self.channel.notify();
        }
        while self.ring.final_check_for_responses()? == 0 {
            time::timeout(crate::device::PATIENCE, self.channel.wait()).await?;
        }
        let answer = self.ring.take();
        if (answer.id, answer.kind, answer.status) != (id, kind, XEN_NETIF_CTRL_STATUS_SUCCESS) {
            log::error!("asked for {kind} with {data:?}: {answer:?}");
            return Err(Error::Wrong("a request on the control ring was refused"));
        }
        Ok(answer.data)
    }
}

/// Connects both queues and the control ring.
async fn connect(vif: Device) -> Result<([Frontend; 2], Control)> {
    vif.wait_for(&[XenbusState::InitWait]).await?;
    let (first, mut nodes) = Frontend::prepare(vif.clone(), MANNERS, "queue-0/").await?;
    let (second, others) = Frontend::prepare(vif.clone(), MANNERS, "queue-1/").await?;
    let page = Rc::new(Page::new()?);
    let mut queues = [first, second];
    let reference = queues[0].lend(Rc::clone(&page), false)?;
    let control = Control { ring: FrontRing::init(page)?, channel: events::alloc_unbound(vif.domain)? };
    nodes.extend(others);
    nodes.extend(MANNERS.nodes());
    nodes.extend([
        ("ctrl-ring-ref".into(), reference.0.to_string()),
        ("event-channel-ctrl".into(), control.channel.port().0.to_string()),
    ]);
    vif.write_with_state(&nodes, XenbusState::Connected).await?;
    vif.wait_for(&[XenbusState::Connected]).await?;
    queues.iter_mut().for_each(Frontend::publish);
    Ok((queues, control))
}

/// Asks for the hash.
async fn configure(frontend: &mut Frontend, control: &mut Control) -> Result<()> {
    let types = HashTypes::IPV4 | HashTypes::IPV4_TCP;
    control.ask(XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM, [XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ, 0, 0]).await?;
    if control.ask(XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS, [0; 3]).await? & types.bits() != types.bits() {
        return Err(Error::Wrong("not all types of hash are there"));
    }
    control.ask(XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, [types.bits(), 0, 0]).await?;
    let reference = frontend.lend_bytes(&key())?;
    control.ask(XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, [reference.0, KEY_BYTES as u32, 0]).await?;
    let entries = MAPPING.len() as u32;
    if control.ask(XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE, [0; 3]).await? < entries {
        return Err(Error::Wrong("the mapping may not be long enough"));
    }
    control.ask(XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, [entries, 0, 0]).await?;
    let table: Vec<u8> = MAPPING.into_iter().flat_map(u32::to_le_bytes).collect();
    let reference = frontend.lend_bytes(&table)?;
    control.ask(XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [reference.0, entries, 0]).await?;
    Ok(())
}

pub(crate) async fn run(vif: Device) -> Result<Infallible> {
    let store = vif.store.clone();
    let (mut queues, mut control) = connect(vif).await?;
    configure(&mut queues[0], &mut control).await?;
    for queue in &mut queues {
        let hello = frames::hello(queue.mac);
        queue.send(&hello).await?;
    }
    crate::say(&store, "ready").await;
    let (mut in_queues, mut with_ports, mut with_addresses) = ([0; 2], 0, 0);
    loop {
        for (number, queue) in queues.iter_mut().enumerate() {
            while let Some((flags, frame)) = queue.take_frame()? {
                let told = match flags.contains(RxFlags::EXTRA_INFO) {
                    true => Some(queue.take_extra()?),
                    false => None,
                };
                let expected = expected(&frame);
                let hash = told.map(|extra| (extra.kind, extra.flags, extra.hash()));
                if hash != expected.map(|hash| (XEN_NETIF_EXTRA_TYPE_HASH, 0, hash)) {
                    log::error!("told {hash:?}, expected {expected:?} of {frame:02x?}");
                    return Err(Error::Wrong("a packet's hash is not what it must be"));
                }
                let value = expected.map_or(0, |hash| u32::from_le_bytes(hash.value));
                if MAPPING[value as usize % MAPPING.len()] as usize != number {
                    return Err(Error::Wrong("a packet is in another queue than the mapping says"));
                }
                in_queues[number] += 1;
                with_ports += u32::from(expected.is_some_and(|hash| hash.kind == 1));
                with_addresses += u32::from(expected.is_some_and(|hash| hash.kind == 0));
            }
            queue.publish();
        }
        let [first, second] = in_queues;
        let said = format!("{first} {second} {with_ports} {with_addresses}");
        store.write(Transaction::NONE, "data/steered", said.as_bytes()).await?;
        let [first, second] = &mut queues;
        if first.receive.final_check_for_responses()? == 0 && second.receive.final_check_for_responses()? == 0 {
            select(first.receive_channel.wait(), second.receive_channel.wait()).await;
        }
    }
}

//! What QEMU asks for, and what it is answered. Host.

use std::sync::atomic::Ordering;

use super::connection::Message;
use super::protocol::{
    Access, DEVICE_FLAGS, LONGEST_DATA, MOST_DESCRIPTORS, SetIrqs, command, errno, irq, region, word, words,
};
use super::{Inner, Shared};
use crate::bus::Model;
use crate::pci::{PENDING_BITS, SPACE};

/// Bytes of the pending bit array: for 2,048 vectors, the most that PCI knows.
const PENDING_BYTES: u64 = 256;

/// Does what `message` asks for.
///
/// # Errors
/// The error number for the reply.
pub(super) fn handle<M: Model>(shared: &Shared<M>, message: Message) -> Result<Vec<u8>, u32> {
    let Message { header, body, descriptors } = message;
    let mut inner = shared.lock();
    let result = match header.command {
        command::VERSION => version(shared, &body),
        // Memory is reached by messages: what is mapped needs not be known.
        command::DMA_MAP => Ok(Vec::new()),
        command::DMA_UNMAP => Ok(body.get(..24).ok_or(errno::INVALID)?.to_vec()),
        command::GET_INFO => Ok(words([16, DEVICE_FLAGS, region::COUNT, irq::COUNT])),
        command::GET_REGION_INFO => region_info(&inner, &body),
        command::GET_IRQ_INFO => {
            let index = word(&body, 8).ok_or(errno::INVALID)?;
            let (flags, count) = inner.irqs.info(index).ok_or(errno::INVALID)?;
            Ok(words([16, flags, index, count]))
        }
        command::SET_IRQS => {
            let set = SetIrqs::parse(&body).ok_or(errno::INVALID)?;
            inner.irqs.set(set, body.get(SetIrqs::BYTES..).unwrap_or_default(), descriptors).map(|()| Vec::new())
        }
        command::REGION_READ => read(&mut inner, &body),
        command::REGION_WRITE => write(&mut inner, &body),
        command::RESET => {
            inner.model.reset();
            Ok(Vec::new())
        }
        other => {
            log::warn!("vfio-user: command {other} is not known");
            Err(errno::NOT_SUPPORTED)
        }
    };
    shared.settle(&mut inner);
    result
}

/// Major and minor version, then JSON: docs/interop/vfio-user.rst, "Version".
fn version<M: Model>(shared: &Shared<M>, body: &[u8]) -> Result<Vec<u8>, u32> {
    let (versions, text) = body.split_first_chunk::<4>().ok_or(errno::INVALID)?;
    let [a, b, c, d] = *versions;
    let (major, minor) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    if major != 0 {
        log::error!("vfio-user: version {major}.{minor} is not known");
        return Err(errno::INVALID);
    }
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let longest = match text {
        [] => None,
        text => serde_json::from_slice::<serde_json::Value>(text).map_err(|_| errno::INVALID)?["capabilities"]["max_data_xfer_size"]
            .as_u64(),
    };
    let longest = longest.and_then(|longest| usize::try_from(longest).ok()).unwrap_or(LONGEST_DATA);
    shared.longest.store(longest.clamp(1, LONGEST_DATA), Ordering::Relaxed);
    let mut reply = versions.to_vec();
    let capabilities = serde_json::json!({
        "capabilities": { "max_msg_fds": MOST_DESCRIPTORS, "max_data_xfer_size": LONGEST_DATA }
    });
    reply.extend(capabilities.to_string().bytes());
    reply.push(0);
    Ok(reply)
}

fn region_bytes<M: Model>(inner: &Inner<M>, index: u32) -> Option<u64> {
    match index {
        region::CONFIGURATION => Some(SPACE as u64),
        _ => Some(inner.model.configuration().bars().get(index as usize).copied().unwrap_or(0))
            .filter(|_| index < region::COUNT),
    }
}

fn region_info<M: Model>(inner: &Inner<M>, body: &[u8]) -> Result<Vec<u8>, u32> {
    let index = word(body, 8).ok_or(errno::INVALID)?;
    let bytes = region_bytes(inner, index).ok_or(errno::INVALID)?;
    let flags = if bytes == 0 { 0 } else { region::READ_WRITE };
    let mut reply = words([32, flags, index, 0]);
    reply.extend(bytes.to_le_bytes());
    reply.extend(0u64.to_le_bytes());
    Ok(reply)
}

/// An access that lies within its region.
fn access<M: Model>(inner: &Inner<M>, body: &[u8]) -> Result<Access, u32> {
    let access = Access::parse(body).ok_or(errno::INVALID)?;
    let bytes = region_bytes(inner, access.region).ok_or(errno::INVALID)?;
    let end = access.offset.checked_add(u64::from(access.count));
    let fits = access.count as usize <= LONGEST_DATA && end.is_some_and(|end| end <= bytes);
    if fits { Ok(access) } else { Err(errno::INVALID) }
}

fn read<M: Model>(inner: &mut Inner<M>, body: &[u8]) -> Result<Vec<u8>, u32> {
    let Access { offset, region, count } = access(inner, body)?;
    let mut data = vec![0; count as usize];
    let vectors = inner.model.configuration().identity().bars.vectors();
    match region {
        region::CONFIGURATION => inner.model.read_configuration(offset as usize, &mut data),
        _ if Some(region as usize) == vectors => {
            if (PENDING_BITS..PENDING_BITS + PENDING_BYTES).contains(&offset) {
                inner.irqs.read_pending((offset - PENDING_BITS) as usize, &mut data);
            }
        }
        _ => inner.model.read(region as usize, offset, &mut data),
    }
    let mut reply = body.get(..Access::BYTES).unwrap_or_default().to_vec();
    reply.extend(data);
    Ok(reply)
}

fn write<M: Model>(inner: &mut Inner<M>, body: &[u8]) -> Result<Vec<u8>, u32> {
    let Access { offset, region, count } = access(inner, body)?;
    let data = body.get(Access::BYTES..).and_then(|data| data.get(..count as usize)).ok_or(errno::INVALID)?;
    let vectors = inner.model.configuration().identity().bars.vectors();
    match region {
        region::CONFIGURATION => inner.model.write_configuration(offset as usize, data),
        // The table is QEMU's.
        _ if Some(region as usize) == vectors => {}
        _ => inner.model.write(region as usize, offset, data),
    }
    Ok(body.get(..Access::BYTES).unwrap_or_default().to_vec())
}

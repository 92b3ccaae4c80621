//! What a guest asks for on its control ring (`io/netif.h`, "Control messages"): the hash that spreads its packets over its queues, as
//! Windows' receive-side scaling wants it. Pure. Floor 3.
//!
//! What is answered, and the limits, are those of Linux' netback. Grants that are to stay mapped are not supported, as there.

use super::toeplitz::{KEY_BYTES, toeplitz};
use crate::offload::flow::Flow;
use crate::offload::headers::{Network, Transport};
use xen_pv_sys::GrantRef;
use xen_pv_sys::io::netif::{
    CtrlRequest, CtrlResponse, HashTypes, XEN_NETIF_CTRL_HASH_ALGORITHM_NONE, XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ,
    XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER, XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED, XEN_NETIF_CTRL_STATUS_SUCCESS,
    XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS, XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE,
    XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM, XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, XEN_NETIF_CTRL_TYPE_SET_HASH_KEY,
    XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE,
};

/// Entries of a mapping, at most.
pub const MAPPING_ENTRIES: usize = 128;
/// The algorithm, as an extra info names it.
pub(crate) const TOEPLITZ: u8 = XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ as u8;

/// The hash that a guest asked for.
#[derive(Clone, Debug)]
pub struct Hashing {
    /// Whether it chose the Toeplitz hash; there is no other.
    toeplitz: bool,
    types: HashTypes,
    key: [u8; KEY_BYTES],
    /// The queue of each hash, modulo its length. Empty: the hash modulo the number of queues.
    mapping: heapless::Vec<u8, MAPPING_ENTRIES>,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { toeplitz: false, types: HashTypes::empty(), key: [0; KEY_BYTES], mapping: heapless::Vec::new() }
    }
}

/// The status of a request that does not succeed.
type Refusal = u32;

impl Hashing {
    /// Whether the guest has its packets hashed. Where it named no header fields, the queue is the backend's choice.
    pub fn is_on(&self) -> bool {
        self.toeplitz && !self.types.is_empty()
    }

    /// The hash of a packet of this flow, and the number of its `XEN_NETIF_CTRL_HASH_TYPE_*`; `None` where the guest asked for no hash of
    /// such. Of addresses alone and of ports, the latter goes before. What has a tag is no IP packet here, as in Linux.
    pub fn hash(&self, flow: &Flow) -> Option<(u32, u8)> {
        let (addresses, ports) = match flow.network {
            Network::V4 => (HashTypes::IPV4, HashTypes::IPV4_TCP),
            Network::V6 => (HashTypes::IPV6, HashTypes::IPV6_TCP),
        };
        let (kind, data) = if flow.tagged {
            return None;
        } else if flow.transport == Some(Transport::Tcp) && self.types.contains(ports) {
            (ports, flow.addresses_and_ports())
        } else if self.types.contains(addresses) {
            (addresses, flow.addresses())
        } else {
            return None;
        };
        Some((toeplitz(&self.key, data), kind.bits().trailing_zeros() as u8))
    }

    /// The queue of a hash, of so many.
    pub fn queue(&self, hash: u32, queues: u8) -> u8 {
        match u32::try_from(self.mapping.len()) {
            Ok(entries @ 1..) => self.mapping.get((hash % entries) as usize).copied().unwrap_or(0),
            _ => (hash % u32::from(queues).max(1)) as u8,
        }
    }

    /// What it consists of: whether it is on, the `XEN_NETIF_CTRL_HASH_TYPE_*`, the key, the queue of each hash.
    pub(crate) fn parts(&self) -> (bool, u32, [u8; KEY_BYTES], &[u8]) {
        (self.toeplitz, self.types.bits(), self.key, &self.mapping)
    }

    /// The reverse, for a vif with so many queues; `None` where no guest could have made such.
    pub(crate) fn from_parts(
        toeplitz: bool,
        types: u32,
        key: [u8; KEY_BYTES],
        mapping: &[u8],
        queues: u8,
    ) -> Option<Self> {
        let mapping = heapless::Vec::from_slice(mapping).ok()?;
        let fits = mapping.iter().all(|queue| *queue < queues);
        let types = HashTypes::from_bits(types).filter(|_| fits)?;
        Some(Self { toeplitz, types, key, mapping })
    }

    /// Does what a request asks of a vif with so many queues. `fetch` copies the first bytes of a page that the guest granted; false where
    /// the grant is none.
    pub fn handle(
        &mut self,
        request: &CtrlRequest,
        queues: u8,
        fetch: impl FnOnce(GrantRef, &mut [u8]) -> bool,
    ) -> CtrlResponse {
        let answer = self.answer(request, queues, fetch);
        let (status, data) = match answer {
            Ok(data) => (XEN_NETIF_CTRL_STATUS_SUCCESS, data),
            Err(status) => (status, 0),
        };
        CtrlResponse { id: request.id, kind: request.kind, status, data }
    }

    fn answer(
        &mut self,
        request: &CtrlRequest,
        queues: u8,
        fetch: impl FnOnce(GrantRef, &mut [u8]) -> bool,
    ) -> Result<u32, Refusal> {
        const INVALID: Refusal = XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER;
        let [first, second, third] = request.data;
        match request.kind {
            XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM => {
                self.toeplitz = match first {
                    XEN_NETIF_CTRL_HASH_ALGORITHM_NONE => false,
                    XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ => true,
                    _ => return Err(INVALID),
                };
            }
            XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS if self.toeplitz => return Ok(HashTypes::all().bits()),
            XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS => {
                let types = HashTypes::from_bits(first).filter(|_| self.toeplitz);
                self.types = types.ok_or(INVALID)?;
            }
            XEN_NETIF_CTRL_TYPE_SET_HASH_KEY => {
                let mut key = [0; KEY_BYTES];
                let given = usize::try_from(second).ok().and_then(|length| key.get_mut(..length)).ok_or(INVALID)?;
                if !given.is_empty() && !fetch(GrantRef(first), given) {
                    return Err(INVALID);
                }
                self.key = key;
            }
            XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE => return Ok(MAPPING_ENTRIES as u32),
            XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE => {
                let mut mapping = heapless::Vec::new();
                let entries = usize::try_from(first).map_err(|_| INVALID)?;
                mapping.resize(entries, 0).map_err(|_| INVALID)?;
                self.mapping = mapping;
            }
            XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING => {
                let (length, offset) = (second as usize, third as usize);
                let end = offset.checked_add(length).ok_or(INVALID)?;
                let part = self.mapping.get_mut(offset..end).ok_or(INVALID)?;
                let mut bytes = [0; MAPPING_ENTRIES * 4];
                let bytes = bytes.get_mut(..length * 4).ok_or(INVALID)?;
                if !bytes.is_empty() && !fetch(GrantRef(first), bytes) {
                    return Err(INVALID);
                }
                let (entries, _) = bytes.as_chunks();
                let entries = entries.iter().map(|entry| u8::try_from(u32::from_le_bytes(*entry)));
                if entries.clone().any(|entry| entry.is_err() || entry.is_ok_and(|queue| queue >= queues)) {
                    return Err(INVALID);
                }
                for (place, queue) in part.iter_mut().zip(entries.flatten()) {
                    *place = queue;
                }
            }
            _ => return Err(XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED),
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::head::Head;
    use alloc::vec;
    use alloc::vec::Vec;
    use xen_pv_sys::io::netif::{
        XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING, XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING,
        XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE, XEN_NETIF_CTRL_TYPE_INVALID,
    };

    const OK: u32 = XEN_NETIF_CTRL_STATUS_SUCCESS;
    const NOT_SUPPORTED: u32 = XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED;
    const INVALID: u32 = XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER;
    /// The guest's pages: the key, and tables of entries.
    const KEY: u32 = 1;
    const TABLE: u32 = 2;
    const BAD_TABLE: u32 = 3;

    fn fetch(reference: GrantRef, into: &mut [u8]) -> bool {
        let page: Vec<u8> = match reference.0 {
            KEY => (1..=255).collect(),
            TABLE => (0..128).flat_map(|entry| u32::to_le_bytes(entry % 4)).collect(),
            BAD_TABLE => [0, 1, 4, 0].into_iter().flat_map(u32::to_le_bytes).collect(),
            _ => return false,
        };
        into.copy_from_slice(&page[..into.len()]);
        true
    }

    fn ask(hashing: &mut Hashing, kind: u16, data: [u32; 3]) -> (u32, u32) {
        let response = hashing.handle(&CtrlRequest { id: 77, kind, data }, 4, fetch);
        assert_eq!((response.id, response.kind), (77, kind));
        (response.status, response.data)
    }

    /// Requests in an order, with what is answered to each.
    #[test]
    fn answers() {
        let mut hashing = Hashing::default();
        for (kind, data, answer) in [
            // No algorithm yet.
            (XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS, [0; 3], (NOT_SUPPORTED, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, [1, 0, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM, [2, 0, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM, [1, 0, 0], (OK, 0)),
            (XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS, [0; 3], (OK, 15)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, [16, 0, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, [15, 0, 0], (OK, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, [KEY, 41, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, [KEY, u32::MAX, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, [9, 40, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, [9, 0, 0], (OK, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, [KEY, 40, 0], (OK, 0)),
            (XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE, [0; 3], (OK, 128)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [TABLE, 1, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, [129, 0, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, [128, 0, 0], (OK, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [TABLE, 128, 0], (OK, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [TABLE, 128, 1], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [TABLE, 1, u32::MAX], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [TABLE, u32::MAX, 1], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [BAD_TABLE, 4, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [9, 4, 0], (INVALID, 0)),
            (XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [9, 0, 128], (OK, 0)),
            (XEN_NETIF_CTRL_TYPE_INVALID, [0; 3], (NOT_SUPPORTED, 0)),
            (XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE, [0; 3], (NOT_SUPPORTED, 0)),
            (XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING, [0, KEY, 1], (NOT_SUPPORTED, 0)),
            (XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING, [0, KEY, 1], (NOT_SUPPORTED, 0)),
            (u16::MAX, [u32::MAX; 3], (NOT_SUPPORTED, 0)),
        ] {
            assert_eq!(ask(&mut hashing, kind, data), answer, "{kind} {data:?}");
        }
        // What was refused changed nothing.
        assert!(hashing.mapping.iter().copied().eq((0..128).map(|entry| entry % 4)));
        assert!(hashing.key.iter().copied().eq(1..=40) && hashing.types == HashTypes::all());
        // A shorter key leaves nothing of the longer one; a part of the table leaves the others.
        assert_eq!(ask(&mut hashing, XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, [KEY, 2, 0]), (OK, 0));
        assert_eq!(hashing.key[..3], [1, 2, 0]);
        assert_eq!(ask(&mut hashing, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, [TABLE, 3, 5]), (OK, 0));
        assert_eq!(hashing.mapping[3..9], [3, 0, 0, 1, 2, 0]);
        assert_eq!(ask(&mut hashing, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, [2, 0, 0]), (OK, 0));
        assert_eq!(hashing.mapping[..], [0, 0]);
    }

    fn flow(ether_type: u16, protocol: u8, tag: bool) -> Flow {
        let mut frame = vec![0; 12];
        if tag {
            frame.extend([0x81, 0, 0, 5]);
        }
        frame.extend(ether_type.to_be_bytes());
        match ether_type {
            0x0800 => frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
            _ => frame.extend([0x60, 0, 0, 0, 0, 0, protocol, 64].into_iter().chain(0..32)),
        }
        frame.extend([9, 10, 11, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0x50]);
        frame.resize(100, 0);
        Flow::new(&Head::parse(&frame).unwrap(), &frame).unwrap()
    }

    /// For each kind of packet and each set of types, the best of them is taken.
    #[test]
    fn the_maximal_type_is_chosen() {
        let mut hashing = Hashing { toeplitz: true, ..Hashing::default() };
        hashing.key = core::array::from_fn(|place| (place as u8).wrapping_mul(7));
        for types in HashTypes::all().iter().map(|one| HashTypes::all() - one).chain(HashTypes::all()) {
            hashing.types = types;
            for (ether_type, addresses, ports, kinds) in [
                (0x0800, 8, 12, (HashTypes::IPV4, HashTypes::IPV4_TCP)),
                (0x86dd, 32, 36, (HashTypes::IPV6, HashTypes::IPV6_TCP)),
            ] {
                for (protocol, tag) in [(6, false), (17, false), (1, false), (6, true)] {
                    let flow = flow(ether_type, protocol, tag);
                    let expected = if tag {
                        None
                    } else if protocol == 6 && types.contains(kinds.1) {
                        Some((ports, kinds.1))
                    } else {
                        types.contains(kinds.0).then_some((addresses, kinds.0))
                    };
                    let expected = expected.map(|(length, kind)| {
                        (toeplitz(&hashing.key, &flow.addresses_and_ports()[..length]), kind.bits().ilog2() as u8)
                    });
                    assert_eq!(hashing.hash(&flow), expected, "{types:?} {ether_type:#x} {protocol} {tag}");
                }
            }
        }
    }

    #[test]
    fn queues_by_the_mapping_or_modulo() {
        let mut hashing = Hashing::default();
        assert_eq!([0, 1, 5, u32::MAX].map(|hash| hashing.queue(hash, 3)), [0, 1, 2, 0]);
        hashing.mapping.extend([2, 0, 1, 1, 2]);
        assert_eq!([0, 1, 2, 3, 4, 5, u32::MAX].map(|hash| hashing.queue(hash, 3)), [2, 0, 1, 1, 2, 2, 2]);
    }
}

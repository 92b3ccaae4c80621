//! The connected devices of a bus, written down so that another life of the domain serves them on before it has asked the store. Pure.
//! Floor 1.
//!
//! They are written when a device connects, not when a life ends: a life may end anywhere, and what it then has half-done cannot be read. What
//! changed in the store meanwhile is found by the device's first look.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Decoder, Encode};

use super::{DeviceId, Directory, DomainId, Nodes};

/// A device as a life had connected it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which device.
    pub id: DeviceId,
    /// The frontend's directory.
    pub frontend: String,
    /// What both sides said when it was connected, or changed last.
    pub nodes: Nodes,
}

/// A [`Connection`] in CBOR (RFC 8949). A field that a later version adds has a number of its own and may be absent.
#[derive(Encode, Decode)]
struct Written<'b> {
    #[n(0)]
    domain: u16,
    #[n(1)]
    handle: u32,
    #[b(2)]
    frontend: &'b str,
    #[b(3)]
    frontend_nodes: Vec<(&'b str, &'b ByteSlice)>,
    #[b(4)]
    backend_nodes: Vec<(&'b str, &'b ByteSlice)>,
}

fn borrowed(directory: &Directory) -> Vec<(&str, &ByteSlice)> {
    directory.0.iter().map(|(name, value)| (name.as_str(), value.as_slice().into())).collect()
}

fn owned(nodes: Vec<(&str, &ByteSlice)>) -> Directory {
    nodes.into_iter().map(|(name, value)| (name, value.to_vec())).collect()
}

impl Connection {
    fn to_bytes(&self) -> Vec<u8> {
        let written = Written {
            domain: self.id.frontend.0,
            handle: self.id.handle,
            frontend: &self.frontend,
            frontend_nodes: borrowed(&self.nodes.frontend),
            backend_nodes: borrowed(&self.nodes.backend),
        };
        // Writing to a vector does not fail; where it did, the device would be found in the store.
        minicbor::to_vec(written).unwrap_or_default()
    }

    fn decode(decoder: &mut Decoder<'_>) -> Option<Self> {
        let Written { domain, handle, frontend, frontend_nodes, backend_nodes } = decoder.decode().ok()?;
        let id = DeviceId { frontend: DomainId(domain), handle };
        let nodes = Nodes { frontend: owned(frontend_nodes), backend: owned(backend_nodes) };
        Some(Self { id, frontend: frontend.into(), nodes })
    }
}

/// The connected devices of a bus, as bytes.
#[derive(Debug, Default)]
pub struct Connections {
    written: RefCell<Vec<(DeviceId, Vec<u8>)>>,
}

impl Connections {
    /// The devices that bytes written by [`Connections::write`] tell of, up to the first that makes no sense.
    pub fn parse(bytes: &[u8]) -> Vec<Connection> {
        let mut decoder = Decoder::new(bytes);
        core::iter::from_fn(|| (decoder.position() < bytes.len()).then(|| Connection::decode(&mut decoder))?).collect()
    }

    /// Gives all of them to `out`, piece by piece, without allocating. False, and nothing is written, where a change is under way.
    pub fn write(&self, mut out: impl FnMut(&[u8])) -> bool {
        self.written.try_borrow().map(|written| written.iter().for_each(|(_, bytes)| out(bytes))).is_ok()
    }

    /// Bytes that [`Connections::write`] gives.
    pub fn length(&self) -> usize {
        self.written.borrow().iter().map(|(_, bytes)| bytes.len()).sum()
    }

    pub(super) fn note(&self, connection: &Connection) {
        let bytes = connection.to_bytes();
        let mut written = self.written.borrow_mut();
        match written.iter_mut().find(|(id, _)| *id == connection.id) {
            Some((_, known)) => *known = bytes,
            None => written.push((connection.id, bytes)),
        }
    }

    pub(super) fn forget(&self, id: DeviceId) {
        self.written.borrow_mut().retain(|(known, _)| *known != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn connection(domain: u16, handle: u32) -> Connection {
        let frontend = [("state", "4"), ("tx-ring-ref", "8")].into_iter().collect();
        let backend = [("mac", "00:16:3e:00:00:01"), ("bridge", "")].into_iter().collect();
        let id = DeviceId { frontend: DomainId(domain), handle };
        Connection {
            id,
            frontend: alloc::format!("/local/domain/{domain}/device/vif/{handle}"),
            nodes: Nodes { frontend, backend },
        }
    }

    fn bytes(connections: &[Connection]) -> Vec<u8> {
        let all = Connections::default();
        connections.iter().for_each(|connection| all.note(connection));
        let mut bytes = Vec::new();
        assert!(all.write(|piece| bytes.extend(piece)));
        assert_eq!(all.length(), bytes.len());
        bytes
    }

    #[test]
    fn they_are_read_as_they_were_written() {
        let some = [connection(3, 0), connection(3, 1), connection(0x7fef, u32::MAX)];
        assert_eq!(Connections::parse(&bytes(&some)), some);
        assert_eq!(Connections::parse(&[]), []);
    }

    /// A [`Written`] with a field that a later version adds, which may be absent.
    #[derive(Encode, Decode)]
    struct Later<'b> {
        #[n(0)]
        domain: u16,
        #[n(1)]
        handle: u32,
        #[b(2)]
        frontend: &'b str,
        #[b(3)]
        frontend_nodes: Vec<(&'b str, &'b ByteSlice)>,
        #[b(4)]
        backend_nodes: Vec<(&'b str, &'b ByteSlice)>,
        #[n(6)]
        added: Option<[u32; 3]>,
    }

    #[test]
    fn two_versions_read_each_other() {
        let known = connection(3, 1);
        let later = Later {
            domain: 3,
            handle: 1,
            frontend: &known.frontend,
            frontend_nodes: borrowed(&known.nodes.frontend),
            backend_nodes: borrowed(&known.nodes.backend),
            added: Some([1, 2, 3]),
        };
        let mut bytes = minicbor::to_vec(&later).unwrap();
        bytes.extend(minicbor::to_vec(&later).unwrap());
        assert_eq!(Connections::parse(&bytes), [known.clone(), known.clone()]);
        let bytes = known.to_bytes();
        let read: Later<'_> = minicbor::decode(&bytes).unwrap();
        assert_eq!((read.domain, read.handle, read.added), (3, 1, None));
        assert_eq!(read.frontend_nodes, borrowed(&known.nodes.frontend));
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let some = [connection(3, 0), connection(4, 1)];
        let bytes = bytes(&some);
        for end in 0..bytes.len() {
            let read = Connections::parse(&bytes[..end]);
            assert!(some.starts_with(&read) && read.len() < 2, "{end}: {read:?}");
        }
    }

    #[test]
    fn a_change_under_way_writes_nothing() {
        let all = Connections::default();
        all.note(&connection(3, 0));
        let change = all.written.borrow_mut();
        assert!(!all.write(|_| unreachable!("nothing is written")));
        drop(change);
        all.forget(connection(3, 0).id);
        assert_eq!(all.length(), 0);
    }

    proptest! {
        #[test]
        fn anything_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Connections::parse(&bytes);
        }
    }
}

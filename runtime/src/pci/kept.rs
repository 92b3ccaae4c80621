//! What the next life has to know of the connection to pciback and of its devices, so that it need not ask for it. Safe code. Floor 2.

use crate::local::Local;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use minicbor::{Decode, Encode};
use pci_types::PciAddress;

/// The connection, in CBOR (RFC 8949). A field that a later version adds has a number of its own and may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Connection {
    /// pciback's directory.
    #[n(0)]
    pub(super) backend: String,
    /// The shared page.
    #[n(1)]
    pub(super) reference: u32,
    /// The channel.
    #[n(2)]
    pub(super) port: u32,
    #[n(3)]
    pub(super) devices: Vec<Device>,
    /// Where the host has the devices that a life went on without, as pciback did not know them.
    #[n(4)]
    pub(super) lost: Option<Vec<Place>>,
}

/// A device that pciback gave.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Device {
    /// Where this domain finds it.
    #[n(0)]
    pub(super) address: Place,
    /// Where the host has it.
    #[n(1)]
    pub(super) host: Place,
    /// The first doubleword of its config space.
    #[n(2)]
    pub(super) identity: u32,
    /// The toolstack takes it away.
    #[n(3)]
    pub(super) leaving: bool,
    /// BARs that were asked for: the index, and where its memory begins.
    #[n(4)]
    pub(super) bars: Vec<(u8, u64)>,
    #[n(5)]
    pub(super) interrupts: Option<Interrupts>,
}

/// A [`PciAddress`]: segment, bus, device, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Place(#[n(0)] u16, #[n(1)] u8, #[n(2)] u8, #[n(3)] u8);

impl From<PciAddress> for Place {
    fn from(address: PciAddress) -> Self {
        Self(address.segment(), address.bus(), address.device(), address.function())
    }
}

impl Place {
    /// The address; `None` where there can be none.
    pub(super) fn address(self) -> Option<PciAddress> {
        let Self(segment, bus, device, function) = self;
        (device < 32 && function < 8).then(|| PciAddress::new(segment, bus, device, function))
    }
}

/// The interrupts of a device, and what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Interrupts {
    #[n(0)]
    pub(super) best: u8,
    #[n(1)]
    pub(super) wanted: u32,
    #[n(2)]
    pub(super) kind: u8,
    /// The pirq of each vector, and the port that it is bound to.
    #[n(3)]
    pub(super) vectors: Vec<(u32, u32)>,
}

static CONNECTION: Local<RefCell<Option<Connection>>> = Local::new(RefCell::new(None));

/// There is a connection, or none any longer.
pub(super) fn set(connection: Option<Connection>) {
    *CONNECTION.borrow_mut() = connection;
}

/// A device was found.
pub(super) fn add(device: Device) {
    if let Some(connection) = CONNECTION.borrow_mut().as_mut() {
        connection.devices.retain(|known| known.address != device.address);
        connection.lost.iter_mut().for_each(|lost| lost.retain(|host| *host != device.host));
        connection.devices.push(device);
    }
}

/// A device is no longer of this domain, or reaches no memory any longer and goes.
pub(super) fn remove(address: PciAddress) {
    if let Some(connection) = CONNECTION.borrow_mut().as_mut() {
        connection.devices.retain(|device| device.address != address.into());
    }
}

/// This life goes on without a device, which the host has at `host`.
pub(super) fn lose(address: PciAddress, host: PciAddress) {
    remove(address);
    if let Some(connection) = CONNECTION.borrow_mut().as_mut() {
        let lost = connection.lost.get_or_insert_default();
        lost.retain(|known| *known != host.into());
        lost.push(host.into());
    }
}

/// Looks at a device, or changes it; `None` where it is not known.
pub(super) fn with<T>(address: PciAddress, action: impl FnOnce(&mut Device) -> T) -> Option<T> {
    let mut connection = CONNECTION.borrow_mut();
    let devices = connection.as_mut().map(|connection| connection.devices.as_mut_slice()).unwrap_or_default();
    devices.iter_mut().find(|device| device.address == address.into()).map(action)
}

/// The connection that bytes written by [`write`] tell of; `None` where they make no sense.
pub(super) fn parse(bytes: &[u8]) -> Option<Connection> {
    minicbor::decode(bytes).ok()
}

/// Bytes that [`write`] gives.
pub(crate) fn length() -> usize {
    let mut length = 0;
    write(&mut |bytes| length += bytes.len());
    length
}

/// Gives the connection to `out`, piece by piece, without allocating. False where there is none, or a change is under way.
pub(crate) fn write(out: &mut dyn FnMut(&[u8])) -> bool {
    struct Out<'o>(&'o mut dyn FnMut(&[u8]));
    impl minicbor::encode::Write for Out<'_> {
        type Error = Infallible;

        fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
            (self.0)(bytes);
            Ok(())
        }
    }
    let Ok(connection) = CONNECTION.try_borrow() else {
        return false;
    };
    connection.as_ref().is_some_and(|connection| minicbor::encode(connection, Out(out)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_connection_is_read_as_it_was_written() {
        let (here, there) = (PciAddress::new(0, 0, 1, 0), PciAddress::new(1, 0x3a, 31, 7));
        let device = |address: PciAddress, interrupts| Device {
            address: address.into(),
            host: there.into(),
            identity: 0x10d3_8086,
            leaving: false,
            bars: vec![(0, 0xfebc_0000), (3, 0x1_e000_0000)],
            interrupts,
        };
        set(Some(Connection {
            backend: "/local/domain/0/backend/pci/5/0".into(),
            reference: 8,
            port: 7,
            devices: vec![],
            lost: None,
        }));
        let interrupts = Interrupts { best: 0, wanted: 3, kind: 1, vectors: vec![(55, 12)] };
        add(device(here, None));
        add(device(here, Some(interrupts)));
        add(device(there, None));
        remove(there);
        assert_eq!(with(here, |device| core::mem::replace(&mut device.leaving, true)), Some(false));
        assert_eq!(with(there, |_| ()), None);
        let mut bytes = Vec::new();
        assert!(write(&mut |piece| bytes.extend(piece)));
        assert_eq!((length(), parse(&bytes)), (bytes.len(), CONNECTION.borrow().clone()));
        let read = parse(&bytes).unwrap();
        assert_eq!(read.devices[0].host.address(), Some(there));
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), None, "{end}");
        }
        // Lives that lose no device write what older images read, and read what those wrote.
        assert_eq!(read.lost, None);
        lose(here, there);
        lose(here, there);
        bytes.clear();
        assert!(write(&mut |piece| bytes.extend(piece)));
        let read = parse(&bytes).unwrap();
        assert_eq!((read.devices.len(), read.lost), (0, Some(vec![there.into()])));
        add(device(here, None));
        assert_eq!(CONNECTION.borrow().as_ref().and_then(|now| now.lost.clone()), Some(vec![]), "it is back");
        let change = CONNECTION.borrow_mut();
        assert!(!write(&mut |_| unreachable!("nothing is written")));
        drop(change);
        set(None);
        assert!(!write(&mut |_| unreachable!("there is nothing")));
    }

    #[test]
    fn no_address_is_made_of_nonsense() {
        assert_eq!(Place(0, 0, 32, 0).address(), None);
        assert_eq!(Place(0, 0, 31, 8).address(), None);
    }
}

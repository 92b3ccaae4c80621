//! NICs that QEMU lacks: models of `tests/devices` that the lab serves to it. Host.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use devices::bus::Model;
use devices::igb::{self, Igb};
use devices::ixgbe::{self, Ixgbe};
use devices::vfio_user::Server;
use lab::{DeviceModel, DeviceServer, Nic, NicModel};

/// An 82599 or an X540 as a machine's NIC.
pub(crate) fn ixgbe(kind: ixgbe::Kind) -> NicModel {
    NicModel::Served(Arc::new(Card { kind, model: Ixgbe::new }))
}

/// An 82576, an I350 or an I210 as a machine's NIC.
pub(crate) fn igb(kind: igb::Kind) -> NicModel {
    NicModel::Served(Arc::new(Card { kind, model: Igb::new }))
}

/// A card of a family, and how its model is made with an address.
#[derive(Debug)]
struct Card<K, M> {
    kind: K,
    model: fn(K, [u8; 6]) -> M,
}

impl<K: Copy + Debug + Send + Sync, M: Model + Debug + Send + 'static> DeviceModel for Card<K, M> {
    fn serve(&self, nic: &Nic, socket: &Path, wire: Option<&Path>) -> Result<Box<dyn DeviceServer>> {
        let model = (self.model)(self.kind, address(&nic.mac)?);
        let server = Server::start(model, socket.to_owned(), wire.map(Path::to_owned));
        Ok(Box::new(Served(server.with_context(|| format!("serving {:?} on {}", self.kind, socket.display()))?)))
    }
}

/// Six bytes in hexadecimal, with colons.
fn address(text: &str) -> Result<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut address {
        *byte = parts.next().and_then(|part| u8::from_str_radix(part, 16).ok()).with_context(|| text.to_owned())?;
    }
    match parts.next() {
        None => Ok(address),
        Some(_) => bail!("{text} is no address"),
    }
}

struct Served<M: Model + Send + 'static>(Server<M>);

impl<M: Model + Send + 'static> DeviceServer for Served<M> {
    fn set_link(&self, up: bool) -> Result<()> {
        self.0.with_model(|model| model.set_link(up));
        Ok(())
    }

    fn misuse(&self) -> Vec<String> {
        self.0.misuse()
    }
}

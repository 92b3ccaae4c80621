//! NICs that QEMU lacks, or that misbehave on request: models of `tests/devices` that the lab serves to it. Host.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use devices::bus::Model;
use devices::i2c::{self, Module};
use devices::igb::{self, Igb};
use devices::ixgbe::{self, Ixgbe};
use devices::vfio_user::Server;
use lab::{DeviceModel, DeviceServer, Misbehaviour, Nic, NicModel, SfpModule};

/// An 82599 or an X540 as a machine's NIC.
pub(crate) fn ixgbe(kind: ixgbe::Kind) -> NicModel {
    let lose_memory = |model: &mut Ixgbe| model.raise(ixgbe::cause::ECC);
    NicModel::Served(Arc::new(Card { kind, model: Ixgbe::new, lose_memory, change_module: Some(change_module) }))
}

/// An 82576, an I350 or an I210 as a machine's NIC.
pub(crate) fn igb(kind: igb::Kind) -> NicModel {
    let lose_memory = |model: &mut Igb| model.raise(igb::cause::FATAL);
    NicModel::Served(Arc::new(Card { kind, model: Igb::new, lose_memory, change_module: None }))
}

fn change_module(model: &mut Ixgbe, module: Option<SfpModule>) {
    match module {
        Some(SfpModule::ShortReach) => model.put_in(Module::new(i2c::Kind::ShortReach)),
        Some(SfpModule::PassiveCable) => model.put_in(Module::new(i2c::Kind::PassiveCable)),
        None => model.take_out(),
    }
}

/// A card of a family.
#[derive(Debug)]
struct Card<K, M> {
    kind: K,
    /// Makes its model with an address.
    model: fn(K, [u8; 6]) -> M,
    /// Has one of the model's memories lose its contents.
    lose_memory: fn(&mut M),
    /// Changes the module in its cage, where it has one.
    change_module: Option<fn(&mut M, Option<SfpModule>)>,
}

impl<K: Copy + Debug + Send + Sync, M: Model + Debug + Send + 'static> DeviceModel for Card<K, M> {
    fn serve(&self, nic: &Nic, socket: &Path, wire: Option<&Path>) -> Result<Box<dyn DeviceServer>> {
        let model = (self.model)(self.kind, address(&nic.mac)?);
        let server = Server::start(model, socket.to_owned(), wire.map(Path::to_owned));
        let server = server.with_context(|| format!("serving {:?} on {}", self.kind, socket.display()))?;
        Ok(Box::new(Served { server, lose_memory: self.lose_memory, change_module: self.change_module }))
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

struct Served<M: Model + Send + 'static> {
    server: Server<M>,
    lose_memory: fn(&mut M),
    change_module: Option<fn(&mut M, Option<SfpModule>)>,
}

impl<M: Model + Send + 'static> DeviceServer for Served<M> {
    fn set_link(&self, up: bool) -> Result<()> {
        self.server.with_model(|model| model.set_link(up));
        Ok(())
    }

    fn misuse(&self) -> Vec<String> {
        self.server.misuse()
    }

    fn misbehave(&self, how: Misbehaviour) {
        self.server.with_model(|model| match how {
            Misbehaviour::Hang(on) => model.faults().hung_transmit = if on { u128::MAX } else { 0 },
            Misbehaviour::LostMemory => (self.lose_memory)(model),
        });
    }

    fn change_module(&self, module: Option<SfpModule>) -> Result<()> {
        let change = self.change_module.context("the NIC has no cage for a module")?;
        self.server.with_model(|model| change(model, module));
        Ok(())
    }
}

//! The addresses that the switch heard of lately, by port: for the administrator. Floor 3.

use super::{BondId, DataPath, NicId, VifId};
use crate::ethernet::MacAddress;
use crate::switch::PortId;
use alloc::string::String;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;

/// The bridge of a port, and addresses there, each with its VLAN, 0 for none.
pub type Heard = (String, Vec<(u16, MacAddress)>);

impl<H: Hypervisor> DataPath<H> {
    /// Those of a NIC, `most` of them; none where it is on no bridge by itself.
    pub fn nic_heard(&self, id: NicId, most: usize) -> Option<Heard> {
        self.heard(self.ports.nic_port(id.number())?, most)
    }

    /// Those of a bond.
    pub fn bond_heard(&self, id: BondId, most: usize) -> Option<Heard> {
        self.heard(id.port(), most)
    }

    /// Those of a vif.
    pub fn vif_heard(&self, id: VifId, most: usize) -> Option<Heard> {
        self.ports.named(id)?;
        self.heard(id.port, most)
    }

    fn heard(&self, port: PortId, most: usize) -> Option<Heard> {
        let switch = &self.forwarder.switch;
        let bridge = String::from(switch.bridge(port)?);
        Some((bridge, switch.heard(port, self.now).take(most).collect()))
    }
}

//! Bridges by name, and what each has learnt. Pure. Floor 3.

use crate::nic::MacAddress;
use alloc::string::String;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: it has come to where it goes.
    Drop,
    /// It goes to one port.
    To(u16),
    /// It goes to all ports of the bridge but its own.
    Flood,
}

#[derive(Default)]
pub(crate) struct Bridges {
    names: Vec<String>,
    members: Vec<Vec<u16>>,
    port_bridge: HashMap<u16, usize>,
    table: HashMap<(usize, MacAddress), u16>,
}

const TABLE: usize = 1024;

impl Bridges {
    pub(crate) fn add(&mut self, port: u16, name: &str) {
        let bridge = match self.names.iter().position(|known| known == name) {
            Some(bridge) => bridge,
            None => {
                self.names.push(name.into());
                self.members.push(Vec::new());
                self.names.len() - 1
            }
        };
        if let Some(members) = self.members.get_mut(bridge) {
            members.push(port);
        }
        self.port_bridge.insert(port, bridge);
    }

    pub(crate) fn remove(&mut self, port: u16) {
        if let Some(bridge) = self.port_bridge.remove(&port)
            && let Some(members) = self.members.get_mut(bridge)
        {
            members.retain(|member| *member != port);
        }
        self.table.retain(|_, learnt| *learnt != port);
    }

    pub(crate) fn forward(&mut self, port: u16, destination: MacAddress, source: MacAddress) -> Verdict {
        let Some(&bridge) = self.port_bridge.get(&port) else {
            return Verdict::Drop;
        };
        if source[0] & 1 == 0 && (self.table.len() < TABLE || self.table.contains_key(&(bridge, source))) {
            self.table.insert((bridge, source), port);
        }
        if destination[0] & 1 != 0 {
            return Verdict::Flood;
        }
        match self.table.get(&(bridge, destination)) {
            Some(learnt) if *learnt == port => Verdict::Drop,
            Some(learnt) => Verdict::To(*learnt),
            None => Verdict::Flood,
        }
    }

    pub(crate) fn members(&self, port: u16) -> &[u16] {
        self.port_bridge.get(&port).and_then(|bridge| self.members.get(*bridge)).map_or(&[], Vec::as_slice)
    }
}

//! Which queue of a guest a packet goes to, asked once for a run of packets of one flow. Floor 3.

use super::DataPath;
use super::round::{Source, Steered};
use crate::netback::steering::{Steer, steer};
use crate::offload::flow::Flow;
use split_driver::hypervisor::Hypervisor;

impl<H: Hypervisor> DataPath<H> {
    /// A packet's way within the guest at a port. With one queue and no hash asked for, the packet is not looked at.
    pub(super) fn steer(&mut self, to: u16, source: Source) -> Steer {
        let Some(Some(slot)) = self.vifs.get(usize::from(to)) else {
            return Steer::default();
        };
        let (queues, hashing) = (slot.vif.queue_count(), slot.vif.hashing());
        if queues < 2 && hashing.is_none() {
            return Steer::default();
        }
        let packet = match source {
            Source::Guest(index) => self.round.sent.get(index as usize).map(|sent| &sent.local),
            Source::Wire(index) => self.round.frames.get(index as usize),
        };
        let Some(flow) = packet.and_then(Flow::of) else {
            return steer(None, queues, hashing, self.flow_key);
        };
        if let Some(last) = self.round.last_steered.filter(|last| last.to == to && last.flow == flow) {
            return last.steer;
        }
        let steer = steer(Some(&flow), queues, hashing, self.flow_key);
        self.round.last_steered = Some(Steered { to, flow, steer });
        steer
    }
}

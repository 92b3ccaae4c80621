//! From whatever state the device was left in to one that sends and receives: stop, reset, set up. Pure. Floor 3.
//!
//! The order is that of the 82576 datasheet, 4.5 (initialisation), 4.5.9 (receive) and 4.5.10 (transmit). Nothing here waits for the link.

use super::models::Kind;
use super::registers::{self as reg, Causes, Ctrl, Dctl, Rctl, Tctl};
use super::{Hardware, interrupts, phy};
use crate::ethernet::MacAddress;
use crate::nic::advanced::{queues, rss};
use crate::nic::family::{ABSENT, Setup, Start, address, wait};
use crate::nic::ring::Ring;
use crate::nic::{Delay, Error, STANDARD_FRAME};
use crate::offload::headers::ETHERTYPE_VLAN;
use core::time::Duration;
use split_driver::memory::{DmaMemory, Mmio, Quiesced};

/// After a reset the device is left alone for so long (82576 datasheet 4.3.1: 1 ms).
const RESET: Duration = Duration::from_millis(1);

impl Start for Hardware {
    /// Stops both directions and all interrupts, and waits until no request to memory is under way (82576 datasheet 5.2.3.3; Linux waits 80 ms
    /// at most). `None` where the device does not say so.
    fn stop<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Option<Quiesced> {
        self.semaphores.give_back(mmio);
        reg::EIMC.write(mmio, 0, u32::MAX);
        reg::IMC.write(mmio, 0, Causes::from(u32::MAX));
        reg::RCTL.write(mmio, 0, Rctl::new());
        reg::TCTL.write(mmio, 0, Tctl::new().with_pad_short(true));
        reg::CTRL_EXT.update(mmio, 0, |control: reg::CtrlExt| control.with_driver_loaded(false));
        reg::CTRL.update(mmio, 0, |control: Ctrl| control.with_master_disable(true));
        wait(delay, Duration::from_micros(100), 800, || {
            let status: u32 = reg::STATUS.read(mmio, 0).into();
            status == ABSENT || !reg::Status::from(status).master_enabled()
        });
        reg::STATUS.confirm(mmio, 0, |status: reg::Status| !status.master_enabled())
    }

    /// Resets all but the PHY and the link.
    fn reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error> {
        let status: u32 = reg::STATUS.read(mmio, 0).into();
        if status == ABSENT {
            return Err(Error::Absent { status });
        }
        let _proof = self.stop(mmio, delay);
        let pause = self.begin_reset(mmio, delay);
        delay(pause);
        self.end_reset(mmio, delay)
    }

    fn begin_reset<M: Mmio>(&self, mmio: &M, _delay: Delay<'_>) -> Duration {
        reg::CTRL.update(mmio, 0, |control: Ctrl| control.with_reset(true));
        RESET
    }

    fn end_reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error> {
        let ended = wait(delay, Duration::from_micros(100), 100, || !reg::CTRL.read(mmio, 0).reset());
        let control: u32 = reg::CTRL.read(mmio, 0).into();
        if !ended || control == ABSENT {
            return Err(Error::Reset { register: "CTRL", value: control });
        }
        // A device without non-volatile memory never says so, and nor does QEMU's: whether there is an address is seen afterwards.
        wait(delay, Duration::from_micros(100), 100, || reg::EEC.read(mmio, 0).auto_read_done());
        reg::EIMC.write(mmio, 0, u32::MAX);
        reg::IMC.write(mmio, 0, Causes::from(u32::MAX));
        let _acknowledged = reg::ICR.read(mmio, 0);
        let high = reg::RAH.read(mmio, 0);
        address(reg::RAL.read(mmio, 0), high.high(), high.valid())
    }

    /// Sets up all that is not of one queue.
    fn prepare<M: Mmio>(&self, mmio: &M, setup: &Setup) {
        reg::CTRL.update(mmio, 0, |control: Ctrl| {
            control
                .with_set_link_up(true)
                .with_force_speed(false)
                .with_force_duplex(false)
                .with_vlan_mode(false)
                .with_receive_flow_control(false)
                .with_transmit_flow_control(false)
                .with_master_disable(false)
                .with_reset(false)
        });
        reg::VET.write(mmio, 0, ETHERTYPE_VLAN.into());
        let spread = setup.queues > 1;
        // QEMU looks at checksums only where descriptors have no hash.
        reg::RXCSUM.write(mmio, 0, reg::Rxcsum::new().with_ip(true).with_transport(true).with_hash(spread));
        for (word, value) in rss::key(setup.seed).into_iter().enumerate() {
            mmio.write32(reg::RSSRK + 4 * word, value);
        }
        for (word, value) in rss::table(setup.queues, rss::TABLE_WORDS).enumerate() {
            mmio.write32(reg::RETA + 4 * word, value);
        }
        reg::MRQC.write(mmio, 0, if spread { 2 | rss::fields::ALL } else { 0 });
        reg::RFCTL.update(mmio, 0, |control| {
            control.with_iscsi_disable(true).with_nfs_write_disable(true).with_nfs_read_disable(true)
        });
        // At most 9,728.
        reg::RLPML.write(mmio, 0, setup.max_frame as u32 + 4);
        reg::TCTL.update(mmio, 0, |control: Tctl| {
            control.with_enable(true).with_pad_short(true).with_collision_threshold(15).with_retransmit_late(true)
        });
        interrupts::set_up(setup.wiring, mmio, self.model, setup.queues);
    }

    /// Sets up a transmit ring, empty, and enables its queue.
    fn start_transmit<M: Mmio, D: DmaMemory>(
        &self,
        mmio: &M,
        queue: usize,
        ring: &Ring<D>,
        delay: Delay<'_>,
    ) -> Result<(), Error> {
        let at = reg::transmit(queue);
        reg::TXDCTL.write(mmio, at, Dctl::new());
        queues::set_transmit_ring(mmio, at, ring);
        let control = Dctl::new().with_prefetch(8).with_host(1).with_write_back(1).with_enable(true);
        reg::TXDCTL.write(mmio, at, control);
        queues::confirm("TXDCTL", delay, || reg::TXDCTL.read(mmio, at), |control| control.enable())
    }

    /// Sets up a receive ring, empty, and enables its queue.
    fn start_receive<M: Mmio, D: DmaMemory>(
        &self,
        mmio: &M,
        queue: usize,
        ring: &Ring<D>,
        buffer_bytes: u16,
        delay: Delay<'_>,
    ) -> Result<(), Error> {
        let at = reg::receive(queue);
        reg::RXDCTL.write(mmio, at, Dctl::new());
        queues::set_receive_ring(mmio, at, ring);
        // A queue without buffers must not hold up the others.
        let kibibytes = (buffer_bytes >> 10) as u8;
        reg::SRRCTL.write(mmio, at, reg::Srrctl::new().with_kibibytes(kibibytes).with_kind(1).with_drop(true));
        let control = Dctl::new().with_prefetch(8).with_host(8).with_write_back(1).with_enable(true);
        reg::RXDCTL.write(mmio, at, control);
        queues::confirm("RXDCTL", delay, || reg::RXDCTL.read(mmio, at), |control| control.enable())
    }

    /// Starts to receive as a bridge port must: every frame, whoever it is for.
    fn enable<M: Mmio>(&self, mmio: &M, setup: &Setup, delay: Delay<'_>) {
        let control = Rctl::new()
            .with_enable(true)
            .with_unicast_promiscuous(true)
            .with_multicast_promiscuous(true)
            .with_broadcast(true)
            .with_long_packets(setup.max_frame > STANDARD_FRAME)
            .with_discard_pause(true)
            .with_strip_crc(true);
        reg::RCTL.write(mmio, 0, control);
        self.pending.set(!phy::start_link(mmio, self.model, &self.semaphores, delay));
    }

    /// Takes 802.1Q tags out of frames received, or no longer (82576 datasheet 8.2.1, I350 datasheet 8.10.20; Linux writes both, too).
    fn strip_tags<M: Mmio>(&self, mmio: &M, _queues: usize, on: bool) {
        reg::CTRL.update(mmio, 0, |control: Ctrl| control.with_vlan_mode(on));
        let change = |offload: u32| if on { offload | reg::STRIP_TAG } else { offload & !reg::STRIP_TAG };
        match self.model.kind {
            Kind::I350 => reg::DVMOLR.update(mmio, 0, change),
            Kind::I82576 | Kind::I82580 | Kind::I210 | Kind::I211 => reg::VMOLR.update(mmio, 0, change),
        }
    }
}

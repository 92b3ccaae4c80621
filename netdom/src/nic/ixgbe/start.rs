//! From whatever state the device was left in to one that sends and receives: stop, reset, set up. Pure. Floor 3.
//!
//! The order is that of the 82599 datasheet, 4.6.3 (initialisation), 4.6.7 (receive) and 4.6.8 (transmit). Nothing here waits for the link.

use super::cage;
use super::models::Kind;
use super::registers::{self as reg, Causes, Ctrl};
use super::{Hardware, flow, interrupts, mdio};
use crate::ethernet::MacAddress;
use crate::nic::advanced::{queues, rss};
use crate::nic::family::{ABSENT, Setup, Start, address, wait};
use crate::nic::ring::Ring;
use crate::nic::{Delay, Error, STANDARD_FRAME};
use crate::offload::headers::ETHERTYPE_VLAN;
use core::time::Duration;
use split_driver::memory::{DmaMemory, Mmio, Quiesced};

/// After a reset the device is left alone for so long (82599 datasheet 4.2.1.6.1: 1 ms; 4.6.3.2: 10 ms).
const RESET: Duration = Duration::from_millis(10);
/// Waits of 100 us for what an X540's firmware does after a reset (Linux waits 100 ms in all).
const SLOW: u32 = 1000;
/// Queues that a driver before this one may have left running.
const QUEUES: usize = 64;

impl Hardware {
    /// Whether a reset is one of the PHY's interface, too, which firmware must not use meanwhile.
    const fn resets_phy_interface(&self) -> bool {
        matches!(self.model.kind, Kind::X540 | Kind::X550)
    }
}

impl Start for Hardware {
    /// Stops both directions and all interrupts, and waits until no request to memory is under way (82599 datasheet 5.2.5.3.2; Linux waits 80 ms
    /// at most). `None` where the device does not say so.
    fn stop<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Option<Quiesced> {
        self.semaphores.give_back(mmio);
        reg::EIMC.write(mmio, 0, Causes::from(u32::MAX));
        for mask in reg::EIMC_EX {
            mask.write(mmio, 0, u32::MAX);
        }
        reg::RXCTRL.update(mmio, 0, |control: reg::Rxctrl| control.with_enable(false));
        reg::DMATXCTL.update(mmio, 0, |control: reg::Dmatxctl| control.with_enable(false));
        reg::CTRL_EXT.update(mmio, 0, |control: reg::CtrlExt| control.with_driver_loaded(false));
        reg::CTRL.update(mmio, 0, |control: Ctrl| control.with_master_disable(true));
        wait(delay, Duration::from_micros(100), 800, || {
            let status: u32 = reg::STATUS.read(mmio, 0).into();
            status == ABSENT || !reg::Status::from(status).master_enabled()
        });
        reg::STATUS.confirm(mmio, 0, |status: reg::Status| !status.master_enabled())
    }

    /// Resets all but the link.
    fn reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error> {
        let status: u32 = reg::STATUS.read(mmio, 0).into();
        if status == ABSENT {
            return Err(Error::Absent { status });
        }
        if self.stop(mmio, delay).is_none() {
            // What was under way to memory is ended by a second reset (82599 datasheet 5.2.5.3.2).
            let pause = self.begin_reset(mmio, delay);
            delay(pause);
            self.release_phy(mmio, delay);
        }
        let pause = self.begin_reset(mmio, delay);
        delay(pause);
        self.release_phy(mmio, delay);
        self.end_reset(mmio, delay)
    }

    fn release_phy<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) {
        if self.resets_phy_interface() {
            self.semaphores.release(mmio, mdio::bit(mmio), delay);
        }
    }

    fn begin_reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Duration {
        if self.resets_phy_interface() {
            self.semaphores.acquire(mmio, mdio::bit(mmio), delay);
        }
        reg::CTRL.update(mmio, 0, |control: Ctrl| control.with_reset(true));
        RESET
    }

    fn end_reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error> {
        let ended = wait(delay, Duration::from_micros(100), 100, || !reg::CTRL.read(mmio, 0).reset());
        let control: u32 = reg::CTRL.read(mmio, 0).into();
        if !ended || control == ABSENT {
            return Err(Error::Reset { register: "CTRL", value: control });
        }
        let read = wait(delay, Duration::from_micros(100), SLOW, || reg::EEC.read(mmio, 0).auto_read_done());
        if !read {
            return Err(Error::Reset { register: "EEC", value: reg::EEC.read(mmio, 0).into() });
        }
        let ready = wait(delay, Duration::from_micros(100), SLOW, || reg::RDRXCTL.read(mmio, 0).ready());
        if !ready {
            return Err(Error::Reset { register: "RDRXCTL", value: reg::RDRXCTL.read(mmio, 0).into() });
        }
        reg::EIMC.write(mmio, 0, Causes::from(u32::MAX));
        let _acknowledged = reg::EICR.read(mmio, 0);
        let high = reg::RAH.read(mmio, 0);
        address(reg::RAL.read(mmio, 0), high.high(), high.valid())
    }

    /// Sets up all that is not of one queue.
    fn prepare<M: Mmio>(&self, mmio: &M, setup: &Setup) {
        reg::CTRL_EXT.update(mmio, 0, |control: reg::CtrlExt| {
            control.with_no_snoop_disable(true).with_relaxed_order_disable(true).with_driver_loaded(true)
        });
        if self.model.kind == Kind::I82599Fibre && !cage::is_vetoed(mmio) {
            // A driver before this one may have turned the laser off.
            reg::ESDP.update(mmio, 0, |pins: reg::Esdp| pins.with_laser_off(false));
        }
        // Frames in: checks, filters, queues.
        reg::FCTRL.write(mmio, 0, reg::Fctrl::new());
        reg::VLNCTRL.write(mmio, 0, ETHERTYPE_VLAN.into());
        reg::RXCSUM.write(mmio, 0, reg::Rxcsum::new().with_hash(true));
        for (word, value) in rss::key(setup.seed).into_iter().enumerate() {
            mmio.write32(reg::RSSRK + 4 * word, value);
        }
        let words = if self.model.kind == Kind::X550 { rss::LONG_TABLE_WORDS } else { rss::TABLE_WORDS };
        let reta = (reg::RETA..).step_by(4).take(rss::TABLE_WORDS);
        for (place, value) in reta.chain((reg::ERETA..).step_by(4)).zip(rss::table(setup.queues, words)) {
            mmio.write32(place, value);
        }
        if matches!(self.model.kind, Kind::X540 | Kind::X550) {
            // All of its receive packet buffer is one: the reset leaves that to the driver.
            reg::RXPBSIZE.write(mmio, 0, 384 << 10);
        }
        let hashed = if setup.queues > 1 { 1 | rss::fields::ALL } else { 0 };
        reg::MRQC.write(mmio, 0, hashed);
        reg::RDRXCTL.update(mmio, 0, |control: reg::Rdrxctl| {
            control.with_strip_crc(true).with_rsc_first_size(0).with_rsc_ack(true).with_fcoe_write_fix(true)
        });
        reg::HLREG0.update(mmio, 0, |control: reg::Hlreg0| {
            control
                .with_add_crc(true)
                .with_strip_crc(true)
                .with_pad(true)
                .with_loopback(false)
                .with_jumbo(setup.max_frame > STANDARD_FRAME)
        });
        // At most 9,728.
        let longest = setup.max_frame as u32 + 4;
        reg::MAXFRS.write(mmio, 0, longest << 16);
        reg::MFLCN.update(mmio, 0, |control: reg::Mflcn| {
            control.with_pass_control(false).with_discard_pause(true).with_obey(false)
        });
        // Packets out: one pool of queues, chosen while nothing is sent.
        reg::RTTDCS.update(mmio, 0, |control: reg::Rttdcs| control.with_arbiter_disable(true));
        reg::MTQC.write(mmio, 0, 0);
        reg::RTTDCS.update(mmio, 0, |control: reg::Rttdcs| control.with_arbiter_disable(false));
        reg::DMATXCTL.update(mmio, 0, |control: reg::Dmatxctl| control.with_enable(true).with_tag_type(ETHERTYPE_VLAN));
        for queue in 0..QUEUES {
            reg::DCA_RXCTRL.update(mmio, reg::receive(queue), |control: u32| control & !reg::DCA_RX_RELAXED);
            reg::DCA_TXCTRL.update(mmio, reg::transmit(queue), |control: u32| control & !reg::DCA_TX_RELAXED);
        }
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
        reg::TXDCTL.write(mmio, at, reg::Txdctl::new().with_flush(true));
        queues::set_transmit_ring(mmio, at, ring);
        let control = reg::Txdctl::new().with_prefetch(32).with_host(1).with_enable(true);
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
        reg::RXDCTL.update(mmio, at, |control: reg::Rxdctl| control.with_enable(false));
        queues::confirm("RXDCTL", delay, || reg::RXDCTL.read(mmio, at), |control| !control.enable())?;
        queues::set_receive_ring(mmio, at, ring);
        reg::RSCCTL.write(mmio, at, 0);
        // A queue without buffers must not hold up the others.
        let kibibytes = (buffer_bytes >> 10) as u8;
        reg::SRRCTL.write(mmio, at, reg::Srrctl::new().with_kibibytes(kibibytes).with_kind(1).with_drop(true));
        reg::RXDCTL.update(mmio, at, |control: reg::Rxdctl| control.with_enable(true).with_strip_tag(false));
        queues::confirm("RXDCTL", delay, || reg::RXDCTL.read(mmio, at), |control| control.enable())
    }

    /// Starts to receive as a bridge port must: every frame, whoever it is for.
    fn enable<M: Mmio>(&self, mmio: &M, setup: &Setup, delay: Delay<'_>) {
        // The unit must not be enabled while frames come in: they wait before the security engine meanwhile (82599 datasheet 4.6.7).
        reg::SECRXCTRL.update(mmio, 0, |control: reg::Secrxctrl| control.with_receive_disable(true));
        wait(&mut |_| (), Duration::ZERO, 100, || reg::SECRXSTAT.read(mmio, 0).ready());
        reg::RXCTRL.update(mmio, 0, |control: reg::Rxctrl| control.with_enable(true));
        reg::SECRXCTRL.update(mmio, 0, |control: reg::Secrxctrl| control.with_receive_disable(false));
        let every =
            reg::Fctrl::new().with_multicast_promiscuous(true).with_unicast_promiscuous(true).with_broadcast(true);
        reg::FCTRL.write(mmio, 0, every);
        if setup.keep_link {
            // The MAC has to find the PHY's link again.
            wait(delay, Duration::from_micros(200), 50, || cage::has_link(mmio));
        }
        self.pending.set(!start_link(mmio, self, setup.keep_link, delay));
    }

    fn strip_tags<M: Mmio>(&self, mmio: &M, queues: usize, on: bool) {
        for queue in 0..queues {
            reg::RXDCTL.update(mmio, reg::receive(queue), |control: reg::Rxdctl| control.with_strip_tag(on));
        }
    }
}

/// Begins with the link, where the PHY has no life of its own or sleeps. False where firmware has a copper PHY, and [`mdio::begin`] is to be
/// tried later.
fn start_link<M: Mmio>(mmio: &M, hardware: &Hardware, keep: bool, delay: Delay<'_>) -> bool {
    let Hardware { model, semaphores, cage, .. } = hardware;
    flow::advertise(mmio, model);
    let begun = match model.kind {
        Kind::I82599 => true,
        // The reset has waited for it.
        Kind::X540 | Kind::X550 => mdio::begin(mmio, model, semaphores, delay),
        Kind::I82599Copper => {
            semaphores.clear(mmio, mdio::bit(mmio), delay);
            mdio::begin(mmio, model, semaphores, delay)
        }
        Kind::I82599Fibre => {
            cage.start(mmio, semaphores, keep, delay);
            true
        }
    };
    if matches!(model.kind, Kind::I82599 | Kind::I82599Copper) && !cage::has_link(mmio) {
        reg::AUTOC.update(mmio, 0, |control: reg::Autoc| control.with_restart(true));
    }
    begun
}

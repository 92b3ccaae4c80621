//! From whatever state the device was left in to one that sends and receives: stop, reset, set up. Pure. Floor 3.
//!
//! Nothing here waits for the link, touches the PHY or reads the non-volatile memory: the PHY negotiates by itself after
//! power-on, and a reset of the MAC leaves it alone. So a start costs some fifty register accesses, and only the waits that
//! the documents ask for: a microsecond on a discrete device, 20 ms on a platform controller hub (PCH).

use super::models::Kind;
use super::registers::{self as reg, Causes, Ctrl, Dctl, Rctl, Registers, Rfctl, Rxcsum, Tctl, Tipg};
use super::{Hardware, interrupts, pch, serdes};
use crate::ethernet::MacAddress;
use crate::nic::family::{ABSENT, Setup, Start, address, wait};
use crate::nic::ring::Ring;
use crate::nic::ring::receive::buffer_bytes;
use crate::nic::{Delay, Error, STANDARD_FRAME};
use crate::offload::headers::ETHERTYPE_VLAN;
use crate::packet::HALF_PAGE;
use core::time::Duration;
use split_driver::memory::{DmaMemory, Mmio, Quiesced};

/// A value that no reset leaves in TADV.
const MARK: u32 = 0x5AA5;

impl Hardware {
    /// Whether EXTCNF_CTRL says who has the bus to the PHY.
    const fn shares_mdio(&self) -> bool {
        matches!(self.model.kind, Kind::I82573 | Kind::I82574) || self.model.is_pch()
    }

    /// Waits until a discrete device has read its non-volatile memory after a reset; no other register may be touched before. Whether it has.
    fn wait_for_memory<M: Mmio>(&self, registers: &Registers<'_, M>, delay: Delay<'_>) -> bool {
        if self.model.is_pch() {
            return true;
        }
        let read = wait(delay, Duration::from_micros(50), 200, || registers.read(reg::EEC).auto_read_done());
        let eec: u32 = registers.read(reg::EEC).into();
        read && eec != ABSENT
    }
}

impl Start for Hardware {
    /// Stops both directions and all interrupts, and waits until no request to memory is under way (82574 datasheet 5.2.5.3;
    /// Linux waits 80 ms at most). `None` where the device does not say so.
    fn stop<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Option<Quiesced> {
        let registers = &Registers(mmio);
        registers.write(reg::IMC, Causes::from(u32::MAX));
        registers.write(reg::RCTL, Rctl::new());
        registers.write(reg::TCTL, Tctl::new().with_pad_short(true));
        // The firmware may have the device back.
        match self.model.kind {
            Kind::I82573 => registers.update(reg::SWSM, |swsm: reg::Swsm| swsm.with_driver_loaded(false)),
            _ => registers.update(reg::CTRL_EXT, |control: reg::CtrlExt| control.with_driver_loaded(false)),
        }
        registers.update(reg::CTRL, |ctrl: Ctrl| ctrl.with_master_disable(true));
        wait(delay, Duration::from_micros(100), 800, || {
            let status: u32 = registers.read(reg::STATUS).into();
            status == ABSENT || !reg::Status::from(status).master_enabled()
        });
        registers.confirm(reg::STATUS, |status: reg::Status| !status.master_enabled())
    }

    /// Resets the MAC.
    fn reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error> {
        let registers = &Registers(mmio);
        let status: u32 = registers.read(reg::STATUS).into();
        if status == ABSENT {
            return Err(Error::Absent { status });
        }
        let _proof = self.stop(mmio, delay);
        let pause = self.begin_reset(mmio, delay);
        delay(pause);
        self.release_phy(mmio, delay);
        self.end_reset(mmio, delay)
    }

    fn release_phy<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) {
        if self.shares_mdio() {
            self.wait_for_memory(&Registers(mmio), delay);
            Registers(mmio).update(reg::EXTCNF_CTRL, |c: reg::ExtcnfCtrl| c.with_mdio_owned(false));
        }
    }

    fn begin_reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Duration {
        let registers = &Registers(mmio);
        registers.write(reg::TADV, MARK);
        if self.shares_mdio() {
            // A reset while the firmware talks to the PHY may hang it: own the bus first, as far as it can be had.
            wait(delay, Duration::from_micros(50), 40, || {
                registers.update(reg::EXTCNF_CTRL, |c: reg::ExtcnfCtrl| c.with_mdio_owned(true));
                registers.read(reg::EXTCNF_CTRL).mdio_owned()
            });
        }
        if self.model.is_pch() {
            pch::before_reset(registers, self.model);
        }
        registers.update(reg::CTRL, |ctrl: Ctrl| ctrl.with_reset(true));
        // Reading the PCH's registers too early hangs the bus.
        if self.model.is_pch() { Duration::from_millis(20) } else { Duration::from_micros(10) }
    }

    fn end_reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error> {
        let registers = &Registers(mmio);
        if !self.wait_for_memory(registers, delay) {
            return Err(Error::Reset { register: "EEC", value: registers.read(reg::EEC).into() });
        }
        if self.model.kind == Kind::I82571 && !registers.read(reg::SWSM2).locked() {
            // A boot agent may have left the semaphore of the two ports' drivers set; this is the first of them (Linux: `e1000_init_mac_params_82571`).
            registers.update(reg::SWSM2, |swsm2: reg::Swsm2| swsm2.with_locked(true));
            registers.write(reg::SWSM, reg::Swsm::new());
        }
        registers.write(reg::IMC, Causes::from(u32::MAX));
        let _acknowledged = registers.read(reg::ICR);
        if self.model.is_pch() {
            pch::after_reset(registers);
        }
        self.hollow.set(registers.read(reg::TADV) == MARK);
        let high = registers.read(reg::RAH0);
        address(registers.read(reg::RAL0), high.high(), high.valid())
    }

    /// Bits that the documents and their errata want set whatever one does.
    fn prepare<M: Mmio>(&self, mmio: &M, setup: &Setup) {
        let registers = &Registers(mmio);
        registers.update(reg::CTRL, |ctrl: Ctrl| {
            ctrl.with_set_link_up(!self.model.serdes)
                .with_force_speed(false)
                .with_force_duplex(false)
                .with_vlan_mode(false)
                .with_receive_flow_control(false)
                .with_transmit_flow_control(false)
                .with_master_disable(false)
                .with_reset(false)
        });
        registers.write(reg::VET, ETHERTYPE_VLAN.into());
        if self.model.kind == Kind::I82574 {
            registers.update(reg::GCR, |gcr| gcr | 1 << 22);
            registers.update(reg::GCR2, |gcr2| gcr2 | 1);
        }
        // Arbitration: Linux's values for each kind. Bits 27 to 30 are clear, 26 and 23 to 25 as the errata ask.
        let set = match self.model.kind {
            Kind::I82571 => 0xF << 23,
            Kind::I82574 => 1 << 26,
            Kind::I82573 => 0,
            Kind::I217 | Kind::I219 => pch::arbitration(self.model),
        };
        registers.update(reg::TARC0, |tarc| tarc & !(0xF << 27) | set);
        if self.model.is_pch() {
            pch::prepare(registers, self.model);
        }
        if let Some(total) = self.model.packet_memory()
            && setup.max_frame > STANDARD_FRAME
        {
            // Half each way: either half holds two jumbo frames.
            registers.write(reg::PBA, total / 2);
        }
        if self.model.kind == Kind::I82573 {
            registers.update(reg::SWSM, |swsm: reg::Swsm| swsm.with_driver_loaded(true));
        }
        interrupts::set_up(setup.wiring, registers, self.model);
    }

    /// Sets up the transmit ring, empty, and starts to transmit.
    fn start_transmit<M: Mmio, D: DmaMemory>(
        &self,
        mmio: &M,
        _queue: usize,
        ring: &Ring<D>,
        _delay: Delay<'_>,
    ) -> Result<(), Error> {
        let registers = &Registers(mmio);
        registers.write_base(reg::TDBA, ring.device_address());
        registers.write(reg::TDLEN, ring.bytes());
        registers.write(reg::TDH, 0);
        registers.write(reg::TDT, 0);
        registers.write(reg::TIDV, 0);
        registers.write(reg::TADV, 0);
        registers.write(reg::TXDCTL, Dctl::new().with_write_back(1).with_count(true).with_granularity(true));
        registers.write(reg::TIPG, Tipg::new().with_transmit(8).with_receive1(8).with_receive2(6));
        registers.update(reg::TCTL, |tctl: Tctl| {
            tctl.with_enable(true)
                .with_pad_short(true)
                .with_collision_threshold(15)
                .with_collision_distance(63)
                .with_retransmit_late(true)
                .with_multiple_requests(true)
        });
        Ok(())
    }

    /// Sets up the receive ring, empty.
    fn start_receive<M: Mmio, D: DmaMemory>(
        &self,
        mmio: &M,
        _queue: usize,
        ring: &Ring<D>,
        _buffer_bytes: u16,
        _delay: Delay<'_>,
    ) -> Result<(), Error> {
        let registers = &Registers(mmio);
        registers.write_base(reg::RDBA, ring.device_address());
        registers.write(reg::RDLEN, ring.bytes());
        registers.write(reg::RDH, 0);
        registers.write(reg::RDT, 0);
        registers.write(reg::RDTR, 0);
        registers.write(reg::RADV, 0);
        registers.write(reg::RXDCTL, Dctl::new().with_write_back(1).with_granularity(true));
        registers.write(reg::RXCSUM, Rxcsum::new().with_ip(true).with_transport(true));
        // Malformed IPv6 extension headers can hang the older ones; without ACK_DIS, QEMU raises an interrupt of its own for
        // each TCP acknowledgement.
        let old = matches!(self.model.kind, Kind::I82571 | Kind::I82573);
        registers.write(
            reg::RFCTL,
            Rfctl::new()
                .with_iscsi_disable(true)
                .with_nfs_write_disable(true)
                .with_nfs_read_disable(true)
                .with_ack_disable(true)
                .with_extended_status(true)
                .with_ipv6_extension_disable(old)
                .with_new_ipv6_extension_disable(old),
        );
        Ok(())
    }

    /// Starts to receive as a bridge port must: every frame, whoever it is for.
    fn enable<M: Mmio>(&self, mmio: &M, setup: &Setup, _delay: Delay<'_>) {
        let registers = &Registers(mmio);
        let whole_pages = buffer_bytes(setup.max_frame) > HALF_PAGE;
        registers.write(
            reg::RCTL,
            Rctl::new()
                .with_enable(true)
                .with_unicast_promiscuous(true)
                .with_multicast_promiscuous(true)
                .with_broadcast(true)
                .with_long_packets(setup.max_frame > STANDARD_FRAME)
                // 2,048 bytes, or 4,096.
                .with_buffer_size(if whole_pages { 3 } else { 0 })
                .with_size_extension(whole_pages)
                .with_discard_pause(true)
                .with_strip_crc(true),
        );
        if self.model.serdes {
            serdes::start(registers);
        }
    }

    fn strip_tags<M: Mmio>(&self, mmio: &M, _queues: usize, on: bool) {
        Registers(mmio).update(reg::CTRL, |ctrl: Ctrl| ctrl.with_vlan_mode(on));
    }
}

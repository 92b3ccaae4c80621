//! Registers as a driver meets them, filters, and a driver's offences. Host.

use std::time::Duration;

use split_driver::fakes::FakeXen;
use split_driver::memory::Mmio;

use super::registers::{self as reg};
use super::*;
use crate::fake::Device;
use crate::queues::tests::{DESCRIPTORS, Queue};
use crate::ring::offset;

const ADDRESS: Address = [0x00, 0x1B, 0x21, 0xAA, 0xBB, 0x01];
/// RCTL: enabled, pages as buffers, the frame check sequence stripped.
const RECEIVE: u32 = reg::RCTL_EN | reg::RCTL_SECRC | 0x203 << 16;

fn device() -> Device<E1000e> {
    let device = Device::new(&FakeXen::new(), E1000e::new(ADDRESS));
    device.write32(reg::CTRL, reg::CTRL_SLU);
    device
}

/// A ring of receive descriptors, all given.
fn receive(device: &Device<E1000e>, control: u32) -> Queue {
    let queue = Queue::new(device, reg::receive(0));
    for index in 0..DESCRIPTORS {
        let [low, high] = queue.page(index);
        queue.put(index, [low, high, 0, 0]);
    }
    device.write32(reg::RFCTL, 0x8000);
    device.write32(queue.first + offset::TAIL, DESCRIPTORS - 1);
    device.write32(reg::RCTL, control);
    queue
}

#[test]
fn a_reset_clears_all_but_the_registers_of_pci_express() {
    let device = device();
    assert_eq!(device.read32(reg::STATUS) & 0xC3, 0x83);
    device.write32(reg::RFCTL, 5);
    device.write32(reg::GCR, 7);
    device.write32(reg::RAL, 0);
    device.write32(reg::IMS, cause::LSC);
    device.write32(reg::CTRL, reg::CTRL_MASTER_DISABLE);
    assert_eq!(device.read32(reg::STATUS) & reg::STATUS_MASTER, 0);
    device.write32(reg::EXTCNF_CTRL, reg::EXTCNF_MDIO);
    device.write32(reg::CTRL, reg::CTRL_RST);
    assert_eq!(device.read32(reg::EEC) & reg::EEC_AUTO_READ, 0);
    device.wait(Duration::from_millis(2));
    assert_ne!(device.read32(reg::EEC) & reg::EEC_AUTO_READ, 0);
    assert_eq!((device.read32(reg::RFCTL) | device.read32(reg::IMS), device.read32(reg::GCR)), (0, 7));
    assert_eq!(device.read32(reg::RAL).to_le_bytes(), ADDRESS[..4]);
    assert_eq!(device.read32(reg::STATUS) & reg::STATUS_LU, 0, "CTRL.SLU is clear");
    assert_eq!(device.misuse(), Vec::<String>::new());
    device.write32(reg::CTRL, reg::CTRL_RST);
    device.read32(reg::RCTL);
    let told =
        ["a reset while firmware may use the bus to the PHY", "register 0x100 was touched within 1 ms of a reset"];
    assert_eq!(device.misuse(), told);
}

#[test]
fn filters_take_what_they_are_told() {
    let device = device();
    let frame = |address: Address| [&address[..], &[0; 54]].concat();
    let group = [1, 0, 0x5E, 0, 0, 1];
    let queue = receive(&device, RECEIVE);
    let rows = [(ADDRESS, 0), ([2; 6], reg::RCTL_UPE), (group, reg::RCTL_MPE), ([0xFF; 6], reg::RCTL_BAM)];
    for (address, bit) in rows {
        device.write32(reg::RCTL, RECEIVE);
        assert_eq!(device.inject(&frame(address)), bit == 0, "{address:?}");
        device.write32(reg::RCTL, RECEIVE | bit);
        assert!(device.inject(&frame(address)), "{address:?}");
    }
    while queue.next(&device).is_some() {}
    // Tags: filtered, stripped.
    let tagged = [&frame(ADDRESS)[..12], &[0x81, 0, 0, 5, 8, 0], &[7; 60]].concat();
    device.write32(reg::RCTL, RECEIVE | reg::RCTL_VFE);
    assert!(!device.inject(&tagged));
    device.write32(reg::VFTA, 1 << 5);
    device.write32(reg::CTRL, reg::CTRL_SLU | reg::CTRL_VME);
    assert!(device.inject(&tagged));
    let (taken, words) = queue.next(&device).expect("a frame");
    assert_eq!((taken.len(), words[2] & 8, words[3] >> 16), (tagged.len() - 4, 8, 5));
    // Longer than 1,522 bytes.
    assert!(!device.inject(&[&ADDRESS[..], &[0; 1513]].concat()));
    device.write32(reg::RCTL, RECEIVE | reg::RCTL_LPE);
    assert!(device.inject(&[&ADDRESS[..], &[0; 1513]].concat()));
    assert_eq!((device.read32(reg::count::ROC), device.read32(reg::count::ROC)), (1, 0));
    assert_eq!(device.misuse(), Vec::<String>::new());
}

#[test]
fn frames_wait_in_packet_memory_and_are_missed_when_it_is_full() {
    let device = device();
    device.write32(reg::IMS, cause::OVERRUN);
    device.interrupt_by(Interrupt::Msi);
    let queue = receive(&device, RECEIVE);
    let frame = [&ADDRESS[..], &[9; 994]].concat();
    let taken = (0..200).take_while(|_| device.inject(&frame)).count();
    assert_eq!(taken, DESCRIPTORS as usize - 1 + (20 << 10) / 1000);
    assert_eq!((device.read32(reg::count::MPC), device.messages()), (1, vec![0]));
    let received = std::iter::from_fn(|| queue.next(&device)).count();
    assert_eq!(received, taken);
}

#[test]
fn rings_are_not_moved_under_the_device() {
    let device = device();
    let queue = receive(&device, RECEIVE);
    assert_eq!(device.misuse(), Vec::<String>::new());
    device.write32(queue.first + offset::BASE, 0);
    device.write32(queue.first + offset::TAIL, DESCRIPTORS);
    assert_eq!(device.misuse(), ["a ring was moved while its queue is enabled", "a tail of 64 in a ring of 64"]);
    let [low, high] = queue.page(0);
    queue.put(0, [low, high, 1, 0]);
    device.inject(&[&ADDRESS[..], &[9; 100]].concat());
    assert_eq!(device.misuse()[2..], ["a receive descriptor was posted as done"]);
}

#[test]
fn messages_clear_and_disable_their_causes() {
    let device = device();
    device.write32(reg::IVAR, 0x000A_0908);
    device.write32(reg::EIAC, cause::RECEIVE_QUEUE | cause::TRANSMIT_QUEUE);
    device.write32(reg::IAM, cause::RECEIVE_QUEUE);
    device.write32(reg::CTRL_EXT, reg::CTRL_EXT_EIAME);
    let all = cause::RECEIVE_QUEUE | cause::TRANSMIT_QUEUE | cause::OTHER;
    device.write32(reg::IMC, u32::MAX);
    device.read32(reg::ICR);
    device.write32(reg::IMS, all);
    device.write32(reg::ICS, cause::LSC | cause::RECEIVE_QUEUE | cause::TRANSMIT_QUEUE);
    assert_eq!(device.messages(), [0, 1, 2]);
    assert_eq!(device.read32(reg::IMS), all & !cause::RECEIVE_QUEUE);
    assert_eq!(device.read32(reg::ICR) & 0x7FFF_FFFF, cause::LSC | cause::OTHER, "kept until it is written");
    device.write32(reg::ICS, cause::OTHER);
    assert_eq!(device.messages(), [0u16; 0], "still pending");
    device.write32(reg::ICR, cause::OTHER | cause::LSC);
    device.write32(reg::ICS, cause::OTHER | cause::RECEIVE_QUEUE);
    assert_eq!(device.messages(), [2]);
    device.write32(reg::IMS, cause::RECEIVE_QUEUE);
    assert_eq!(device.messages(), [0], "pending when it is enabled");
}

#[test]
fn the_line_falls_when_the_causes_are_read() {
    let device = device();
    device.interrupt_by(Interrupt::Line(true));
    device.read32(reg::ICR);
    device.write32(reg::CTRL_EXT, reg::CTRL_EXT_IAME);
    device.write32(reg::IAM, cause::LSC);
    device.write32(reg::IMS, cause::LSC | cause::RECEIVED);
    device.set_link(false);
    assert!(device.line());
    assert_eq!(device.read32(reg::ICR), cause::LSC | cause::ASSERTED);
    assert_eq!((device.line(), device.read32(reg::IMS)), (false, cause::RECEIVED));
    device.set_link(true);
    assert!(!device.line(), "disabled");
    assert_eq!(device.read32(reg::ICR), cause::LSC);
    device.write32(reg::IMC, u32::MAX);
    assert_eq!((device.read32(reg::ICR), device.read32(reg::ICR)), (cause::LSC, 0));
}

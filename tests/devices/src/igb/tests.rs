//! Registers as a driver meets them, and its offences. Frames are the matter of the tests with netdom's driver. Host.

use std::time::Duration;

use split_driver::fakes::FakeXen;
use split_driver::memory::Mmio;

use super::registers::{self as reg};
use super::*;
use crate::advanced::{Errors, status};
use crate::fake::Device;
use crate::packet::tests::Recipe;
use crate::queues::tests::{DESCRIPTORS, Queue};
use crate::ring::{ENABLE, offset};

const ADDRESS: Address = [0x00, 0x1B, 0x21, 0xAA, 0xBB, 0x01];

fn device(kind: Kind) -> Device<Igb> {
    Device::new(&FakeXen::new(), Igb::new(kind, ADDRESS))
}

fn mdic(device: &Device<Igb>, command: u32) -> u32 {
    device.write32(reg::SW_FW_SYNC, reg::SW_FW_SYNC_PHY);
    device.write32(reg::MDIC, command);
    assert_eq!(device.read32(reg::MDIC) & reg::MDIC_READY, 0);
    device.wait(Duration::from_micros(100));
    let value = device.read32(reg::MDIC);
    assert_ne!(value & reg::MDIC_READY, 0);
    value
}

#[test]
fn a_reset_clears_all_but_the_phy_and_the_semaphores() {
    for kind in Kind::ALL {
        let device = device(kind);
        device.wait(Duration::from_secs(1));
        assert_eq!(device.read32(reg::STATUS) & reg::STATUS_LU, 0, "CTRL.SLU is clear");
        device.write32(reg::IMS, cause::LSC);
        device.write32(reg::CTRL, reg::CTRL_SLU);
        assert_eq!(device.read32(reg::STATUS) & 0xC3, 0x83);
        assert_eq!(device.read32(reg::ICR), cause::LSC | cause::ASSERTED);
        device.write32(reg::RCTL, reg::RCTL_EN);
        device.write32(0x2808, 4096);
        device.write32(reg::RAL, 0);
        assert_eq!(device.read32(reg::receive(0) + offset::LENGTH), 4096, "the old address");
        device.read32(reg::SWSM);
        device.write32(reg::CTRL, reg::CTRL_MASTER_DISABLE);
        assert_eq!(device.read32(reg::STATUS) & reg::STATUS_MASTER, 0);
        device.write32(reg::CTRL, reg::CTRL_RST);
        assert_ne!(device.read32(reg::CTRL) & reg::CTRL_RST, 0);
        assert_eq!(device.read32(reg::EEC) & reg::EEC_AUTO_READ, 0);
        device.wait(Duration::from_millis(2));
        assert_eq!(device.read32(reg::CTRL) & reg::CTRL_RST, 0);
        assert_ne!(device.read32(reg::EEC) & reg::EEC_AUTO_READ, 0);
        assert_eq!(device.read32(reg::RCTL) | device.read32(0x2808) | device.read32(reg::IMS), 0);
        assert_eq!(device.read32(reg::RAL).to_le_bytes(), ADDRESS[..4]);
        assert_eq!(device.read32(reg::SWSM) & 1, 1, "it is still taken");
        device.write32(reg::CTRL, reg::CTRL_SLU);
        assert_ne!(device.read32(reg::STATUS) & reg::STATUS_LU, 0, "the PHY kept its link");
        assert_eq!(device.misuse(), Vec::<String>::new());
    }
}

#[test]
fn a_reset_of_all_ports_is_told() {
    for kind in Kind::ALL {
        let device = device(kind);
        device.write32(reg::CTRL, reg::CTRL_DEV_RST);
        device.wait(Duration::from_millis(2));
        let resets = kind != Kind::I82576;
        assert_eq!(device.read32(reg::STATUS) & reg::STATUS_DEV_RST_SET != 0, resets);
        assert_eq!(device.read32(reg::ICR) & cause::DEVICE_RESET != 0, resets);
        device.write32(reg::STATUS, reg::STATUS_DEV_RST_SET);
        assert_eq!(device.read32(reg::STATUS) & reg::STATUS_DEV_RST_SET, 0);
    }
}

#[test]
fn the_phy_is_behind_mdic() {
    for kind in Kind::ALL {
        let device = device(kind);
        device.write32(reg::CTRL, reg::CTRL_SLU);
        device.wait(Duration::from_secs(1));
        assert_eq!(mdic(&device, 2 << 26 | 1 << 21 | 1 << 16) & 0x24, 0x24, "a link");
        let elsewhere = mdic(&device, 2 << 26 | 2 << 21 | 1 << 16);
        assert_eq!(elsewhere & reg::MDIC_ERROR != 0, kind == Kind::I82576, "address 2");
        // Powered down, and up again.
        device.write32(reg::IMS, cause::LSC);
        device.read32(reg::ICR);
        mdic(&device, 1 << 26 | 1 << 21 | 1 << 11);
        assert_eq!(
            (device.read32(reg::STATUS) & reg::STATUS_LU, device.read32(reg::ICR) & cause::LSC),
            (0, cause::LSC)
        );
        mdic(&device, 1 << 26 | 1 << 21 | 0x1200);
        assert_eq!(device.read32(reg::STATUS) & reg::STATUS_LU, 0, "not yet");
        let due = device.with_model(|model| model.poll_time());
        device.wait(Duration::from_millis(10));
        assert!(due.is_some() && device.with_model(|model| model.poll_time()).is_none());
        assert_eq!(device.read32(reg::ICR) & cause::LSC, cause::LSC, "the link came by itself");
        device.write32(reg::CTRL, reg::CTRL_SLU | reg::CTRL_PHY_RST);
        device.write32(reg::CTRL, reg::CTRL_SLU);
        assert_eq!(device.read32(reg::STATUS) & (reg::STATUS_LU | reg::STATUS_PHYRA), reg::STATUS_PHYRA);
        assert_eq!(device.misuse(), Vec::<String>::new());
        device.write32(reg::MDIC, 2 << 26 | 1 << 21);
        device.write32(reg::MDIC, 2 << 26 | 1 << 21);
        assert_eq!(device.misuse(), ["MDIC was written before it was ready"]);
    }
}

#[test]
fn the_eeprom_is_read_and_semaphores_are_taken() {
    for kind in Kind::ALL {
        let device = device(kind);
        let word = |address: u32| {
            device.write32(reg::EERD, address << 2 | 1);
            device.read32(reg::EERD)
        };
        let sum = (0..0x40).fold(0u16, |sum, address| sum.wrapping_add((word(address) >> 16) as u16));
        assert_eq!((sum, word(0x0D) >> 16), (0xBABA, u32::from(kind.identity().device)));
        assert_eq!((device.read32(reg::SWSM) & 1, device.read32(reg::SWSM) & 1), (0, 1));
        device.write32(reg::SWSM, reg::SWSM_SMBI | reg::SWSM_SWESMBI);
        assert_eq!(device.read32(reg::SWSM) & 3, 3);
        device.write32(reg::EEC, 1 << 6);
        assert_eq!(device.read32(reg::EEC) & 0x3C0, 0x3C0, "the wires are granted");
        assert_eq!(device.read32(reg::EEC) & reg::EEC_FLASH != 0, kind == Kind::I210);
        device.with_model(|model| model.faults().eeprom_stuck = true);
        assert_eq!(word(0) & 2, 0);
    }
}

#[test]
fn offences_are_told() {
    let device = device(Kind::I350);
    let offends = |act: &dyn Fn(), told: &str| {
        act();
        let misuse = device.misuse();
        assert_eq!(misuse.last().map(String::as_str), Some(told), "{misuse:?}");
    };
    device.write32(reg::CTRL, reg::CTRL_RST);
    offends(&|| device.write32(reg::RCTL, 0), "register 0x100 was touched within 1 ms of a reset");
    device.wait(Duration::from_millis(2));
    offends(
        &|| device.write32(reg::transmit(8) + offset::TAIL, 0),
        "a register of Transmit queue 8, which is not there",
    );
    let rx = reg::receive(7);
    device.write32(rx + reg::SRRCTL, 1 << 25);
    offends(&|| device.write32(rx + offset::CONTROL, ENABLE), "SRRCTL.BSIZEPACKET is not of 1 to 127 KB");
    assert!(device.misuse().contains(&"a ring without descriptors was enabled".to_owned()));
    offends(&|| device.write32(rx + offset::TAIL, 9), "a tail of 9 in a ring of 0");
    offends(&|| device.write32(rx + offset::BASE, 0x1000), "a ring was moved while its queue is enabled");
    device.write32(reg::SW_FW_SYNC, reg::SW_FW_SYNC_PHY);
    offends(&|| device.write32(reg::MDIC, 3 << 26), "an operation of MDIC that is reserved");
    device.write32(reg::SW_FW_SYNC, 0);
    device.wait(Duration::from_millis(1));
    offends(
        &|| device.write32(reg::MDIC, 2 << 26 | 1 << 21),
        "the PHY was spoken to without its semaphore in SW_FW_SYNC",
    );
    device.set_bus_master(false);
    offends(
        &|| device.write32(reg::transmit(1) + offset::CONTROL, ENABLE),
        "a queue was enabled while bus mastering is off",
    );
}

/// A card that receives into its first queue.
fn receiving(kind: Kind, control: u32) -> (Device<Igb>, Queue) {
    let device = device(kind);
    device.write32(reg::CTRL, reg::CTRL_SLU);
    device.wait(Duration::from_secs(1));
    device.write32(reg::RCTL, reg::RCTL_EN | control);
    let queue = Queue::new(&device, reg::receive(0));
    device.write32(queue.first + reg::SRRCTL, 2 | 1 << 25);
    for index in 0..DESCRIPTORS {
        let [low, high] = queue.page(index);
        queue.put(index, [low, high, 0, 0]);
    }
    device.write32(queue.first + offset::CONTROL, ENABLE);
    device.write32(queue.first + offset::TAIL, DESCRIPTORS - 1);
    (device, queue)
}

#[test]
fn filters_of_addresses_and_vlans() {
    for kind in Kind::ALL {
        let (device, _queue) = receiving(kind, 0);
        let to = |address: [u8; 6]| [&address[..], &[0; 54]].concat();
        let (other, group, all) = ([2, 0, 0, 0, 0, 1], [1, 0, 0x5E, 0, 0, 1], [0xFF; 6]);
        assert!(device.inject(&to(ADDRESS)));
        let with = |control: u32| {
            device.write32(reg::RCTL, reg::RCTL_EN | control);
            [other, group, all].map(|address| device.inject(&to(address)))
        };
        assert_eq!(with(0), [false; 3]);
        assert_eq!(with(reg::RCTL_UPE), [true, false, false]);
        assert_eq!(with(reg::RCTL_MPE), [false, true, false]);
        assert_eq!(with(reg::RCTL_BAM), [false, false, true]);
        // The last address, and bits 47 to 36 of the group's.
        let last = reg::ral(kind.addresses() - 1);
        device.write32(last, 2);
        device.write32(last + 4, 0x0100 | reg::RAH_AV);
        device.write32(reg::MTA, 1 << 16);
        assert_eq!(with(0), [true, true, false]);
        let tagged = Recipe { vlan: Some(5), ..Recipe::default() }.frame(ADDRESS);
        assert!(device.inject(&tagged));
        device.write32(reg::RCTL, reg::RCTL_EN | reg::RCTL_VFE);
        assert!(!device.inject(&tagged) && device.inject(&to(ADDRESS)));
        device.write32(reg::VFTA, 1 << 5);
        assert!(device.inject(&tagged));
        device.write32(reg::RCTL, 0);
        assert!(!device.inject(&to(ADDRESS)));
        assert_eq!(device.misuse(), Vec::<String>::new());
    }
}

#[test]
fn tags_checks_and_lengths_follow_their_bits() {
    let (device, queue) = receiving(Kind::I210, reg::RCTL_SECRC);
    let next = |frame: &[u8]| device.inject(frame).then(|| queue.next(&device).expect("a frame"));
    let tagged = Recipe { vlan: Some(0x2005), ..Recipe::default() }.frame(ADDRESS);
    let plain = Recipe::default().frame(ADDRESS);
    assert_eq!(next(&tagged).map(|(got, words)| (got, words[2] & status::VP)), Some((tagged.clone(), 0)));
    device.write32(reg::CTRL, reg::CTRL_SLU | reg::CTRL_VME);
    let (got, words) = next(&tagged).expect("a frame");
    assert_eq!((got, words[2] & status::VP, words[3] >> 16), (plain.clone(), status::VP, 0x2005));
    let mut bad = plain.clone();
    bad[14 + 8] ^= 1;
    let checks = |control: u32| {
        device.write32(reg::RXCSUM, control);
        next(&bad).map(|(_, words)| words[2] & !3)
    };
    let (ip, l4) = (status::IPCS | Errors::I82576.network, status::L4CS);
    assert_eq!(checks(reg::RXCSUM_IPOFLD | reg::RXCSUM_TUOFLD), Some(ip | l4));
    assert_eq!((checks(reg::RXCSUM_IPOFLD), checks(reg::RXCSUM_TUOFLD), checks(0)), (Some(ip), Some(l4), Some(0)));
    device.write32(reg::RCTL, reg::RCTL_EN);
    assert_eq!(next(&plain).map(|(got, _)| got.len()), Some(plain.len() + 4), "the frame check sequence is there");
    let long = |length: usize| [&ADDRESS[..], &vec![0; length - 6]].concat();
    assert!(next(&long(1514)).is_some() && next(&long(1515)).is_none());
    device.write32(reg::RCTL, reg::RCTL_EN | reg::RCTL_LPE);
    device.write32(reg::RLPML, 4000);
    assert!(next(&long(3996)).is_some() && next(&long(3997)).is_none());
    assert_eq!((device.read32(reg::count::ROC), device.read32(reg::count::ROC)), (2, 0));
    assert_eq!(device.misuse(), Vec::<String>::new());
}

#[test]
fn what_is_sent_and_lost_is_counted() {
    let (device, receive) = receiving(Kind::I82576, reg::RCTL_SECRC);
    let transmit = Queue::new(&device, reg::transmit(0));
    device.write32(transmit.first + offset::CONTROL, ENABLE);
    let send = |length: u32| {
        let index = transmit.tail.get();
        transmit.write(index, &ADDRESS);
        let [low, high] = transmit.page(index);
        transmit.put(index, [low, high, 0x2B30_0000 | length, length << 14]);
        transmit.tail.set(index + 1);
        device.write32(transmit.first + offset::TAIL, index + 1);
        device.sent().map(|frame| frame.len())
    };
    assert_eq!(send(60), None, "TCTL.EN is clear");
    device.write32(reg::TCTL, reg::TCTL_EN | reg::TCTL_PSP);
    assert_eq!(device.sent().map(|frame| frame.len()), Some(60));
    assert_eq!(send(40), Some(60), "padded");
    let counted = [reg::count::GPTC, reg::count::TPT, reg::count::GOTC, reg::count::TOT];
    assert_eq!(counted.map(|counter| device.read32(counter)), [2, 2, 128, 128]);
    assert_eq!(counted.map(|counter| device.read32(counter)), [0; 4]);
    device.write32(reg::RCTL, reg::RCTL_EN | reg::RCTL_SECRC | reg::RCTL_LBM);
    assert_eq!(send(61), None, "looped back");
    assert_eq!(receive.next(&device).map(|(frame, _)| frame.len()), Some(61));
    // Packet memory fills where queues do not drop.
    let long = [&ADDRESS[..], &[0; 1500]].concat();
    let taken = (0..1000).take_while(|_| device.inject(&long)).count();
    assert_eq!(taken, 64 - 1 + (64 << 10) / long.len());
    assert_eq!((device.read32(reg::count::MPC), device.read32(reg::ICR) & cause::MISSED), (1, cause::MISSED));
    assert_eq!(std::iter::from_fn(|| receive.next(&device)).count(), taken);
    // Where they do, RQDPC counts, up to 12 bits.
    device.write32(receive.first + reg::SRRCTL, 2 | 1 << 25 | reg::SRRCTL_DROP);
    for _ in 0..5000 {
        assert!(device.inject(&long));
    }
    let counter = receive.first + reg::RQDPC;
    assert_eq!((device.read32(counter), device.read32(counter)), (0xFFF, 0));
    device.write32(reg::RCTL, 0);
    assert_eq!(send(62), Some(62));
    device.write32(reg::CTRL, reg::CTRL_SLU | reg::CTRL_MASTER_DISABLE);
    assert_eq!(send(63), None, "master disable");
    assert_eq!(device.misuse(), Vec::<String>::new());
}

#[test]
fn a_packet_longer_than_it_sends_is_told() {
    let (device, _receive) = receiving(Kind::I350, 0);
    let transmit = Queue::new(&device, reg::transmit(0));
    device.write32(transmit.first + offset::CONTROL, ENABLE);
    device.write32(reg::TCTL, reg::TCTL_EN | reg::TCTL_PSP);
    for (index, length) in (0..).zip([9728, 9729]) {
        let [low, high] = transmit.page(4 * index);
        transmit.put(index, [low, high, 0x2B30_0000 | length, length << 14]);
        device.write32(transmit.first + offset::TAIL, index + 1);
    }
    assert_eq!((device.sent().map(|frame| frame.len()), device.sent()), (Some(9728), None));
    assert_eq!(device.misuse(), ["a packet longer than 9728 bytes that is not segmented"]);
}

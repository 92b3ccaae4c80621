//! Flow control: from where on pause frames are sent, and what the MAC does about them. Pure. Floor 3.

use super::models::{Kind, Model};
use super::registers::{self as reg, Ctrl, Registers};
use super::{pch, phy, serdes};
use crate::nic::ledger::Ledger;
use crate::nic::pause::{Marks, Pause};
use split_driver::memory::Mmio;

/// Has the MAC do about pause frames what was negotiated (82574 datasheet 3.2.7). `None` where another owner has the bus to the PHY now.
pub(super) fn settle<M: Mmio>(
    registers: &Registers<'_, M>,
    model: &Model,
    ledger: &Ledger,
    max_frame: usize,
) -> Option<Pause> {
    if model.is_pch() {
        pch::listen_for_beacon(registers);
    }
    let pause = if model.serdes { serdes::negotiated(registers) } else { phy::negotiated(registers, model, ledger)? };
    // Linux's: of the PCHs' buffer of 26 KiB; otherwise one frame stays free.
    let marks = match model.kind {
        Kind::I217 | Kind::I219 => Some(Marks { high: 0x5C20, low: 0x5048 }),
        Kind::I82571 | Kind::I82573 | Kind::I82574 => {
            let buffer = (registers.read(reg::PBA) & 0xFFFF) << 10;
            Marks::gigabit(buffer, 1, max_frame + 4)
        }
    };
    if model.is_pch() {
        registers.write(reg::FCRTV, 0xFFFF);
    }
    apply(registers.0, "e1000e", pause, marks);
    Some(pause)
}

/// Has the MAC obey and send pause frames; they are sent only between marks. The 82576 and its successors have the same registers.
pub(in crate::nic) fn apply<M: Mmio>(mmio: &M, driver: &str, pause: Pause, marks: Option<Marks>) {
    let registers = Registers(mmio);
    let marks = marks.filter(|_| pause.send);
    registers.write(reg::FCAL, 0x00C2_8001);
    registers.write(reg::FCAH, 0x0000_0100);
    registers.write(reg::FCT, 0x8808);
    registers.write(reg::FCTTV, 0xFFFF);
    registers.write(reg::FCRTL, marks.map_or(0, |marks| marks.low | reg::SEND_XON));
    registers.write(reg::FCRTH, marks.map_or(0, |marks| marks.high));
    registers.update(reg::CTRL, |ctrl: Ctrl| {
        ctrl.with_receive_flow_control(pause.obey).with_transmit_flow_control(marks.is_some())
    });
    log::info!("{driver}: flow control: pause frames are obeyed: {}, sent: {}", pause.obey, marks.is_some());
}

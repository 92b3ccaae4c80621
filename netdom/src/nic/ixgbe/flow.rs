//! Flow control: what is advertised, what comes of it, and from where on pause frames are sent (82599 datasheet 3.7.7). Pure. Floor 3.

use super::mdio::{self, ADVERTISEMENT, NEGOTIATION, PARTNER};
use super::models::{Kind, Model};
use super::registers as reg;
use crate::nic::pause::{Abilities, Marks, Pause};
use crate::nic::semaphores::Semaphores;
use split_driver::memory::Mmio;

/// The time of a pause, in units of 512 bits.
const TIME: u32 = 0xFFFF;

/// Has the MAC advertise pause frames, for links that come up from now on. A copper PHY does so by itself.
pub(super) fn advertise<M: Mmio>(mmio: &M, model: &Model) {
    let Abilities { symmetric, asymmetric } = Abilities::LOCAL;
    match model.kind {
        Kind::I82599 => reg::AUTOC
            .update(mmio, 0, |control: reg::Autoc| control.with_symmetric(symmetric).with_asymmetric(asymmetric)),
        Kind::I82599Fibre => reg::PCS1GANA
            .update(mmio, 0, |ability: reg::Pcs1gana| ability.with_symmetric(symmetric).with_asymmetric(asymmetric)),
        Kind::I82599Copper | Kind::X540 | Kind::X550 => {}
    }
}

/// What the two ends agree on: both directions where fibre or a backplane does not negotiate, none where a PHY does not answer. `None` where
/// another owner has the PHY now.
fn negotiated<M: Mmio>(mmio: &M, model: &Model, semaphores: &Semaphores) -> Option<Pause> {
    let (here, there) = match model.kind {
        Kind::I82599 => {
            if !reg::LINKS.read(mmio, 0).negotiated() || !reg::LINKS2.read(mmio, 0).partner_negotiates() {
                return Some(Pause::BOTH);
            }
            let (here, there) = (reg::AUTOC.read(mmio, 0), reg::ANLP1.read(mmio, 0));
            (
                Abilities { symmetric: here.symmetric(), asymmetric: here.asymmetric() },
                Abilities { symmetric: there.symmetric(), asymmetric: there.asymmetric() },
            )
        }
        Kind::I82599Fibre => {
            let state = reg::PCS1GLSTA.read(mmio, 0);
            if !state.negotiated() || state.timed_out() {
                return Some(Pause::BOTH);
            }
            let ability =
                |ability: reg::Pcs1gana| Abilities { symmetric: ability.symmetric(), asymmetric: ability.asymmetric() };
            (ability(reg::PCS1GANA.read(mmio, 0)), ability(reg::PCS1GANLP.read(mmio, 0)))
        }
        Kind::I82599Copper | Kind::X540 | Kind::X550 => {
            let abilities = semaphores.try_hold(mmio, mdio::bit(mmio), &mut |_| (), |delay| {
                let mut ability = |register| mdio::read(mmio, NEGOTIATION, register, delay).map(Abilities::of_word);
                Some((ability(ADVERTISEMENT)?, ability(PARTNER)?))
            })?;
            abilities.unwrap_or_default()
        }
    };
    Some(Pause::resolve(here, there))
}

/// Where pause frames begin and end: what both ends, the cable and the bus may still bring in after one fits above the high mark (82599
/// datasheet 3.7.7.3.6 and IEEE 802.1Q, annex O; Linux: `ixgbe_hpbthresh`, `ixgbe_lpbthresh`). `None` where the buffer is too small.
fn marks(buffer: u32, model: &Model, frame: u32) -> Option<Marks> {
    // Bit times of 10 Gbit/s: the interfaces of both ends and their PHYs; the cable; the other end's reaction; the higher layer.
    let interface = match model.kind {
        Kind::X540 | Kind::X550 => 8192 + 2 * 2048 + 25_600,
        Kind::I82599 | Kind::I82599Copper | Kind::I82599Fibre => 4096 + 2 * 1024 + 12_800,
    };
    let (cable, reaction, layer, bus) = (5556, 672, 6144, 10_000);
    // With preamble and gap.
    let wire = 8 * (frame + 20);
    let high = 36 * (wire + reaction + 2 * cable + 2 * interface + layer) / 25 + 1 + 2 * wire;
    let low = 2 * 8 * frame + 36 * bus / 25 + 1;
    let low = if matches!(model.kind, Kind::X540 | Kind::X550) { low } else { 2 * low };
    let kibibytes = |bits: u32| bits.div_ceil(8 << 10) << 10;
    let marks = Marks { high: buffer.checked_sub(kibibytes(high))?, low: kibibytes(low) };
    Some(marks).filter(|marks| marks.low < marks.high)
}

/// Has the MAC do about pause frames what was negotiated. `None` where another owner has the PHY now.
pub(super) fn settle<M: Mmio>(mmio: &M, model: &Model, semaphores: &Semaphores, max_frame: usize) -> Option<Pause> {
    let pause = negotiated(mmio, model, semaphores)?;
    // At most 9,728.
    let marks = marks(reg::RXPBSIZE.read(mmio, 0), model, max_frame as u32 + 4).filter(|_| pause.send);
    reg::FCCFG.write(mmio, 0, 0);
    reg::FCRTL.write(mmio, 0, marks.map_or(0, |marks| marks.low | reg::SEND_XON));
    reg::FCRTH.write(mmio, 0, marks.map_or(0, |marks| marks.high | reg::SEND_XOFF));
    reg::FCTTV.write(mmio, 0, TIME << 16 | TIME);
    reg::FCRTV.write(mmio, 0, TIME / 2);
    reg::MFLCN.update(mmio, 0, |control: reg::Mflcn| control.with_discard_pause(true).with_obey(pause.obey));
    reg::FCCFG.write(mmio, 0, if marks.is_some() { reg::SEND_PAUSE } else { 0 });
    log::info!("ixgbe: flow control: pause frames are obeyed: {}, sent: {}", pause.obey, marks.is_some());
    Some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_lie_in_the_packet_buffer() {
        let kind = |device| Model::find(0x8086, device).expect("a model");
        for (device, buffer) in [(0x10FB, 512 << 10), (0x1528, 384 << 10)] {
            for frame in [1522, 9728] {
                let Marks { high, low } = marks(buffer, kind(device), frame).expect("room");
                assert!(0 < low && low < high && high < buffer && buffer - high > 2 * frame);
                assert_eq!((low % 1024, high % 1024), (0, 0));
            }
        }
        assert_eq!(marks(512 << 10, kind(0x10FB), 1522), Some(Marks { high: 497 << 10, low: 10 << 10 }));
        assert_eq!(marks(16 << 10, kind(0x1528), 9728), None);
    }
}

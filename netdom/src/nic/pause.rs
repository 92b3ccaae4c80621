//! Flow control: which pause frames are obeyed and sent (IEEE 802.3, annexes 28B and 31B). Pure. Floor 3.
//!
//! Both ends of a link advertise what they can; what comes of it is settled each time the link comes up. Received pause frames stop the
//! transmitter, up to the time that they name. Pause frames are sent where the device's own packet buffer fills, which is where the bus
//! does not keep up. A queue of igb and ixgbe without descriptors drops its frames, so that one guest that takes nothing stops no other. The
//! e1000e family knows no such drop: there the buffer also fills where netdom is slower than the wire.

/// What an end of a link advertises (IEEE 802.3, table 28B-2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// PAUSE: in both directions.
    pub(super) symmetric: bool,
    /// `ASM_DIR`: in one direction.
    pub(super) asymmetric: bool,
}

impl Abilities {
    /// What is advertised here.
    pub(super) const LOCAL: Self = Self { symmetric: true, asymmetric: true };
    /// PAUSE and `ASM_DIR` in a PHY's registers 4 and 5 (IEEE 802.3, table 28B-2), and in 7.16 and 7.19 of one of clause 45.
    pub(super) const BITS: u16 = Self::SYMMETRIC | 1 << 11;
    const SYMMETRIC: u16 = 1 << 10;

    /// From such a register.
    pub(super) const fn of_word(word: u16) -> Self {
        Self { symmetric: word & Self::SYMMETRIC != 0, asymmetric: word & Self::BITS & !Self::SYMMETRIC != 0 }
    }
}

/// What is done about pause frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Those received are obeyed.
    pub obey: bool,
    /// They are sent.
    pub send: bool,
}

impl Pause {
    /// In both directions: where nothing is negotiated.
    pub(super) const BOTH: Self = Self { obey: true, send: true };

    /// None on a half-duplex link (IEEE 802.3, 31B.1).
    pub(super) const fn on_duplex(self, full: bool) -> Self {
        if full { self } else { Self { obey: false, send: false } }
    }

    /// What the two ends agree on, here (IEEE 802.3, table 28B-3).
    pub(super) const fn resolve(here: Abilities, there: Abilities) -> Self {
        match (here.symmetric, here.asymmetric, there.symmetric, there.asymmetric) {
            (true, _, true, _) => Self::BOTH,
            (true, true, false, true) => Self { obey: true, send: false },
            (false, true, true, true) => Self { obey: false, send: true },
            _ => Self { obey: false, send: false },
        }
    }
}

/// Bytes in a receive packet buffer from which on pause frames are sent, and down to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) high: u32,
    pub(super) low: u32,
}

impl Marks {
    /// For a buffer of `buffer` bytes at up to 1 Gbit/s: room for `frames` of the largest, `frame` bytes each, or a tenth, stays above the
    /// high mark (Linux: `igb_reset`, `e1000e_reset`). `None` where there is none.
    pub(super) fn gigabit(buffer: u32, frames: u32, frame: usize) -> Option<Self> {
        let room = frames.checked_mul(u32::try_from(frame).ok()?)?;
        let high = (buffer / 10 * 9).min(buffer.checked_sub(room)?) & !0xF;
        Some(Self { high, low: high.checked_sub(16).filter(|low| *low > 0)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_come_to_results_that_fit() {
        // Table 28B-3, row by row: here, there, obeyed here, sent here.
        let table: &[(u8, u8, bool, bool)] = &[
            (0b00, 0b11, false, false),
            (0b01, 0b00, false, false),
            (0b01, 0b01, false, false),
            (0b01, 0b10, false, false),
            (0b01, 0b11, false, true),
            (0b10, 0b00, false, false),
            (0b10, 0b01, false, false),
            (0b10, 0b10, true, true),
            (0b10, 0b11, true, true),
            (0b11, 0b00, false, false),
            (0b11, 0b01, true, false),
            (0b11, 0b10, true, true),
            (0b11, 0b11, true, true),
        ];
        let abilities = |bits: u8| Abilities { symmetric: bits & 2 != 0, asymmetric: bits & 1 != 0 };
        for &(here, there, obey, send) in table {
            assert_eq!(Pause::resolve(abilities(here), abilities(there)), Pause { obey, send }, "{here:b} {there:b}");
        }
        for (here, there) in (0..4).flat_map(|here| (0..4).map(move |there| (here, there))) {
            let near = Pause::resolve(abilities(here), abilities(there));
            let far = Pause::resolve(abilities(there), abilities(here));
            assert_eq!((near.obey, near.send), (far.send, far.obey), "{here:b} {there:b}");
        }
    }

    #[test]
    fn marks_leave_room_for_frames() {
        assert_eq!(Marks::gigabit(64 << 10, 2, 1522), Some(Marks { high: 58976, low: 58960 }));
        assert_eq!(Marks::gigabit(34 << 10, 2, 9728), Some(Marks { high: 15360, low: 15344 }));
        assert_eq!(Marks::gigabit(8 << 10, 2, 9728), None);
        assert_eq!(Marks::gigabit(0, 0, 1522), None);
    }
}

//! What an SFP+ module says of itself in the first 64 bytes of its memory (SFF-8472, table 4-1). Pure. Floor 3.

use core::fmt;

/// Where its memory is on the bus (SFF-8472 4.1).
pub(super) const ADDRESS: u8 = 0xA0;
/// Bytes that are read, up to their checksum.
pub(super) const BYTES: usize = 64;

/// Byte 0: an SFP or SFP+ (SFF-8024, table 4-1).
const SFP: u8 = 3;

/// What it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ShortReach,
    LongReach,
    LongReachMultimode,
    ExtendedReach,
    PassiveCable,
    ActiveCable,
    /// An active cable that limits what it receives, as optics do.
    LimitingCable,
    Copper,
    ShortWave,
    LongWave,
    /// None of these.
    Unknown,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::ShortReach => "10GBASE-SR",
            Self::LongReach => "10GBASE-LR",
            Self::LongReachMultimode => "10GBASE-LRM",
            Self::ExtendedReach => "10GBASE-ER",
            Self::PassiveCable => "direct attach, passive",
            Self::ActiveCable => "direct attach, active",
            Self::LimitingCable => "direct attach, active and limiting",
            Self::Copper => "1000BASE-T",
            Self::ShortWave => "1000BASE-SX",
            Self::LongWave => "1000BASE-LX",
            Self::Unknown => "unknown kind",
        }
    }
}

/// A module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) kind: Kind,
    /// Optics that work at 1 Gbit/s as well.
    pub(super) both_speeds: bool,
    /// CC_BASE is the sum of the bytes before it.
    pub(super) intact: bool,
    vendor: [u8; 16],
    part: [u8; 16],
}

impl Module {
    /// From its first bytes. The vendor is not asked for: its kind does not depend on it.
    pub(super) fn parse(bytes: &[u8; BYTES]) -> Self {
        let [identifier, _, _, ten, _, _, one, _, cable, ..] = *bytes;
        let (sr, lr) = (ten & 1 << 4 != 0, ten & 1 << 5 != 0);
        let (sx, lx) = (one & 1 << 0 != 0, one & 1 << 1 != 0);
        let kind = match identifier {
            SFP if cable & 1 << 2 != 0 => Kind::PassiveCable,
            // Byte 60 of an active cable: FC-PI-4, limiting.
            SFP if cable & 1 << 3 != 0 && bytes[60] & 1 << 2 != 0 => Kind::LimitingCable,
            SFP if cable & 1 << 3 != 0 => Kind::ActiveCable,
            SFP if sr => Kind::ShortReach,
            SFP if lr => Kind::LongReach,
            SFP if ten & 1 << 6 != 0 => Kind::LongReachMultimode,
            SFP if ten & 1 << 7 != 0 => Kind::ExtendedReach,
            SFP if one & 1 << 3 != 0 => Kind::Copper,
            SFP if sx => Kind::ShortWave,
            SFP if lx => Kind::LongWave,
            _ => Kind::Unknown,
        };
        let text = |from: usize| core::array::from_fn(|place| bytes.get(from + place).copied().unwrap_or(0));
        let (sum, base) = (bytes[63], &bytes[..63]);
        Self {
            kind,
            both_speeds: sr && sx || lr && lx,
            intact: base.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == sum,
            vendor: text(20),
            part: text(40),
        }
    }

    /// Whether it knows 1 Gbit/s alone.
    pub(super) const fn is_gigabit(&self) -> bool {
        matches!(self.kind, Kind::Copper | Kind::ShortWave | Kind::LongWave)
    }

    /// The name by which the non-volatile memory has its start-up sequence, for a port of the two (Linux: `enum ixgbe_sfp_type`,
    /// `ixgbe_get_sfp_init_sequence_offsets`). Limiting cables and modules of 1 Gbit/s are started as optics are. `None` where there is none
    /// for its kind.
    pub(super) const fn sequence(&self, port: u16) -> Option<u16> {
        match self.kind {
            Kind::PassiveCable => Some(3 + port),
            Kind::ShortReach
            | Kind::LongReach
            | Kind::LimitingCable
            | Kind::Copper
            | Kind::ShortWave
            | Kind::LongWave => Some(5 + port),
            Kind::LongReachMultimode | Kind::ExtendedReach | Kind::ActiveCable | Kind::Unknown => None,
        }
    }
}

impl fmt::Display for Module {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind.name())?;
        if self.both_speeds {
            formatter.write_str(", 10 and 1 Gbit/s")?;
        }
        let mut separator = ", ";
        for name in [&self.vendor, &self.part] {
            let length = name.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
            for byte in name.iter().take(length) {
                formatter.write_str(core::mem::take(&mut separator))?;
                let shown = if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
                fmt::Write::write_char(formatter, shown)?;
            }
            separator = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn module(change: &[(usize, u8)]) -> Module {
        let mut bytes = [0; BYTES];
        bytes[0] = SFP;
        bytes[20..36].copy_from_slice(b"Somebody        ");
        bytes[40..56].copy_from_slice(b"A-1\n            ");
        for (place, byte) in change {
            bytes[*place] = *byte;
        }
        bytes[63] = bytes[..63].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        Module::parse(&bytes)
    }

    /// Codes by their places, what they mean, and the sequence of port 1.
    type Row = (&'static [(usize, u8)], Kind, Option<u16>);

    #[test]
    fn kinds_are_told_by_their_codes() {
        let rows: &[Row] = &[
            (&[(3, 0x10)], Kind::ShortReach, Some(6)),
            (&[(3, 0x20)], Kind::LongReach, Some(6)),
            (&[(3, 0x40)], Kind::LongReachMultimode, None),
            (&[(3, 0x80)], Kind::ExtendedReach, None),
            (&[(8, 4)], Kind::PassiveCable, Some(4)),
            (&[(8, 8)], Kind::ActiveCable, None),
            (&[(8, 8), (60, 4)], Kind::LimitingCable, Some(6)),
            (&[(6, 8)], Kind::Copper, Some(6)),
            (&[(6, 1)], Kind::ShortWave, Some(6)),
            (&[(6, 2)], Kind::LongWave, Some(6)),
            (&[], Kind::Unknown, None),
            // A QSFP+ by its identifier.
            (&[(0, 0x0D), (3, 0x10)], Kind::Unknown, None),
        ];
        for (change, kind, sequence) in rows {
            let module = module(change);
            assert_eq!((module.kind, module.sequence(1)), (*kind, *sequence), "{change:?}");
            assert!(module.intact && !module.both_speeds);
        }
        for (ten, one, both) in [(0x10, 1, true), (0x20, 2, true), (0x10, 2, false), (0, 3, false)] {
            assert_eq!(module(&[(3, ten), (6, one)]).both_speeds, both);
        }
    }

    #[test]
    fn names_are_plain_text() {
        assert_eq!(module(&[(3, 0x10)]).to_string(), "10GBASE-SR, Somebody A-1?");
        assert_eq!(module(&[(3, 0x10), (6, 1), (20, 0x1B)]).to_string(), "10GBASE-SR, 10 and 1 Gbit/s, ?omebody A-1?");
        let nameless = Module { vendor: [0; 16], part: [b' '; 16], ..module(&[(8, 4)]) };
        assert_eq!(nameless.to_string(), "direct attach, passive");
        assert!(!Module::parse(&[3; BYTES]).intact);
    }
}

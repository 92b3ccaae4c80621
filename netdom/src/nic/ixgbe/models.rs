//! The family that shares the 82599's programming model: device ids, and in what each kind differs. Pure. Floor 3.
//!
//! Ids and limits are those of Linux's ixgbe (`ixgbe_type.h`, `ixgbe_main.c`). Only models of the 82599, the X540 and the
//! X550 were ever run. The X550EM is not driven: its PHYs want tokens, and commands to its firmware.
//!
//! The X550 differs from the X540 in its table of 512 entries, its speeds and its PHY's id. Linux also asks its firmware to stop receiving,
//! so that frames between virtual functions stop as well; there are none here.

/// Intel's PCI vendor id.
const VENDOR: u16 = 0x8086;

/// What tells the kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 82599 with a backplane, or a PHY beside it that asks for nothing.
    I82599,
    /// 82599 with a copper PHY beside it, TN1010.
    I82599Copper,
    /// 82599 with an SFP+ module, whose laser the MAC turns on and off.
    I82599Fibre,
    /// X540: with a PHY for copper.
    X540,
    /// X550: the same, with 2.5 and 5 Gbit/s.
    X550,
}

/// A device of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// PCI device id; the vendor is Intel.
    pub device: u16,
    /// Its name.
    pub name: &'static str,
    /// How it is driven.
    pub kind: Kind,
}

impl Model {
    /// The model with these PCI ids.
    pub fn find(vendor: u16, device: u16) -> Option<&'static Self> {
        MODELS.iter().find(|model| vendor == VENDOR && model.device == device)
    }

    /// MSI-X vectors that it has.
    pub const fn vectors(&self) -> usize {
        64
    }

    /// Bytes of the largest frame, frame check sequence not included (82599 datasheet 8.2.3.22.8: 9.5 KiB with it).
    pub const fn max_frame(&self) -> usize {
        9728 - 4
    }
}

const fn model(device: u16, name: &'static str, kind: Kind) -> Model {
    Model { device, name, kind }
}

/// All models.
pub static MODELS: &[Model] = &[
    model(0x10F7, "82599 KX4", Kind::I82599),
    model(0x10F8, "82599 backplane", Kind::I82599),
    model(0x10F9, "82599 CX4", Kind::I82599),
    model(0x10FB, "82599 SFP+", Kind::I82599Fibre),
    model(0x10FC, "82599 XAUI", Kind::I82599),
    model(0x1507, "82599 SFP+ EM", Kind::I82599Fibre),
    model(0x1514, "82599 KX4 mezzanine", Kind::I82599),
    model(0x1517, "82599 KR", Kind::I82599),
    model(0x151C, "82599 T3", Kind::I82599Copper),
    model(0x152A, "82599 backplane FCoE", Kind::I82599),
    model(0x1529, "82599 SFP+ FCoE", Kind::I82599Fibre),
    model(0x154A, "X520-4", Kind::I82599Fibre),
    model(0x154D, "82599 SFP+ SF2", Kind::I82599Fibre),
    model(0x1557, "82599EN SFP+", Kind::I82599Fibre),
    model(0x1528, "X540-T2", Kind::X540),
    model(0x1560, "X540-T1", Kind::X540),
    model(0x1563, "X550-T2", Kind::X550),
    model(0x15D1, "X550-T1", Kind::X550),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_model() {
        for model in MODELS {
            assert_eq!(Model::find(VENDOR, model.device), Some(model));
        }
        assert_eq!(Model::find(0x8086, 0x10FB).map(|model| model.name), Some("82599 SFP+"));
        assert_eq!(Model::find(0x8086, 0x10ED), None, "a virtual function");
        assert_eq!(Model::find(0x1AF4, 0x10FB), None, "another vendor");
    }
}

//! The family that shares the 82574's programming model: device ids, and in what each kind differs. Pure. Floor 3.
//!
//! Ids and limits are those of Linux's e1000e (`hw.h`, `82571.c`, `ich8lan.c`). Only the 82574L was ever run, and that as
//! QEMU emulates it; the rest follow the documents.

/// Intel's PCI vendor id.
pub const VENDOR: u16 = 0x8086;

/// What tells the kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 82571 and 82572.
    I82571,
    /// 82573.
    I82573,
    /// 82574 and 82583: the first with MSI-X.
    I82574,
    /// I217 and I218: the MAC of the platform controller hub (PCH) from Lynx Point on.
    I217,
    /// I219: the same from Sunrise Point on.
    I219,
}

/// A device of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// PCI device id; the vendor is [`VENDOR`].
    pub device: u16,
    /// Its name.
    pub name: &'static str,
    /// How it is driven.
    pub kind: Kind,
    /// It has no PHY: its SerDes is the port, behind optics or on a backplane.
    pub serdes: bool,
}

impl Model {
    /// The model with these PCI ids.
    pub fn find(vendor: u16, device: u16) -> Option<&'static Self> {
        MODELS.iter().find(|model| vendor == VENDOR && model.device == device)
    }

    /// Whether it is the MAC of a PCH, which shares its registers and its PHY with firmware.
    pub const fn is_pch(&self) -> bool {
        matches!(self.kind, Kind::I217 | Kind::I219)
    }

    /// MSI-X vectors that it has; 0 where it knows MSI and INTx only.
    pub const fn vectors(&self) -> usize {
        match self.kind {
            Kind::I82574 => 5,
            Kind::I82571 | Kind::I82573 | Kind::I217 | Kind::I219 => 0,
        }
    }

    /// Bytes of the largest frame, frame check sequence not included, that we let it carry. The PCH's MACs know jumbo
    /// frames, but want their PHY told so, which this driver leaves alone.
    pub const fn max_frame(&self) -> usize {
        match self.kind {
            Kind::I82571 | Kind::I82574 => 9234 - 4,
            Kind::I82573 | Kind::I217 | Kind::I219 => crate::nic::STANDARD_FRAME,
        }
    }

    /// Whether segmentation is left to it. The 82571 to 82573 fault where the first descriptor holds just the headers,
    /// as it does for many a frontend.
    pub const fn segments(&self) -> bool {
        matches!(self.kind, Kind::I82574 | Kind::I217 | Kind::I219)
    }

    /// Kilobytes of packet memory, where jumbo frames want it divided anew.
    pub(super) const fn packet_memory(&self) -> Option<u32> {
        match self.kind {
            Kind::I82571 => Some(48),
            Kind::I82574 => Some(40),
            Kind::I82573 | Kind::I217 | Kind::I219 => None,
        }
    }
}

const fn model(device: u16, name: &'static str, kind: Kind) -> Model {
    Model { device, name, kind, serdes: false }
}

/// An 82571 or 82572 without a PHY.
const fn serdes(device: u16, name: &'static str) -> Model {
    Model { device, name, kind: Kind::I82571, serdes: true }
}

/// All models.
pub static MODELS: &[Model] = &[
    model(0x105E, "82571EB", Kind::I82571),
    serdes(0x105F, "82571EB fibre"),
    serdes(0x1060, "82571EB SerDes"),
    model(0x10A4, "82571EB quad", Kind::I82571),
    serdes(0x10A5, "82571EB quad fibre"),
    model(0x10BC, "82571EB quad low profile", Kind::I82571),
    model(0x10D5, "82571PT quad", Kind::I82571),
    serdes(0x10D9, "82571EB dual SerDes"),
    serdes(0x10DA, "82571EB quad SerDes"),
    model(0x107D, "82572EI", Kind::I82571),
    serdes(0x107E, "82572EI fibre"),
    serdes(0x107F, "82572EI SerDes"),
    model(0x10B9, "82572EI", Kind::I82571),
    model(0x108B, "82573E", Kind::I82573),
    model(0x108C, "82573E AMT", Kind::I82573),
    model(0x109A, "82573L", Kind::I82573),
    model(0x10D3, "82574L", Kind::I82574),
    model(0x10F6, "82574LA", Kind::I82574),
    model(0x150C, "82583V", Kind::I82574),
    model(0x153A, "I217-LM", Kind::I217),
    model(0x153B, "I217-V", Kind::I217),
    model(0x155A, "I218-LM", Kind::I217),
    model(0x1559, "I218-V", Kind::I217),
    model(0x15A0, "I218-LM 2", Kind::I217),
    model(0x15A1, "I218-V 2", Kind::I217),
    model(0x15A2, "I218-LM 3", Kind::I217),
    model(0x15A3, "I218-V 3", Kind::I217),
    model(0x156F, "I219-LM", Kind::I219),
    model(0x1570, "I219-V", Kind::I219),
    model(0x15B7, "I219-LM 2", Kind::I219),
    model(0x15B8, "I219-V 2", Kind::I219),
    model(0x15B9, "I219-LM 3", Kind::I219),
    model(0x15D7, "I219-LM 4", Kind::I219),
    model(0x15D8, "I219-V 4", Kind::I219),
    model(0x15E3, "I219-LM 5", Kind::I219),
    model(0x15D6, "I219-V 5", Kind::I219),
    model(0x15BD, "I219-LM 6", Kind::I219),
    model(0x15BE, "I219-V 6", Kind::I219),
    model(0x15BB, "I219-LM 7", Kind::I219),
    model(0x15BC, "I219-V 7", Kind::I219),
    model(0x15DF, "I219-LM 8", Kind::I219),
    model(0x15E0, "I219-V 8", Kind::I219),
    model(0x15E1, "I219-LM 9", Kind::I219),
    model(0x15E2, "I219-V 9", Kind::I219),
    model(0x0D4E, "I219-LM 10", Kind::I219),
    model(0x0D4F, "I219-V 10", Kind::I219),
    model(0x0D4C, "I219-LM 11", Kind::I219),
    model(0x0D4D, "I219-V 11", Kind::I219),
    model(0x0D53, "I219-LM 12", Kind::I219),
    model(0x0D55, "I219-V 12", Kind::I219),
    model(0x15FB, "I219-LM 13", Kind::I219),
    model(0x15FC, "I219-V 13", Kind::I219),
    model(0x15F9, "I219-LM 14", Kind::I219),
    model(0x15FA, "I219-V 14", Kind::I219),
    model(0x15F4, "I219-LM 15", Kind::I219),
    model(0x15F5, "I219-V 15", Kind::I219),
    model(0x1A1E, "I219-LM 16", Kind::I219),
    model(0x1A1F, "I219-V 16", Kind::I219),
    model(0x1A1C, "I219-LM 17", Kind::I219),
    model(0x1A1D, "I219-V 17", Kind::I219),
    model(0x550A, "I219-LM 18", Kind::I219),
    model(0x550B, "I219-V 18", Kind::I219),
    model(0x550C, "I219-LM 19", Kind::I219),
    model(0x550D, "I219-V 19", Kind::I219),
    model(0x0DC7, "I219-LM 22", Kind::I219),
    model(0x0DC8, "I219-V 22", Kind::I219),
    model(0x0DC5, "I219-LM 23", Kind::I219),
    model(0x0DC6, "I219-V 23", Kind::I219),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_model() {
        for model in MODELS {
            assert_eq!(Model::find(VENDOR, model.device), Some(model));
        }
        assert_eq!(Model::find(0x8086, 0x10D3).map(|m| m.name), Some("82574L"));
        assert_eq!(Model::find(0x8086, 0x100E), None, "the older e1000");
        assert_eq!(Model::find(0x1AF4, 0x10D3), None, "another vendor");
    }
}

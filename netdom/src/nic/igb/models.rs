//! The family that shares the 82576's programming model: device ids, and in what each kind differs. Pure. Floor 3.
//!
//! Ids and limits are those of Linux's igb (`e1000_hw.h`, `e1000_82575.c`). The 82576 was run as QEMU emulates it; the
//! 82576, the I350 and the I210 on models of this project; the rest follow the documents.

/// Intel's PCI vendor id.
const VENDOR: u16 = 0x8086;

/// What tells the kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 82576.
    I82576,
    /// 82580.
    I82580,
    /// I350.
    I350,
    /// I210.
    I210,
    /// I211.
    I211,
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
        match self.kind {
            // QEMU's 82576 has 10, the device 25.
            Kind::I82576 | Kind::I82580 | Kind::I350 => 10,
            Kind::I210 | Kind::I211 => 5,
        }
    }

    /// Queues each way.
    pub const fn queues(&self) -> usize {
        match self.kind {
            Kind::I82576 => 16,
            Kind::I82580 | Kind::I350 => 8,
            Kind::I210 => 4,
            Kind::I211 => 2,
        }
    }

    /// Whether reading RQDPC clears it; those after the I350 want it written (Linux's igb, `igb_update_stats`).
    pub const fn clears_missed(&self) -> bool {
        matches!(self.kind, Kind::I82576 | Kind::I82580 | Kind::I350)
    }

    /// Bytes of the largest frame, frame check sequence not included (82576 datasheet 8.10.4: 9.5 KiB with it).
    pub const fn max_frame(&self) -> usize {
        9728 - 4
    }
}

const fn model(device: u16, name: &'static str, kind: Kind) -> Model {
    Model { device, name, kind }
}

/// All models.
pub static MODELS: &[Model] = &[
    model(0x10C9, "82576", Kind::I82576),
    model(0x10E8, "82576 quad", Kind::I82576),
    model(0x1526, "82576 quad ET2", Kind::I82576),
    model(0x150A, "82576 NS", Kind::I82576),
    model(0x150E, "82580", Kind::I82580),
    model(0x1516, "82580 dual", Kind::I82580),
    model(0x1521, "I350", Kind::I350),
    model(0x1533, "I210", Kind::I210),
    model(0x157B, "I210 without flash", Kind::I210),
    model(0x1539, "I211", Kind::I211),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_model() {
        for model in MODELS {
            assert_eq!(Model::find(VENDOR, model.device), Some(model));
        }
        assert_eq!(Model::find(0x8086, 0x10C9).map(|model| model.name), Some("82576"));
        assert_eq!(Model::find(0x8086, 0x10CA), None, "a virtual function");
        assert_eq!(Model::find(0x1AF4, 0x10C9), None, "another vendor");
    }
}

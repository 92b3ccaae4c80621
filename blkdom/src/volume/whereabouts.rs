//! Where a volume lies, as a word that another place has not: by it, a new life knows whether a name still means what it meant. Pure. Floor 3.
//!
//! A name may mean something else by then: other disks are there, or a guest wrote what looks like metadata. A volume that has grown at its end
//! lies where it lay, as far as it went.

use super::{Span, UnitRef, Volume};
use alloc::format;
use alloc::string::String;
use crc::{CRC_64_XZ, Crc, NoTable};

impl Volume {
    /// The first `sectors` of it; `None` where it is shorter, or they are no whole rows of stripes.
    fn beginning(&self, sectors: u64) -> Option<Self> {
        let mut volume = Self::default();
        for Span { start, sectors: length, chunk, stripes } in &self.spans {
            let left = sectors.checked_sub(*start).filter(|left| *left > 0);
            let Some(length) = left.map(|left| left.min(*length)) else {
                break;
            };
            match stripes.as_slice() {
                [(unit, first)] => volume.push_linear(*unit, *first, length)?,
                _ => volume.push_striped(stripes.clone(), *chunk, length)?,
            }
        }
        (volume.sectors == sectors).then_some(volume)
    }

    /// Of its first `sectors`; `unit` is what tells a unit from others, from life to life. `None` where the volume is shorter, or has a unit that
    /// is not there.
    pub fn whereabouts(&self, sectors: u64, mut unit: impl FnMut(UnitRef) -> Option<String>) -> Option<u64> {
        let crc = Crc::<u64, NoTable>::new(&CRC_64_XZ);
        let mut digest = crc.digest();
        for span in self.beginning(sectors)?.spans {
            digest.update(format!("{} {} {};", span.start, span.sectors, span.chunk).as_bytes());
            for (name, start) in span.stripes {
                digest.update(format!("{start} {};", unit(name)?).as_bytes());
            }
        }
        Some(digest.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::UnitId;
    use alloc::vec;

    fn unit(number: u16) -> UnitRef {
        UnitRef { controller: number, unit: UnitId(0) }
    }

    fn of(volume: &Volume, sectors: u64) -> Option<u64> {
        volume.whereabouts(sectors, |unit| Some(format!("disk {}", unit.controller)))
    }

    #[test]
    fn a_volume_that_grew_lies_where_it_lay() {
        let mut volume = Volume::linear(unit(0), 100, 64);
        let before = of(&volume, 64).unwrap();
        volume.push_linear(unit(0), 164, 10).unwrap();
        volume.push_linear(unit(1), 8, 10).unwrap();
        assert_eq!((of(&volume, 64), of(&volume, 84).is_some()), (Some(before), true));
        assert_eq!((of(&volume, 85), of(&volume, 0).is_some()), (None, true));
        let stripes = vec![(unit(0), 0), (unit(1), 0)];
        let mut striped = Volume::default();
        striped.push_striped(stripes.clone(), 8, 64).unwrap();
        let before = of(&striped, 64).unwrap();
        striped.push_linear(unit(2), 0, 64).unwrap();
        assert_eq!((of(&striped, 64), of(&striped, 60)), (Some(before), None));
        let mut others = vec![Volume::linear(unit(0), 101, 64), Volume::linear(unit(1), 100, 64)];
        let mut other = Volume::default();
        other.push_striped(stripes, 16, 64).unwrap();
        others.push(other);
        assert!(others.iter().all(|other| of(other, 64) != of(&volume, 64) && of(other, 64) != Some(before)));
    }

    #[test]
    fn a_volume_on_a_unit_that_is_not_there_lies_nowhere() {
        assert_eq!(Volume::linear(unit(0), 0, 8).whereabouts(8, |_| None), None);
        assert!(of(&Volume::gone(), 8).is_some(), "a unit like any other, that no controller has");
    }
}

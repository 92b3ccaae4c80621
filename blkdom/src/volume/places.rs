//! Names of controllers and their units: the same hardware has the same names each time, in any order of discovery. Pure. Floor 3.
//!
//! A controller's number is its place among those of its kind, by its PCI address in the host, and stays its own while the domain runs,
//! also where it fails or is taken away and comes again. A drive's letter is its port's, so that one that is slow or dead moves no other's
//! name.

use crate::disk::{Unit, UnitKind};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Ports of an AHCI controller, at most (AHCI 1.3.1: 3.1.4), and letters of a controller.
const PORTS: usize = 32;

/// The kinds of controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `nvme0`.
    Nvme,
    /// `ahci0`.
    Ahci,
}

/// Which controllers there are, by their addresses.
#[derive(Debug)]
pub struct Places<A> {
    /// Those that have a number: in its order.
    numbered: Vec<(Family, A)>,
    /// Those that get one at the next [`settle`](Self::settle).
    waiting: Vec<(Family, A)>,
}

impl<A> Default for Places<A> {
    fn default() -> Self {
        Self { numbered: Vec::new(), waiting: Vec::new() }
    }
}

impl<A: Copy + Ord> Places<A> {
    /// With those that the last life had, in the order of their numbers.
    pub fn again(numbered: impl IntoIterator<Item = (Family, A)>) -> Self {
        let mut places = Self::default();
        for place in numbered {
            if !places.numbered.contains(&place) {
                places.numbered.push(place);
            }
        }
        places
    }

    /// There is a controller, whether it will come up or not.
    pub fn expect(&mut self, family: Family, address: A) {
        let place = (family, address);
        if !self.numbered.contains(&place) && !self.waiting.contains(&place) {
            self.waiting.push(place);
        }
    }

    /// All that came together are known: they get their numbers, by their addresses.
    pub fn settle(&mut self) {
        self.waiting.sort_unstable();
        self.numbered.append(&mut self.waiting);
    }

    /// Those that have a number, in its order: for the next life, which [begins](Self::again) with them.
    pub fn numbered(&self) -> &[(Family, A)] {
        &self.numbered
    }

    /// Its number among those of its family; none before it is settled.
    fn number(&self, family: Family, address: A) -> Option<usize> {
        let mut alike = self.numbered.iter().filter(|(other, _)| *other == family);
        alike.position(|(_, other)| *other == address)
    }

    /// A controller's name.
    pub fn controller(&self, family: Family, address: A) -> Option<String> {
        let word = if family == Family::Nvme { "nvme" } else { "ahci" };
        self.number(family, address).map(|number| format!("{word}{number}"))
    }

    /// The name of one of its units.
    pub fn unit(&self, family: Family, address: A, kind: UnitKind) -> Option<String> {
        match kind {
            UnitKind::Namespace(namespace) => Some(format!("{}n{namespace}", self.controller(family, address)?)),
            UnitKind::Drive(port) => {
                let first = self.number(family, address)?.checked_mul(PORTS)?;
                Some(drive_name(first.checked_add(port.into())?))
            }
        }
    }
}

/// `sda` to `sdz`, then `sdaa`, as Linux counts.
fn drive_name(mut number: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(char::from(b'a' + (number % 26) as u8));
        match (number / 26).checked_sub(1) {
            Some(more) => number = more,
            None => break,
        }
    }
    letters.extend(['d', 's']);
    letters.into_iter().rev().collect()
}

/// The names of a unit that no change of cables or slots moves: its serial number, its name in the world, and what udev calls it in
/// `/dev/disk/by-id/` by these.
pub fn aliases(unit: &Unit) -> Vec<String> {
    let mut names = Vec::new();
    let serial = unit.serial.trim();
    if !serial.is_empty() {
        let id = format!("{}_{}", underscored(&unit.model), underscored(serial));
        names.push(format!("SERIAL={serial}"));
        match unit.kind {
            UnitKind::Namespace(namespace) => {
                names.extend([format!("ID=nvme-{id}"), format!("ID=nvme-{id}_{namespace}")]);
            }
            UnitKind::Drive(_) => names.push(format!("ID=ata-{id}")),
        }
    }
    if !unit.wwn.is_empty() {
        let kind = if matches!(unit.kind, UnitKind::Namespace(_)) { "nvme" } else { "wwn" };
        names.extend([format!("WWN={}", unit.wwn), format!("ID={kind}-{}", unit.wwn)]);
    }
    names
}

/// A word as udev puts it into a link's name: blanks are one underscore, and so is each character that it does not like.
fn underscored(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join("_");
    let fine = |character: char| character.is_ascii_alphanumeric() || "#+-.:=@_".contains(character);
    joined.chars().map(|character| if fine(character) { character } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Geometry, UnitId};
    use alloc::vec;

    #[test]
    fn names_follow_from_the_place_not_from_who_comes_first() {
        let mut orders = vec![];
        for order in [[0x20, 0x10, 0x30], [0x30, 0x20, 0x10]] {
            let mut places = Places::default();
            for address in order {
                places.expect(if address == 0x20 { Family::Ahci } else { Family::Nvme }, address);
            }
            assert_eq!(places.controller(Family::Nvme, 0x10), None, "not before all are known");
            places.settle();
            orders
                .push([0x10, 0x30].map(|address| places.unit(Family::Nvme, address, UnitKind::Namespace(1)).unwrap()));
            // A port that holds nothing, or a drive that never answers, moves no other's letter.
            assert_eq!(places.unit(Family::Ahci, 0x20, UnitKind::Drive(1)).unwrap(), "sdb");
            assert_eq!(places.unit(Family::Ahci, 0x20, UnitKind::Drive(0)).unwrap(), "sda");
        }
        assert_eq!(orders, [["nvme0n1", "nvme1n1"], ["nvme0n1", "nvme1n1"]]);
    }

    #[test]
    fn what_comes_again_has_its_name_again_and_what_comes_later_takes_none() {
        let mut places = Places::default();
        places.expect(Family::Ahci, 2);
        places.expect(Family::Ahci, 3);
        places.settle();
        places.expect(Family::Ahci, 1);
        places.expect(Family::Ahci, 2);
        places.settle();
        let name = |address| places.controller(Family::Ahci, address).unwrap();
        assert_eq!([name(1), name(2), name(3)], ["ahci2", "ahci0", "ahci1"]);
        assert_eq!(places.unit(Family::Ahci, 3, UnitKind::Drive(0)).unwrap(), "sdag");
        assert_eq!(places.unit(Family::Ahci, 1, UnitKind::Drive(31)).unwrap(), "sdcr");
    }

    #[test]
    fn another_life_gives_the_same_names_also_where_one_is_lost() {
        let mut places = Places::default();
        for (family, address) in [(Family::Nvme, 9), (Family::Ahci, 5), (Family::Nvme, 7)] {
            places.expect(family, address);
            // Each came later than the one before.
            places.settle();
        }
        let mut next = Places::again(places.numbered().iter().copied());
        next.expect(Family::Nvme, 1);
        next.expect(Family::Nvme, 7);
        next.settle();
        let name = |family, address| next.controller(family, address).unwrap();
        assert_eq!([9, 7, 1].map(|address| name(Family::Nvme, address)), ["nvme0", "nvme1", "nvme2"]);
        assert_eq!(name(Family::Ahci, 5), "ahci0");
    }

    #[test]
    fn units_have_the_names_that_udev_gives_them() {
        let unit = |kind, model: &str, serial: &str, wwn: &str| {
            let (model, serial, wwn) = (model.into(), serial.into(), wwn.into());
            aliases(&Unit { id: UnitId(0), kind, model, serial, wwn, geometry: Geometry::default() })
        };
        assert_eq!(
            unit(UnitKind::Namespace(2), "Samsung SSD 980  PRO", "S5P2 NG0", ""),
            ["SERIAL=S5P2 NG0", "ID=nvme-Samsung_SSD_980_PRO_S5P2_NG0", "ID=nvme-Samsung_SSD_980_PRO_S5P2_NG0_2"]
        );
        assert_eq!(unit(UnitKind::Drive(0), "QEMU HARDDISK", "a/b", ""), ["SERIAL=a/b", "ID=ata-QEMU_HARDDISK_a_b"]);
        assert_eq!(unit(UnitKind::Drive(0), "QEMU HARDDISK", " ", ""), [""; 0]);
        let [_, _, world @ ..] = &unit(UnitKind::Drive(0), "ST4000", "Z1", "0x5000c500a1b2c3d4")[..] else { panic!() };
        assert_eq!(world, ["WWN=0x5000c500a1b2c3d4", "ID=wwn-0x5000c500a1b2c3d4"]);
        let nameless = unit(UnitKind::Namespace(1), "X", "", "eui.0025385b71b00c42");
        assert_eq!(nameless, ["WWN=eui.0025385b71b00c42", "ID=nvme-eui.0025385b71b00c42"]);
    }
}

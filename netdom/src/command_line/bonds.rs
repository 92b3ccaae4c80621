//! The word `bond=`: NICs that are one port of their bridge. Pure. Floor 3.

use super::{check_bridge, full_address};
use crate::bond::{MEMBERS, Mode};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A bond: `NAME:ADDRESS[,ADDRESS...]:MODE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondWord {
    /// Its name: `bridge=NAME:BRIDGE` names its bridge.
    pub name: String,
    /// The addresses of its NICs in the host, as `0000:00:03.0`, in the order in which they are chosen.
    pub nics: Vec<String>,
    /// What is sent and received on which of them.
    pub mode: Mode,
}

impl BondWord {
    /// Reads the value of the word.
    ///
    /// # Errors
    /// What is wrong with it, with the word.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("\"bond={}\": {why}", value.escape_debug()));
        let parts = value.split_once(':').and_then(|(name, rest)| Some((name, rest.rsplit_once(':')?)));
        let Some((name, (addresses, mode))) = parts else {
            return wrong("it is NAME:ADDRESS,ADDRESS:MODE, as bond0:00:03.0,00:04.0:active-backup");
        };
        check_bridge("bond", name)?;
        if !is_name(name) {
            return wrong("the name of a bond begins with a letter");
        }
        let Some(mode) = Mode::parse(mode) else {
            return wrong(
                "behind the last colon is the mode: active-backup, balance-xor or 802.3ad, the last two with +layer2, +layer2+3 or \
                 +layer3+4 behind, where packets are not to be spread by layer2",
            );
        };
        let mut nics: Vec<String> = Vec::new();
        for address in addresses.split(',') {
            let Some(address) = full_address(address) else {
                return wrong(
                    "between the colons are addresses of NICs, as \"xl pci-assignable-list\" prints them: 00:03.0,00:04.0",
                );
            };
            if nics.contains(&address) {
                return wrong(&format!("it names {address} twice"));
            }
            nics.push(address);
        }
        if nics.len() > MEMBERS {
            return wrong(&format!("a bond has {MEMBERS} NICs at most"));
        }
        Ok(Self { name: name.into(), nics, mode })
    }

    /// Adds it to those that are known; the same one again does no harm.
    ///
    /// # Errors
    /// An earlier one has its name, or a NIC of it.
    pub(super) fn add_to(self, bonds: &mut Vec<Self>) -> Result<(), String> {
        for known in &*bonds {
            if *known == self {
                return Ok(());
            }
            if known.name == self.name {
                return Err(format!("\"bond={}:...\" contradicts an earlier word of that bond", self.name));
            }
            if let Some(nic) = self.nics.iter().find(|nic| known.nics.contains(nic)) {
                return Err(format!(
                    "\"bond={}:...\": the NIC {nic} is of {} already, and can be of one bond alone",
                    self.name, known.name
                ));
            }
        }
        bonds.push(self);
        Ok(())
    }
}

/// Whether a text can be the name of a bond.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Checks what `bridge=` names before a colon: addresses of NICs that are ports of their own, and bonds.
///
/// # Errors
/// A NIC of a bond, or a bond that there is not.
pub(super) fn check_named<'a>(named: impl Iterator<Item = &'a str>, bonds: &[BondWord]) -> Result<(), String> {
    for key in named {
        if let Some(bond) = bonds.iter().find(|bond| bond.nics.iter().any(|nic| nic == key)) {
            return Err(format!(
                "\"bridge={key}:...\": this NIC is of {0}, which is on one bridge with all of its NICs; say bridge={0}:...",
                bond.name
            ));
        }
        if is_name(key) && !key.contains(':') && bonds.iter().all(|bond| bond.name != key) {
            let known: Vec<&str> = bonds.iter().map(|bond| bond.name.as_str()).collect();
            let known =
                if known.is_empty() { String::from("there is none") } else { format!("there is {}", known.join(", ")) };
            return Err(format!(
                "\"bridge={}:...\": before the colon is the address of a NIC, as \"xl pci-assignable-list\" prints it, or the name of a \
                 bond; {known}",
                key.escape_debug()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::bond::Policy;

    #[test]
    fn nics_of_a_bond_are_on_its_bridge() {
        let mut options = Options::default();
        assert_eq!(options.set("bridge", "bond0:lan,0:5.0:dmz"), Ok(true));
        assert_eq!(options.set("bond", "bond0:00:03.0,0001:a0:1f.7:active-backup"), Ok(true));
        assert_eq!(options.set("bond", "bond0:00:03.0,0001:a0:1f.7:active-backup"), Ok(true));
        let nics = ["0000:00:03.0", "0001:a0:1f.7", "0000:00:05.0", "0000:00:06.0"];
        assert_eq!(nics.map(|nic| options.bridge(nic)), [Some("lan"), Some("lan"), Some("dmz"), None]);
        assert_eq!(nics.map(|nic| options.bond(nic)), [Some((0, 0)), Some((0, 1)), None, None]);
        assert!(options.bridges().unwrap().has("lan") && !options.bridges().unwrap().has("xenbr0"));
        let named: Vec<_> = options.named_nics().collect();
        assert_eq!(named, [("bridge", "0000:00:05.0"), ("bond", nics[0]), ("bond", nics[1])]);
        // Without a bridge of its own it is on that of all others.
        for (bridge, expected) in [(None, "xenbr0"), (Some("lan"), "lan"), (Some("lan,0:5.0:dmz"), "lan")] {
            let mut options = Options::default();
            assert_eq!(options.set("bond", "b:00:03.0:802.3ad"), Ok(true));
            assert!(bridge.is_none_or(|bridge| options.set("bridge", bridge) == Ok(true)));
            assert_eq!(options.bridge(nics[0]), Some(expected));
            assert!(options.bridges().unwrap().has(expected));
        }
    }

    #[test]
    fn modes() {
        for (text, mode) in [
            ("active-backup", Mode::ActiveBackup),
            ("balance-xor", Mode::BalanceXor(Policy::Layer2)),
            ("balance-xor+layer2", Mode::BalanceXor(Policy::Layer2)),
            ("balance-xor+layer2+3", Mode::BalanceXor(Policy::Layer23)),
            ("balance-xor+layer3+4", Mode::BalanceXor(Policy::Layer34)),
            ("802.3ad", Mode::Lacp(Policy::Layer2)),
            ("802.3ad+layer3+4", Mode::Lacp(Policy::Layer34)),
        ] {
            let bond = BondWord::parse(&format!("b1:0:3.0,0:4.0:{text}")).unwrap();
            assert_eq!((bond.mode, bond.nics.len()), (mode, 2), "{text}");
        }
    }

    #[test]
    fn wrong_bonds() {
        for (wrong, why) in [
            ("", "NAME:ADDRESS"),
            ("bond0", "NAME:ADDRESS"),
            ("bond0:active-backup", "NAME:ADDRESS"),
            ("bond0:00:03.0", "mode"),
            ("bond0:00:03.0,00:04.0", "mode"),
            ("bond0:00:03.0,00:04.0:round-robin", "802.3ad"),
            ("bond0:00:03.0,00:04.0:active-backup+layer2", "mode"),
            ("bond0:00:03.0,00:04.0:balance-xor+layer4", "layer3+4"),
            ("bond0:00:03.0,00:04:balance-xor", "xl pci-assignable-list"),
            ("bond0:00:03.0,:balance-xor", "xl pci-assignable-list"),
            ("bond0::balance-xor", "xl pci-assignable-list"),
            ("bond0:00:03.0,0000:00:03.0:balance-xor", "0000:00:03.0 twice"),
            (":00:03.0:balance-xor", "printable"),
            ("0:00:03.0:balance-xor", "letter"),
            ("b:0:1.0,0:2.0,0:3.0,0:4.0,0:5.0,0:6.0,0:7.0,0:8.0,0:9.0:balance-xor", "8 NICs"),
            ("other:00:04.0:802.3ad", "one bond alone"),
            ("known:00:03.0:active-backup", "contradicts"),
        ] {
            let mut options = Options::default();
            assert_eq!(options.set("bond", "known:00:03.0,00:04.0:active-backup"), Ok(true));
            let error = options.set("bond", wrong).unwrap_err();
            assert!(error.starts_with("\"bond=") && error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn bridges_of_bonds() {
        for (bridge, why) in [
            ("bond0:lan,00:03.0:dmz", "0000:00:03.0:...\": this NIC is of bond0"),
            ("bond1:lan", "there is bond0"),
            ("bond0:lan,bond0:dmz", "two for one"),
        ] {
            let mut options = Options::default();
            assert_eq!(options.set("bond", "bond0:00:03.0,00:04.0:active-backup"), Ok(true));
            let error = options.set("bridge", bridge).err().or_else(|| options.bridges().err()).unwrap();
            assert!(error.starts_with("\"bridge=") && error.contains(why), "{bridge}: {error}");
        }
        let mut options = Options::default();
        assert_eq!(options.set("bridge", "vlan:7"), Ok(true));
        assert!(options.bridges().unwrap_err().ends_with("or the name of a bond; there is none"));
    }
}

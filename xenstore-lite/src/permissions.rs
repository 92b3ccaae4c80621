//! Who may do what with a node. Pure. Floor 1.

use alloc::vec::Vec;

use xen_pv_sys::DomainId;

use crate::Error;
use crate::payload;

/// Stands for every domain in an entry (`DOMID_ANY`, `xen.h`).
pub(crate) const ANY: DomainId = DomainId(0x7ff5);

/// Rights, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights(u8);

impl Rights {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const READ: Self = Self(1);
    pub(crate) const WRITE: Self = Self(2);
    /// To write, and to set permissions.
    pub(crate) const OWN: Self = Self(2 | 4);
    const ALL: Self = Self(1 | 2 | 4);

    /// Whether all of `other` are in it.
    pub(crate) fn hold(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in it.
    pub(crate) fn touch(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// By the letter of the wire.
    pub(crate) fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'n' => Some(Self(0)),
            b'r' => Some(Self(1)),
            b'w' => Some(Self(2)),
            b'b' => Some(Self(3)),
            _ => None,
        }
    }

    /// The letter of the wire.
    pub(crate) fn letter(self) -> u8 {
        match self.0 & 3 {
            0 => b'n',
            1 => b'r',
            2 => b'w',
            _ => b'b',
        }
    }
}

/// An entry of a node's permissions. The first names the owner, and its rights are those of who has got no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permission {
    pub(crate) domain: DomainId,
    pub(crate) rights: Rights,
    /// No such domain when it was set, or not any more: shown, not heeded.
    pub(crate) stale: bool,
}

impl Permission {
    pub(crate) const fn new(domain: DomainId, rights: Rights) -> Self {
        Self { domain, rights, stale: false }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) domain: DomainId,
    /// Nothing is refused to it.
    pub(crate) privileged: bool,
    /// Whose rights it has got as well (`SET_TARGET`).
    pub(crate) target: Option<DomainId>,
}

impl Caller {
    /// Its rights on a node of these permissions.
    pub(crate) fn rights(&self, permissions: &[Permission]) -> Rights {
        let names = |entry: &Permission| {
            entry.domain == self.domain || Some(entry.domain) == self.target || entry.domain == ANY
        };
        let Some((owner, others)) = permissions.split_first() else {
            return if self.privileged { Rights::ALL } else { Rights::NONE };
        };
        if self.privileged || names(owner) {
            return Rights::ALL;
        }
        others.iter().find(|entry| !entry.stale && names(entry)).unwrap_or(owner).rights
    }
}

/// The owner; nobody's where there are no permissions, which no node has.
pub(crate) fn owner(permissions: &[Permission]) -> DomainId {
    permissions.first().map_or(DomainId::INVALID, |entry| entry.domain)
}

/// Entries from the wire's words.
pub(crate) fn parse<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Permission>, Error> {
    let entry = |word: &[u8]| {
        let (letter, number) = word.split_first()?;
        let rights = Rights::from_letter(*letter)?;
        let domain = u16::try_from(payload::any_base(number)?).ok()?;
        Some(Permission::new(DomainId(domain), rights))
    };
    words.map(|word| entry(word).ok_or(Error::EINVAL)).collect()
}

/// The wire's words of entries, each ended by a zero byte.
pub(crate) fn print(permissions: &[Permission], out: &mut Vec<u8>) {
    for entry in permissions {
        out.push(entry.rights.letter());
        out.extend_from_slice(alloc::format!("{}\0", entry.domain.0).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(domain: u16) -> Caller {
        Caller { domain: DomainId(domain), privileged: false, target: None }
    }

    fn parse(text: &str) -> Result<Vec<Permission>, Error> {
        super::parse(text.split(' ').map(str::as_bytes))
    }

    #[test]
    fn who_may() {
        let mut entries = parse("r1 b2 w3 n4").unwrap();
        let rights = |entries: &[Permission], domain| caller(domain).rights(entries);
        assert_eq!(rights(&entries, 1), Rights::ALL);
        assert_eq!(rights(&entries, 2), Rights(3));
        assert_eq!(rights(&entries, 3), Rights::WRITE);
        assert_eq!(rights(&entries, 4), Rights::NONE);
        assert_eq!(rights(&entries, 5), Rights::READ);
        assert_eq!(Caller { target: Some(DomainId(1)), ..caller(5) }.rights(&entries), Rights::ALL);
        assert_eq!(Caller { privileged: true, ..caller(0) }.rights(&entries), Rights::ALL);
        entries[1].stale = true;
        assert_eq!(rights(&entries, 2), Rights::READ);
        entries[1] = Permission::new(ANY, Rights::WRITE);
        assert_eq!(rights(&entries, 4), Rights::WRITE);
    }

    #[test]
    fn words() {
        let mut out = Vec::new();
        print(&parse("n0 r0x10 w010 b7").unwrap(), &mut out);
        assert_eq!(out, b"n0\0r16\0w8\0b7\0");
        for bad in ["", "n", "x1", "n1 ", "r1x", "r-1", "r65536", "r99999999999999999999"] {
            assert_eq!(parse(bad), Err(Error::EINVAL), "{bad:?}");
        }
    }
}

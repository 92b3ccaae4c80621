//! What a `target=` says, as the one name that the catalogue knows it by. Pure. Floor 3.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a target, at most.
const LIMIT: usize = 512;

/// What a target names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `nvme0n1`, `nvme0n1p2`, `SERIAL=serial`, `WWN=name`, `ID=nvme-model_serial`, these also with `-part2` behind, `PARTLABEL=label`,
    /// `PARTUUID=uuid` (in lower case), or `group/volume`.
    pub name: String,
    /// It began with `w!:`. xl takes no `access=w!`, so that this is how its users say that they share.
    pub shared: bool,
}

/// What a target may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// There is none.
    Empty,
    /// So many bytes.
    TooLong(usize),
    /// It names nothing that there could be.
    Nonsense(String),
}

impl fmt::Display for TargetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("target= is empty")?,
            Self::TooLong(bytes) => write!(formatter, "target= has {bytes} bytes, more than {LIMIT}")?,
            Self::Nonsense(target) => write!(formatter, "target={} names no volume", Printable(target))?,
        }
        formatter.write_str(
            "; write a unit (nvme0n1, sda), a partition (nvme0n1p2, sda3, PARTLABEL=name, PARTUUID=uuid), one of both by its drive's \
             SERIAL=number, WWN=name or its name in /dev/disk/by-id/, or a logical volume (group/volume), with or without /dev/",
        )
    }
}

impl core::error::Error for TargetError {}

/// A name with all that does not print escaped, and not more of it than fits.
pub(super) struct Printable<'a>(pub(super) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = 160_usize;
        for character in self.0.chars() {
            let plain = !character.is_control() && (character.is_ascii() || character.is_alphanumeric());
            let bytes = if plain { character.len_utf8() } else { character.escape_unicode().len() };
            let Some(left) = room.checked_sub(bytes) else {
                return formatter.write_str("...");
            };
            room = left;
            if plain {
                write!(formatter, "{character}")?;
            } else {
                write!(formatter, "{}", character.escape_unicode())?;
            }
        }
        Ok(())
    }
}

impl Target {
    /// Reads what `params` says.
    ///
    /// # Errors
    /// What is wrong with it, and what may be written.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if text.len() > LIMIT {
            return Err(TargetError::TooLong(text.len()));
        }
        let (shared, rest) = text.strip_prefix("w!:").map_or((false, text), |rest| (true, rest));
        let rest = rest.strip_prefix("phy:").unwrap_or(rest);
        let name = rest.strip_prefix("/dev/").map_or_else(|| plain(rest), below_dev);
        name.map(|name| Self { name, shared }).ok_or_else(|| TargetError::Nonsense(text.to_owned()))
    }
}

/// What a path below `/dev/` means, by udev's and device-mapper's naming.
fn below_dev(path: &str) -> Option<String> {
    if let Some(name) = path.strip_prefix("mapper/") {
        return mapper(name);
    }
    if let Some(label) = path.strip_prefix("disk/by-partlabel/") {
        return label_name(&unescape(label)?);
    }
    if let Some(uuid) = path.strip_prefix("disk/by-partuuid/") {
        return uuid_name(uuid);
    }
    if let Some(id) = path.strip_prefix("disk/by-id/") {
        return id_name(id);
    }
    plain(path)
}

/// What something without a path before it means.
fn plain(text: &str) -> Option<String> {
    if let Some(label) = strip_word(text, "PARTLABEL=") {
        return label_name(label);
    }
    if let Some(uuid) = strip_word(text, "PARTUUID=") {
        return uuid_name(uuid);
    }
    if let Some(serial) = strip_word(text, "SERIAL=") {
        return (!serial.is_empty() && !serial.contains('\0')).then(|| format!("SERIAL={serial}"));
    }
    if let Some(name) = strip_word(text, "WWN=") {
        return id_name(name).map(|_| format!("WWN={}", name.to_ascii_lowercase()));
    }
    if let Some(id) = strip_word(text, "ID=") {
        return id_name(id);
    }
    match text.split_once('/') {
        Some((group, volume)) => (is_lvm_name(group) && is_lvm_name(volume)).then(|| text.to_owned()),
        None => (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| text.to_owned()),
    }
}

/// What follows a word, in capitals or not; quotes around it go.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word)
        .then(|| rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(rest))
}

fn label_name(label: &str) -> Option<String> {
    (!label.is_empty() && !label.contains('\0')).then(|| format!("PARTLABEL={label}"))
}

fn id_name(id: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    (!id.is_empty() && id.bytes().all(plain)).then(|| format!("ID={id}"))
}

fn uuid_name(uuid: &str) -> Option<String> {
    let groups: Vec<&str> = uuid.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let known = matches!(lengths.as_slice(), [8, 4, 4, 4, 12] | [8, 2]);
    let digits = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (known && digits).then(|| format!("PARTUUID={}", uuid.to_ascii_lowercase()))
}

/// Whether a volume group or a logical volume may be called so (lvm(8), "Valid names").
pub(super) fn is_lvm_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
    (1..128).contains(&name.len()) && !name.starts_with('-') && name != "." && name != ".." && name.bytes().all(valid)
}

/// A device-mapper name: a hyphen parts group and volume, two are one of a name.
fn mapper(name: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '/' => return None,
            '-' if characters.next_if_eq(&'-').is_some() => decoded.push('-'),
            '-' => decoded.push('/'),
            other => decoded.push(other),
        }
    }
    decoded.contains('/').then(|| plain(&decoded)).flatten()
}

/// udev writes what it does not like in a link's name as `\x20`.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(position) = rest.find("\\x") {
        let (before, escape) = rest.split_at_checked(position)?;
        let (escape, after) = escape.split_at_checked(4)?;
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(escape.get(2..)?, 16).ok()?);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    core::str::from_utf8(&bytes).ok().map(ToString::to_string)
}

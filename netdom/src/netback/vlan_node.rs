//! `vlan` of a vif, as toolstacks of Xen 4.19 and later write it (xl-network-configuration(5), "vlan"). Pure. Floor 3.
//!
//! Terms are separated by slashes: `V`, `V-W` (a range) or `V+DxN` (V, and N others, each D further). A term is of tagged frames, but `p` behind
//! a single VLAN makes it that of frames without a tag. One VLAN must be that; it is where there is no other.

use crate::ethernet::VlanId;
use crate::switch::Vlans;
use alloc::vec::Vec;
use core::fmt;

/// Why it names no VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanError {
    /// It is not of this form, or names VLANs that there are not.
    Malformed,
    /// No VLAN is that of frames without a tag.
    NoNative,
    /// Frames of more than one VLAN would have no tag.
    Untagged,
}

impl fmt::Display for VlanError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "it is VLANs from 1 to 4094 as \"10\", \"10p/20/30-39\" or \"10p/100+10x4\"",
            Self::NoNative => {
                "no VLAN is that of frames without a tag: put p behind one, as \"10p/20\", or name the VLANs of a port without one behind its \
                 bridge, as bridge=NAME:10:20"
            }
            Self::Untagged => "netdom has one VLAN without a tag on a port, which p says: others have their tags, without u",
        })
    }
}

impl core::error::Error for VlanError {}

/// Reads the node.
///
/// # Errors
/// [`VlanError`].
pub fn parse(text: &str) -> Result<Vlans, VlanError> {
    let (mut native, mut tagged) = (None, [false; 4095]);
    let is_single = !text.contains('/');
    for term in text.split('/') {
        let (range, is_native, is_untagged) = match (term.strip_suffix('p'), term.strip_suffix('u')) {
            (Some(range), _) => (range, true, true),
            (_, Some(range)) => (range, false, true),
            _ => (term, false, false),
        };
        let (first, step, last) = terms(range).ok_or(VlanError::Malformed)?;
        let is_native = is_native || is_single && !is_untagged && first == last;
        if is_native && first != last {
            return Err(VlanError::Malformed);
        }
        if is_native {
            if native.is_some_and(|known| known != first) {
                return Err(VlanError::Untagged);
            }
            native = Some(first);
        } else if is_untagged {
            return Err(VlanError::Untagged);
        }
        for vlan in (first.get()..=last.get()).step_by(step.into()) {
            if let Some(place) = tagged.get_mut(usize::from(vlan)) {
                *place = true;
            }
        }
    }
    let native = native.ok_or(VlanError::NoNative)?;
    let tagged = (0..).zip(tagged).filter(|(vlan, named)| *named && *vlan != native.get());
    Ok(Vlans::new(Some(native), tagged.filter_map(|(vlan, _)| VlanId::new(vlan)).collect::<Vec<_>>()))
}

/// The first and the last VLAN of a term, and how far each is from the next.
fn terms(text: &str) -> Option<(VlanId, u16, VlanId)> {
    let number = |text: &str| -> Option<u16> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    let vlan = |text: &str| number(text).and_then(VlanId::new);
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (vlan(first)?, vlan(last)?);
        return (first <= last).then_some((first, 1, last));
    }
    let Some((first, others)) = text.split_once('+') else {
        return vlan(text).map(|only| (only, 1, only));
    };
    let (first, (step, count)) = (vlan(first)?, others.split_once('x')?);
    let step = number(step).filter(|step| *step > 0)?;
    let last = number(count)?.checked_mul(step)?.checked_add(first.get())?;
    Some((first, step, VlanId::new(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_toolstacks_write() {
        for (text, expected) in [
            ("10", Ok("VLAN 10")),
            ("10p", Ok("VLAN 10")),
            ("10u", Err(VlanError::Untagged)),
            ("10p/20", Ok("VLAN 10, tagged VLANs 20")),
            ("20/10p", Ok("VLAN 10, tagged VLANs 20")),
            ("10p/100+10x4", Ok("VLAN 10, tagged VLANs 100, 110, 120, 130, 140")),
            ("10p/30-33/4094", Ok("VLAN 10, tagged VLANs 30, 31, 32, 33, 4094")),
            ("10p/9-11", Ok("VLAN 10, tagged VLANs 9, 11")),
            ("10p/10p", Ok("VLAN 10")),
            ("5-5", Ok("VLAN 5")),
            ("10p/7+3x0", Ok("VLAN 10, tagged VLANs 7")),
            ("10/20", Err(VlanError::NoNative)),
            ("10-20", Err(VlanError::NoNative)),
            ("10p/20p", Err(VlanError::Untagged)),
            ("10p/20u", Err(VlanError::Untagged)),
            ("10p/20-30u", Err(VlanError::Untagged)),
            ("", Err(VlanError::Malformed)),
            ("0", Err(VlanError::Malformed)),
            ("4095", Err(VlanError::Malformed)),
            ("65537", Err(VlanError::Malformed)),
            ("+10", Err(VlanError::Malformed)),
            ("10p/", Err(VlanError::Malformed)),
            ("10pu", Err(VlanError::Malformed)),
            ("10p/30-20", Err(VlanError::Malformed)),
            ("10-20p", Err(VlanError::Malformed)),
            ("10p/100+0x4", Err(VlanError::Malformed)),
            ("10p/4000+50x2", Err(VlanError::Malformed)),
            ("10p/100+65535x65535", Err(VlanError::Malformed)),
            ("10p/100+10", Err(VlanError::Malformed)),
            ("web", Err(VlanError::Malformed)),
        ] {
            let found = parse(text).map(|vlans| vlans.to_string());
            assert_eq!(found.as_deref(), expected.as_deref(), "{text}");
        }
        let all = parse("1p/1-4094").unwrap();
        assert!((1..=4094).all(|vlan| all.carry(vlan)) && !all.carry(0) && all.is_untagged(1));
    }
}

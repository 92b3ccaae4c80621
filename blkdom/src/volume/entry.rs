//! What a target may name, and what it means then. Pure. Floor 3.

use super::fault::{Unusable, Unwritable};
use super::{UnitRef, Volume};
use crate::disk::Geometry;
use alloc::string::String;
use alloc::vec::Vec;

/// Something that a target may name.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its names, the one that it is known by first.
    pub(super) names: Vec<String>,
    /// Where it lies and why it may be read only, if so; or why it cannot be had.
    pub(super) what: Result<(Volume, Option<Unwritable>), Unusable>,
    /// Whether it is shown where names are listed.
    pub(super) listed: bool,
    /// The units whose tables and metadata say that there is such a thing; none for a unit itself.
    pub(super) grounds: Vec<UnitRef>,
}

/// What a target means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The name that it is known by.
    pub name: String,
    /// The name by its disk's serial number, which no change of slots or cables moves, where it has one.
    pub lasting: Option<String>,
    /// Where it lies.
    pub volume: Volume,
    /// Its size, and what its units together can do.
    pub geometry: Geometry,
    /// Why it may be read only, where that is not its units' own doing.
    pub unwritable: Option<Unwritable>,
    /// The target says that it is shared: [`super::Access::from_mode`].
    pub shared: bool,
}

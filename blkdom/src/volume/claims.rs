//! Who has which sectors: a volume is not handed out twice for writing, under whatever names. Pure. Floor 3.

use super::entry::Resolved;
use super::target::Printable;
use super::{Piece, Volume};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

/// What somebody wants to do with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it. Not while somebody writes without saying that he shares: what was read would change underneath.
    Read,
    /// Write it, alone.
    Write,
    /// Write it beside others who say the same, and beside readers.
    SharedWrite,
}

impl Access {
    /// What a vbd's `mode` asks for, as Xen's block script reads it; `shared` where the target said so ([`Resolved::shared`]).
    pub fn from_mode(mode: &str, shared: bool) -> Self {
        match (mode.contains('w'), shared || mode.contains('!')) {
            (false, _) => Self::Read,
            (true, false) => Self::Write,
            (true, true) => Self::SharedWrite,
        }
    }

    /// Whether it can change anything.
    pub fn writes(self) -> bool {
        self != Self::Read
    }

    fn agrees(self, other: Self) -> bool {
        self != Self::Write && other != Self::Write
    }
}

/// Somebody else has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimError {
    /// What was asked for.
    pub wanted: String,
    /// How.
    pub access: Access,
    /// Who has it, or a part of it: `domain 5's xvda (51712)`.
    pub holder: String,
    /// Under which name.
    pub volume: String,
    /// How he has it.
    pub held: Access,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, access, holder, volume, held } = self;
        let (holder, volume, wanted) = (Printable(holder), Printable(volume), Printable(wanted));
        let purpose = match held {
            Access::Read => "reading",
            Access::Write => "writing",
            Access::SharedWrite => "shared writing",
        };
        write!(formatter, "{holder} has {volume} for {purpose}")?;
        if self.wanted != self.volume {
            write!(formatter, ", and {wanted} has sectors in common with it")?;
        }
        match (access, held) {
            (Access::Read, _) => {
                formatter.write_str("; it can be read only beside a writer that shares it (target=w!:...)")
            }
            (_, Access::Read) => {
                formatter.write_str("; it can be written beside a reader only by who shares it (target=w!:...)")
            }
            _ => formatter.write_str("; two may write it only if both share it (target=w!:...)"),
        }
    }
}

impl core::error::Error for ClaimError {}

#[derive(Debug)]
struct Held {
    id: u64,
    holder: String,
    volume: String,
    access: Access,
    extents: Vec<Piece>,
}

#[derive(Debug, Default)]
struct Holders {
    next: u64,
    held: Vec<Held>,
    ended: Ended,
}

/// Sectors whose claims for writing ended since the last scan began: what it read there may be something else by now.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    pieces: Vec<Piece>,
    /// There were too many to be told apart.
    everywhere: bool,
}

impl Ended {
    /// Runs that are told apart.
    const PIECES: usize = 1024;

    /// Whether one of them is among those of `piece`.
    pub fn covers(&self, piece: &Piece) -> bool {
        self.everywhere || self.pieces.iter().any(|ended| ended.overlaps(piece))
    }

    fn add(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            if !self.pieces.contains(piece) {
                self.pieces.push(*piece);
            }
        }
        if self.pieces.len() > Self::PIECES {
            self.pieces.clear();
            self.everywhere = true;
        }
    }
}

impl Holders {
    /// Whoever of the others stands against it.
    fn conflict(&self, wanted: &Resolved, extents: &[Piece], access: Access, own: Option<u64>) -> Option<ClaimError> {
        let mut others = self.held.iter().filter(|held| Some(held.id) != own && !held.access.agrees(access));
        let held =
            others.find(|held| held.extents.iter().any(|piece| extents.iter().any(|own| own.overlaps(piece))))?;
        let (holder, volume) = (held.holder.clone(), held.volume.clone());
        Some(ClaimError { wanted: wanted.name.clone(), access, holder, volume, held: held.access })
    }
}

/// All claims.
#[derive(Debug, Default)]
pub struct Claims {
    holders: Rc<RefCell<Holders>>,
}

/// A volume is somebody's; dropping this gives it back.
#[derive(Debug)]
pub struct Claim {
    id: u64,
    access: Access,
    holders: Rc<RefCell<Holders>>,
}

impl Claims {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims a volume for `holder` (`domain 5's xvda (51712)`).
    ///
    /// # Errors
    /// Who has a part of it in a way that does not agree.
    pub fn claim(&self, holder: String, wanted: &Resolved, access: Access) -> Result<Claim, ClaimError> {
        let extents: Vec<Piece> = wanted.volume.extents().collect();
        let mut holders = self.holders.borrow_mut();
        if let Some(error) = holders.conflict(wanted, &extents, access, None) {
            return Err(error);
        }
        let id = holders.next;
        holders.next += 1;
        holders.held.push(Held { id, holder, volume: wanted.name.clone(), access, extents });
        Ok(Claim { id, access, holders: self.holders.clone() })
    }

    /// A scan begins: what [`ended`](Self::ended) says is of it from now on. Gives what it must not read.
    pub fn begin_scan(&self) -> Vec<Piece> {
        self.holders.borrow_mut().ended = Ended::default();
        self.written()
    }

    /// What guests may have written, and have no longer, since the last scan began.
    pub fn ended(&self) -> Ended {
        self.holders.borrow().ended.clone()
    }

    /// All sectors that some guest may write.
    pub fn written(&self) -> Vec<Piece> {
        let holders = self.holders.borrow();
        holders.held.iter().filter(|held| held.access.writes()).flat_map(|held| held.extents.iter().copied()).collect()
    }

    /// Whether somebody has a part of it.
    pub fn is_claimed(&self, volume: &Volume) -> bool {
        let holders = self.holders.borrow();
        let mut pieces = holders.held.iter().flat_map(|held| held.extents.iter());
        pieces.any(|piece| volume.extents().any(|extent| extent.overlaps(piece)))
    }
}

impl Claim {
    /// The volume has another size now, or lies elsewhere: claims that instead.
    ///
    /// # Errors
    /// Who has a part of it; the claim is then what it was.
    pub fn update(&self, wanted: &Resolved) -> Result<(), ClaimError> {
        let extents: Vec<Piece> = wanted.volume.extents().collect();
        let mut holders = self.holders.borrow_mut();
        if let Some(error) = holders.conflict(wanted, &extents, self.access, Some(self.id)) {
            return Err(error);
        }
        let holders = &mut *holders;
        if let Some(held) = holders.held.iter_mut().find(|held| held.id == self.id) {
            if held.access.writes() {
                holders.ended.add(&held.extents);
            }
            held.extents = extents;
        }
        Ok(())
    }

    /// What it is claimed for.
    pub fn access(&self) -> Access {
        self.access
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let holders = &mut *self.holders.borrow_mut();
        for held in holders.held.extract_if(.., |held| held.id == self.id) {
            if held.access.writes() {
                holders.ended.add(&held.extents);
            }
        }
    }
}

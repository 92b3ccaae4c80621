//! Checks whether a file is an image that can take the place of the running one, page by page as it comes. Pure. Floor 2.

use super::identity::{self, Identity, NOTE_OWNER, Text};
use xen_pv_sys::PAGE_SIZE;
use xen_pv_sys::elfnote::XEN_ELFNOTE_HYPERCALL_PAGE;

/// The note by which an image says how it is laid out: owner `oxidom`, type 1, three words as in [`Frame`].
const FRAME_NOTE: u32 = 1;
const XEN_OWNER: &[u8] = b"Xen\0";
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const EXECUTE: u32 = 1;
const WRITE: u32 = 2;
const READ: u32 = 4;

/// What an image must have in common with the running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Of what outlives a restart.
    pub layout: u64,
    /// Its first page, which holds the hypercall page.
    pub base: u64,
    /// Where the part begins that does not change.
    pub tail: u64,
}

/// Why a file cannot take the place of the running image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It is no x86-64 executable of fixed addresses, or it is cut off.
    NotElf,
    /// No note says that it is an image of ours.
    NotOurs,
    /// It is an image of ours, of another layout.
    OtherFrame(Frame),
    /// It is an image of ours that does something else: its name, and the running one's.
    OtherKind(Text, Text),
    /// It reads states of these versions, and the running image leaves one of another.
    OtherState {
        /// The oldest and the newest that it reads.
        reads: (u32, u32),
        /// What the running image leaves.
        left: u32,
    },
    /// The segment at this address does not lie in whole pages of its own, in the file too, between the first page and the tail.
    Misplaced(u64),
    /// The segment at this address could be written and executed, or not even read.
    Permissions(u64),
    /// The entry is not in its text.
    Entry(u64),
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotElf => formatter.write_str("it is no whole ELF file of an x86-64 program at fixed addresses"),
            Self::NotOurs => formatter.write_str("it is no image of oxidom's"),
            Self::OtherFrame(_) => {
                formatter.write_str("its runtime lays memory out otherwise; only a new start of the domain can run it")
            }
            Self::OtherKind(name, own) => {
                write!(formatter, "it is an image of {name}, and the running one is of {own}")
            }
            Self::OtherState { reads: (oldest, newest), left } => write!(
                formatter,
                "it goes on from states of version {oldest} to {newest}, and the running image leaves one of version {left}; \
                 only a new start of the domain can run it"
            ),
            Self::Misplaced(address) => {
                write!(formatter, "its segment at {address:#x} is where none may be")
            }
            Self::Permissions(address) => {
                write!(formatter, "its segment at {address:#x} could be written and executed, or not read")
            }
            Self::Entry(address) => write!(formatter, "it begins at {address:#x}, outside of its text"),
        }
    }
}

impl core::error::Error for ImageError {}

/// How a page is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// R-X.
    Text = 1,
    /// R--.
    Constant = 2,
    /// RW-.
    Data = 3,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    /// Where its bytes are in the file, and how many.
    offset: u64,
    length: u64,
    kind: Kind,
}

/// A page of the file that the image has in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: u64,
    pub(super) kind: Kind,
    /// How many of its bytes count; zeros are behind them.
    pub(super) length: usize,
}

/// Segments of notes that an image has at most.
const NOTE_SEGMENTS: usize = 4;

/// An image of which the file comes page by page.
#[derive(Debug)]
pub(super) struct Image {
    /// Its first instruction.
    pub(super) entry: u64,
    own: Frame,
    own_identity: Identity,
    segments: [Option<Segment>; 3],
    /// Where notes are in the file, and how many bytes.
    notes: [Option<(u64, u64)>; NOTE_SEGMENTS],
    /// What they said so far.
    said: Notes,
    /// Why it cannot take the place of this one, if its notes are ours.
    flaw: Option<ImageError>,
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl Image {
    /// From the first page of a file of `size` bytes, which has its headers.
    pub(super) fn begin(first: &[u8], size: u64, own: Frame, own_identity: Identity) -> Result<Self, ImageError> {
        let headers = program_headers(first).ok_or(ImageError::NotElf)?;
        let entry = u64_at(first, 24).ok_or(ImageError::NotElf)?;
        let mut image = Self {
            entry,
            own,
            own_identity,
            segments: [None; 3],
            notes: [None; NOTE_SEGMENTS],
            said: Notes::default(),
            flaw: None,
        };
        let notes = headers.clone().filter(|header| u32_at(header, 0) == Some(PT_NOTE));
        for (slot, header) in image.notes.iter_mut().zip(notes) {
            *slot = u64_at(header, 8).zip(u64_at(header, 32));
        }
        image.flaw = image.load(headers.filter(|header| u32_at(header, 0) == Some(PT_LOAD)), size).err();
        Ok(image)
    }

    fn load<'h>(&mut self, headers: impl Iterator<Item = &'h [u8]>, size: u64) -> Result<(), ImageError> {
        let (mut end, mut file_end) = (self.own.base, 0);
        let mut slots = self.segments.iter_mut();
        for header in headers {
            let (segment, memory_end) = load(header, size, self.own, end, file_end)?;
            end = memory_end;
            file_end = segment.offset.saturating_add(segment.length);
            *slots.next().ok_or(ImageError::Misplaced(segment.address))? = Some(segment);
        }
        // The first page stays as Xen filled it, so it must be the text's.
        if self.kind_at(self.own.base) != Some(Kind::Text) {
            return Err(ImageError::NotOurs);
        }
        match self.kind_at(self.entry) {
            Some(Kind::Text) if self.entry >= self.own.base + PAGE_SIZE as u64 => Ok(()),
            _ => Err(ImageError::Entry(self.entry)),
        }
    }

    /// Takes in the next page of the file, the one at `offset`: where it goes, if the image has it in its memory.
    pub(super) fn page(&mut self, offset: u64, bytes: &[u8]) -> Option<Place> {
        for (start, length) in self.notes.into_iter().flatten() {
            let start = start.checked_sub(offset).and_then(|start| usize::try_from(start).ok());
            let notes = start.zip(usize::try_from(length).ok());
            let notes = notes.and_then(|(start, length)| bytes.get(start..)?.get(..length));
            if let Some(said) = notes.and_then(read_notes).filter(|said| said.frame.is_some()) {
                self.said = said;
            }
        }
        self.segments.iter().flatten().find_map(|segment| {
            let within = offset.checked_sub(segment.offset)?;
            let rest = segment.length.checked_sub(within).filter(|rest| *rest > 0)?;
            let length = rest.min(PAGE_SIZE as u64) as usize;
            Some(Place { address: segment.address.checked_add(within)?, kind: segment.kind, length })
        })
    }

    /// What can be known before the running image is given up, once the whole file was taken in.
    pub(super) fn finish(&self) -> Result<(), ImageError> {
        if self.said.frame.is_none() {
            return Err(ImageError::NotOurs);
        }
        self.check_notes()?;
        self.flaw.map_or(Ok(()), Err)
    }

    /// What the notes that have come tell of it.
    pub(super) fn check_notes(&self) -> Result<(), ImageError> {
        let own = self.own_identity;
        match self.said {
            Notes { frame: None, .. } => Ok(()),
            Notes { frame: Some(frame), .. } if frame != self.own => Err(ImageError::OtherFrame(frame)),
            Notes { identity: None, .. } => Err(ImageError::NotOurs),
            Notes { identity: Some(new), .. } if new.name != own.name => Err(ImageError::OtherKind(new.name, own.name)),
            Notes { identity: Some(new), .. } if !new.reads_state_of(&own) => {
                Err(ImageError::OtherState { reads: (new.reads, new.writes), left: own.writes })
            }
            Notes { .. } => Ok(()),
        }
    }

    /// What holds the byte at an address; `None` where the file says nothing of it.
    pub(super) fn kind_at(&self, address: u64) -> Option<Kind> {
        let has =
            |segment: &&Segment| address.checked_sub(segment.address).is_some_and(|offset| offset < segment.length);
        self.segments.iter().flatten().find(has).map(|segment| segment.kind)
    }
}

/// The program headers of an x86-64 executable (`ET_EXEC`), by the first page of its file.
fn program_headers(first: &[u8]) -> Option<core::slice::ChunksExact<'_, u8>> {
    let magic = first.first_chunk::<7>()? == b"\x7fELF\x02\x01\x01";
    let executable = u16_at(first, 16)? == 2 && u16_at(first, 18)? == 62;
    let size = usize::from(u16_at(first, 54)?) == PROGRAM_HEADER;
    let bytes = usize::from(u16_at(first, 56)?) * PROGRAM_HEADER;
    let headers = first.get(usize::try_from(u64_at(first, 32)?).ok()?..)?.get(..bytes)?;
    (magic && executable && size).then(|| headers.chunks_exact(PROGRAM_HEADER))
}

/// What notes tell.
#[derive(Clone, Copy, Debug, Default)]
struct Notes {
    /// Where they also tell that Xen's hypercall page is the first one.
    frame: Option<Frame>,
    identity: Option<Identity>,
}

/// What notes tell; `None` where they are cut off.
fn read_notes(mut notes: &[u8]) -> Option<Notes> {
    let (mut frame, mut identity) = (None, None);
    let mut hypercall_page = None;
    while !notes.is_empty() {
        let (owner_length, length) = (u32_at(notes, 0)? as usize, u32_at(notes, 4)? as usize);
        let owner = notes.get(12..)?.get(..owner_length)?;
        let start = 12 + owner_length.next_multiple_of(4);
        let content = notes.get(start..)?.get(..length)?;
        match (owner, u32_at(notes, 8)?) {
            (NOTE_OWNER, FRAME_NOTE) => {
                frame =
                    Some(Frame { layout: u64_at(content, 0)?, base: u64_at(content, 8)?, tail: u64_at(content, 16)? });
            }
            (NOTE_OWNER, identity::NOTE_TYPE) => identity = Some(Identity::parse(content)?),
            (XEN_OWNER, XEN_ELFNOTE_HYPERCALL_PAGE) => hypercall_page = u64_at(content, 0),
            _ => {}
        }
        notes = notes.get(start + length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(Notes { frame: frame.filter(|frame: &Frame| hypercall_page == Some(frame.base)), identity })
}

/// A loadable segment that begins at `start` or later, in a file of `size` bytes from `file_start` on, and where it ends in memory.
fn load(header: &[u8], size: u64, own: Frame, start: u64, file_start: u64) -> Result<(Segment, u64), ImageError> {
    let field = |offset| u64_at(header, offset).ok_or(ImageError::NotElf);
    let flags = u32_at(header, 4).ok_or(ImageError::NotElf)?;
    let (offset, address, length, memory) = (field(8)?, field(16)?, field(32)?, field(40)?);
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(ImageError::NotElf);
    }
    let kind = match flags & (READ | WRITE | EXECUTE) {
        flags if flags == READ | EXECUTE => Kind::Text,
        READ => Kind::Constant,
        flags if flags == READ | WRITE => Kind::Data,
        _ => return Err(ImageError::Permissions(address)),
    };
    let misplaced = ImageError::Misplaced(address);
    let end = address.checked_add(memory).ok_or(misplaced)?;
    let page_end = end.checked_next_multiple_of(PAGE_SIZE as u64).ok_or(misplaced)?;
    let content_end = address.checked_add(length).ok_or(misplaced)?;
    // What is zeroed, the tail among it, is data; all else comes from the file.
    let fits = if kind == Kind::Data { length <= memory } else { length == memory };
    let whole_pages = [address, offset].iter().all(|place| place.is_multiple_of(PAGE_SIZE as u64));
    if !fits || address < start || offset < file_start || !whole_pages || content_end > own.tail {
        return Err(misplaced);
    }
    Ok((Segment { address, offset, length, kind }, page_end))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{Frame, Identity, Image, ImageError, Kind, Place, Text};
    use std::vec;
    use std::vec::Vec;

    const OWN: Frame = Frame { layout: 1, base: 0x40_0000, tail: 0x5d_6000 };

    fn own_identity() -> Identity {
        Identity { writes: 3, reads: 2, name: Text::new("netdom"), version: Text::new("0.1.0"), read_by: 3 }
    }

    fn identity(name: &str, writes: u32, reads: u32) -> Vec<u8> {
        let mut content = [writes.to_le_bytes(), reads.to_le_bytes()].concat();
        for (text, end) in [(name, 24), ("0.2.0", 40)] {
            content.extend(text.bytes());
            content.resize(end, 0);
        }
        content
    }

    fn note(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [owner.len() as u32, content.len() as u32, kind] {
            note.extend(number.to_le_bytes());
        }
        note.extend(owner);
        note.resize(note.len().next_multiple_of(4), 0);
        note.extend(content);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Type, flags, address, bytes, bytes of memory.
    type Header = (u32, u32, u64, Vec<u8>, u64);
    type Change = fn(&mut Vec<Header>);

    fn headers() -> Vec<Header> {
        headers_of(&[note(b"oxidom\0", 2, &identity("netdom", 3, 3))])
    }

    /// With notes behind the two that each image has.
    fn headers_of(notes: &[Vec<u8>]) -> Vec<Header> {
        let frame = note(b"oxidom\0", 1, &words(&[OWN.layout, OWN.base, OWN.tail]));
        let notes = [note(b"Xen\0", 2, &words(&[OWN.base])), frame, notes.concat()].concat();
        vec![
            (1, 5, 0x40_0000, vec![0x90; 0x2345], 0x2345),
            (1, 4, 0x40_3000, vec![1; 0x1001], 0x1001),
            (1, 6, 0x40_5000, vec![2; 0x10], 0x20_0000),
            (4, 4, 0x40_3000, notes, 0),
        ]
    }

    fn file(entry: u64, headers: &[Header]) -> Vec<u8> {
        let mut file = vec![0; 64 + headers.len() * 56];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16] = 2;
        file[18] = 62;
        file[24..32].copy_from_slice(&entry.to_le_bytes());
        file[32] = 64;
        file[54] = 56;
        file[56] = headers.len() as u8;
        for (index, (kind, flags, address, bytes, memory)) in headers.iter().enumerate() {
            file.resize(file.len().next_multiple_of(4096), 0);
            let words = [file.len() as u64, *address, *address, bytes.len() as u64, *memory, 4096];
            let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
            header.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            file[64 + index * 56..][..56].copy_from_slice(&header);
            file.extend(bytes);
        }
        file
    }

    type Places<'f> = Vec<(Place, &'f [u8])>;

    /// The image of a whole file, and its pages.
    fn check(file: &[u8]) -> Result<(Image, Places<'_>), ImageError> {
        let mut pages = file.chunks(4096);
        let mut image = Image::begin(pages.clone().next().unwrap_or_default(), file.len() as u64, OWN, own_identity())?;
        let mut places = Vec::new();
        for (offset, bytes) in (0..).step_by(4096).zip(&mut pages) {
            places.extend(image.page(offset, bytes).map(|place| (place, &bytes[..place.length])));
        }
        image.finish().map(|()| (image, places))
    }

    fn changed(change: impl FnOnce(&mut Vec<Header>)) -> Result<(), ImageError> {
        let mut headers = headers();
        change(&mut headers);
        check(&file(0x40_1000, &headers)).map(|_| ())
    }

    #[test]
    fn an_image_gives_its_pages() {
        let file = file(0x40_1000, &headers());
        let (image, pages) = check(&file).unwrap();
        assert_eq!(image.entry, 0x40_1000);
        let place = |address, kind, length| Place { address, kind, length };
        let expected: [(Place, &[u8]); 6] = [
            (place(0x40_0000, Kind::Text, 4096), &[0x90; 4096]),
            (place(0x40_1000, Kind::Text, 4096), &[0x90; 4096]),
            (place(0x40_2000, Kind::Text, 0x345), &[0x90; 0x345]),
            (place(0x40_3000, Kind::Constant, 4096), &[1; 4096]),
            (place(0x40_4000, Kind::Constant, 1), &[1]),
            (place(0x40_5000, Kind::Data, 16), &[2; 16]),
        ];
        assert_eq!(pages, expected);
        let kinds = [0x3f_ffff, 0x40_2344, 0x40_2345, 0x40_4000, 0x40_500f, 0x40_6000].map(|at| image.kind_at(at));
        assert_eq!(kinds, [None, Some(Kind::Text), None, Some(Kind::Constant), Some(Kind::Data), None]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        use ImageError::{Entry, Misplaced, NotElf, NotOurs, OtherFrame, OtherKind, Permissions};
        assert_eq!(changed(|_| ()), Ok(()));
        let table: [(Change, ImageError); 12] = [
            (|headers| headers[0].1 = 7, Permissions(0x40_0000)),
            (|headers| headers[1].1 = 0, Permissions(0x40_3000)),
            (|headers| headers[1].2 = 0x40_2000, Misplaced(0x40_2000)),
            (|headers| headers[1].2 = 0x40_3010, Misplaced(0x40_3010)),
            (|headers| headers[0].2 = 0x3f_f000, Misplaced(0x3f_f000)),
            (|headers| headers[2].2 = 0x5d_6000, Misplaced(0x5d_6000)),
            (|headers| headers[2].4 = u64::MAX, Misplaced(0x40_5000)),
            (|headers| headers[1].4 += 1, Misplaced(0x40_3000)),
            (|headers| headers.push((1, 6, 0x50_0000, Vec::new(), 0)), Misplaced(0x50_0000)),
            (|headers| headers[0].1 = 4, NotOurs),
            (|headers| headers[3].3.truncate(24), NotOurs),
            (|headers| headers[3].3[44] = 2, OtherFrame(Frame { layout: 2, ..OWN })),
        ];
        for (index, (change, expected)) in table.into_iter().enumerate() {
            assert_eq!(changed(change), Err(expected), "row {index}");
        }
        // Of the note that says which image it is.
        let identified = |notes: &[Vec<u8>]| check(&file(0x40_1000, &headers_of(notes))).map(|_| ());
        let of = |name, writes, reads| identified(&[note(b"oxidom\0", 2, &identity(name, writes, reads))]);
        let state = |reads| ImageError::OtherState { reads, left: 3 };
        assert_eq!(identified(&[]), Err(NotOurs));
        assert_eq!(identified(&[note(b"oxidom\0", 2, &identity("netdom", 3, 3)[..39])]), Err(NotOurs));
        assert_eq!(of("blkdom", 3, 3), Err(OtherKind(Text::new("blkdom"), Text::new("netdom"))));
        assert_eq!([of("netdom", 4, 3), of("netdom", 3, 1)], [Ok(()), Ok(())]);
        assert_eq!([of("netdom", 4, 4), of("netdom", 2, 2)], [Err(state((4, 4))), Err(state((2, 2)))]);
        for entry in [0, 0x40_0010, 0x40_3000, 0x40_5000, u64::MAX] {
            assert_eq!(check(&file(entry, &headers())).err(), Some(Entry(entry)));
        }
        let whole = file(0x40_1000, &headers());
        for length in 0..whole.len() {
            assert!(check(&whole[..length]).is_err(), "cut at {length}");
        }
        let mut shifted = headers();
        shifted[1].3.insert(0, 1);
        let mut shifted = file(0x40_1000, &shifted);
        // The second segment's bytes begin one later than a page of the file.
        shifted[64 + 56 + 8] += 1;
        shifted[64 + 56 + 32] -= 1;
        assert_eq!(check(&shifted).err(), Some(Misplaced(0x40_3000)));
        // Two segments of the same bytes.
        let mut twice = whole.clone();
        twice.copy_within(64 + 8..64 + 16, 64 + 56 + 8);
        assert_eq!(check(&twice).err(), Some(Misplaced(0x40_3000)));
        assert_eq!(check(&[]).err(), Some(NotElf));
    }
}

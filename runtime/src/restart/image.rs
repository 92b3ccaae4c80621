//! Checks whether a file is an image that can take the place of the running one. Pure. Floor 2.

use alloc::vec::Vec;
use xen_pv_sys::PAGE_SIZE;
use xen_pv_sys::elfnote::XEN_ELFNOTE_HYPERCALL_PAGE;

/// The note by which an image says how it is laid out: owner `oxidom`, type 1, three words as in [`Frame`].
const NOTE_OWNER: &[u8] = b"oxidom\0";
const NOTE_TYPE: u32 = 1;
const XEN_OWNER: &[u8] = b"Xen\0";
const FILE_HEADER: u64 = 64;
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
    /// The segment at this address does not lie in whole pages of its own, in the file too, between the first page and the tail.
    Misplaced(u64),
    /// The segment at this address could be written and executed, or not even read.
    Permissions(u64),
    /// The entry is not in its text.
    Entry(u64),
}

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

/// A file in pieces of a page each, the last of which may be shorter: in a domain whose memory is used, there may be no longer piece.
#[derive(Clone, Copy, Debug)]
struct File<'a>(&'a [Vec<u8>]);

impl<'a> File<'a> {
    /// `None` where a piece has another length.
    fn new(pieces: &'a [Vec<u8>]) -> Option<Self> {
        let (last, others) = pieces.split_last()?;
        let fits = last.len() <= PAGE_SIZE && others.iter().all(|piece| piece.len() == PAGE_SIZE);
        fits.then_some(Self(pieces))
    }

    /// Bytes that lie in one piece.
    fn slice(self, offset: u64, length: u64) -> Option<&'a [u8]> {
        let piece = self.0.get(usize::try_from(offset / PAGE_SIZE as u64).ok()?)?;
        let start = (offset % PAGE_SIZE as u64) as usize;
        piece.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    }

    /// Whether the file has those bytes.
    fn has(self, offset: u64, length: u64) -> bool {
        let all: usize = self.0.iter().map(Vec::len).sum();
        offset.checked_add(length).is_some_and(|end| end <= all as u64)
    }
}

/// An image that can be entered.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// Its first instruction.
    pub(super) entry: u64,
    file: File<'a>,
    segments: [Option<Segment>; 3],
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

impl<'a> Image<'a> {
    /// Checks everything that can be known before the running image is given up. `pieces` are the file's pages.
    pub(super) fn check(pieces: &'a [Vec<u8>], own: Frame) -> Result<Self, ImageError> {
        let file = File::new(pieces).ok_or(ImageError::NotElf)?;
        let headers = program_headers(file).ok_or(ImageError::NotElf)?;
        let entry = file.slice(24, 8).and_then(|bytes| u64_at(bytes, 0)).ok_or(ImageError::NotElf)?;
        let frame = headers.clone().find_map(|header| frame(file, header)).ok_or(ImageError::NotOurs)?;
        if frame != own {
            return Err(ImageError::OtherFrame(frame));
        }
        let mut image = Self { entry, file, segments: [None; 3] };
        let mut end = own.base;
        let mut slots = image.segments.iter_mut();
        for header in headers.filter(|header| u32_at(header, 0) == Some(PT_LOAD)) {
            let (segment, memory_end) = load(file, header, own, end)?;
            end = memory_end;
            *slots.next().ok_or(ImageError::Misplaced(segment.address))? = Some(segment);
        }
        // The first page stays as Xen filled it, so it must be the text's.
        if image.page(own.base).map(|(kind, _)| kind) != Some(Kind::Text) {
            return Err(ImageError::NotOurs);
        }
        match image.page(entry & !(PAGE_SIZE as u64 - 1)) {
            Some((Kind::Text, _)) if entry >= own.base + PAGE_SIZE as u64 => Ok(image),
            _ => Err(ImageError::Entry(entry)),
        }
    }

    /// What the page at an address holds, at most a page of bytes, zeros behind; `None` where the file says nothing of it.
    pub(super) fn page(&self, address: u64) -> Option<(Kind, &'a [u8])> {
        self.segments.iter().flatten().find_map(|segment| {
            let offset = address.checked_sub(segment.address)?;
            let rest = segment.length.checked_sub(offset).filter(|rest| *rest > 0)?;
            let bytes = self.file.slice(segment.offset.checked_add(offset)?, rest.min(PAGE_SIZE as u64))?;
            Some((segment.kind, bytes))
        })
    }
}

/// The program headers of an x86-64 executable (`ET_EXEC`).
fn program_headers(file: File<'_>) -> Option<core::slice::ChunksExact<'_, u8>> {
    let header = file.slice(0, FILE_HEADER)?;
    let magic = header.first_chunk::<7>()? == b"\x7fELF\x02\x01\x01";
    let executable = u16_at(header, 16)? == 2 && u16_at(header, 18)? == 62;
    let size = usize::from(u16_at(header, 54)?) == PROGRAM_HEADER;
    let bytes = usize::from(u16_at(header, 56)?) * PROGRAM_HEADER;
    let headers = file.slice(u64_at(header, 32)?, bytes as u64)?;
    (magic && executable && size).then(|| headers.chunks_exact(PROGRAM_HEADER))
}

/// The frame that the notes of a header tell, where they also tell that Xen's hypercall page is the first one.
fn frame(file: File<'_>, header: &[u8]) -> Option<Frame> {
    if u32_at(header, 0)? != PT_NOTE {
        return None;
    }
    let mut notes = file.slice(u64_at(header, 8)?, u64_at(header, 32)?)?;
    let mut frame = None;
    let mut hypercall_page = None;
    while !notes.is_empty() {
        let (owner_length, length) = (u32_at(notes, 0)? as usize, u32_at(notes, 4)? as usize);
        let owner = notes.get(12..)?.get(..owner_length)?;
        let start = 12 + owner_length.next_multiple_of(4);
        let content = notes.get(start..)?.get(..length)?;
        match (owner, u32_at(notes, 8)?) {
            (NOTE_OWNER, NOTE_TYPE) => {
                frame =
                    Some(Frame { layout: u64_at(content, 0)?, base: u64_at(content, 8)?, tail: u64_at(content, 16)? });
            }
            (XEN_OWNER, XEN_ELFNOTE_HYPERCALL_PAGE) => hypercall_page = u64_at(content, 0),
            _ => {}
        }
        notes = notes.get(start + length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    frame.filter(|frame| hypercall_page == Some(frame.base))
}

/// A loadable segment that begins at `start` or later, and where it ends in memory.
fn load(file: File<'_>, header: &[u8], own: Frame, start: u64) -> Result<(Segment, u64), ImageError> {
    let field = |offset| u64_at(header, offset).ok_or(ImageError::NotElf);
    let flags = u32_at(header, 4).ok_or(ImageError::NotElf)?;
    let (offset, address, length, memory) = (field(8)?, field(16)?, field(32)?, field(40)?);
    if !file.has(offset, length) {
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
    if !fits || address < start || !whole_pages || content_end > own.tail {
        return Err(misplaced);
    }
    Ok((Segment { address, offset, length, kind }, page_end))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{Frame, Image, ImageError, Kind};
    use std::vec;
    use std::vec::Vec;

    const OWN: Frame = Frame { layout: 1, base: 0x40_0000, tail: 0x5d_6000 };

    fn note(owner: &[u8], kind: u32, words: &[u64]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [owner.len() as u32, words.len() as u32 * 8, kind] {
            note.extend(number.to_le_bytes());
        }
        note.extend(owner);
        note.resize(note.len().next_multiple_of(4), 0);
        note.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        note
    }

    /// Type, flags, address, bytes, bytes of memory.
    type Header = (u32, u32, u64, Vec<u8>, u64);
    type Change = fn(&mut Vec<Header>);

    fn headers() -> Vec<Header> {
        let notes = [note(b"Xen\0", 2, &[OWN.base]), note(b"oxidom\0", 1, &[OWN.layout, OWN.base, OWN.tail])].concat();
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

    fn pieces(file: &[u8]) -> Vec<Vec<u8>> {
        file.chunks(4096).map(<[u8]>::to_vec).collect()
    }

    fn changed(change: impl FnOnce(&mut Vec<Header>)) -> Result<(), ImageError> {
        let mut headers = headers();
        change(&mut headers);
        Image::check(&pieces(&file(0x40_1000, &headers)), OWN).map(|_| ())
    }

    #[test]
    fn an_image_gives_its_pages() {
        let file = pieces(&file(0x40_1000, &headers()));
        let image = Image::check(&file, OWN).unwrap();
        assert_eq!(image.entry, 0x40_1000);
        assert_eq!(image.page(0x40_1000), Some((Kind::Text, &[0x90; 4096][..])));
        assert_eq!(image.page(0x40_2000), Some((Kind::Text, &[0x90; 0x345][..])));
        assert_eq!(image.page(0x40_4000), Some((Kind::Constant, &[1][..])));
        assert_eq!(image.page(0x40_5000), Some((Kind::Data, &[2; 16][..])));
        assert_eq!(image.page(0x40_6000), None);
        assert_eq!(image.page(0x3f_f000), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        use ImageError::{Entry, Misplaced, NotElf, NotOurs, OtherFrame, Permissions};
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
        for entry in [0, 0x40_0010, 0x40_3000, 0x40_5000, u64::MAX] {
            assert_eq!(Image::check(&pieces(&file(entry, &headers())), OWN).err(), Some(Entry(entry)));
        }
        let whole = file(0x40_1000, &headers());
        for length in 0..whole.len() {
            assert!(Image::check(&pieces(&whole[..length]), OWN).is_err(), "cut at {length}");
        }
        let mut odd = pieces(&whole);
        odd[1].pop();
        assert_eq!(Image::check(&odd, OWN).err(), Some(NotElf));
        let mut shifted = headers();
        shifted[1].3.insert(0, 1);
        let mut shifted = file(0x40_1000, &shifted);
        // The second segment's bytes begin one later than a page of the file.
        shifted[64 + 56 + 8] += 1;
        shifted[64 + 56 + 32] -= 1;
        assert_eq!(Image::check(&pieces(&shifted), OWN).err(), Some(Misplaced(0x40_3000)));
        assert_eq!(Image::check(&[], OWN).err(), Some(NotElf));
    }
}

//! Images as a later build would have them, made of those that were built. Host.

use anyhow::{Context, Result, bail};
use object::elf::{FileHeader64, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol};

/// What the compiler fills the space between functions with (`int3`).
const FILLER: u8 = 0xcc;

/// Changes a byte between functions, where none is ever executed, in each page of an image's text where such bytes are sure to be.
pub(crate) fn rebuild(image: &mut [u8]) -> Result<()> {
    const PAGE: usize = 4096;
    let header = FileHeader64::<LittleEndian>::parse(&*image)?;
    let segments = header.program_headers(LittleEndian, &*image)?.to_vec();
    for segment in segments {
        if segment.p_type(LittleEndian) != PT_LOAD || segment.p_flags(LittleEndian) & PF_X == 0 {
            continue;
        }
        let (start, length) = segment.file_range(LittleEndian);
        let text =
            image.get_mut(usize::try_from(start)?..).and_then(|rest| rest.get_mut(..usize::try_from(length).ok()?));
        for page in text.context("the text is cut off")?.chunks_mut(PAGE) {
            if let Some(byte) = between_functions(page).and_then(|place| page.get_mut(place)) {
                *byte = !FILLER;
            }
        }
    }
    Ok(())
}

/// A byte of a page that lies between functions: the last one of a filler. A function begins where 16 divides its address. Code has such bytes
/// too: constants by which it divides by five, of which four, seven or eight are alike (`0xcccccccc`, `0xcccccccccccccccd`).
fn between_functions(page: &[u8]) -> Option<usize> {
    const ALIGNMENT: usize = 16;
    let fillers =
        page.chunks_exact(ALIGNMENT).map(|line| line.iter().rev().take_while(|byte| **byte == FILLER).count());
    let found = fillers.enumerate().find(|(_, count)| matches!(count, 5 | 6 | 9..));
    found.map(|(line, _)| (line + 1) * ALIGNMENT - 1)
}

/// `ud2`: an invalid instruction.
pub(super) const FAULT: [u8; 2] = [0x0f, 0x0b];
/// `jmp` to itself.
pub(super) const HANG: [u8; 2] = [0xeb, 0xfe];

/// Has an image do this as soon as it has begun: it is all of its `main`. `debug` is the same image with symbols.
pub(super) fn begin_with(instruction: [u8; 2], image: &mut [u8], debug: &[u8]) -> Result<()> {
    let symbols = object::File::parse(debug)?;
    let main = symbols.symbols().find(|symbol| symbol.name() == Ok("oxidom_image_main")).context("no main")?.address();
    let header = FileHeader64::<LittleEndian>::parse(&*image)?;
    let place = header.program_headers(LittleEndian, &*image)?.iter().find_map(|segment| {
        let offset = main.checked_sub(segment.p_vaddr(LittleEndian))?;
        let (start, length) = segment.file_range(LittleEndian);
        (segment.p_type(LittleEndian) == PT_LOAD && offset < length).then_some(start + offset)
    });
    let place = usize::try_from(place.context("main is in no segment")?)?;
    image.get_mut(place..).and_then(|rest| rest.first_chunk_mut()).context("main is cut off")?.clone_from(&instruction);
    Ok(())
}

/// Has an image say that it writes, and reads, states of this version and no others (its note of type 2, `runtime/src/restart/identity.rs`).
pub(super) fn of_state(version: u32, image: &mut [u8]) -> Result<()> {
    const OWNER: &[u8] = b"oxidom\0\0";
    /// Bytes of the content, and the note's type.
    const HEADER: [u32; 2] = [44, 2];
    let mut head: Vec<u8> = [7, HEADER[0], HEADER[1]].iter().flat_map(|number: &u32| number.to_le_bytes()).collect();
    head.extend(OWNER);
    let places: Vec<usize> =
        image.windows(head.len()).enumerate().filter(|(_, bytes)| *bytes == head).map(|(at, _)| at).collect();
    let [place] = places[..] else {
        bail!("{} notes that say which image it is", places.len());
    };
    let content =
        image.get_mut(place + head.len()..).and_then(|rest| rest.first_chunk_mut::<44>()).context("no content")?;
    let bytes = version.to_le_bytes();
    for field in [0, 4, 40] {
        content.get_mut(field..field + 4).context("a field")?.copy_from_slice(&bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_in_code_is_no_filler() {
        // `movabs $0xcccccccccccccccd, %rax`, so that its constant ends where 16 divides the address, and one of eight such bytes.
        let mut page = vec![0x90; 4096];
        page[54..64].copy_from_slice(&[0x48, 0xb8, 0xcd, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]);
        page[88..96].fill(FILLER);
        page[124..128].fill(FILLER);
        assert_eq!(between_functions(&page), None);
        page[139..144].fill(FILLER);
        assert_eq!(between_functions(&page), Some(143));
        assert_eq!(between_functions(&[FILLER; 8]), None);
    }
}

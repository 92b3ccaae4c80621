//! Takes the kernel out of Debian's bzImage, once, so that nobody has to decompress it under emulation. Pure.
//!
//! The fields are those of the kernel's `Documentation/arch/x86/boot.rst`: `setup_sects`, `payload_offset`, `payload_length`.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

/// The ELF image inside of a bzImage.
pub(crate) fn extract(image: &[u8]) -> Result<Vec<u8>> {
    ensure!(
        image.get(0x202..0x206) == Some(b"HdrS") || image.get(0x1fe..0x200) == Some(&[0x55, 0xaa]),
        "not a bzImage"
    );
    let word = |offset: usize| {
        let bytes = image.get(offset..)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let sectors = *image.get(0x1f1).context("a bzImage cut short")?;
    let offset = word(0x248).context("a bzImage cut short")? + (usize::from(sectors) + 1) * 512;
    let length = word(0x24c).context("a bzImage cut short")?;
    let payload = image.get(offset..).and_then(|rest| rest.get(..length)).context("a payload beyond the image")?;
    let mut kernel = Vec::new();
    if payload.starts_with(b"\xfd7zXZ") {
        lzma_rust2::XzReader::new(payload, false).read_to_end(&mut kernel).context("its xz payload")?;
    } else if payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(payload).context("its zstd payload")?;
        decoder.read_to_end(&mut kernel).context("its zstd payload")?;
    } else {
        bail!("the payload is compressed by something other than xz and zstd");
    }
    ensure!(kernel.starts_with(b"\x7fELF"), "the payload is no ELF file");
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused() {
        for image in [Vec::new(), vec![0; 0x300], {
            let mut image = vec![0xff_u8; 0x1000];
            if let Some(magic) = image.get_mut(0x202..0x206) {
                magic.copy_from_slice(b"HdrS");
            }
            image
        }] {
            assert!(extract(&image).is_err());
        }
    }
}

//! Inputs in one file: a corpus, or all that ran in a world up to the input that failed. Host.
//!
//! Each input is its length, 16 bits little-endian, and its bytes.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Reads the inputs of a file, in their order.
///
/// # Errors
/// Why the file cannot be read; [`ErrorKind::InvalidData`] where it ends within an input.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    decode(&std::fs::read(path)?).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidData,
            format!("{}: it ends within an input; is it a file of inputs?", path.display()),
        )
    })
}

/// Writes a file of inputs.
///
/// # Errors
/// Why the file cannot be written; [`ErrorKind::InvalidInput`] for an input of 64 KiB and more.
pub fn write(path: &Path, inputs: &[Vec<u8>]) -> Result<()> {
    let mut bytes = Vec::new();
    for input in inputs {
        let length = u16::try_from(input.len())
            .map_err(|_| Error::new(ErrorKind::InvalidInput, format!("an input of {} bytes", input.len())))?;
        bytes.extend(length.to_le_bytes());
        bytes.extend(input);
    }
    std::fs::write(path, bytes)
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut inputs = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (input, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        inputs.push(input.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_the_inputs_that_were_written() {
        let path = std::env::temp_dir().join(format!("oxidom-inputs-{}", std::process::id()));
        let inputs = vec![vec![], vec![1, 2, 3], vec![0; 512]];
        write(&path, &inputs).unwrap();
        let read = read(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), inputs);
    }

    #[test]
    fn a_file_that_ends_within_an_input_is_refused() {
        assert_eq!(decode(&[]), Some(vec![]));
        assert_eq!(decode(&[2, 0, 7]), None);
        assert_eq!(decode(&[2]), None);
    }
}

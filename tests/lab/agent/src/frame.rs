//! Frames between the lab and its agent in dom0. Pure: bytes in, bytes out.
//!
//! A frame is `length: u32, kind: u8, id: u32` and `length` bytes of payload, little endian. The two ends of the channel are
//! built from one tree, so there is no version.

use std::io::{self, Read, Write};

/// The longest payload that either end accepts: files travel in one frame.
pub const MAX_PAYLOAD: usize = 256 << 20;

/// What a frame asks or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Lab to agent: run the payload with `sh -c` in dom0.
    Run = 1,
    /// Lab to agent: write a file; see [`encode_put`].
    Put = 2,
    /// Lab to agent: send the file named by the payload.
    Get = 3,
    /// Lab to agent: run a command in a guest; see [`encode_guest`].
    Guest = 4,
    /// Lab to agent: end the command of this id, which took too long.
    Kill = 5,
    /// Agent to lab: the toolstack is up; payload: the uptime as text.
    Ready = 16,
    /// Agent to lab: output of the command of this id.
    Output = 17,
    /// Agent to lab: the command of this id ended; payload: its status, `i32`.
    Exit = 18,
    /// Agent to lab: the agent itself could not do what was asked; payload: why.
    Failed = 19,
}

impl Kind {
    fn from_byte(byte: u8) -> io::Result<Self> {
        Ok(match byte {
            1 => Self::Run,
            2 => Self::Put,
            3 => Self::Get,
            4 => Self::Guest,
            5 => Self::Kill,
            16 => Self::Ready,
            17 => Self::Output,
            18 => Self::Exit,
            19 => Self::Failed,
            _ => return Err(invalid("unknown kind of frame")),
        })
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// Which request it belongs to.
    pub id: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Makes a frame.
    pub fn new(kind: Kind, id: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, id, payload: payload.into() }
    }

    /// Reads one frame; blocks until it is there.
    pub fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut header = [0_u8; 9];
        input.read_exact(&mut header)?;
        let [l0, l1, l2, l3, kind, i0, i1, i2, i3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD {
            return Err(invalid("a frame longer than the limit"));
        }
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        Ok(Self { kind: Kind::from_byte(kind)?, id: u32::from_le_bytes([i0, i1, i2, i3]), payload })
    }

    /// Writes the frame.
    pub fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(self.payload.len()).map_err(|_| invalid("payload too long"))?;
        let mut bytes = Vec::with_capacity(9 + self.payload.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        output.write_all(&bytes)?;
        output.flush()
    }
}

/// The payload of a [`Kind::Put`]: mode, length of the path, path, content.
pub fn encode_put(path: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + path.len() + content.len());
    bytes.extend_from_slice(&mode.to_le_bytes());
    bytes.extend_from_slice(&(path.len() as u32).to_le_bytes());
    bytes.extend_from_slice(path.as_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// Takes a [`Kind::Put`]'s payload apart: path, mode, content.
pub fn decode_put(payload: &[u8]) -> io::Result<(&str, u32, &[u8])> {
    let (mode, rest) = split_u32(payload)?;
    let (length, rest) = split_u32(rest)?;
    let (path, content) = rest.split_at_checked(length as usize).ok_or_else(|| invalid("a put cut short"))?;
    Ok((std::str::from_utf8(path).map_err(|_| invalid("a path that is not text"))?, mode, content))
}

/// The payload of a [`Kind::Guest`]: domain, command.
pub fn encode_guest(domain: u32, command: &str) -> Vec<u8> {
    let mut bytes = domain.to_le_bytes().to_vec();
    bytes.extend_from_slice(command.as_bytes());
    bytes
}

/// Takes a [`Kind::Guest`]'s payload apart: domain, command.
pub fn decode_guest(payload: &[u8]) -> io::Result<(u32, &[u8])> {
    split_u32(payload)
}

fn split_u32(bytes: &[u8]) -> io::Result<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| invalid("a number cut short"))?;
    Ok((u32::from_le_bytes(*number), rest))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_channel_and_a_cut_one_does_not() {
        let frame = Frame::new(Kind::Put, 7, encode_put("/tmp/x", 0o755, b"content"));
        let mut bytes = Vec::new();
        frame.write(&mut bytes).expect("a vector takes all");
        assert_eq!(Frame::read(&mut bytes.as_slice()).expect("whole"), frame);
        assert_eq!(decode_put(&frame.payload).expect("whole"), ("/tmp/x", 0o755, b"content".as_slice()));
        bytes.pop();
        assert!(Frame::read(&mut bytes.as_slice()).is_err());
    }

    #[test]
    fn lengths_and_kinds_beyond_the_limit_are_refused() {
        assert!(Frame::read(&mut [0xff_u8, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0].as_slice()).is_err());
        assert!(Frame::read(&mut [0_u8, 0, 0, 0, 99, 0, 0, 0, 0].as_slice()).is_err());
        assert!(decode_put(&[0, 0, 0, 0, 9, 0, 0, 0, b'x']).is_err());
    }
}

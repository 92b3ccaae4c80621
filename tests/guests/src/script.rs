//! What the image `puppet` is told and what it says, as lines of printable ASCII: for the image, for dom0's side, and for the host.
//!
//! A line holds words, by blanks. A word `q KIND . TRANSACTION . PAYLOAD` (without the blanks) is a request; a transaction is the number of
//! those that this connection has begun in this script, from 1, whatever the store calls it. What comes back is `m KIND . PAYLOAD` for
//! each message. In a payload, letters, digits and `/@_-` stand for themselves, `%XX` is any byte, and `*N*` repeats what follows it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a piece of a line. A line goes over a console in pieces; all but its last end with [`MORE`].
pub const PIECE: usize = 200;
/// The end of a piece that is not a line's last.
pub const MORE: char = '+';
/// What begins each piece that the image says, to tell it from the log.
pub const SAID: char = '=';
/// Pieces that the image says before it waits for [`NEXT`]: what its console's buffer surely takes.
pub const PAGE: usize = 40;
/// Asks the image to say more.
pub const NEXT: &str = "n";
/// Tells it that a new script begins.
pub const ANEW: &str = "anew";

/// `XS_TRANSACTION_START` (`io/xs_wire.h`).
const TRANSACTION_START: u32 = 6;
/// What a transaction is called that this connection has not begun.
const NOBODYS: u32 = 0x7000_0000;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `XS_*`.
    pub kind: u32,
    /// The how manyeth that the connection has begun; 0 for none.
    pub transaction: u32,
    /// What it says.
    pub payload: Vec<u8>,
}

/// An answer or an event. The number of a new transaction is written as `#` and the how manyeth it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `XS_*`.
    pub kind: u32,
    /// What it says.
    pub payload: Vec<u8>,
}

/// Transactions that a connection has begun: the store's numbers for them.
#[derive(Clone, Debug, Default)]
pub struct Transactions(Vec<u32>);

impl Transactions {
    /// The store's number.
    pub fn number(&self, ordinal: u32) -> u32 {
        match ordinal.checked_sub(1) {
            None => 0,
            Some(index) => self.0.get(index as usize).copied().unwrap_or(NOBODYS + ordinal),
        }
    }

    /// Takes note of an answer, and makes a message of it.
    pub fn heard(&mut self, kind: u32, payload: Vec<u8>) -> Message {
        let number = || str::from_utf8(payload.strip_suffix(b"\0")?).ok()?.parse().ok();
        match Some(kind).filter(|kind| *kind == TRANSACTION_START).and_then(|_| number()) {
            Some(number) => {
                self.0.push(number);
                Message { kind, payload: format!("#{}", self.0.len()).into_bytes() }
            }
            None => Message { kind, payload },
        }
    }

    /// A new script.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Request {
    /// Its word.
    pub fn word(&self) -> String {
        format!("q{}.{}.{}", self.kind, self.transaction, encode(&self.payload))
    }

    /// From its word; `None` where that is none.
    pub fn parse(word: &str) -> Option<Self> {
        let mut parts = word.strip_prefix('q')?.splitn(3, '.');
        let (kind, transaction) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { kind, transaction, payload: decode(parts.next()?)? })
    }
}

impl Message {
    /// Its word.
    pub fn word(&self) -> String {
        format!("m{}.{}", self.kind, encode(&self.payload))
    }

    /// From its word; `None` where that is none.
    pub fn parse(word: &str) -> Option<Self> {
        let (kind, payload) = word.strip_prefix('m')?.split_once('.')?;
        Some(Self { kind: kind.parse().ok()?, payload: decode(payload)? })
    }
}

/// Bytes as printable ASCII without blanks.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|one, other| one == other) {
        let Some(byte) = run.first().copied() else { continue };
        let unit = if byte.is_ascii_alphanumeric() || b"/@_-".contains(&byte) {
            String::from(char::from(byte))
        } else {
            format!("%{byte:02x}")
        };
        match run.len() {
            count @ 5.. => text += &format!("*{count}*{unit}"),
            count => (0..count).for_each(|_| text += &unit),
        }
    }
    text
}

/// The bytes again; `None` where [`encode`] made no such text.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    /// What a whole message may hold is far below.
    const LONGEST: usize = 1 << 16;
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut count = 1;
        if first == '*' {
            let (number, after) = rest.get(1..)?.split_once('*')?;
            count = number.parse().ok().filter(|count| *count <= LONGEST)?;
            rest = after;
        }
        let byte = match rest.strip_prefix('%') {
            Some(after) => {
                rest = after.get(2..)?;
                u8::from_str_radix(after.get(..2)?, 16).ok()?
            }
            None => {
                let byte = *rest.as_bytes().first()?;
                rest = rest.get(1..)?;
                byte
            }
        };
        bytes.resize(bytes.len() + count, byte);
    }
    Some(bytes)
}

/// A line in pieces.
pub fn pieces(line: &str) -> impl Iterator<Item = String> {
    let bytes = line.as_bytes();
    let count = bytes.len().div_ceil(PIECE).max(1);
    (0..count).map(move |index| {
        let piece = bytes.chunks(PIECE).nth(index).unwrap_or_default();
        let mut piece = String::from_utf8_lossy(piece).into_owned();
        if index + 1 < count {
            piece.push(MORE);
        }
        piece
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let payload = [b"/a b\0".as_slice(), &[b'x'; 4000], &[0; 7], b"*%+\xff\n"].concat();
        assert_eq!(encode(&payload), "/a%20b%00*4000*x*7*%00%2a%25%2b%ff%0a");
        let request = Request { kind: 11, transaction: 2, payload };
        assert_eq!(Request::parse(&request.word()), Some(request));
        let message = Message { kind: 15, payload: Vec::new() };
        assert_eq!(Message::parse(&message.word()), Some(message));
        for nonsense in ["", "q", "q1.2", "q1.2.%", "q1.2.*3*", "q1.2.*99999999*x", "m1"] {
            assert_eq!((Request::parse(nonsense), Message::parse(nonsense)), (None, None), "{nonsense}");
        }
    }

    #[test]
    fn a_line_goes_in_pieces() {
        let line = "x".repeat(PIECE * 2 + 1);
        let pieces: Vec<String> = pieces(&line).collect();
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [PIECE + 1, PIECE + 1, 1]);
        let whole: String = pieces.iter().map(|piece| piece.trim_end_matches(MORE)).collect();
        assert_eq!(whole, line);
    }

    #[test]
    fn transactions_are_counted() {
        let mut transactions = Transactions::default();
        assert_eq!(transactions.heard(6, b"77\0".to_vec()).payload, b"#1");
        assert_eq!((transactions.number(0), transactions.number(1)), (0, 77));
        assert_eq!(transactions.number(2), NOBODYS + 2);
        assert_eq!(transactions.heard(2, b"77\0".to_vec()).payload, b"77\0");
    }
}

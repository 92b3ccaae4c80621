//! Texts that others wrote, as a terminal and a file may have them. Pure. Host.

/// Characters of a text, at most.
const LONGEST: usize = 2048;
/// What stands for a character that is left out.
const REPLACEMENT: char = '\u{fffd}';

/// Characters that are no control characters and change how others are shown all the same: directions of writing, zero widths, line ends.
const fn is_format(sign: char) -> bool {
    matches!(sign, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text of one line, without escape sequences: no writer of it moves a cursor, or changes what stands beside it.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut cleaned: String = text
        .chars()
        .take(LONGEST)
        .map(|sign| match sign {
            '\n' | '\t' | '\r' => ' ',
            sign if sign.is_control() || is_format(sign) => REPLACEMENT,
            sign => sign,
        })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        cleaned.push('…');
    }
    cleaned.trim_end().to_owned()
}

/// A name of a counter, an image, a version: short, and of few characters.
pub(super) fn is_name(text: &str) -> bool {
    let is_sign = |sign: char| sign.is_ascii_alphanumeric() || "-_.+:".contains(sign);
    (1..=64).contains(&text.len()) && text.chars().all(is_sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_moves_a_cursor() {
        assert_eq!(clean(b"\x1b[2J\x1b]0;title\x07oh\r\n  no\x9b1m\n"), "�[2J�]0;title�oh    no�1m");
        assert_eq!(clean("a\u{202e}b\u{200b}c\u{9b}d".as_bytes()), "a�b�c�d");
        assert_eq!(clean(b"\xff\xfe"), "��");
        assert_eq!(clean("grün, 漢字".as_bytes()), "grün, 漢字");
        assert_eq!(clean(&[b'x'; 5000]).chars().count(), LONGEST + 1);
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(["queue-full", "0.1.0", "52:54:00"].iter().all(|name| is_name(name)));
        assert!(["", "a b", "a\"b", "ä", "a\u{1b}"].iter().all(|name| !is_name(name)) && !is_name(&"x".repeat(65)));
    }
}

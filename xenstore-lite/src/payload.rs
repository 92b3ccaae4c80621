//! Words and numbers of a payload, as the C library reads them. Pure. Floor 1.

use xen_pv_sys::DomainId;

use crate::Error;

/// The words of a payload, each ended by a zero byte; what follows the last zero byte is none.
pub(crate) fn words(payload: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let whole = payload.iter().rposition(|byte| *byte == 0).and_then(|last| payload.get(..last));
    whole.into_iter().flat_map(|words| words.split(|byte| *byte == 0))
}

/// Exactly `N` words.
pub(crate) fn exactly<const N: usize>(payload: &[u8]) -> Result<[&[u8]; N], Error> {
    let mut all = words(payload);
    let first = first_of(&mut all)?;
    if all.next().is_some() { Err(Error::EINVAL) } else { Ok(first) }
}

/// `N` words and whatever follows.
pub(crate) fn at_least<const N: usize>(payload: &[u8]) -> Result<[&[u8]; N], Error> {
    first_of(&mut words(payload))
}

fn first_of<'a, const N: usize>(words: &mut impl Iterator<Item = &'a [u8]>) -> Result<[&'a [u8]; N], Error> {
    let mut found = [[].as_slice(); N];
    for place in &mut found {
        *place = words.next().ok_or(Error::EINVAL)?;
    }
    Ok(found)
}

/// The one word that a payload is: a single zero byte, at its end.
pub(crate) fn only(payload: &[u8]) -> Result<&[u8], Error> {
    match payload.split_last() {
        Some((0, word)) if !word.contains(&0) => Ok(word),
        _ => Err(Error::EINVAL),
    }
}

/// The word at the beginning of a payload and the bytes behind it.
pub(crate) fn word_and_rest(payload: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let end = payload.iter().position(|byte| *byte == 0).ok_or(Error::EINVAL)?;
    let (word, rest) = payload.split_at_checked(end).ok_or(Error::EINVAL)?;
    Ok((word, rest.get(1..).unwrap_or_default()))
}

/// Cuts off white space and a sign: whether it was a minus, and the rest.
fn sign(word: &[u8]) -> (bool, &[u8]) {
    let word = word.trim_ascii_start();
    match word.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, word),
    }
}

/// The digits at the beginning as a number, and how many they are. Too large a number stays as large as can be.
fn digits(word: &[u8], base: u32) -> (u64, usize) {
    let digits = word.iter().map_while(|byte| char::from(*byte).to_digit(base));
    digits.fold((0, 0), |(number, count): (u64, _), digit| {
        (number.saturating_mul(u64::from(base)).saturating_add(u64::from(digit)), count + 1)
    })
}

/// As `atoi`: the number at the beginning, 0 where there is none.
pub(crate) fn number(word: &[u8]) -> i64 {
    let (negative, word) = sign(word);
    let number = i64::try_from(digits(word, 10).0).unwrap_or(i64::MAX);
    if negative { -number } else { number }
}

/// As `strtol` in any base, for a word that is a number and nothing else.
pub(crate) fn any_base(word: &[u8]) -> Option<i64> {
    let (negative, word) = sign(word);
    let (base, word) = match word {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest),
        [b'0', ..] => (8, word),
        _ => (10, word),
    };
    let (number, count) = digits(word, base);
    let number = i64::try_from(number).ok().filter(|_| count > 0 && count == word.len())?;
    Some(if negative { -number } else { number })
}

/// A domain's number as `strtoul` reads it, by which an empty word is 0.
pub(crate) fn domain(word: &[u8]) -> Result<DomainId, Error> {
    if word.is_empty() {
        return Ok(DomainId(0));
    }
    let (negative, word) = sign(word);
    let (number, count) = digits(word, 10);
    let number =
        u16::try_from(number).ok().filter(|number| count > 0 && count == word.len() && !(negative && *number > 0));
    number.map(DomainId).ok_or(Error::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_into_words() {
        assert_eq!(words(b"a\0\0b\0c").collect::<alloc::vec::Vec<_>>(), [b"a".as_slice(), b"", b"b"]);
        assert_eq!(words(b"").count() + words(b"a").count(), 0);
        assert_eq!(words(b"\0").count(), 1);
        assert_eq!(exactly::<2>(b"a\0b\0"), Ok([b"a".as_slice(), b"b"]));
        assert_eq!(exactly::<2>(b"a\0b\0c\0").or(exactly::<2>(b"a\0b")), Err(Error::EINVAL));
        assert_eq!(at_least::<1>(b"a\0b\0"), Ok([b"a".as_slice()]));
        assert_eq!(only(b"a\0"), Ok(b"a".as_slice()));
        assert_eq!(only(b"").or(only(b"a")).or(only(b"a\0b\0")).or(only(b"a\0\0")), Err(Error::EINVAL));
        assert_eq!(word_and_rest(b"a\0b\0c"), Ok((b"a".as_slice(), b"b\0c".as_slice())));
        assert_eq!(word_and_rest(b"a"), Err(Error::EINVAL));
    }

    #[test]
    fn numbers() {
        assert_eq!(
            [number(b" 12x"), number(b"-3"), number(b"x"), number(b"99999999999999999999")],
            [12, -3, 0, i64::MAX]
        );
        assert_eq!(
            [any_base(b"0x1f"), any_base(b"017"), any_base(b"0"), any_base(b"-5")],
            [Some(31), Some(15), Some(0), Some(-5)]
        );
        assert_eq!([any_base(b""), any_base(b"08"), any_base(b"0x"), any_base(b"1 ")], [None; 4]);
        assert_eq!(
            [domain(b""), domain(b" 7"), domain(b"65535"), domain(b"-0")].map(Result::unwrap),
            [0, 7, 65535, 0].map(DomainId)
        );
        for bad in [b" ".as_slice(), b"65536", b"-1", b"7x", b"+"] {
            assert_eq!(domain(bad), Err(Error::EINVAL));
        }
    }
}

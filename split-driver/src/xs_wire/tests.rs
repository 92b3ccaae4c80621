//! The codec against bytes as the store's sources lay them out. Floor 1.

use super::*;
use proptest::prelude::*;

#[test]
fn a_read_in_bytes() {
    let mut queue = VecDeque::new();
    encode(&mut queue, Kind::READ, 7, 9, &[b"name", b"\0"]).unwrap();
    let expected = b"\x02\0\0\0\x07\0\0\0\x09\0\0\0\x05\0\0\0name\0";
    assert_eq!(queue.make_contiguous(), expected);
}

#[test]
fn too_long_is_not_sent() {
    let mut queue = VecDeque::new();
    let long = [0; PAYLOAD_MAX];
    assert_eq!(encode(&mut queue, Kind::WRITE, 1, 0, &[b"a\0", &long]), Err(PayloadTooLong { length: 4098 }));
    assert!(queue.is_empty());
}

#[test]
fn error_names() {
    for (name, error) in [
        (b"ENOENT\0".as_slice(), StoreError::NotFound),
        (b"EACCES\0", StoreError::Denied),
        (b"EAGAIN\0", StoreError::Conflict),
        (b"ENOSPC\0", StoreError::Quota),
        (b"E2BIG\0", StoreError::TooLong),
        (b"EQUOTA\0", StoreError::Quota),
        (b"EBUSY\0", StoreError::Errno(16)),
        (b"EISDIR", StoreError::Errno(21)),
        (b"ENONSENSE\0", StoreError::Errno(22)),
        (b"", StoreError::Errno(22)),
    ] {
        assert_eq!(refusal(errno(name)), error);
    }
}

#[test]
fn strings_of_a_payload() {
    let cut = |payload: &'static [u8]| strings(payload).collect::<Vec<_>>();
    assert_eq!(cut(b""), Vec::<&[u8]>::new());
    assert_eq!(cut(b"a\0bc\0"), [b"a".as_slice(), b"bc"]);
    assert_eq!(cut(b"a\0bc"), [b"a".as_slice(), b"bc"]);
}

proptest! {
    #[test]
    fn cut_anywhere(messages in proptest::collection::vec((any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20), cut in 1_usize..50) {
        let mut queue = VecDeque::new();
        for (kind, id, payload) in &messages {
            encode(&mut queue, Kind(*kind), *id, 3, &[payload]).unwrap();
        }
        let mut parser = Parser::default();
        let mut got = Vec::new();
        for mut piece in queue.make_contiguous().chunks(cut) {
            while let Some(message) = parser.next(&mut piece).unwrap() {
                got.push((message.header.kind, message.header.req_id, message.payload));
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert_eq!(got, messages);
    }

    #[test]
    fn nonsense_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut parser = Parser::default();
        let mut input = bytes.as_slice();
        while let Ok(Some(message)) = parser.next(&mut input) {
            prop_assert!(message.payload.len() <= PAYLOAD_MAX);
        }
    }
}

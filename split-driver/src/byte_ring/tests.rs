//! Properties of the byte streams. Floor 1.

use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const ALL: [ByteLayout; 4] =
    [ByteLayout::STORE_REQUESTS, ByteLayout::STORE_RESPONSES, ByteLayout::CONSOLE_IN, ByteLayout::CONSOLE_OUT];

fn page() -> Vec<AtomicU32> {
    (0..1024).map(|_| AtomicU32::new(0)).collect()
}

#[test]
fn bytes_lie_where_the_header_says() {
    let page = page();
    let mut producer = ByteProducer::attach(ByteLayout::CONSOLE_OUT, &page);
    assert_eq!(producer.write(&page, b"hello"), Ok(5));
    assert_eq!(page[256].load(Ordering::Relaxed), u32::from_le_bytes(*b"hell"));
    assert_eq!(page[257].load(Ordering::Relaxed), u32::from(b'o'));
    assert_eq!(page[3084 / 4].load(Ordering::Relaxed), 5);
}

#[test]
fn no_more_than_fits() {
    for layout in ALL {
        let page = page();
        let mut producer = ByteProducer::attach(layout, &page);
        let capacity = layout.capacity();
        assert_eq!(producer.write(&page, &vec![7; 5000]), Ok(capacity));
        assert_eq!(producer.write(&page, b"x"), Ok(0));
        let mut consumer = ByteConsumer::attach(layout, &page);
        let mut out = vec![0; 5000];
        assert_eq!(consumer.read(&page, &mut out), Ok(capacity));
        assert_eq!(consumer.read(&page, &mut out), Ok(0));
        assert_eq!(producer.free(&page), Ok(capacity));
    }
}

#[test]
fn lying_indices_are_refused() {
    for layout in ALL {
        let page = page();
        let mut producer = ByteProducer::attach(layout, &page);
        let mut consumer = ByteConsumer::attach(layout, &page);
        store(&page, layout.producer, layout.size + 1);
        assert!(consumer.read(&page, &mut [0; 8]).is_err());
        store(&page, layout.consumer, 1);
        assert!(producer.write(&page, b"x").is_err());
    }
}

proptest! {
    #[test]
    fn a_stream_stays_a_stream(layout in 0_usize..4, start: u32, steps in proptest::collection::vec((any::<bool>(), 0_usize..3000), 1..60)) {
        let (page, layout) = (page(), ALL[layout]);
        store(&page, layout.producer, start);
        store(&page, layout.consumer, start);
        let mut producer = ByteProducer::attach(layout, &page);
        let mut consumer = ByteConsumer::attach(layout, &page);
        let (mut written, mut read) = (0_usize, 0_usize);
        let pattern = |i: usize| (i * 31 % 251) as u8;
        for (write, count) in steps {
            if write {
                let bytes: Vec<u8> = (written..written + count).map(pattern).collect();
                written += producer.write(&page, &bytes).unwrap();
            } else {
                let mut out = vec![0; count];
                let got = consumer.read(&page, &mut out).unwrap();
                for byte in out.into_iter().take(got) {
                    prop_assert_eq!(byte, pattern(read));
                    read += 1;
                }
            }
            prop_assert!(read <= written && written - read <= layout.capacity());
        }
    }
}

#[test]
fn what_is_looked_at_stays_until_it_is_passed() {
    let page = page();
    let layout = ByteLayout::STORE_REQUESTS;
    let mut producer = ByteProducer::attach(layout, &page);
    let mut consumer = ByteConsumer::attach(layout, &page);
    producer.write(&page, b"abcdef").unwrap();
    let mut out = [0; 4];
    assert_eq!(consumer.peek(&page, &mut out), Ok(4));
    assert_eq!(consumer.peek(&page, &mut out), Ok(4));
    consumer.advance(&page, 2);
    assert_eq!((consumer.read(&page, &mut out), &out), (Ok(4), b"cdef"));
    layout.clear(&page);
    assert_eq!(ByteConsumer::attach(layout, &page).waiting(&page), Ok(0));
}

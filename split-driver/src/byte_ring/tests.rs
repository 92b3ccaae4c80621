//! Properties of the byte streams. Floor 1.

use super::*;
use crate::atomic::AtomicU32;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Range;
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

/// A page whose peer writes another of these values, beyond `start`, into its index before each look at that.
struct Restless<'v> {
    page: Vec<AtomicU32>,
    index: usize,
    start: u32,
    values: &'v [u32],
    looks: Cell<usize>,
}

impl SharedMemory for Restless<'_> {
    fn words(&self) -> &[AtomicU32] {
        &self.page
    }

    fn look(&self, range: Range<usize>) -> &[AtomicU32] {
        if range.contains(&self.index) {
            let value = self.values[self.looks.get() % self.values.len()];
            self.looks.set(self.looks.get() + 1);
            store(&self.page, self.index, self.start.wrapping_add(value));
        }
        self.page.get(range).unwrap_or_default()
    }
}

proptest! {
    /// The peer writes its index between any two looks of ours: what was checked is what is used.
    #[test]
    fn an_index_is_fetched_once(
        layout in 0_usize..4,
        start: u32,
        values in proptest::collection::vec(0_u32..2200, 1..6),
        bytes in 0_usize..3000,
    ) {
        let layout = ALL[layout];
        let first = values.first().copied().unwrap_or(0);
        let sane = first <= layout.size;
        let restless =
            |index, values| Restless { page: page(), index, start, values, looks: Cell::new(0) };
        let memory = restless(layout.producer, &values);
        let mut consumer = ByteConsumer::resume(layout, &memory, start);
        let mut out = vec![0; bytes];
        let read = consumer.read(&memory, &mut out).ok();
        prop_assert_eq!(read, sane.then_some(bytes.min(first as usize)));
        prop_assert_eq!(consumer.position().wrapping_sub(start), read.unwrap_or(0) as u32);
        // The consumer is so far behind.
        let behind: Vec<_> = values.iter().map(|value| value.wrapping_neg()).collect();
        let memory = restless(layout.consumer, &behind);
        let mut producer = ByteProducer::resume(layout, &memory, start);
        let written = producer.write(&memory, &out).ok();
        let free = layout.size.saturating_sub(first) as usize;
        prop_assert_eq!(written, sane.then_some(bytes.min(free)));
    }
}

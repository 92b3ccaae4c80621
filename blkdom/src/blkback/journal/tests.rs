//! A journal whose life ends behind each of its stores, and one that is damaged. The data path's tests have it with rings and disks.

extern crate std;

use super::*;
use crate::blkback::request::{Request, parse_words};
use alloc::vec;
use alloc::vec::Vec;
use split_driver::fakes::{FakeKeptPage, FakeXen};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const WHOSE: Whose = Whose { domain: DomainId(3), handle: 51712, queue: 1, abi: Abi::X86_64, room: 64 };
const HERE: Whereabouts = Whereabouts { sectors: 0x1_2345_6789, digest: 0x1234_5678_9abc_def0 };
/// What a life unwinds with at its end.
struct LifeEnded;

/// Where the ring begins: its indices wrap soon.
const START: u32 = u32::MAX - 20;

/// What is noted of a flush: its place in the order, and the words of its slot.
fn flush(order: u32, id: u32) -> [u32; 6] {
    [order, 3, id, 0, 0, 0]
}

fn begin(xen: &FakeXen) -> Journal<FakeKeptPage> {
    Journal::begin(xen, &WHOSE, HERE, START).expect("memory")
}

/// The ids of the requests without an answer, in their order.
fn unanswered(journal: &Journal<FakeKeptPage>, left: &Left) -> Vec<u64> {
    let mut entries = left.unanswered.clone();
    sort_by_order(&mut entries, |(order, _)| *order);
    entries.iter().map(|(_, entry)| parse_words(WHOSE.abi, &journal.content(*entry)).id()).collect()
}

/// What the frontend sees: the end of the responses, and the requests that were answered.
#[derive(Clone, Debug, Default)]
struct Seen {
    published: u32,
    answered: Vec<u64>,
}

/// Takes 40 requests and answers some, out of order, in three publications. Notes what the frontend sees, and what was taken.
fn work(journal: &mut Journal<FakeKeptPage>, seen: &mut Seen, taken: &mut u64) {
    let mut produced = START;
    let mut order = u32::MAX - 5;
    let mut entries = vec![];
    for round in 0..3 {
        for _ in 0..10 + round {
            let entry = journal.take(&flush(order, *taken as u32)).expect("room");
            entries.push((entry, *taken));
            order = order.wrapping_add(1);
            *taken += 1;
        }
        let mut answered = vec![];
        for place in [7, 0, 4] {
            let (entry, id) = entries.remove(place);
            journal.answer(entry, produced);
            produced = produced.wrapping_add(1);
            answered.push(id);
        }
        journal.intend(produced);
        // The ring's own store.
        seen.published = produced;
        seen.answered.extend(answered);
        journal.complete(produced);
    }
}

#[test]
fn whatever_store_is_a_lifes_last_the_next_one_knows_what_is_unanswered() {
    for last in 0.. {
        let xen = FakeXen::new();
        let mut journal = begin(&xen);
        let (mut seen, mut taken) = (Seen { published: START, ..Seen::default() }, 0);
        if !until(&xen, last, || work(&mut journal, &mut seen, &mut taken)) {
            assert!(last > 50, "{last} steps");
            break;
        }
        end(&xen, journal);
        let (journal, left) = Journal::recover(&xen, &WHOSE, seen.published).expect("a journal");
        assert_eq!((left.published, journal.whereabouts()), (seen.published, Some(HERE)), "behind store {last}");
        let expected: Vec<u64> = (0..taken).filter(|id| !seen.answered.contains(id)).collect();
        let found = unanswered(&journal, &left);
        // The one that was being taken may be, or not.
        let rest = found.strip_prefix(expected.as_slice());
        assert!(rest.is_some_and(|rest| rest.is_empty() || rest == [taken]), "{found:?}, of {expected:?}, {last}");
        assert_eq!(journal.free.len() + found.len(), 64);
        assert_eq!(xen.taken_over(), 0);
        drop(journal);
        assert_eq!(xen.live().kept_pages, 0);
    }
}

#[test]
fn a_life_that_ends_while_it_takes_over_loses_nothing() {
    for (first, second) in (0..130).flat_map(|first| [0, 1, 2, 5, 20, 70].map(|second| (first, second))) {
        let xen = FakeXen::new();
        let mut journal = begin(&xen);
        let (mut seen, mut taken) = (Seen { published: START, ..Seen::default() }, 0);
        until(&xen, first, || work(&mut journal, &mut seen, &mut taken));
        end(&xen, journal);
        if !until(&xen, second, || drop(Journal::recover(&xen, &WHOSE, seen.published))) {
            continue;
        }
        xen.begin_life();
        let (journal, left) = Journal::recover(&xen, &WHOSE, seen.published).expect("a journal");
        let found = unanswered(&journal, &left);
        let expected: Vec<u64> = (0..taken).filter(|id| !seen.answered.contains(id)).collect();
        assert!(found.starts_with(&expected) && found.len() <= expected.len() + 1, "{first} {second}");
    }
}

/// An answer that the frontend never saw is none, and its index is another's in the next life.
#[test]
fn an_answer_that_was_not_seen_is_forgotten() {
    let xen = FakeXen::new();
    let mut journal = begin(&xen);
    let [first, second] = [8, 9].map(|id| journal.take(&flush(id, id)).expect("room"));
    journal.answer(first, START);
    end(&xen, journal);
    let (mut journal, left) = Journal::recover(&xen, &WHOSE, START).expect("a journal");
    assert_eq!(unanswered(&journal, &left), [8, 9]);
    journal.answer(second, START);
    journal.intend(START.wrapping_add(1));
    end(&xen, journal);
    let (journal, left) = Journal::recover(&xen, &WHOSE, START.wrapping_add(1)).expect("a journal");
    assert_eq!(unanswered(&journal, &left), [8]);
}

#[test]
fn a_frontend_that_writes_its_producer_index_harms_itself_alone() {
    for shown in [0, 1, START.wrapping_sub(1), START.wrapping_add(30), START.wrapping_add(5)] {
        let xen = FakeXen::new();
        let mut journal = begin(&xen);
        let (mut seen, mut taken) = (Seen::default(), 0);
        work(&mut journal, &mut seen, &mut taken);
        end(&xen, journal);
        let (_, left) = Journal::recover(&xen, &WHOSE, shown).expect("a journal");
        assert_eq!((left.published, left.unanswered.len()), (seen.published, 33 - 9));
    }
}

/// Ends the life of a journal, and begins the next.
fn end(xen: &FakeXen, journal: Journal<FakeKeptPage>) {
    xen.end_life_now();
    drop(journal);
    xen.begin_life();
}

/// Does something until the life ends, behind so many steps. Whether it ended before all was done.
fn until(xen: &FakeXen, steps: u64, act: impl FnOnce()) -> bool {
    xen.end_life(steps, || resume_unwind(std::boxed::Box::new(LifeEnded)));
    let outcome = catch_unwind(AssertUnwindSafe(act));
    xen.spare_life();
    match outcome {
        Err(other) if !other.is::<LifeEnded>() => resume_unwind(other),
        outcome => outcome.is_err(),
    }
}

#[test]
fn what_was_written_over_is_not_believed() {
    for word in
        (0..5).chain([PUBLISHED, INTENDED, PLACE]).chain(PLACES[1]..PLACES[1] + 5).chain(HEADER..HEADER + 40 * ENTRY)
    {
        let xen = FakeXen::new();
        let mut journal = begin(&xen);
        let (mut seen, mut taken) = (Seen::default(), 0);
        work(&mut journal, &mut seen, &mut taken);
        end(&xen, journal);
        xen.damage(0, word, |value| value ^ 0x0408_0000);
        match Journal::recover(&xen, &WHOSE, seen.published) {
            Err(JournalError::Missing) => assert!(word < 5, "{word}"),
            Err(error) => assert_eq!(error, JournalError::Damaged),
            // Words that mean nothing: of a free entry, of a response's index where there is none, or behind what a request uses.
            Ok((journal, left)) => {
                assert!(word >= HEADER, "{word}");
                let expected: Vec<u64> = (0..taken).filter(|id| !seen.answered.contains(id)).collect();
                assert_eq!(unanswered(&journal, &left), expected, "{word}");
            }
        }
    }
}

#[test]
fn another_vbds_journal_is_left_alone_and_an_old_one_of_the_same_is_forgotten() {
    let xen = FakeXen::new();
    let journal = begin(&xen);
    end(&xen, journal);
    let other = [
        Whose { domain: DomainId(4), ..WHOSE },
        Whose { handle: 1, ..WHOSE },
        Whose { queue: 0, ..WHOSE },
        Whose { abi: Abi::X86_32, ..WHOSE },
        Whose { room: 32, ..WHOSE },
    ];
    for whose in other {
        assert_eq!(Journal::recover(&xen, &whose, START).err(), Some(JournalError::Missing), "{whose:?}");
    }
    let fresh = Journal::begin(&xen, &WHOSE, HERE, 7).expect("memory");
    assert_eq!((xen.live().kept_pages, xen.taken_over()), (2, 0));
    drop(fresh);
    assert_eq!(xen.live().kept_pages, 0);
}

#[test]
fn where_a_volume_lies_is_noted_at_once_or_not_at_all() {
    let there = Whereabouts { sectors: 5, digest: 6 };
    for steps in 0..4 {
        let xen = FakeXen::new();
        let journal = begin(&xen);
        let ended = until(&xen, steps, || journal.set_whereabouts(there));
        end(&xen, journal);
        let (journal, _) = Journal::recover(&xen, &WHOSE, START).expect("a journal");
        assert_eq!((journal.whereabouts(), ended), (Some(if steps < 3 { HERE } else { there }), steps < 3));
    }
}

#[test]
fn marks_are_for_good() {
    let xen = FakeXen::new();
    let journal = begin(&xen);
    assert!(!journal.has(Mark::Undurable) && !journal.has(Mark::Gone));
    journal.mark(Mark::Gone);
    end(&xen, journal);
    let (journal, _) = Journal::recover(&xen, &WHOSE, START).expect("a journal");
    assert!(!journal.has(Mark::Undurable) && journal.has(Mark::Gone));
}

#[test]
fn each_kind_of_request_comes_back_as_it_was() {
    let xen = FakeXen::new();
    for first in
        (0..=7_u32).flat_map(|operation| [0, 1, 3, 11, 12, 255].map(|second| operation | second << 8 | 0x7_0000))
    {
        let mut journal = begin(&xen);
        let words: Vec<u32> = core::iter::once(first).chain((1..SLOT_WORDS as u32).map(|word| word * 0x0101)).collect();
        let words: [u32; SLOT_WORDS] = words.try_into().expect("as many words");
        let noted: Vec<u32> = core::iter::once(1).chain(words).take(1 + used_words(first)).collect();
        let entry = journal.take(&noted).expect("room");
        let parsed = parse_words(WHOSE.abi, &words);
        assert_eq!(parse_words(WHOSE.abi, &journal.content(entry)), parsed, "{first:#x}");
        assert!(!matches!(parsed, Request::Indirect { .. }) || first & 0xff == 6);
    }
}

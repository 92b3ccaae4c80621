use super::*;
use split_driver::control::{Act, Ended, Image, Outcome, Pause, Receiver, Successor};
use split_driver::fakes::{FakeClock, FakeConnection, FakeStore, Tasks};
use std::cell::{Cell, RefCell};
use xen_pv_sys::DomainId;

const US: DomainId = DomainId(5);

/// An image that takes anything but a byte of 0xee.
struct Taken(Vec<u8>);

impl Successor for Taken {
    fn begin(_: usize) -> Result<Self, String> {
        Ok(Self(Vec::new()))
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.extend_from_slice(bytes);
        if bytes.contains(&0xee) { Err("it is none".into()) } else { Ok(()) }
    }
}

/// What a domain does when it is to enter another image, or to begin anew.
type Next = fn(&[u8], Option<&str>) -> Ended;

fn own() -> Image {
    Image { name: "netdom".into(), version: "0.1.0".into() }
}

/// A domain that serves requests for good, life after life.
async fn domain(connection: FakeConnection, next: Next) {
    let mut watch = connection.watch(REQUEST).await.unwrap();
    let (mut outcome, mut life) = (None, 0);
    loop {
        let mut receiver: Receiver<_, Taken> = Receiver::new(connection.clone(), own(), Ok(()));
        receiver.begin(outcome.take()).await.unwrap();
        let ended = loop {
            watch.next().await;
            match receiver.look().await.unwrap() {
                None => {}
                Some(Act::Restart) => break next(&[], None),
                Some(Act::Enter(Taken(bytes), words)) => break next(&bytes, words.as_deref()),
            }
        };
        life += 1;
        let pause = Pause { whole: Duration::from_millis(2), own: Duration::from_millis(1) };
        outcome = Some(Outcome { life, ended, pause, exchanged: 9 });
    }
}

/// Plays a command against a domain; gives what came of it, and the nodes that dom0 left there.
fn play<F: Future<Output = Result<Answer>>>(
    next: Option<Next>,
    command: impl FnOnce(FakeConnection, FakeClock) -> F,
) -> (Result<Answer, String>, Vec<String>) {
    let (store, clock) = (FakeStore::new(), FakeClock::default());
    store.add_domain(US);
    let result = RefCell::new(None);
    let mut tasks = Tasks::new();
    match next {
        Some(next) => tasks.spawn(domain(store.connection(US), next)),
        None => store.put(&format!("/local/domain/5/{ANSWER}"), "0 ready netdom 0.1.0", &["n5"]),
    }
    tasks.run_until_stalled();
    let command = command(store.connection(DomainId(0)), clock.clone());
    tasks.spawn(async {
        *result.borrow_mut() = Some(command.await.map_err(|error| format!("{error:#}")));
    });
    tasks.run_until_stalled();
    for _ in 0..200 {
        clock.advance(Duration::from_secs(1));
        tasks.run_until_stalled();
    }
    drop(tasks);
    let left = store.paths(&format!("/local/domain/5/{DIRECTORY}"));
    (result.into_inner().expect("the command ends"), left)
}

fn netdom() -> Domain {
    Domain { id: 5, name: "netdom".into() }
}

fn update(next: Option<Next>, image: &[u8], words: Option<&str>) -> (Result<Answer, String>, Vec<String>, Vec<usize>) {
    let steps = RefCell::new(Vec::new());
    let (answer, left) = play(next, async |store: FakeConnection, clock: FakeClock| {
        super::update(&store, &clock, &netdom(), 7, (image, words), |bytes| steps.borrow_mut().push(bytes)).await
    });
    (answer, left, steps.into_inner())
}

#[test]
fn an_image_arrives_whole_and_nothing_is_left() {
    for length in [1, PIECE, 8 * PIECE, 16 * PIECE + 1, 100 * PIECE + 5] {
        let image: Vec<u8> = (0..length).map(|index| (index % 233) as u8).collect();
        let next: Next = |bytes, words| {
            assert_eq!(words, Some("log=debug"));
            assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == (index % 233) as u8));
            Ended::Replaced
        };
        let (answer, left, steps) = update(Some(next), &image, Some("log=debug"));
        let done = matches!(answer, Ok(Answer::Done { life: 1, exchanged: 9, .. }));
        assert!(done && left.is_empty(), "{length}: {answer:?}, {left:?}");
        assert!(steps.is_sorted() && steps.last() == Some(&length), "{steps:?}");
    }
}

#[test]
fn what_the_domain_says_is_passed_on() {
    let (answer, left, _) = update(Some(|_, _| Ended::GivenUp("no room".into())), &[1; 5000], None);
    assert!(
        matches!(&answer, Ok(Answer::Returned { reason, .. }) if reason == "no room") && left.is_empty(),
        "{answer:?}"
    );
    let (answer, left, _) = update(Some(|_, _| panic!("it was refused")), &[0xee; 90_000], None);
    assert!(matches!(&answer, Ok(Answer::Refused(why)) if why == "it is none") && left.is_empty(), "{answer:?}");
    let (answer, left, _) = update(Some(|_, _| panic!("it was refused")), &[], None);
    assert!(matches!(&answer, Ok(Answer::Refused(why)) if why.contains("this one 0")) && left.is_empty(), "{answer:?}");
    let lives = Cell::new(0);
    for _ in 0..2 {
        let (answer, left) = play(Some(|_, _| Ended::Asked), async |store: FakeConnection, clock: FakeClock| {
            restart(&store, &clock, &netdom(), 8).await?;
            lives.set(lives.get() + 1);
            restart(&store, &clock, &netdom(), 9).await
        });
        assert!(matches!(answer, Ok(Answer::Done { life: 2, .. })) && left.is_empty(), "{answer:?}");
    }
    assert_eq!(lives.get(), 2);
}

/// What a domain says that took nothing, or more than there is, is not believed.
#[test]
fn a_domain_that_says_nonsense_is_not_believed() {
    for said in ["7 taken 0", "7 taken 17", "7 taken 4294967295", "8 taken 8", "7 taken x", ""] {
        let (answer, left) = play(None, async |store: FakeConnection, clock: FakeClock| {
            let domain = netdom();
            let command =
                super::update(&store, &clock, &domain, 7, (&[1; 90_000], None), |_| panic!("nothing was taken"));
            let liar = async {
                clock.sleep(Duration::from_secs(1)).await;
                store.write(Transaction::NONE, &format!("/local/domain/5/{ANSWER}"), said.as_bytes()).await.unwrap();
                std::future::pending::<()>().await;
            };
            match select(pin!(command), pin!(liar)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => unreachable!(),
            }
        });
        assert!(answer.as_ref().is_err_and(|error| error.contains("did not answer")), "{said}: {answer:?}");
        assert!(left.is_empty());
    }
}

#[test]
fn a_domain_that_says_nothing_is_not_waited_for_in_vain() {
    let (answer, left, _) = update(None, &[1; 90_000], None);
    assert!(answer.is_err_and(|error| error.contains("did not answer")) && left.is_empty());
    let (answer, _) = play(None, async |store: FakeConnection, clock: FakeClock| {
        store.remove(Transaction::NONE, &format!("/local/domain/5/{ANSWER}")).await?;
        restart(&store, &clock, &netdom(), 8).await
    });
    assert!(answer.is_err_and(|error| error.contains("takes no requests")));
}

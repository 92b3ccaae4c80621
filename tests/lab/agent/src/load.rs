//! A load on the xenstore that checks every answer and every event, for dom0 and for guests. Linux.
//!
//! It knows what its own nodes hold: each answer must be the one that follows from its requests, and each change must be told to its watch
//! just once. Of a counter that it shares with others it knows how often it has raised it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::{DIRECTORY, READ, RM, Store, TRANSACTION_END, TRANSACTION_START, WATCH, WRITE, is_error};

/// How long a request, or an event, may be waited for: a domain among busy ones on one CPU waits long.
const PATIENCE: Duration = Duration::from_secs(300);
/// The pause after each step: dom0 goes first on the lab's CPU, and without one it would leave the guests hardly any of it.
const PACE: Duration = Duration::from_millis(5);
/// Nodes that come and go.
const NAMES: u64 = 40;
/// The longest value.
const VALUE_MAX: u64 = 300;
/// The longest pause within a transaction, in milliseconds: so that much happens meanwhile.
const HELD_MAX: u64 = 40;

/// Runs `load OWN COUNTER SEED STOP`: asks of nodes below OWN and raises COUNTER, until the file STOP is there; prints what it did.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let [own, counter, seed, stop] = arguments else {
        return Err(io::Error::other("load OWN COUNTER SEED STOP"));
    };
    let mut load = Load {
        store: Store::open()?,
        own: own.clone(),
        counter: counter.clone(),
        random: seed.parse::<u64>().map_err(io::Error::other)?.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        nodes: BTreeMap::new(),
        doing: watchdog(),
        tally: Tally::default(),
    };
    load.begin()?;
    while !Path::new(stop).exists() {
        load.step()?;
        thread::sleep(PACE);
    }
    load.end()?;
    let Tally { requests, events, transactions, again, raised, slowest } = load.tally;
    println!(
        "{{\"requests\": {requests}, \"events\": {events}, \"transactions\": {transactions}, \"again\": {again}, \
         \"raised\": {raised}, \"slowest_us\": {}}}",
        slowest.as_micros()
    );
    Ok(())
}

/// What is being waited for, since when.
type Doing = Arc<Mutex<(Instant, String)>>;

/// Ends the process where something is waited for without end.
fn watchdog() -> Doing {
    let doing: Doing = Arc::new(Mutex::new((Instant::now(), "beginning".to_owned())));
    let watched = doing.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            let (since, what) = &*watched.lock().unwrap_or_else(PoisonError::into_inner);
            if since.elapsed() > PATIENCE {
                println!("nothing came for {} s: {what}", PATIENCE.as_secs());
                std::process::exit(3);
            }
        }
    });
    doing
}

/// What was done.
#[derive(Default)]
struct Tally {
    requests: u64,
    events: u64,
    /// Committed.
    transactions: u64,
    /// Refused by `EAGAIN`, and begun again.
    again: u64,
    /// How often the counter was raised.
    raised: u64,
    /// The slowest request.
    slowest: Duration,
}

struct Load {
    store: Store,
    own: String,
    counter: String,
    random: u64,
    /// What the nodes below `own` hold.
    nodes: BTreeMap<String, Vec<u8>>,
    doing: Doing,
    tally: Tally,
}

impl Load {
    fn begin(&mut self) -> io::Result<()> {
        let own = self.own.clone();
        self.change(WRITE, 0, &own, b"")?;
        self.expect(WATCH, 0, &[own.as_bytes(), b"\0load\0"].concat())?;
        self.hear(vec![own])?;
        for number in 0..NAMES / 2 {
            self.write(&format!("fixed-{number}"))?;
        }
        Ok(())
    }

    /// Nothing more has come than was waited for, and all is as it was left.
    fn end(&mut self) -> io::Result<()> {
        self.list()?;
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.read(0, &name)?;
        }
        self.write("last")
    }

    fn step(&mut self) -> io::Result<()> {
        let name = self.name();
        match self.draw(12) {
            0..=2 => self.write(&name),
            3..=5 => self.read(0, &name),
            6 => self.remove(&name),
            7 => self.list(),
            8..=9 => self.transaction(),
            _ => self.raise(),
        }
    }

    fn write(&mut self, name: &str) -> io::Result<()> {
        let value = self.value();
        let path = self.path(name);
        self.change(WRITE, 0, &path, &value)?;
        self.nodes.insert(name.to_owned(), value);
        self.hear(vec![path])
    }

    fn read(&mut self, transaction: u32, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let answer = self.ask(READ, transaction, &[path.as_bytes(), b"\0"].concat())?;
        let right = match self.nodes.get(name) {
            Some(value) => answer == (READ, value.clone()),
            None => is_error(&answer, "ENOENT"),
        };
        self.check(right, || format!("{path} is {answer:?}"))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if self.nodes.remove(name).is_none() {
            return Ok(());
        }
        let path = self.path(name);
        self.expect(RM, 0, &[path.as_bytes(), b"\0"].concat())?;
        self.hear(vec![path])
    }

    fn list(&mut self) -> io::Result<()> {
        let own = self.own.clone();
        let names = self.expect(DIRECTORY, 0, &[own.as_bytes(), b"\0"].concat())?;
        let mut names: Vec<_> =
            names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(String::from_utf8_lossy).collect();
        names.sort();
        let right = names.iter().eq(self.nodes.keys());
        self.check(right, || format!("{own} lists {names:?}"))
    }

    /// Two writes and a removal at once, or not at all.
    fn transaction(&mut self) -> io::Result<()> {
        let number = self.start()?;
        let (one, two, three) = (self.name(), "in-transactions".to_owned(), self.name());
        self.read(number, &one)?;
        let mut nodes = self.nodes.clone();
        let mut changed = Vec::new();
        for name in [&one, &two] {
            let value = self.value();
            self.change(WRITE, number, &self.path(name), &value)?;
            nodes.insert(name.clone(), value);
            changed.push(self.path(name));
        }
        self.pause();
        if three != one && nodes.remove(&three).is_some() {
            let path = self.path(&three);
            self.expect(RM, number, &[path.as_bytes(), b"\0"].concat())?;
            changed.push(path);
        }
        if self.draw(4) == 0 {
            return self.expect(TRANSACTION_END, number, b"F\0").map(drop);
        }
        if self.commit(number)? {
            self.nodes = nodes;
            self.hear(changed)?;
        }
        Ok(())
    }

    /// Raises the counter by one, however often it takes.
    fn raise(&mut self) -> io::Result<()> {
        let path = self.counter.clone();
        loop {
            let number = self.start()?;
            let value = self.expect(READ, number, &[path.as_bytes(), b"\0"].concat())?;
            let value: u64 = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
            if self.draw(4) == 0 {
                self.pause();
            }
            self.change(WRITE, number, &path, (value + 1).to_string().as_bytes())?;
            if self.commit(number)? {
                self.tally.raised += 1;
                return Ok(());
            }
        }
    }

    fn start(&mut self) -> io::Result<u32> {
        let answer = self.expect(TRANSACTION_START, 0, b"\0")?;
        let number = std::str::from_utf8(&answer).ok().and_then(|text| text.trim_end_matches('\0').parse().ok());
        number.ok_or_else(|| io::Error::other(format!("no number of a transaction: {answer:?}")))
    }

    /// Whether it was committed: it may have to be done again.
    fn commit(&mut self, number: u32) -> io::Result<bool> {
        let answer = self.ask(TRANSACTION_END, number, b"T\0")?;
        let again = is_error(&answer, "EAGAIN");
        self.check(again || answer.0 == TRANSACTION_END, || format!("the end of a transaction: {answer:?}"))?;
        self.tally.transactions += u64::from(!again);
        self.tally.again += u64::from(again);
        Ok(!again)
    }

    fn change(&mut self, kind: u32, transaction: u32, path: &str, value: &[u8]) -> io::Result<()> {
        self.expect(kind, transaction, &[path.as_bytes(), b"\0", value].concat()).map(drop)
    }

    /// An answer that is no error.
    fn expect(&mut self, kind: u32, transaction: u32, payload: &[u8]) -> io::Result<Vec<u8>> {
        let answer = self.ask(kind, transaction, payload)?;
        self.check(answer.0 == kind, || {
            format!("request {kind} of {:?}: {answer:?}", String::from_utf8_lossy(payload))
        })?;
        Ok(answer.1)
    }

    fn ask(&mut self, kind: u32, transaction: u32, payload: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        self.now(format!("the answer to {kind} in transaction {transaction}: {:?}", String::from_utf8_lossy(payload)));
        let start = Instant::now();
        let answer = self.store.ask(kind, transaction, payload)?;
        self.tally.slowest = self.tally.slowest.max(start.elapsed());
        self.tally.requests += 1;
        Ok(answer)
    }

    /// Takes an event of each of these paths, in any order, and none else.
    fn hear(&mut self, mut paths: Vec<String>) -> io::Result<()> {
        while !paths.is_empty() {
            self.now(format!("events of {paths:?}"));
            let event = self.store.next_event()?;
            let path = event.split(|byte| *byte == 0).next().map(String::from_utf8_lossy).unwrap_or_default();
            let place = paths.iter().position(|expected| *expected == path);
            let Some(place) = place else {
                return Err(io::Error::other(format!("an event of {path}, where {paths:?} were to come")));
            };
            paths.swap_remove(place);
            self.tally.events += 1;
        }
        Ok(())
    }

    fn check(&self, right: bool, what: impl FnOnce() -> String) -> io::Result<()> {
        if right {
            return Ok(());
        }
        let mut said = what();
        write!(said, "; the last was {}", self.doing.lock().unwrap_or_else(PoisonError::into_inner).1).ok();
        Err(io::Error::other(said))
    }

    fn now(&self, what: String) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), what);
    }

    fn pause(&mut self) {
        thread::sleep(Duration::from_millis(self.draw(HELD_MAX)));
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.own)
    }

    fn name(&mut self) -> String {
        format!("n{}", self.draw(NAMES))
    }

    fn value(&mut self) -> Vec<u8> {
        let length = self.draw(VALUE_MAX);
        (0..length).map(|_| b'a' + self.draw(26) as u8).collect()
    }

    /// One of `0..below` (xorshift64).
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }
}

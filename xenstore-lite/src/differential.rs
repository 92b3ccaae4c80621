//! The store and its model, given the same and compared in everything that is to be seen. For tests and fuzzers on a host. Floor 1.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire as abi;

use crate::fakes::{FakeHost, Heard, fetch, message, request};
use crate::model::Model;
use crate::{Config, ConnectionId, Quotas, Resource, Store, Usage};

/// Domains that a script may name.
pub const DOMAINS: u16 = 4;

/// What a script does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A domain's request; the transaction is the one that it opened so many before the latest, if it opened one.
    Request {
        /// Who.
        domain: DomainId,
        /// `XS_*`.
        kind: u32,
        /// Which transaction; 0 for none.
        transaction: u8,
        /// What it says.
        payload: String,
    },
    /// A domain fetches what waits for it.
    Fetch(DomainId),
    /// The machine has a domain, and it is introduced.
    Create(DomainId),
    /// It is gone.
    Destroy(DomainId),
    /// It shut down.
    ShutDown(DomainId),
    /// The store goes on from its written state.
    Restart(Point),
}

/// Where a store's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// When all that waited was fetched.
    Rest,
    /// Between two requests, whatever waits.
    Between,
    /// In the next request, so many bytes of which were read.
    InRequest(u8),
    /// In the next message that is fetched, so many bytes of which are gone.
    InAnswer(u8),
}

/// Both.
pub struct Pair {
    store: Store,
    host: FakeHost,
    model: Model,
    /// Transactions that domains opened, the latest last.
    opened: BTreeMap<DomainId, Vec<u32>>,
    /// Where the store's life ends next.
    due: Option<Point>,
}

/// Quotas that scripts meet.
pub fn tight_quotas() -> Quotas {
    let mut quotas = Quotas::default();
    let limits = [
        (Resource::Nodes, 12),
        (Resource::Watches, 4),
        (Resource::Outstanding, 6),
        (Resource::Memory, 9000),
        (Resource::Transactions, 2),
        (Resource::TransactionNodes, 12),
        (Resource::NodePermissions, 3),
        (Resource::PathBytes, 40),
        (Resource::NodeSize, 80),
    ];
    for (resource, limit) in limits {
        quotas.set_hard(resource, limit);
    }
    quotas
}

impl Pair {
    /// Fresh ones, of the same quotas.
    #[expect(clippy::new_without_default, reason = "a pair without quotas of its own would say nothing")]
    pub fn new() -> Self {
        let quotas = tight_quotas();
        let mut store = Store::new(Config { quotas: quotas.clone(), ..Config::default() });
        store.connect(DomainId(0));
        let host = FakeHost { domains: BTreeMap::from([(DomainId(0), 1)]), ..FakeHost::default() };
        Self { store, host, model: Model::new(quotas), opened: BTreeMap::new(), due: None }
    }

    /// Does a step in both. What was heard goes into `seen`.
    ///
    /// # Panics
    /// Where the two differ.
    pub fn step(&mut self, step: &Step, seen: &mut Vec<Heard>) {
        match step {
            Step::Request { domain, kind, transaction, payload } => {
                let back = usize::from(*transaction).checked_sub(1);
                let opened = self.opened.get(domain).map_or(&[][..], Vec::as_slice);
                let transaction = back.map_or(0, |back| opened.iter().rev().nth(back).copied().unwrap_or(77));
                self.ask(*domain, *kind, transaction, payload.as_bytes());
            }
            Step::Fetch(domain) => self.fetch(*domain, seen),
            Step::Create(domain) => {
                self.host.domains.insert(*domain, 1);
                self.model.create(*domain);
                let payload = format!("{}\0{}\0{}\0", domain.0, 0, 5);
                self.ask(DomainId(0), abi::XS_INTRODUCE, 0, payload.as_bytes());
            }
            Step::Destroy(domain) if domain.0 != 0 => {
                self.host.domains.remove(domain);
                self.store.handle_domain_gone(*domain, &mut self.host);
                self.model.destroy(*domain);
            }
            Step::ShutDown(domain) if domain.0 != 0 => {
                self.store.handle_domain_shutdown(*domain);
                self.model.shut_down(*domain);
            }
            Step::Destroy(_) | Step::ShutDown(_) => {}
            Step::Restart(Point::Rest) => {
                for domain in (0..DOMAINS).map(DomainId) {
                    self.fetch(domain, seen);
                }
                self.restart();
            }
            Step::Restart(Point::Between) => {
                self.restart();
            }
            Step::Restart(within) => self.due = Some(*within),
        }
        for domain in (0..DOMAINS).map(DomainId) {
            assert_eq!(self.store.usage(domain), self.model.usage(domain), "what domain {} takes up", domain.0);
        }
    }

    fn ask(&mut self, domain: DomainId, kind: u32, transaction: u32, payload: &[u8]) {
        let Some(id) = self.store.connection(domain) else {
            assert!(!self.model.takes(domain), "domain {} is connected", domain.0);
            return;
        };
        let mut bytes = request(kind, transaction, payload);
        if let Some(Point::InRequest(read)) = self.due
            && self.model.takes(domain)
        {
            self.due = None;
            let rest = bytes.split_off(usize::from(read) % bytes.len());
            let tells_all = self.next_store().is_some();
            if !bytes.is_empty() {
                let taken = self.store.handle_bytes(id, &bytes, &mut self.host);
                if taken == Ok(0) {
                    assert!(self.store.poll_held(), "the beginning of a request was not taken, and nothing is held");
                    return;
                }
                assert_eq!(taken, Ok(bytes.len()), "domain {}: the beginning of a request", domain.0);
                assert_eq!(self.restart(), tells_all, "what the beginning of a request takes up");
            }
            bytes = rest;
        }
        let taken = self.store.handle_bytes(id, &bytes, &mut self.host);
        if taken == Ok(0) && self.model.takes(domain) {
            assert!(self.store.poll_held(), "a request was not taken, and nothing is held");
            return;
        }
        assert_eq!(taken, Ok(if self.model.takes(domain) { bytes.len() } else { 0 }), "domain {}", domain.0);
        if taken == Ok(bytes.len()) {
            self.model.request(domain, kind, transaction, payload);
        }
    }

    fn fetch(&mut self, domain: DomainId, seen: &mut Vec<Heard>) {
        let begun = self.begin_message(domain);
        let heard = self.store.connection(domain).map(|id| fetch_rest(&mut self.store, id, begun)).unwrap_or_default();
        assert_eq!(heard, self.model.fetch(domain), "what domain {} hears", domain.0);
        for started in heard.iter().filter(|heard| heard.kind == abi::XS_TRANSACTION_START) {
            let number: Option<u32> =
                core::str::from_utf8(&started.payload).ok().and_then(|text| text.trim_end_matches('\0').parse().ok());
            self.opened.entry(domain).or_default().extend(number);
        }
        seen.extend(heard);
    }

    /// Fetches the beginning of a message, if the store's life is to end there, and has it end.
    fn begin_message(&mut self, domain: DomainId) -> Vec<u8> {
        let (Some(Point::InAnswer(gone)), Some(id)) = (self.due, self.store.connection(domain)) else {
            return Vec::new();
        };
        let message = self.store.poll_transmit(id);
        if message.is_empty() {
            return Vec::new();
        }
        self.due = None;
        let begun = message.get(..usize::from(gone) % message.len()).unwrap_or_default().to_vec();
        // Of a message that was begun its rest alone is counted by the next store.
        if self.next_store().is_none() {
            return Vec::new();
        }
        self.store.transmitted(id, begun.len());
        let next = Store::read_state(&state(&self.store), config()).expect("a state that was written is read");
        self.go_on(next);
        begun
    }

    /// What a store makes of the written state, where that tells all: not what transactions met that have lost, which no longer counts as memory.
    fn next_store(&self) -> Option<Store> {
        let copy = Store::read_state(&state(&self.store), config()).expect("a state that was written is read");
        let mut same = true;
        for domain in (0..DOMAINS).map(DomainId) {
            let (before, after) = (self.store.usage(domain), copy.usage(domain));
            same &= before == after;
            let counts = |usage| Usage { memory: 0, ..usage };
            assert_eq!(counts(before), counts(after), "what domain {} takes up after a state was read", domain.0);
        }
        same.then_some(copy)
    }

    fn go_on(&mut self, next: Store) {
        for domain in (0..DOMAINS).map(DomainId) {
            assert_eq!(self.store.connection(domain), next.connection(domain), "domain {}'s connection", domain.0);
        }
        self.store = next;
        self.model.restart();
    }

    /// Goes on from the written state, if that tells all; whether it does.
    fn restart(&mut self) -> bool {
        let next = self.next_store();
        next.map(|next| self.go_on(next)).is_some()
    }

    /// Fetches all, has the store count itself anew, and takes it through its written state.
    ///
    /// # Panics
    /// Where something does not hold.
    pub fn finish(mut self, seen: &mut Vec<Heard>) {
        assert_eq!(self.store.check(), Ok(()));
        let state = state(&self.store);
        let copy = Store::read_state(&state, config()).expect("a state that was written is read");
        assert_eq!(copy.check(), Ok(()), "after a state was read");
        for domain in (0..DOMAINS).map(DomainId) {
            // A transaction that has lost forgets what it met, and no longer counts it.
            let counts = |store: &Store| Usage { memory: 0, ..store.usage(domain) };
            assert_eq!(counts(&self.store), counts(&copy), "what domain {} takes up after a state was read", domain.0);
            let waiting = |store: &Store, id: ConnectionId| (store.waiting(id), store.poll_transmit(id).to_vec());
            let both = (self.store.connection(domain), copy.connection(domain));
            assert_eq!(both.0, both.1);
            if let (Some(one), Some(two)) = both {
                assert_eq!(waiting(&self.store, one), waiting(&copy, two));
            }
            self.fetch(domain, seen);
        }
        let again = self::state(&copy);
        assert!(state == again, "a state read and written is another");
    }
}

fn config() -> Config {
    Config { quotas: tight_quotas(), ..Config::default() }
}

/// Fetches all messages, of the first of which these bytes were fetched.
fn fetch_rest(store: &mut Store, id: ConnectionId, mut begun: Vec<u8>) -> Vec<Heard> {
    let mut heard = Vec::new();
    if !begun.is_empty() {
        let rest = store.poll_transmit(id).to_vec();
        begun.extend_from_slice(&rest);
        heard.extend(message(&begun));
        store.transmitted(id, rest.len());
    }
    heard.extend(fetch(store, id));
    heard
}

fn state(store: &Store) -> Vec<u8> {
    let mut state = Vec::new();
    store.write_state(&mut |bytes| state.extend_from_slice(bytes));
    state
}

/// Paths of a script: good ones that lie in each other, and all shapes of bad ones.
const PATHS: [&str; 28] = [
    "/",
    "/tool",
    "/a",
    "/a/b",
    "/a/b/c",
    "/a/b/c/d",
    "/a/bb",
    "/local",
    "/local/domain",
    "/local/domain/1",
    "/local/domain/1/x",
    "/local/domain/2",
    "/local/domain/2/y/z",
    "x",
    "x/y",
    "y",
    "@releaseDomain",
    "@introduceDomain",
    "@releaseDomain/2",
    "@other",
    "",
    "//",
    "/a/",
    "/a//b",
    "/a b",
    "/local/domain/",
    "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "/a/b/c/aaaaaaaaaaaaaaaaaaaaa",
];
/// Permissions of a script.
const PERMISSIONS: [&str; 12] = ["n0", "n1", "r1", "w2", "b2", "n3", "r3", "r32757", "b0", "x1", "n9", "w1"];
/// The requests of a script; those that change things come more often.
const KINDS: [u32; 32] = [
    abi::XS_WRITE,
    abi::XS_WRITE,
    abi::XS_WRITE,
    abi::XS_WRITE,
    abi::XS_READ,
    abi::XS_READ,
    abi::XS_DIRECTORY,
    abi::XS_MKDIR,
    abi::XS_MKDIR,
    abi::XS_RM,
    abi::XS_RM,
    abi::XS_GET_PERMS,
    abi::XS_SET_PERMS,
    abi::XS_SET_PERMS,
    abi::XS_SET_PERMS,
    abi::XS_WATCH,
    abi::XS_WATCH,
    abi::XS_WATCH,
    abi::XS_UNWATCH,
    abi::XS_TRANSACTION_START,
    abi::XS_TRANSACTION_START,
    abi::XS_TRANSACTION_END,
    abi::XS_TRANSACTION_END,
    abi::XS_TRANSACTION_END,
    abi::XS_RESET_WATCHES,
    abi::XS_SET_TARGET,
    abi::XS_RELEASE,
    abi::XS_WRITE,
    abi::XS_WRITE,
    abi::XS_READ,
    abi::XS_MKDIR,
    abi::XS_DIRECTORY,
];

/// A script out of any bytes: four a step.
pub fn script(input: &[u8]) -> impl Iterator<Item = Step> {
    input.chunks_exact(4).filter_map(|bytes| {
        let [what, who, path, more] = *bytes else { return None };
        let domain = DomainId(u16::from(who) % DOMAINS);
        Some(match what {
            0..160 => {
                let kind = *KINDS.get(usize::from(what) % KINDS.len())?;
                let transaction = if who & 0x30 == 0 { (who >> 6) + 1 } else { 0 };
                Step::Request { domain, kind, transaction, payload: payload(kind, path, more) }
            }
            160..230 => Step::Fetch(domain),
            230..240 => Step::Create(domain),
            240..248 => Step::Destroy(domain),
            248..252 => Step::ShutDown(domain),
            _ => Step::Restart(match who >> 6 {
                0 => Point::Rest,
                1 => Point::Between,
                2 => Point::InRequest(path),
                _ => Point::InAnswer(path),
            }),
        })
    })
}

fn payload(kind: u32, path: u8, more: u8) -> String {
    let word = PATHS.get(usize::from(path) % PATHS.len()).copied().unwrap_or_default();
    let low = more % 16;
    match kind {
        abi::XS_WRITE => format!("{word}\0{}", "v".repeat(usize::from(more) % 70)),
        abi::XS_SET_PERMS => {
            let count = 1 + usize::from(more >> 6);
            let entries = PERMISSIONS.iter().cycle().skip(usize::from(low)).step_by(1 + usize::from(more >> 4 & 3));
            format!("{word}\0{}\0", entries.take(count).copied().collect::<Vec<_>>().join("\0"))
        }
        abi::XS_WATCH if more & 0x30 == 0 => format!("{word}\0t{}\0{}\0", low % 3, i32::from(low) - 3),
        abi::XS_WATCH | abi::XS_UNWATCH => format!("{word}\0t{}\0", low % 3),
        abi::XS_TRANSACTION_END => (if low == 0 { "F\0" } else { "T\0" }).into(),
        abi::XS_TRANSACTION_START | abi::XS_RESET_WATCHES => "\0".into(),
        abi::XS_SET_TARGET => format!("{}\0{}\0", low % 4, (more >> 4) % 4),
        abi::XS_RELEASE => format!("{}\0", low % 5),
        // Now and then the zero byte is missing.
        _ if more == 0 => word.into(),
        _ => format!("{word}\0"),
    }
}

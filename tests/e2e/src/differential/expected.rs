//! `xenstore-lite` in process, with the domains and the nodes of a real store. Host.

use anyhow::{Context, Result, ensure};
use guests::script::{Transactions, decode};
use lab::Row;
use std::collections::BTreeMap;
use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire as abi;
use xenstore_lite::fakes::{self, FakeHost};
use xenstore_lite::{Config, Store};

use super::Heard;
use super::allowed;
use super::script::{Cast, Step, WATCH_EVENT};

/// Times that a request is offered which the store holds back: more than it ever does.
const OFFERS: usize = 200;

/// The store and its machine.
#[derive(Clone)]
pub(super) struct Expected {
    store: Store,
    host: FakeHost,
    transactions: BTreeMap<u16, Transactions>,
}

impl Default for Expected {
    fn default() -> Self {
        Self { store: Store::new(Config::default()), host: FakeHost::default(), transactions: BTreeMap::new() }
    }
}

impl Expected {
    /// With the nodes that dom0's word `tree` said, these domains, and the cast connected.
    pub(super) fn new(row: Row, tree: &str, domains: &[u16], cast: &Cast) -> Result<Self> {
        let store = Store::new(Config { features: allowed::features(row), ..Config::default() });
        let mut this = Self { store, ..Self::default() };
        this.host.domains = domains.iter().map(|id| (DomainId(*id), u64::from(*id) + 1)).collect();
        this.store.connect(DomainId(0)).context("dom0 is connected")?;
        for puppet in cast.puppets {
            this.must(abi::XS_INTRODUCE, format!("{puppet}\x000\x005\0").as_bytes())?;
        }
        for word in tree.split(' ').filter_map(|word| word.strip_prefix('n')) {
            let parts: Option<Vec<Vec<u8>>> = word.splitn(3, '.').map(decode).collect();
            let parts = parts.with_context(|| format!("not a node: {word}"))?;
            let [path, value, permissions] = parts.as_slice() else { continue };
            this.must(abi::XS_WRITE, &[path, b"\0".as_slice(), value].concat())?;
            this.must(abi::XS_SET_PERMS, &[path, b"\0".as_slice(), permissions].concat())?;
        }
        for step in cast.targets().into_iter().chain(allowed::beginning(row)) {
            this.must(step.kind, &step.payload)?;
        }
        Ok(this)
    }

    fn must(&mut self, kind: u32, payload: &[u8]) -> Result<()> {
        let id = self.store.connection(DomainId(0)).context("dom0 is connected")?;
        let request = fakes::request(kind, 0, payload);
        self.store.handle_bytes(id, &request, &mut self.host).ok().context("a request")?;
        let heard = fakes::fetch(&mut self.store, id);
        let refused = heard.iter().find(|heard| heard.kind == abi::XS_ERROR);
        ensure!(refused.is_none(), "xenstore-lite refuses {} {}", kind, payload.escape_ascii());
        Ok(())
    }

    /// Nodes that a domain owns.
    pub(super) fn owned(&self, domain: u16) -> usize {
        self.store.usage(DomainId(domain)).nodes
    }

    /// What each domain hears.
    pub(super) fn play(mut self, row: Row, steps: &[Step]) -> Heard {
        let mut all = Heard::new();
        for (index, step) in steps.iter().enumerate() {
            let transaction = self.transactions.entry(step.domain).or_default().number(step.request.transaction);
            let payload = allowed::told(row, &step.request);
            let bytes = fakes::request(step.request.kind, transaction, &payload);
            let Some(id) = self.store.connection(DomainId(step.domain)) else { continue };
            for _ in 0..OFFERS {
                if !matches!(self.store.handle_bytes(id, &bytes, &mut self.host), Ok(0)) {
                    break;
                }
            }
            let connected: Vec<_> = self.store.connections().map(|info| (info.id, info.domain.0)).collect();
            for (id, domain) in connected {
                for heard in fakes::fetch(&mut self.store, id) {
                    let message = if heard.kind == WATCH_EVENT {
                        guests::script::Message { kind: heard.kind, payload: heard.payload }
                    } else {
                        self.transactions.entry(domain).or_default().heard(heard.kind, heard.payload)
                    };
                    all.entry(domain).or_default().push((index, message));
                }
            }
        }
        all
    }
}

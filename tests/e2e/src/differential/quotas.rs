//! Random scripts that set tight quotas and meet them. Pure. Host.

use std::collections::BTreeMap;

use guests::script::{Message, Request};
use lab::Row;
use xen_pv_sys::io::xs_wire as abi;
use xenstore_lite::Resource;

use super::allowed;
use super::script::{Author, Cast, PUPPETS, Step, request};

/// The quotas that scripts set.
pub(super) const TIGHT: [Resource; 7] = [
    Resource::Nodes,
    Resource::Watches,
    Resource::Transactions,
    Resource::TransactionNodes,
    Resource::NodePermissions,
    Resource::PathBytes,
    Resource::NodeSize,
];
/// The least that a path's quota is: 4.17 bounds dom0's paths too, and those that it uses in a script are shorter.
const SHORTEST_PATH: usize = 20;
/// Transactions that a domain has open where nothing bounds them: fewer than its quota.
const TRANSACTIONS: usize = 6;

/// Whether an answer says that a quota is met. One about a path that is too long says no more than of other bad paths.
pub(super) fn is_refusal(message: &Message) -> bool {
    message.kind == abi::XS_ERROR && [b"ENOSPC\0".as_slice(), b"E2BIG\0"].contains(&message.payload.as_slice())
}

impl Cast {
    /// A script out of a seed, for puppets that own as many nodes as that when it begins.
    pub(super) fn meeting_quotas(&self, row: Row, seed: u64, length: usize, owned: u32) -> Vec<Step> {
        let mut author = Author::new(*self, seed);
        let mut steps = Vec::new();
        let mut limits = BTreeMap::new();
        let certain = author.below(TIGHT.len());
        for (index, resource) in TIGHT.into_iter().enumerate() {
            if index != certain && !author.one_in(3) {
                continue;
            }
            let value = tight(&mut author, resource, owned);
            steps.push(Step { domain: 0, request: allowed::quota(row, resource, value) });
            limits.insert(resource as usize, allowed::lets(row, resource, value) as usize);
        }
        let mut spendthrift = Spendthrift { author, limits, open: Default::default() };
        let mut who = 0;
        for _ in 0..length {
            if spendthrift.author.one_in(8) {
                who = spendthrift.author.below(PUPPETS + 1);
            }
            steps.push(spendthrift.step(who));
        }
        self.finish(&mut steps);
        steps
    }
}

/// A number that is soon met.
fn tight(author: &mut Author, resource: Resource, owned: u32) -> u32 {
    let (least, count) = match resource {
        Resource::Nodes => (owned + 1, 6),
        Resource::Watches => (1, 4),
        Resource::Transactions => (1, 3),
        Resource::TransactionNodes => (3, 8),
        Resource::NodePermissions => (2, 3),
        Resource::PathBytes => (SHORTEST_PATH as u32, 8),
        _ => (40, 60),
    };
    least + author.below(count) as u32
}

/// Who writes requests of what is bounded.
struct Spendthrift {
    author: Author,
    /// What the row's store lets be.
    limits: BTreeMap<usize, usize>,
    /// The transactions that each has open: dom0, then the puppets.
    open: [Vec<u32>; PUPPETS + 1],
}

impl Spendthrift {
    fn limit(&self, resource: Resource) -> Option<usize> {
        self.limits.get(&(resource as usize)).copied()
    }

    fn step(&mut self, who: usize) -> Step {
        let mut asked = self.request(who);
        let own = self.open[who].len();
        let (starts, ends) = (asked.kind == abi::XS_TRANSACTION_START, asked.kind == abi::XS_TRANSACTION_END);
        if own > 0 && (ends || (!starts && self.author.one_in(2))) {
            let index = self.author.below(own);
            asked.transaction = self.open[who][index];
            if ends {
                self.open[who].remove(index);
            }
        }
        if asked.kind == abi::XS_RESET_WATCHES {
            asked.transaction = 0;
            self.open[who].clear();
        }
        let bound = self.limit(Resource::Transactions).unwrap_or(usize::MAX);
        if starts && (who == 0 || own < bound) {
            self.author.begun[who] += 1;
            self.open[who].push(self.author.begun[who]);
        }
        Step { domain: self.author.number(who), request: asked }
    }

    /// A path where a puppet may make nodes, or mostly.
    fn path(&mut self, who: usize) -> String {
        let author = &mut self.author;
        // Dom0 has no `data` of its own.
        let top = if who == 0 { "/t" } else { *author.pick(&["data", "data", "data", "/t", "/t/a", "/t/b"]) };
        match author.below(12) {
            0 => top.to_owned(),
            // As long as is allowed, or about.
            1 | 2 if who != 0 => {
                let about = self.limit(Resource::PathBytes).unwrap_or(SHORTEST_PATH) + self.author.below(5);
                format!("{top}/{}", "p".repeat(about.saturating_sub(top.len() + 3)))
            }
            3 | 4 => format!("{top}/k{}/m{}", author.below(3), author.below(3)),
            5 => format!("{top}/k{}/m{}/n", author.below(3), author.below(3)),
            _ => format!("{top}/k{}", author.below(6)),
        }
    }

    /// A value, about as long as a node of one to three permissions may have it, or short.
    fn value(&mut self) -> Vec<u8> {
        let author = &mut self.author;
        let short = author.below(20);
        let length = match self.limits.get(&(Resource::NodeSize as usize)) {
            Some(limit) if self.author.one_in(2) => {
                let permissions = 1 + self.author.below(3);
                (limit + self.author.below(4)).saturating_sub(16 + 8 * permissions + 2)
            }
            _ => short,
        };
        vec![b'a' + self.author.below(26) as u8; length]
    }

    fn permissions(&mut self, who: usize) -> String {
        let author = &mut self.author;
        let puppets = author.cast.puppets;
        let owner = if who == 0 || author.one_in(10) { *author.pick(&puppets) } else { author.number(who) };
        let mut words = vec![format!("{}{owner}", author.pick(&["n", "r", "w", "b"]))];
        for _ in 0..author.below(5) {
            words.push(format!("{}{}", author.pick(&["n", "r", "w", "b"]), author.pick(&puppets)));
        }
        words.join("\0")
    }

    /// What kind of request may meet one of the quotas that are set.
    fn aimed(&mut self, who: usize) -> usize {
        let set: Vec<_> = TIGHT.into_iter().filter(|resource| self.limit(*resource).is_some()).collect();
        let author = &mut self.author;
        let kinds = match author.pick(&set) {
            Resource::Nodes => 0..40,
            Resource::Watches => 46..58,
            Resource::Transactions => 63..74,
            Resource::TransactionNodes if self.open[who].is_empty() => 63..74,
            Resource::TransactionNodes if author.one_in(2) => 0..40,
            Resource::TransactionNodes => 92..100,
            Resource::NodePermissions => 82..92,
            Resource::NodeSize if author.one_in(3) => 82..92,
            Resource::NodeSize => 20..40,
            _ => 0..100,
        };
        kinds.start + author.below(kinds.len())
    }

    fn request(&mut self, who: usize) -> Request {
        let path = self.path(who);
        let kind = if who != 0 && self.author.one_in(2) { self.aimed(who) } else { self.author.below(100) };
        let has_room = self.open[who].len() < TRANSACTIONS;
        match kind {
            0..20 => request(abi::XS_MKDIR, format!("{path}\0")),
            20..40 => {
                let value = self.value();
                request(abi::XS_WRITE, [path.as_bytes(), b"\0", &value].concat())
            }
            40..46 => request(abi::XS_RM, format!("{path}\0")),
            46..58 if who == 0 => self.author.watch_of_dom0(),
            46..62 if who != 0 => {
                let kind = if kind < 58 { abi::XS_WATCH } else { abi::XS_UNWATCH };
                request(kind, format!("{path}\0t{}\0", self.author.below(3)))
            }
            62 if who != 0 => request(abi::XS_RESET_WATCHES, b"\0"),
            63..74 if has_room || self.limit(Resource::Transactions).is_some() && who != 0 => {
                request(abi::XS_TRANSACTION_START, b"\0")
            }
            74..82 if !self.open[who].is_empty() => {
                request(abi::XS_TRANSACTION_END, if self.author.one_in(5) { "F\0" } else { "T\0" })
            }
            82..92 => {
                let permissions = self.permissions(who);
                request(abi::XS_SET_PERMS, format!("{path}\0{permissions}\0"))
            }
            92..94 => request(abi::XS_GET_PERMS, format!("{path}\0")),
            94..96 => request(abi::XS_DIRECTORY, format!("{path}\0")),
            _ => request(abi::XS_READ, format!("{path}\0")),
        }
    }
}

#[cfg(test)]
mod tests {
    use lab::{Release, StorePlace};

    use super::super::expected::Expected;
    use super::*;

    /// Enough that some bound nothing but one quota, for each.
    const SCRIPTS: u64 = 1000;

    #[test]
    fn scripts_meet_each_quota() {
        let cast = Cast { puppets: [5, 6, 7, 8] };
        let row = Row::new(Release::Debian13, StorePlace::Daemon);
        let home = cast.puppets.map(|puppet| format!("n/local/domain/{puppet}/data..n{puppet}%00"));
        let tree = ["n/t..b0%00", "n/t/a..n5%00r6%00w7%00", "n/t/b..b6%00"].map(str::to_owned);
        let tree = [tree.to_vec(), home.to_vec()].concat().join(" ");
        let beginning = Expected::new(row, &tree, &cast.all().collect::<Vec<_>>(), &cast).unwrap();
        let mut met = BTreeMap::<_, u32>::new();
        for seed in 0..SCRIPTS {
            let steps = cast.meeting_quotas(row, seed, 120, 1);
            let sets = |step: &&Step| step.request.kind == abi::XS_CONTROL;
            let resources: Vec<_> = steps.iter().filter(sets).collect();
            let [only] = resources.as_slice() else { continue };
            let quota = String::from_utf8_lossy(&only.request.payload).into_owned();
            for (step, message) in beginning.clone().play(row, &steps).into_values().flatten() {
                let asked = steps[step].request.kind;
                if is_refusal(&message) || (message.kind == abi::XS_ERROR && message.payload == b"EINVAL\0") {
                    let name = quota.split('\0').nth(2).unwrap_or_default().to_owned();
                    *met.entry((name, asked)).or_default() += 1;
                }
            }
        }
        for (resource, kind) in [
            (Resource::Nodes, abi::XS_MKDIR),
            (Resource::Nodes, abi::XS_WRITE),
            (Resource::Watches, abi::XS_WATCH),
            (Resource::Transactions, abi::XS_TRANSACTION_START),
            (Resource::TransactionNodes, abi::XS_READ),
            (Resource::TransactionNodes, abi::XS_MKDIR),
            (Resource::NodePermissions, abi::XS_SET_PERMS),
            (Resource::PathBytes, abi::XS_WATCH),
            (Resource::PathBytes, abi::XS_READ),
            (Resource::NodeSize, abi::XS_WRITE),
            (Resource::NodeSize, abi::XS_SET_PERMS),
        ] {
            let count = met.get(&(resource.name().to_owned(), kind)).copied().unwrap_or_default();
            assert!(count > 2, "{}: {count} requests of kind {kind} met it: {met:?}", resource.name());
        }
    }
}

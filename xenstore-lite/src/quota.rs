//! Quotas: their names, their defaults. Pure. Floor 1.

/// What a quota bounds. A quota of `N` lets `N` be; the one beyond is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Resource {
    /// Nodes that a domain owns.
    Nodes,
    /// Watches of a domain.
    Watches,
    /// Requests whose answers it has not fetched, or whose events a privileged domain has not fetched.
    Outstanding,
    /// Bytes of its nodes, transactions, watches, answers and events.
    Memory,
    /// Its transactions.
    Transactions,
    /// Nodes that one transaction has met.
    TransactionNodes,
    /// Entries of a node's permissions.
    NodePermissions,
    /// Bytes of a path, without `/local/domain/N/`.
    PathBytes,
    /// Bytes of a node: permissions, value and the names of its children.
    NodeSize,
}

/// How many resources there are.
pub(crate) const RESOURCES: usize = 9;

impl Resource {
    /// All, in the order in which C xenstored shows them.
    pub const ALL: [Self; RESOURCES] = [
        Self::Nodes,
        Self::Watches,
        Self::Outstanding,
        Self::Memory,
        Self::Transactions,
        Self::TransactionNodes,
        Self::NodePermissions,
        Self::PathBytes,
        Self::NodeSize,
    ];

    /// The name of its quota.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Watches => "watches",
            Self::Outstanding => "outstanding",
            Self::Memory => "memory",
            Self::Transactions => "transactions",
            Self::TransactionNodes => "transaction-nodes",
            Self::NodePermissions => "node-permissions",
            Self::PathBytes => "path-max",
            Self::NodeSize => "node-size",
        }
    }

    /// What `CONTROL quota` says of it.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Nodes => "Nodes per domain",
            Self::Watches => "Watches per domain",
            Self::Outstanding => "Outstanding requests per domain",
            Self::Memory => "Total Xenstore memory per domain",
            Self::Transactions => "Active transactions per domain",
            Self::TransactionNodes => "Max. number of accessed nodes per transaction",
            Self::NodePermissions => "Max. number of permissions per node",
            Self::PathBytes => "Max. length of a node path",
            Self::NodeSize => "Max. size of a node",
        }
    }
}

/// A quota as `GET_QUOTA` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    /// Beyond it, requests are refused.
    Hard(Resource),
    /// Beyond it, the log says so.
    SoftMemory,
}

impl Quota {
    /// By its name.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        if name == b"soft-memory" {
            return Some(Self::SoftMemory);
        }
        Resource::ALL.into_iter().find(|resource| resource.name().as_bytes() == name).map(Self::Hard)
    }

    /// All with their names, in C xenstored's order.
    pub(crate) fn all() -> impl Iterator<Item = (Self, &'static str)> {
        Resource::ALL.into_iter().flat_map(|resource| {
            let soft = (resource == Resource::Memory).then_some((Self::SoftMemory, "soft-memory"));
            core::iter::once((Self::Hard(resource), resource.name())).chain(soft)
        })
    }
}

/// The quotas of a store. 0 is no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    hard: [u32; RESOURCES],
    soft_memory: u32,
}

impl Default for Quotas {
    /// C xenstored's.
    fn default() -> Self {
        Self { hard: [1000, 128, 20, 0x28_0000, 10, 1024, 5, 2048, 2048], soft_memory: 0x20_0000 }
    }
}

impl Quotas {
    /// The quota of `resource`.
    pub fn hard(&self, resource: Resource) -> u32 {
        self.hard.get(resource as usize).copied().unwrap_or_default()
    }

    /// Sets it.
    pub fn set_hard(&mut self, resource: Resource, value: u32) {
        if let Some(place) = self.hard.get_mut(resource as usize) {
            *place = value;
        }
    }

    pub(crate) fn get(&self, quota: Quota) -> u32 {
        match quota {
            Quota::Hard(resource) => self.hard(resource),
            Quota::SoftMemory => self.soft_memory,
        }
    }

    pub(crate) fn set(&mut self, quota: Quota, value: u32) {
        match quota {
            Quota::Hard(resource) => self.set_hard(resource, value),
            Quota::SoftMemory => self.soft_memory = value,
        }
    }
}

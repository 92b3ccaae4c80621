//! Domains that come and go: who is told, and what goes with them. Floor 1.

use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_pv_sys::DomainId;

use super::Store;
use crate::Host;
use crate::access::Access;
use crate::node::{INTRODUCE_DOMAIN, Node, RELEASE_DOMAIN};
use crate::path;
use crate::permissions::Permission;
use crate::watches::{Event, Scope};

impl Store {
    /// A domain is gone, or `RELEASE` was asked: its connection, its nodes and its permissions go too. Fires `@releaseDomain`.
    pub fn handle_domain_gone(&mut self, domain: DomainId, host: &mut dyn Host) {
        self.forget(domain, host);
        self.deliver(None);
    }

    /// A domain has shut down: fires `@releaseDomain`, once until `RESUME`.
    pub fn handle_domain_shutdown(&mut self, domain: DomainId) {
        if let Some(known) = self.domains.get_mut(domain)
            && known.introduced
            && !core::mem::replace(&mut known.shutdown, true)
        {
            self.fire_special(RELEASE_DOMAIN, Scope::SpecialDomain, domain);
            self.fire_special(RELEASE_DOMAIN, Scope::Special, domain);
            self.deliver(None);
        }
    }

    /// Ends all that is a domain's. The events are still to be delivered.
    pub(super) fn forget(&mut self, domain: DomainId, host: &mut dyn Host) {
        let Some(known) = self.domains.get(domain) else {
            return;
        };
        let introduced = known.introduced;
        if let Some(id) = known.connection {
            self.disconnect(id);
        }
        self.remove_nodes(domain);
        // While those whose target it was may still read as it might.
        self.deliver(None);
        self.remove_permissions(domain);
        // A domain that comes to be known from now on is younger than all that named this one.
        self.tree.next_generation();
        self.domains.remove(domain);
        if introduced {
            host.release(domain);
            self.fire_special(RELEASE_DOMAIN, Scope::Special, domain);
            self.fire_special(RELEASE_DOMAIN, Scope::SpecialDomain, domain);
        }
    }

    pub(super) fn fire_introduced(&mut self, domain: DomainId) {
        self.fire_special(INTRODUCE_DOMAIN, Scope::Special, domain);
        self.fire_special(INTRODUCE_DOMAIN, Scope::SpecialDomain, domain);
    }

    fn fire_special(&mut self, name: &[u8], scope: Scope, domain: DomainId) {
        let now = self.tree.nodes.get(name).map(|node| node.permissions.clone());
        let path = match scope {
            Scope::SpecialDomain => path::child(name, alloc::format!("{}", domain.0).as_bytes()),
            Scope::Exact | Scope::Subtree | Scope::Special => name.to_vec(),
        };
        self.events.push(Event { path: path.into(), scope, now, before: None, parent: None });
    }

    /// Removes what a domain owns, and what is below. The root and the special nodes stay and are the privileged domain's then.
    fn remove_nodes(&mut self, domain: DomainId) {
        let privileged = self.domains.privileged;
        for path in self.tree.naming(domain) {
            // What lay below another that it owned is gone by now.
            if self.tree.nodes.get(&path).is_none_or(|node| node.owner() != domain) {
                continue;
            }
            if *path == *path::ROOT || path.starts_with(b"@") {
                self.change_permissions(&path, |entries| {
                    entries.iter_mut().take(1).for_each(|owner| owner.domain = privileged);
                });
                continue;
            }
            let caller = self.domains.caller(privileged);
            let mut access = Access {
                tree: &mut self.tree,
                domains: &mut self.domains,
                transaction: None,
                caller,
                events: &mut self.events,
            };
            if let Err(error) = access.remove_unasked(&path) {
                log::error!("{} of domain {} is left: {}", path.escape_ascii(), domain.0, error.name());
            }
        }
    }

    /// Takes a domain's entries out of the permissions of others' nodes.
    fn remove_permissions(&mut self, domain: DomainId) {
        for path in self.tree.naming(domain) {
            self.change_permissions(&path, |entries| {
                let mut first = true;
                entries.retain(|entry| core::mem::take(&mut first) || entry.domain != domain);
            });
        }
    }

    fn change_permissions(&mut self, path: &Rc<[u8]>, change: impl FnOnce(&mut Vec<Permission>)) {
        if let Some(node) = self.tree.nodes.get(path) {
            let mut entries = node.permissions.to_vec();
            change(&mut entries);
            let node = Node { permissions: entries.into(), ..node.clone() };
            self.tree.put(path.clone(), node, &mut self.domains);
        }
    }
}

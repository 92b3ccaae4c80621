//! Watches, found by their paths, and the events that they hear. Pure. Floor 1.
//!
//! An event looks at its own path and at those above it: what it costs follows the depth of the path and the watches that hear it, not how
//! many there are.

use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::ConnectionId;
use crate::path;
use crate::path_map::PathMap;
use crate::permissions::Permission;

/// Which watches an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of the very path.
    Exact,
    /// Also those above it, as far as they look.
    Subtree,
    /// Of a special path: those that do not ask for a domain's number.
    Special,
    /// Of a special path with a domain's number: those of that path, and those above that ask for numbers.
    SpecialDomain,
}

/// Something happened to a node.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) path: Rc<[u8]>,
    pub(crate) scope: Scope,
    /// The permissions of the node, or of the removed one; none for one that a transaction removed.
    pub(crate) now: Option<Rc<[Permission]>>,
    /// Those that it had before they were changed.
    pub(crate) before: Option<Rc<[Permission]>>,
    /// Those of its parent, where that is gone by now or not as it was.
    pub(crate) parent: Option<Rc<[Permission]>>,
}

/// A watch.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(crate) connection: ConnectionId,
    /// Counts up: the order of the watches, and of their events.
    pub(crate) serial: u64,
    pub(crate) token: Rc<[u8]>,
    /// Levels below the path that it hears of; `None` for all.
    pub(crate) depth: Option<u16>,
    /// Bytes of the path that its events leave out, since it was asked for by a relative one.
    pub(crate) omitted: usize,
    /// There was no room for an event of it. It hears one of its own path in place of all that it missed, when there is.
    pub(crate) missed: bool,
}

impl Watch {
    /// Whether an event at `path` is for this watch, which is at `own`.
    fn hears(&self, scope: Scope, path: &[u8], own: &[u8]) -> bool {
        let exact = path == own;
        match scope {
            Scope::Exact => exact,
            Scope::Subtree => self.depth.is_none_or(|depth| path::levels(path, own) <= usize::from(depth)),
            Scope::Special => exact && self.depth.is_none(),
            Scope::SpecialDomain => exact || self.depth.is_some_and(|depth| depth > 0),
        }
    }
}

/// All watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches {
    by_path: PathMap<Vec<Watch>>,
    serial: u64,
}

impl Watches {
    /// Adds a watch; gives its serial number.
    pub(crate) fn add(&mut self, path: &Rc<[u8]>, mut watch: Watch) -> u64 {
        self.serial += 1;
        watch.serial = self.serial;
        match self.by_path.get_mut(path) {
            Some(present) => present.push(watch),
            None => {
                self.by_path.insert(path.clone(), alloc::vec![watch]);
            }
        }
        self.serial
    }

    /// The watch of `connection` at `path` with that token.
    pub(crate) fn find(&self, path: &[u8], connection: ConnectionId, token: &[u8]) -> Option<u64> {
        let same = |watch: &&Watch| watch.connection == connection && *watch.token == *token;
        self.by_path.get(path)?.iter().find(same).map(|watch| watch.serial)
    }

    /// The watch of that number at `path`.
    pub(crate) fn get(&self, path: &[u8], serial: u64) -> Option<&Watch> {
        self.by_path.get(path)?.iter().find(|watch| watch.serial == serial)
    }

    /// Notes whether a watch has missed something; whether that is new.
    pub(crate) fn set_missed(&mut self, path: &[u8], serial: u64, missed: bool) -> bool {
        let watch = self.by_path.get_mut(path).and_then(|all| all.iter_mut().find(|watch| watch.serial == serial));
        watch.is_some_and(|watch| core::mem::replace(&mut watch.missed, missed) != missed)
    }

    /// Takes a watch away.
    pub(crate) fn remove(&mut self, path: &[u8], serial: u64) -> Option<Watch> {
        let present = self.by_path.get_mut(path)?;
        let place = present.iter().position(|watch| watch.serial == serial)?;
        let watch = present.remove(place);
        if present.is_empty() {
            self.by_path.remove(path);
        }
        Some(watch)
    }

    /// The watches that hear of an event, if they may: by connection, and in the order in which they were set.
    pub(crate) fn hearing(&self, scope: Scope, path: &[u8]) -> Vec<&Watch> {
        let mut hearing = Vec::new();
        if self.by_path.len() == 0 {
            return hearing;
        }
        for own in path::upwards(path) {
            let here = self.by_path.get(own).map_or(&[][..], Vec::as_slice);
            hearing.extend(here.iter().filter(|watch| watch.hears(scope, path, own)));
            if matches!(scope, Scope::Exact | Scope::Special) {
                break;
            }
        }
        hearing.sort_unstable_by_key(|watch| (watch.connection, watch.serial));
        hearing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_scope() {
        let mut watches = Watches::default();
        for (path, depth) in
            [("/", None), ("/a", Some(0)), ("/a", Some(1)), ("/a/b", None), ("/ab", None), ("/", Some(1))]
        {
            let watch =
                Watch { connection: ConnectionId(1), serial: 0, token: Rc::from([]), depth, omitted: 0, missed: false };
            watches.add(&path.as_bytes().into(), watch);
        }
        let hearing = |scope, path: &str| -> Vec<u64> {
            watches.hearing(scope, path.as_bytes()).iter().map(|watch| watch.serial).collect()
        };
        assert_eq!(hearing(Scope::Subtree, "/a"), [1, 2, 3, 6]);
        assert_eq!(hearing(Scope::Subtree, "/a/b"), [1, 3, 4]);
        assert_eq!(hearing(Scope::Subtree, "/a/b/c"), [1, 4]);
        assert_eq!(hearing(Scope::Exact, "/a/b"), [4]);
        assert_eq!(hearing(Scope::Subtree, "/"), [1, 6]);
    }

    #[test]
    fn special_watches() {
        let mut watches = Watches::default();
        for (path, depth) in [("@r", None), ("@r", Some(1)), ("@r/5", None), ("@r", Some(0)), ("/", None)] {
            let watch =
                Watch { connection: ConnectionId(1), serial: 0, token: Rc::from([]), depth, omitted: 0, missed: false };
            watches.add(&path.as_bytes().into(), watch);
        }
        let hearing = |scope, path: &str| -> Vec<u64> {
            watches.hearing(scope, path.as_bytes()).iter().map(|watch| watch.serial).collect()
        };
        assert_eq!(hearing(Scope::Special, "@r"), [1]);
        assert_eq!(hearing(Scope::SpecialDomain, "@r/5"), [2, 3]);
        assert_eq!(hearing(Scope::SpecialDomain, "@r/6"), [2]);
    }
}

//! A map by path, in the order of the paths' hashes. Pure. Floor 1.
//!
//! The keys that a search compares are integers that lie in the tree's own nodes, so that it touches one path, not one a step. A tree has
//! neither the pauses nor the peaks of a hash table that grows, and its clones are cheap. Who finds paths of one hash gains nothing: those are in a tree again.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::Map;

/// A map from paths to `T`.
#[derive(Clone, Debug)]
pub(crate) struct PathMap<T> {
    slots: Map<u64, Slot<T>>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Slot<T> {
    One(Rc<[u8]>, T),
    /// Paths of one hash.
    Many(BTreeMap<Rc<[u8]>, T>),
}

impl<T> Slot<T> {
    fn insert(&mut self, path: Rc<[u8]>, value: T) -> Option<T> {
        match self {
            Self::One(own, present) if *own == path => return Some(core::mem::replace(present, value)),
            Self::Many(values) => return values.insert(path, value),
            Self::One(..) => {}
        }
        let one = core::mem::replace(self, Self::Many(BTreeMap::new()));
        if let (Self::One(own, present), Self::Many(values)) = (one, self) {
            values.insert(own, present);
            values.insert(path, value);
        }
        None
    }
}

impl<T> Default for PathMap<T> {
    fn default() -> Self {
        Self { slots: Map::default(), len: 0 }
    }
}

/// Eight bytes a step: rotate, mix, multiply.
fn hash(path: &[u8]) -> u64 {
    let mut hash = path.len() as u64;
    let (words, rest) = path.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    mix(hash, tail)
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

impl<T: Clone> PathMap<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is at `path`.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&T> {
        match self.slots.get(&hash(path))? {
            Slot::One(own, value) => (**own == *path).then_some(value),
            Slot::Many(values) => values.get(path),
        }
    }

    /// What is at `path`, to be changed.
    pub(crate) fn get_mut(&mut self, path: &[u8]) -> Option<&mut T> {
        match self.slots.get_mut(&hash(path))? {
            Slot::One(own, value) => (**own == *path).then_some(value),
            Slot::Many(values) => values.get_mut(path),
        }
    }

    /// Puts `value` at `path`; gives what was there.
    pub(crate) fn insert(&mut self, path: Rc<[u8]>, value: T) -> Option<T> {
        let hash = hash(&path);
        let old = match self.slots.get_mut(&hash) {
            Some(slot) => slot.insert(path, value),
            None => {
                self.slots.insert(hash, Slot::One(path, value));
                None
            }
        };
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes out what is at `path`.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Option<T> {
        let hash = hash(path);
        let old = match self.slots.get(&hash)? {
            Slot::One(own, _) if **own != *path => return None,
            Slot::One(..) => match self.slots.remove(&hash)? {
                Slot::One(_, value) => Some(value),
                Slot::Many(_) => None,
            },
            Slot::Many(_) => match self.slots.get_mut(&hash)? {
                Slot::Many(values) => {
                    let old = values.remove(path);
                    if values.is_empty() {
                        self.slots.remove(&hash);
                    }
                    old
                }
                Slot::One(..) => None,
            },
        };
        self.len -= usize::from(old.is_some());
        old
    }

    /// All, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Rc<[u8]>, &T)> {
        self.slots.values().flat_map(|slot| {
            let (one, many) = match slot {
                Slot::One(path, value) => (Some((path, value)), None),
                Slot::Many(values) => (None, Some(values.iter())),
            };
            one.into_iter().chain(many.into_iter().flatten())
        })
    }
}

/// A [`PathMap`] in the making, where it is known beforehand that there will be many.
#[derive(Debug)]
pub(crate) struct Gathered<T>(Vec<(u64, Rc<Slot<T>>)>);

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Gathered<T> {
    /// Adds one. Each path comes once.
    pub(crate) fn add(&mut self, path: Rc<[u8]>, value: T) {
        self.0.push((hash(&path), Rc::new(Slot::One(path, value))));
    }

    /// All of them; `None` where a path came twice.
    pub(crate) fn finish(self) -> Option<PathMap<T>> {
        let Self(mut slots) = self;
        let len = slots.len();
        slots.sort_unstable_by_key(|(hash, _)| *hash);
        let mut twice = false;
        slots.dedup_by(|(hash, slot), (before, same)| {
            if hash == before
                && let Slot::One(path, value) = &**slot
            {
                twice |= Rc::make_mut(same).insert(path.clone(), value.clone()).is_some();
            }
            hash == before
        });
        (!twice).then(|| PathMap { slots: Map::from_sorted(slots), len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two words of one hash: the second undoes what the first made different.
    fn collision() -> [Rc<[u8]>; 2] {
        let undo = |first: u64| mix(16, first).rotate_left(5);
        let bytes = |first: u64, second: u64| [first.to_le_bytes(), second.to_le_bytes()].concat().into();
        [bytes(1, undo(1)), bytes(2, undo(2))]
    }

    #[test]
    fn paths_of_one_hash_are_told_apart() {
        let [one, two] = collision();
        assert_eq!(hash(&one), hash(&two));
        let mut map = PathMap::default();
        assert_eq!(map.insert(one.clone(), 1), None);
        assert_eq!(map.get(&two), None);
        assert_eq!(map.remove(&two), None);
        assert_eq!(map.insert(two.clone(), 2), None);
        assert_eq!(map.insert(one.clone(), 3), Some(1));
        assert_eq!((map.get_mut(&two).copied(), map.get(&one), map.len()), (Some(2), Some(&3), 2));
        assert_eq!(map.iter().count(), 2);
        assert_eq!((map.remove(&one), map.remove(&one)), (Some(3), None));
        assert_eq!(map.get(&two), Some(&2));
        assert_eq!((map.remove(&two), map.len(), map.slots.len()), (Some(2), 0, 0));
    }

    #[test]
    fn gathered_paths() {
        let gathered = |paths: &[&Rc<[u8]>]| {
            let mut gathered = Gathered::default();
            paths.iter().enumerate().for_each(|(number, path)| gathered.add((*path).clone(), number));
            gathered.finish()
        };
        let [one, two] = collision();
        let other: Rc<[u8]> = b"/other".as_slice().into();
        let map = gathered(&[&other, &one, &two]).expect("none comes twice");
        assert_eq!((map.get(&other), map.get(&one), map.get(&two), map.len()), (Some(&0), Some(&1), Some(&2), 3));
        let map = gathered(&[&two, &other]).expect("none comes twice");
        assert_eq!((map.get(&other), map.get(&one), map.get(&two), map.len()), (Some(&1), None, Some(&0), 2));
        assert!(gathered(&[&other, &one, &other]).is_none() && gathered(&[&one, &two, &one]).is_none());
        assert_eq!(gathered(&[]).map(|map| map.len()), Some(0));
    }

    #[test]
    fn many_paths() {
        let mut map = PathMap::default();
        let path = |number: u32| Rc::from(alloc::format!("/local/domain/{number}").into_bytes());
        for number in 0..2000 {
            map.insert(path(number), number);
        }
        for number in (0..2000).step_by(2) {
            assert_eq!(map.remove(&path(number)), Some(number));
        }
        assert_eq!(map.len(), 1000);
        assert!((0..2000).all(|number| map.get(&path(number)).is_some() == (number % 2 == 1)));
    }
}

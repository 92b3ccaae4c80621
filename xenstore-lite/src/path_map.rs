//! A map by path, in the order of the paths' hashes. Pure. Floor 1.
//!
//! A trie of the hashes' bits that shares what it can with its clones: to clone one is to copy a pointer, and what changes afterwards is copied
//! on its way from the root, some nodes. It has neither the pauses nor the peaks of a hash table that grows. Who finds paths of one hash
//! gains nothing: those are in a tree.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::hash::{BuildHasherDefault, Hasher};

use archery::RcK;
use rpds::HashTrieMap;

/// A map from paths to `T`.
#[derive(Clone, Debug)]
pub(crate) struct PathMap<T> {
    slots: HashTrieMap<u64, Slot<T>, RcK, BuildHasherDefault<Hashed>>,
    len: usize,
}

/// The hash of what is a hash.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, value: u64) {
        // The trie begins with the lowest bits, which a product mixes least.
        self.0 = value ^ value >> 32;
    }
}

#[derive(Clone, Debug)]
enum Slot<T> {
    One(Rc<[u8]>, T),
    /// Paths of one hash.
    Many(BTreeMap<Rc<[u8]>, T>),
}

impl<T> Slot<T> {
    /// Whether the path is a new one.
    fn insert(&mut self, path: Rc<[u8]>, value: T) -> bool {
        match self {
            Self::One(own, present) if *own == path => {
                *present = value;
                return false;
            }
            Self::Many(values) => return values.insert(path, value).is_none(),
            Self::One(..) => {}
        }
        let one = core::mem::replace(self, Self::Many(BTreeMap::new()));
        if let (Self::One(own, present), Self::Many(values)) = (one, self) {
            values.insert(own, present);
            values.insert(path, value);
        }
        true
    }
}

impl<T> Default for PathMap<T> {
    fn default() -> Self {
        Self { slots: HashTrieMap::new_with_hasher_and_ptr_kind(BuildHasherDefault::default()), len: 0 }
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

    /// Puts `value` at `path`, in place of what was there.
    pub(crate) fn insert(&mut self, path: Rc<[u8]>, value: T) {
        let hash = hash(&path);
        let added = match self.slots.get_mut(&hash) {
            Some(slot) => slot.insert(path, value),
            None => {
                self.slots.insert_mut(hash, Slot::One(path, value));
                true
            }
        };
        self.len += usize::from(added);
    }

    /// Takes out what is at `path`.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Option<T> {
        let hash = hash(path);
        let (old, left) = match self.slots.get(&hash)? {
            Slot::One(own, value) => ((**own == *path).then(|| value.clone()), false),
            Slot::Many(values) => (values.get(path).cloned(), values.len() > 1),
        };
        let old = old?;
        match self.slots.get_mut(&hash) {
            Some(Slot::Many(values)) if left => {
                values.remove(path);
            }
            _ => {
                self.slots.remove_mut(&hash);
            }
        }
        self.len -= 1;
        Some(old)
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
        map.insert(one.clone(), 1);
        assert_eq!(map.get(&two), None);
        assert_eq!(map.remove(&two), None);
        map.insert(two.clone(), 2);
        let before = map.clone();
        map.insert(one.clone(), 3);
        assert_eq!((map.get_mut(&two).copied(), map.get(&one), map.len()), (Some(2), Some(&3), 2));
        assert_eq!(map.iter().count(), 2);
        assert_eq!((map.remove(&one), map.remove(&one)), (Some(3), None));
        assert_eq!(map.get(&two), Some(&2));
        assert_eq!((map.remove(&two), map.len(), map.slots.size()), (Some(2), 0, 0));
        assert_eq!((before.get(&one), before.get(&two), before.len()), (Some(&1), Some(&2), 2));
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

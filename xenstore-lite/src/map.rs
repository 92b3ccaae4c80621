//! A map in the order of its keys, whose clones share all that they have in common. Pure. Floor 1.
//!
//! A B+ tree. A clone is one counter; a change copies the nodes on the way to its place, where a clone has them as well, and the value, where
//! it is changed in place. So the state of a moment costs what is changed after it, and whoever holds it sees none of that.
//!
//! Crates have such maps (`rpds`, tried here: 317 bytes a node of the store, and a third slower), but their iterators allocate, and the state
//! is written when the heap may be what failed.

use alloc::rc::Rc;
use alloc::vec::Vec;

/// Entries of a node at most.
const WIDTH: usize = 16;
/// Entries of a node that is made of many at once: some more find room in it.
const FILLED: usize = WIDTH / 4 * 3;
/// Levels at most: two neighbours have more than half of [`WIDTH`] together.
const LEVELS: usize = 24;

/// A map from `K` to `V`.
#[derive(Clone, Debug)]
pub struct Map<K, V> {
    root: Rc<Tree<K, V>>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Tree<K, V> {
    Leaf(Vec<(K, Rc<V>)>),
    /// Each with a key that divides it from the one before; the first one's says nothing.
    Inner(Vec<Child<K, V>>),
}

type Child<K, V> = (K, Rc<Tree<K, V>>);

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { root: Rc::new(Tree::Leaf(Vec::new())), len: 0 }
    }
}

/// Which child has `key`.
fn child_of<K: Ord, T>(children: &[(K, T)], key: &K) -> usize {
    children.partition_point(|(least, _)| least <= key).saturating_sub(1)
}

fn find<K: Ord, T>(entries: &[(K, T)], key: &K) -> Result<usize, usize> {
    entries.binary_search_by(|(own, _)| own.cmp(key))
}

/// The upper half of entries that are as many as a node has; the rest stays.
fn split<K: Copy, T>(entries: &mut Vec<(K, T)>) -> Option<(K, Vec<(K, T)>)> {
    if entries.len() < WIDTH {
        return None;
    }
    let upper = entries.split_off(WIDTH / 2);
    upper.first().map(|(key, _)| *key).map(|key| (key, upper))
}

/// Entries as nodes of one level, each with its first key.
fn level<K: Copy, T, N>(entries: Vec<(K, T)>, node: impl Fn(Vec<(K, T)>) -> N) -> Vec<(K, Rc<N>)> {
    let count = entries.len().div_ceil(FILLED);
    let each = entries.len().div_ceil(count.max(1));
    let mut entries = entries.into_iter();
    let mut nodes = Vec::with_capacity(count);
    while let Some(first) = entries.next() {
        let mut own = Vec::with_capacity(WIDTH);
        let key = first.0;
        own.push(first);
        own.extend(entries.by_ref().take(each - 1));
        nodes.push((key, Rc::new(node(own))));
    }
    nodes
}

impl<K: Ord + Copy, V: Clone> Tree<K, V> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// Puts a value; `old` gets what was there. Gives the upper half of a node that was full.
    fn insert(self: &mut Rc<Self>, key: K, value: V, old: &mut Option<Rc<V>>) -> Option<(K, Rc<Self>)> {
        match Rc::make_mut(self) {
            Self::Leaf(entries) => {
                let place = match find(entries, &key) {
                    Ok(place) => {
                        let present = entries.get_mut(place);
                        *old = present.map(|(_, present)| core::mem::replace(present, Rc::new(value)));
                        return None;
                    }
                    Err(place) => place,
                };
                let Some((least, mut upper)) = split(entries) else {
                    entries.insert(place, (key, Rc::new(value)));
                    return None;
                };
                match place.checked_sub(entries.len()) {
                    Some(place) if key > least => upper.insert(place, (key, Rc::new(value))),
                    _ => entries.insert(place, (key, Rc::new(value))),
                }
                Some((least, Rc::new(Self::Leaf(upper))))
            }
            Self::Inner(children) => {
                let place = child_of(children, &key);
                let (_, child) = children.get_mut(place)?;
                let added = child.insert(key, value, old)?;
                let Some((least, mut upper)) = split(children) else {
                    children.insert(place + 1, added);
                    return None;
                };
                match (place + 1).checked_sub(children.len()) {
                    Some(place) if added.0 > least => upper.insert(place, added),
                    _ => children.insert(place + 1, added),
                }
                Some((least, Rc::new(Self::Inner(upper))))
            }
        }
    }

    /// Takes out what is there.
    fn remove(self: &mut Rc<Self>, key: &K) -> Option<Rc<V>> {
        match Rc::make_mut(self) {
            Self::Leaf(entries) => find(entries, key).ok().map(|place| entries.remove(place).1),
            Self::Inner(children) => {
                let place = child_of(children, key);
                let (_, child) = children.get_mut(place)?;
                let removed = child.remove(key)?;
                if child.len() == 0 {
                    children.remove(place);
                } else {
                    let fits = |place: usize| {
                        let pair = children.get(place..place + 2)?;
                        let len: usize = pair.iter().map(|(_, child)| child.len()).sum();
                        (len <= WIDTH / 2).then_some(place)
                    };
                    if let Some(place) = place.checked_sub(1).and_then(fits).or_else(|| fits(place)) {
                        let (_, right) = children.remove(place + 1);
                        if let Some((_, left)) = children.get_mut(place) {
                            left.append(right);
                        }
                    }
                }
                Some(removed)
            }
        }
    }

    /// Adds the entries of the next node.
    fn append(self: &mut Rc<Self>, right: Rc<Self>) {
        match (Rc::make_mut(self), Rc::unwrap_or_clone(right)) {
            (Self::Leaf(left), Self::Leaf(mut right)) => left.append(&mut right),
            (Self::Inner(left), Self::Inner(mut right)) => left.append(&mut right),
            // Neighbours are of one level.
            _ => {}
        }
    }
}

impl<K: Ord + Copy, V: Clone> Map<K, V> {
    /// Of entries in the order of their keys, each of which comes once: for many of them a fraction of the work of as many insertions.
    pub(crate) fn from_sorted(entries: Vec<(K, Rc<V>)>) -> Self {
        debug_assert!(entries.is_sorted_by(|(one, _), (next, _)| one < next), "the keys are not in order");
        let len = entries.len();
        let mut nodes = level(entries, Tree::Leaf);
        while nodes.len() > 1 {
            nodes = level(nodes, Tree::Inner);
        }
        nodes.pop().map_or_else(Self::default, |(_, root)| Self { root, len })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is at `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut tree = &self.root;
        loop {
            match &**tree {
                Tree::Leaf(entries) => {
                    let place = find(entries, key).ok()?;
                    return entries.get(place).map(|(_, value)| &**value);
                }
                Tree::Inner(children) => tree = &children.get(child_of(children, key))?.1,
            }
        }
    }

    /// Whether something is at `key`.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// What is at `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let mut tree = &mut self.root;
        loop {
            match Rc::make_mut(tree) {
                Tree::Leaf(entries) => {
                    let place = find(entries, key).ok()?;
                    return entries.get_mut(place).map(|(_, value)| Rc::make_mut(value));
                }
                Tree::Inner(children) => {
                    let place = child_of(children, key);
                    tree = &mut children.get_mut(place)?.1;
                }
            }
        }
    }

    /// What is at `key`, made where there is nothing.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> Option<&mut V> {
        if !self.contains_key(&key) {
            self.insert(key, make());
        }
        self.get_mut(&key)
    }

    /// Puts `value` at `key`; gives what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let mut old = None;
        if let Some(upper) = self.root.insert(key, value, &mut old) {
            let lower = self.root.clone();
            let least = lower.least().unwrap_or(key);
            self.root = Rc::new(Tree::Inner(alloc::vec![(least, lower), upper]));
        }
        self.len += usize::from(old.is_none());
        old.map(Rc::unwrap_or_clone)
    }

    /// Takes out what is at `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        if !self.contains_key(key) {
            return None;
        }
        let removed = self.root.remove(key)?;
        self.len -= 1;
        while let Tree::Inner(children) = &*self.root
            && children.len() < 2
        {
            self.root = children.first().map_or_else(|| Rc::new(Tree::Leaf(Vec::new())), |(_, only)| only.clone());
        }
        Some(Rc::unwrap_or_clone(removed))
    }

    /// Takes out what is at the least key.
    pub(crate) fn pop_first(&mut self) -> Option<V> {
        let mut tree = &self.root;
        let least = loop {
            match &**tree {
                Tree::Leaf(entries) => break entries.first()?.0,
                Tree::Inner(children) => tree = &children.first()?.1,
            }
        };
        self.remove(&least)
    }

    /// All, in the order of the keys. Allocates nothing.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { leaf: [].iter(), above: [const { [].as_slice() }; LEVELS], level: 0 };
        iter.enter(&self.root);
        iter
    }

    /// The keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, in the order of the keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Copy, V> Tree<K, V> {
    fn least(&self) -> Option<K> {
        match self {
            Self::Leaf(entries) => entries.first().map(|(key, _)| *key),
            Self::Inner(children) => children.first().map(|(key, _)| *key),
        }
    }
}

impl<K: Ord + Copy, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<'a, K: Ord + Copy, V: Clone> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// See [`Map::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a, K, V> {
    leaf: core::slice::Iter<'a, (K, Rc<V>)>,
    /// What is still to be seen of the nodes above, from the root on.
    above: [&'a [Child<K, V>]; LEVELS],
    level: usize,
}

impl<'a, K, V> Iter<'a, K, V> {
    /// Goes down to the first leaf of a subtree.
    fn enter(&mut self, mut tree: &'a Tree<K, V>) {
        loop {
            match tree {
                Tree::Leaf(entries) => {
                    self.leaf = entries.iter();
                    return;
                }
                Tree::Inner(children) => {
                    let (Some((first, rest)), Some(place)) = (children.split_first(), self.above.get_mut(self.level))
                    else {
                        return;
                    };
                    *place = rest;
                    self.level += 1;
                    tree = &first.1;
                }
            }
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            let level = self.level.checked_sub(1)?;
            let rest = self.above.get_mut(level)?;
            match rest.split_first() {
                Some((next, behind)) => {
                    *rest = behind;
                    self.enter(&next.1);
                }
                None => self.level = level,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    /// Against the standard library's map, with clones that must stay as they were.
    #[test]
    fn as_a_btree_map() {
        let mut random = 0x1234_5678_u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % below
        };
        for range in [3, 40, 700, 20_000] {
            // As one that is made of many at once.
            let mut model: BTreeMap<u64, u64> = (0..range / 2).map(|key| (key * 2, key)).collect();
            let mut map = Map::from_sorted(model.iter().map(|(key, value)| (*key, Rc::new(*value))).collect());
            assert!(map.iter().eq(model.iter()) && map.len() == model.len(), "of {range}");
            let mut clones = Vec::new();
            for step in 0..4000_u64 {
                let key = next(range);
                // It grows, and then it shrinks.
                match next(8) {
                    0..4 if step < 2000 => assert_eq!(map.insert(key, step), model.insert(key, step)),
                    0..5 => assert_eq!(map.remove(&key), model.remove(&key)),
                    5 => assert_eq!(map.insert(key, step), model.insert(key, step)),
                    6 => {
                        if let Some(value) = map.get_mut(&key) {
                            *value += 1;
                        }
                        model.entry(key).and_modify(|value| *value += 1);
                    }
                    _ => assert_eq!(map.get(&key), model.get(&key)),
                }
                assert_eq!(map.len(), model.len());
                if step % 500 == 0 {
                    clones.push((map.clone(), model.clone()));
                }
            }
            clones.push((map, model));
            for (map, model) in clones {
                assert!(map.iter().eq(model.iter()), "of {range}");
            }
        }
    }

    #[test]
    fn what_is_emptied_takes_nothing() {
        let mut map: Map<u32, u32> = (0..5000).map(|number| (number, number)).collect();
        for number in 0..5000 {
            assert_eq!(map.remove(&number), Some(number));
        }
        assert!(map.is_empty() && matches!(&*map.root, Tree::Leaf(entries) if entries.is_empty()));
    }
}

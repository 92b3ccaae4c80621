//! What the modules of a crate may not do to each other. Host.

use super::names::{Module, Names, Texts, needs};
use std::collections::{BTreeMap, BTreeSet};

/// A crate and the order of its rooms.
pub(crate) struct House {
    /// Its directory.
    pub(crate) root: &'static str,
    /// The rooms, bottom first. `lib.rs` is the roof.
    pub(crate) layers: &'static [&'static [&'static str]],
    /// Where there is one, no two files of a room may need each other, of any room but this; and nothing may name what is the root's own.
    pub(crate) strict: Option<&'static str>,
}

impl House {
    fn layer(&self, module: &[String]) -> Option<usize> {
        let room = module.first()?;
        self.layers.iter().position(|rooms| rooms.contains(&room.as_str()))
    }
}

/// Who needs whom.
type Needs<Name> = BTreeMap<Name, BTreeSet<Name>>;

/// What breaks the rules.
pub(crate) fn violations(house: &House, texts: &Texts) -> Vec<String> {
    let names = needs(texts);
    let mut found = Vec::new();
    for (module, needed) in names.iter().filter(|(module, _)| !module.is_empty()) {
        let own = house.layer(module);
        if own.is_none() {
            found.push(format!("{} is in no layer", module.join("::")));
        }
        for other in needed.iter().filter(|other| other.first() != module.first()) {
            let up = if other.is_empty() { house.strict.is_some() } else { house.layer(other) >= own };
            if up {
                found.push(format!("{} names crate::{}", module.join("::"), other.join("::")));
            }
        }
    }
    found.extend(circles(&names));
    if let Some(lenient) = house.strict {
        found.extend(within_rooms(names, lenient));
    }
    found
}

/// Modules beside each other that need each other. What lies below a module counts as the module.
fn circles(names: &Names) -> Vec<String> {
    let mut found = Vec::new();
    let parents: BTreeSet<&[String]> = names.keys().filter_map(|module| Some(module.split_last()?.1)).collect();
    for parent in parents {
        let mut beside: Needs<&String> = BTreeMap::new();
        for (module, needed) in names {
            let Some(own) = module.strip_prefix(parent).and_then(<[String]>::first) else {
                continue;
            };
            let others = needed.iter().filter_map(|other| other.strip_prefix(parent)?.first());
            beside.entry(own).or_default().extend(others.filter(|other| *other != own));
        }
        for (own, needed) in &beside {
            for other in needed.iter().filter(|other| reaches(&beside, other, own)) {
                let mut pair = [own.as_str(), other.as_str()];
                pair.sort_unstable();
                let place = if parent.is_empty() { "crate".to_owned() } else { parent.join("::") };
                found.push(format!("{place}: {} need each other", pair.join(", ")));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Files of a room that need each other.
fn within_rooms(names: Names, lenient: &str) -> Vec<String> {
    let mut rooms: Needs<Module> = names;
    let children: Vec<Module> = rooms.keys().filter(|module| !module.is_empty()).cloned().collect();
    for child in children {
        let above = child.split_last().map(|(_, above)| above.to_vec()).unwrap_or_default();
        rooms.entry(above).or_default().insert(child);
    }
    for (module, needed) in &mut rooms {
        needed.retain(|other| other.first() == module.first());
    }
    let mut found = Vec::new();
    for (module, needed) in rooms.iter().filter(|(module, _)| module.first().is_some_and(|room| room != lenient)) {
        for other in needed.iter().filter(|other| reaches(&rooms, other, module)) {
            found.push(format!("{} and {} need each other", module.join("::"), other.join("::")));
        }
    }
    found
}

/// Whether one needs another, be it by others.
fn reaches<Name: Ord>(needs: &Needs<Name>, from: &Name, to: &Name) -> bool {
    let mut seen = BTreeSet::new();
    let mut left = vec![from];
    while let Some(name) = left.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            left.extend(needs.get(name).into_iter().flatten());
        }
    }
    false
}

//! A verifying load on the xenstore: `/init store-load NAME [HOME]`. Linux.
//!
//! It writes, reads, lists, removes and begins transactions at random in a tree of its own, and knows what must be there. With the other
//! clients it shares `/load/counter`, which each adds to in transactions: the sum of what they added must be what is there. Each change in its
//! own tree must be heard of. It goes on until `/load/stop` is there, and says what it did, or what was wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::store::Store;

/// Nodes in the tree at most.
const NODES: u64 = 24;

pub(crate) fn run(name: &str, home: Option<&str>) -> io::Result<()> {
    let home = home.unwrap_or("data/load");
    let mut load = Load {
        store: Store::open()?,
        home: home.to_owned(),
        nodes: BTreeMap::new(),
        unheard: BTreeSet::new(),
        random: name.bytes().fold(1, |sum, byte| sum * 31 + u64::from(byte)),
        done: 0,
        added: 0,
        lost: 0,
        heard: 0,
    };
    load.store.make(home)?;
    load.store.watch(home)?;
    while load.store.read("/load/stop").is_err() {
        for _ in 0..20 {
            load.step()?;
        }
        load.listen()?;
    }
    load.store.remove(home)?;
    println!("requests={} added={} lost={} heard={}", load.done, load.added, load.lost, load.heard);
    Ok(())
}

struct Load {
    store: Store,
    home: String,
    nodes: BTreeMap<u64, Vec<u8>>,
    /// Paths that were changed and of which no event came since.
    unheard: BTreeSet<String>,
    random: u64,
    done: u64,
    /// To the counter.
    added: u64,
    /// Transactions that another's change has undone.
    lost: u64,
    heard: u64,
}

fn wrong<T>(what: String) -> io::Result<T> {
    Err(io::Error::other(format!("WRONG: {what}")))
}

impl Load {
    fn next(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.random >> 33) % below
    }

    fn path(&self, node: u64) -> String {
        format!("{}/n{node}", self.home)
    }

    fn step(&mut self) -> io::Result<()> {
        self.done += 1;
        let node = self.next(NODES);
        let path = self.path(node);
        match self.next(10) {
            0..4 => self.write(node, &path),
            4..6 => {
                let (found, expected) = (self.store.read(&path), self.nodes.get(&node));
                match (found, expected) {
                    (Ok(found), Some(expected)) if found == *expected => Ok(()),
                    (Err(error), None) if error.to_string().contains("ENOENT") => Ok(()),
                    (found, _) => wrong(format!("{path} reads {found:?} in place of {expected:?}")),
                }
            }
            6 => {
                let mut names = self.store.list(&self.home)?;
                names.sort();
                let mut expected: Vec<String> = self.nodes.keys().map(|node| format!("n{node}")).collect();
                expected.sort();
                if names == expected { Ok(()) } else { wrong(format!("{names:?} in place of {expected:?}")) }
            }
            7 if self.nodes.remove(&node).is_some() => {
                self.unheard.insert(path.clone());
                self.store.remove(&path)
            }
            7 => self.write(node, &path),
            8 => self.add(),
            _ => self.give_up(node, &path),
        }
    }

    fn write(&mut self, node: u64, path: &str) -> io::Result<()> {
        let length = self.next(200) as usize;
        let value = format!("{:0length$}", self.random).into_bytes();
        self.store.write(path, &value)?;
        self.nodes.insert(node, value);
        self.unheard.insert(path.to_owned());
        Ok(())
    }

    /// Adds one to what all share.
    fn add(&mut self) -> io::Result<()> {
        self.store.begin()?;
        let value = self.store.read("/load/counter")?;
        let value: Option<u64> = String::from_utf8_lossy(&value).parse().ok();
        let Some(value) = value else { return wrong("the counter is no number".to_owned()) };
        self.store.write("/load/counter", (value + 1).to_string().as_bytes())?;
        if self.store.end(true)? {
            self.added += 1;
        } else {
            self.lost += 1;
        }
        Ok(())
    }

    /// A transaction that leaves no trace, and sees itself.
    fn give_up(&mut self, node: u64, path: &str) -> io::Result<()> {
        self.store.begin()?;
        self.store.write(path, b"never")?;
        let within = self.store.read(path)?;
        self.store.end(false)?;
        if within != b"never" {
            return wrong(format!("{path} reads {within:?} in its transaction"));
        }
        match (self.store.read(path), self.nodes.get(&node)) {
            (Ok(found), Some(expected)) if found == *expected => Ok(()),
            (Err(_), None) => Ok(()),
            (found, expected) => wrong(format!("{path} reads {found:?} in place of {expected:?}, after a transaction")),
        }
    }

    /// Waits for the events of all that was changed.
    fn listen(&mut self) -> io::Result<()> {
        while !self.unheard.is_empty() || self.store.has_events() {
            let path = self.store.event()?;
            self.heard += 1;
            self.unheard.remove(&path);
        }
        Ok(())
    }
}

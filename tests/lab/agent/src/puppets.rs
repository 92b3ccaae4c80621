//! Plays scripts with the xenstore's connections of several domains: dom0's own, and those of domains with the image `puppet`, by their
//! consoles. Linux.
//!
//! A script's line is the number of a domain and the words for it (`guests::script`); for each line one is printed, what that domain
//! heard. Dom0 also knows the word [`TREE`].

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;

use guests::script::{self, Message, Request, Transactions};

use crate::store::{self, Store};

/// Dom0 says all nodes: for each `n PATH . VALUE . PERMISSIONS` without the blanks.
const TREE: &str = "tree";
/// What dom0 writes after each of its lines, and watches: when that event is there, all events before it are.
const BARRIER: &str = "/lab-barrier";
/// A terminal that must not become ours (`O_NOCTTY`, Linux).
const NO_CONTROLLING_TERMINAL: i32 = 0o400;

/// Plays the script in that file.
pub(crate) fn play(path: &str) -> io::Result<()> {
    let mut dom0 = Dom0::open()?;
    let mut puppets = HashMap::new();
    let mut output = io::BufWriter::new(io::stdout());
    for line in fs::read_to_string(path)?.lines() {
        let (who, words) = line.split_once(' ').unwrap_or((line, ""));
        let said = if who == "0" {
            dom0.obey(words)?
        } else {
            if !puppets.contains_key(who) {
                puppets.insert(who.to_owned(), Puppet::open(&mut dom0.store, who)?);
            }
            let puppet = puppets.get_mut(who).ok_or_else(|| io::Error::other("no puppet"))?;
            puppet.obey(words).map_err(|error| io::Error::other(format!("domain {who}: {error}")))?
        };
        writeln!(output, "{said}")?;
        output.flush()?;
    }
    output.flush()
}

/// The console of a domain with the image.
struct Puppet {
    input: File,
    output: BufReader<File>,
}

impl Puppet {
    fn open(store: &mut Store, domain: &str) -> io::Result<Self> {
        let path = store.read(&format!("/local/domain/{domain}/console/tty"))?;
        let path = String::from_utf8_lossy(&path).into_owned();
        let mut options = OpenOptions::new();
        let console = options.read(true).write(true).custom_flags(NO_CONTROLLING_TERMINAL).open(path)?;
        Ok(Self { input: console.try_clone()?, output: BufReader::new(console) })
    }

    /// Has it obey the words; gives what it says.
    fn obey(&mut self, words: &str) -> io::Result<String> {
        for piece in script::pieces(words) {
            self.input.write_all(format!("{piece}\n").as_bytes())?;
        }
        let mut said = String::new();
        let mut pieces = 0;
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                return Err(io::Error::other("its console ended"));
            }
            // Else it is the log.
            let Some(piece) = line.trim_end().strip_prefix(script::SAID) else {
                continue;
            };
            pieces += 1;
            match piece.strip_suffix(script::MORE) {
                Some(piece) => said += piece,
                None => return Ok(said + piece),
            }
            if pieces % script::PAGE == script::PAGE - 1 {
                self.input.write_all(format!("{}\n", script::NEXT).as_bytes())?;
            }
        }
    }
}

/// Dom0's connection, by way of its kernel, which has its own names for watches.
struct Dom0 {
    store: Store,
    transactions: Transactions,
}

impl Dom0 {
    fn open() -> io::Result<Self> {
        let mut store = Store::open()?;
        store.write(BARRIER, b"")?;
        store.watch(BARRIER)?;
        store.wait()?;
        Ok(Self { store, transactions: Transactions::default() })
    }

    fn obey(&mut self, words: &str) -> io::Result<String> {
        let mut said: Vec<String> = Vec::new();
        for word in words.split(' ') {
            if word == script::ANEW {
                // Without watches, and without transactions.
                *self = Self::open()?;
            } else if word == TREE {
                self.tree("/", &mut said)?;
            } else if let Some(request) = Request::parse(word) {
                let transaction = self.transactions.number(request.transaction);
                let (kind, payload) = match self.store.ask(request.kind, transaction, &request.payload) {
                    // The kernel's own refusal.
                    Err(error) if error.raw_os_error().is_some() => (store::ERROR, name_of(&error)),
                    answer => answer?,
                };
                said.push(self.transactions.heard(kind, payload).word());
            } else {
                said.push(format!("?{word}"));
            }
        }
        self.store.write(BARRIER, b"")?;
        loop {
            let payload = self.store.next_event()?;
            if payload.starts_with(BARRIER.as_bytes()) {
                if payload.ends_with(b"\0lab\0") {
                    return Ok(said.join(" "));
                }
                continue;
            }
            said.push(Message { kind: store::WATCH_EVENT, payload }.word());
        }
    }

    /// All nodes from a path on.
    fn tree(&mut self, path: &str, said: &mut Vec<String>) -> io::Result<()> {
        let permissions = self.store.ask(store::GET_PERMS, 0, &[path.as_bytes(), b"\0"].concat())?.1;
        let value = self.store.read(path)?;
        let [path_text, value, permissions] = [path.as_bytes(), &value, &permissions].map(script::encode);
        said.push(format!("n{path_text}.{value}.{permissions}"));
        for name in self.store.list(path)? {
            self.tree(&format!("{}/{name}", path.trim_end_matches('/')), said)?;
        }
        Ok(())
    }
}

/// The name of an error that the kernel gave in place of the store.
fn name_of(error: &io::Error) -> Vec<u8> {
    let number = error.raw_os_error().unwrap_or_default();
    format!("{:?}\0", nix::errno::Errno::from_raw(number)).into_bytes()
}

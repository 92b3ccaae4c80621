//! A domain whose xenstore ring dom0 plays by the console: requests as they are written there, and what comes back (`guests::script`).
//!
//! It knows some words more: `attack.NAME` begins an attack, `stop` ends it and says the page's error word, `hoard.NAME` takes memory of the
//! store's and says in how many requests, `reconnect` has the connection begin anew, and hear again, `measure` says the median and the 99th percentile of reads, in ns.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod attacks;
mod hoards;
mod ring;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use attacks::Attack;
use guests::script::{self, Message, Request, Transactions};
use ring::Ring;
use runtime::{Environment, console, time};
use xen_pv_sys::io::xs_wire::{XS_INVALID, XS_READ, XS_WATCH_EVENT};

/// Reads of one measurement.
const READS: usize = 201;

runtime::entry!(main);

async fn main(_: Environment) {
    let ring = match Ring::attach() {
        Ok(ring) => ring,
        Err(error) => {
            log::error!("no store: {error:?}");
            return;
        }
    };
    let mut puppet = Puppet { ring, transactions: Transactions::default(), request: 0, attack: None };
    let mut line = String::new();
    log::info!("a puppet waits for its words");
    loop {
        let piece = console::next_line().await;
        match piece.strip_suffix(script::MORE) {
            Some(piece) => line += piece,
            None => {
                line += &piece;
                let words = core::mem::take(&mut line);
                let said = puppet.obey(&words).await;
                say(&said).await;
            }
        }
    }
}

/// Says a line, and waits now and then for whoever listens.
async fn say(line: &str) {
    for (index, piece) in script::pieces(line).enumerate() {
        if index % script::PAGE == script::PAGE - 1 {
            while console::next_line().await != script::NEXT {}
        }
        console::write(&format!("{}{piece}", script::SAID));
    }
}

struct Puppet {
    ring: Ring,
    transactions: Transactions,
    /// The last request's number.
    request: u32,
    attack: Option<Attack>,
}

impl Puppet {
    /// Does what the words of a line say, one after the other; gives what came, and was not said yet.
    async fn obey(&mut self, line: &str) -> String {
        let mut said: Vec<String> = Vec::new();
        for word in line.split(' ') {
            if word == script::ANEW {
                self.transactions.clear();
            } else if let Some(request) = Request::parse(word) {
                self.ask(&request).await;
                self.take(&mut said);
            } else if let Some(name) = word.strip_prefix("attack.") {
                self.attack = Attack::begin(&self.ring, name);
                said.push(if self.attack.is_some() { "begun".into() } else { format!("?{name}") });
            } else if let Some(name) = word.strip_prefix("hoard.") {
                let sent = hoards::hoard(&self.ring, name).await;
                said.push(sent.map_or_else(|| format!("?{name}"), |sent| format!("{sent}")));
            } else {
                said.push(match word {
                    "stop" => {
                        if let Some(attack) = self.attack.take() {
                            attack.stop().await;
                        }
                        self.ring.take_messages();
                        format!("{}", attacks::fault(&self.ring))
                    }
                    "fault" => format!("{}", attacks::fault(&self.ring)),
                    "reconnect" => {
                        self.ring.set_deaf(false);
                        format!("{}", attacks::reconnect(&self.ring).await)
                    }
                    "measure" => self.measure().await,
                    _ => format!("?{word}"),
                });
            }
        }
        self.take(&mut said);
        said.join(" ")
    }

    /// Makes a request, and waits for its answer.
    async fn ask(&mut self, request: &Request) {
        self.request += 1;
        let transaction = self.transactions.number(request.transaction);
        let answered = self.ring.answered();
        self.ring.write(&ring::request(request.kind, self.request, transaction, &request.payload)).await;
        while self.ring.answered() == answered {
            self.ring.news().await;
        }
    }

    /// Reads a node of its own again and again.
    async fn measure(&mut self) -> String {
        let read = Request { kind: XS_READ, transaction: 0, payload: b"data\0".to_vec() };
        let mut times: Vec<u64> = Vec::new();
        for _ in 0..READS {
            let begin = time::now().0;
            self.ask(&read).await;
            times.push(time::now().0 - begin);
        }
        self.ring.take_messages();
        times.sort_unstable();
        let at = |place: usize| times.get(place).copied().unwrap_or_default();
        format!("{}.{}", at(READS / 2), at(READS * 99 / 100))
    }

    /// Adds the words of all that came.
    fn take(&mut self, said: &mut Vec<String>) {
        for (header, payload) in self.ring.take_messages() {
            let is_event = header.kind == XS_WATCH_EVENT;
            let message = if is_event {
                Message { kind: header.kind, payload }
            } else if header.req_id != self.request {
                // An answer to another request.
                Message { kind: XS_INVALID, payload }
            } else {
                self.transactions.heard(header.kind, payload)
            };
            said.push(message.word());
        }
    }
}

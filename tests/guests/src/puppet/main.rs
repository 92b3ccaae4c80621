//! A domain whose xenstore ring dom0 plays by the console: requests as they are written there, and what comes back (`guests::script`).
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod ring;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use guests::script::{self, Message, Request, Transactions};
use ring::Ring;
use runtime::{Environment, console};
use xen_pv_sys::io::xs_wire::{XS_INVALID, XS_WATCH_EVENT};

runtime::entry!(main);

async fn main(_: Environment) {
    let ring = match Ring::attach() {
        Ok(ring) => ring,
        Err(error) => {
            log::error!("no store: {error:?}");
            return;
        }
    };
    let mut puppet = Puppet { ring, transactions: Transactions::default(), request: 0 };
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
            } else {
                said.push(format!("?{word}"));
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

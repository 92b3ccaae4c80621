//! What takes as much of the store's memory as it gives: each begins, ends by itself, and leaves all in place.

use alloc::format;
use alloc::vec::Vec;

use runtime::time::{self, Duration};
use xen_pv_sys::io::xs_wire as abi;

use crate::ring::{Ring, request};

/// A store that takes nothing for so long has had enough.
const PATIENCE: Duration = Duration::from_millis(500);
/// Transactions that a domain may have.
const TRANSACTIONS: u32 = 10;
/// Nodes that one of them may meet, less those above.
const MET: u32 = 1020;
/// The longest token that still has room for a path.
const TOKEN: usize = 900;

/// Hoards what `name` says; how many requests the store took, or `None` where there is no such hoard.
pub(crate) async fn hoard(ring: &Ring, name: &str) -> Option<u32> {
    let mut hoard = Hoard { ring, sent: 0, is_full: false };
    match name {
        "nodes" => hoard.nodes().await,
        "reads" => hoard.reads().await,
        "nodes-and-reads" => {
            hoard.nodes().await;
            hoard.reads().await;
        }
        "events" => {
            hoard.watch(b"data", 120).await;
            ring.set_deaf(true);
            hoard.write(b"data/x", 60).await;
        }
        "others-events" => {
            hoard.watch(b"/lab-hoard", 128).await;
            ring.set_deaf(true);
        }
        "events-of-others" => hoard.write(b"/lab-hoard", 400).await,
        _ => return None,
    }
    Some(hoard.sent)
}

struct Hoard<'a> {
    ring: &'a Ring,
    sent: u32,
    is_full: bool,
}

impl Hoard<'_> {
    /// 990 nodes of 2,000 bytes.
    async fn nodes(&mut self) {
        for number in 0..990 {
            let path = format!("data/{number}\0");
            self.send(abi::XS_WRITE, 0, &[path.as_bytes(), &[b'x'; 1900]].concat()).await;
        }
    }

    /// All transactions, each of which reads as many absent nodes as it may.
    async fn reads(&mut self) {
        for _ in 0..TRANSACTIONS {
            self.send(abi::XS_TRANSACTION_START, 0, b"\0").await;
        }
        // A connection that has begun anew counts them from 1.
        for transaction in 1..=TRANSACTIONS {
            for number in 0..MET {
                self.send(abi::XS_READ, transaction, format!("none/{number}\0").as_bytes()).await;
            }
        }
    }

    /// Watches with long tokens.
    async fn watch(&mut self, path: &[u8], count: u32) {
        for number in 0..count {
            let token = format!("{number:0TOKEN$}");
            self.send(abi::XS_WATCH, 0, &[path, b"\0", token.as_bytes(), b"\0"].concat()).await;
        }
    }

    async fn write(&mut self, path: &[u8], count: u32) {
        for number in 0..count {
            let name = format!("/{}", number % 100);
            self.send(abi::XS_WRITE, 0, &[path, name.as_bytes(), b"\0x"].concat()).await;
        }
    }

    /// Sends a request, unless the store has had enough.
    async fn send(&mut self, kind: u32, transaction: u32, payload: &[u8]) {
        if self.is_full {
            return;
        }
        let bytes: Vec<u8> = request(kind, self.sent, transaction, payload);
        let mut rest = bytes.as_slice();
        let mut since = time::now();
        while !rest.is_empty() {
            let written = self.ring.write_some(rest);
            rest = rest.get(written..).unwrap_or_default();
            drop(self.ring.take_messages());
            if written > 0 {
                since = time::now();
            } else if time::now() > since + PATIENCE {
                self.is_full = true;
                return;
            }
            if !rest.is_empty() {
                runtime::yield_now().await;
            }
        }
        self.sent += 1;
    }
}

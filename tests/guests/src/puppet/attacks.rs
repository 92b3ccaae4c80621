//! What a hostile domain does with its ring, until it is told to stop.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::hint::spin_loop;
use core::mem::offset_of;

use runtime::time::{self, Duration};
use xen_pv_sys::io::xs_wire::{self as abi, DomainInterface, MessageHeader, XENSTORE_RECONNECT};

use crate::ring::{Ring, raw, request};

/// Paths of every bad shape.
const BAD_PATHS: [&[u8]; 12] = [
    b"",
    b"\0",
    b"//\0",
    b"/a/\0",
    b"/a//b\0",
    b"a//\0",
    b"/a b\0",
    b"/\xff\0",
    b"@nobody\0",
    b"/local/domain/99999/x\0",
    b"/a\0b\0",
    b"/a",
];

/// An attack under way.
#[derive(Default)]
pub(crate) struct Attack {
    stop: Rc<Cell<bool>>,
    ended: Rc<Cell<bool>>,
}

impl Attack {
    /// Begins the attack of that name; `None` where there is none.
    pub(crate) fn begin(ring: &Ring, name: &str) -> Option<Self> {
        let this = Self::default();
        let (stop, ended) = (this.stop.clone(), this.ended.clone());
        let attacker = Attacker { ring: ring.clone(), stop };
        let name = NAMES.into_iter().find(|known| *known == name)?;
        runtime::spawn(async move {
            attacker.run(name).await;
            ended.set(true);
        });
        Some(this)
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        self.stop.set(true);
        while !self.ended.get() {
            runtime::yield_now().await;
        }
    }
}

const NAMES: [&str; 20] = [
    "burn",
    "request-index",
    "answer-index",
    "long-message",
    "endless-message",
    "half-header",
    "half-payload",
    "unknown-types",
    "bad-paths",
    "event-storm",
    "read-flood",
    "write-flood",
    "long-values",
    "watch-flood",
    "watch-events",
    "transaction-flood",
    "transactions-kept",
    "nodes-at-quota",
    "never-reading",
    "reconnect-storm",
];

struct Attacker {
    ring: Ring,
    stop: Rc<Cell<bool>>,
}

impl Attacker {
    async fn run(&self, name: &str) {
        let ring = &self.ring;
        let number = |count: u32| format!("{count}");
        match name {
            "request-index" => {
                let offset = offset_of!(DomainInterface, req_prod);
                self.poke(offset, ring.word(offset).wrapping_add(4096)).await;
            }
            "answer-index" => {
                let offset = offset_of!(DomainInterface, rsp_cons);
                self.poke(offset, ring.word(offset).wrapping_add(4096)).await;
            }
            "long-message" => {
                self.once(&raw(MessageHeader { kind: abi::XS_WRITE, len: 4097, ..Default::default() }, b"x")).await
            }
            "endless-message" => {
                self.once(&raw(MessageHeader { kind: abi::XS_WRITE, len: u32::MAX, ..Default::default() }, b"x")).await;
            }
            "half-header" => self.once(&[2, 0, 0, 0, 1, 0]).await,
            "half-payload" => {
                self.once(&raw(MessageHeader { kind: abi::XS_READ, len: 100, ..Default::default() }, b"/half")).await
            }
            "unknown-types" => self.flood(|count| request(27 + count % 70_000, count, 0, b"x\0")).await,
            "bad-paths" => {
                let kinds = [abi::XS_READ, abi::XS_WRITE, abi::XS_MKDIR, abi::XS_RM, abi::XS_WATCH, abi::XS_SET_PERMS];
                self.flood(|count| {
                    let path = BAD_PATHS.get(count as usize % BAD_PATHS.len()).copied().unwrap_or_default();
                    let kind = kinds.get(count as usize / 12 % kinds.len()).copied().unwrap_or_default();
                    request(kind, count, 0, path)
                })
                .await;
            }
            "event-storm" => {
                while !self.stop.get() {
                    (0..64).for_each(|_| ring.notify());
                    runtime::yield_now().await;
                }
            }
            "read-flood" => self.flood(|count| request(abi::XS_READ, count, 0, b"data\0")).await,
            "write-flood" => self.flood(|count| request(abi::XS_WRITE, count, 0, b"data/x\0value")).await,
            "long-values" => {
                let payload = [b"data/x\0".as_slice(), &[b'x'; 1900]].concat();
                self.flood(|count| request(abi::XS_WRITE, count, 0, &payload)).await;
            }
            // 128 of them are its quota.
            "watch-flood" => {
                self.flood(|count| {
                    let kind = if count % 400 < 200 { abi::XS_WATCH } else { abi::XS_UNWATCH };
                    request(kind, count, 0, &[b"data\0".as_slice(), number(count % 200).as_bytes(), b"\0"].concat())
                })
                .await;
            }
            "watch-events" => {
                self.flood(|count| match count {
                    0..200 => request(
                        abi::XS_WATCH,
                        count,
                        0,
                        &[b"data\0".as_slice(), number(count).as_bytes(), b"\0"].concat(),
                    ),
                    _ => request(abi::XS_WRITE, count, 0, b"data/x\0value"),
                })
                .await;
            }
            "transaction-flood" => {
                self.flood(|count| match count % 3 {
                    0 => request(abi::XS_TRANSACTION_START, count, 0, b"\0"),
                    1 => request(abi::XS_WRITE, count, count / 3 + 1, b"data/x\0value"),
                    _ => request(abi::XS_TRANSACTION_END, count, count / 3 + 1, b"T\0"),
                })
                .await;
            }
            "transactions-kept" => {
                self.flood(|count| match count {
                    0..20 => request(abi::XS_TRANSACTION_START, count, 0, b"\0"),
                    _ => {
                        let path = [b"data/".as_slice(), number(count % 2000).as_bytes(), b"\0"].concat();
                        request(abi::XS_WRITE, count, count % 10 + 1, &path)
                    }
                })
                .await;
            }
            "nodes-at-quota" => {
                self.flood(|count| {
                    request(
                        abi::XS_MKDIR,
                        count,
                        0,
                        &[b"data/".as_slice(), number(count % 1500).as_bytes(), b"\0"].concat(),
                    )
                })
                .await;
            }
            "never-reading" => {
                ring.set_deaf(true);
                self.flood(|count| request(abi::XS_READ, count, 0, b"data\0")).await;
                ring.set_deaf(false);
            }
            "reconnect-storm" => {
                while !self.stop.get() {
                    ring.set_word(offset_of!(DomainInterface, connection), XENSTORE_RECONNECT);
                    ring.notify();
                    runtime::yield_now().await;
                }
            }
            // The others' quiet hour: the same share of the CPU, and no word to the store.
            _ => {
                while !self.stop.get() {
                    (0..10_000).for_each(|_| spin_loop());
                    runtime::yield_now().await;
                }
            }
        }
    }

    /// Writes it once, and then makes noise.
    async fn once(&self, bytes: &[u8]) {
        self.ring.write_some(bytes);
        self.noise().await;
    }

    /// Sets a word once, and then makes noise.
    async fn poke(&self, offset: usize, value: u32) {
        self.ring.set_word(offset, value);
        self.noise().await;
    }

    async fn noise(&self) {
        while !self.stop.get() {
            self.ring.notify();
            runtime::yield_now().await;
        }
    }

    /// Writes requests without an end, as fast as they are taken, and looks at no answer.
    async fn flood(&self, make: impl Fn(u32) -> Vec<u8>) {
        for count in 0.. {
            let bytes = make(count);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                if self.stop.get() {
                    return;
                }
                let written = self.ring.write_some(rest);
                rest = rest.get(written..).unwrap_or_default();
                drop(self.ring.take_messages());
                if !rest.is_empty() {
                    runtime::yield_now().await;
                }
            }
        }
    }
}

/// How long a connection may take to begin anew.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has the connection begin anew; whether the store did so.
pub(crate) async fn reconnect(ring: &Ring) -> bool {
    let offset = offset_of!(DomainInterface, connection);
    ring.set_word(offset, XENSTORE_RECONNECT);
    ring.notify();
    let end = time::now() + PATIENCE;
    while ring.word(offset) != abi::XENSTORE_CONNECTED {
        if time::now() > end {
            return false;
        }
        time::sleep(Duration::from_millis(1)).await;
    }
    ring.begin_anew();
    true
}

/// What the store says in the page of why it does not serve this domain.
pub(crate) fn fault(ring: &Ring) -> u32 {
    ring.word(offset_of!(DomainInterface, error))
}

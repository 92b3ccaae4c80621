//! Scripts: who asks what. Random ones come from a seed. Pure. Host.

use guests::script::{ANEW, Message, Request};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xen_pv_sys::io::xs_wire as abi;

/// How many domains play beside dom0.
pub const PUPPETS: usize = 4;

/// `XS_WATCH_EVENT`.
pub(super) const WATCH_EVENT: u32 = abi::XS_WATCH_EVENT;

/// A request of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub domain: u16,
    /// What it asks.
    pub request: Request,
}

/// A request without a transaction.
pub fn request(kind: u32, payload: impl Into<Vec<u8>>) -> Request {
    Request { kind, transaction: 0, payload: payload.into() }
}

/// What is the same in all stores of a message: a directory's generation is each store's own.
pub(super) fn normal(message: &Message) -> Message {
    let mut message = message.clone();
    if message.kind == abi::XS_DIRECTORY_PART
        && let Some(end) = message.payload.iter().position(|byte| *byte == 0)
    {
        message.payload.drain(..end);
    }
    message
}

/// The puppets' numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cast {
    /// The last one is targeted at the first one when a script begins.
    pub puppets: [u16; PUPPETS],
}

impl Cast {
    /// Dom0 and the puppets.
    pub(super) fn all(&self) -> impl Iterator<Item = u16> {
        std::iter::once(0).chain(self.puppets)
    }

    /// Who acts for whom when a script begins.
    pub(super) fn targets(&self) -> Vec<Request> {
        let [a, _, _, d] = self.puppets;
        vec![request(abi::XS_SET_TARGET, format!("{d}\0{a}\0"))]
    }

    /// The lines that bring the real store to where a script begins.
    pub(super) fn preparation(&self) -> Vec<String> {
        let [a, b, c, _] = self.puppets;
        let reset = request(abi::XS_RESET_WATCHES, b"\0").word();
        let mut lines: Vec<String> = self.puppets.iter().map(|puppet| format!("{puppet} {ANEW} {reset}")).collect();
        let mut asked = vec![request(abi::XS_RM, b"/t\0")];
        let mut make = |path: String, permissions: String| {
            asked.push(request(abi::XS_MKDIR, format!("{path}\0")));
            asked.push(request(abi::XS_SET_PERMS, format!("{path}\0{permissions}\0")));
        };
        make("/t".into(), "b0".into());
        make("/t/a".into(), format!("n{a}\0r{b}\0w{c}"));
        make("/t/b".into(), format!("b{b}"));
        make("/t/ro".into(), "r0".into());
        make("/t/ro/below".into(), format!("n{c}"));
        make("/t/no".into(), "n0".into());
        for puppet in self.puppets {
            let path = format!("/local/domain/{puppet}/data");
            make(path, format!("n{puppet}"));
        }
        asked.extend(self.targets());
        for puppet in self.puppets {
            // The toolstack said so in a transaction that began before C xenstored knew the domain: then it does not heed it.
            asked.push(request(abi::XS_SET_PERMS, format!("/local/domain/{puppet}\0n0\0r{puppet}\0")));
            asked.insert(0, request(abi::XS_RM, format!("/local/domain/{puppet}/data\0")));
        }
        // What dom0 may have made by its own relative paths, and by those of domains that are not there.
        for path in ["0/data", "0/other", "1/data/x", "999", "32750", "32752", "65535"] {
            asked.insert(0, request(abi::XS_RM, format!("/local/domain/{path}\0")));
        }
        let words: Vec<String> = asked.iter().map(Request::word).collect();
        lines.push(format!("0 {ANEW} {}", words.join(" ")));
        lines
    }

    /// So that each domain has heard all events: none of these requests brings one.
    pub(super) fn finish(&self, steps: &mut Vec<Step>) {
        for domain in self.all() {
            steps.push(Step { domain, request: request(abi::XS_GET_DOMAIN_PATH, b"0\0") });
        }
    }

    /// A script out of a seed.
    pub fn random(&self, seed: u64, length: usize) -> Vec<Step> {
        let mut author = Author::new(*self, seed);
        let mut steps = Vec::new();
        let mut who = 0;
        for _ in 0..length {
            if author.one_in(3) {
                who = author.below(PUPPETS + 1);
            }
            steps.push(author.step(who));
        }
        self.finish(&mut steps);
        steps
    }
}

/// Transactions that a domain begins in a script: fewer than its quota of them.
const TRANSACTIONS: u32 = 8;

/// Who writes a script.
pub(super) struct Author {
    pub(super) cast: Cast,
    random: StdRng,
    /// Transactions that each began: dom0, then the puppets.
    pub(super) begun: [u32; PUPPETS + 1],
}

impl Author {
    pub(super) fn new(cast: Cast, seed: u64) -> Self {
        Self { cast, random: StdRng::seed_from_u64(seed), begun: [0; PUPPETS + 1] }
    }

    /// The number of dom0, or of a puppet from 1.
    pub(super) fn number(&self, who: usize) -> u16 {
        if who == 0 { 0 } else { self.cast.puppets[who - 1] }
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.random.random_range(0..limit.max(1))
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len());
        &from[index]
    }

    /// A puppet's number, or now and then another's.
    fn domain(&mut self) -> u16 {
        let puppets = self.cast.puppets;
        match self.below(12) {
            0 => 0,
            1 => *self.pick(&[1, 999, 32750, 32752, 65535]),
            _ => *self.pick(&puppets),
        }
    }

    fn path(&mut self, who: usize) -> String {
        const SHARED: [&str; 14] = [
            "/t",
            "/t/a",
            "/t/a/x",
            "/t/a/x/y",
            "/t/b",
            "/t/b/x",
            "/t/b/x/y/z",
            "/t/c",
            "/t/c/d",
            "/t/c/dd",
            "/t/ro",
            "/t/ro/below",
            "/t/ro/below/x",
            "/t/no/x",
        ];
        const OWN: [&str; 5] = ["data", "data/x", "data/x/y", "data/z", "other"];
        const BAD: [&str; 16] = [
            "",
            "//",
            "/t/",
            "/t//a",
            "/t/a b",
            "/t/a\n",
            "t/",
            "@",
            "@other",
            "@releaseDomain",
            "@introduceDomain",
            "/.",
            "/t/\u{e9}",
            "/t/*",
            "/t/a~",
            "/t/@-_",
        ];
        match self.below(20) {
            0 => (*self.pick(&BAD)).to_owned(),
            1 => "/".to_owned(),
            2..=5 => (*self.pick(&OWN)).to_owned(),
            6 => {
                let domain = self.domain();
                format!("/local/domain/{domain}/data/x")
            }
            7 => {
                let domain = self.domain();
                format!("/local/domain/{domain}")
            }
            8 if self.one_in(4) => {
                let lengths: &[usize] = &[100, 1000, 2100, 3069, 3070, 3500];
                // What the privileged domain may is another length in each version.
                let lengths = if who == 0 { &lengths[..2] } else { lengths };
                format!("/t/{}", "l".repeat(*self.pick(lengths)))
            }
            _ => (*self.pick(&SHARED)).to_owned(),
        }
    }

    fn permissions(&mut self) -> String {
        let count = 1 + self.below(4);
        let mut words = Vec::new();
        for _ in 0..count {
            let right = *self.pick(&["n", "r", "w", "b", "n", "r", "w", "b", "n", "r", "w", "b", "x", ""]);
            let domain = if self.one_in(30) { "x".to_owned() } else { self.domain().to_string() };
            words.push(format!("{right}{domain}"));
        }
        words.join("\0")
    }

    fn step(&mut self, who: usize) -> Step {
        let domain = self.number(who);
        let mut asked = self.request(who);
        if self.begun[who] > 0 && !matches!(asked.kind, abi::XS_TRANSACTION_START) && self.one_in(2) {
            asked.transaction = 1 + self.below(self.begun[who] as usize) as u32;
        }
        if self.one_in(60) {
            asked.transaction = 77;
        }
        if asked.kind == abi::XS_TRANSACTION_START {
            self.begun[who] += 1;
        }
        // To these dom0's kernel does not pass on the answer.
        match asked.kind {
            abi::XS_TRANSACTION_END if domain == 0 && asked.transaction == 0 => asked.transaction = 77,
            abi::XS_TRANSACTION_START if domain == 0 => asked.transaction = 0,
            _ => {}
        }
        // Dom0's kernel keeps these for itself.
        let kept = domain == 0
            && matches!(
                asked.kind,
                abi::XS_WATCH | abi::XS_UNWATCH | abi::XS_TRANSACTION_START | abi::XS_TRANSACTION_END
            );
        if self.one_in(40) && !kept {
            self.spoil(&mut asked.payload);
        }
        asked.payload.truncate(abi::XENSTORE_PAYLOAD_MAX);
        Step { domain, request: asked }
    }

    /// Makes something else of a payload.
    fn spoil(&mut self, payload: &mut Vec<u8>) {
        match self.below(5) {
            0 => drop(payload.pop()),
            1 => payload.push(0),
            2 => payload.extend_from_slice(b"more\0"),
            3 => payload.clear(),
            _ => payload.insert(0, 0),
        }
    }

    fn request(&mut self, who: usize) -> Request {
        let path = self.path(who);
        let kind = self.below(100);
        // What dom0 changes there outlives the script.
        let lasts = path == "/" || path.starts_with('@') || (path.starts_with("/local") && !path.ends_with("/data/x"));
        let changes = matches!(kind, 0..22 | 42..53 | 58..66);
        let path = if who == 0 && lasts && changes { "/t/c".to_owned() } else { path };
        match kind {
            0..22 => {
                let length = *self.pick(&[0, 1, 3, 10, 10, 40, 1200, 3000]);
                let value = vec![b'a' + self.below(26) as u8; length];
                request(abi::XS_WRITE, [path.as_bytes(), b"\0", &value].concat())
            }
            22..32 => request(abi::XS_READ, format!("{path}\0")),
            32..39 => request(abi::XS_DIRECTORY, format!("{path}\0")),
            39..42 => {
                let offset = *self.pick(&["0", "1", "2", "4", "100", "-1", "x"]);
                request(abi::XS_DIRECTORY_PART, format!("{path}\0{offset}\0"))
            }
            42..48 => request(abi::XS_MKDIR, format!("{path}\0")),
            48..53 => request(abi::XS_RM, format!("{path}\0")),
            53..58 => request(abi::XS_GET_PERMS, format!("{path}\0")),
            58..66 => {
                let permissions = self.permissions();
                request(abi::XS_SET_PERMS, format!("{path}\0{permissions}\0"))
            }
            66..74 if who == 0 => self.watch_of_dom0(),
            66..74 => {
                let token = *self.pick(&["t", "u", "", "a b"]);
                let kind = if self.one_in(4) { abi::XS_UNWATCH } else { abi::XS_WATCH };
                request(kind, format!("{path}\0{token}\0"))
            }
            74..80 if self.begun[who] < TRANSACTIONS => request(abi::XS_TRANSACTION_START, b"\0"),
            80..88 if self.begun[who] > 0 => {
                let how = if self.one_in(5) { "F\0" } else { "T\0" };
                request(abi::XS_TRANSACTION_END, how)
            }
            88..90 => {
                let domain = self.domain();
                request(abi::XS_GET_DOMAIN_PATH, format!("{domain}\0"))
            }
            90..92 => {
                let domain = self.domain();
                request(abi::XS_IS_DOMAIN_INTRODUCED, format!("{domain}\0"))
            }
            92 => {
                let [a, b, c, d] = self.cast.puppets;
                let target = *self.pick(&[a, b, c]);
                request(abi::XS_SET_TARGET, format!("{d}\0{target}\0"))
            }
            93 if who != 0 => request(abi::XS_RESET_WATCHES, b"\0"),
            94 => {
                let domain = self.domain();
                // Dom0's would be done.
                let kind = *self.pick(&[abi::XS_RELEASE, abi::XS_RESUME, abi::XS_INTRODUCE]);
                if who == 0 {
                    request(abi::XS_RELEASE, b"999\0")
                } else {
                    request(kind, format!("{domain}\x001\x002\0"))
                }
            }
            95 => request(abi::XS_CONTROL, if who == 0 { "nonsense\0" } else { "print\0x\0" }),
            96 if who != 0 => request(*self.pick(&[20, 99, 0xffff, 0xffff_ffff, abi::XS_ERROR]), b"/t\0"),
            _ => request(abi::XS_READ, format!("{path}\0")),
        }
    }

    /// Dom0's kernel knows watches by names of its own: each is set once, and never by a wrong path.
    pub(super) fn watch_of_dom0(&mut self) -> Request {
        let path = *self.pick(&["/t", "/t/a", "/t/b/x", "/t/c"]);
        // By the time there is a second one of the same path and token, which only the kernel tells apart.
        request(abi::XS_WATCH, format!("{path}\0w{}\0", self.below(1 << 30)))
    }
}

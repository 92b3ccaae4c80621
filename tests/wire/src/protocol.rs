//! What the wire and `traffic` say to each other: TCP transfers and UDP flows. Pure: no socket, no clock.
//!
//! A TCP transfer opens with a [`Header`]; then [`Header::bytes`] bytes flow in the direction(s) of its [`Operation`];
//! the serving side ends with a [`Trailer`] that says what it sent and received, so that the client can compare.
//! UDP datagrams of a flow start with a [`Datagram`]; all numbers are little-endian.

use xxhash_rust::xxh64::Xxh64;

/// TCP port of the transfer service.
pub const TRANSFER_PORT: u16 = 7001;
/// UDP port of the sink, its reports and the generator.
pub const FLOW_PORT: u16 = 7002;
/// TCP and UDP port of the echo service (RFC 862).
pub const ECHO_PORT: u16 = 7;
/// TCP and UDP port of the discard service (RFC 863).
pub const DISCARD_PORT: u16 = 9;
/// TCP port of the character generator (RFC 864; ours sends zeros, as fast as the peer reads).
pub const CHARGEN_PORT: u16 = 19;

/// A transfer of this many bytes has no end but the end of the stream.
pub const UNBOUNDED: u64 = u64::MAX;

const HEADER_MAGIC: [u8; 4] = *b"OXT1";
const TRAILER_MAGIC: [u8; 4] = *b"OXE1";
const DATAGRAM_MAGIC: [u8; 2] = *b"OX";

/// Which way the data of a transfer flows, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// From the client to the server.
    Send,
    /// From the server to the client.
    Receive,
    /// Both ways at the same time.
    Both,
}

impl Operation {
    /// Does the server receive data?
    pub fn server_receives(self) -> bool {
        self != Self::Receive
    }

    /// Does the server send data?
    pub fn server_sends(self) -> bool {
        self != Self::Send
    }
}

/// A message that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// Fewer bytes than the message has.
    Short {
        /// How many there were.
        length: usize,
    },
    /// The magic bytes are not ours.
    Magic,
    /// An operation or a kind that is not known.
    Kind(u8),
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short { length } => write!(formatter, "message of only {length} bytes"),
            Self::Magic => formatter.write_str("magic bytes of another protocol"),
            Self::Kind(kind) => write!(formatter, "unknown operation {kind}"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// How a transfer starts: the client's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which way the data flows.
    pub operation: Operation,
    /// The data is [`Pattern`] of `seed`; otherwise it is zeros.
    pub random: bool,
    /// Both sides compute the [`Digest`] of the data; otherwise digests are 0.
    pub check: bool,
    /// Bytes in each direction that has any; [`UNBOUNDED`] ends with the stream.
    pub bytes: u64,
    /// Seed of the pattern. The client's direction uses it as it is, the server's its complement.
    pub seed: u64,
}

impl Header {
    /// Length of an encoded header.
    pub const LENGTH: usize = 24;

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = Writer::<{ Self::LENGTH }>::new();
        bytes.put(&HEADER_MAGIC);
        bytes.put(&[
            match self.operation {
                Operation::Send => 1,
                Operation::Receive => 2,
                Operation::Both => 3,
            },
            u8::from(self.random) | u8::from(self.check) << 1,
            0,
            0,
        ]);
        bytes.put(&self.bytes.to_le_bytes());
        bytes.put(&self.seed.to_le_bytes());
        bytes.bytes
    }

    /// The header that `bytes` start with.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader { bytes };
        if reader.take::<4>()? != HEADER_MAGIC {
            return Err(ProtocolError::Magic);
        }
        let [operation, flags, _, _] = reader.take::<4>()?;
        let operation = match operation {
            1 => Operation::Send,
            2 => Operation::Receive,
            3 => Operation::Both,
            other => return Err(ProtocolError::Kind(other)),
        };
        Ok(Self {
            operation,
            random: flags & 1 != 0,
            check: flags & 2 != 0,
            bytes: u64::from_le_bytes(reader.take()?),
            seed: u64::from_le_bytes(reader.take()?),
        })
    }

    /// Seed of the data that the server sends.
    pub fn server_seed(&self) -> u64 {
        !self.seed
    }
}

/// How a transfer ends: the server's last bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes that the server sent.
    pub sent: u64,
    /// Digest of them, or 0.
    pub sent_digest: u64,
    /// Bytes that the server received.
    pub received: u64,
    /// Digest of them, or 0.
    pub received_digest: u64,
    /// Nanoseconds from the header to the last byte, by the server's clock.
    pub nanoseconds: u64,
}

impl Trailer {
    /// Length of an encoded trailer.
    pub const LENGTH: usize = 44;

    /// The trailer as bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = Writer::<{ Self::LENGTH }>::new();
        bytes.put(&TRAILER_MAGIC);
        for value in [self.sent, self.sent_digest, self.received, self.received_digest, self.nanoseconds] {
            bytes.put(&value.to_le_bytes());
        }
        bytes.bytes
    }

    /// The trailer that `bytes` start with.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader { bytes };
        if reader.take::<4>()? != TRAILER_MAGIC {
            return Err(ProtocolError::Magic);
        }
        Ok(Self {
            sent: u64::from_le_bytes(reader.take()?),
            sent_digest: u64::from_le_bytes(reader.take()?),
            received: u64::from_le_bytes(reader.take()?),
            received_digest: u64::from_le_bytes(reader.take()?),
            nanoseconds: u64::from_le_bytes(reader.take()?),
        })
    }
}

/// The data of a transfer: a pseudo-random stream that depends on seed and position alone, or zeros.
#[derive(Clone, Debug)]
pub struct Pattern {
    seed: Option<u64>,
    position: u64,
}

impl Pattern {
    /// The stream of `seed` from its start, or zeros without one.
    pub fn new(seed: Option<u64>) -> Self {
        Self { seed, position: 0 }
    }

    /// Writes the next `buffer.len()` bytes of the stream into `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let start = self.position;
        self.position = start.wrapping_add(buffer.len() as u64);
        let Some(seed) = self.seed else {
            buffer.fill(0);
            return;
        };
        let skip = (start % 8) as usize;
        let mut word = start / 8;
        let (head, rest) = buffer.split_at_mut(if skip == 0 { 0 } else { buffer.len().min(8 - skip) });
        if !head.is_empty() {
            for (to, from) in head.iter_mut().zip(mix(seed, word).iter().skip(skip)) {
                *to = *from;
            }
            word += 1;
        }
        let mut chunks = rest.chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&mix(seed, word));
            word = word.wrapping_add(1);
        }
        for (to, from) in chunks.into_remainder().iter_mut().zip(mix(seed, word)) {
            *to = from;
        }
    }
}

/// Word `index` of the stream of `seed`: the finaliser of SplitMix64 over a Weyl sequence, with one multiplication
/// less, since guests pay for it under emulation.
fn mix(seed: u64, index: u64) -> [u8; 8] {
    let mut word = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (word ^ (word >> 31)).to_le_bytes()
}

/// A digest of a stream: XXH64, scalar on purpose, because emulated CPUs are slow at vectors. 0 when switched off.
#[derive(Clone)]
pub struct Digest(Option<Xxh64>);

impl Digest {
    /// A digest of nothing so far; with `check` false it stays 0 and costs nothing.
    pub fn new(check: bool) -> Self {
        Self(check.then(|| Xxh64::new(0)))
    }

    /// Takes in the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(state) = &mut self.0 {
            state.update(bytes);
        }
    }

    /// The digest of all bytes so far.
    pub fn value(&self) -> u64 {
        self.0.as_ref().map_or(0, Xxh64::digest)
    }
}

/// What a datagram of a UDP flow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// One of the flow; `value` is its sequence number.
    Data,
    /// Asks the sink for a report on the flow.
    Query,
    /// The sink's answer; a [`FlowReport`] follows.
    Report,
    /// Asks the generator to send the flow; a [`FlowRequest`] follows.
    Generate,
    /// The generator has sent all: `value` datagrams.
    Finished,
    /// Asks the generator to stop.
    Stop,
    /// Tells the generator that all below `value` have come or are lost, so that it may go on.
    Progress,
}

/// The first bytes of each datagram of a flow. It fits the shortest Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// What this is for.
    pub kind: DatagramKind,
    /// Number of the flow, chosen by the client.
    pub flow: u32,
    /// Sequence number or count.
    pub value: u64,
}

impl Datagram {
    /// Length of an encoded datagram header.
    pub const LENGTH: usize = 16;

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = Writer::<{ Self::LENGTH }>::new();
        bytes.put(&DATAGRAM_MAGIC);
        bytes.put(&[
            match self.kind {
                DatagramKind::Data => 0,
                DatagramKind::Query => 1,
                DatagramKind::Report => 2,
                DatagramKind::Generate => 3,
                DatagramKind::Finished => 4,
                DatagramKind::Stop => 5,
                DatagramKind::Progress => 6,
            },
            0,
        ]);
        bytes.put(&self.flow.to_le_bytes());
        bytes.put(&self.value.to_le_bytes());
        bytes.bytes
    }

    /// The header that `bytes` start with, and what follows it.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), ProtocolError> {
        let mut reader = Reader { bytes };
        if reader.take::<2>()? != DATAGRAM_MAGIC {
            return Err(ProtocolError::Magic);
        }
        let [kind, _] = reader.take::<2>()?;
        let kind = match kind {
            0 => DatagramKind::Data,
            1 => DatagramKind::Query,
            2 => DatagramKind::Report,
            3 => DatagramKind::Generate,
            4 => DatagramKind::Finished,
            5 => DatagramKind::Stop,
            6 => DatagramKind::Progress,
            other => return Err(ProtocolError::Kind(other)),
        };
        let datagram =
            Self { kind, flow: u32::from_le_bytes(reader.take()?), value: u64::from_le_bytes(reader.take()?) };
        Ok((datagram, reader.bytes))
    }
}

/// What the generator is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRequest {
    /// Bytes of UDP payload in each datagram.
    pub size: u16,
    /// Datagrams a second; 0 is as fast as the wire takes them.
    pub per_second: u32,
    /// For how long.
    pub milliseconds: u32,
    /// Without a pace: how many datagrams may be under way beyond the last [`DatagramKind::Progress`]. QEMU's flow
    /// control leaks (it queues without end what the NIC has no room for), so the receiver has to hold the sender.
    pub window: u32,
}

impl FlowRequest {
    /// Length of an encoded request.
    pub const LENGTH: usize = 14;

    /// The request as bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = Writer::<{ Self::LENGTH }>::new();
        bytes.put(&self.size.to_le_bytes());
        bytes.put(&self.per_second.to_le_bytes());
        bytes.put(&self.milliseconds.to_le_bytes());
        bytes.put(&self.window.to_le_bytes());
        bytes.bytes
    }

    /// The request that `bytes` start with.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader { bytes };
        Ok(Self {
            size: u16::from_le_bytes(reader.take()?),
            per_second: u32::from_le_bytes(reader.take()?),
            milliseconds: u32::from_le_bytes(reader.take()?),
            window: u32::from_le_bytes(reader.take()?),
        })
    }
}

/// What a sink saw of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowReport {
    /// Datagrams received.
    pub received: u64,
    /// Sequence numbers below the highest that never came (duplicates count against it).
    pub missing: u64,
    /// Datagrams whose number was not above all before it.
    pub reordered: u64,
    /// Bytes of UDP payload received.
    pub bytes: u64,
    /// Longest time between two datagrams in a row.
    pub longest_gap_nanoseconds: u64,
    /// From the first datagram to the last.
    pub nanoseconds: u64,
}

impl FlowReport {
    /// Length of an encoded report.
    pub const LENGTH: usize = 48;

    /// The report as bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = Writer::<{ Self::LENGTH }>::new();
        for value in
            [self.received, self.missing, self.reordered, self.bytes, self.longest_gap_nanoseconds, self.nanoseconds]
        {
            bytes.put(&value.to_le_bytes());
        }
        bytes.bytes
    }

    /// The report that `bytes` start with.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader { bytes };
        Ok(Self {
            received: u64::from_le_bytes(reader.take()?),
            missing: u64::from_le_bytes(reader.take()?),
            reordered: u64::from_le_bytes(reader.take()?),
            bytes: u64::from_le_bytes(reader.take()?),
            longest_gap_nanoseconds: u64::from_le_bytes(reader.take()?),
            nanoseconds: u64::from_le_bytes(reader.take()?),
        })
    }
}

/// Counts a flow as it arrives. Time is an argument, in nanoseconds of any clock that does not go back.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowCounter {
    received: u64,
    reordered: u64,
    bytes: u64,
    next: u64,
    first: Option<u64>,
    last: u64,
    gap: u64,
}

impl FlowCounter {
    /// Takes in a datagram with the sequence number `sequence` and a payload of `length` bytes.
    pub fn handle_datagram(&mut self, sequence: u64, length: usize, now: u64) {
        if self.first.is_none() {
            self.first = Some(now);
        } else {
            self.gap = self.gap.max(now.saturating_sub(self.last));
        }
        self.last = now;
        self.received += 1;
        self.bytes = self.bytes.wrapping_add(length as u64);
        if sequence < self.next {
            self.reordered += 1;
        } else {
            self.next = sequence.saturating_add(1);
        }
    }

    /// The sequence number that is due next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What was seen so far.
    pub fn report(&self) -> FlowReport {
        FlowReport {
            received: self.received,
            missing: self.next.saturating_sub(self.received),
            reordered: self.reordered,
            bytes: self.bytes,
            longest_gap_nanoseconds: self.gap,
            nanoseconds: self.first.map_or(0, |first| self.last.saturating_sub(first)),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (head, rest) =
            self.bytes.split_first_chunk::<N>().ok_or(ProtocolError::Short { length: self.bytes.len() })?;
        self.bytes = rest;
        Ok(*head)
    }
}

struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.at).zip(bytes) {
            *to = *from;
        }
        self.at += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_encoding() {
        let header = Header { operation: Operation::Both, random: true, check: false, bytes: 1 << 40, seed: 7 };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        let trailer = Trailer { sent: 1, sent_digest: 2, received: 3, received_digest: 4, nanoseconds: 5 };
        assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
        let datagram = Datagram { kind: DatagramKind::Finished, flow: 9, value: u64::MAX - 1 };
        assert_eq!(Datagram::decode(&datagram.encode()), Ok((datagram, &[][..])));
        let request = FlowRequest { size: 18, per_second: 1000, milliseconds: 5, window: 6 };
        assert_eq!(FlowRequest::decode(&request.encode()), Ok(request));
        assert_eq!(Header::decode(&[0; 3]), Err(ProtocolError::Short { length: 3 }));
        assert_eq!(Header::decode(&[0; 24]), Err(ProtocolError::Magic));
    }

    #[test]
    fn the_pattern_does_not_depend_on_how_it_is_cut() {
        let mut whole = [0; 1000];
        Pattern::new(Some(42)).fill(&mut whole);
        for step in 1..40 {
            let mut cut = [0; 1000];
            let mut pattern = Pattern::new(Some(42));
            for piece in cut.chunks_mut(step) {
                pattern.fill(piece);
            }
            assert_eq!(cut, whole, "pieces of {step}");
        }
        let mut other = [0; 1000];
        Pattern::new(Some(43)).fill(&mut other);
        assert_ne!(other, whole);
    }

    #[test]
    fn a_flow_is_counted() {
        let mut flow = FlowCounter::default();
        for (sequence, now) in [(0, 10), (1, 20), (4, 70), (3, 75)] {
            flow.handle_datagram(sequence, 18, now);
        }
        let report = flow.report();
        assert_eq!((report.received, report.missing, report.reordered), (4, 1, 1));
        assert_eq!((report.longest_gap_nanoseconds, report.nanoseconds), (50, 65));
    }
}

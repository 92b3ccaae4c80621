//! The transport of the xenstore: moves bytes between the page shared with it and the client of `split_driver`. Floor 2.
//!
//! Unsafe because the page is found by its machine frame, and turned into words that the store's domain writes too.
use crate::environment::environment;
use crate::events::{self, Channel};
use crate::executor;
use crate::memory::{self, Caching, Mapping};
use crate::record::{Read, record};
use crate::select::select;
use crate::signal::Signal;
use alloc::rc::Rc;
use core::slice;
use core::sync::atomic::AtomicU32;
use split_driver::byte_ring::{ByteConsumer, ByteLayout, ByteProducer};
use split_driver::hypervisor::XenError;
use split_driver::memory::SharedMemory;
use split_driver::ring::RingError;
use split_driver::xenstore_client::Client;
use split_driver::xs_wire::MESSAGE_MAX;
use xen_pv_sys::{DomainId, PAGE_SIZE};

/// Why there is no connection to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The domain was started without a store.
    Absent,
    /// The page could not be mapped.
    Xen(XenError),
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Absent => formatter.write_str("the domain was started without a store"),
            Self::Xen(value) => write!(formatter, "the store's page cannot be mapped: {value}"),
        }
    }
}

impl core::error::Error for ConnectError {}

/// The page that is shared with the store.
pub struct StorePage(Mapping);

impl SharedMemory for StorePage {
    fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is one whole page, page-aligned, writable, and lives as long as `self`. The other end writes it too, and
        // every access of ours goes through these atomics.
        unsafe { slice::from_raw_parts(self.0.address().cast::<AtomicU32>(), PAGE_SIZE / 4) }
    }
}

/// Both streams of the page.
struct Transport {
    page: StorePage,
    channel: Channel,
    requests: ByteProducer,
    responses: ByteConsumer,
    /// The last life read a part of an answer, whose rest is to be skipped.
    skips: bool,
    client: Client,
}

impl Transport {
    /// Moves what can be moved. True where anything was.
    fn transfer(&mut self) -> Result<bool, RingError> {
        let received = self.receive()?;
        let sent = self.send()?;
        if received || sent {
            // One event tells the store of both: bytes to read, and room to write.
            self.channel.notify();
        }
        Ok(received || sent)
    }

    fn receive(&mut self) -> Result<bool, RingError> {
        let (words, streams) = (self.page.words(), &record().store);
        let mut bytes = [0; 256];
        let mut moved = false;
        loop {
            let count = self.responses.peek(words, &mut bytes)?;
            let Some(mut received) = bytes.get(..count).filter(|received| !received.is_empty()) else {
                return Ok(moved);
            };
            let mut answer = streams.read().answer;
            if self.skips {
                received = answer.finish(received);
                self.skips = !answer.is_between();
            }
            answer.pass(received);
            // A life that ends behind this reads no byte twice: the next one believes the record.
            streams.set_read(Read { position: self.responses.position().wrapping_add(count as u32), answer });
            self.responses.advance(words, count);
            self.client.handle_bytes(received);
            moved = true;
        }
    }

    fn send(&mut self) -> Result<bool, RingError> {
        let (words, streams) = (self.page.words(), &record().store);
        let mut bytes = [0; 256];
        let mut moved = false;
        loop {
            let rest = streams.rest(self.requests.position());
            if rest.is_empty() {
                if self.stage() {
                    continue;
                }
                return Ok(moved);
            }
            let count = rest.iter().zip(&mut bytes).map(|(byte, slot)| *slot = byte.get()).count();
            if self.requests.write(words, bytes.get(..count).unwrap_or_default())? == 0 {
                return Ok(moved);
            }
            moved = true;
        }
    }

    /// Takes the next request into the record, from where it is written to the ring: a life that ends meanwhile leaves its rest to the next.
    fn stage(&self) -> bool {
        let mut request = [0; MESSAGE_MAX];
        let length = self.client.take_message(&mut request);
        record().store.stage(self.requests.position(), request.get(..length).unwrap_or_default());
        length > 0
    }

    async fn run(mut self, kick: Rc<Signal>) {
        loop {
            match self.transfer() {
                Ok(true) => {}
                Ok(false) => {
                    select(self.channel.wait(), kick.wait()).await;
                }
                Err(error) => {
                    log::error!("the xenstore broke its ring: {error}; connection closed");
                    self.client.close();
                    return;
                }
            }
        }
    }
}

/// Connects to the store: to be called once in a life. What it returns is a handle, cheap to clone; a task moves the bytes. A connection of the
/// last life goes on: the request that it was writing is written to its end, the answer that it was reading is skipped, and what it
/// asked and watched is forgotten.
///
/// # Errors
/// [`ConnectError`].
pub fn connect() -> Result<Client, ConnectError> {
    let (page, channel) = attach()?;
    let kick = Rc::new(Signal::new());
    let kicked = Rc::clone(&kick);
    let (record, words) = (record(), page.words());
    let streams = &record.store;
    let goes_on = streams.connected.replace(1) != 0;
    let requests = ByteProducer::attach(ByteLayout::STORE_REQUESTS, words);
    let (responses, client) = if goes_on {
        // The last request that was written is the one with the highest number, and watches have no higher ones.
        let number = streams.number().wrapping_add(1);
        let responses = ByteConsumer::resume(ByteLayout::STORE_RESPONSES, words, streams.read().position);
        (responses, Client::taking_over(number, move || kicked.set()))
    } else {
        let responses = ByteConsumer::attach(ByteLayout::STORE_RESPONSES, words);
        streams.set_read(Read { position: responses.position(), ..Read::default() });
        (responses, Client::new(move || kicked.set()))
    };
    let skips = !streams.read().answer.is_between();
    if goes_on {
        let rest = streams.rest(requests.position()).len();
        log::debug!("the store's connection goes on: {rest} bytes of a request to be sent, within an answer: {skips}");
    }
    let transport = Transport { requests, responses, page, channel, skips, client: client.clone() };
    if goes_on {
        // The last life may have written or read something and not got to saying so.
        transport.channel.notify();
    }
    executor::spawn(transport.run(kick));
    Ok(client)
}

/// The page and the event channel as they are, for who speaks to the store without a client: to be called once, in place of [`connect`].
///
/// # Errors
/// [`ConnectError`].
pub fn attach() -> Result<(StorePage, Channel), ConnectError> {
    let (frame, port) = environment().store.ok_or(ConnectError::Absent)?;
    // SAFETY: the store's page is left out of the memory that Rust code uses.
    let mapping =
        unsafe { memory::map_frames(DomainId::SELF, &[frame], Caching::WriteBack) }.map_err(ConnectError::Xen)?;
    Ok((StorePage(mapping), events::adopt(port)))
}

//! The transport of the xenstore: moves bytes between the page shared with it and the client of `split_driver`. Floor 2.
//!
//! Unsafe because the page is found by its machine frame, and turned into words that the store's domain writes too.
use crate::environment::environment;
use crate::events::{self, Channel};
use crate::executor;
use crate::memory::{self, Caching, Mapping};
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
    client: Client,
}

impl Transport {
    /// Moves what can be moved. True where anything was.
    fn transfer(&mut self) -> Result<bool, RingError> {
        let words = self.page.words();
        let mut moved = false;
        let mut bytes = [0u8; 256];
        loop {
            let count = self.responses.read(words, &mut bytes)?;
            let Some(received) = bytes.get(..count).filter(|received| !received.is_empty()) else {
                break;
            };
            self.client.handle_bytes(received);
            moved = true;
        }
        let requests = &mut self.requests;
        let mut failure = None;
        let sent = self.client.transmit(|outgoing| match requests.write(words, outgoing) {
            Ok(count) => count,
            Err(error) => {
                failure = Some(error);
                0
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        moved |= sent > 0;
        if moved {
            // One event tells the store of both: bytes to read, and room to write.
            self.channel.notify();
        }
        Ok(moved)
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

/// Connects to the store: to be called once. What it returns is a handle, cheap to clone; a task moves the bytes.
///
/// # Errors
/// [`ConnectError`].
pub fn connect() -> Result<Client, ConnectError> {
    let (page, channel) = attach()?;
    let kick = Rc::new(Signal::new());
    let client = {
        let kick = Rc::clone(&kick);
        Client::new(move || kick.set())
    };
    let transport = Transport {
        requests: ByteProducer::attach(ByteLayout::STORE_REQUESTS, page.words()),
        responses: ByteConsumer::attach(ByteLayout::STORE_RESPONSES, page.words()),
        page,
        channel,
        client: client.clone(),
    };
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

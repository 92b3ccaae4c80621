//! Packets in local memory: buffers of one page each, and what is known of a packet beside its bytes. Pure. Floor 3.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use split_driver::memory::{DeviceAddress, PageArray};
use xen_pv_sys::Mfn;

/// The most pages a packet may lie in: as many slots as a frontend may use (`XEN_NETIF_NR_SLOTS_MIN`, `io/netif.h`), and room for a header of its own.
pub const MAX_FRAGMENTS: usize = 20;

struct Pages {
    memory: Box<dyn PageArray>,
    /// Where each page begins.
    places: Vec<DeviceAddress>,
    references: Vec<Cell<u16>>,
    free: RefCell<Vec<u32>>,
}

/// A fixed number of page-sized buffers. Taking and giving back allocate nothing; what runs out is the packet, not the domain.
#[derive(Clone)]
pub struct Pool(Rc<Pages>);

impl Pool {
    /// A pool over all pages of `memory` (at most `u32::MAX`; those without a frame are left out).
    pub fn new(memory: Box<dyn PageArray>) -> Self {
        let places: Vec<_> = (0..memory.len()).map_while(|index| memory.device_address(index)).collect();
        let references = places.iter().map(|_| Cell::new(0)).collect();
        let free = (0..places.len()).rev().filter_map(|index| u32::try_from(index).ok()).collect();
        Self(Rc::new(Pages { memory, places, references, free: RefCell::new(free) }))
    }

    /// One buffer, its contents left from its last use. `None` where all are in use.
    pub fn take(&self) -> Option<Buffer> {
        let index = self.0.free.borrow_mut().pop()?;
        self.0.references.get(index as usize)?.set(1);
        Some(Buffer { pages: Rc::clone(&self.0), index })
    }

    /// Buffers that can be taken now.
    pub fn available(&self) -> usize {
        self.0.free.borrow().len()
    }

    /// Buffers in all.
    pub fn capacity(&self) -> usize {
        self.0.places.len()
    }
}

/// One page of a [`Pool`]. A clone is the same page once more; the last one dropped gives it back.
pub struct Buffer {
    pages: Rc<Pages>,
    index: u32,
}

impl Buffer {
    /// The machine frame: the local end of a grant copy, and the device address divided by 4096.
    pub fn frame(&self) -> Mfn {
        // An index is only ever made by `Pool::take`, from the list of places itself.
        self.pages.places.get(self.index as usize).map_or(Mfn(0), |place| place.frame())
    }

    /// Where a device finds the byte at `offset`.
    pub fn device_address(&self, offset: u16) -> Option<DeviceAddress> {
        Some(self.pages.places.get(self.index as usize)?.in_page(offset.into()))
    }

    /// Whether no clone of this page is about: who changes bytes changes nobody else's.
    pub fn is_unique(&self) -> bool {
        self.pages.references.get(self.index as usize).is_some_and(|count| count.get() == 1)
    }

    /// Copies bytes out at `offset`. False, and nothing read, beyond the page's end.
    pub fn read(&self, offset: usize, destination: &mut [u8]) -> bool {
        self.pages.memory.read(self.index as usize, offset, destination)
    }

    /// Copies bytes in at `offset`. False, and nothing written, beyond the page's end.
    pub fn write(&self, offset: usize, source: &[u8]) -> bool {
        self.pages.memory.write(self.index as usize, offset, source)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        if let Some(count) = self.pages.references.get(self.index as usize) {
            // At most one reference a port and queue: far below u16::MAX, and saturating only ever leaks.
            count.set(count.get().saturating_add(1));
        }
        Self { pages: Rc::clone(&self.pages), index: self.index }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(count) = self.pages.references.get(self.index as usize) else {
            return;
        };
        if count.get() == u16::MAX {
            return;
        }
        count.set(count.get().saturating_sub(1));
        if count.get() == 0 {
            self.pages.free.borrow_mut().push(self.index);
        }
    }
}

/// Consecutive bytes of a packet within one page.
#[derive(Clone)]
pub struct Fragment {
    /// The page.
    pub buffer: Buffer,
    /// Bytes into the page.
    pub offset: u16,
    /// Bytes; never beyond the page's end.
    pub length: u16,
}

/// What is known of a packet's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The field is complete; nobody has looked.
    #[default]
    Unverified,
    /// The field is complete or need not be looked at: the data are known to be good (`NETTXF_data_validated`).
    Verified,
    /// The field holds the pseudo-header's sum only; whoever puts the packet on a wire completes it (`NETTXF_csum_blank`).
    Blank,
}

/// The kind of a super-frame (`XEN_NETIF_GSO_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
}

/// A TCP packet larger than the wire allows, to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What to cut.
    pub kind: GsoKind,
    /// TCP payload bytes of a segment (the MSS), never zero.
    pub size: u16,
}

/// What is left to do to a packet before it can go on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// Whether, and how, it must be segmented.
    pub gso: Option<Gso>,
}

/// A packet in local memory, from its destination address on, without a frame check sequence.
#[derive(Clone, Default)]
pub struct Packet {
    /// The bytes, in order. The first fragment holds all headers.
    pub fragments: heapless::Vec<Fragment, MAX_FRAGMENTS>,
    /// What is left to do.
    pub offload: Offload,
}

impl Packet {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.fragments.iter().map(|fragment| usize::from(fragment.length)).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

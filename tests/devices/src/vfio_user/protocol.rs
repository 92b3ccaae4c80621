//! Messages of the vfio-user protocol: QEMU's docs/interop/vfio-user.rst and hw/vfio-user/protocol.h; structs of linux/vfio.h. Pure.

/// Commands, hw/vfio-user/protocol.h `vfio_user_command`.
pub mod command {
    /// VFIO_USER_VERSION.
    pub const VERSION: u16 = 1;
    /// VFIO_USER_DMA_MAP.
    pub const DMA_MAP: u16 = 2;
    /// VFIO_USER_DMA_UNMAP.
    pub const DMA_UNMAP: u16 = 3;
    /// VFIO_USER_DEVICE_GET_INFO.
    pub const GET_INFO: u16 = 4;
    /// VFIO_USER_DEVICE_GET_REGION_INFO.
    pub const GET_REGION_INFO: u16 = 5;
    /// VFIO_USER_DEVICE_GET_IRQ_INFO.
    pub const GET_IRQ_INFO: u16 = 7;
    /// VFIO_USER_DEVICE_SET_IRQS.
    pub const SET_IRQS: u16 = 8;
    /// VFIO_USER_REGION_READ.
    pub const REGION_READ: u16 = 9;
    /// VFIO_USER_REGION_WRITE.
    pub const REGION_WRITE: u16 = 10;
    /// VFIO_USER_DMA_READ, from the server to the client.
    pub const DMA_READ: u16 = 11;
    /// VFIO_USER_DMA_WRITE, from the server to the client.
    pub const DMA_WRITE: u16 = 12;
    /// VFIO_USER_DEVICE_RESET.
    pub const RESET: u16 = 13;
}

/// Header flags, hw/vfio-user/protocol.h.
pub mod flag {
    /// The message's type.
    pub const TYPE: u32 = 0xF;
    /// A reply.
    pub const REPLY: u32 = 0x1;
    /// No reply is wanted.
    pub const NO_REPLY: u32 = 0x10;
    /// The command failed; the header has the error number.
    pub const ERROR: u32 = 0x20;
}

/// Regions of a PCI device, linux/vfio.h `VFIO_PCI_*_REGION_INDEX`.
pub mod region {
    /// Configuration space; BARs are 0 to 5.
    pub const CONFIGURATION: u32 = 7;
    /// How many: the last is VGA.
    pub const COUNT: u32 = 9;
    /// VFIO_REGION_INFO_FLAG_READ and _WRITE.
    pub const READ_WRITE: u32 = 3;
}

/// Interrupts of a PCI device, linux/vfio.h `VFIO_PCI_*_IRQ_INDEX`.
pub mod irq {
    /// INTx.
    pub const LINE: u32 = 0;
    /// MSI.
    pub const MSI: u32 = 1;
    /// MSI-X.
    pub const MSI_X: u32 = 2;
    /// How many: the last two are error and request.
    pub const COUNT: u32 = 5;

    /// VFIO_IRQ_INFO_EVENTFD.
    pub const INFO_EVENTFD: u32 = 1;
    /// VFIO_IRQ_INFO_MASKABLE and _AUTOMASKED.
    pub const INFO_MASKED: u32 = 2 | 4;
    /// VFIO_IRQ_INFO_NORESIZE.
    pub const INFO_NO_RESIZE: u32 = 8;

    /// VFIO_IRQ_SET_DATA_NONE.
    pub const SET_NONE: u32 = 1;
    /// VFIO_IRQ_SET_DATA_BOOL.
    pub const SET_BOOL: u32 = 2;
    /// VFIO_IRQ_SET_DATA_EVENTFD.
    pub const SET_EVENTFD: u32 = 4;
    /// VFIO_IRQ_SET_ACTION_MASK.
    pub const SET_MASK: u32 = 8;
    /// VFIO_IRQ_SET_ACTION_UNMASK.
    pub const SET_UNMASK: u32 = 16;
    /// VFIO_IRQ_SET_ACTION_TRIGGER.
    pub const SET_TRIGGER: u32 = 32;
}

/// VFIO_DEVICE_FLAGS_RESET and _PCI, linux/vfio.h.
pub const DEVICE_FLAGS: u32 = 1 | 2;

/// Bytes that a message may carry either way: `max_data_xfer_size`, as QEMU's default is.
pub const LONGEST_DATA: usize = 1 << 20;
/// Bytes of the longest message: data with what stands before them.
pub const LONGEST: usize = LONGEST_DATA + 4096;
/// File descriptors that a message may carry: `max_msg_fds`.
pub const MOST_DESCRIPTORS: usize = 8;

/// Bytes of a header.
pub const HEADER: usize = 16;

/// Error numbers of replies.
pub mod errno {
    /// No such thing, or not in this form.
    pub const INVALID: u32 = 22;
    /// A command that is not known.
    pub const NOT_SUPPORTED: u32 = 95;
}

/// What stands before each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Of the request; its reply has the same.
    pub id: u16,
    /// See [`command`].
    pub command: u16,
    /// Bytes of the message, header included.
    pub size: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Error number of a reply.
    pub error: u32,
}

impl Header {
    /// From the wire.
    pub const fn parse(bytes: [u8; HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            id: u16::from_le_bytes([a, b]),
            command: u16::from_le_bytes([c, d]),
            size: u32::from_le_bytes([e, f, g, h]),
            flags: u32::from_le_bytes([i, j, k, l]),
            error: u32::from_le_bytes([m, n, o, p]),
        }
    }

    /// A message of this header, its size set, and `body`.
    pub fn message(mut self, body: &[u8]) -> Vec<u8> {
        self.size = (HEADER + body.len()) as u32;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(self.id.to_le_bytes());
        message.extend(self.command.to_le_bytes());
        for word in [self.size, self.flags, self.error] {
            message.extend(word.to_le_bytes());
        }
        message.extend_from_slice(body);
        message
    }

    /// Whether it is a reply.
    pub const fn is_reply(&self) -> bool {
        self.flags & flag::TYPE == flag::REPLY
    }
}

/// The word at `at`.
pub fn word(body: &[u8], at: usize) -> Option<u32> {
    body.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// The double word at `at`.
pub fn double(body: &[u8], at: usize) -> Option<u64> {
    body.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// Words as bytes.
pub fn words(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// VFIO_USER_REGION_READ and _WRITE: which bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// From the region's start.
    pub offset: u64,
    /// See [`region`].
    pub region: u32,
    /// Bytes.
    pub count: u32,
}

impl Access {
    /// Bytes before the data.
    pub const BYTES: usize = 16;

    /// From a message's body.
    pub fn parse(body: &[u8]) -> Option<Self> {
        Some(Self { offset: double(body, 0)?, region: word(body, 8)?, count: word(body, 12)? })
    }
}

/// VFIO_USER_DEVICE_SET_IRQS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetIrqs {
    /// See [`irq`].
    pub flags: u32,
    /// Which kind of interrupt.
    pub index: u32,
    /// The first of that kind.
    pub start: u32,
    /// How many.
    pub count: u32,
}

impl SetIrqs {
    /// Bytes before the data.
    pub const BYTES: usize = 20;

    /// From a message's body.
    pub fn parse(body: &[u8]) -> Option<Self> {
        Some(Self { flags: word(body, 4)?, index: word(body, 8)?, start: word(body, 12)?, count: word(body, 16)? })
    }
}

/// The request for a transfer of memory: address, count (64 bits as of QEMU 11), and for a write the data.
pub fn dma_request(address: u64, count: usize, data: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(16 + data.len());
    body.extend(address.to_le_bytes());
    body.extend((count as u64).to_le_bytes());
    body.extend_from_slice(data);
    body
}

/// The data of a reply to VFIO_USER_DMA_READ, where they are all there.
pub fn dma_data(body: &[u8], count: usize) -> Option<&[u8]> {
    (double(body, 8)? == count as u64).then_some(())?;
    body.get(16..)?.get(..count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_they_were_sent() {
        let header = Header {
            id: 7,
            command: command::REGION_READ,
            size: 0,
            flags: flag::REPLY | flag::ERROR,
            error: errno::INVALID,
        };
        let message = header.message(&[1, 2, 3]);
        assert_eq!(message.len(), 19);
        let parsed = Header::parse(*message.first_chunk().expect("a header"));
        assert_eq!(parsed, Header { size: 19, ..header });
        assert!(parsed.is_reply());
    }

    #[test]
    fn short_bodies_are_nothing() {
        assert_eq!(Access::parse(&[0; 15]), None);
        assert_eq!(SetIrqs::parse(&[0; 19]), None);
        assert_eq!(dma_data(&dma_request(0, 4, &[1, 2, 3]), 4), None);
        assert_eq!(dma_data(&dma_request(0, 3, &[1, 2, 3]), 4), None);
        assert_eq!(dma_data(&dma_request(0, 3, &[1, 2, 3]), 3), Some(&[1, 2, 3][..]));
    }
}

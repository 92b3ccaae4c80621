//! A model of the 82574 for tests, fuzzers and measurements: it does what the datasheet says, and worse where told to. Host only.

use super::descriptors::{ContextCommand, DataCommand, DataOptions, ReceiveStatus};
use super::registers::{self as reg, Causes, Ctrl, CtrlExt, Mdic, Reg};
use crate::nic::ring::DESCRIPTOR_BYTES;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use split_driver::fakes::{FakeDma, FakeXen};
use split_driver::memory::{DmaAllocator, Mmio, Reach};

/// What a context descriptor said, as the device took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    words: [u32; 4],
}

impl Held {
    const fn transport_start(self) -> usize {
        self.words[1] as usize & 0xFF
    }
    const fn transport_checksum(self) -> usize {
        self.words[1] as usize >> 8 & 0xFF
    }
    const fn ip_start(self) -> usize {
        self.words[0] as usize & 0xFF
    }
    fn command(self) -> ContextCommand {
        self.words[2].into()
    }
    const fn headers(self) -> usize {
        self.words[3] as usize >> 8 & 0xFF
    }
    const fn segment_size(self) -> usize {
        self.words[3] as usize >> 16
    }
}

/// The device. A clone is the same device: one for the driver, one for the test.
#[derive(Clone)]
pub struct Device(Rc<State>);

struct State {
    xen: FakeXen,
    dma: FakeDma,
    registers: RefCell<Box<[u32]>>,
    context: Cell<Option<Held>>,
    /// The tag of the packet that is sent.
    tag: Cell<Option<u16>>,
    contexts: Cell<usize>,
    packet: RefCell<Vec<u8>>,
    sent: RefCell<VecDeque<Vec<u8>>>,
    messages: RefCell<Vec<u8>>,
    /// A pause frame stopped the transmitter.
    paused: Cell<bool>,
    /// What the link partner advertises: the bits of ANLPAR.
    partner: Cell<u16>,
    /// It is the MAC of a hub, an I217 to I219.
    hub: Cell<bool>,
    accesses: Cell<usize>,
    misuse: RefCell<Vec<&'static str>>,
    gone: Cell<bool>,
    lazy: Cell<bool>,
    hollow: Cell<bool>,
    stuck: Cell<bool>,
    busy: Cell<bool>,
    discard: Cell<bool>,
}

/// The address in the model's non-volatile memory.
pub const ADDRESS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

impl Device {
    /// A device just powered on.
    pub fn new(xen: &FakeXen) -> Self {
        let device = Self(Rc::new(State {
            xen: xen.clone(),
            dma: xen.dma(),
            registers: RefCell::new(vec![0; reg::SPACE / 4].into_boxed_slice()),
            context: Cell::new(None),
            tag: Cell::new(None),
            contexts: Cell::new(0),
            packet: RefCell::default(),
            sent: RefCell::default(),
            messages: RefCell::default(),
            paused: Cell::new(false),
            partner: Cell::new(0x41E1 | 1 << 10),
            hub: Cell::new(false),
            accesses: Cell::new(0),
            misuse: RefCell::default(),
            gone: Cell::new(false),
            lazy: Cell::new(false),
            hollow: Cell::new(false),
            stuck: Cell::new(false),
            busy: Cell::new(false),
            discard: Cell::new(false),
        }));
        device.power_on();
        device
    }

    /// The allocator of its memory.
    pub fn dma(&self) -> FakeDma {
        self.0.dma.clone()
    }

    /// Writes a descriptor, its status word last.
    pub fn write_descriptor(&self, address: u64, [low, high, status, length]: [u32; 4]) {
        self.0.xen.device_write_words(address, [(0, low), (1, high), (3, length), (2, status)]);
    }

    fn power_on(&self) {
        self.0.registers.borrow_mut().fill(0);
        self.set(reg::STATUS, 0x0008_0083_u32);
        self.set(reg::EEC, 0x0000_0300_u32);
        self.set(reg::TARC0, 0x403_u32);
        self.set(reg::PBA, if self.0.hub.get() { 0x001A_u32 } else { 0x0014_0014 });
        self.0.paused.set(false);
        let [a, b, c, d, e, f] = ADDRESS;
        self.set(reg::RAL0, u32::from_le_bytes([a, b, c, d]));
        self.set(reg::RAH0, u32::from_le_bytes([e, f, 0, 0x80]));
    }

    fn get<T: From<u32>>(&self, register: Reg<T>) -> T {
        self.0.registers.borrow().get(register.offset() / 4).copied().unwrap_or(u32::MAX).into()
    }

    /// Sets what a register reads as.
    pub fn set<T>(&self, register: Reg<T>, value: impl Into<u32>) {
        if let Some(slot) = self.0.registers.borrow_mut().get_mut(register.offset() / 4) {
            *slot = value.into();
        }
    }

    /// Pulls it out: all registers read as ones, writes are lost.
    pub fn pull_out(&self) {
        self.0.gone.set(true);
    }

    /// From now on it sends when told by [`Self::transmit`], not at each write to the tail.
    pub fn be_lazy(&self) {
        self.0.lazy.set(true);
    }

    /// From now on a reset changes nothing, as in QEMU before 8.0.
    pub fn reset_nothing(&self) {
        self.0.hollow.set(true);
    }

    /// From now on it never says that its requests to memory have ended.
    pub fn stay_busy(&self) {
        self.0.busy.set(true);
    }

    /// What the link partner advertises about pause frames.
    pub fn set_partner_pause(&self, symmetric: bool, asymmetric: bool) {
        self.0.partner.set(0x41E1 | u16::from(symmetric) << 10 | u16::from(asymmetric) << 11);
    }

    /// It is a hub's: with another PHY and another packet buffer, and a reset clears the semaphore of its PHY.
    pub fn be_hub(&self) {
        self.0.hub.set(true);
        self.power_on();
    }

    /// From now on a reset does not end.
    pub fn get_stuck(&self) {
        self.0.stuck.set(true);
    }

    /// From now on frames are not kept for [`Self::sent`].
    pub fn discard_sent(&self) {
        self.0.discard.set(true);
    }

    /// The next frame that went to the wire.
    pub fn sent(&self) -> Option<Vec<u8>> {
        self.0.sent.borrow_mut().pop_front()
    }

    /// Vectors of the messages since the last call (0 for MSI and INTx).
    pub fn messages(&self) -> Vec<u8> {
        core::mem::take(&mut self.0.messages.borrow_mut())
    }

    /// What the driver did against the datasheet.
    pub fn misuse(&self) -> Vec<&'static str> {
        self.0.misuse.borrow().clone()
    }

    /// Context descriptors seen.
    pub fn contexts(&self) -> usize {
        self.0.contexts.get()
    }

    /// Register accesses since the last call.
    pub fn accesses(&self) -> usize {
        self.0.accesses.take()
    }

    /// What a register holds, without the effects of reading it.
    pub fn peek(&self, offset: usize) -> u32 {
        self.0.registers.borrow().get(offset / 4).copied().unwrap_or(0)
    }

    /// Where receive descriptor `index` lies.
    pub fn receive_descriptor(&self, index: u32) -> u64 {
        address(self.get(reg::RDBA.low()), self.get(reg::RDBA.high())) + u64::from(index) * DESCRIPTOR_BYTES as u64
    }

    /// Where transmit descriptor `index` lies.
    pub fn transmit_descriptor(&self, index: u32) -> u64 {
        address(self.get(reg::TDBA.low()), self.get(reg::TDBA.high())) + u64::from(index) * DESCRIPTOR_BYTES as u64
    }

    fn complain(&self, what: &'static str) {
        self.0.misuse.borrow_mut().push(what);
    }

    /// A frame from the wire, without its frame check sequence. False where it was missed.
    pub fn inject(&self, frame: &[u8], checksum: ReceiveStatus) -> bool {
        let rctl = self.get(reg::RCTL);
        let too_long = frame.len() > 1518 && !rctl.long_packets();
        if !rctl.enable() || too_long {
            return false;
        }
        // IEEE 802.3, annex 31B: for how long is not modelled, until the next one it is.
        if (frame.get(..6), half(frame, 12), half(frame, 14)) == (Some(&[1, 0x80, 0xC2, 0, 0, 1]), 0x8808, 1) {
            if self.get(reg::CTRL).receive_flow_control() {
                let time = half(frame, 16);
                self.0.paused.set(time != 0);
                self.set(reg::XOFFRXC, self.get(reg::XOFFRXC) + u32::from(time != 0));
                self.transmit();
            }
            return true;
        }
        let buffer_bytes = match (rctl.size_extension(), rctl.buffer_size()) {
            (true, 3) => 4096,
            (false, 0) => 2048,
            _ => {
                self.complain("buffers are not of a page each, or half of one");
                4096
            }
        };
        if !rctl.strip_crc() {
            self.complain("the CRC is left on");
        }
        let count = self.get(reg::RDLEN) / DESCRIPTOR_BYTES as u32;
        let (head, tail) = (self.get(reg::RDH), self.get(reg::RDT));
        let available = tail.wrapping_add(count).wrapping_sub(head) % count.max(1);
        if (available as usize) < frame.len().div_ceil(buffer_bytes) {
            self.set(reg::MPC, self.get(reg::MPC) + 1);
            self.raise(Causes::new().with_overrun(true));
            return false;
        }
        let tag = self.tag_of(frame);
        let stripped =
            tag.map(|_| [frame.get(..12), frame.get(16..)].into_iter().flatten().flatten().copied().collect());
        let stripped: Option<Vec<u8>> = stripped;
        let (frame, checksum) = (stripped.as_deref().unwrap_or(frame), checksum.with_tag_stripped(tag.is_some()));
        let mut index = head;
        let mut chunks = frame.chunks(buffer_bytes).peekable();
        while let Some(chunk) = chunks.next() {
            let at = self.receive_descriptor(index);
            let [low, high, status, _] = self.0.xen.device_read_words(at);
            if ReceiveStatus::from(status).done() {
                self.complain("a receive descriptor was posted as done");
            }
            self.0.xen.device_write(address(low, high), chunk);
            let status = if chunks.peek().is_none() {
                checksum.with_done(true).with_end(true)
            } else {
                ReceiveStatus::new().with_done(true)
            };
            let tag = if chunks.peek().is_none() { tag.unwrap_or(0) } else { 0 };
            let words = [0, 0, status.into(), chunk.len() as u32 | u32::from(tag) << 16];
            self.write_descriptor(at, words);
            index = index.wrapping_add(1) % count;
        }
        self.set(reg::RDH, index);
        self.raise(self.queue_cause(true));
        true
    }

    /// The tag that is taken out of a frame, 82574 datasheet 7.5.2.2.
    fn tag_of(&self, frame: &[u8]) -> Option<u16> {
        let tagged = u32::from(half(frame, 12)) == self.get(reg::VET) && frame.len() >= 18;
        (tagged && self.get(reg::CTRL).vlan_mode()).then(|| half(frame, 14))
    }

    /// An access to the PHY, at address 1: 82574 datasheet 10.2.2.7.
    fn mdic(&self, operation: Mdic) {
        if !self.get(reg::EXTCNF_CTRL).mdio_owned() {
            self.complain("the PHY was spoken to without owning the bus");
        }
        let value = match operation.register() {
            4 => 0x0DE1,
            5 => self.0.partner.get(),
            _ => 0,
        };
        let address = if self.0.hub.get() { 2 } else { 1 };
        let there = operation.phy() == address && operation.operation() == 2;
        self.set(reg::MDIC, operation.with_data(value).with_ready(true).with_error(!there));
    }

    const fn by_message(ctrl: CtrlExt) -> bool {
        ctrl.message_auto_mask()
    }

    fn queue_cause(&self, receive: bool) -> Causes {
        match (Self::by_message(self.get(reg::CTRL_EXT)), receive) {
            (true, true) => Causes::new().with_receive_queue0(true),
            (true, false) => Causes::new().with_transmit_queue0(true),
            (false, true) => Causes::new().with_received(true),
            (false, false) => Causes::new().with_transmitted(true),
        }
    }

    /// Sets causes, and sends what is enabled.
    pub fn raise(&self, causes: Causes) {
        let mut seen = u32::from(self.get(reg::ICR)) | u32::from(causes);
        let message = Self::by_message(self.get(reg::CTRL_EXT));
        let behind: u32 = 0x0007_0244;
        if message && seen & behind != 0 {
            seen |= u32::from(Causes::new().with_other(true));
        }
        let ims = u32::from(self.get(reg::IMS));
        if !message {
            let line = seen & ims & 0x7FFF_FFFF != 0;
            if line && seen >> 31 == 0 {
                seen |= 1 << 31;
                self.0.messages.borrow_mut().push(0);
            }
            self.set(reg::ICR, seen);
            return;
        }
        let ivar = self.get(reg::IVAR);
        let routes = [
            (0x0010_0000, ivar.receive0_valid(), ivar.receive0()),
            (0x0040_0000, ivar.transmit0_valid(), ivar.transmit0()),
            (0x0100_0000, ivar.other_valid(), ivar.other()),
        ];
        let clear = u32::from(self.get(reg::EIAC));
        let mut masked = 0;
        for (bit, valid, vector) in routes {
            if seen & ims & bit != 0 && valid {
                self.0.messages.borrow_mut().push(vector);
                masked |= bit & clear;
            }
        }
        self.set(reg::ICR, seen & !masked);
        self.set(reg::IMS, ims & !masked);
    }

    /// Sends what is queued.
    pub fn transmit(&self) {
        let count = self.get(reg::TDLEN) / DESCRIPTOR_BYTES as u32;
        if !self.get(reg::TCTL).enable() || count == 0 || self.0.paused.get() {
            return;
        }
        let mut reported = false;
        // No more than the ring holds, whatever the registers say.
        for _ in 0..count {
            if self.get(reg::TDH) == self.get(reg::TDT) {
                break;
            }
            let index = self.get(reg::TDH);
            if index >= count {
                self.complain("the head lies beyond the ring");
                return;
            }
            reported |= self.descriptor(self.transmit_descriptor(index));
            self.set(reg::TDH, (index + 1) % count);
        }
        if reported {
            self.raise(self.queue_cause(false));
        }
    }

    /// One transmit descriptor. True where it asked for a report.
    fn descriptor(&self, at: u64) -> bool {
        let words @ [low, high, command, options] = self.0.xen.device_read_words(at);
        let data = DataCommand::from(command);
        if !data.extended() {
            self.complain("a legacy descriptor");
            return false;
        }
        if data.kind() == 0 {
            self.0.context.set(Some(Held { words }));
            self.0.contexts.set(self.0.contexts.get() + 1);
            return false;
        }
        if data.length() == 0 {
            self.complain("an empty descriptor");
        }
        let mut bytes = vec![0; (data.length() as usize).min(1 << 14)];
        self.0.xen.device_read(address(low, high), &mut bytes);
        self.0.packet.borrow_mut().append(&mut bytes);
        if data.end() {
            let packet = core::mem::take(&mut *self.0.packet.borrow_mut());
            self.finish(packet, data, options.into());
        }
        if data.report() {
            let done = DataOptions::from(options).with_done(true);
            self.write_descriptor(at, [low, high, command, done.into()]);
        }
        data.report()
    }

    fn finish(&self, mut packet: Vec<u8>, command: DataCommand, options: DataOptions) {
        // 82574 datasheet 7.5.2.1.
        let inserts = command.tag() && self.get(reg::CTRL).vlan_mode();
        self.0.tag.set(inserts.then(|| options.tag()));
        if command.tag() && !inserts {
            self.complain("a tag to be inserted while CTRL.VME is clear");
        }
        let context = self.0.context.get();
        let offload = command.segment() || options.transport_checksum();
        let Some(context) = context.filter(|_| offload) else {
            if offload {
                self.complain("an offload without a context");
            }
            self.emit(packet);
            return;
        };
        if command.segment() {
            self.segment(&packet, context);
            return;
        }
        let start = context.transport_start();
        let sum = checksum(packet.get(start..).unwrap_or_default(), 0);
        put(&mut packet, context.transport_checksum(), sum);
        self.emit(packet);
    }

    /// TCP segmentation, 82574 datasheet 7.2.6.
    fn segment(&self, packet: &[u8], context: Held) {
        let command = context.command();
        let (headers, size) = (context.headers(), context.segment_size());
        let Some((template, payload)) = packet.split_at_checked(headers) else {
            self.complain("headers longer than the packet");
            return;
        };
        if payload.len() != command.payload() as usize || size == 0 || !command.segment() {
            self.complain("a context that does not fit its packet");
            return;
        }
        let (ip, tcp) = (context.ip_start(), context.transport_start());
        for (number, chunk) in payload.chunks(size).enumerate() {
            let mut frame = template.to_vec();
            frame.extend_from_slice(chunk);
            let last = (number + 1) * size >= payload.len();
            if command.ipv4() {
                let length = (frame.len() - ip) as u16;
                let id = half(&frame, ip + 4).wrapping_add(number as u16);
                put(&mut frame, ip + 2, length);
                put(&mut frame, ip + 4, id);
                let sum = checksum(frame.get(ip..tcp).unwrap_or_default(), 0);
                put(&mut frame, ip + 10, sum);
            } else {
                let length = (frame.len() - ip - 40) as u16;
                put(&mut frame, ip + 4, length);
            }
            let sequence = u32::from(half(&frame, tcp + 4)) << 16 | u32::from(half(&frame, tcp + 6));
            let sequence = sequence.wrapping_add((number * size) as u32);
            put(&mut frame, tcp + 4, (sequence >> 16) as u16);
            put(&mut frame, tcp + 6, sequence as u16);
            if !last {
                // FIN and PSH go with the last segment only.
                let flags = half(&frame, tcp + 12) & !0x0009;
                put(&mut frame, tcp + 12, flags);
            }
            let length = (frame.len() - tcp) as u32;
            let sum = checksum(frame.get(tcp..).unwrap_or_default(), length);
            put(&mut frame, context.transport_checksum(), sum);
            self.emit(frame);
        }
    }

    fn emit(&self, mut frame: Vec<u8>) {
        if self.0.discard.get() {
            return;
        }
        if let Some(tag) = self.0.tag.get() {
            let kind = (self.get(reg::VET) as u16).to_be_bytes();
            frame.splice(12..12, kind.into_iter().chain(tag.to_be_bytes()));
        }
        if frame.len() < 60 {
            frame.resize(60, 0);
        }
        self.0.sent.borrow_mut().push_back(frame);
    }

    fn control(&self, value: u32) {
        let ctrl = Ctrl::from(value);
        if ctrl.reset() && self.0.hub.get() && !self.get(reg::EXTCNF_CTRL).mdio_owned() {
            self.complain("a hub was reset without owning the bus to its PHY");
        }
        if ctrl.reset() && !self.0.hollow.get() {
            self.power_on();
            if self.0.stuck.get() {
                self.set(reg::EEC, 0u32);
            }
            return;
        }
        let (low, high) = (self.get(reg::FCRTL) & 0xFFFF, self.get(reg::FCRTH) & 0xFFFF);
        let room = ((self.get(reg::PBA) & 0xFFFF) << 10).saturating_sub(1522);
        if ctrl.transmit_flow_control() && !(0 < low && low < high && high <= room && self.get(reg::FCTTV) > 0) {
            self.complain("pause frames are sent by marks that are none");
        }
        self.set(reg::CTRL, ctrl.with_reset(false));
        let status = self.get(reg::STATUS);
        self.set(reg::STATUS, status.with_master_enabled(self.0.busy.get() || !ctrl.master_disable()));
    }
}

impl Mmio for Device {
    fn reach(&self) -> Reach {
        self.0.dma.reach().clone()
    }

    fn len(&self) -> usize {
        reg::SPACE
    }

    #[inline(never)]
    fn read32(&self, offset: usize) -> u32 {
        self.0.accesses.set(self.0.accesses.get() + 1);
        if self.0.gone.get() {
            return u32::MAX;
        }
        let value = self.peek(offset);
        let counter = (0x4000..0x4200).contains(&offset);
        if counter {
            self.set(reg::any(offset), 0u32);
        }
        if offset == reg::ICR.offset() && !Self::by_message(self.get(reg::CTRL_EXT)) {
            let auto = self.get(reg::CTRL_EXT).read_auto_mask() && value >> 31 != 0;
            if auto {
                let masked = u32::from(self.get(reg::IMS)) & !u32::from(self.get(reg::IAM));
                self.set(reg::IMS, masked);
            }
            if auto || u32::from(self.get(reg::IMS)) == 0 {
                self.set(reg::ICR, 0u32);
            }
        }
        value
    }

    #[inline(never)]
    fn write32(&self, offset: usize, value: u32) {
        self.0.accesses.set(self.0.accesses.get() + 1);
        if self.0.gone.get() {
            return;
        }
        let ims = u32::from(self.get(reg::IMS));
        match offset {
            _ if offset == reg::CTRL.offset() => self.control(value),
            _ if offset == reg::MDIC.offset() => self.mdic(value.into()),
            _ if offset == reg::ICR.offset() => {
                let left = u32::from(self.get(reg::ICR)) & !value;
                self.set(reg::ICR, left);
            }
            _ if offset == reg::IMS.offset() => {
                self.set(reg::IMS, ims | value & 0x7FFF_FFFF);
                self.raise(Causes::new());
            }
            _ if offset == reg::IMC.offset() => self.set(reg::IMS, ims & !value),
            _ if offset == reg::TDT.offset() => {
                self.set(reg::TDT, value);
                if !self.0.lazy.get() {
                    self.transmit();
                }
            }
            _ => self.set(reg::any(offset), value),
        }
        let ring = [reg::RDBA.low(), reg::RDBA.high(), reg::RDLEN].map(Reg::offset);
        if ring.contains(&offset) && self.get(reg::RCTL).enable() {
            self.complain("the receive ring was moved while it ran");
        }
        let ring = [reg::TDBA.low(), reg::TDBA.high(), reg::TDLEN].map(Reg::offset);
        if ring.contains(&offset) && self.get(reg::TCTL).enable() {
            self.complain("the transmit ring was moved while it ran");
        }
    }
}

const fn address(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

fn half(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(two) = bytes.get_mut(at..at + 2) {
        two.copy_from_slice(&value.to_be_bytes());
    }
}

/// The Internet checksum (RFC 1071) of `bytes` and `more`.
pub fn checksum(bytes: &[u8], more: u32) -> u16 {
    let mut sum = more;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !((sum & 0xFFFF) + (sum >> 16)) as u16
}

//! What each port of the switch counted. Pure. Floor 3.

/// Why a packet was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DropCause {
    /// The sender's requests break the rules without harm.
    Malformed,
    /// The receiver posted no slots, and its queue is full.
    QueueFull,
    /// It waited in the receiver's queue for too long.
    Expired,
    /// No packet buffer was left.
    NoBuffer,
    /// A grant copy failed.
    CopyFailed,
    /// The receiver does not take packets of that length, or what is left to do to it cannot be done.
    Unsuitable,
    /// The NIC has no room.
    NicFull,
    /// The receiver does not listen to this group.
    Filtered,
    /// The receiver posted no slots for so long that nothing is held for it.
    Stalled,
    /// It was where it goes already, or has addresses that no bridge passes on.
    NotForwarded,
    /// The NIC has no link.
    NoLink,
    /// It had a tag, and came from an access port of a VLAN.
    Vlan,
    /// It had an address that is not the sender's, or is a router's or a server's to send ([`crate::policy`]).
    Spoofed,
    /// It was one of too many that go to all ([`crate::policy::storm`]).
    Storm,
    /// It was from one isolated port for another.
    Isolated,
    /// The router has no way for it: it is of no session, or its headers are none.
    NotRouted,
    /// It is a fragment of an IP packet, and the router does not know where the first one went.
    Fragment,
}

impl DropCause {
    /// How many there are.
    pub const COUNT: usize = 17;
    /// All, with the names they have under `data/` and on the console.
    pub const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::Malformed, "malformed"),
        (Self::QueueFull, "queue-full"),
        (Self::Expired, "expired"),
        (Self::NoBuffer, "no-buffer"),
        (Self::CopyFailed, "copy-failed"),
        (Self::Unsuitable, "unsuitable"),
        (Self::NicFull, "nic-full"),
        (Self::Filtered, "filtered"),
        (Self::Stalled, "stalled"),
        (Self::NotForwarded, "not-forwarded"),
        (Self::NoLink, "no-link"),
        (Self::Vlan, "vlan"),
        (Self::Spoofed, "spoofed"),
        (Self::Storm, "storm"),
        (Self::Isolated, "isolated"),
        (Self::NotRouted, "not-routed"),
        (Self::Fragment, "fragment"),
    ];
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets; a super-frame is one.
    pub packets: u64,
    /// Bytes, headers included.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one packet.
    pub fn count(&mut self, length: u32) {
        self.packets += 1;
        self.bytes += u64::from(length);
    }
}

impl core::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// One port's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// What came from the port into the switch.
    pub from_port: Traffic,
    /// What the switch gave to the port.
    pub to_port: Traffic,
    /// Packets lost: on the sender's account where it is at fault, else on the receiver's.
    pub drops: [u64; DropCause::COUNT],
}

impl core::ops::AddAssign for PortStatistics {
    fn add_assign(&mut self, other: Self) {
        self.from_port += other.from_port;
        self.to_port += other.to_port;
        self.drops.iter_mut().zip(other.drops).for_each(|(count, more)| *count += more);
    }
}

impl PortStatistics {
    /// Counts a lost packet.
    pub fn drop(&mut self, cause: DropCause) {
        if let Some(count) = self.drops.get_mut(cause as usize) {
            *count += 1;
        }
    }
}

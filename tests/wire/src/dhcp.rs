//! A DHCP server (RFC 2131) that gives the same MAC the same address as long as it runs. Pure: no socket, no clock.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use smoltcp::wire::{
    DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, IpCidr, Ipv4Cidr,
};

/// UDP port of the server.
pub(crate) const PORT: u16 = DHCP_SERVER_PORT;

/// "Interface MTU", RFC 2132 section 5.1.
const OPTION_MTU: u8 = 26;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What the DHCP server gives away.
#[derive(Clone, Debug)]
pub struct DhcpConfig {
    /// First address of the pool.
    pub first: Ipv4Addr,
    /// How many addresses the pool has.
    pub count: u32,
    /// Addresses that belong to certain clients.
    pub fixed: BTreeMap<Mac, Ipv4Addr>,
    /// Seconds that a lease lasts.
    pub lease_seconds: u32,
    /// Whether to tell clients the wire's MTU (option 26).
    pub announce_mtu: bool,
}

pub(crate) struct DhcpServer {
    config: DhcpConfig,
    address: Ipv4Addr,
    mask: Ipv4Addr,
    mtu: [u8; 2],
    leases: BTreeMap<Mac, Ipv4Addr>,
    declined: Vec<Ipv4Addr>,
}

impl DhcpServer {
    pub(crate) fn new(config: DhcpConfig, address: Ipv4Addr, prefix: u8, mtu: usize) -> Self {
        Self {
            config,
            address,
            mask: Ipv4Cidr::new(address, prefix.min(32)).netmask(),
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes(),
            leases: BTreeMap::new(),
            declined: Vec::new(),
        }
    }

    pub(crate) fn leases(&self) -> &BTreeMap<Mac, Ipv4Addr> {
        &self.leases
    }

    /// The answer to a message, if it deserves one. It is for broadcasting, which every client understands.
    pub(crate) fn handle_message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        let mac = request.client_hardware_address.0;
        if request.server_identifier.is_some_and(|server| server != self.address) {
            return None;
        }
        let kind = match request.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request | DhcpMessageType::Inform => DhcpMessageType::Ack,
            DhcpMessageType::Decline => {
                self.declined.extend(self.leases.remove(&mac));
                return None;
            }
            _ => return None,
        };
        let lease = self.lease(mac)?;
        let wanted = request.requested_ip.unwrap_or(request.client_ip);
        let refused = request.message_type == DhcpMessageType::Request && wanted != lease && !wanted.is_unspecified();
        let kind = if refused { DhcpMessageType::Nak } else { kind };
        self.encode(&request, kind, lease)
    }

    fn lease(&mut self, mac: Mac) -> Option<Ipv4Addr> {
        if let Some(lease) = self.leases.get(&mac) {
            return Some(*lease);
        }
        let lease = match self.config.fixed.get(&mac) {
            Some(fixed) => *fixed,
            None => (0..self.config.count)
                .filter_map(|index| u32::from(self.config.first).checked_add(index).map(Ipv4Addr::from))
                .find(|candidate| !self.is_taken(*candidate))?,
        };
        self.leases.insert(mac, lease);
        Some(lease)
    }

    fn is_taken(&self, address: Ipv4Addr) -> bool {
        address == self.address
            || self.declined.contains(&address)
            || self.leases.values().chain(self.config.fixed.values()).any(|taken| *taken == address)
    }

    fn encode(&self, request: &DhcpRepr<'_>, kind: DhcpMessageType, lease: Ipv4Addr) -> Option<Vec<u8>> {
        let positive = kind != DhcpMessageType::Nak;
        let leases = positive && request.message_type != DhcpMessageType::Inform;
        let mtu = [DhcpOption { kind: OPTION_MTU, data: &self.mtu }];
        let reply = DhcpRepr {
            message_type: kind,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: EthernetAddress(request.client_hardware_address.0),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: if leases { lease } else { Ipv4Addr::UNSPECIFIED },
            server_ip: self.address,
            router: positive.then_some(self.address),
            subnet_mask: positive.then_some(self.mask),
            relay_agent_ip: request.relay_agent_ip,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(self.address),
            parameter_request_list: None,
            dns_servers: positive.then(|| [self.address].into_iter().collect()),
            max_size: None,
            lease_duration: leases.then_some(self.config.lease_seconds),
            renew_duration: None,
            rebind_duration: None,
            additional_options: if positive && self.config.announce_mtu { &mtu } else { &[] },
        };
        // BOOTP relays and some clients want at least the 300 bytes of the old messages.
        let mut bytes = vec![0; reply.buffer_len().max(300)];
        reply.emit(&mut DhcpPacket::new_unchecked(bytes.as_mut_slice())).ok()?;
        Some(bytes)
    }
}

/// The prefix in smoltcp's form.
pub(crate) fn cidr(address: std::net::IpAddr, prefix: u8) -> IpCidr {
    IpCidr::new(address.into(), prefix)
}

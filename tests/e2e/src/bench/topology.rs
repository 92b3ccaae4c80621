//! The networks that the benchmark of netdom has both driver domains serve: their configs, as an administrator writes them. Pure.

use std::fmt;
use std::str::FromStr;

use super::common::LINUX;
use crate::stage::vif;

/// A network of guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// A bridge with the NIC in it.
    #[default]
    Bridge,
    /// That, and the guests on access ports of a VLAN that the wire carries with its tag.
    Vlan,
    /// A bridge with a bond in it, active-backup, of two NICs.
    Bond,
    /// No bridge: guests whose addresses are known on the wire.
    Route,
    /// No bridge: guests behind the driver domain's own address.
    Nat,
}

/// All of them, by their names on the command line.
pub const TOPOLOGIES: [(&str, Topology); 5] = [
    ("bridge", Topology::Bridge),
    ("vlan", Topology::Vlan),
    ("bond", Topology::Bond),
    ("route", Topology::Route),
    ("nat", Topology::Nat),
];

impl FromStr for Topology {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = TOPOLOGIES.iter().find(|(known, _)| *known == name).map(|(_, topology)| *topology);
        found.ok_or_else(|| format!("it is one of {}", TOPOLOGIES.map(|(known, _)| known).join(", ")))
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TOPOLOGIES.iter().find(|(_, known)| known == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// Waits for the NIC of a Linux driver domain.
macro_rules! nic {
    () => {
        "modprobe e1000e && for i in $(seq 500); do test -e /sys/class/net/eth0 && break; usleep 10000; done\n"
    };
}

/// An administrator's init of a Linux driver domain: a bridge with the NIC in it, and `xl devd` for hotplug.
pub(crate) const LINUX_BRIDGE: &str = concat!(
    nic!(),
    "ip link add xenbr0 type bridge && ip link set eth0 master xenbr0 && ip link set eth0 up && ip link set xenbr0 up && xl devd"
);

/// The same for a bridge that filters by VLAN: its ports are of VLAN 100 without a tag, but for the NIC, which has the tag.
const LINUX_VLAN: &str = concat!(
    nic!(),
    "/usr/bin/ip link add xenbr0 type bridge vlan_filtering 1 vlan_default_pvid 100 && ip link set eth0 master xenbr0 && \
     bridge vlan add dev eth0 vid 100 && ip link set eth0 up && ip link set xenbr0 up && xl devd"
);

/// The same for a bond of both NICs, which are looked at ten times a second, as Debian's documentation and most others have it.
const LINUX_BOND: &str = concat!(
    nic!(),
    "modprobe bonding max_bonds=0 && /usr/bin/ip link add bond0 type bond mode active-backup miimon 100 && \
     /usr/bin/ip link set eth0 master bond0 && /usr/bin/ip link set eth1 master bond0 && /usr/bin/ip link add xenbr0 type bridge && \
     /usr/bin/ip link set bond0 master xenbr0 && ip link set bond0 up && ip link set xenbr0 up && xl devd"
);

/// The same for a router, with more commands: it answers for its guests on the wire, and by `vif-route` for all others to them.
macro_rules! router {
    ($more:literal) => {
        concat!(
            nic!(),
            "sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.eth0.proxy_arp=1 && ip link set eth0 up && \
             udhcpc -i eth0 -n -q -t 20 -T 1 >/dev/null 2>&1 && ",
            $more,
            "xl devd"
        )
    };
}

const LINUX_ROUTE: &str = router!("");
/// The same, and it translates what leaves. It answers for gateways that it has a way to.
const LINUX_NAT: &str = router!(
    "ip route add 192.168.0.0/16 dev eth0 && modprobe crc32c_generic && modprobe nft_masq && modprobe nft_chain_nat && \
     nft add table ip nat && \
     nft 'add chain ip nat out { type nat hook postrouting priority 100; }' && \
     nft add rule ip nat out oifname eth0 masquerade && "
);

/// A guest's vif on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// In `xl`'s words.
    pub(crate) vif: String,
    /// What the guest's init does for its interface; a lease of the wire's where there is nothing.
    pub(crate) setup: Option<String>,
    /// The guest's address, where `setup` gives it one.
    pub(crate) address: Option<String>,
}

impl Topology {
    /// NICs of each driver domain; those of one are on one wire.
    pub(crate) fn nics(self) -> u8 {
        if self == Self::Bond { 2 } else { 1 }
    }

    /// More words for netdom, whose NICs are these, and on whose wire is this peer.
    pub(crate) fn words(self, nics: &[String], peer: &str) -> String {
        match self {
            Self::Bridge | Self::Vlan => String::new(),
            Self::Bond => format!("bond=bond0:{}:active-backup", nics.join(",")),
            Self::Route | Self::Nat => format!("address={}/16", on_wire(peer, 252, 5)),
        }
    }

    /// The init of the Linux driver domain.
    pub(crate) fn linux_setup(self) -> &'static str {
        match self {
            Self::Bridge => LINUX_BRIDGE,
            Self::Vlan => LINUX_VLAN,
            Self::Bond => LINUX_BOND,
            Self::Route => LINUX_ROUTE,
            Self::Nat => LINUX_NAT,
        }
    }

    /// A guest's links to netdom and to the Linux driver domain, on whose wires are these peers. Their addresses are made of `number`.
    pub(crate) fn links(self, number: u8, peers: &[String; 2]) -> [Link; 2] {
        [(DOMAINS[0], number, "eth0", &peers[0]), (DOMAINS[1], number + 0x80, "eth1", &peers[1])]
            .map(|(domain, last, interface, peer)| self.link(domain, last, interface, peer))
    }

    fn link(self, domain: &str, last: u8, interface: &str, peer: &str) -> Link {
        let of = |words: &str| vif(domain, last) + words;
        let ours = domain == DOMAINS[0];
        match self {
            Self::Bridge | Self::Bond => Link { vif: of(""), setup: None, address: None },
            // The wire's DHCP server knows no tags.
            Self::Vlan => {
                let address = on_wire(peer, 250, last);
                let setup = format!("ip addr add {address}/16 dev {interface} && ip link set {interface} up");
                let words = if ours { ",bridge=xenbr0.100" } else { "" };
                Link { vif: of(words), setup: Some(setup), address: Some(address) }
            }
            Self::Route | Self::Nat => {
                // All but the guest itself is behind the router, whichever gateway it has.
                let (address, gateway, others) = match self {
                    Self::Nat => (format!("192.168.{last}.2"), format!("192.168.{last}.1"), "192.168"),
                    _ => (on_wire(peer, 253, last), on_wire(peer, 253, 254), ""),
                };
                let mut setup = format!(
                    "ip addr add {address}/32 dev {interface} && ip link set {interface} up && \
                     ip route add {gateway}/32 dev {interface} && ip route add {peer}/32 via {gateway} dev {interface} src {address}"
                );
                // The other guest on this side.
                let near =
                    if others.is_empty() { on_wire(peer, 253, last ^ 3) } else { format!("{others}.{}.2", last ^ 3) };
                setup += &format!(" && ip route add {near}/32 via {gateway} dev {interface} src {address}");
                let script = if self == Self::Nat && ours { "vif-nat" } else { "vif-route" };
                Link {
                    vif: of(&format!(",script={script},ip={address},gatewaydev=eth0")),
                    setup: Some(setup),
                    address: Some(address),
                }
            }
        }
    }
}

/// The driver domains.
const DOMAINS: [&str; 2] = ["netdom", LINUX];

/// An address in the network of a wire's peer, which has the length 16.
fn on_wire(peer: &str, third: u8, last: u8) -> String {
    let network = peer.strip_suffix("0.1").unwrap_or(peer);
    format!("{network}{third}.{last}")
}

//! The words of a router: its own address, the networks of its DHCP server, and the ports that are guests'. Pure. Floor 3.

use super::set;
use crate::router::config::{Forwarding, Internal, Network, NetworkV6, Setup, Uplink, UplinkV6, is_routable};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of IPv4, `None` where it is by DHCP, and behind a comma one of IPv6 in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    v4: Option<Network>,
    v6: Option<NetworkV6>,
}

impl Own {
    fn parse(text: &str) -> Option<Self> {
        let (v4, v6) = text.split_once(',').map_or((text, None), |(v4, v6)| (v4, Some(v6)));
        let v4 = match v4 {
            BY_DHCP => None,
            text => Some(Network::parse(text).filter(|network| network.is_host(network.address))?),
        };
        let v6 = match v6 {
            Some(text) => Some(NetworkV6::parse(text)?),
            None => None,
        };
        Some(Self { v4, v6 })
    }
}

/// One or two routers, of different families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Gateways {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Gateways {
    fn parse(text: &str) -> Option<Self> {
        let mut all = Self::default();
        for word in text.split(',') {
            let is_first = match word.parse().ok()? {
                IpAddr::V4(address) => all.v4.replace(address).is_none(),
                IpAddr::V6(address) => all.v6.replace(address).is_none(),
            };
            is_first.then_some(())?;
        }
        Some(all)
    }
}

/// The address of a netdom whose address is by DHCP.
const BY_DHCP: &str = "dhcp";

/// What they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routing {
    /// The networks of those internal bridges that have a DHCP server.
    dhcp: Vec<Internal>,
    /// netdom's own address, and the bridge where it has it, where that was said.
    address: Option<(Option<String>, Own)>,
    gateway: Option<Gateways>,
    dns: Option<Vec<Ipv4Addr>>,
    forwardings: Vec<Forwarding>,
}

impl Routing {
    /// Reads the value of `internal=`; gives the bridge, whose name is to be checked.
    ///
    /// # Errors
    /// What is wrong behind the name.
    pub(super) fn internal<'a>(&mut self, value: &'a str) -> Result<&'a str, String> {
        let Some((bridge, rest)) = value.split_once(':') else {
            return Ok(value);
        };
        let escaped = value.escape_debug();
        let Some(network) = rest.strip_prefix("dhcp=").and_then(Network::parse).map(Network::first) else {
            return Err(format!(
                "\"internal={escaped}\": behind the colon is dhcp=NETWORK, an IPv4 network of 1 to 30 bits, as dhcp=10.0.7.0/24"
            ));
        };
        match self.dhcp.iter().find(|known| known.bridge == bridge) {
            Some(known) if known.network != network => {
                return Err(format!("\"internal={escaped}\" contradicts an earlier word"));
            }
            Some(_) => {}
            None => self.dhcp.push(Internal { bridge: bridge.into(), network }),
        }
        Ok(bridge)
    }

    /// Obeys a word of the router; false for any other word.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let escaped = value.escape_debug();
        match name {
            "address" => {
                // An address of IPv6 has colons, too.
                let first = value.find(',').unwrap_or(value.len());
                let colon = value.get(..first).and_then(|first| first.rfind(':'));
                let (bridge, text) = match colon.and_then(|colon| Some((value.get(..colon)?, value.get(colon + 1..)?)))
                {
                    Some((bridge, text)) => (Some(String::from(bridge)), text),
                    None => (None, value),
                };
                let Some(own) = Own::parse(text) else {
                    return Err(format!(
                        "\"address={escaped}\": it is [BRIDGE:]ADDRESS/LENGTH, an IPv4 host in its network, as 10.0.0.5/24, or [BRIDGE:]dhcp; and behind a comma one of IPv6, as 10.0.0.5/24,2001:db8::5/64"
                    ));
                };
                set(&mut self.address, name, value, (bridge, own))
            }
            "gateway" => {
                let Some(gateways) = Gateways::parse(value) else {
                    return Err(format!(
                        "\"gateway={escaped}\": it is an address of IPv4, of IPv6, or one of each behind a comma, as 10.0.0.1,fe80::1"
                    ));
                };
                set(&mut self.gateway, name, value, gateways)
            }
            "dns" => {
                let servers: Result<Vec<Ipv4Addr>, _> = value.split(',').map(str::parse).collect();
                let Some(servers) = servers.ok().filter(|servers| servers.len() <= 3) else {
                    return Err(format!("\"dns={escaped}\": it is one to three IPv4 addresses, separated by commas"));
                };
                set(&mut self.dns, name, value, servers)
            }
            "forward" => self.set_forwarding(value).map(|()| true),
            _ => Ok(false),
        }
    }

    fn set_forwarding(&mut self, value: &str) -> Result<(), String> {
        let escaped = value.escape_debug();
        let Some(new) = Forwarding::parse(value) else {
            return Err(format!(
                "\"forward={escaped}\": it is PROTO:PORT:GUEST[:PORT], as tcp:8080:192.168.7.2:80; PROTO is tcp or udp, GUEST an address of its ip="
            ));
        };
        let clash = self.forwardings.iter().any(|known| {
            let same_guest = (known.guest, known.guest_port) == (new.guest, new.guest_port);
            *known != new && known.protocol == new.protocol && (known.port == new.port || same_guest)
        });
        if clash {
            return Err(format!(
                "\"forward={escaped}\": a port is one guest's, and of one guest's port there is one; an earlier word names it"
            ));
        }
        if !self.forwardings.contains(&new) {
            self.forwardings.push(new);
        }
        Ok(())
    }

    /// What the router is told; `wired` are the bridges of NICs. None where there is to be no router.
    ///
    /// # Errors
    /// What does not go together.
    pub(super) fn setup(&self, wired: &[&str]) -> Result<Option<Setup>, String> {
        let uplink = match &self.address {
            None => None,
            Some((bridge, own)) => Some(self.uplink(bridge.as_deref(), *own, wired)?),
        };
        if uplink.is_none() {
            let wants = [("gateway", self.gateway.is_some()), ("forward", !self.forwardings.is_empty())];
            if let Some((name, _)) = wants.iter().find(|(_, said)| *said) {
                return Err(format!("\"{name}=\" says nothing without \"address=\", as address=10.0.0.5/24"));
            }
        }
        let (internals, forwardings) = (self.dhcp.clone(), self.forwardings.clone());
        let setup = Setup { uplink, internals, dns: self.dns.clone().unwrap_or_default(), forwardings };
        match (setup.is_empty(), &self.dns) {
            (false, _) => Ok(Some(setup)),
            (true, None) => Ok(None),
            (true, Some(_)) => Err(String::from(
                "\"dns=\" says nothing without \"address=\" or \"internal=NAME:dhcp=\", whose guests it is told to",
            )),
        }
    }

    fn uplink(&self, bridge: Option<&str>, own: Own, wired: &[&str]) -> Result<Uplink, String> {
        let (network, gateways) = (own.v4, self.gateway.unwrap_or_default());
        let address = network.map_or(String::from(BY_DHCP), |network| format!("{network}"));
        let bridge = match (bridge, wired) {
            (Some(bridge), _) if wired.contains(&bridge) => bridge,
            (None, [only, others @ ..]) if others.iter().all(|other| other == only) => only,
            (Some(bridge), _) => {
                return Err(format!("\"address={bridge}:{address}\": no NIC is a port of this bridge"));
            }
            (None, _) => {
                return Err(format!(
                    "\"address={address}\": on which bridge? There are {}; say address=BRIDGE:{address}",
                    wired.join(", ")
                ));
            }
        };
        let fits =
            |gateway: Ipv4Addr| network.is_some_and(|network| network.is_host(gateway) && gateway != network.address);
        match gateways.v4 {
            Some(gateway) if network.is_none() => {
                return Err(format!("\"gateway={gateway}\" does not go with \"address=dhcp\": the lease says it"));
            }
            Some(gateway) if !fits(gateway) => {
                return Err(format!("\"gateway={gateway}\" is no other host of the network of \"address={address}\""));
            }
            _ => {}
        }
        let v6 = match (own.v6, gateways.v6) {
            (Some(network), gateway) => Some(uplink_v6(network, gateway)?),
            (None, None) => None,
            (None, Some(gateway)) => {
                return Err(format!(
                    "\"gateway={gateway}\" says nothing without an address of IPv6, as address={address},2001:db8::5/64"
                ));
            }
        };
        Ok(Uplink { bridge: bridge.into(), network, gateway: gateways.v4, v6 })
    }
}

fn uplink_v6(network: NetworkV6, gateway: Option<Ipv6Addr>) -> Result<UplinkV6, String> {
    let is_right = |gateway: Ipv6Addr| {
        gateway.is_unicast_link_local()
            || network.contains(gateway) && is_routable(gateway) && gateway != network.address
    };
    match gateway.filter(|gateway| !is_right(*gateway)) {
        None => Ok(UplinkV6 { network, gateway }),
        Some(gateway) => Err(format!(
            "\"gateway={gateway}\" is neither link-local nor another host of the network of \"address={network}\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use alloc::string::ToString;

    fn with(words: &[(&str, &str)]) -> Options {
        let mut options = Options::default();
        for (name, value) in words {
            assert_eq!(options.set(name, value), Ok(true), "{name}={value}");
        }
        options
    }

    #[test]
    fn internal_bridges_with_a_server() {
        let options = with(&[("internal", "lab:dhcp=10.0.7.0/24"), ("internal", "dmz"), ("dns", "9.9.9.9,1.1.1.1")]);
        let setup = options.router().unwrap().unwrap();
        let network = Network::parse("10.0.7.1/24").unwrap();
        assert_eq!(setup.internals, [Internal { bridge: "lab".into(), network }]);
        assert_eq!((setup.uplink, setup.dns.len()), (None, 2));
        assert_eq!(options.bridges().unwrap().to_string(), "xenbr0, lab (internal), dmz (internal)");
        for wrong in [
            "lab:",
            "lab:dhcp",
            "lab:dhcp=",
            "lab:dhcp=10.0.7.0",
            "lab:dhcp=10.0.7.0/31",
            "lab:nat=10.0.7.0/24",
            ":dhcp=10.0.7.0/24",
        ] {
            let error = Options::default().set("internal", wrong).unwrap_err();
            assert!(error.contains("internal=") && error.contains(": "), "{wrong}: {error}");
        }
        assert!(with(&[("internal", "lab:dhcp=10.0.7.0/24")]).set("internal", "lab:dhcp=10.0.8.0/24").is_err());
        assert_eq!(Options::default().router(), Ok(None));
        assert!(with(&[("dns", "9.9.9.9")]).router().is_err());
        assert!(Options::default().set("dns", "1.1.1.1,2.2.2.2,3.3.3.3,4.4.4.4").is_err());
    }

    #[test]
    fn the_way_out() {
        let network = Network::parse("10.0.0.5/24").unwrap();
        let words = [("address", "10.0.0.5/24"), ("gateway", "10.0.0.1"), ("forward", "tcp:8080:192.168.7.2:80")];
        let setup = with(&words).router().unwrap().unwrap();
        let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(setup.uplink, Some(Uplink { bridge: "xenbr0".into(), network: Some(network), gateway, v6: None }));
        assert_eq!(setup.forwardings.len(), 1);
        // Of several bridges it is said which.
        let two = ("bridge", "00:03.0:lan,00:04.0:dmz");
        assert!(with(&[two, ("address", "10.0.0.5/24")]).router().unwrap_err().contains("lan, dmz"));
        assert!(with(&[two, ("address", "lab:10.0.0.5/24")]).router().is_err());
        let setup = with(&[two, ("address", "dmz:10.0.0.5/24")]).router().unwrap().unwrap();
        assert_eq!(
            setup.uplink,
            Some(Uplink { bridge: "dmz".into(), network: Some(network), gateway: None, v6: None })
        );
        for (words, bridge) in [(&[("address", "dhcp")][..], "xenbr0"), (&[two, ("address", "dmz:dhcp")], "dmz")] {
            let uplink = Uplink { bridge: bridge.into(), network: None, gateway: None, v6: None };
            assert_eq!(with(words).router().unwrap().unwrap().uplink, Some(uplink));
        }
        let uplink = with(&[("address", "dhcp,fd00::5/64")]).router().unwrap().unwrap().uplink.unwrap();
        assert_eq!((uplink.network, uplink.v6.map(|v6| v6.network.length)), (None, Some(64)));
        assert!(with(&[two, ("address", "dhcp")]).router().unwrap_err().contains("address=BRIDGE:dhcp"));
        assert!(with(&[("address", "dhcp"), ("gateway", "10.0.0.1")]).router().unwrap_err().contains("the lease"));
        assert!(with(&[("address", "dhcp")]).set("address", "10.0.0.5/24").is_err());
        for wrong in [
            "",
            "10.0.0.5",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "dhcp/24",
            "fd00::5/64",
            "10.0.0.5/24,",
            "10.0.0.5/24,10.0.1.5/24",
            "10.0.0.5/24,fe80::5/64",
            "10.0.0.5/24,fd00::5/64,fd01::5/64",
            "fd00::5/64,10.0.0.5/24",
        ] {
            assert!(Options::default().set("address", wrong).unwrap_err().contains("as 10.0.0.5/24"), "{wrong}");
        }
        for gateway in ["10.0.1.1", "10.0.0.5", "10.0.0.255"] {
            assert!(with(&[("address", "10.0.0.5/24"), ("gateway", gateway)]).router().is_err(), "{gateway}");
        }
        for (name, value) in [("gateway", "10.0.0.1"), ("forward", "udp:53:192.168.7.2")] {
            assert!(with(&[(name, value)]).router().unwrap_err().contains("address="));
        }
        for clash in ["tcp:8080:192.168.7.3:80", "tcp:8081:192.168.7.2:80", "tcp:8080:192.168.7.2"] {
            assert!(with(&words).set("forward", clash).is_err(), "{clash}");
        }
        assert_eq!(with(&words).set("forward", "udp:8080:192.168.7.2:80"), Ok(true));
    }

    #[test]
    fn the_way_out_of_ipv6() {
        let address = "xenbr0:10.0.0.5/24,2001:db8::5/64";
        let network = NetworkV6::parse("2001:db8::5/64").unwrap();
        for (said, v4, v6) in [
            ("10.0.0.1,2001:db8::1", true, Some("2001:db8::1")),
            ("fe80::1,10.0.0.1", true, Some("fe80::1")),
            ("fe80::1", false, Some("fe80::1")),
            ("10.0.0.1", true, None),
        ] {
            let uplink = with(&[("address", address), ("gateway", said)]).router().unwrap().unwrap().uplink.unwrap();
            let gateway = v6.map(|text| text.parse().unwrap());
            assert_eq!((uplink.gateway.is_some(), uplink.v6), (v4, Some(UplinkV6 { network, gateway })), "{said}");
        }
        let uplink = with(&[("address", "10.0.0.5/24,fd00::5/128")]).router().unwrap().unwrap().uplink.unwrap();
        assert_eq!(uplink.v6.map(|v6| (v6.network.length, v6.gateway)), Some((128, None)));
        for gateway in ["2001:db8::5", "2001:db8:1::1", "ff02::2", "::"] {
            assert!(with(&[("address", address), ("gateway", gateway)]).router().is_err(), "{gateway}");
        }
        let without = with(&[("address", "10.0.0.5/24"), ("gateway", "fe80::1")]).router().unwrap_err();
        assert!(without.contains("2001:db8::5/64"), "{without}");
        for wrong in ["", "10.0.0.1,", "10.0.0.1,10.0.0.2", "fe80::1,fe80::2", "fe80::1,10.0.0.1,fe80::2", "fe80::1/64"]
        {
            assert!(Options::default().set("gateway", wrong).unwrap_err().contains("as 10.0.0.1,fe80::1"), "{wrong}");
        }
    }
}

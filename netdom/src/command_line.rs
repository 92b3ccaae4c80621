//! The words of the command line (`extra=` of the domain's config) that netdom alone knows. Pure. Floor 3.

mod bonds;
mod routing;

use crate::netback::bridges::{BRIDGE_BYTES, Bridges, DEFAULT_BRIDGE};
use crate::netback::config::MAX_QUEUES;
use crate::policy::AntiSpoof;
use crate::policy::storm::StormLimit;
use crate::router::config::Setup;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
pub use bonds::BondWord;
use routing::Routing;

/// What the command line asks of netdom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    bridge: Option<NicBridges>,
    bonds: Vec<BondWord>,
    internal: Vec<String>,
    bpdu: Option<bool>,
    mtu: Option<u16>,
    queues: Option<u8>,
    antispoof: Option<AntiSpoof>,
    isolated: Vec<String>,
    storm: Option<Option<StormLimit>>,
    routing: Routing,
}

/// Bytes of an IP packet on an Ethernet without jumbo frames (RFC 894).
const STANDARD_MTU: u16 = 1500;
/// The most that `mtu=` may say: frames of 9,234 bytes with their check sequence, the most that the e1000e carries.
const MOST_MTU: u16 = 9212;
/// Queues that each vif is offered.
const DEFAULT_QUEUES: u8 = 4;

/// The bridges that NICs are ports of (`bridge=`): `[ADDRESS:]NAME` or `BOND:NAME`, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NicBridges {
    /// By the NIC's address in the host, as `0000:00:03.0`, or by the bond's name.
    named: Vec<(String, String)>,
    /// The bridge of the other NICs.
    others: Option<String>,
}

impl NicBridges {
    /// Reads the value of the word.
    ///
    /// # Errors
    /// What is wrong with it, with the word.
    fn parse(value: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("\"bridge={}\": {why}", value.escape_debug()));
        let mut bridges = Self::default();
        for entry in value.split(',') {
            let Some((address, name)) = entry.rsplit_once(':') else {
                check_bridge("bridge", entry)?;
                if bridges.others.replace(entry.into()).is_some() {
                    return wrong("two bridges for the NICs that have none of their own; say ADDRESS:NAME for each");
                }
                continue;
            };
            // Which bonds there are is known when all words are.
            let bond = bonds::is_name(address) && !address.contains(':');
            let Some(address) = full_address(address).or_else(|| bond.then(|| address.into())) else {
                return wrong(
                    "before the colon is the address of a NIC, as \"xl pci-assignable-list\" prints it: 00:03.0:xenbr0; or the name of a bond",
                );
            };
            check_bridge("bridge", name)?;
            if bridges.named.iter().any(|(known, _)| *known == address) {
                return wrong("a NIC or bond has one bridge, and this names two for one");
            }
            bridges.named.push((address, name.into()));
        }
        Ok(bridges)
    }
}

/// An address as `xl` takes it, `[SEGMENT:]BUS:DEVICE.FUNCTION` in hexadecimal, with its segment.
fn full_address(text: &str) -> Option<String> {
    let (rest, function) = text.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let mut number = |default: Option<&'static str>, below: u16| {
        let part = parts.next().or(default)?;
        let short = (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        u16::from_str_radix(part, 16).ok().filter(|number| short && *number < below)
    };
    let (device, bus, segment) = (number(None, 32)?, number(None, 256)?, number(Some("0"), u16::MAX)?);
    let function = function.parse().ok().filter(|function: &u8| *function < 8)?;
    parts.next().is_none().then(|| format!("{segment:04x}:{bus:02x}:{device:02x}.{function}"))
}

impl Options {
    /// The bridge that a NIC is a port of (`bridge=`), by its address in the host (`0000:00:03.0`). None where the word names bridges
    /// for other NICs alone.
    pub fn bridge(&self, address: &str) -> Option<&str> {
        let Some(bridges) = &self.bridge else {
            return Some(DEFAULT_BRIDGE);
        };
        let bond = self.bond(address).and_then(|(bond, _)| self.bonds.get(bond));
        let key = bond.map_or(address, |bond| &bond.name);
        let named = bridges.named.iter().find(|(known, _)| known == key).map(|(_, name)| name);
        named.or(bridges.others.as_ref()).map(String::as_str)
    }

    /// The addresses of the NICs that words name, each with the word.
    pub fn named_nics(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let nics = self.named().filter(|name| name.contains(':')).map(|address| ("bridge", address));
        nics.chain(self.bonds.iter().flat_map(|bond| &bond.nics).map(|address| ("bond", address.as_str())))
    }

    /// The NICs and bonds that `bridge=` names.
    fn named(&self) -> impl Iterator<Item = &str> {
        self.bridge.iter().flat_map(|bridges| &bridges.named).map(|(name, _)| name.as_str())
    }

    /// The bonds (`bond=`).
    pub fn bonds(&self) -> &[BondWord] {
        &self.bonds
    }

    /// The bond that a NIC is of, by its number among all, and the NIC's place in it.
    pub fn bond(&self, address: &str) -> Option<(usize, usize)> {
        let place = |bond: &BondWord| bond.nics.iter().position(|nic| nic == address);
        self.bonds.iter().enumerate().find_map(|(number, bond)| Some((number, place(bond)?)))
    }

    /// The bridges that NICs are ports of.
    fn wired(&self) -> Vec<&str> {
        match &self.bridge {
            Some(NicBridges { named, others }) => {
                named.iter().map(|(_, name)| name).chain(others).map(String::as_str).collect()
            }
            None => Vec::from([DEFAULT_BRIDGE]),
        }
    }

    /// Whether BPDUs go to the wire and come from it (`bpdu=forward`).
    pub fn bpdus_on_wire(&self) -> bool {
        self.bpdu == Some(true)
    }

    /// Bytes of the largest IP packet to and from the wire (`mtu=`).
    pub fn mtu(&self) -> u16 {
        self.mtu.unwrap_or(STANDARD_MTU)
    }

    /// Queues that each vif is offered (`queues=`).
    pub fn queues(&self) -> u8 {
        self.queues.unwrap_or(DEFAULT_QUEUES)
    }

    /// What is checked of the frames of guests (`antispoof=`).
    pub fn antispoof(&self) -> AntiSpoof {
        self.antispoof.unwrap_or_default()
    }

    /// The bridges whose guests reach NICs alone (`isolated=`).
    pub fn isolated(&self) -> &[String] {
        &self.isolated
    }

    /// How many frames that go to all each guest may send (`storm=`).
    pub fn storm(&self) -> Option<StormLimit> {
        self.storm.unwrap_or(Some(StormLimit::DEFAULT))
    }

    /// What the router is told; none where there is to be no router.
    ///
    /// # Errors
    /// What does not go together.
    pub fn router(&self) -> Result<Option<Setup>, String> {
        self.routing.setup(&self.wired())
    }

    /// All bridges that a vif may name.
    ///
    /// # Errors
    /// A NIC's bridge was declared to be one without a NIC; `bridge=` and `bond=` do not fit; or a bridge that there is not was to be isolated.
    pub fn bridges(&self) -> Result<Bridges, String> {
        bonds::check_named(self.named(), &self.bonds)?;
        let wired = self.wired();
        if let Some(name) = self.internal.iter().find(|name| wired.contains(&name.as_str())) {
            return Err(format!(
                "\"internal={name}\": a NIC is a port of this bridge, unless \"bridge=\" names another"
            ));
        }
        let bridges = Bridges::new(wired, &self.internal);
        match self.isolated.iter().find(|name| !bridges.has(name)) {
            Some(name) => Err(format!("\"isolated={name}\": there is no such bridge; there are: {bridges}")),
            None => Ok(bridges),
        }
    }

    /// Obeys a word `name=value`; false where it is none of netdom's.
    ///
    /// # Errors
    /// What is wrong with the value. Going on without it could put the NIC on the wrong bridge, and join what is to be kept apart.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "bridge" => {
                let bridges = NicBridges::parse(value)?;
                set(&mut self.bridge, name, value, bridges)
            }
            "bond" => BondWord::parse(value)?.add_to(&mut self.bonds).map(|()| true),
            "internal" => {
                let bridge = self.routing.internal(value)?;
                check_bridge(name, bridge)?;
                if self.internal.iter().all(|known| known != bridge) {
                    self.internal.push(bridge.into());
                }
                Ok(true)
            }
            "address" | "gateway" | "dns" | "forward" => self.routing.set(name, value),
            "bpdu" => {
                let forward = match value {
                    "forward" => true,
                    "drop" => false,
                    _ => return Err(format!("\"bpdu={}\": it is forward or drop", value.escape_debug())),
                };
                set(&mut self.bpdu, name, value, forward)
            }
            "mtu" => {
                let bytes = value.parse().ok().filter(|bytes| (STANDARD_MTU..=MOST_MTU).contains(bytes));
                let Some(bytes) = bytes else {
                    let value = value.escape_debug();
                    return Err(format!("\"mtu={value}\": it is a number from {STANDARD_MTU} to {MOST_MTU}"));
                };
                set(&mut self.mtu, name, value, bytes)
            }
            "queues" => {
                let queues = value.parse().ok().filter(|queues| (1..=MAX_QUEUES).contains(queues));
                let Some(queues) = queues else {
                    let value = value.escape_debug();
                    return Err(format!("\"queues={value}\": it is a number from 1 to {MAX_QUEUES}"));
                };
                set(&mut self.queues, name, value, queues)
            }
            "antispoof" => {
                let Some(level) = AntiSpoof::parse(value) else {
                    return Err(format!("\"antispoof={}\": it is off, mac or strict", value.escape_debug()));
                };
                set(&mut self.antispoof, name, value, level)
            }
            "isolated" => {
                for bridge in value.split(',') {
                    check_bridge(name, bridge)?;
                    if self.isolated.iter().all(|known| known != bridge) {
                        self.isolated.push(bridge.into());
                    }
                }
                Ok(true)
            }
            "storm" => {
                let limit =
                    if value == "off" { Some(None) } else { value.parse().ok().and_then(StormLimit::new).map(Some) };
                let Some(limit) = limit else {
                    let (value, most) = (value.escape_debug(), StormLimit::MOST);
                    return Err(format!("\"storm={value}\": it is off, or frames a second from 1 to {most}"));
                };
                set(&mut self.storm, name, value, limit)
            }
            _ => Ok(false),
        }
    }
}

fn check_bridge(name: &str, value: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && ![b',', b':'].contains(&byte);
    if value.is_empty() || value.len() > BRIDGE_BYTES || !value.bytes().all(allowed) {
        let value = value.escape_debug();
        return Err(format!(
            "\"{name}={value}\": a bridge's name is 1 to {BRIDGE_BYTES} printable characters, without comma and colon"
        ));
    }
    Ok(())
}

/// Takes a value once; the same one again does no harm.
fn set<T: PartialEq>(place: &mut Option<T>, name: &str, text: &str, value: T) -> Result<bool, String> {
    if place.as_ref().is_some_and(|known| *known != value) {
        return Err(format!("\"{name}={}\" contradicts an earlier word", text.escape_debug()));
    }
    *place = Some(value);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const NIC: &str = "0000:00:03.0";

    #[test]
    fn one_bridge_for_all_nics() {
        let mut options = Options::default();
        assert_eq!(options.bridge(NIC), Some("xenbr0"));
        assert_eq!(options.set("colour", "green"), Ok(false));
        assert_eq!(options.set("bridge", "a=b"), Ok(true));
        assert_eq!(options.set("bridge", "a=b"), Ok(true));
        assert_eq!(options.bridge(NIC), Some("a=b"));
        let long = "x".repeat(65);
        for wrong in ["", "lan", "é", "a\u{1b}b", &long] {
            let error = options.set("bridge", wrong).unwrap_err();
            assert!(error.chars().all(|c| !c.is_control()), "{error:?}");
        }
        assert_eq!(options.bridge(NIC), Some("a=b"));
    }

    #[test]
    fn a_bridge_for_each_nic() {
        let mut options = Options::default();
        assert_eq!(options.set("bridge", "00:03.0:xenbr0,0001:a0:1f.7:dmz,0:4.0:xenbr0"), Ok(true));
        let bridges = [NIC, "0001:a0:1f.7", "0000:00:04.0", "0000:00:05.0"].map(|nic| options.bridge(nic));
        assert_eq!(bridges, [Some("xenbr0"), Some("dmz"), Some("xenbr0"), None]);
        assert_eq!(options.bridges().unwrap().to_string(), "xenbr0, dmz");
        assert!(options.named_nics().eq([NIC, "0001:a0:1f.7", "0000:00:04.0"].map(|nic| ("bridge", nic))));
        // One without an address is that of the others.
        let mut options = Options::default();
        assert_eq!(options.set("bridge", "lan,00:03.0:dmz"), Ok(true));
        assert_eq!([NIC, "0000:00:05.0"].map(|nic| options.bridge(nic)), [Some("dmz"), Some("lan")]);
        assert_eq!(options.set("internal", "dmz"), Ok(true));
        assert!(options.bridges().unwrap_err().contains("internal=dmz"));
        for wrong in [
            "a,b",
            "a,",
            ":a",
            "00:03.0:",
            "00:03.0:a,0000:00:03.0:b",
            "00:03:a",
            "03.0:a",
            "00:20.0:a",
            "00:03.8:a",
            "100:03.0:a",
            "0:0:00:03.0:a",
            "00:+3.0:a",
        ] {
            let error = Options::default().set("bridge", wrong).unwrap_err();
            assert!(error.contains("bridge=") && error.contains(": "), "{wrong}: {error}");
        }
    }

    #[test]
    fn internal_bridges() {
        let mut options = Options::default();
        for name in ["lab", "dmz", "lab"] {
            assert_eq!(options.set("internal", name), Ok(true));
        }
        assert!(options.set("internal", "").is_err());
        let bridges = options.bridges().unwrap();
        for (name, known) in [("xenbr0", true), ("lab", true), ("dmz", true), ("lan", false), ("", false)] {
            assert_eq!(bridges.has(name), known, "{name}");
        }
        // The NIC's bridge is not without a NIC, whichever word came first.
        assert_eq!(options.set("internal", "xenbr0"), Ok(true));
        assert!(options.bridges().unwrap_err().contains("internal=xenbr0"));
        assert_eq!(options.set("bridge", "lan"), Ok(true));
        assert!(options.bridges().unwrap().has("xenbr0"));
        assert_eq!(options.set("internal", "lan"), Ok(true));
        assert!(options.bridges().is_err());
    }

    #[test]
    fn mtus() {
        let mut options = Options::default();
        assert_eq!(options.mtu(), 1500);
        for wrong in ["", "1499", "9213", "-9000", "9k", "70000"] {
            assert!(options.set("mtu", wrong).unwrap_err().contains("1500 to 9212"), "{wrong}");
        }
        assert_eq!((options.set("mtu", "9000"), options.mtu()), (Ok(true), 9000));
        assert!(options.set("mtu", "1500").is_err());
    }

    #[test]
    fn queues() {
        let mut options = Options::default();
        assert_eq!(options.queues(), 4);
        for wrong in ["", "0", "9", "-1", "two", "256"] {
            assert!(options.set("queues", wrong).unwrap_err().contains("1 to 8"), "{wrong}");
        }
        assert_eq!((options.set("queues", "8"), options.queues()), (Ok(true), 8));
        assert!(options.set("queues", "1").is_err());
    }

    #[test]
    fn bpdus() {
        let mut options = Options::default();
        assert!(!options.bpdus_on_wire());
        assert!(options.set("bpdu", "yes").is_err());
        assert_eq!(options.set("bpdu", "forward"), Ok(true));
        assert!(options.bpdus_on_wire());
        assert!(options.set("bpdu", "drop").is_err());
    }

    #[test]
    fn isolated_bridges() {
        let mut options = Options::default();
        assert_eq!(options.set("internal", "inside"), Ok(true));
        for value in ["xenbr0,inside", "inside"] {
            assert_eq!(options.set("isolated", value), Ok(true));
        }
        assert_eq!(options.isolated(), ["xenbr0", "inside"]);
        assert!(options.bridges().is_ok());
        for wrong in ["", "xenbr0,", "a:b"] {
            assert!(options.set("isolated", wrong).is_err(), "{wrong}");
        }
        assert_eq!(options.set("isolated", "lan"), Ok(true));
        assert!(
            options
                .bridges()
                .unwrap_err()
                .starts_with("\"isolated=lan\": there is no such bridge; there are: xenbr0, inside")
        );
    }

    #[test]
    fn limits_of_storms() {
        let limit = |frames| StormLimit::new(frames);
        assert_eq!(Options::default().storm(), limit(10_000));
        for (value, expected) in [("off", None), ("1", limit(1)), ("1000000", limit(1_000_000))] {
            let mut options = Options::default();
            assert_eq!((options.set("storm", value), options.storm()), (Ok(true), expected));
        }
        for wrong in ["", "0", "-1", "1000001", "many", "Off", "+"] {
            assert!(Options::default().set("storm", wrong).unwrap_err().ends_with("from 1 to 1000000"), "{wrong}");
        }
        let mut options = Options::default();
        assert_eq!(options.set("storm", "off"), Ok(true));
        assert!(options.set("storm", "5").is_err());
    }

    #[test]
    fn what_is_checked_of_guests() {
        for (value, level) in [("off", AntiSpoof::Off), ("mac", AntiSpoof::Mac), ("strict", AntiSpoof::Strict)] {
            let mut options = Options::default();
            assert_eq!(options.antispoof(), AntiSpoof::Mac);
            assert_eq!((options.set("antispoof", value), options.antispoof()), (Ok(true), level));
        }
        for wrong in ["", "on", "Strict", "mac,strict"] {
            let error = Options::default().set("antispoof", wrong).unwrap_err();
            assert!(error.ends_with("it is off, mac or strict"), "{error}");
        }
        let mut options = Options::default();
        assert_eq!(options.set("antispoof", "off"), Ok(true));
        assert!(options.set("antispoof", "strict").is_err());
    }
}

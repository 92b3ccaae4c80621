//! TCP of Linux guests with the offloads of their interfaces off, and on again. Host.
//!
//! Netfront lets all be turned off but the checksums of IPv4, which it leaves to the backend in any case (`hw_features`, Linux'
//! `drivers/net/xen-netfront.c`): by IPv6 frames have whole
//! checksums.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::traffic::{self, Shell};

/// Of each transfer.
const MEBIBYTES: u32 = 1;
/// A transfer has so many segments at least: none is longer than 1,460 bytes where packets have 1,500.
const SEGMENTS: u64 = (MEBIBYTES as u64 * (1 << 20)).div_ceil(1460);
/// What is switched: `ethtool -K`'s word, and that of `ethtool -k`. Words for several at once (`tso`) would switch more on than was on before.
const SWITCHED: [(&str, &str); 6] = [
    ("tx-checksum-ipv6", "tx-checksum-ipv6"),
    ("tx-scatter-gather", "tx-scatter-gather"),
    ("tx-tcp-segmentation", "tx-tcp-segmentation"),
    ("tx-tcp6-segmentation", "tx-tcp6-segmentation"),
    ("gso", "generic-segmentation-offload"),
    ("gro", "generic-receive-offload"),
];

/// A guest's vif: what its frames leave by, also those of an interface for a VLAN on it.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    /// The guest.
    pub(crate) guest: &'a dyn Shell,
    /// The vif's name there.
    pub(crate) interface: &'a str,
}

/// Where transfers go.
pub(crate) struct Leg<'a> {
    /// The address.
    pub(crate) host: String,
    /// The guest that has it, and serves transfers already ([`traffic::serve`]); none where it is beyond the wire.
    pub(crate) far: Option<End<'a>>,
}

impl<'a> Leg<'a> {
    /// To a station beyond the wire.
    pub(crate) fn to_wire(host: &str) -> Self {
        Self { host: host.to_owned(), far: None }
    }

    /// To another guest.
    pub(crate) fn to_guest(host: &str, guest: &'a dyn Shell, interface: &'a str) -> Self {
        Self { host: host.to_owned(), far: Some(End { guest, interface }) }
    }
}

impl<'a> End<'a> {
    /// Transfers both ways on each leg, with all offloads of the vifs off, then with them as they were; gives the rates in both states.
    ///
    /// # Errors
    /// An offload that stays on, a super-frame of a vif that has none, digests that differ, an offload that does not come back.
    pub(crate) fn off_and_on(self, legs: &[Leg<'a>]) -> Result<String> {
        let (start, mut ends) = (Instant::now(), vec![self]);
        for far in legs.iter().filter_map(|leg| leg.far) {
            if !ends.iter().any(|end| (end.guest.label(), end.interface) == (far.guest.label(), far.interface)) {
                ends.push(far);
            }
        }
        let before = ends.iter().map(End::features).collect::<Result<Vec<_>>>()?;
        let off = ends
            .iter()
            .try_for_each(End::turn_off)
            .and_then(|()| legs.iter().map(|leg| self.transfers(leg, true)).collect::<Result<Vec<_>>>());
        ends.iter().try_for_each(|end| end.switch("on"))?;
        let off = off.context("with offloads off")?;
        for (end, before) in ends.iter().zip(before) {
            let after = end.features()?;
            ensure!(after == before, "{}: not as before:\n{before}\nand now\n{after}", end.interface);
        }
        let on: Result<Vec<_>> = legs.iter().map(|leg| self.transfers(leg, false)).collect();
        Ok(format!(
            "{} Mbit/s without offloads, {} with, all in {:.1} s",
            off.join(", "),
            on.context("with offloads on")?.join(", "),
            start.elapsed().as_secs_f64()
        ))
    }

    /// One transfer each way. Without offloads each segment is a frame of its own, as the sender counts them.
    fn transfers(&self, leg: &Leg<'_>, off: bool) -> Result<String> {
        let mut rates = Vec::new();
        for (direction, sender) in [("send", Some(*self)), ("receive", leg.far)] {
            let before = sender.map(|end| end.sent()).transpose()?;
            let transfer = traffic::tcp(self.guest, direction, &leg.host, MEBIBYTES)
                .with_context(|| format!("{direction} {}", leg.host))?;
            let after = sender.map(|end| end.sent()).transpose()?;
            let frames = after.zip(before).map(|(after, before)| after - before);
            ensure!(
                !off || frames.is_none_or(|frames| frames >= SEGMENTS),
                "{direction} {}: {frames:?} frames with {SEGMENTS} segments: there were super-frames",
                leg.host
            );
            rates.push(format!("{:.0}", transfer.mbit_per_second));
        }
        Ok(rates.join("/"))
    }

    /// The guest's address of IPv6 on this link, as the other end says it: with the number of its own interface. It waits until both may use theirs.
    pub(crate) fn link_local(&self, from: &End<'_>) -> Result<String> {
        for end in [self, from] {
            end.guest.sh(&format!(
                "for i in $(seq 1500); do a=$(/usr/bin/ip -6 -o addr show dev {} scope link); \
                 test -n \"$a\" && ! echo \"$a\" | grep -q tentative && exit 0; usleep 20000; done; echo \"$a\"; exit 1",
                end.interface
            ))?;
        }
        let line = self.guest.sh(&format!("/usr/bin/ip -6 -o addr show dev {} scope link", self.interface))?;
        let address = line.split_whitespace().find_map(|word| word.strip_suffix("/64")).context(line.clone())?;
        let number = from.guest.sh(&format!("cat /sys/class/net/{}/ifindex", from.interface))?;
        Ok(format!("{address}%{}", number.trim()))
    }

    /// Frames that the vif sent.
    fn sent(&self) -> Result<u64> {
        let count = self.guest.sh(&format!("cat /sys/class/net/{}/statistics/tx_packets", self.interface))?;
        count.trim().parse().with_context(|| format!("{} sent '{count}'", self.interface))
    }

    fn features(&self) -> Result<String> {
        self.guest.sh(&format!("ethtool -k {}", self.interface))
    }

    fn turn_off(&self) -> Result<()> {
        self.switch("off")?;
        let features = self.features()?;
        for (_, name) in SWITCHED {
            ensure!(is_off(&features, name), "{}: {name} is not off:\n{features}", self.interface);
        }
        Ok(())
    }

    /// Switches all that the vif lets be switched.
    fn switch(&self, to: &str) -> Result<()> {
        let words: Vec<_> = SWITCHED.iter().map(|(word, _)| format!("{word} {to}")).collect();
        self.guest.sh(&format!("ethtool -K {} {}", self.interface, words.join(" "))).map(drop)
    }
}

/// Whether the list of `ethtool -k` has this feature, and it is off.
fn is_off(features: &str, name: &str) -> bool {
    features.lines().any(|line| {
        let state = line.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
        state.is_some_and(|state| state.split(' ').next() == Some("off"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_off_where_the_list_says_so() {
        let list = "Features for eth0:\nrx-checksumming: on [fixed]\n\ttx-checksum-ipv6: off\n\
                    scatter-gather: off\n\ttx-scatter-gather: off [fixed]\ngeneric-receive-offload: on\n";
        for (name, expected) in [
            ("tx-checksum-ipv6", true),
            ("scatter-gather", true),
            ("tx-scatter-gather", true),
            ("generic-receive-offload", false),
            ("rx-checksumming", false),
            ("tx-checksum", false),
            ("tcp-segmentation-offload", false),
        ] {
            assert_eq!(is_off(list, name), expected, "{name}");
        }
    }
}

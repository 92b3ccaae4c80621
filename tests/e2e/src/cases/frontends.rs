//! Proper frontends of kinds that Linux has not: with multicast control, without any offload, and with a control ring. Host.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::NATIVE_CLOCK;

use super::{Case, Scene};
use crate::attack::wait_for_word;
use crate::stage::vif;
use crate::traffic::Shell;

pub(super) const CASES: &[Case] = &[
    Case { name: "a proper frontend with multicast control gets its groups, and all without", run: groups },
    Case { name: "a proper frontend without offloads gets super-frames as segments with checksums", run: segments },
    Case { name: "a proper frontend with a control ring gets hashes, in the queues of its mapping", run: hashes },
];

const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the image `hostile` as one of its proper frontends; `show` gets its domain's directory in the store.
fn beside(scene: &Scene<'_>, role: &str, show: impl FnOnce(&str) -> Result<String>) -> Result<String> {
    let lab = &scene.stage.lab;
    let config = format!(
        "name = \"{role}\"\ntype = \"pv\"\nkernel = \"/usr/lib/oxidom/hostile\"\nmemory = 16\nvcpus = 1\n\
         vif = {:?}\nextra = \"attack={role}\"\non_crash = \"preserve\"\n{NATIVE_CLOCK}",
        [vif("netdom", 0x51)]
    );
    lab.put(&format!("/etc/xen/{role}.cfg"), 0o644, config.as_bytes())?;
    lab.must(&format!("xl create -q /etc/xen/{role}.cfg"))?;
    let directory = format!("/local/domain/{}", lab.domain_id(role)?);
    let result = wait_for_word(lab, &format!("{directory}/data/hostile"), "ready").and_then(|()| show(&directory));
    let result = result.with_context(|| format!("its console:\n{}", lab.console(role).unwrap_or_default()));
    lab.destroy_after(role, result)
}

/// The address of the `number`th group that the frontend knows.
fn group(number: u8) -> [u8; 6] {
    [0x01, 0x00, 0x5e, 0x07, 0x07, number]
}

/// Frames to each group between two marks.
const FRAMES: usize = 20;

fn groups(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let wire = lab.wire(0)?;
    let frame = |destination: [u8; 6], payload: &str| {
        let source = [0x02, 0x6f, 0x78, 0x99, 0x00, 0x03];
        let mut frame = [&destination[..], &source, &[0x88, 0xb5], payload.as_bytes()].concat();
        frame.resize(60, b' ');
        frame
    };
    beside(scene, "member", |directory| {
        // Frames to the groups and a mark behind them; gives how many of each the frontend got between two marks.
        let round = |mark: u32| -> Result<String> {
            wire.inject((1..=3).flat_map(|number| std::iter::repeat_n(frame(group(number), "to a group"), FRAMES)));
            wire.inject([frame([0xff; 6], &mark.to_string())]);
            let said = lab.wait_until(&format!("xenstore-read {directory}/data/groups | grep '^{mark} '"), PATIENCE)?;
            Ok(said.trim().split_once(' ').map_or_else(String::new, |(_, counts)| counts.to_owned()))
        };
        let all = format!("{FRAMES} {FRAMES} {FRAMES}");
        let counts = round(1)?;
        ensure!(counts == format!("{FRAMES} 0 0"), "of {all} frames to its group, one it left and another: {counts}");
        lab.must(&format!("xenstore-write {directory}/device/vif/0/request-multicast-control 0"))?;
        // netdom hears of it by a watch, at some time.
        for mark in 2..100 {
            if round(mark)? == all {
                return Ok(format!("{counts} of {all} frames; without the wish, all"));
            }
        }
        bail!("without the wish for control, not all groups came")
    })
}

/// What is sent by each protocol.
const BYTES: u64 = 2 << 20;
/// What fits a segment of the standard MTU, without options.
const SEGMENT: u64 = 1460;
/// The frontend's addresses.
const STATIONS: [&str; 2] = ["10.9.66.1", "fd09::66"];

fn segments(scene: &Scene<'_>) -> Result<String> {
    // Without duplicate address detection, which takes a second before the address is used.
    scene.a.sh("echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad")?;
    scene.a.sh("ip -6 addr show dev eth0 | grep -q fd09::a/64 || ip -6 addr add fd09::a/64 dev eth0")?;
    // Linux makes the smaller super-frames the slower it finds the path: on a busy machine, hardly any.
    scene.a.sh("echo 16 > /proc/sys/net/ipv4/tcp_min_tso_segs")?;
    let lab = &scene.stage.lab;
    let sent = || -> Result<u64> { Ok(scene.a.sh("cat /sys/class/net/eth0/statistics/tx_packets")?.trim().parse()?) };
    beside(scene, "station", |directory| {
        let mut figures = Vec::new();
        for (connection, address) in STATIONS.into_iter().enumerate() {
            let before = sent()?;
            scene.a.sh(&format!("yes oxidom | head -c {BYTES} | timeout 120 nc {address} 9"))?;
            let super_frames = sent()? - before;
            let node = format!("{directory}/data/station");
            let said = lab.wait_until(&format!("xenstore-read {node} | grep '^{} '", connection + 1), PATIENCE)?;
            let numbers = said.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
            let [_, bytes, segments, longest] = numbers[..] else {
                bail!("{node} says '{said}'");
            };
            ensure!(bytes == BYTES, "{bytes} of {BYTES} bytes came to {address}");
            ensure!(segments >= BYTES / SEGMENT && longest <= 1514, "to {address}: '{said}'");
            ensure!(super_frames * 10 < segments * 9, "no super-frames: {super_frames} were sent, {segments} came");
            let word = lab.must(&format!("xenstore-read {directory}/data/hostile"))?;
            ensure!(word.trim() == "ready", "it {}", word.trim());
            figures.push(format!("{super_frames} packets sent came as {segments} segments"));
        }
        Ok(figures.join("; by IPv6 "))
    })
}

/// Packets of TCP and of UDP, each between other ports, and frames that are no IP.
const PACKETS: [u16; 3] = [120, 40, 10];

fn hashes(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let wire = lab.wire(0)?;
    let [tcp, udp, others] = PACKETS;
    let ip = |protocol: u8, number: u16| {
        let mut frame = vec![0x00, 0x16, 0x3e, 0x00, 0x00, 0x51, 0x02, 0x6f, 0x78, 0x99, 0x00, 0x04];
        frame.extend([
            0x08,
            0x00,
            0x45,
            0,
            0,
            46,
            0,
            0,
            0x40,
            0,
            64,
            protocol,
            0,
            0,
            10,
            9,
            77,
            number as u8,
            10,
            9,
            77,
            250,
        ]);
        frame.extend((1024 + number * 7).to_be_bytes());
        frame.extend([0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10]);
        frame.resize(60, 0);
        frame
    };
    let plain = || {
        let mut frame = vec![0x00, 0x16, 0x3e, 0x00, 0x00, 0x51, 0x02, 0x6f, 0x78, 0x99, 0x00, 0x04, 0x88, 0xb5];
        frame.resize(60, 0);
        frame
    };
    beside(scene, "steered", |directory| {
        // A few at a time: what waits for receive slots may not wait for ever.
        for number in 0..tcp {
            wire.inject([ip(6, number)]);
            wire.inject((number < udp).then(|| ip(17, number)));
            wire.inject((number < others).then(plain));
        }
        let node = format!("{directory}/data/steered");
        let script = format!("xenstore-read {node} | awk '$1 + $2 >= {} {{ print }}' | grep .", tcp + udp + others);
        let said = lab.wait_until(&script, PATIENCE);
        let word = lab.must(&format!("xenstore-read {directory}/data/hostile"))?;
        ensure!(word.trim() == "ready", "it {}", word.trim());
        let said = said.with_context(|| lab.must(&format!("xenstore-read {node}")).unwrap_or_default())?;
        let numbers = said.split_whitespace().map(str::parse).collect::<Result<Vec<u16>, _>>()?;
        let [first, second, with_ports, with_addresses] = numbers[..] else {
            bail!("{node} says '{said}'");
        };
        ensure!(with_ports >= tcp && with_addresses >= udp, "not all are hashed: '{said}'");
        // Five of the mapping's eight entries are the first queue's.
        ensure!(first > tcp / 3 && second > tcp / 6, "all in one queue: '{said}'");
        Ok(format!(
            "{first} and {second} packets in two queues, {with_ports} hashed with ports, {with_addresses} without"
        ))
    })
}

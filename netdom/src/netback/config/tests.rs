//! What a vif's nodes make. Floor 3.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use split_driver::time::Duration;
use split_driver::xenbus::Nodes;

const ID: DeviceId = DeviceId { frontend: DomainId(3), handle: 0 };

/// What both ends say.
fn read(nodes: &Nodes) -> Result<VifConfig, ConfigError> {
    config(ID, identity(ID, &nodes.backend)?, &nodes.frontend, 4, AntiSpoof::Off)
}

fn nodes(changes: &[(&str, &str)]) -> Nodes {
    let backend = [("mac", "00:16:3e:01:02:03"), ("handle", "0")];
    let frontend = [("request-rx-copy", "1"), ("tx-ring-ref", "8"), ("rx-ring-ref", "9"), ("event-channel", "5")];
    let pick = |base: &[(&str, &str)]| {
        base.iter()
            .chain(changes)
            .filter(|(_, value)| *value != "-")
            .filter(|(name, value)| !changes.iter().any(|(changed, to)| changed == name && to != value))
            .copied()
            .collect::<Directory>()
    };
    Nodes { backend: pick(&backend), frontend: pick(&frontend) }
}

#[test]
fn defaults() {
    let config = read(&nodes(&[])).unwrap();
    assert_eq!(config.mac, MacAddress([0, 0x16, 0x3e, 1, 2, 3]));
    assert_eq!(config.bridge, "xenbr0");
    let queue =
        QueueConfig { transmit_ring: GrantRef(8), receive_ring: GrantRef(9), ports: RemotePorts::Single(Port(5)) };
    assert_eq!((config.queues, config.control, config.headroom), (vec![queue], None, 0));
    assert_eq!(config.features, Features { checksum_v4: true, ..Features::default() });
    assert_eq!(config.rate, None);
}

#[test]
fn split_channels_and_features() {
    let nodes = nodes(&[
        ("event-channel-tx", "6"),
        ("event-channel-rx", "7"),
        ("feature-sg", "1"),
        ("feature-no-csum-offload", "1"),
        ("feature-gso-tcpv4", "0"),
        ("bridge", "br1"),
        ("rate", "1250000,50000"),
    ]);
    let config = read(&nodes).unwrap();
    assert_eq!(config.queues[0].ports, RemotePorts::Split { transmit: Port(6), receive: Port(7) });
    assert!(config.features.scatter_gather && !config.features.checksum_v4);
    assert!(!config.features.gso_tcpv4);
    assert_eq!(config.bridge, "br1");
    assert_eq!(config.rate, Some(Rate { bytes: 1_250_000, interval: Duration::from_millis(50) }));
}

/// Each queue has nodes of its own, and says by itself whether its channels are split.
#[test]
fn several_queues() {
    for count in 1..=4_u8 {
        let mut said = vec![(String::from("request-rx-copy"), String::from("1"))];
        let mut expected = Vec::new();
        said.push(("multi-queue-num-queues".into(), count.to_string()));
        let directories = |queue| if count == 1 { String::new() } else { format!("queue-{queue}/") };
        for queue in 0..u32::from(count) {
            let mut put = |name: &str, value: u32| said.push((directories(queue) + name, value.to_string()));
            put("tx-ring-ref", 10 + queue);
            put("rx-ring-ref", 20 + queue);
            let ports = if queue.is_multiple_of(2) {
                put("event-channel-tx", 30 + queue);
                put("event-channel-rx", 40 + queue);
                RemotePorts::Split { transmit: Port(30 + queue), receive: Port(40 + queue) }
            } else {
                put("event-channel", 50 + queue);
                RemotePorts::Single(Port(50 + queue))
            };
            let (transmit_ring, receive_ring) = (GrantRef(10 + queue), GrantRef(20 + queue));
            expected.push(QueueConfig { transmit_ring, receive_ring, ports });
        }
        // Of other queues, and of none.
        said.extend(
            [("queue-7/tx-ring-ref", "1"), ("ctrl-ring-ref", "3"), ("event-channel-ctrl", "4")]
                .map(|(name, value)| (name.into(), value.into())),
        );
        let mut known: Vec<String> = FRONTEND_NODES.iter().map(ToString::to_string).collect();
        known.extend(further_nodes(&said.iter().cloned().collect(), 4));
        let frontend = said.iter().filter(|(name, _)| known.contains(name)).cloned().collect();
        let config = read(&Nodes { backend: nodes(&[]).backend, frontend }).unwrap();
        assert_eq!(config.queues, expected);
        assert_eq!(config.control, Some(ControlConfig { ring: GrantRef(3), port: Port(4) }));
        // The last queue is missing.
        let last = format!("{}rx-ring-ref", directories(u32::from(count) - 1));
        let frontend = said.iter().filter(|(name, _)| known.contains(name) && *name != last).cloned().collect();
        let error = read(&Nodes { backend: nodes(&[]).backend, frontend });
        assert_eq!(error, Err(ConfigError::Node(BadNode::Missing(last))));
    }
    for nonsense in ["0", "5", "1000000", "x"] {
        assert_eq!(further_nodes(&[("multi-queue-num-queues", nonsense)].into_iter().collect(), 4), [""; 0]);
    }
}

#[test]
fn addresses_behind_the_router() {
    for (script, ip, expected) in [
        ("vif-bridge", "fd00::7", Ok(None)),
        ("vif-route", "10.0.0.7 fd00::7", Ok(Some((1, 1)))),
        ("vif-route", "fd00::7,fe80::7,fd00::/64", Ok(Some((0, 1)))),
        ("vif-route", "fd00::/64 fe80::7", Err(ConfigError::NoAddress)),
        // None of IPv6 is translated.
        ("vif-nat", "10.0.0.7 fd00::7", Ok(Some((1, 0)))),
        ("vif-nat", "fd00::7", Err(ConfigError::NoAddress)),
    ] {
        let config = read(&nodes(&[("script", script), ("ip", ip)]));
        let routed = config.map(|config| config.routed);
        let counts = routed.map(|routed| routed.map(|routed| (routed.addresses.len(), routed.addresses_v6.len())));
        assert_eq!(counts, expected, "{script} {ip}");
    }
}

/// Nonsense of either end is an error, and says which.
#[test]
fn nonsense() {
    let missing = |name: &str| ConfigError::Node(BadNode::Missing(name.into()));
    let malformed = |name: &str| ConfigError::Node(BadNode::Malformed(name.into()));
    let long = "b".repeat(65);
    let cases = [
        (("mac", "-"), missing("mac")),
        (("mac", "00:16:3e:01:02"), ConfigError::Mac),
        (("mac", "00:16:3e:01:02:03:04"), ConfigError::Mac),
        (("mac", "01:16:3e:01:02:03"), ConfigError::Mac),
        (("mac", "00:16:3e:01:02:+3"), ConfigError::Mac),
        (("mac", "00:00:00:00:00:00"), ConfigError::Mac),
        (("bridge", "a b"), ConfigError::Bridge),
        (("bridge", long.as_str()), ConfigError::Bridge),
        (("rate", "5"), ConfigError::Rate(RateError::Malformed)),
        (("rate", "5,x"), ConfigError::Rate(RateError::Malformed)),
        (("rate", "-5,5"), ConfigError::Rate(RateError::Malformed)),
        (("rate", "0,5"), ConfigError::Rate(RateError::Zero)),
        (("rate", "18446744073709551616,5"), ConfigError::Rate(RateError::TooLarge)),
        (("handle", "7"), ConfigError::Handle(7)),
        (("request-rx-copy", "-"), ConfigError::NoCopy),
        (("request-rx-copy", "0"), ConfigError::NoCopy),
        (("request-rx-copy", "x"), malformed("request-rx-copy")),
        (("multi-queue-num-queues", "5"), ConfigError::Queues(BadQueueCount { wanted: 5, offered: 4 })),
        (("multi-queue-num-queues", "0"), ConfigError::Queues(BadQueueCount { wanted: 0, offered: 4 })),
        (("multi-queue-num-queues", "two"), malformed("multi-queue-num-queues")),
        (("multi-queue-num-queues", "2"), missing("queue-0/event-channel")),
        (("ctrl-ring-ref", "7"), missing("event-channel-ctrl")),
        (("ctrl-ring-ref", "x"), malformed("ctrl-ring-ref")),
        (("xdp-headroom", "4096"), ConfigError::Headroom(4096)),
        (("xdp-headroom", "32768"), ConfigError::Headroom(32768)),
        (("xdp-headroom", "65536"), malformed("xdp-headroom")),
        (("tx-ring-ref", "-"), missing("tx-ring-ref")),
        (("rx-ring-ref", "99999999999"), malformed("rx-ring-ref")),
        (("event-channel", "-"), missing("event-channel")),
        (("event-channel", "-1"), malformed("event-channel")),
        (("feature-sg", "\u{1}"), malformed("feature-sg")),
    ];
    for (change, error) in cases {
        assert_eq!(read(&nodes(&[change])), Err(error), "{change:?}");
    }
}

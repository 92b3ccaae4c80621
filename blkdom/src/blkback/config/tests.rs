//! The nodes of both ends as tables: what is read, what is refused and why, what is written.

use super::*;
use crate::disk::Discard;

const ID: DeviceId = DeviceId { frontend: DomainId(3), handle: 51712 };

fn backend(changes: &[(&str, &str)]) -> Directory {
    let base = [("params", "vg0/vm1-root"), ("mode", "w"), ("device-type", "disk"), ("dev", "xvda")];
    merged(&base, changes)
}

/// `base` with some changed, and those of value "-" taken away.
fn merged(base: &[(&str, &str)], changes: &[(&str, &str)]) -> Directory {
    base.iter()
        .filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name))
        .chain(changes)
        .filter(|(_, value)| *value != "-")
        .copied()
        .collect()
}

fn front(changes: &[(&str, &str)]) -> Directory {
    let base = [("protocol", "x86_64-abi"), ("feature-persistent", "1"), ("ring-ref", "8"), ("event-channel", "5")];
    merged(&base, changes)
}

fn queue_config(ring: impl IntoIterator<Item = u32>, port: u32) -> QueueConfig {
    QueueConfig { ring: ring.into_iter().map(GrantRef).collect(), port: Port(port) }
}

#[test]
fn identities() {
    let plain = Identity {
        target: "vg0/vm1-root".into(),
        mode: "w".into(),
        cdrom: false,
        removable: false,
        discard: true,
        name: "xvda".into(),
    };
    assert_eq!(identity(ID, &backend(&[])), Ok(plain.clone()));
    assert_eq!(plain.holder(ID), "domain 3's xvda");
    assert_eq!((plain.access(false), plain.access(true)), (Access::Write, Access::SharedWrite));
    let changed = [
        ("params", " w!:PARTLABEL=a b, c "),
        ("mode", "r"),
        ("device-type", "cdrom"),
        ("removable", "1"),
        ("discard-enable", "0"),
        ("direct-io-safe", "1"),
        ("dev", "-"),
    ];
    let expected = Identity {
        target: " w!:PARTLABEL=a b, c ".into(),
        mode: "r".into(),
        cdrom: true,
        removable: true,
        discard: false,
        name: "vbd 51712".into(),
    };
    assert_eq!(identity(ID, &backend(&changed)), Ok(expected.clone()));
    assert_eq!(expected.access(true), Access::Read);
}

#[test]
fn one_queue_of_one_page() {
    let expected = Frontend { abi: Abi::X86_64, persistent: true, queues: alloc::vec![queue_config([8], 5)] };
    assert_eq!(frontend(&front(&[])), Ok(expected.clone()));
    assert_eq!(frontend(&front(&[("protocol", "-")])), Ok(expected.clone()));
    assert_eq!(further_nodes(&front(&[])), [""; 0]);
    // Orders of 0, under both names; where both are there, the header's counts.
    assert_eq!(frontend(&front(&[("ring-page-order", "0")])), Ok(expected.clone()));
    assert_eq!(frontend(&front(&[("ring-page-order", "0"), ("ring-ref0", "9")])), Ok(expected.clone()));
    assert_eq!(
        frontend(&front(&[("ring-page-order", "0"), ("ring-ref", "-"), ("ring-ref0", "8")])),
        Ok(expected.clone())
    );
    assert_eq!(frontend(&front(&[("multi-queue-num-queues", "1")])), Ok(expected));
    let other = front(&[("protocol", "x86_32-abi"), ("feature-persistent", "-")]);
    let expected = Frontend { abi: Abi::X86_32, persistent: false, queues: alloc::vec![queue_config([8], 5)] };
    assert_eq!(frontend(&other), Ok(expected));
}

/// Every number of queues with every order: the further nodes are those that are needed, and lead to all rings.
#[test]
fn queues_of_many_pages() {
    for count in 1..=MAX_QUEUES {
        for order in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
            let pages = order.map_or(1, |order| 1_u32 << order);
            let mut nodes = alloc::vec![(String::from("protocol"), String::from("x86_64-abi"))];
            if count > 1 {
                nodes.push(("multi-queue-num-queues".into(), count.to_string()));
            }
            nodes.extend(order.map(|order| (String::from("ring-page-order"), order.to_string())));
            let read_first: Directory = nodes.iter().cloned().collect();
            let mut expected = Vec::new();
            for queue in 0..count {
                let directory = if count == 1 { String::new() } else { format!("queue-{queue}/") };
                for page in 0..pages {
                    let name = match order {
                        None | Some(0) => format!("{directory}ring-ref"),
                        Some(_) => format!("{directory}ring-ref{page}"),
                    };
                    nodes.push((name, (queue * 100 + page).to_string()));
                }
                nodes.push((format!("{directory}event-channel"), (50 + queue).to_string()));
                expected.push(queue_config((0..pages).map(|page| queue * 100 + page), 50 + queue));
            }
            let mut known: Vec<String> = FRONTEND_NODES.iter().map(ToString::to_string).collect();
            known.extend(further_nodes(&read_first));
            let read: Directory = nodes.into_iter().filter(|(name, _)| known.contains(name)).collect();
            assert_eq!(frontend(&read).map(|frontend| frontend.queues), Ok(expected), "{count} {order:?}");
        }
    }
}

/// Nonsense of either end is an error, and says which.
#[test]
fn nonsense() {
    let missing = |name: &str| ConfigError::Node(BadNode::Missing(name.into()));
    let malformed = |name: &str| ConfigError::Node(BadNode::Malformed(name.into()));
    for (change, error) in [
        (("params", "-"), missing("params")),
        (("params", ""), ConfigError::Empty),
        (("params", " "), ConfigError::Empty),
        (("mode", "-"), missing("mode")),
        (("removable", "x"), malformed("removable")),
        (("discard-enable", "-1"), malformed("discard-enable")),
    ] {
        assert_eq!(identity(ID, &backend(&[change])), Err(error), "{change:?}");
    }
    let bytes: Directory = [("params", b"\xff".to_vec()), ("mode", b"w".to_vec())].into_iter().collect();
    assert_eq!(identity(ID, &bytes), Err(malformed("params")));
    let cases: &[(&[(&str, &str)], ConfigError)] = &[
        (&[("protocol", "")], ConfigError::Protocol("".into())),
        (&[("protocol", "arm-abi")], ConfigError::Protocol("arm-abi".into())),
        (&[("feature-persistent", "yes")], malformed("feature-persistent")),
        (&[("multi-queue-num-queues", "0")], ConfigError::Queues(BadQueueCount { wanted: 0, offered: 4 })),
        (&[("multi-queue-num-queues", "5")], ConfigError::Queues(BadQueueCount { wanted: 5, offered: 4 })),
        (&[("multi-queue-num-queues", "4294967296")], malformed("multi-queue-num-queues")),
        (&[("multi-queue-num-queues", "2")], missing("queue-0/ring-ref")),
        (&[("ring-page-order", "5")], ConfigError::RingOrder(5)),
        (&[("ring-page-order", "4294967295")], ConfigError::RingOrder(u32::MAX)),
        (&[("ring-page-order", "1")], missing("ring-ref0")),
        (&[("ring-page-order", "1"), ("ring-ref0", "1")], missing("ring-ref1")),
        (&[("ring-ref", "-")], missing("ring-ref")),
        (&[("ring-ref", "99999999999")], malformed("ring-ref")),
        (&[("ring-page-order", "0"), ("ring-ref", "-"), ("ring-ref0", "x")], malformed("ring-ref0")),
        (&[("event-channel", "-")], missing("event-channel")),
        (&[("event-channel", "0x5")], malformed("event-channel")),
    ];
    for (changes, error) in cases {
        assert_eq!(frontend(&front(changes)).as_ref(), Err(error), "{changes:?}");
    }
    for bad in [("multi-queue-num-queues", "1000000"), ("ring-page-order", "31")] {
        assert_eq!(further_nodes(&front(&[bad])), [""; 0]);
    }
}

#[test]
fn what_is_offered() {
    let expected =
        [("feature-max-indirect-segments", "256"), ("multi-queue-max-queues", "4"), ("max-ring-page-order", "4")];
    assert_eq!(offers(), expected.map(|(name, value)| (name.to_string(), value.to_string())));
}

#[test]
fn what_a_connected_frontend_is_told() {
    let told = |changes: &[(&str, &str)], geometry: &Geometry, read_only| {
        properties(&identity(ID, &backend(changes)).unwrap(), geometry, read_only)
    };
    let discard = Discard { granularity: 65536, alignment: 4096, secure: true };
    let geometry = Geometry {
        sectors: 1 << 40,
        logical_block: 4096,
        physical_block: 16384,
        volatile_cache: true,
        read_only: false,
        discard: Some(discard),
        write_zeroes: false,
    };
    let mut all = [
        ("feature-persistent", 1),
        ("sectors", 1 << 40),
        ("info", 0),
        ("sector-size", 4096),
        ("feature-flush-cache", 1),
        ("feature-barrier", 1),
        ("physical-sector-size", 16384),
        ("feature-discard", 1),
        ("discard-granularity", 65536),
        ("discard-alignment", 4096),
        ("discard-secure", 1),
    ];
    assert_eq!(told(&[], &geometry, false), all);
    all[2].1 = 7;
    assert_eq!(told(&[("device-type", "cdrom"), ("removable", "1")], &geometry, true), all);
    // What is as the header says of its absence takes no node.
    let plain = Geometry { volatile_cache: false, discard: None, physical_block: 4096, ..geometry };
    let few = [("feature-persistent", 1), ("sectors", 1 << 40), ("info", 4), ("sector-size", 4096)];
    assert_eq!(told(&[], &plain, true), few);
    let discard = Discard { granularity: 65536, alignment: 0, secure: false };
    let more = [("feature-discard", 1), ("discard-granularity", 65536)];
    assert_eq!(told(&[], &Geometry { discard: Some(discard), ..plain }, true), [&few[..], &more].concat());
}

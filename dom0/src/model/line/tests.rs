use super::*;

fn counts(pairs: &[(&str, u64)]) -> Counts {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn ports_are_read() {
    let text = "from: 5 packets 300 bytes, to: 3 packets 200 bytes, queue-full 4, later-cause 1";
    let read = port(text).unwrap();
    assert_eq!((read.from, read.to), (Traffic { packets: 5, bytes: 300 }, Traffic { packets: 3, bytes: 200 }));
    assert_eq!(read.drops, counts(&[("later-cause", 1), ("queue-full", 4)]));
    assert_eq!((port(""), port("5 reads 40 sectors")), (None, None));
    // What makes no sense is nothing.
    let odd = port("from: x packets 5 bytes, to: 3 packets -1 bytes, a\"b 5, , 7").unwrap();
    assert_eq!(odd, PortCounts::default());
}

#[test]
fn a_nic_has_a_module_with_commas() {
    let text = "pci 00:04.0 on xenbr1, from: 5 packets 300 bytes, to: 3 packets 200 bytes, no-link 2, \
                module 10GBASE-SR, 10 and 1 Gbit/s, Somebody A-1, receive-missed 7, pauses 1, link down";
    let read = nic("0", text);
    assert_eq!(
        (read.pci.as_deref(), read.bridge.as_deref(), read.link),
        (Some("00:04.0"), Some("xenbr1"), Some(false))
    );
    assert_eq!(read.module.as_deref(), Some("10GBASE-SR, 10 and 1 Gbit/s, Somebody A-1"));
    assert_eq!((read.port.from.packets, read.port.drops), (5, counts(&[("no-link", 2)])));
    assert_eq!(read.device, counts(&[("pauses", 1), ("receive-missed", 7)]));
    assert_eq!(nic("0", "from: 1 packets 2 bytes, to: 0 packets 0 bytes").link, None);
}

#[test]
fn bonds_and_routers_are_read() {
    let read = bond("bond0", "pci 00:03.0 00:04.0, 2 with a link, active pci 00:03.0");
    assert_eq!((read.nics.len(), read.linked, read.state.as_str()), (2, Some(2), "2 with a link, active pci 00:03.0"));
    assert_eq!(bond("b", "nonsense"), Bond { name: "b".into(), ..Bond::default() });
    let mut read = Router::default();
    router(&mut read, "forwarded 9 packets, translated 8, fragment 1");
    assert_eq!((read.forwarded, read.translated, read.sessions, read.drops), (9, 8, None, counts(&[("fragment", 1)])));
}

#[test]
fn disks_are_read() {
    let text = "5 reads 40 sectors, 3 writes 24 sectors, 1 flushes, 2 discards 16 sectors, timed-out 6";
    let read = disk(text).unwrap();
    assert_eq!([read.reads, read.sectors_read, read.writes, read.sectors_written], [5, 40, 3, 24]);
    assert_eq!([read.flushes, read.discards, read.sectors_discarded], [1, 2, 16]);
    assert_eq!((read.failures, disk("x")), (counts(&[("timed-out", 6)]), None));
    let many: Vec<String> = (0..200).map(|number| format!("cause-{number} 1")).collect();
    assert_eq!(pairs(&many.join(", ")).len(), COUNTERS);
}

#[test]
fn addresses_and_volumes_are_read() {
    let read = addresses("52:54:00:12:34:56 0 nic/0, x, 00:16:3e:01:02:03 5 vif/3/0, a 1 \"b");
    let shown: Vec<_> = read.iter().map(|learnt| (learnt.vlan, learnt.port.as_str())).collect();
    assert_eq!(shown, [(0, "nic/0"), (5, "vif/3/0")]);
    let read = volumes(b"2048\tsda\tPARTLABEL=a \x1b[1mb\n\nx\tsdb\n5\n4096\tvg0/a");
    let names: Vec<_> = read.iter().map(|volume| (volume.sectors, volume.names.join("|"))).collect();
    assert_eq!(names, [(2048, "sda|PARTLABEL=a \u{fffd}[1mb".to_owned()), (4096, "vg0/a".to_owned())]);
}

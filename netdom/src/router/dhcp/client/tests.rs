//! The client, answered as servers answer. Floor 3.

use super::super::Message;
use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

const MAC: MacAddress = MacAddress([6, 0, 0, 0, 0, 9]);
const SERVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const DNS: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
/// Seconds of a lease.
const LENGTH: u32 = 1000;

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(100 + seconds)
}

fn client() -> Client {
    let mut client = Client::new(7);
    client.begin(MAC, at(0));
    client
}

/// What the client asks now.
fn ask(client: &mut Client, seconds: u64) -> Option<(Message, Question)> {
    let question = client.poll(at(seconds))?;
    let message = Message::parse(&question.message).expect("a message of a client");
    assert_eq!(message.mac, MAC);
    Some((message, question))
}

fn reply(kind: Kind, transaction: u32) -> Reply {
    Reply {
        kind,
        transaction,
        mac: MAC,
        address: GIVEN,
        server: Some(SERVER_IP),
        mask: Some(0xffff_ff00),
        router: Some(GATEWAY),
        dns: [DNS].into_iter().collect(),
        lease: Some(LENGTH),
        renew: None,
        rebind: None,
    }
}

/// A client with a lease since second 0.
fn bound() -> Client {
    let mut client = client();
    let (discover, _) = ask(&mut client, 0).unwrap();
    assert!(!client.hear(&reply(Kind::Offer, discover.transaction), SERVER_MAC, at(0)));
    let (request, _) = ask(&mut client, 0).unwrap();
    assert!(client.hear(&reply(Kind::Acknowledge, request.transaction), SERVER_MAC, at(0)));
    assert!(client.lease().is_some());
    client
}

#[test]
fn an_offer_becomes_a_lease() {
    let mut client = client();
    let everywhere = (MacAddress::BROADCAST, Ipv4Addr::BROADCAST);
    let (discover, question) = ask(&mut client, 0).unwrap();
    assert_eq!((discover.kind, discover.requested, discover.server), (Kind::Discover, None, None));
    assert_eq!((question.source, question.to), (Ipv4Addr::UNSPECIFIED, everywhere));
    assert_eq!(ask(&mut client, 1), None, "it asked a moment ago");
    let xid = discover.transaction;
    // Of no use: of another exchange, for another station, no offer, without a server, of no network.
    let offer = reply(Kind::Offer, xid);
    for wrong in [
        reply(Kind::Offer, xid ^ 1),
        Reply { mac: MacAddress([6, 0, 0, 0, 0, 8]), ..offer.clone() },
        reply(Kind::Acknowledge, xid),
        Reply { server: None, ..offer.clone() },
        Reply { mask: None, ..offer.clone() },
        Reply { mask: Some(0xff00_ff00), ..offer.clone() },
        Reply { mask: Some(0xffff_ffff), ..offer.clone() },
        Reply { mask: Some(0), ..offer.clone() },
        Reply { lease: None, ..offer.clone() },
        Reply { lease: Some(9), ..offer.clone() },
        Reply { address: Ipv4Addr::new(10, 0, 0, 255), ..offer.clone() },
        Reply { address: Ipv4Addr::new(127, 0, 0, 9), ..offer.clone() },
        Reply { address: Ipv4Addr::new(224, 0, 0, 9), ..offer.clone() },
    ] {
        assert!(!client.hear(&wrong, SERVER_MAC, at(1)));
        assert_eq!(ask(&mut client, 1), None, "{wrong:?}");
    }
    client.hear(&offer, SERVER_MAC, at(1));
    // The first one counts.
    let other = Ipv4Addr::new(10, 0, 0, 2);
    client.hear(&Reply { server: Some(other), ..offer }, MacAddress([2; 6]), at(1));
    let (request, question) = ask(&mut client, 1).unwrap();
    assert_eq!((request.kind, request.transaction, request.client), (Kind::Request, xid, Ipv4Addr::UNSPECIFIED));
    assert_eq!((request.requested, request.server, question.to), (Some(GIVEN), Some(SERVER_IP), everywhere));
    let granted = reply(Kind::Acknowledge, xid);
    for wrong in [
        Reply { server: Some(other), ..granted.clone() },
        Reply { address: Ipv4Addr::new(10, 0, 0, 78), ..granted.clone() },
        Reply { kind: Kind::Refuse, server: Some(other), ..granted.clone() },
    ] {
        assert!(!client.hear(&wrong, SERVER_MAC, at(2)) && client.lease().is_none(), "{wrong:?}");
    }
    assert!(client.hear(&granted, SERVER_MAC, at(2)));
    let lease = client.lease().unwrap();
    let network = Network { address: GIVEN, length: 24 };
    assert_eq!((lease.network, lease.gateway, &lease.dns[..]), (network, Some(GATEWAY), &[DNS][..]));
    assert_eq!(alloc::format!("{lease}"), "10.0.0.77/24, gateway 10.0.0.254, dns 9.9.9.9, by DHCP of 10.0.0.1");
    // From when it was asked for.
    assert_eq!(client.deadline(), Some(at(1 + 500)));
}

#[test]
fn it_asks_again_and_less_and_less_often() {
    let mut client = client();
    let mut times = Vec::new();
    for _ in 0..8 {
        let due = client.deadline().unwrap();
        times.push(due);
        assert_eq!(
            client.poll(due).map(|question| Message::parse(&question.message).unwrap().kind),
            Some(Kind::Discover)
        );
    }
    let pauses = times.windows(2).map(|pair| pair[1].since(pair[0]).as_millis());
    for (pause, seconds) in pauses.zip([4, 8, 16, 32, 64, 64, 64]) {
        assert!((seconds * 1000 - 1000..=seconds * 1000 + 1000).contains(&pause), "{pause} ms");
    }
    // A link that comes up is no reason to wait.
    client.link_up(at(1000));
    assert!(ask(&mut client, 1000).is_some());
    // A server that offers and does not grant is left.
    let offer = reply(Kind::Offer, client.transaction);
    client.hear(&offer, SERVER_MAC, at(1000));
    let kinds: Vec<Kind> = (0..5)
        .map(|_| Message::parse(&client.poll(client.deadline().unwrap()).unwrap().message).unwrap().kind)
        .collect();
    assert_eq!(kinds, [Kind::Request, Kind::Request, Kind::Request, Kind::Request, Kind::Discover]);
}

#[test]
fn a_lease_is_renewed_then_rebound_then_lost() {
    let mut client = bound();
    assert_eq!(ask(&mut client, 499), None);
    let (renewal, question) = ask(&mut client, 500).unwrap();
    assert_eq!((renewal.kind, renewal.client, renewal.requested, renewal.server), (Kind::Request, GIVEN, None, None));
    assert_eq!((question.source, question.to), (GIVEN, (SERVER_MAC, SERVER_IP)));
    // Another server has no say.
    let other = Some(Ipv4Addr::new(10, 0, 0, 2));
    let wrong =
        [Kind::Refuse, Kind::Acknowledge].map(|kind| Reply { server: other, ..reply(kind, renewal.transaction) });
    assert!(wrong.iter().all(|wrong| !client.hear(wrong, SERVER_MAC, at(500))) && client.lease().is_some());
    assert!(!client.hear(&reply(Kind::Acknowledge, renewal.transaction), SERVER_MAC, at(500)), "nothing else changed");
    assert_eq!(client.deadline(), Some(at(1000)));
    // With other name servers.
    let (renewal, _) = ask(&mut client, 1000).unwrap();
    let granted = Reply { dns: Servers::new(), ..reply(Kind::Acknowledge, renewal.transaction) };
    assert!(client.hear(&granted, SERVER_MAC, at(1000)));
    // No answer: again after half of the time that is left, at least 60 s; then anybody is asked.
    let mut asked = Vec::new();
    while let Some(due) = client.deadline().filter(|_| client.lease().is_some()) {
        let question = client.poll(due).unwrap();
        asked.push((due.since(at(1000)).as_secs(), question.to.0 == MacAddress::BROADCAST));
    }
    let renewing = [500, 687, 781, 841].map(|second| (second, false));
    let rebinding = [875, 937, 997, 1000].map(|second| (second, true));
    assert_eq!(asked, [renewing, rebinding].concat());
    assert!(client.lease().is_none());
    // It would like the same address.
    let (discover, question) = ask(&mut client, 2100).unwrap();
    assert_eq!(
        (discover.kind, discover.requested, question.source),
        (Kind::Discover, Some(GIVEN), Ipv4Addr::UNSPECIFIED)
    );
}

#[test]
fn another_server_takes_a_lease_over() {
    let mut client = bound();
    let (question, _) = ask(&mut client, 880).unwrap();
    let other = Ipv4Addr::new(10, 0, 0, 2);
    let moved = Reply { address: Ipv4Addr::new(10, 0, 0, 78), ..reply(Kind::Acknowledge, question.transaction) };
    assert!(!client.hear(&moved, SERVER_MAC, at(880)));
    client.hear(&Reply { server: Some(other), ..reply(Kind::Acknowledge, question.transaction) }, SERVER_MAC, at(880));
    assert_eq!(client.lease().map(|lease| (lease.server, lease.until)), Some((other, at(1880))));
}

#[test]
fn what_is_refused_is_no_longer_used() {
    // What was offered.
    let mut client = client();
    let (discover, _) = ask(&mut client, 0).unwrap();
    client.hear(&reply(Kind::Offer, discover.transaction), SERVER_MAC, at(0));
    ask(&mut client, 0).unwrap();
    assert!(!client.hear(&reply(Kind::Refuse, discover.transaction), SERVER_MAC, at(0)));
    assert_eq!(client.deadline(), Some(at(10)));
    assert_eq!(ask(&mut client, 10).map(|(message, _)| message.kind), Some(Kind::Discover));
    // And what there was: on a wire that may be another one, any server may say so.
    for renews in [true, false] {
        let mut client = bound();
        if !renews {
            client.link_up(at(3));
        }
        let (question, sent) = ask(&mut client, if renews { 500 } else { 3 }).unwrap();
        assert_eq!(sent.to.0 == MacAddress::BROADCAST, !renews);
        let refusal = Reply { server: Some(SERVER_IP), ..reply(Kind::Refuse, question.transaction) };
        assert!(client.hear(&refusal, SERVER_MAC, at(500)));
        assert_eq!(client.lease(), None);
        let (discover, _) = ask(&mut client, 500).unwrap();
        assert_eq!((discover.kind, discover.requested), (Kind::Discover, None));
    }
}

#[test]
fn times_and_gateways_that_make_no_sense_are_not_heeded() {
    let granted = |reply: Reply| Lease::new(&reply, SERVER_IP, SERVER_MAC, at(0)).unwrap();
    let whole = reply(Kind::Acknowledge, 1);
    let lease = granted(Reply { renew: Some(100), rebind: Some(200), ..whole.clone() });
    assert_eq!((lease.renew, lease.rebind, lease.until), (at(100), at(200), at(1000)));
    for (renew, rebind) in [(200, 100), (100, 1000), (0, 100)] {
        let lease = granted(Reply { renew: Some(renew), rebind: Some(rebind), ..whole.clone() });
        assert_eq!((lease.renew, lease.rebind), (at(500), at(875)), "{renew} {rebind}");
    }
    let lease = granted(Reply { lease: Some(u32::MAX), ..whole.clone() });
    assert_eq!(lease.until, at(365 * 24 * 3600));
    for gateway in [GIVEN, Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 0, 255)] {
        assert_eq!(granted(Reply { router: Some(gateway), ..whole.clone() }).gateway, None);
    }
    let dns = [GIVEN, DNS, Ipv4Addr::BROADCAST].into_iter().collect();
    assert_eq!(&granted(Reply { dns, ..whole }).dns[..], [DNS]);
}

#[test]
fn a_lease_goes_over_a_life() {
    let before = bound();
    let kept = before.keep().unwrap();
    let mut after = Client::new(8);
    after.restore(&kept, at(400));
    assert_eq!((after.lease(), after.mac()), (before.lease(), MAC));
    // The NIC has no say in the address then.
    after.begin(MacAddress([6; 6]), at(400));
    assert_eq!(after.mac(), MAC);
    let (renewal, question) = ask(&mut after, 400).unwrap();
    assert_eq!((renewal.client, question.to), (GIVEN, (SERVER_MAC, SERVER_IP)));
    assert!(!after.hear(&reply(Kind::Acknowledge, renewal.transaction), SERVER_MAC, at(400)));
    assert_eq!(after.deadline(), Some(at(900)));
    // Over, not begun for a year, and of no sense.
    for (seconds, place, byte) in [
        (1000, 0, 1),
        (400, 0, 2),
        (400, 7, 1),
        (400, 13, 127),
        (400, 16, 255),
        (400, 17, 31),
        (400, 17, 0),
        (400, 22, 0),
        (400, 38, 1),
        (400, 54, 1),
    ] {
        let mut bytes = kept;
        bytes[place] = byte;
        let mut client = Client::new(9);
        client.restore(&bytes, at(seconds));
        assert_eq!(client.lease(), None, "{place}: {byte}");
    }
    let mut client = Client::new(9);
    client.restore(&kept[..61], at(400));
    assert_eq!(client.mac(), MacAddress::default());
    assert_eq!(Client::new(9).keep(), None);
}

/// As a server writes it.
fn bytes_of(reply: &Reply) -> Vec<u8> {
    let mut bytes = alloc::vec![0; OPTIONS];
    put(&mut bytes, 0, &[2, 1, 6, 0]);
    put(&mut bytes, 4, &reply.transaction.to_be_bytes());
    put(&mut bytes, 16, &reply.address.octets());
    put(&mut bytes, 28, &reply.mac.0);
    put(&mut bytes, OPTIONS - 4, &COOKIE.to_be_bytes());
    bytes.extend([MESSAGE_TYPE, 1, reply.kind.number(), PAD]);
    let numbers = [
        (SERVER, reply.server.map(Ipv4Addr::to_bits)),
        (SUBNET_MASK, reply.mask),
        (ROUTER, reply.router.map(Ipv4Addr::to_bits)),
        (LEASE_TIME, reply.lease),
        (RENEWAL_TIME, reply.renew),
        (REBINDING_TIME, reply.rebind),
    ];
    for (code, number) in numbers {
        if let Some(number) = number {
            bytes.extend([code, 4]);
            bytes.extend(number.to_be_bytes());
        }
    }
    if !reply.dns.is_empty() {
        bytes.extend([NAME_SERVER, 4 * reply.dns.len() as u8]);
        reply.dns.iter().for_each(|server| bytes.extend(server.octets()));
    }
    bytes.push(END);
    bytes
}

#[test]
fn a_reply_as_it_was_written() {
    let whole = Reply { renew: Some(7), rebind: Some(9), ..reply(Kind::Acknowledge, 0x0102_0304) };
    let bytes = bytes_of(&whole);
    assert_eq!(Reply::parse(&bytes), Some(whole.clone()));
    // More routers and servers than are used.
    let mut more = bytes_of(&Reply { router: None, dns: Servers::new(), ..whole.clone() });
    more.pop();
    more.extend([
        ROUTER,
        8,
        10,
        0,
        0,
        254,
        1,
        1,
        1,
        1,
        NAME_SERVER,
        16,
        9,
        9,
        9,
        9,
        1,
        1,
        1,
        1,
        2,
        2,
        2,
        2,
        3,
        3,
        3,
        3,
        END,
    ]);
    let parsed = Reply::parse(&more).unwrap();
    assert_eq!((parsed.router, parsed.dns.len()), (Some(GATEWAY), 3));
    // Wrong lengths, the message of a client, and one without a type.
    for (code, length) in
        [(MESSAGE_TYPE, 2), (SERVER, 3), (SUBNET_MASK, 5), (ROUTER, 0), (NAME_SERVER, 6), (LEASE_TIME, 1)]
    {
        let mut wrong = bytes.clone();
        wrong.pop();
        wrong.extend([code, length]);
        wrong.resize(wrong.len() + usize::from(length), 1);
        assert_eq!(Reply::parse(&wrong), None, "{code}");
    }
    let mut wrong = bytes.clone();
    wrong[0] = 1;
    assert_eq!(Reply::parse(&wrong), None);
    assert_eq!(Reply::parse(&[&bytes[..OPTIONS], &[END][..]].concat()), None);
    assert_eq!(Reply::parse(&bytes[..OPTIONS + 4 + 3]), None);
}

proptest! {
    /// Whatever servers say, what is used makes sense, and there is always a time at which the client goes on.
    #[test]
    fn any_replies(
        steps in proptest::collection::vec(
            (any::<(bool, u8, u8, u8, u8)>(), any::<(Option<u32>, Option<u32>, Option<u32>, Option<u32>)>(), 0..2000_u64),
            0..40,
        ),
    ) {
        let mut client = client();
        let mut now = at(0);
        for ((fits, kind, last, prefix, dns), (mask, lease, renew, rebind), pause) in steps {
            now = now + Duration::from_secs(pause);
            while let Some(question) = client.poll(now) {
                prop_assert!(Message::parse(&question.message).is_some());
            }
            prop_assert!(client.deadline().is_some_and(|due| due > now));
            let reply = Reply {
                kind: Kind::ALL[usize::from(kind) % 8],
                transaction: client.transaction ^ u32::from(!fits),
                address: Ipv4Addr::new(10, 0, 0, last % 4),
                server: Some(Ipv4Addr::new(10, 0, 0, 250 + last % 2)),
                mask: mask.or(Some(u32::MAX << (prefix % 32))),
                lease: lease.or(Some(100)),
                dns: [Ipv4Addr::new(dns, 1, 1, 1)].into_iter().collect(),
                renew,
                rebind,
                ..reply(Kind::Offer, 0)
            };
            client.hear(&reply, SERVER_MAC, now);
            if let Some(lease) = client.lease() {
                prop_assert!(lease.network.is_host(lease.network.address));
                prop_assert!(lease.renew <= lease.rebind && lease.rebind <= lease.until);
            }
            let bytes = bytes_of(&reply);
            prop_assert_eq!(Reply::parse(&bytes), Some(reply));
        }
    }
}

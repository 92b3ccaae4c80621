//! The server, asked as clients ask. Floor 3.

use super::*;
use proptest::prelude::*;

const OWN: Network = Network { address: Ipv4Addr::new(10, 0, 7, 1), length: 24 };

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds + 1)
}

fn mac(last: u8) -> MacAddress {
    MacAddress([0, 0x16, 0x3e, 0, 0, last])
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 7, last)
}

fn message(kind: Kind, last: u8) -> Message {
    let client = Ipv4Addr::UNSPECIFIED;
    Message { kind, transaction: 9, broadcast: false, client, mac: mac(last), requested: None, server: None }
}

fn request(last: u8, requested: Ipv4Addr) -> Message {
    Message { requested: Some(requested), server: Some(OWN.address), ..message(Kind::Request, last) }
}

/// As a client writes it.
fn bytes_of(message: &Message) -> Vec<u8> {
    let mut bytes = vec_of(&[1, 1, 6, 0]);
    bytes.resize(OPTIONS, 0);
    put(&mut bytes, 4, &message.transaction.to_be_bytes());
    bytes[10] = u8::from(message.broadcast) << 7;
    put(&mut bytes, 12, &message.client.octets());
    put(&mut bytes, 28, &message.mac.0);
    put(&mut bytes, 236, &COOKIE.to_be_bytes());
    bytes.extend([PAD, MESSAGE_TYPE, 1, message.kind.number(), 55, 2, 1, 3]);
    for (code, value) in [(REQUESTED, message.requested), (SERVER, message.server)] {
        if let Some(value) = value {
            bytes.extend([code, 4]);
            bytes.extend(value.octets());
        }
    }
    bytes.push(END);
    bytes
}

fn vec_of(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

#[test]
fn a_message_as_it_was_written() {
    for kind in Kind::ALL {
        let whole = Message { broadcast: true, client: address(3), ..request(4, address(5)) };
        let whole = Message { kind, ..whole };
        assert_eq!(Message::parse(&bytes_of(&whole)), Some(whole));
    }
    let mut bytes = bytes_of(&message(Kind::Discover, 1));
    assert!(Message::parse(&bytes[..OPTIONS]).is_none());
    assert!(Message::parse(&bytes[..OPTIONS + 3]).is_none(), "an option that is cut");
    // A relay's.
    bytes[27] = 1;
    assert!(Message::parse(&bytes).is_none());
}

#[test]
fn from_discovery_to_a_lease() {
    let mut leases = Leases::new(OWN);
    let own = OWN.address;
    let offer = answer(&message(Kind::Discover, 1), own, &mut leases, at(0)).unwrap();
    assert_eq!((offer.kind, offer.to), (Kind::Offer, offer.address));
    assert!(OWN.is_host(offer.address) && offer.address != own);
    // Held for that one.
    let refused = answer(&request(2, offer.address), own, &mut leases, at(1)).unwrap();
    assert_eq!((refused.kind, refused.to), (Kind::Refuse, Ipv4Addr::BROADCAST));
    let given = answer(&request(1, offer.address), own, &mut leases, at(1)).unwrap();
    assert_eq!((given.kind, given.address), (Kind::Acknowledge, offer.address));
    // Renewed, by the client that has it alone, until it is too old.
    let renewal = Message { client: offer.address, ..message(Kind::Request, 1) };
    assert_eq!(answer(&renewal, own, &mut leases, at(3000)).map(|given| given.kind), Some(Kind::Acknowledge));
    assert_eq!(answer(&request(2, offer.address), own, &mut leases, at(6000)).unwrap().kind, Kind::Refuse);
    assert_eq!(answer(&request(2, offer.address), own, &mut leases, at(6601)).unwrap().kind, Kind::Acknowledge);
    // For another server; of another network; the server's own.
    let other = Message { server: Some(address(9)), ..request(3, address(9)) };
    assert_eq!(answer(&other, own, &mut leases, at(0)), None);
    for wrong in [Ipv4Addr::new(10, 0, 8, 2), own, address(0), address(255)] {
        assert_eq!(answer(&request(3, wrong), own, &mut leases, at(0)).unwrap().kind, Kind::Refuse, "{wrong}");
    }
    // What it was, after another life.
    let again = answer(&message(Kind::Discover, 1), own, &mut Leases::new(OWN), at(0)).unwrap();
    assert_eq!(again.address, offer.address);
    // Given back; or another station has it.
    let release = Message { client: offer.address, ..message(Kind::Release, 2) };
    assert_eq!(answer(&release, own, &mut leases, at(6700)), None);
    assert_eq!(answer(&request(1, offer.address), own, &mut leases, at(6700)).unwrap().kind, Kind::Acknowledge);
    let decline = Message { kind: Kind::Decline, ..request(1, offer.address) };
    assert_eq!(answer(&decline, own, &mut leases, at(6800)), None);
    let other = answer(&message(Kind::Discover, 1), own, &mut leases, at(6801)).unwrap().address;
    assert_ne!(other, offer.address);
    assert_eq!(leases.iter(at(6801)).count(), 0);
    assert_eq!(answer(&request(1, other), own, &mut leases, at(6801)).unwrap().kind, Kind::Acknowledge);
    assert_eq!(leases.iter(at(6801)).count(), 1);
}

#[test]
fn what_is_told() {
    let dns = [address(53); 5];
    let terms = Terms { own: OWN, router: Some(OWN.address), dns: &dns };
    let asked = Message { broadcast: true, ..message(Kind::Discover, 1) };
    let bytes = write(&Answer { kind: Kind::Offer, address: address(9), to: Ipv4Addr::BROADCAST }, &asked, &terms);
    assert_eq!((bytes[0], &bytes[4..8], bytes[10], &bytes[16..20]), (2, &[0, 0, 0, 9][..], 0x80, &[10, 0, 7, 9][..]));
    let (mut place, mut options) = (OPTIONS, Vec::new());
    while bytes[place] != END {
        let length = usize::from(bytes[place + 1]);
        options.push((bytes[place], bytes[place + 2..place + 2 + length].to_vec()));
        place += 2 + length;
    }
    let expected: [(u8, &[u8]); 7] = [
        (53, &[2]),
        (54, &[10, 0, 7, 1]),
        (51, &[0, 0, 0x0e, 0x10]),
        (1, &[255, 255, 255, 0]),
        (28, &[10, 0, 7, 255]),
        (3, &[10, 0, 7, 1]),
        (6, &[10, 0, 7, 53, 10, 0, 7, 53, 10, 0, 7, 53]),
    ];
    assert!(options.iter().map(|(code, value)| (*code, &value[..])).eq(expected));
}

proptest! {
    /// No address is two clients' at a time, whatever they ask.
    #[test]
    fn an_address_is_one_clients(
        steps in proptest::collection::vec((0..6_u8, 0..9_u8, 0..5_u8, 0..900_u64), 1..120),
    ) {
        let own = Network { address: OWN.address, length: 29 };
        let mut leases = Leases::new(own);
        let mut held: alloc::collections::BTreeMap<Ipv4Addr, (MacAddress, u64)> = Default::default();
        let mut now = 0;
        for (client, last, kind, later) in steps {
            now += later;
            let wanted = Message { kind: Kind::ALL[usize::from(kind)], ..request(client, address(last)) };
            if let Some(given) = answer(&wanted, own.address, &mut leases, at(now))
                && given.kind != Kind::Refuse
            {
                let other = held.get(&given.address).filter(|(mac, until)| *mac != wanted.mac && *until > now);
                prop_assert_eq!(other, None);
                prop_assert!(own.is_host(given.address) && given.address != own.address);
                if given.kind == Kind::Acknowledge {
                    held.retain(|_, (mac, _)| *mac != wanted.mac);
                    held.insert(given.address, (wanted.mac, now + LEASE.as_secs()));
                }
            }
            if wanted.kind == Kind::Decline && held.get(&address(last)).is_some_and(|(mac, _)| *mac == wanted.mac) {
                held.remove(&address(last));
            }
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut whole = bytes_of(&message(Kind::Discover, 1));
        whole.truncate(OPTIONS);
        whole.extend(&bytes);
        let _ = (Message::parse(&bytes), Message::parse(&whole));
    }
}

#[test]
fn an_offer_that_was_not_taken_is_no_lease() {
    let mut leases = Leases::new(OWN);
    let offered = leases.offer(mac(1), None, at(0)).unwrap();
    assert_eq!(leases.iter(at(0)).count(), 0);
    assert_ne!(leases.offer(mac(2), Some(offered), at(1)), Some(offered), "it is held");
    assert!(leases.lease(mac(1), offered, at(2)));
    assert_eq!(leases.iter(at(2)).collect::<Vec<_>>(), [(mac(1), offered)]);
    // A client that begins anew has its lease as long as it had it.
    assert_eq!(leases.offer(mac(1), None, at(3)), Some(offered));
    assert_eq!(leases.iter(at(3)).count(), 1);
    // What is over, and offered again, is none.
    let late = 2 + LEASE.as_secs();
    assert_eq!(leases.offer(mac(1), None, at(late)), Some(offered));
    assert_eq!(leases.iter(at(late)).count(), 0);
}

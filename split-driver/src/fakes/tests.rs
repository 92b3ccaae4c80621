//! The fakes check what Xen checks. Floor 1.

use super::*;
use crate::hypervisor::{DeviceMap, DeviceMapping, DevicePage, EventChannel, Hypervisor, XenError};
use crate::memory::{DmaAllocator, DmaMemory, PageArray, SharedMemory};
use std::vec;
use std::vec::Vec;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};
use xen_pv_sys::{DomainId, GrantRef, Mfn, Port};

fn copy(source: CopyEnd, destination: CopyEnd, length: u16, flags: u16) -> GrantCopy {
    GrantCopy { source, destination, length, flags, status: 77, padding: 0 }
}

#[test]
fn copies_are_checked() {
    let xen = FakeXen::new();
    let (one, two) = (xen.domain(DomainId(1)), xen.domain(DomainId(2)));
    let (from, to) = (one.pages(2), two.pages(1));
    assert!(from.write(4096 + 5, b"hello"));
    let readable = one.grant(&from, 1, false);
    let writable = two.grant(&to, 0, true);
    let pages = FakePages::new(&xen, 2);
    let frame = pages.frame(1).unwrap();
    let (src, dst) = (GrantCopy::SOURCE_GRANT, GrantCopy::DESTINATION_GRANT);
    let granted = CopyEnd::granted;
    let cases = [
        (copy(granted(DomainId(1), readable, 5), granted(DomainId(2), writable, 6), 5, src | dst), 0),
        (copy(granted(DomainId(1), readable, 5), CopyEnd::local(frame, 1), 5, src), 0),
        (copy(granted(DomainId(1), readable, 4000), CopyEnd::local(frame, 0), 97, src), -10),
        (copy(CopyEnd::local(frame, 0), granted(DomainId(1), readable, 0), 1, dst), -1),
        (copy(granted(DomainId(1), GrantRef(9), 0), CopyEnd::local(frame, 0), 1, src), -3),
        (copy(granted(DomainId(9), readable, 0), CopyEnd::local(frame, 0), 1, src), -2),
        (copy(granted(DomainId(1), readable, 0), CopyEnd::local(Mfn(5), 0), 1, src), -9),
        (copy(granted(DomainId(1), readable, 0), CopyEnd::local(frame, 0), 1, 0), -8),
    ];
    let mut batch = cases.map(|(copy, _)| copy);
    xen.grant_copy(&mut batch);
    for (index, (copy, (_, status))) in batch.iter().zip(cases).enumerate() {
        assert_eq!(copy.status, status, "case {index}");
    }
    let mut bytes = [0; 5];
    assert!(to.read(6, &mut bytes));
    assert_eq!(&bytes, b"hello");
    assert!(pages.read(1, 1, &mut bytes));
    assert_eq!(&bytes, b"hello");
    assert_eq!(xen.take_violations(), [Violation::CopyToForeignFrame(5), Violation::CopyWithoutGrant(DomainId(1))]);
}

#[test]
fn mappings_are_counted() {
    let xen = FakeXen::new();
    let guest = xen.domain(DomainId(1));
    let memory = guest.pages(3);
    let references: Vec<_> = (0..3).map(|page| guest.grant(&memory, page, true)).collect();
    let ring = xen.map_ring(DomainId(1), &references[1..]).unwrap();
    memory.words()[1024].store(5, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(ring.words().len(), 2048);
    assert_eq!(ring.words()[0].load(std::sync::atomic::Ordering::Relaxed), 5);
    assert!(!guest.end_grant(references[1]), "mapped");
    assert_eq!((guest.mapped(), xen.live().mapped_pages), (2, 2));
    drop(ring);
    assert!(guest.end_grant(references[1]));
    assert_eq!(xen.map_ring(DomainId(1), &references[1..2]).unwrap_err(), XenError::Grant(-1));
    assert_eq!(xen.live(), Live::default());
}

#[test]
fn events_are_late_acknowledged() {
    let xen = FakeXen::new();
    let guest = xen.domain(DomainId(1));
    let remote = guest.allocate_port();
    let channel = xen.bind_interdomain(DomainId(1), remote).unwrap();
    assert!(xen.bind_interdomain(DomainId(1), remote).is_err(), "bound");
    assert!(xen.bind_interdomain(DomainId(1), Port(99)).is_err());
    for _ in 0..10 {
        guest.notify(remote);
    }
    assert_eq!(xen.next_event(), Some(channel.port()));
    assert_eq!(xen.next_event(), None);
    channel.unmask();
    assert_eq!(xen.next_event(), Some(channel.port()));
    channel.unmask();
    assert_eq!(xen.next_event(), None);
    channel.notify();
    channel.notify();
    assert_eq!(guest.take_notifications(remote), 2);
    drop(channel);
    assert_eq!(xen.live().channels, 0);
}

#[test]
fn a_device_sees_its_memory_only() {
    let xen = FakeXen::new();
    let dma = xen.dma();
    let ring = dma.allocate(5000).unwrap();
    assert_eq!(ring.words().len(), 2048);
    let address = ring.device_address(0).get();
    assert!(xen.device_write(address + 4094, b"abcd"));
    let mut bytes = [0; 4];
    assert!(xen.device_read(address + 4094, &mut bytes));
    assert_eq!(&bytes, b"abcd");
    assert!(!xen.device_write(address + 8190, b"abcd"));
    assert!(dma.release(&dma.closed()));
    drop(ring);
    assert!(!xen.device_read(address, &mut bytes));
    assert_eq!(xen.take_violations(), [Violation::DeviceAddress(address + 8190), Violation::DeviceAddress(address)]);
}

#[test]
fn dma_memory_goes_back_with_a_proof_alone() {
    let xen = FakeXen::new();
    let dma = xen.dma();
    drop(dma.allocate(1).unwrap());
    assert_eq!(xen.live().local_regions, 0, "no device was told of it");
    let [lost, kept] = [dma.allocate(1).unwrap(), dma.allocate(1).unwrap()];
    let address = lost.device_address(0).get();
    let _told = kept.device_address(4096);
    drop(lost);
    assert!(xen.device_write(address, b"late"), "nobody else has got it");
    let other = xen.dma();
    assert!(!dma.release(&other.closed()), "another device's proof says nothing of this one");
    assert!(dma.allocate(1).is_ok(), "nothing has changed");
    assert!(dma.release(&dma.closed()));
    drop(kept);
    assert_eq!(xen.live().local_regions, 1);
    assert!(dma.allocate(1).is_err() && other.allocate(1).is_ok());
    assert_eq!(xen.take_violations(), []);
}

#[test]
fn device_addresses_stay_in_their_memory() {
    let xen = FakeXen::new();
    let memory = xen.dma().allocate(8192).unwrap();
    let first = memory.device_address(0);
    assert_eq!(memory.device_address(4100).get(), first.get() + 4100);
    assert_eq!(memory.device_address(9000).get(), first.get() + 8191);
    assert_eq!(first.in_page(512).get(), first.get() + 512);
    assert_eq!(first.in_page(5000).get(), first.get() + 4095);
    assert_eq!(memory.device_address(4100).in_page(0).get(), first.get() + 4096);
    let pages = FakePages::new(&xen, 2);
    let addresses = [0, 1, 2].map(|page| pages.device_address(page).map(|address| address.frame()));
    assert_eq!(addresses, [pages.frame(0), pages.frame(1), None]);
}

#[test]
fn a_device_sees_pages_mapped_for_it_and_writes_those_it_may() {
    let xen = FakeXen::new();
    let guest = xen.domain(DomainId(1));
    let memory = guest.pages(3);
    let [writable, readable, ended] =
        [(0, true), (1, false), (2, true)].map(|(page, writable)| guest.grant(&memory, page, writable));
    assert!(guest.end_grant(ended));
    let map = |domain, grants: &[(GrantRef, bool)]| {
        let mut batch: Vec<_> = grants.iter().map(|(grant, read_only)| DeviceMap::new(*grant, *read_only)).collect();
        xen.map_for_device(DomainId(domain), &mut batch);
        batch.into_iter().map(|element| element.result).collect::<Vec<_>>()
    };
    let results = map(
        1,
        &[(writable, false), (writable, true), (readable, true), (readable, false), (ended, true), (GrantRef(9), true)],
    );
    let (mapped, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let refused: Vec<_> = refused.into_iter().map(Result::unwrap_err).collect();
    assert_eq!(refused, [-1, -1, -3].map(XenError::Grant));
    assert_eq!(map(2, &[(writable, true)]), [Err(XenError::Grant(-2))]);
    xen.fail_next_map(XenError::Grant(-10));
    assert_eq!(map(1, &[(writable, true)]), [Err(XenError::Grant(-10))]);
    let mut mapped: Vec<_> = mapped.into_iter().map(Result::unwrap).collect();
    assert_eq!((guest.mapped(), xen.live().mapped_pages, xen.device_map_calls()), (3, 3, 3));
    assert!(!guest.end_grant(writable), "mapped");

    let [first, second, third] = [mapped[0].address.get(), mapped[1].address.get(), mapped[2].address.get()];
    assert!(xen.device_write(first + 5, b"hello"));
    let mut bytes = [0; 5];
    assert!(memory.read(5, &mut bytes) && &bytes == b"hello");
    assert!(xen.device_read(second + 5, &mut bytes) && &bytes == b"hello");
    assert!(memory.write(4096, b"world") && xen.device_read(third, &mut bytes));
    assert_eq!(&bytes, b"world");
    assert_eq!(xen.take_violations(), []);
    assert!(!xen.device_write(third, b"x"));
    assert!(!xen.device_read(third + 4096, &mut bytes), "the next page is nobody's");
    let denied =
        [Violation::DeviceWrite(third), Violation::DeviceAddress(third), Violation::DeviceAddress(third + 4096)];
    assert_eq!(xen.take_violations(), denied);

    let again = DeviceMap::new(writable, false).result;
    assert_eq!(again, Err(XenError::Exhausted), "nothing before it is mapped");
    let handle = mapped[0].handle;
    xen.unmap_for_device(&mut mapped);
    assert!(mapped.is_empty());
    assert_eq!((guest.mapped(), xen.live()), (0, Live::default()));
    assert!(!xen.device_read(first, &mut bytes));
    xen.unmap_for_device(&mut vec![DevicePage::new(handle, first, false)]);
    assert_eq!(xen.take_violations(), [Violation::DeviceAddress(first), Violation::Unmap(handle)]);
}

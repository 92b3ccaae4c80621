//! Event channels from the domain to itself.

use crate::{Result, check, value};
use alloc::vec::Vec;
use core::time::Duration;
use runtime::events::{self, Channel, EventSet};
use runtime::time::{Elapsed, timeout};
use split_driver::hypervisor::XenError;
use xen_pv_sys::{DomainId, Port};

/// Two ends of a channel.
fn pair() -> core::result::Result<(Channel, Channel), XenError> {
    let one = events::alloc_unbound(DomainId::SELF)?;
    let other = events::bind_interdomain(DomainId::SELF, one.port())?;
    Ok((one, other))
}

async fn quiet(channel: &Channel) -> bool {
    timeout(Duration::from_millis(2), channel.wait()).await == Err(Elapsed)
}

pub(crate) async fn events() -> Result {
    let (one, other) = value!(pair());
    // Binding may raise an event of its own at either end.
    while !quiet(&one).await {}
    other.notify();
    one.wait().await;
    check!(quiet(&one).await);
    // A thousand events before the next look are one.
    for _ in 0..1000 {
        other.notify();
    }
    one.wait().await;
    check!(quiet(&one).await);
    refused()?;
    set().await?;
    many().await
}

/// What cannot be bound is an error; what is dropped can be bound again.
fn refused() -> Result {
    const EINVAL: XenError = XenError::Errno(22);
    check!(events::bind_interdomain(DomainId::SELF, Port(4000)).is_err());
    check!(events::bind_interdomain(DomainId(77), Port(1)).is_err());
    check!(matches!(events::bind_virq(99), Err(EINVAL)));
    let first = value!(events::bind_virq(xen_pv_sys::xen::VIRQ_DEBUG));
    check!(events::bind_virq(xen_pv_sys::xen::VIRQ_DEBUG).is_err());
    drop(first);
    value!(events::bind_virq(xen_pv_sys::xen::VIRQ_DEBUG));
    Ok(())
}

/// A set gives each port once until it is unmasked, and keeps nothing of a channel that is gone.
async fn set() -> Result {
    let set = EventSet::new();
    let (one, other) = value!(pair());
    set.add(&one);
    let mut ports = Vec::new();
    set.take(&mut ports);
    one.unmask();
    ports.clear();
    other.notify();
    set.next(&mut ports).await;
    check!(ports == [one.port()]);
    ports.clear();
    other.notify();
    set.take(&mut ports);
    check!(ports.is_empty());
    one.unmask();
    set.take(&mut ports);
    check!(ports == [one.port()]);
    ports.clear();
    one.unmask();
    set.take(&mut ports);
    check!(ports.is_empty());
    other.notify();
    drop(one);
    set.take(&mut ports);
    check!(ports.is_empty());
    check!(timeout(Duration::from_millis(2), set.next(&mut ports)).await == Err(Elapsed));
    Ok(())
}

/// Channels in several words of the bitmap.
async fn many() -> Result {
    let set = EventSet::new();
    let mut pairs = Vec::new();
    for _ in 0..150 {
        let (one, other) = value!(pair());
        set.add(&one);
        pairs.push((one, other));
    }
    let mut ports = Vec::new();
    set.take(&mut ports);
    for (one, _) in &pairs {
        one.unmask();
    }
    ports.clear();
    for (_, other) in pairs.iter().step_by(3) {
        other.notify();
    }
    set.next(&mut ports).await;
    ports.sort();
    let mut expected: Vec<Port> = pairs.iter().step_by(3).map(|(one, _)| one.port()).collect();
    expected.sort();
    check!(ports == expected);
    Ok(())
}

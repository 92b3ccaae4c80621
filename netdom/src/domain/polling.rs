//! The data path's task: events in, rounds of the data path, then waiting. Floor 3.

use super::Domain;
use alloc::rc::Rc;
use alloc::vec::Vec;
use runtime::select::select;
use runtime::time;
use xen_pv_sys::Port;

/// Rounds without a look at the other tasks. A round is some tens of microseconds long.
const ROUNDS: usize = 16;

/// Serves guests and NIC for good.
pub(super) async fn run(domain: Rc<Domain>) {
    let events = domain.path.borrow().hypervisor().events().clone();
    let mut ports: Vec<Port> = Vec::new();
    loop {
        let mut wait = None;
        for _ in 0..ROUNDS {
            events.take(&mut ports);
            let poll = round(&domain, &mut ports);
            if !poll.again {
                wait = Some(poll.deadline);
                break;
            }
        }
        match wait {
            None => runtime::yield_now().await,
            Some(None) => {
                select(events.next(&mut ports), domain.work.wait()).await;
            }
            Some(Some(deadline)) => {
                let work = select(domain.work.wait(), time::sleep_until(deadline));
                select(events.next(&mut ports), work).await;
            }
        }
    }
}

/// Hands the events over and does one round.
fn round(domain: &Domain, ports: &mut Vec<Port>) -> netdom::datapath::Poll {
    let now = time::now();
    let mut path = domain.path.borrow_mut();
    let nic = domain.nic.borrow();
    for port in ports.drain(..) {
        let interrupt = nic.as_ref().and_then(|nic| nic.interrupt(port));
        match interrupt {
            Some((vector, channel)) => {
                path.handle_interrupt(vector, now);
                // The device keeps the interrupt disabled until the data path has nothing left to do.
                channel.unmask();
            }
            None => path.handle_event(port, now),
        }
    }
    let poll = path.poll(now);
    drop(path);
    drop(nic);
    domain.netback.report();
    poll
}

//! Whether an attacker's own vif carries packets after its attacks: one out, and one in.

use crate::error::{Error, Result};
use crate::frames;
use crate::frontend::Frontend;
use alloc::rc::Rc;
use core::net::Ipv4Addr;
use runtime::memory::Page;
use runtime::time::{self, Duration};

/// The end of the address that it asks with, within the witness's network of 16 bits.
const OWN: [u8; 2] = [66, 2];
/// Receive slots for the answer, and for what was queued before it.
const SLOTS: usize = 16;
/// Questions, as one may be lost, and how long each is waited for.
const TRIES: usize = 8;
const WAIT: Duration = Duration::from_secs(4);

/// Asks the witness for its hardware address. The question must be taken, and a frame must come.
pub(crate) async fn carries(frontend: &mut Frontend, witness: Ipv4Addr) -> Result<()> {
    // Earlier frames are no proof, and no slots may be left.
    while frontend.receive.unconsumed()? > 0 {
        frontend.receive.take();
    }
    for _ in 0..SLOTS {
        let slot = frontend.lend(Rc::new(Page::new()?), false)?;
        frontend.post(slot);
    }
    let ([a, b, ..], [c, d]) = (witness.octets(), OWN);
    let question = frames::question(frontend.mac, [a, b, c, d], witness.octets());
    for _ in 0..TRIES {
        frontend.send_behind(&question).await?;
        let deadline = time::now() + WAIT;
        while time::now() < deadline {
            while frontend.receive.unconsumed()? > 0 {
                if frontend.receive.take().status > 0 {
                    return Ok(());
                }
            }
            if frontend.receive.final_check_for_responses()? == 0 {
                let _ = time::timeout_at(deadline, frontend.receive_channel.wait()).await;
            }
        }
    }
    Err(Error::Wrong("the vif sends, and nothing comes"))
}

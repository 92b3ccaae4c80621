//! The two buses that disks come on: that of vbds, and that of disks which QEMU would serve and which are refused. Pure. Floor 3.

use core::fmt::Display;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;

/// Runs both until that of vbds ends. Where the other one ends, the vbds are served all the same.
///
/// # Errors
/// What ended the bus of vbds.
pub async fn run_both<E: Display>(
    vbds: impl Future<Output = Result<(), E>>,
    images: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let (mut vbds, mut images) = (pin!(vbds), pin!(images));
    let mut over = false;
    poll_fn(|context| {
        if !over && let Poll::Ready(ended) = images.as_mut().poll(context) {
            over = true;
            if let Err(error) = ended {
                log::error!("disks for QEMU to serve are no longer refused: {error}");
            }
        }
        vbds.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use core::cell::Cell;
    use core::task::{Context, Waker};

    /// Is over at the poll of this number, and must not be polled after that.
    async fn ends(at: u32, polls: Rc<Cell<u32>>, with: Result<(), &'static str>) -> Result<(), &'static str> {
        poll_fn(|_| {
            polls.set(polls.get() + 1);
            if polls.get() < at { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        with
    }

    #[test]
    fn the_vbds_outlive_the_images_and_not_the_other_way_round() {
        let mut context = Context::from_waker(Waker::noop());
        for with in [Ok(()), Err("no more room")] {
            let counts = [Rc::new(Cell::new(0)), Rc::new(Cell::new(0))];
            let [vbds, images] = counts.each_ref().map(Rc::clone);
            let mut both = pin!(run_both(ends(3, vbds, Err("gone")), ends(1, images, with)));
            assert_eq!(both.as_mut().poll(&mut context), Poll::Pending);
            assert_eq!(both.as_mut().poll(&mut context), Poll::Pending);
            assert_eq!(both.as_mut().poll(&mut context), Poll::Ready(Err("gone")));
            assert_eq!(counts.map(|count| count.get()), [3, 1]);
        }
        let counts = [Rc::new(Cell::new(0)), Rc::new(Cell::new(0))];
        let [vbds, images] = counts.each_ref().map(Rc::clone);
        let mut both = pin!(run_both(ends(1, vbds, Ok(())), ends(9, images, Ok(()))));
        assert_eq!(both.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    }
}

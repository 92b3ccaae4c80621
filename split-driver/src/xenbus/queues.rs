//! Devices with several queues: how many there are, and where the nodes of each are (`io/blkif.h` and `io/netif.h`, "Multi-queue"). Pure.
//! Floor 1.

use super::{BadNode, Directory};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The backend's node that says how many queues it offers; one where it is absent.
pub const MAX_QUEUES: &str = "multi-queue-max-queues";
/// The frontend's node that says how many it uses; one where it is absent.
pub const NUM_QUEUES: &str = "multi-queue-num-queues";

/// A frontend wants no queue, or more than were offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadQueueCount {
    /// What it wants.
    pub wanted: u32,
    /// What was offered.
    pub offered: u32,
}

impl fmt::Display for BadQueueCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} queues, of 1 to {} offered", self.wanted, self.offered)
    }
}

impl core::error::Error for BadQueueCount {}

/// How many queues the frontend uses, of those offered.
///
/// # Errors
/// The node is no number, or one out of range.
pub fn count<E: From<BadNode> + From<BadQueueCount>>(frontend: &Directory, offered: u32) -> Result<u32, E> {
    let wanted = frontend.optional(NUM_QUEUES)?.unwrap_or(1);
    if (1..=offered).contains(&wanted) { Ok(wanted) } else { Err(BadQueueCount { wanted, offered }.into()) }
}

/// The directory of each queue's nodes below the frontend's, with a `/` behind: the frontend's own where there is one queue only.
pub fn directories(queues: u32) -> impl Iterator<Item = String> {
    (0..queues).map(move |queue| if queues == 1 { String::new() } else { format!("queue-{queue}/") })
}

/// The nodes of these names in each queue's directory, but those that were read already.
pub fn further_nodes<Name: AsRef<str>>(queues: u32, names: &[Name], read: &[&str]) -> Vec<String> {
    directories(queues)
        .flat_map(|directory| names.iter().map(move |name| format!("{directory}{}", name.as_ref())))
        .filter(|name| !read.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Error {
        Node(BadNode),
        Count(BadQueueCount),
    }

    impl From<BadNode> for Error {
        fn from(error: BadNode) -> Self {
            Self::Node(error)
        }
    }

    impl From<BadQueueCount> for Error {
        fn from(error: BadQueueCount) -> Self {
            Self::Count(error)
        }
    }

    #[test]
    fn as_many_as_offered() {
        let said = |value: &str| count::<Error>(&[(NUM_QUEUES, value)].into_iter().collect(), 4);
        assert_eq!(count::<Error>(&Directory::default(), 4), Ok(1));
        for (value, queues) in [("1", 1), ("4", 4)] {
            assert_eq!(said(value), Ok(queues));
        }
        for (value, wanted) in [("0", 0), ("5", 5), ("4294967295", u32::MAX)] {
            assert_eq!(said(value), Err(Error::Count(BadQueueCount { wanted, offered: 4 })));
        }
        for value in ["", "-1", "two", "4294967296"] {
            assert_eq!(said(value), Err(Error::Node(BadNode::Malformed(NUM_QUEUES.into()))));
        }
    }

    #[test]
    fn one_queue_has_no_directory_of_its_own() {
        assert!(directories(1).eq([""]));
        assert!(directories(3).eq(["queue-0/", "queue-1/", "queue-2/"]));
        let names = ["ring-ref", "event-channel"];
        assert_eq!(further_nodes(1, &names, &["ring-ref"]), ["event-channel"]);
        assert_eq!(
            further_nodes(2, &names, &["ring-ref"]),
            ["queue-0/ring-ref", "queue-0/event-channel", "queue-1/ring-ref", "queue-1/event-channel"]
        );
    }
}

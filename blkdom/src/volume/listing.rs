//! What a `target=` may name, as lines for dom0's tool, which reads them below `data/volumes/`. Pure. Floor 3.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// Bytes of a node, at most: a store takes 2,048 (xenstored's `node-size`), less what it keeps beside.
const NODE_BYTES: usize = 1800;
/// Nodes, at most: they count towards the domain's quota, as those of devices do.
const NODES: usize = 16;
/// Bytes of a line, at most; names that no longer fit are left out, the first one excepted.
const LINE_BYTES: usize = 600;

/// Nodes with a line for each volume, by its names and sectors: `SECTORS<tab>NAME<tab>NAME...`, and how many volumes had no room in them.
pub fn listing<'a>(volumes: impl Iterator<Item = (&'a [String], u64)>) -> (Vec<String>, usize) {
    let (mut nodes, mut left_out) = (Vec::<String>::new(), 0);
    for (names, sectors) in volumes {
        let Some(line) = line(sectors, names) else {
            left_out += 1;
            continue;
        };
        let has_room = nodes.last().is_some_and(|node| node.len() + line.len() <= NODE_BYTES);
        if !has_room && nodes.len() == NODES {
            left_out += 1;
            continue;
        }
        if !has_room {
            nodes.push(String::new());
        }
        if let Some(node) = nodes.last_mut() {
            node.push_str(&line);
        }
    }
    (nodes, left_out)
}

/// A line; none where the volume has no name that fits into it.
fn line(sectors: u64, names: &[String]) -> Option<String> {
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = write!(line, "{sectors}");
    let head = line.len();
    // A partition's label may have any sign.
    for name in names.iter().filter(|name| !name.chars().any(char::is_control)) {
        if line.len() + name.len() + 2 <= LINE_BYTES {
            line.push('\t');
            line.push_str(name);
        }
    }
    if line.len() == head {
        return None;
    }
    line.push('\n');
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_line_has_the_names_that_fit() {
        let names = |names: &[&str]| names.iter().map(|name| String::from(*name)).collect::<Vec<_>>();
        assert_eq!(line(2048, &names(&["sda", "SERIAL=x"])).as_deref(), Some("2048\tsda\tSERIAL=x\n"));
        assert_eq!(
            line(1, &names(&["sda1", "PARTLABEL=a\tb\n9\tc", "PARTUUID=1"])).as_deref(),
            Some("1\tsda1\tPARTUUID=1\n")
        );
        let long = "x".repeat(LINE_BYTES);
        assert_eq!(line(1, &names(&["sda1", &long, "short"])).as_deref(), Some("1\tsda1\tshort\n"));
        assert_eq!((line(1, &names(&[&long])), line(1, &[])), (None, None));
    }

    #[test]
    fn nodes_are_bounded_and_what_has_no_room_is_counted() {
        let volumes: Vec<[String; 1]> = (0..4000).map(|number| [format!("vg0/volume-{number:04}")]).collect();
        let (nodes, left_out) = listing(volumes.iter().map(|names| (names.as_slice(), 8)));
        assert!(nodes.len() == NODES && nodes.iter().all(|node| node.len() <= NODE_BYTES));
        let lines: usize = nodes.iter().map(|node| node.lines().count()).sum();
        assert_eq!(lines + left_out, 4000);
        assert!(nodes[0].starts_with("8\tvg0/volume-0000\n8\tvg0/volume-0001\n"));
        assert_eq!(listing(core::iter::empty()), (Vec::new(), 0));
    }
}

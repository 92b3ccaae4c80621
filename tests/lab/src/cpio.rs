//! Writes an initramfs: the "new ASCII" cpio format of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. Pure.

use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

enum Node {
    Directory,
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
    CharacterDevice { major: u32, minor: u32 },
}

/// An archive in the making. Parent directories come by themselves; a later node replaces an earlier one of the same path.
#[derive(Default)]
pub struct Archive {
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    /// Adds an empty directory.
    pub fn directory(&mut self, path: &str) -> &mut Self {
        self.insert(path, Node::Directory)
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> &mut Self {
        self.insert(path, Node::File { mode, content: content.into() })
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.insert(path, Node::Link { target: target.to_owned() })
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        self.insert(path, Node::CharacterDevice { major, minor })
    }

    /// Whether the path is there.
    pub fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path.trim_matches('/'))
    }

    fn insert(&mut self, path: &str, node: Node) -> &mut Self {
        let path = path.trim_matches('/');
        for (index, _) in path.match_indices('/') {
            if let Some(parent) = path.get(..index) {
                self.nodes.entry(parent.to_owned()).or_insert(Node::Directory);
            }
        }
        self.nodes.insert(path.to_owned(), node);
        self
    }

    /// Its files: paths, permission bits and what is in them.
    pub fn into_files(self) -> impl Iterator<Item = (String, u32, Vec<u8>)> {
        self.nodes.into_iter().filter_map(|(path, node)| match node {
            Node::File { mode, content } => Some((path, mode, content)),
            Node::Directory | Node::Link { .. } | Node::CharacterDevice { .. } => None,
        })
    }

    /// The bytes, uncompressed: under emulation that unpacks fastest. A sorted map lists parents before children.
    pub fn finish(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (inode, (path, node)) in (1..).zip(&self.nodes) {
            match node {
                Node::Directory => append(&mut bytes, inode, path, DIRECTORY | 0o755, (0, 0), b""),
                Node::File { mode, content } => append(&mut bytes, inode, path, FILE | mode, (0, 0), content),
                Node::Link { target } => append(&mut bytes, inode, path, LINK | 0o777, (0, 0), target.as_bytes()),
                Node::CharacterDevice { major, minor } => {
                    append(&mut bytes, inode, path, CHARACTER_DEVICE | 0o600, (*major, *minor), b"");
                }
            }
        }
        append(&mut bytes, 0, "TRAILER!!!", 0, (0, 0), b"");
        bytes
    }
}

fn append(bytes: &mut Vec<u8>, inode: u32, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
    // Fields: inode, mode, uid, gid, links, mtime, size, device of the file (2), device itself (2), length of name, checksum.
    let fields = [inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, device.0, device.1, path.len() as u32 + 1, 0];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(content);
    pad(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.file("/etc/lab/x", 0o644, "abc").link("bin", "usr/bin").character_device("/dev/console", 5, 1);
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).expect("this archive is ASCII");
        let place = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(place("etc\0") < place("etc/lab\0") && place("etc/lab\0") < place("etc/lab/x\0"));
        assert_eq!(bytes.len() % 4, 0);
        for (index, _) in text.match_indices("070701") {
            assert_eq!(index % 4, 0);
        }
        assert!(text.contains("000081a4"), "a regular file of mode 644");
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}

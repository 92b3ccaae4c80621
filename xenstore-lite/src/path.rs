//! Paths: what is one, whose they are relative to, their parents. Pure. Floor 1.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::XENSTORE_ABS_PATH_MAX;

/// The root.
pub(crate) const ROOT: &[u8] = b"/";
/// What the paths of domains begin with.
const DOMAINS: &[u8] = b"/local/domain/";

/// The bytes of paths.
const FITS: [bool; 256] = {
    let mut fits = [false; 256];
    let mut byte = 0;
    while byte < fits.len() {
        fits[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'/' | b'_' | b'@');
        byte += 1;
    }
    fits
};

fn fits(byte: u8) -> bool {
    FITS.get(usize::from(byte)).is_some_and(|fits| *fits)
}

/// A domain's own path, which its relative paths continue.
pub(crate) fn home(domain: DomainId) -> Vec<u8> {
    let mut path = DOMAINS.to_vec();
    path.extend_from_slice(alloc::format!("{}", domain.0).as_bytes());
    path
}

/// Whether `path` is the directory of a device for which `domain` is the backend: `/local/domain/N/backend/KIND/FRONTEND/DEVICE`, where
/// toolstacks make it (`xenstore-paths.pandoc`).
pub(crate) fn is_device_of(path: &[u8], domain: DomainId) -> bool {
    let mut names = path.strip_prefix(DOMAINS).unwrap_or_default().split(|byte| *byte == b'/');
    let number = names.next().and_then(|number| core::str::from_utf8(number).ok()?.parse().ok());
    number == Some(domain.0) && names.next() == Some(b"backend") && names.count() == 3
}

/// Whether `path` goes on from the [`home`] of who says it.
pub(crate) fn is_relative(path: &[u8]) -> bool {
    !path.starts_with(b"/") && !path.starts_with(b"@")
}

/// The absolute path that `path` means for `domain`; `None` where it is none. Special ones, `@...`, count only where `special` says so.
///
/// Whatever the bytes are, this is the one gate to the tree.
pub(crate) fn canonical(path: &[u8], domain: DomainId, special: bool) -> Option<Cow<'_, [u8]>> {
    let mut before = 0;
    for byte in path {
        if !fits(*byte) || (*byte == b'/' && before == b'/') {
            return None;
        }
        before = *byte;
    }
    if path.starts_with(b"@") && !special {
        return None;
    }
    let path = if is_relative(path) {
        let mut absolute = home(domain);
        absolute.push(b'/');
        absolute.extend_from_slice(path);
        Cow::Owned(absolute)
    } else {
        Cow::Borrowed(path)
    };
    let trailing = path.ends_with(b"/") && *path != *ROOT;
    (!trailing && path.len() <= XENSTORE_ABS_PATH_MAX).then_some(path)
}

/// The [`parent`] and the [`name`] of a path that is one if its parent is: what [`canonical`] would say of it, by a look at the name alone.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let (above, name) = (path.get(..slash)?, path.get(slash + 1..)?);
    let is_path = path.starts_with(b"/") && !above.ends_with(b"/") && path.len() <= XENSTORE_ABS_PATH_MAX;
    let is_name = !name.is_empty() && name.iter().all(|byte| fits(*byte));
    (is_path && is_name).then_some((if above.is_empty() { ROOT } else { above }, name))
}

/// The bytes of a path that its quota counts: those behind `/local/domain/N/`, or all.
pub(crate) fn counted_bytes(path: &[u8]) -> usize {
    let behind = path.strip_prefix(DOMAINS).and_then(|rest| {
        let digits = rest.iter().take(5).take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = rest.split_at_checked(digits)?;
        rest.strip_prefix(b"/").filter(|_| !number.is_empty())
    });
    behind.unwrap_or(path).len()
}

/// The parent; the root's is itself, and of a special path without a slash it is the root too.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => ROOT,
        Some(slash) => path.get(..slash).unwrap_or(ROOT),
    }
}

/// The last name.
pub(crate) fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The path of a child of `path`.
pub(crate) fn child(path: &[u8], name: &[u8]) -> Vec<u8> {
    let parent = if path == ROOT { &[] } else { path };
    [parent, b"/", name].concat()
}

/// `path` and all above it, the root last; a special path has no root above it.
pub(crate) fn upwards(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let special = path.starts_with(b"@");
    core::iter::successors(Some(path), move |path| {
        let above = parent(path);
        (*path != ROOT && !(special && above == ROOT)).then_some(above)
    })
}

/// The levels between `above` and `path`, which is at or below it.
pub(crate) fn levels(path: &[u8], above: &[u8]) -> usize {
    let rest = path.get(above.len()..).unwrap_or_default();
    let slashes = rest.iter().filter(|byte| **byte == b'/').count();
    slashes + usize::from(above == ROOT && !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let canonical = |path: &str| canonical(path.as_bytes(), DomainId(7), false).map(Cow::into_owned);
        for good in ["/", "/a", "/a/b-_@", "/local/domain/7"] {
            assert_eq!(canonical(good).as_deref(), Some(good.as_bytes()));
        }
        assert_eq!(canonical("a/b").as_deref(), Some(b"/local/domain/7/a/b".as_slice()));
        for bad in ["", "//", "/a/", "/a//b", "a/", "a//b", "@x", "/a b", "/a\n", "/ä", "/local/domain/", "/a\0b", "/."]
        {
            assert_eq!(canonical(bad), None, "{bad:?}");
        }
        let long = alloc::format!("/{}", "x".repeat(3071));
        assert!(canonical(&long).is_some() && canonical(&alloc::format!("{long}x")).is_none());
        assert!(super::canonical(b"@releaseDomain", DomainId(7), true).is_some());
    }

    #[test]
    fn relatives() {
        assert_eq!(parent(b"/"), b"/");
        assert_eq!(parent(b"/a"), b"/");
        assert_eq!(parent(b"/a/b"), b"/a");
        assert_eq!(parent(b"@releaseDomain"), b"/");
        assert_eq!(parent(b"@releaseDomain/3"), b"@releaseDomain");
        assert_eq!(
            (name(b"/a/b"), child(b"/", b"a"), child(b"/a", b"b")),
            (b"b".as_slice(), b"/a".to_vec(), b"/a/b".to_vec())
        );
        let all: Vec<_> = upwards(b"/a/b").collect();
        assert_eq!(all, [b"/a/b".as_slice(), b"/a", b"/"]);
        assert_eq!(upwards(b"/").count(), 1);
        assert_eq!(upwards(b"@x/3").collect::<Vec<_>>(), [b"@x/3".as_slice(), b"@x"]);
        assert_eq!((levels(b"/a/b", b"/"), levels(b"/a/b", b"/a"), levels(b"/", b"/")), (2, 1, 0));
    }

    #[test]
    fn parts() {
        let long = alloc::format!("/{}", "x".repeat(3071));
        let paths = [
            "/a", "/a/b", "/a/b-_@", "/@", "/", "", "a", "a/b", "//", "//a", "/a/", "/a//b", "/a b", "/a/b\n", "/ä",
            "@x", "@x/y",
        ];
        for path in paths.into_iter().chain([&*long, &alloc::format!("{long}x")]) {
            let path = path.as_bytes();
            let is_path = |path| canonical(path, DomainId(7), false).is_some_and(|whole| *whole == *path);
            let expected = (is_path(path) && path != ROOT).then(|| (parent(path), name(path)));
            assert_eq!(split(path).filter(|(above, _)| is_path(above)), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn counted() {
        assert_eq!(counted_bytes(b"/local/domain/12/a"), 1);
        assert_eq!(counted_bytes(b"/local/domain/12"), 16);
        assert_eq!(counted_bytes(b"/local/domain/x/a"), 17);
        assert_eq!(counted_bytes(b"/local/domain/123456/a"), 22);
    }
}

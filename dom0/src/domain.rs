//! Domains by name and number, and one command at a time for each. Host.

use std::fs::{self, File, TryLockError};

use anyhow::{Context, Result, bail};
use split_driver::store::{Store, Transaction};

/// A domain that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    /// Its number.
    pub(crate) id: u32,
    /// Its name.
    pub(crate) name: String,
}

impl Domain {
    /// A node of its own directory.
    pub(crate) fn node(&self, path: &str) -> String {
        format!("/local/domain/{}/{path}", self.id)
    }

    /// Holds the domain against other commands of this tool until the file is dropped; the kernel drops it with the process.
    ///
    /// # Errors
    /// Another one holds it.
    pub(crate) fn lock(&self) -> Result<File> {
        const DIRECTORY: &str = "/run/oxidom";
        fs::create_dir_all(DIRECTORY).with_context(|| format!("creating {DIRECTORY}; run this as root"))?;
        let path = format!("{DIRECTORY}/{}.lock", self.id);
        let file = File::create(&path).with_context(|| format!("creating {path}; run this as root"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another oxidom is at work on {} (domain {}); wait for its end, and try again",
                    self.name,
                    self.id
                )
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {path}")),
        }
    }
}

/// The text of a node; none where there is no such node.
///
/// # Errors
/// Of the store.
pub(crate) async fn text(store: &impl Store, path: &str) -> Result<Option<String>> {
    let value = store.read_optional(Transaction::NONE, path).await.with_context(|| format!("reading {path}"))?;
    Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// All domains that have a name.
///
/// # Errors
/// Of the store.
pub(crate) async fn all(store: &impl Store) -> Result<Vec<Domain>> {
    const TOP: &str = "/local/domain";
    let names = store.directory(Transaction::NONE, TOP).await.with_context(|| format!("listing {TOP}"))?;
    let mut domains = Vec::new();
    for id in names.iter().filter_map(|id| id.parse().ok()) {
        if let Some(name) = text(store, &format!("{TOP}/{id}/name")).await? {
            domains.push(Domain { id, name });
        }
    }
    domains.sort_by_key(|domain| domain.id);
    Ok(domains)
}

/// The domain of a name or a number.
///
/// # Errors
/// There is none, or several have the name.
pub(crate) async fn find(store: &impl Store, word: &str) -> Result<Domain> {
    let mut domains = all(store).await?;
    let names: Vec<String> = domains.iter().map(|domain| domain.name.clone()).collect();
    domains.retain(|domain| domain.name == word);
    match domains.as_slice() {
        [one] => return Ok(one.clone()),
        [] => {}
        several => {
            bail!("{} domains are called {word}; say one of their numbers, which `xl list` shows", several.len())
        }
    }
    if let Ok(id) = word.parse() {
        let name = text(store, &format!("/local/domain/{id}/name")).await?;
        return name.map(|name| Domain { id, name }).with_context(|| format!("there is no domain {id}"));
    }
    bail!("there is no domain {word}; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use split_driver::fakes::{FakeStore, block_on};
    use xen_pv_sys::DomainId;

    #[test]
    fn domains_are_found_by_name_and_number() {
        let store = FakeStore::new();
        for (id, name) in [(0, "Domain-0"), (5, "netdom"), (7, "twin"), (9, "twin"), (11, "12"), (12, "guest")] {
            store.add_domain(DomainId(id));
            store.put(&format!("/local/domain/{id}/name"), name, &["n0"]);
        }
        let dom0 = store.connection(DomainId(0));
        let found = |word| block_on(find(&dom0, word)).map(|domain| domain.id).map_err(|error| error.to_string());
        assert_eq!((found("netdom"), found("5"), found("0")), (Ok(5), Ok(5), Ok(0)));
        // A name that is a number is a name first, as with xl.
        assert_eq!(found("12"), Ok(11));
        assert!(found("twin").is_err_and(|error| error.starts_with("2 domains are called twin")));
        assert!(found("6").is_err_and(|error| error == "there is no domain 6"));
        assert!(
            found("blkdom").is_err_and(|error| error.contains("there are Domain-0, netdom, twin, twin, 12, guest"))
        );
    }
}

//! The guests of this host, as Debian's `xendomains` asks for them: without driver domains and without the store's domain. Host.
//!
//! That script saves or shuts down each domain of `xl list -l` when the host shuts down, and waits for its end. A driver domain cannot
//! be saved, and has to outlast its guests; the store's domain takes no request to shut down.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::reattach::is_set;

/// `xl list -l` without driver domains and without the store's. `store` is the number of the store's domain, where it has one.
///
/// # Errors
/// It is no JSON of `xl list -l`.
pub(crate) fn only_guests(list: &str, store: Option<u64>) -> Result<Value> {
    // A list of no domains may be nothing at all.
    if list.trim().is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    let mut domains: Vec<Value> = serde_json::from_str(list).context("`xl list -l` is no list of domains")?;
    domains.retain(|domain| {
        let id = domain.get("domid").and_then(Value::as_u64);
        let is_store = id.is_some() && id == store;
        !is_store && !is_set(domain.pointer("/config/c_info/driver_domain"))
    });
    Ok(Value::Array(domains))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn driver_domains_and_the_store_are_left_out() {
        let domain = |id: u32, name: &str, driver: Value| json!({"domid": id, "config": {"c_info": {"name": name, "driver_domain": driver}}});
        let list = json!([
            domain(0, "Domain-0", json!("<default>")),
            {"domid": 1, "config": {"c_info": {"name": "Xenstore"}}},
            domain(2, "netdom", json!(true)),
            domain(3, "linuxdd", json!("True")),
            domain(4, "guest", json!("False")),
            domain(5, "other", json!(false)),
        ]);
        let ids = |store| {
            let left = only_guests(&list.to_string(), store).unwrap();
            left.as_array().unwrap().iter().map(|domain| domain["domid"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ids(Some(1)), [0, 4, 5]);
        assert_eq!(ids(None), [0, 1, 4, 5]);
        assert_eq!(only_guests("\n", None).unwrap(), json!([]));
        assert!(only_guests("xl: not found", None).is_err());
    }
}

//! How long domains have run, as `xl list` says: Xen itself would be asked by a call of its driver, which safe code cannot make. Host.

use std::collections::BTreeMap;

use crate::model::Snapshot;
use crate::reattach::Toolstack;

/// Seconds by domain. `xl` knows tenths.
fn parse(list: &str) -> BTreeMap<u32, f64> {
    let domain = |line: &str| {
        // Name, number, memory, vCPUs, state, time: from the end, as a name may have blanks.
        let mut words = line.split_whitespace().rev();
        let time: f64 = words.next()?.parse().ok()?;
        let id = words.nth(3)?.parse().ok()?;
        Some((id, time)).filter(|_| time.is_finite())
    };
    list.lines().filter_map(domain).collect()
}

/// Notes the CPU time of each driver domain. Without `xl` there is none, except that of domains that count it themselves.
pub(crate) async fn note(snapshot: &mut Snapshot, toolstack: &impl Toolstack) {
    let times = match toolstack.xl(&["list"]).await {
        Ok(list) => parse(&list),
        Err(_) => BTreeMap::new(),
    };
    for domain in &mut snapshot.domains {
        // Finer, where the domain has `profile=on`.
        let own = domain.counts.get("running-us").map(|micros| *micros as f64 / 1e6);
        domain.cpu = own.or_else(|| times.get(&domain.id).copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_list() {
        let list = "Name                                        ID   Mem VCPUs\tState\tTime(s)\n\
                    Domain-0                                     0   512     2     r-----      54.3\n\
                    netdom                                       3     8     2     -b----       1.0\n\
                    a b                                          4   128     1     -b----       2.5\n\
                    (null)                                       5     0     1     --ps-d       0.7\n";
        assert_eq!(parse(list), BTreeMap::from([(0, 54.3), (3, 1.0), (4, 2.5), (5, 0.7)]));
    }
}

//! `oxidom stats`: all numbers, one a line, with their units. Pure. Host.

use serde_json::{Map, Value as Json, json};

use super::{Cell, table};
use crate::counters::{Sample, Value, samples};
use crate::model::Snapshot;

/// What a number is called beside its thing: `dropped queue-full`.
fn name(sample: &Sample) -> String {
    let family = sample.family.name;
    let own = family.split_once('_').map_or("", |(_, own)| own);
    let words: Vec<&str> =
        [own, sample.aspect.as_deref().unwrap_or_default()].into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ").replace('_', " ")
}

fn shown(value: Value) -> String {
    match value {
        Value::Whole(value) => value.to_string(),
        Value::Real(value) => format!("{value:.2}"),
    }
}

/// For people.
pub(crate) fn stats(snapshot: &Snapshot) -> String {
    let row = |sample: Sample| -> [Cell; 5] {
        [
            sample.thing.domain.clone().into(),
            sample.thing.shown.clone().into(),
            name(&sample).into(),
            shown(sample.value).into(),
            sample.family.unit.into(),
        ]
    };
    let rows: Vec<_> = samples(snapshot).into_iter().map(row).collect();
    match rows.as_slice() {
        [] => "no driver domain runs here\n".into(),
        rows => table(["DOMAIN", "OF", "COUNTER", "VALUE", "UNIT"], rows),
    }
}

/// For programs: the names and labels that the exporter has.
pub(crate) fn stats_json(snapshot: &Snapshot) -> Json {
    let one = |sample: Sample| {
        let family = sample.family;
        let name = [family.name, family.unit].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
        let mut labels: Map<String, Json> =
            sample.thing.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        labels.extend(family.aspect.zip(sample.aspect.clone()).map(|(name, value)| (name.to_owned(), value.into())));
        let value = match sample.value {
            Value::Whole(value) => json!(value),
            Value::Real(value) => json!(value),
        };
        json!({"domain": sample.thing.domain, "domid": sample.thing.domid, "name": name, "labels": labels, "value": value})
    };
    json!({"samples": samples(snapshot).into_iter().map(one).collect::<Vec<_>>(), "truncated": snapshot.truncated})
}

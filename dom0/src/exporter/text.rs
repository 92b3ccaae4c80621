//! A snapshot's numbers in OpenMetrics' text format. Pure. Host.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::counters::{ALL, Family, Kind, Sample, Value, samples};
use crate::model::Snapshot;

/// What stands before all names.
const PREFIX: &str = "oxidom";

/// A number with its labels.
#[derive(Debug)]
struct Point {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

/// All numbers, by family.
#[derive(Debug)]
struct Numbers {
    families: Vec<(&'static Family, Vec<Point>)>,
    images: Vec<Vec<(&'static str, String)>>,
}

fn point(sample: &Sample) -> Point {
    let Sample { family, thing, aspect, value } = sample;
    let mut labels = vec![("domain", thing.domain.clone()), ("domid", thing.domid.to_string())];
    labels.extend(thing.labels.iter().cloned());
    labels.extend(family.aspect.zip(aspect.clone()));
    Point { labels, value: *value }
}

fn unit(family: &Family) -> Option<Unit> {
    match family.unit {
        "" => None,
        "bytes" => Some(Unit::Bytes),
        "seconds" => Some(Unit::Seconds),
        unit => Some(Unit::Other(unit.to_owned())),
    }
}

impl Numbers {
    fn new(snapshot: &Snapshot) -> Self {
        let samples = samples(snapshot);
        let of = |family: &'static Family| samples.iter().filter(move |sample| sample.family == family).map(point);
        let families = ALL.into_iter().map(|family| (family, of(family).collect())).collect();
        let image = |(id, name, image): (u32, &String, &crate::model::Image)| {
            [
                ("domain", name.clone()),
                ("domid", id.to_string()),
                ("image", image.name.clone()),
                ("version", image.version.clone()),
            ]
            .to_vec()
        };
        let domains = snapshot
            .domains
            .iter()
            .filter(|domain| domain.is_vouched)
            .filter_map(|domain| Some((domain.id, &domain.name, domain.image.as_ref()?)));
        let store = snapshot.store.iter().filter_map(|store| Some((store.id, &store.name, store.image.as_ref()?)));
        Self { families, images: domains.chain(store).map(image).collect() }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric =
            encoder.encode_descriptor("domain_image", "The image that a domain runs", None, MetricType::Info)?;
        for labels in &self.images {
            metric.encode_info(labels)?;
        }
        for (family, points) in self.families.iter().filter(|(_, points)| !points.is_empty()) {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let unit = unit(family);
            let mut metric = encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
            for Point { labels, value } in points {
                let mut metric = metric.encode_family(labels)?;
                match (family.kind, *value) {
                    (Kind::Counter, Value::Whole(value)) => {
                        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?
                    }
                    (Kind::Counter, Value::Real(value)) => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                    // As the format's gauges are signed.
                    (Kind::Gauge, Value::Whole(value)) => {
                        metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
                    }
                    (Kind::Gauge, Value::Real(value)) => metric.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }
}

/// A snapshot for one answer.
#[derive(Debug)]
struct Once(Numbers);

impl Collector for Once {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(&mut encoder)
    }
}

/// The text.
///
/// # Errors
/// None: writing to a string does not fail.
pub(crate) fn text(snapshot: &Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Once(Numbers::new(snapshot))));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests;

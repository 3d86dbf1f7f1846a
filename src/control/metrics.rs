//! `GET /metrics`: a status and a few figures beside it as OpenMetrics text, made when somebody asks.
//!
//! [`families`] is the catalogue: every family with its type, unit, labels and meaning. `page` fills it. A value that is
//! not known has no sample, and a family without samples is left out: nobody may take the unknown for 0.
pub mod families;
mod page;

use self::families::{Family, Kind};
use self::page::Page;
use super::process::Usage;
use super::wire;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What metrics say beyond a status. All counts are since the agent began.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Seconds since 1970.
    pub started: f64,
    /// Of the agent's process alone.
    pub own: Option<Usage>,
    /// Seconds since each critical loop's heart beat.
    pub hearts: Vec<(&'static str, f64)>,
    /// In rank order, as in the status.
    pub tiers: Vec<TierFigures>,
    /// Every way down the chain, and every way up.
    pub failovers: Vec<Moves>,
    pub returns: Vec<Moves>,
    /// How often all tiers went down.
    pub outages: u64,
    pub failover_times: Histogram,
    /// Errors of our own, by code.
    pub errors: Vec<(&'static str, u64)>,
    pub dropped_log_lines: u64,
    /// Records and events that are lost.
    pub unwritten: u64,
}

#[derive(Clone, Debug, Default)]
pub struct TierFigures {
    pub first_content: Histogram,
    /// By cause of the end before; empty for a remote tier.
    pub restarts: Vec<(&'static str, u64)>,
}

/// How often serving moved from one rank to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moves {
    pub from: u16,
    pub to: u16,
    pub count: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The upper edge of each bucket in seconds, and how many values lie in it alone. The last edge is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Of all values, in seconds.
    pub sum: f64,
}

/// The whole text.
pub fn text(status: &wire::Status, figures: &Figures) -> String {
    let mut registry = Registry::with_prefix(families::PREFIX);
    registry.register_collector(Box::new(Page::new(status, figures)));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode(&mut text, &registry);
    text
}

/// One value of a family, with the values of its labels in the family's order.
#[derive(Clone, Debug)]
struct Sample {
    labels: Vec<String>,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    /// Says by its labels alone.
    Info,
    Count(u64),
    /// A counter of seconds.
    Spent(f64),
    Gauge(f64),
    Histogram(Histogram),
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (family, samples) in self.families() {
            let unit = family.unit.map(|unit| Unit::Other(unit.to_owned()));
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
            for sample in samples {
                sample.encode(family, &mut metric)?;
            }
        }
        Ok(())
    }
}

impl Sample {
    fn encode(&self, family: &Family, metric: &mut MetricEncoder) -> fmt::Result {
        let values = self.labels.iter().map(String::as_str);
        let labels: Vec<(&str, &str)> = family.labels.iter().copied().zip(values).collect();
        match &self.value {
            Value::Info => metric.encode_info(&labels),
            value if labels.is_empty() => value.encode(metric),
            value => value.encode(&mut metric.encode_family(&labels)?),
        }
    }
}

impl Value {
    fn encode(&self, metric: &mut MetricEncoder) -> fmt::Result {
        match self {
            // Its labels were written by the sample.
            Self::Info => Ok(()),
            Self::Count(count) => metric.encode_counter::<NoLabelSet, u64, f64>(count, None),
            Self::Spent(seconds) => metric.encode_counter::<NoLabelSet, f64, f64>(seconds, None),
            Self::Gauge(value) => metric.encode_gauge(value),
            Self::Histogram(Histogram { buckets, sum }) => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
        }
    }
}

#[cfg(test)]
mod tests;

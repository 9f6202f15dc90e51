//! The process's metrics as OTLP has them, made of the text that `/metrics` shows: one list of metrics, two ways out.
//!
//! It reads what [`crate::metrics`] writes and no more of OpenMetrics than that: counters, gauges, histograms.

use std::collections::BTreeMap;
use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;

type Labels = Vec<(String, String)>;

/// A metric with its samples, as the text has it.
#[derive(Debug, Default)]
struct Family {
    name: String,
    kind: String,
    help: String,
    unit: String,
    /// What stands behind the family's name, the labels, the value.
    samples: Vec<(String, Labels, f64)>,
}

/// Everything that the text tells, counted since `began`.
pub fn resource_metrics(
    text: &str,
    resource: &ResourceAttributesWithSchema,
    began: SystemTime,
    now: SystemTime,
) -> ResourceMetrics {
    let time = Times { began: nanos(began), now: nanos(now) };
    let metrics = families(text).into_iter().filter_map(|family| time.metric(family)).collect();
    let scope = InstrumentationScope {
        name: "pawl".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    ResourceMetrics {
        resource: Some(Resource { attributes: resource.attributes.0.clone(), ..Resource::default() }),
        scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
        schema_url: resource.schema_url.clone().unwrap_or_default(),
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(word), Some(name), Some(said)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family { name: name.to_owned(), ..Family::default() });
            }
            let Some(family) = families.last_mut() else { continue };
            match word {
                "TYPE" => family.kind = said.to_owned(),
                "HELP" => family.help = said.to_owned(),
                "UNIT" => family.unit = said.to_owned(),
                _ => {}
            }
        } else if let (Some(family), Some((name, labels, value))) = (families.last_mut(), sample(line))
            && let Some(suffix) = name.strip_prefix(&family.name)
        {
            family.samples.push((suffix.to_owned(), labels, value));
        }
    }
    families
}

/// Name, labels and value of a line.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = head.split_once('{') else { return Some((head, Vec::new(), value)) };
    let mut rest = labels.strip_suffix('}')?;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (label, quoted) = rest.split_once("=\"")?;
        let (text, after) = unescaped(quoted)?;
        labels.push((label.trim_start_matches(',').to_owned(), text));
        rest = after;
    }
    Some((name, labels, value))
}

/// A quoted text up to its closing quote, and what follows.
fn unescaped(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => text.push(other),
        }
    }
    None
}

struct Times {
    began: u64,
    now: u64,
}

impl Times {
    fn metric(&self, family: Family) -> Option<Metric> {
        let Family { name, kind, help, unit, samples } = family;
        let temporality = AggregationTemporality::Cumulative as i32;
        let data = match kind.as_str() {
            "counter" => metric::Data::Sum(Sum {
                data_points: self.numbers(samples, "_total", self.began),
                aggregation_temporality: temporality,
                is_monotonic: true,
            }),
            "gauge" => metric::Data::Gauge(Gauge { data_points: self.numbers(samples, "", 0) }),
            "histogram" => metric::Data::Histogram(Histogram {
                data_points: self.histograms(samples),
                aggregation_temporality: temporality,
            }),
            _ => return None,
        };
        // UCUM's name of the unit.
        let unit = match unit.as_str() {
            "seconds" => "s".to_owned(),
            "bytes" => "By".to_owned(),
            _ => unit,
        };
        Some(Metric { name, description: help, unit, data: Some(data), ..Metric::default() })
    }

    fn numbers(&self, samples: Vec<(String, Labels, f64)>, suffix: &str, began: u64) -> Vec<NumberDataPoint> {
        let own = samples.into_iter().filter(|(behind, ..)| behind == suffix);
        own.map(|(_, labels, value)| NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: began,
            time_unix_nano: self.now,
            value: Some(number_data_point::Value::AsDouble(value)),
            ..NumberDataPoint::default()
        })
        .collect()
    }

    /// OpenMetrics counts what lies below each bound, OTLP what lies between two.
    fn histograms(&self, samples: Vec<(String, Labels, f64)>) -> Vec<HistogramDataPoint> {
        let mut points: BTreeMap<Labels, HistogramDataPoint> = BTreeMap::new();
        let mut below: BTreeMap<Labels, f64> = BTreeMap::new();
        for (suffix, mut labels, value) in samples {
            let bound = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
            let point = points.entry(labels.clone()).or_insert_with(|| HistogramDataPoint {
                attributes: attributes(labels.clone()),
                start_time_unix_nano: self.began,
                time_unix_nano: self.now,
                ..HistogramDataPoint::default()
            });
            match (suffix.as_str(), bound.and_then(|bound| bound.parse::<f64>().ok())) {
                ("_sum", _) => point.sum = Some(value),
                ("_count", _) => point.count = value as u64,
                ("_bucket", bound) => {
                    point.explicit_bounds.extend(bound.filter(|bound| bound.is_finite()));
                    let before = below.insert(labels, value).unwrap_or_default();
                    point.bucket_counts.push((value - before) as u64);
                }
                _ => {}
            }
        }
        points.into_values().collect()
    }
}

fn attributes(labels: Labels) -> Vec<KeyValue> {
    let value = |text| Some(AnyValue { value: Some(any_value::Value::StringValue(text)) });
    let pairs = labels.into_iter();
    pairs.map(|(key, text)| KeyValue { key, value: value(text), ..KeyValue::default() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP pawl_retries Attempts beyond the first.\n\
        # TYPE pawl_retries counter\n\
        pawl_retries_total{handler=\"a\\\"b\\\\c\\nd,e=}\"} 7\n\
        pawl_retries_total{handler=\"mail\"} 0\n\
        # HELP pawl_parked Lanes.\n\
        # TYPE pawl_parked gauge\n\
        pawl_parked{handler=\"mail\",partition=\"3\"} -1\n\
        # HELP pawl_epoch_commit_seconds Time.\n\
        # TYPE pawl_epoch_commit_seconds histogram\n\
        # UNIT pawl_epoch_commit_seconds seconds\n\
        pawl_epoch_commit_seconds_sum{handler=\"mail\"} 60.003\n\
        pawl_epoch_commit_seconds_count{handler=\"mail\"} 3\n\
        pawl_epoch_commit_seconds_bucket{le=\"0.002\",handler=\"mail\"} 0\n\
        pawl_epoch_commit_seconds_bucket{le=\"0.004\",handler=\"mail\"} 2\n\
        pawl_epoch_commit_seconds_bucket{le=\"+Inf\",handler=\"mail\"} 3\n\
        # EOF\n";

    fn metrics() -> Vec<Metric> {
        let times = Times { began: 1, now: 2 };
        families(TEXT).into_iter().filter_map(|family| times.metric(family)).collect()
    }

    fn labels(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
        let text = |value: &AnyValue| match &value.value {
            Some(any_value::Value::StringValue(text)) => text.as_str().to_owned().leak() as &str,
            other => panic!("{other:?}"),
        };
        attributes.iter().map(|pair| (pair.key.as_str(), text(pair.value.as_ref().unwrap()))).collect()
    }

    #[test]
    fn counters_and_gauges_keep_names_labels_and_values() {
        let metrics = metrics();
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["pawl_retries", "pawl_parked", "pawl_epoch_commit_seconds"]);
        let Some(metric::Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert!(sum.is_monotonic);
        assert_eq!(labels(&sum.data_points[0].attributes), [("handler", "a\"b\\c\nd,e=}")]);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(7.0)));
        assert_eq!((sum.data_points[1].start_time_unix_nano, sum.data_points[1].time_unix_nano), (1, 2));
        let Some(metric::Data::Gauge(gauge)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
        assert_eq!(labels(&gauge.data_points[0].attributes), [("handler", "mail"), ("partition", "3")]);
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(-1.0)));
    }

    #[test]
    fn a_histogram_counts_between_its_bounds() {
        let metrics = metrics();
        let Some(metric::Data::Histogram(histogram)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
        let point = &histogram.data_points[0];
        assert_eq!(metrics[2].unit, "s");
        assert_eq!(
            (&point.explicit_bounds[..], &point.bucket_counts[..]),
            (&[0.002, 0.004][..], &[0, 2, 1][..])
        );
        assert_eq!((point.count, point.sum), (3, Some(60.003)));
        assert_eq!(labels(&point.attributes), [("handler", "mail")]);
    }

    #[test]
    fn everything_that_the_process_shows_is_read() {
        let text = crate::metrics::Metrics::new(Vec::new(), std::time::Duration::ZERO).text().unwrap();
        let shown = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        let times = Times { began: 1, now: 2 };
        let read = families(&text).into_iter().filter_map(|family| times.metric(family)).count();
        assert_eq!((read, shown > 20), (shown, true), "{text}");
    }
}

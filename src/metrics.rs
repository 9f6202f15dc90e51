//! Every metric's name and meaning, in one place: what `/metrics` shows to Prometheus.
//!
//! `partitions.rs` has those of partitions, `process.rs` and `readiness.rs` what nobody counts, `classic.rs` all in the
//! older form of the text. Deliberately absent: counting. The actors count in
//! [`HandlerStats`](pawl_actors::stats::HandlerStats); a scrape reads it. Keys and topics of records are never labels: they have no bound.

mod classic;
mod credentials;
mod partitions;
mod process;
mod readiness;

use std::fmt::Error;
use std::sync::Arc;
use std::time::Duration;

use pawl_actors::outcome::FailureClass;
use pawl_actors::stats::HandlerStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::observed::{Bounds, EpochCommitTimes, HandlerView};

/// The content type of [`Metrics::text`]: OpenMetrics 1.0, which Prometheus reads.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of [`Metrics::classic_text`].
pub const CLASSIC_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// The metrics of these handlers and of the process itself. A partition that has lag counts as ready no more when
    /// it got no further for `stalled_after`, as for `/ready`.
    pub fn new(handlers: Vec<HandlerView>, stalled_after: Duration) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(readiness::Ready { handlers: handlers.clone(), stalled_after }));
        let handlers = handlers.into_iter().map(Handler::new).collect();
        registry.register_collector(Box::new(Handlers(handlers)));
        registry.register_collector(Box::new(process::Process::default()));
        registry.register_collector(Box::new(credentials::Credentials));
        Metrics { registry }
    }

    /// Adds a metric that is counted elsewhere.
    pub fn register(&mut self, name: &str, help: &str, metric: impl prometheus_client::registry::Metric) {
        self.registry.register(name, help, metric);
    }

    /// The same with further ones of the process, which this collector tells.
    pub fn with(mut self, collector: impl Collector) -> Self {
        self.registry.register_collector(Box::new(collector));
        self
    }

    /// The values now, in OpenMetrics text.
    pub fn text(&self) -> Result<String, Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// The same in Prometheus's older text format, for scrapers that do not ask for OpenMetrics.
    pub fn classic_text(&self) -> Result<String, Error> {
        self.text().map(|text| classic::classic(&text))
    }
}

/// A count of a handler: name (shown with `_total`), help, value.
type HandlerCount = (&'static str, &'static str, fn(&HandlerStats) -> u64);

const HANDLER_COUNTS: &[HandlerCount] = &[
    ("pawl_records_received", "Records whose first result is durable", |stats| stats.received.get()),
    ("pawl_records_applied", "Records whose effects are durable", |stats| stats.applied.get()),
    ("pawl_duplicates", "Records recognised as a producer's duplicate", |stats| stats.duplicates.get()),
    ("pawl_redelivered", "Records delivered again that the ledger knew", |stats| stats.redelivered.get()),
    ("pawl_retries", "Attempts beyond the first", |stats| stats.retries.get()),
    ("pawl_dead_letters", "Records written to the dead-letter topic", |stats| stats.dead_letters.get()),
    ("pawl_breaker_opened", "How often the breaker has opened", |stats| stats.breaker.opened.get()),
    ("pawl_letters_replayed", "Dead letters that a replay made applied or duplicates", |stats| {
        stats.replayed.get()
    }),
    ("pawl_commands", "Commands of operators, carried out or refused, in each partition", |stats| {
        stats.commands.get()
    }),
    ("pawl_sequence_gaps", "Numbers, or runs of them, missing in a sequence for too long", |stats| {
        stats.gaps.get()
    }),
    ("pawl_keys_quarantined", "Keys that went into quarantine", |stats| stats.quarantined.get()),
    ("pawl_rebalances", "Assignments and revocations", |stats| stats.rebalances.get()),
    ("pawl_restarts", "Parts of Pawl that came to a bad end and were begun anew", |stats| {
        stats.restarts.count.get()
    }),
    ("pawl_event_id_conflicts", "Event ids that came again with another payload", |stats| {
        stats.id_conflicts.get()
    }),
];

/// A value of a handler: name, help, value.
type HandlerValue = (&'static str, &'static str, fn(&HandlerStats) -> i64);

const HANDLER_VALUES: &[HandlerValue] = &[
    ("pawl_in_flight", "Calls at the handler now", |stats| stats.in_flight.get()),
    ("pawl_breaker_open", "1 while the handler is taken for down, else 0", |stats| {
        i64::from(stats.breaker.open().is_some())
    }),
    ("pawl_parked", "Lanes that wait for a retry now", |stats| stats.parked.get()),
    ("pawl_unwritten", "1 while an attempt to write what is done has failed, else 0", |stats| {
        i64::from(stats.unwritten().is_some())
    }),
];

/// A bound that the settings set: name, help, value.
type Bound = (&'static str, &'static str, fn(&Bounds) -> u64);

const BOUNDS: &[Bound] = &[
    ("pawl_in_flight_bound", "Calls at the handler, at most", |bounds| bounds.in_flight),
    ("pawl_outstanding_records_bound", "pawl_outstanding_records at which the intake stops", |bounds| {
        bounds.outstanding_records
    }),
    ("pawl_outstanding_bytes_bound", "pawl_outstanding_bytes at which the intake stops", |bounds| {
        bounds.outstanding_bytes
    }),
    ("pawl_parked_records_bound", "pawl_parked_records of a partition, at most", |bounds| {
        bounds.parked_records
    }),
    ("pawl_parked_bytes_bound", "pawl_parked_bytes of a partition, at most", |bounds| bounds.parked_bytes),
];

/// A handler and its labels as they are written.
#[derive(Debug)]
struct Handler {
    name: String,
    group: String,
    topic: String,
    stats: Arc<HandlerStats>,
    epoch_commit_times: EpochCommitTimes,
    bounds: Bounds,
}

impl Handler {
    fn new(view: HandlerView) -> Self {
        Handler {
            name: escaped(&view.name),
            group: escaped(&view.group),
            topic: escaped(&view.topic),
            stats: view.stats,
            epoch_commit_times: view.epoch_commit_times,
            bounds: view.bounds,
        }
    }

    fn label(&self) -> (&'static str, &str) {
        ("handler", &self.name)
    }
}

/// A label's value with what the text format wants escaped, which the library leaves to us.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[derive(Debug)]
struct Handlers(Vec<Handler>);

impl Collector for Handlers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        for (name, help, value) in HANDLER_COUNTS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for handler in &self.0 {
                let count = value(&handler.stats);
                metric
                    .encode_family(&[handler.label()])?
                    .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
            }
        }
        for (name, help, value) in HANDLER_VALUES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for handler in &self.0 {
                metric.encode_family(&[handler.label()])?.encode_gauge(&value(&handler.stats))?;
            }
        }
        for (name, help, value) in BOUNDS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for handler in &self.0 {
                metric.encode_family(&[handler.label()])?.encode_gauge(&value(&handler.bounds))?;
            }
        }
        self.encode_failures(&mut encoder)?;
        self.encode_commit_times(&mut encoder)?;

        // Read once, so that a rebalance in the middle of a scrape does not tear it.
        let partitions: Vec<_> = self.0.iter().flat_map(partitions::HeldPartition::of).collect();
        partitions::encode(&partitions, &mut encoder)
    }
}

impl Handlers {
    fn encode_failures(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        let help = "Failed attempts by class";
        let mut metric = encoder.encode_descriptor("pawl_failures", help, None, MetricType::Counter)?;
        for handler in &self.0 {
            for class in FailureClass::ALL {
                let count = handler.stats.failures(class).get();
                let labels = [handler.label(), ("class", class.name())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn encode_commit_times(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        let help = "Time of an epoch commit, from its first epoch to knowing that all is durable";
        let (unit, histogram) = (Some(&Unit::Seconds), MetricType::Histogram);
        let mut metric = encoder.encode_descriptor("pawl_epoch_commit", help, unit, histogram)?;
        for handler in &self.0 {
            handler.epoch_commit_times.histogram().encode(metric.encode_family(&[handler.label()])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pawl_actors::record::Partition;
    use pawl_actors::stats::PartitionPhase;

    use super::*;

    fn view(name: &str) -> HandlerView {
        HandlerView {
            name: name.into(),
            group: "accounts".into(),
            topic: "orders".into(),
            stats: Arc::default(),
            epoch_commit_times: EpochCommitTimes::default(),
            keys: Arc::default(),
            supervision: Default::default(),
            bounds: Bounds { parked_records: 10_000, ..Bounds::default() },
        }
    }

    fn of(views: Vec<HandlerView>) -> Metrics {
        Metrics::new(views, Duration::from_secs(60))
    }

    #[track_caller]
    fn check(views: &[&HandlerView], lines: &[&str]) {
        let text = of(views.iter().map(|view| (*view).clone()).collect()).text().unwrap();
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{text}\nlacks {line}");
        }
    }

    #[test]
    fn every_count_of_a_handler_is_shown_under_its_own_name() {
        let billing = view("billing");
        let stats = &billing.stats;
        stats.received.add(1);
        stats.applied.add(2);
        stats.duplicates.add(3);
        stats.redelivered.add(4);
        stats.retries.add(5);
        stats.dead_letters.add(6);
        stats.rebalances.add(7);
        stats.id_conflicts.add(8);
        stats.failures(FailureClass::Transient).add(9);
        stats.failures(FailureClass::Permanent).add(10);
        stats.in_flight.set(11);
        stats.parked.set(12);
        stats.set_unwritten(Some("no answer".into()));
        stats.breaker.opened.add(13);
        stats.replayed.add(14);
        stats.commands.add(15);
        stats.gaps.add(16);
        stats.quarantined.add(17);
        stats.restarts.count.add(18);
        check(
            &[&billing],
            &[
                "pawl_records_received_total{handler=\"billing\"} 1",
                "pawl_records_applied_total{handler=\"billing\"} 2",
                "pawl_duplicates_total{handler=\"billing\"} 3",
                "pawl_redelivered_total{handler=\"billing\"} 4",
                "pawl_retries_total{handler=\"billing\"} 5",
                "pawl_dead_letters_total{handler=\"billing\"} 6",
                "pawl_rebalances_total{handler=\"billing\"} 7",
                "pawl_event_id_conflicts_total{handler=\"billing\"} 8",
                "pawl_failures_total{handler=\"billing\",class=\"transient\"} 9",
                "pawl_failures_total{handler=\"billing\",class=\"permanent\"} 10",
                "pawl_failures_total{handler=\"billing\",class=\"fatal\"} 0",
                "pawl_in_flight{handler=\"billing\"} 11",
                "pawl_parked{handler=\"billing\"} 12",
                "pawl_parked_records_bound{handler=\"billing\"} 10000",
                "pawl_unwritten{handler=\"billing\"} 1",
                "pawl_breaker_opened_total{handler=\"billing\"} 13",
                "pawl_letters_replayed_total{handler=\"billing\"} 14",
                "pawl_commands_total{handler=\"billing\"} 15",
                "pawl_sequence_gaps_total{handler=\"billing\"} 16",
                "pawl_keys_quarantined_total{handler=\"billing\"} 17",
                "pawl_restarts_total{handler=\"billing\"} 18",
            ],
        );
    }

    /// Those of the endpoint and of telemetry are registered by them.
    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let text = of(vec![view("billing")]).text().unwrap();
        let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let total = |kind: &str| if kind == "counter" { "_total" } else { "" };
        let mut shown: Vec<String> = described.map(|(name, kind)| format!("{name}{}", total(kind))).collect();
        let page = include_str!("../docs/operations.md");
        let rows = page.lines().filter_map(|line| line.split_once(" | "));
        let rows = rows.filter(|(_, rest)| {
            ["counter |", "gauge |", "histogram |"].iter().any(|kind| rest.starts_with(kind))
        });
        let names = rows.flat_map(|(names, _)| names.split('`').skip(1).step_by(2));
        let elsewhere = ["pawl_admin_", "pawl_telemetry_"];
        let names = names.filter(|name| !elsewhere.iter().any(|prefix| name.starts_with(prefix)));
        let told = |name: &&str| cfg!(target_os = "linux") || *name != "process_resident_memory_bytes";
        let mut listed: Vec<String> = names.filter(told).map(str::to_owned).collect();
        shown.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, shown, "docs/operations.md is not what /metrics shows");
    }

    #[test]
    fn a_partition_shows_its_phase_its_lag_and_what_it_holds() {
        let billing = view("billing");
        let partition = billing.stats.assigned(Partition(3));
        partition.set_phase(PartitionPhase::Running);
        partition.watermark.set(100);
        partition.end.set(142);
        partition.outstanding_records.set(5);
        partition.outstanding_bytes.set(600);
        partition.live_keys.set(4);
        partition.restore_left.set(9);
        partition.paused.set(1);
        partition.last_progress.set(1_700_000_000_123);
        check(
            &[&billing],
            &[
                "kafka_consumergroup_lag{consumergroup=\"accounts\",topic=\"orders\",partition=\"3\"} 42",
                "pawl_partition_phase{handler=\"billing\",partition=\"3\",phase=\"running\"} 1",
                "pawl_partition_phase{handler=\"billing\",partition=\"3\",phase=\"claiming\"} 0",
                "pawl_outstanding_records{handler=\"billing\",partition=\"3\"} 5",
                "pawl_outstanding_bytes{handler=\"billing\",partition=\"3\"} 600",
                "pawl_live_keys{handler=\"billing\",partition=\"3\"} 4",
                "pawl_restore_records_left{handler=\"billing\",partition=\"3\"} 9",
                "pawl_last_progress_seconds{handler=\"billing\",partition=\"3\"} 1700000000",
                "pawl_intake_stopped{handler=\"billing\",partition=\"3\",reason=\"outstanding\"} 1",
                "pawl_intake_stopped{handler=\"billing\",partition=\"3\",reason=\"parking\"} 0",
            ],
        );
        partition.end.set(-1);
        let text = of(vec![billing.clone()]).text().unwrap();
        assert!(!text.contains("kafka_consumergroup_lag{"), "an unknown end has no lag: {text}");
        billing.stats.released(Partition(3));
        let text = of(vec![billing]).text().unwrap();
        assert!(!text.contains("partition="), "a released partition is not shown: {text}");
    }

    #[test]
    fn commit_times_fall_into_buckets() {
        let billing = view("billing");
        billing.epoch_commit_times.observe(Duration::from_millis(3));
        billing.epoch_commit_times.observe(Duration::from_secs(60));
        check(
            &[&billing],
            &[
                "pawl_epoch_commit_seconds_count{handler=\"billing\"} 2",
                "pawl_epoch_commit_seconds_sum{handler=\"billing\"} 60.003",
                "pawl_epoch_commit_seconds_bucket{le=\"0.002\",handler=\"billing\"} 0",
                "pawl_epoch_commit_seconds_bucket{le=\"0.004\",handler=\"billing\"} 1",
                "pawl_epoch_commit_seconds_bucket{le=\"+Inf\",handler=\"billing\"} 2",
            ],
        );
    }

    #[test]
    fn each_metric_is_described_once_however_many_handlers_there_are() {
        let text = of(vec![view("billing"), view("mail")]).text().unwrap();
        let mut described: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = described.len();
        described.sort_unstable();
        described.dedup();
        assert_eq!(described.len(), all, "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_name_that_needs_escaping_does_not_break_the_format() {
        check(&[&view("a\"b\\c\nd")], &["pawl_parked{handler=\"a\\\"b\\\\c\\nd\"} 0"]);
    }
}

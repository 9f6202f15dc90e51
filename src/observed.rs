//! What a handler shows of itself while it runs: its names, what its actors count, and how long
//! its commits take.

use std::sync::Arc;
use std::time::Duration;

use pawl_actors::stats::HandlerStats;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::looking::window::Window;
use crate::settings::{HandlerSettings, Supervision};

/// How long a handler's epoch commits take. Clones share one histogram.
#[derive(Clone, Debug)]
pub struct EpochCommitTimes(Histogram);

impl EpochCommitTimes {
    /// For the registry of the metrics.
    pub fn histogram(&self) -> &Histogram {
        &self.0
    }

    /// Counts one epoch commit by the time from when the writer takes its first epoch to knowing that it is
    /// durable.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

impl Default for EpochCommitTimes {
    /// 14 buckets from 1 ms to 8.2 s, each twice the one before.
    fn default() -> Self {
        EpochCommitTimes(Histogram::new(exponential_buckets(0.001, 2.0, 14)))
    }
}

/// A handler as the process's endpoint shows it.
#[derive(Clone, Debug)]
pub struct HandlerView {
    /// Name in the settings.
    pub name: Arc<str>,
    /// Consumer group.
    pub group: Arc<str>,
    /// Input topic.
    pub topic: Arc<str>,
    /// What its actors count.
    pub stats: Arc<HandlerStats>,
    /// What its writer thread observes.
    pub epoch_commit_times: EpochCommitTimes,
    /// What it shows of its keys.
    pub keys: Arc<Window>,
    /// How often a part of it may be begun anew.
    pub supervision: Supervision,
    /// What its settings bound.
    pub bounds: Bounds,
}

/// Bounds of a handler, to be shown beside what they bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Calls at once.
    pub in_flight: u64,
    /// Records of a partition that are not durable.
    pub outstanding_records: u64,
    /// Their bytes.
    pub outstanding_bytes: u64,
    /// Records of a partition in parked rows.
    pub parked_records: u64,
    /// Their bytes.
    pub parked_bytes: u64,
}

impl Bounds {
    fn of(settings: &HandlerSettings) -> Self {
        let HandlerSettings { intake, parking, http, program, .. } = settings;
        let of_http = http.as_ref().map(|http| http.max_in_flight);
        let of_program = program.as_ref().map(|program| program.max_in_flight);
        Bounds {
            // Forwarding waits for nothing.
            in_flight: of_http.or(of_program).unwrap_or(u32::MAX).into(),
            outstanding_records: intake.max_records.into(),
            outstanding_bytes: intake.max_bytes.bytes(),
            parked_records: parking.max_records.into(),
            parked_bytes: parking.max_bytes.bytes(),
        }
    }
}

impl HandlerView {
    /// Of a handler that has not been started yet.
    pub fn new(name: &str, settings: &HandlerSettings) -> Self {
        HandlerView {
            name: name.into(),
            group: settings.group(name).into(),
            topic: settings.topic.as_str().into(),
            stats: Arc::default(),
            epoch_commit_times: EpochCommitTimes::default(),
            keys: Arc::default(),
            supervision: settings.supervision,
            bounds: Bounds::of(settings),
        }
    }
}

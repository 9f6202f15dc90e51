//! What became of telemetry, as metrics of the process.

use std::fmt::Error;

use pawl_actors::stats::Counter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Counts of one process.
#[derive(Debug, Default)]
pub struct TelemetryStats {
    /// Spans that the endpoint has taken.
    pub sent: Counter,
    /// Spans that found the queue full.
    pub queue_full: Counter,
    /// Spans that the endpoint did not take, or not in time.
    pub not_taken: Counter,
}

impl TelemetryStats {
    /// Spans that were recorded and are lost.
    pub fn dropped(&self) -> u64 {
        self.queue_full.get() + self.not_taken.get()
    }
}

/// Shows the counts beside the process's other metrics.
#[derive(Debug)]
pub struct Shown(pub std::sync::Arc<TelemetryStats>);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let help = "Spans that the OTLP endpoint has taken";
        let counter = MetricType::Counter;
        let mut metric = encoder.encode_descriptor("pawl_telemetry_spans_sent", help, None, counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&self.0.sent.get(), None)?;
        let help = "Spans that were recorded and are lost, by reason";
        let mut metric = encoder.encode_descriptor("pawl_telemetry_spans_dropped", help, None, counter)?;
        for (reason, count) in [("queue-full", &self.0.queue_full), ("not-taken", &self.0.not_taken)] {
            let labels = [("reason", reason)];
            let mut labelled = metric.encode_family(&labels)?;
            labelled.encode_counter::<NoLabelSet, _, f64>(&count.get(), None)?;
        }
        Ok(())
    }
}

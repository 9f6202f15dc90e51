//! What `/ready` says, as metrics: for alerts, which cannot ask it.

use std::fmt::Error;
use std::time::Duration;

use pawl_actors::clock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::escaped;
use crate::admin::judge_handlers;
use crate::observed::HandlerView;

/// Judges at each scrape.
#[derive(Debug)]
pub struct Ready {
    pub handlers: Vec<HandlerView>,
    pub stalled_after: Duration,
}

impl Collector for Ready {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let judged = judge_handlers(&self.handlers, clock::now(), self.stalled_after);
        let names: Vec<String> = judged.iter().map(|handler| escaped(&handler.name)).collect();
        let gauge = MetricType::Gauge;
        let help = "1 while the handler takes in records and gets on, else 0";
        let mut metric = encoder.encode_descriptor("pawl_handler_ready", help, None, gauge)?;
        for (handler, name) in judged.iter().zip(&names) {
            let labels = [("handler", name.as_str())];
            metric.encode_family(&labels)?.encode_gauge(&i64::from(handler.ready))?;
        }
        let help = "1 while the partition takes in records and gets on, else 0; /ready says why not";
        let mut metric = encoder.encode_descriptor("pawl_partition_ready", help, None, gauge)?;
        for (handler, name) in judged.iter().zip(&names) {
            for partition in &handler.partitions {
                let number = partition.partition.to_string();
                let labels = [("handler", name.as_str()), ("partition", number.as_str())];
                metric.encode_family(&labels)?.encode_gauge(&i64::from(partition.ready))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pawl_actors::record::Partition;
    use pawl_actors::stats::PartitionPhase;

    use super::*;
    use crate::metrics::Metrics;
    use crate::settings::HandlerSettings;

    #[test]
    fn a_partition_that_does_not_get_on_shows_it() {
        let view = HandlerView::new("billing", &HandlerSettings::default());
        view.stats.rebalances.add(1);
        for (partition, lag) in [(0, 0), (1, 5)] {
            let stats = view.stats.assigned(Partition(partition));
            stats.set_phase(PartitionPhase::Running);
            stats.watermark.set(100);
            stats.end.set(100 + lag);
            stats.last_progress.set(1);
        }
        let text = Metrics::new(vec![view], Duration::from_secs(60)).text().unwrap();
        for line in [
            "pawl_handler_ready{handler=\"billing\"} 0",
            "pawl_partition_ready{handler=\"billing\",partition=\"0\"} 1",
            "pawl_partition_ready{handler=\"billing\",partition=\"1\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}\nlacks {line}");
        }
    }
}

//! What is shown of each partition that is held.

use std::fmt::Error;
use std::sync::Arc;

use pawl_actors::stats::{HandlerStats, PartitionPhase, PartitionStats};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Handler;

/// A value of a partition: name, help, value.
type PartitionValue = (&'static str, &'static str, fn(&PartitionStats) -> i64);

const PARTITION_VALUES: &[PartitionValue] = &[
    ("pawl_outstanding_records", "Records taken from Kafka that are not durable yet", |stats| {
        stats.outstanding_records.get()
    }),
    ("pawl_outstanding_bytes", "Bytes of the records that are not durable yet", |stats| {
        stats.outstanding_bytes.get()
    }),
    (
        "pawl_parked_records",
        "Records in the ledger that wait for a retry, or behind one that does",
        |stats| stats.parked_records.get(),
    ),
    ("pawl_parked_bytes", "Bytes of the records that wait in the ledger", |stats| stats.parked_bytes.get()),
    ("pawl_parking_full", "1 while keys wait that found no room in the ledger, else 0", |stats| {
        i64::from(stats.parking_full().is_some())
    }),
    ("pawl_careful", "1 while one record of the partition runs at a time, else 0", |stats| {
        i64::from(stats.careful().is_some())
    }),
    ("pawl_live_keys", "Keys with a live order actor", |stats| stats.live_keys.get()),
    ("pawl_finished_ahead_records", "Records received from the first unfinished one on", |stats| {
        stats.ahead.get()
    }),
    ("pawl_undecided_offsets", "Offsets that a producer's open transaction holds back", |stats| {
        stats.undecided.get()
    }),
    ("pawl_last_progress_seconds", "When something was committed last, in seconds since 1970", |stats| {
        stats.last_progress.get() / 1_000
    }),
    ("pawl_restore_records_left", "Records of the changelog still to be read, about", |stats| {
        stats.restore_left.get()
    }),
];

/// Why a partition's intake stands still: name, and whether that is so.
type IntakeStop = (&'static str, fn(&HandlerStats, &PartitionStats) -> bool);

const INTAKE_STOPS: [IntakeStop; 4] = [
    ("outstanding", |_, partition| partition.paused.get() > 0),
    ("parking", |_, partition| partition.parking_full().is_some()),
    ("breaker", |handler, _| handler.breaker.open().is_some()),
    ("standing-still", |_, partition| partition.phase() == PartitionPhase::Stopped),
];

const PHASES: [PartitionPhase; 5] = [
    PartitionPhase::Claiming,
    PartitionPhase::Restoring,
    PartitionPhase::Running,
    PartitionPhase::Draining,
    PartitionPhase::Stopped,
];

/// A partition that is held, and whose it is.
pub(super) struct HeldPartition<'a> {
    handler: &'a Handler,
    number: String,
    stats: Arc<PartitionStats>,
}

impl<'a> HeldPartition<'a> {
    /// All of a handler.
    pub(super) fn of(handler: &'a Handler) -> Vec<Self> {
        let held = handler.stats.partitions().into_iter();
        held.map(|(partition, stats)| HeldPartition { handler, number: partition.to_string(), stats })
            .collect()
    }

    fn label(&self) -> (&'static str, &str) {
        ("partition", &self.number)
    }
}

/// Everything that is shown of these partitions.
pub(super) fn encode(held: &[HeldPartition], encoder: &mut DescriptorEncoder) -> Result<(), Error> {
    encode_values(held, encoder)?;
    encode_phases(held, encoder)?;
    encode_intake_stops(held, encoder)?;
    encode_lags(held, encoder)
}

fn encode_values(held: &[HeldPartition], encoder: &mut DescriptorEncoder) -> Result<(), Error> {
    for (name, help, value) in PARTITION_VALUES {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for partition in held {
            let labels = [partition.handler.label(), partition.label()];
            metric.encode_family(&labels)?.encode_gauge(&value(&partition.stats))?;
        }
    }
    Ok(())
}

fn encode_phases(held: &[HeldPartition], encoder: &mut DescriptorEncoder) -> Result<(), Error> {
    let help = "1 for the phase that the partition is in, 0 for the others";
    let mut metric = encoder.encode_descriptor("pawl_partition_phase", help, None, MetricType::Gauge)?;
    for partition in held {
        let current = partition.stats.phase();
        for phase in PHASES {
            let labels = [partition.handler.label(), partition.label(), ("phase", phase.name())];
            metric.encode_family(&labels)?.encode_gauge(&i64::from(phase == current))?;
        }
    }
    Ok(())
}

fn encode_intake_stops(held: &[HeldPartition], encoder: &mut DescriptorEncoder) -> Result<(), Error> {
    let help = "1 for each reason for which no record is taken in now, 0 for the others";
    let mut metric = encoder.encode_descriptor("pawl_intake_stopped", help, None, MetricType::Gauge)?;
    for partition in held {
        for (reason, is) in INTAKE_STOPS {
            let labels = [partition.handler.label(), partition.label(), ("reason", reason)];
            let stopped = is(&partition.handler.stats, &partition.stats);
            metric.encode_family(&labels)?.encode_gauge(&i64::from(stopped))?;
        }
    }
    Ok(())
}

/// The name and labels are those of Kafka's common exporters, so that their dashboards fit. A
/// partition whose end is not known yet has no sample.
fn encode_lags(held: &[HeldPartition], encoder: &mut DescriptorEncoder) -> Result<(), Error> {
    let help = "Records between the committed watermark and the end of the partition";
    let mut metric = encoder.encode_descriptor("kafka_consumergroup_lag", help, None, MetricType::Gauge)?;
    for partition in held {
        let Some(lag) = partition.stats.lag() else { continue };
        let handler = partition.handler;
        let labels =
            [("consumergroup", handler.group.as_str()), ("topic", &handler.topic), partition.label()];
        metric.encode_family(&labels)?.encode_gauge(&lag)?;
    }
    Ok(())
}

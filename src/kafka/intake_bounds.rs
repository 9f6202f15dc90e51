//! How much of a partition is taken in before its handler is done with it. Pure.

use pawl_actors::stats::PartitionStats;

/// Bounds of a partition's intake.
#[derive(Clone, Copy, Debug)]
pub struct IntakeBounds {
    /// Records taken in and not yet durable.
    pub records: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Records received from the first unfinished one on.
    pub ahead: i64,
}

impl IntakeBounds {
    /// Whether a bound is met.
    pub fn full(&self, stats: &PartitionStats) -> bool {
        stats.outstanding_records.get() >= self.records
            || stats.outstanding_bytes.get() >= self.bytes
            || stats.ahead.get() >= self.ahead
    }

    /// Whether a paused partition goes on: only when half of its room is free again, because what librdkafka had
    /// fetched ahead was thrown away by the pause.
    pub fn roomy(&self, stats: &PartitionStats) -> bool {
        stats.outstanding_records.get() <= self.records / 2
            && stats.outstanding_bytes.get() <= self.bytes / 2
            && stats.ahead.get() <= self.ahead / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: IntakeBounds = IntakeBounds { records: 10, bytes: 1_000, ahead: 100 };

    #[test]
    fn any_bound_that_is_met_stops_the_intake_until_half_of_it_is_free() {
        let stats = PartitionStats::default();
        assert!(!BOUNDS.full(&stats) && BOUNDS.roomy(&stats));
        stats.outstanding_bytes.set(1_000);
        assert!(BOUNDS.full(&stats));
        stats.outstanding_bytes.set(700);
        assert!(!BOUNDS.full(&stats) && !BOUNDS.roomy(&stats), "between the two nothing changes");
        stats.outstanding_bytes.set(500);
        assert!(BOUNDS.roomy(&stats));
        stats.ahead.set(100);
        assert!(BOUNDS.full(&stats));
        stats.ahead.set(0);
        stats.outstanding_records.set(10);
        assert!(BOUNDS.full(&stats));
    }
}

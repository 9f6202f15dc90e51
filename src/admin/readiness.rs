//! Whether the process is ready: every partition that it holds takes in records and gets on.
//!
//! Deliberately absent: clocks and memory. The time is an argument, the rest is read from
//! [`HandlerStats`](pawl_actors::stats::HandlerStats).

use std::time::Duration;

use pawl_actors::record::{Millis, Partition};
use pawl_actors::stats::{PartitionPhase, PartitionStats};
use serde::Serialize;

use crate::kafka::access;
use crate::observed::HandlerView;

/// The state of the whole process, as `/ready` shows it.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// Whether every handler is ready, and what Pawl comes to the brokers with has not ended.
    pub ready: bool,
    /// As whom Pawl comes to the brokers, and whether the next token can be had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<access::Status>,
    /// In the order of the settings.
    pub handlers: Vec<HandlerReadiness>,
}

/// The state of one handler.
#[derive(Debug, Serialize)]
pub struct HandlerReadiness {
    /// Its name in the settings.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// Its input topic.
    pub topic: String,
    /// Whether it was assigned something once and every partition it holds is ready.
    pub ready: bool,
    /// Why the handler itself is not ready, whatever its partitions say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why the breaker is open; it is closed if there is nothing. Pawl itself is ready then: a restart would
    /// change nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// The partitions it holds, in order.
    pub partitions: Vec<PartitionReadiness>,
}

/// The state of one partition.
#[derive(Debug, Serialize)]
pub struct PartitionReadiness {
    /// Its number.
    pub partition: i32,
    /// Its phase, see [`PartitionPhase`].
    pub phase: &'static str,
    /// Records that are not durable yet; `null` as long as the broker has not told the end.
    pub lag: Option<u64>,
    /// Whether it takes in records and gets on.
    pub ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Records that wait for a retry in the ledger, or behind one that does.
    pub parked: i64,
    /// Why no more can be parked, with the keys that fill the room. The partition is ready nevertheless: its
    /// other keys go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parking_full: Option<String>,
    /// Why one record of it runs at a time, if that is so. It is ready nevertheless: it gets on, and a restart is
    /// what it is careful about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub careful: Option<String>,
}

/// Judges all handlers, and what Pawl comes to the brokers with, at the time `now`.
pub fn judge(
    handlers: &[HandlerView],
    credentials: Vec<access::Status>,
    now: Millis,
    stalled_after: Duration,
) -> Readiness {
    let handlers = judge_handlers(handlers, now, stalled_after);
    let valid = !credentials.iter().any(|one| one.expired);
    Readiness { ready: valid && handlers.iter().all(|handler| handler.ready), credentials, handlers }
}

/// Judges all handlers at the time `now`.
///
/// A partition is ready when it is running, unless it has lag and committed nothing for longer
/// than `stalled_after`. A handler that holds no partition is ready once it saw a rebalance: then
/// others of its group hold them all.
pub fn judge_handlers(
    handlers: &[HandlerView],
    now: Millis,
    stalled_after: Duration,
) -> Vec<HandlerReadiness> {
    handlers.iter().map(|view| judge_handler(view, now, stalled_after)).collect()
}

fn judge_handler(view: &HandlerView, now: Millis, stalled_after: Duration) -> HandlerReadiness {
    let held = view.stats.partitions();
    let breaker = view.stats.breaker.open();
    // While nothing may begin, nothing can be stalled.
    let stalled_after = if breaker.is_some() { Duration::MAX } else { stalled_after };
    let mut partitions: Vec<_> = held
        .iter()
        .map(|(partition, stats)| judge_partition(*partition, stats, now, stalled_after))
        .collect();
    if let Some(why) = view.stats.unwritten() {
        for reason in partitions.iter_mut().filter_map(|partition| partition.reason.as_mut()) {
            reason.push_str(&format!("; what is done cannot be written: {why}"));
        }
    }
    let joined = view.stats.rebalances.get() > 0;
    HandlerReadiness {
        name: view.name.to_string(),
        group: view.group.to_string(),
        topic: view.topic.to_string(),
        ready: joined && partitions.iter().all(|partition| partition.ready),
        reason: (!joined).then(|| "the group has not assigned anything yet".to_owned()),
        breaker,
        partitions,
    }
}

fn judge_partition(
    partition: Partition,
    stats: &PartitionStats,
    now: Millis,
    stalled_after: Duration,
) -> PartitionReadiness {
    let (phase, lag) = (stats.phase(), stats.lag());
    let reason = match phase {
        PartitionPhase::Running => stall(stats, now, stalled_after),
        PartitionPhase::Claiming => Some("the claim is not committed yet".to_owned()),
        PartitionPhase::Restoring => Some(format!(
            "the ledger is being read from the changelog, about {} records left",
            stats.restore_left.get()
        )),
        PartitionPhase::Draining => Some("it is being given up".to_owned()),
        PartitionPhase::Stopped => {
            Some(stats.stopped().unwrap_or_else(|| "stopped by an error, see the log".to_owned()))
        }
    };
    PartitionReadiness {
        partition: partition.0,
        phase: phase.name(),
        lag,
        ready: reason.is_none(),
        reason,
        parked: stats.parked_records.get(),
        parking_full: stats.parking_full(),
        careful: stats.careful(),
    }
}

/// Why a running partition does not get on. Where the end is not known, what was taken in and is
/// not durable counts as its lag.
fn stall(stats: &PartitionStats, now: Millis, stalled_after: Duration) -> Option<String> {
    let too_long = |since: i64| {
        let millis = now.0.saturating_sub(since).max(0).unsigned_abs();
        let seconds = humantime::format_duration(Duration::from_secs(millis / 1_000));
        (Duration::from_millis(millis) > stalled_after).then_some(seconds)
    };
    let outstanding = || stats.outstanding_records.get().max(0).unsigned_abs();
    let (behind, undecided) = (stats.backlog().unwrap_or_else(outstanding), stats.undecided.get());
    if let Some(quiet) = too_long(stats.last_progress.get()).filter(|_| behind > 0) {
        return Some(format!("no progress for {quiet} with a lag of {behind}"));
    }
    let open = too_long(stats.undecided_since.get()).filter(|_| undecided > 0)?;
    Some(format!(
        "a producer's transaction is open for {open} and holds back {undecided} offsets: find it with \
         kafka-transactions.sh find-hanging, end it with kafka-transactions.sh abort"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);
    const STALLED_AFTER: Duration = Duration::from_secs(60);

    fn view() -> HandlerView {
        HandlerView {
            name: "billing".into(),
            group: "accounts".into(),
            topic: "orders".into(),
            stats: Arc::default(),
            epoch_commit_times: Default::default(),
            keys: Arc::default(),
            supervision: Default::default(),
            bounds: Default::default(),
        }
    }

    fn joined() -> HandlerView {
        let view = view();
        view.stats.rebalances.add(1);
        view
    }

    /// A partition that is running, has this lag and got on so long ago.
    fn running(
        view: &HandlerView,
        partition: i32,
        lag: i64,
        progress_seconds_ago: i64,
    ) -> Arc<PartitionStats> {
        let stats = view.stats.assigned(Partition(partition));
        stats.set_phase(PartitionPhase::Running);
        stats.watermark.set(100);
        stats.end.set(100 + lag);
        stats.last_progress.set(NOW.0 - progress_seconds_ago * 1000);
        stats
    }

    fn judged(view: HandlerView) -> HandlerReadiness {
        let mut readiness = judge(&[view], Vec::new(), NOW, STALLED_AFTER);
        assert_eq!(readiness.ready, readiness.handlers[0].ready);
        readiness.handlers.remove(0)
    }

    #[test]
    fn nobody_is_ready_before_the_group_assigned_something() {
        let handler = judged(view());
        assert!(!handler.ready);
        assert_eq!(handler.reason.as_deref(), Some("the group has not assigned anything yet"));
    }

    #[test]
    fn a_member_that_was_left_without_partitions_is_ready() {
        assert!(judged(joined()).ready);
    }

    #[test]
    fn only_a_running_partition_is_ready() {
        for (phase, ready) in [
            (PartitionPhase::Claiming, false),
            (PartitionPhase::Restoring, false),
            (PartitionPhase::Running, true),
            (PartitionPhase::Draining, false),
            (PartitionPhase::Stopped, false),
        ] {
            let view = joined();
            running(&view, 0, 0, 0);
            running(&view, 1, 0, 0).set_phase(phase);
            let handler = judged(view);
            assert_eq!(handler.ready, ready, "{phase:?}");
            assert!(handler.partitions[0].ready);
            let second = &handler.partitions[1];
            assert_eq!((second.ready, second.reason.is_none()), (ready, ready), "{phase:?}");
            assert_eq!((second.partition, second.phase), (1, phase.name()));
        }
    }

    #[test]
    fn a_partition_with_lag_must_get_on() {
        for (lag, progress_seconds_ago, ready) in
            [(0, 3600, true), (5, 0, true), (5, 60, true), (5, 61, false), (5, -10, true)]
        {
            let view = joined();
            running(&view, 0, lag, progress_seconds_ago);
            assert_eq!(judged(view).ready, ready, "lag {lag}, progress {progress_seconds_ago} s ago");
        }
        let view = joined();
        running(&view, 0, 5, 75);
        let reason = judged(view).partitions.remove(0).reason;
        assert_eq!(reason.as_deref(), Some("no progress for 1m 15s with a lag of 5"));
    }

    #[test]
    fn what_keeps_an_epoch_from_being_written_is_told_of_the_partitions_that_wait_for_it() {
        let view = joined();
        running(&view, 0, 5, 75);
        running(&view, 1, 0, 75);
        view.stats.set_unwritten(Some("there is no topic orders-dlt".into()));
        let handler = judged(view);
        let reason = handler.partitions[0].reason.as_deref().unwrap_or_default();
        assert!(
            reason.ends_with("; what is done cannot be written: there is no topic orders-dlt"),
            "{reason}"
        );
        assert!(handler.partitions[1].ready, "it has nothing to write");
    }

    #[test]
    fn a_transaction_that_stays_open_holds_a_partition_back_though_it_is_read_to_its_end() {
        for (undecided, seconds_open, ready) in [(3, 75, false), (3, 59, true), (0, 75, true)] {
            let view = joined();
            let stats = running(&view, 0, 0, 0);
            stats.undecided.set(undecided);
            stats.undecided_since.set(NOW.0 - seconds_open * 1_000);
            let handler = judged(view);
            assert_eq!(handler.ready, ready, "{undecided} offsets for {seconds_open} s");
            assert_eq!(handler.partitions[0].lag, Some(undecided.unsigned_abs()));
        }
    }

    #[test]
    fn work_in_hand_counts_as_lag_where_the_end_is_not_known() {
        let view = joined();
        let stats = running(&view, 0, 0, 75);
        stats.end.set(-1);
        assert!(judged(view.clone()).ready);
        stats.outstanding_records.set(2);
        let handler = judged(view);
        assert_eq!((handler.ready, handler.partitions[0].lag), (false, None));
    }

    #[test]
    fn a_token_that_has_ended_makes_the_process_not_ready_and_a_failed_refresh_does_not() {
        let failing =
            access::Status { failures: 1, failure: Some("nobody there".into()), ..Default::default() };
        let ended = access::Status { expired: true, ..failing.clone() };
        assert!(judge(&[joined()], vec![failing], NOW, STALLED_AFTER).ready);
        assert!(!judge(&[joined()], vec![ended], NOW, STALLED_AFTER).ready);
    }

    #[test]
    fn one_handler_that_is_not_ready_holds_the_process_back() {
        let readiness = judge(&[joined(), view()], Vec::new(), NOW, STALLED_AFTER);
        assert!(!readiness.ready && readiness.handlers[0].ready && !readiness.handlers[1].ready);
    }

    #[test]
    fn an_open_breaker_is_told_and_what_it_holds_back_is_no_stall() {
        let view = view();
        view.stats.rebalances.add(1);
        let partition = view.stats.assigned(Partition(0));
        partition.set_phase(PartitionPhase::Running);
        partition.end.set(10);
        partition.watermark.set(3);
        partition.last_progress.set(NOW.0 - 100_000);
        let judged = || judge_handler(&view, NOW, STALLED_AFTER);
        assert!(!judged().ready, "no progress for 100 s");
        view.stats.breaker.set_open(Some("5 keys failed in a row".into()));
        assert_eq!((judged().ready, judged().breaker.as_deref()), (true, Some("5 keys failed in a row")));
        view.stats.breaker.set_open(None);
        assert!(!judged().ready);
    }
}

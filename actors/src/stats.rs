//! What can be observed of a handler, as plain counters that actors raise and others read.
//!
//! Deliberately absent: any metrics library and any text format. Each fact has one field here;
//! the process's own endpoint shows it to Prometheus, readiness and tests alike.

mod restarts;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::outcome::FailureClass;
use crate::record::Partition;

pub use restarts::{Restart, Restarts};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises the count.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Raises (or with a negative `n` lowers) the value.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where an assigned partition stands between assignment and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PartitionPhase {
    /// The claim is being committed.
    Claiming = 0,
    /// The ledger is being read from the changelog.
    Restoring = 1,
    /// Records are taken in.
    Running = 2,
    /// Running handlers end, nothing new is taken in.
    Draining = 3,
    /// Not taken in because of an error that the log explains.
    Stopped = 4,
}

impl PartitionPhase {
    /// The name in logs, metric labels and `/ready`.
    pub fn name(self) -> &'static str {
        match self {
            PartitionPhase::Claiming => "claiming",
            PartitionPhase::Restoring => "restoring",
            PartitionPhase::Running => "running",
            PartitionPhase::Draining => "draining",
            PartitionPhase::Stopped => "stopped",
        }
    }

    fn from_u8(n: u8) -> Self {
        match n {
            0 => PartitionPhase::Claiming,
            1 => PartitionPhase::Restoring,
            2 => PartitionPhase::Running,
            3 => PartitionPhase::Draining,
            _ => PartitionPhase::Stopped,
        }
    }
}

/// One assigned partition. Created at assignment, dropped when the partition is released.
#[derive(Debug, Default)]
pub struct PartitionStats {
    /// Records handed over by the consumer that are not yet durable: the intake bound.
    pub outstanding_records: Gauge,
    /// Their bytes.
    pub outstanding_bytes: Gauge,
    /// Records received from the first unfinished one on, finished or not: the bound on how far
    /// the other keys run ahead of a slow one.
    pub ahead: Gauge,
    /// The committed watermark (a next offset); -1 before the first.
    pub watermark: Gauge,
    /// The end of the partition as readers of committed records see it, as last asked of the broker; -1
    /// when not known.
    pub end: Gauge,
    /// Offsets behind that end: held back by a producer's open transaction.
    pub undecided: Gauge,
    /// Milliseconds since the epoch when the first of these was seen to be the first.
    pub undecided_since: Gauge,
    /// 1 while the consumer was told to fetch nothing because the intake has no room, else 0.
    pub paused: Gauge,
    /// 1 when the consumer has reached the end and received nothing since, else 0.
    pub at_end: Gauge,
    /// Records of the changelog still to be read before the partition can be taken in, about: offsets
    /// that compaction has removed count as well. 0 when it is restored.
    pub restore_left: Gauge,
    /// Records in parked rows: they wait for a retry, or behind one that does.
    pub parked_records: Gauge,
    /// Bytes of these rows.
    pub parked_bytes: Gauge,
    /// Keys with a live order actor.
    pub live_keys: Gauge,
    /// Milliseconds since the epoch of the last committed progress (or of the start of intake).
    pub last_progress: Gauge,
    phase: AtomicU8,
    parking_full: Mutex<Option<String>>,
    stopped: Mutex<Option<String>>,
    careful: Mutex<Option<String>>,
}

impl PartitionStats {
    /// Why no more records can be parked, with the keys that fill the room; `None` while there is room.
    pub fn parking_full(&self) -> Option<String> {
        self.parking_full.lock().expect("no holder panics").clone()
    }

    /// Tells why no more records can be parked. `true` if it was not told before.
    pub fn set_parking_full(&self, why: Option<String>) -> bool {
        let mut full = self.parking_full.lock().expect("no holder panics");
        let is_new = full.is_none() && why.is_some();
        *full = why;
        is_new
    }

    /// Why the partition stands still; `None` while it does not, or where only the log says so.
    pub fn stopped(&self) -> Option<String> {
        self.stopped.lock().expect("no holder panics").clone()
    }

    /// Tells why the partition stands still.
    pub fn set_stopped(&self, why: Option<String>) {
        *self.stopped.lock().expect("no holder panics") = why;
    }

    /// Why one record of the partition runs at a time; `None` while that is not so.
    pub fn careful(&self) -> Option<String> {
        self.careful.lock().expect("no holder panics").clone()
    }

    /// Tells why one record of the partition runs at a time.
    pub fn set_careful(&self, why: Option<String>) {
        *self.careful.lock().expect("no holder panics") = why;
    }

    /// Where the partition stands.
    pub fn phase(&self) -> PartitionPhase {
        PartitionPhase::from_u8(self.phase.load(Ordering::Acquire))
    }

    /// Moves the partition to another phase.
    pub fn set_phase(&self, phase: PartitionPhase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Records between the committed watermark and the end of the partition, with what an open
    /// transaction holds back.
    pub fn lag(&self) -> Option<u64> {
        self.backlog().map(|backlog| backlog + self.undecided.get().max(0).unsigned_abs())
    }

    /// The lag as far as it can be read: 0 once the consumer reached the end and all it received is
    /// durable, because transaction markers and compacted records take offsets that nobody will ever
    /// receive.
    pub fn backlog(&self) -> Option<u64> {
        if self.at_end.get() == 1 && self.outstanding_records.get() == 0 {
            return Some(0);
        }
        let (watermark, end) = (self.watermark.get(), self.end.get());
        (watermark >= 0 && end >= 0).then(|| end.saturating_sub(watermark).max(0) as u64)
    }
}

/// The breaker of a handler.
#[derive(Debug, Default)]
pub struct BreakerStats {
    /// How often it has opened.
    pub opened: Counter,
    reason: Mutex<Option<String>>,
}

impl BreakerStats {
    /// Why it is open; `None`: it is closed.
    pub fn open(&self) -> Option<String> {
        self.reason.lock().expect("no holder panics").clone()
    }

    /// It opens for this reason, or closes.
    pub fn set_open(&self, reason: Option<String>) {
        *self.reason.lock().expect("no holder panics") = reason;
    }
}

/// Everything observable of one handler.
#[derive(Debug, Default)]
pub struct HandlerStats {
    /// Records whose first result is durable.
    pub received: Counter,
    /// Records whose effects are durable.
    pub applied: Counter,
    /// Records recognised as a producer's duplicate.
    pub duplicates: Counter,
    /// Records delivered again that the ledger already knew.
    pub redelivered: Counter,
    /// Records written to the dead-letter topic.
    pub dead_letters: Counter,
    /// Dead letters that a replay made applied or duplicates.
    pub replayed: Counter,
    /// Numbers, or runs of them, that were missing in a sequence for too long.
    pub gaps: Counter,
    /// Commands of operators that were carried out or refused.
    pub commands: Counter,
    /// Keys that went into quarantine.
    pub quarantined: Counter,
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Calls at the handler now.
    pub in_flight: Gauge,
    /// Lanes that wait for a retry now.
    pub parked: Gauge,
    /// Assignments and revocations seen.
    pub rebalances: Counter,
    /// Event ids that came again with another payload.
    pub id_conflicts: Counter,
    /// Whether its dependency is taken for down.
    pub breaker: BreakerStats,
    /// What came to a bad end and was begun anew.
    pub restarts: Restarts,
    failures: [Counter; FailureClass::ALL.len()],
    unwritten: Mutex<Option<String>>,
    partitions: RwLock<BTreeMap<Partition, Arc<PartitionStats>>>,
}

impl HandlerStats {
    /// Failed attempts of a class.
    pub fn failures(&self, class: FailureClass) -> &Counter {
        &self.failures[class as usize]
    }

    /// Why the last epoch is not committed yet, once an attempt has failed.
    pub fn unwritten(&self) -> Option<String> {
        self.unwritten.lock().expect("no holder panics").clone()
    }

    /// An attempt to write has failed for this reason, or all is written.
    pub fn set_unwritten(&self, why: Option<String>) {
        *self.unwritten.lock().expect("no holder panics") = why;
    }

    /// Starts to show a partition that was just assigned.
    pub fn assigned(&self, partition: Partition) -> Arc<PartitionStats> {
        let stats = Arc::new(PartitionStats::default());
        stats.watermark.set(-1);
        stats.end.set(-1);
        self.partitions.write().expect("no holder panics").insert(partition, stats.clone());
        stats
    }

    /// Stops to show a partition that this instance no longer holds.
    pub fn released(&self, partition: Partition) {
        self.partitions.write().expect("no holder panics").remove(&partition);
    }

    /// The partitions held now, in order.
    pub fn partitions(&self) -> Vec<(Partition, Arc<PartitionStats>)> {
        let partitions = self.partitions.read().expect("no holder panics");
        partitions.iter().map(|(partition, stats)| (*partition, stats.clone())).collect()
    }
}

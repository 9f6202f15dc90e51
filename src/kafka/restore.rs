//! Restores ledgers: reads the changelog `read_committed` from where the local view stands until
//! one's own claim comes back. Everything before the claim is decided then, and is in the view.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pawl_actors::epoch::AssignmentEpoch;
use pawl_actors::ledger::{CLAIM_KEY, ClaimRow};
use pawl_actors::record::Partition;
use pawl_actors::stats::PartitionStats;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::access::{Live, Plan};
use super::client::LogContext;
use super::denied::Identity;
use super::group;
use super::held::Held;
use crate::rights::Right;
use crate::store::LocalView;

/// A partition to restore.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment.
    pub assignment: AssignmentEpoch,
    /// The claim at which reading ends: the offset of its row. One's own earlier claim, whose outcome was
    /// unknown, does not end it: another owner's rows may lie in between.
    pub claim: i64,
    /// Shows how much is left.
    pub stats: Arc<PartitionStats>,
}

/// Reads a handler's changelog.
pub struct Restore {
    /// Settings of the reading consumer.
    pub config: Plan,
    /// The changelog topic.
    pub changelog: String,
    /// A view older than this may have missed removals that compaction has forgotten since.
    pub max_view_age: Duration,
    /// Longest wait without a single record of a partition whose leader answers; longer than any transaction
    /// of a dead instance stays open.
    pub patience: Duration,
    /// Name of the handler, for the log.
    pub handler: Arc<str>,
    /// As what brokers know the handler, for errors.
    pub identity: Arc<Identity>,
}

/// How far one partition is restored.
struct Progress {
    target: Target,
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pending_bytes: usize,
    records: u64,
    bytes: u64,
    next: i64,
    high: i64,
    /// When something was last heard of it.
    heard: Instant,
    /// Whether all that may be read was read, and the claim was not among it.
    at_end: bool,
}

/// What was read of partitions that are restored.
struct Tally {
    records: u64,
    bytes: u64,
    began: Instant,
}

impl Progress {
    /// Offsets up to the end, about as many records: compaction leaves gaps.
    fn left(&self) -> i64 {
        (self.high - self.next).max(0)
    }
}

/// Rows handed to the view in one step, or fewer of so many bytes.
const CHUNK: (usize, usize) = (1_000, 1 << 20);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether a partition was taken away meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Restore {
    /// Restores several partitions at once, less those that are lost meanwhile; `restored` hears of each as
    /// soon as it is, for none has to wait for the others.
    ///
    /// # Errors
    /// When the changelog cannot be read, or nothing comes for too long.
    pub fn run(
        &self,
        targets: &[Target],
        view: &LocalView,
        held: &Held,
        restored: &mut dyn FnMut(Partition) -> Result<(), String>,
    ) -> Result<(), String> {
        if targets.is_empty() {
            return Ok(());
        }
        let consumer: Live<BaseConsumer<LogContext>> =
            self.config.open(LogContext::new("changelog")).map_err(|error| error.to_string())?;
        let mut tally = Tally { records: 0, bytes: 0, began: Instant::now() };
        let mut left = targets.to_vec();
        while !left.is_empty() {
            let progress = self.begin(&consumer, &left, view, held)?;
            left = self.read(&consumer, progress, &mut tally, (view, held), restored)?;
        }
        let Tally { records, bytes, began } = tally;
        tracing::info!(
            handler = %self.handler, changelog = %self.changelog, partitions = targets.len(), records, bytes,
            "ledger restored in {:?}", began.elapsed()
        );
        Ok(())
    }

    /// Reads until all are restored. Returns those that have to begin again: compaction or retention
    /// removed where they stood.
    fn read(
        &self,
        consumer: &BaseConsumer<LogContext>,
        mut progress: BTreeMap<i32, Progress>,
        tally: &mut Tally,
        (view, held): (&LocalView, &Held),
        restored: &mut dyn FnMut(Partition) -> Result<(), String>,
    ) -> Result<Vec<Target>, String> {
        let now = Instant::now();
        let (mut reported, mut looked) = (now, now);
        while !progress.is_empty() {
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                progress.retain(|_, one| held.is(one.target.partition, one.target.assignment));
                progress.values().for_each(|one| one.target.stats.restore_left.set(one.left()));
            }
            match consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    if let Some(done) = take(&mut progress, &message, view)? {
                        tally.records += done.records;
                        tally.bytes += done.bytes;
                        restored(done.target.partition)?;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    progress.entry(partition).and_modify(|one| one.at_end = true);
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    return Ok(progress.into_values().map(|one| one.target).collect());
                }
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(group::is_forbidden) => {
                    return Err(self.identity.told(&error, (&self.changelog, Right::Read)));
                }
                Some(Err(_)) | None => {}
            }
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                self.report(&progress, tally);
            }
            self.ask_the_silent(consumer, &mut progress)?;
        }
        Ok(Vec::new())
    }

    /// Decides where to begin in each partition and begins.
    fn begin(
        &self,
        consumer: &BaseConsumer<LogContext>,
        targets: &[Target],
        view: &LocalView,
        held: &Held,
    ) -> Result<BTreeMap<i32, Progress>, String> {
        let failed = |error: KafkaError| format!("changelog {}: {error}", self.changelog);
        let mut list = TopicPartitionList::new();
        let mut progress = BTreeMap::new();
        for target in targets {
            let partition = target.partition.0;
            let Some((low, high)) = self.bounds(consumer, target, held)? else { continue };
            let known = view.position(partition, self.max_view_age).map_err(|error| error.to_string())?;
            let from = match known.filter(|position| (low..=high).contains(position)) {
                Some(position) => position,
                None => {
                    view.clear(partition).map_err(|error| error.to_string())?;
                    low
                }
            };
            list.add_partition_offset(&self.changelog, partition, Offset::Offset(from)).map_err(failed)?;
            let target = target.clone();
            progress.insert(
                partition,
                Progress {
                    target,
                    changes: Vec::new(),
                    pending_bytes: 0,
                    records: 0,
                    bytes: 0,
                    next: from,
                    high,
                    heard: Instant::now(),
                    at_end: false,
                },
            );
        }
        consumer.assign(&list).map_err(failed)?;
        Ok(progress)
    }

    /// The first offset and the end of a partition; `None` when it is not held any more. While a leader
    /// moves nobody can tell them, which passes.
    fn bounds(
        &self,
        consumer: &BaseConsumer<LogContext>,
        target: &Target,
        held: &Held,
    ) -> Result<Option<(i64, i64)>, String> {
        let partition = target.partition.0;
        let ask = || consumer.fetch_watermarks(&self.changelog, partition, CALL_TIMEOUT);
        let asked = held.ask_while(target.partition, target.assignment, ask, |error| {
            tracing::warn!(
                handler = %self.handler, changelog = %self.changelog, partition, %error,
                "the changelog's end is not known yet; asking again"
            );
        });
        asked.map_err(|error| self.identity.told(&error, (&self.changelog, Right::Read)))
    }

    /// Asks the leader of a partition of which nothing came for too long: one that is away will be back, one
    /// that answers has nothing that may be read. What is not read to its end is on its way.
    fn ask_the_silent(
        &self,
        consumer: &BaseConsumer<LogContext>,
        progress: &mut BTreeMap<i32, Progress>,
    ) -> Result<(), String> {
        for (partition, one) in progress.iter_mut().filter(|(_, one)| one.heard.elapsed() > self.patience) {
            let answers = || consumer.fetch_watermarks(&self.changelog, *partition, CALL_TIMEOUT).is_ok();
            if one.at_end && answers() {
                return Err(self.nothing_comes(one));
            }
            one.heard = Instant::now();
        }
        Ok(())
    }

    /// Tells how far all partitions are together.
    fn report(&self, progress: &BTreeMap<i32, Progress>, done: &Tally) {
        let elapsed = done.began.elapsed();
        let records = done.records + progress.values().map(|one| one.records).sum::<u64>();
        let bytes = done.bytes + progress.values().map(|one| one.bytes).sum::<u64>();
        let left: i64 = progress.values().map(Progress::left).sum();
        let rate = records as f64 / elapsed.as_secs_f64();
        let mib_a_second = bytes as f64 / elapsed.as_secs_f64() / f64::from(1 << 20);
        tracing::info!(
            handler = %self.handler, changelog = %self.changelog, partitions = progress.len(), records, bytes, left,
            "restoring the ledger: {rate:.0} records/s, {mib_a_second:.1} MiB/s, about {:.0} s left",
            left as f64 / rate.max(1.0)
        );
    }

    fn nothing_comes(&self, one: &Progress) -> String {
        format!(
            "nothing was read for {:?} at {}[{}]@{}: an open transaction holds readers back there. Find it with \
             kafka-transactions.sh find-hanging, end it with kafka-transactions.sh abort",
            self.patience, self.changelog, one.target.partition, one.next
        )
    }
}

/// Takes a changelog record; returns the partition's progress if it was its own claim, the last.
fn take(
    progress: &mut BTreeMap<i32, Progress>,
    message: &BorrowedMessage<'_>,
    view: &LocalView,
) -> Result<Option<Progress>, String> {
    let partition = message.partition();
    let Some(one) = progress.get_mut(&partition) else { return Ok(None) };
    let key = message.key().unwrap_or_default();
    one.records += 1;
    let size = key.len() + message.payload_len();
    one.bytes += size as u64;
    one.next = message.offset() + 1;
    (one.heard, one.at_end) = (Instant::now(), false);
    let own = message.offset() >= one.target.claim;
    if key == CLAIM_KEY {
        ClaimRow::decode(message.payload().unwrap_or_default())
            .map_err(|error| format!("partition {partition}: {error}"))?;
    } else {
        one.changes.push((key.to_vec(), message.payload().map(<[u8]>::to_vec)));
        one.pending_bytes += size;
    }
    if own || one.changes.len() >= CHUNK.0 || one.pending_bytes >= CHUNK.1 {
        one.pending_bytes = 0;
        let changes = std::mem::take(&mut one.changes);
        let changes = changes.iter().map(|(key, value)| (&key[..], value.as_deref()));
        view.push(partition, changes, one.next).map_err(|error| error.to_string())?;
    }
    if !own {
        return Ok(None);
    }
    one.target.stats.restore_left.set(0);
    Ok(progress.remove(&partition))
}

//! The writer thread: writes epochs and claims, one at a time, and knows what to do when that fails.
//!
//! A failed epoch is sent again, not computed again, less every partition that was lost meanwhile. What
//! a retry can heal is retried without end; what it cannot ends the handler and says why.

mod recovery;
mod refusal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant, SystemTime};

use actix::Addr;
use pawl_actors::epoch::{Committer, Epoch, EpochDecided, Letter, PartitionEpoch};
use pawl_actors::ledger::Row;
use pawl_actors::record::Partition;
use pawl_actors::stats::HandlerStats;
use pawl_actors::trace::Trace;

use super::attempt::AttemptError;
use super::claim::{ClaimJob, ClaimRequest};
use super::consumer::Command;
use super::delivery::Delivered;
use super::held::Held;
use super::wire::Wire;
use crate::observed::EpochCommitTimes;
use crate::store::LocalView;
use crate::telemetry::{Committed, Tracing};
use recovery::Recovery;
pub use refusal::Refusals;

/// What the writer is asked to do.
pub enum Job {
    /// Write an epoch; the committer is told when it is committed.
    Epoch(Epoch),
    /// Write claims.
    Claim(ClaimJob),
    /// Told where to report committed epochs.
    Attach(Addr<Committer>),
    /// End.
    Stop,
}

/// What a writer needs.
pub struct WriterParts<W> {
    /// Name of the handler, for the log.
    pub handler: Arc<str>,
    /// Input topic, for the log.
    pub topic: String,
    /// This instance's name, for messages.
    pub instance: String,
    /// Kafka.
    pub wire: W,
    /// How long a transaction may stay open.
    pub transaction_timeout: Duration,
    /// Least time from when one transaction takes in nothing more to when the next does; zero where none
    /// takes in anything, and the committer keeps the time.
    pub commit_interval: Duration,
    /// Which partitions may still be written for.
    pub held: Arc<Held>,
    /// Gets committed rows.
    pub view: Arc<LocalView>,
    /// Is told when the group does not know this member any more.
    pub intake: Sender<Command>,
    /// Observes commits.
    pub times: EpochCommitTimes,
    /// Is told what keeps an epoch from being written.
    pub stats: Arc<HandlerStats>,
    /// Is told what topics refuse.
    pub refusals: Arc<Refusals>,
    /// Consumer group, for spans.
    pub group: Arc<str>,
    /// Makes spans of commits, where attempts are traced.
    pub tracing: Option<Tracing>,
    /// Is told why the handler cannot go on.
    pub on_halt: Arc<dyn Fn(String) + Send + Sync>,
}

/// See the module's documentation.
pub struct Writer<W> {
    parts: WriterParts<W>,
    committer: Option<Addr<Committer>>,
    /// Position after the last known row of each changelog partition.
    rows_next: BTreeMap<i32, i64>,
    /// What came while a transaction took in epochs, and is none.
    waiting: Option<Job>,
    /// When the last transaction took in nothing more.
    closed: Option<Instant>,
    /// When another producer took over this one's transactional id, lately.
    usurped: VecDeque<Instant>,
}

/// What became of shares of an epoch that were written in one step.
enum Written {
    /// They are committed, or were lost.
    Done,
    /// The link is too slow for so many at once.
    TooLarge,
}

/// Where nothing more is closed for so long, a transaction waits for nothing but its acknowledgements.
const PATIENCE: Duration = Duration::from_millis(3);
/// Attempts in a row that were not acknowledged in time, before an epoch is written in smaller steps.
const UNACKNOWLEDGED: u32 = 2;

impl<W: Wire> Writer<W> {
    /// Before its first producer.
    pub fn new(parts: WriterParts<W>) -> Self {
        Writer {
            parts,
            committer: None,
            rows_next: BTreeMap::new(),
            waiting: None,
            closed: None,
            usurped: VecDeque::new(),
        }
    }

    /// Works until told to stop or until nothing can be achieved any more.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        // The producer is opened before the first job, because that ends an open transaction of this
        // instance's predecessor, for which every reader waits.
        let mut result = self.reopen();
        while let Ok(()) = result {
            let job = self.waiting.take().map_or_else(|| jobs.recv(), Ok);
            match job {
                Ok(Job::Epoch(epoch)) => result = self.epoch(epoch, jobs),
                Ok(Job::Claim(job)) => result = self.claim(&job),
                Ok(Job::Attach(committer)) => self.committer = Some(committer),
                Ok(Job::Stop) | Err(_) => return,
            }
        }
        if let Err(reason) = result {
            (self.parts.on_halt)(format!("{}: {reason}", self.parts.handler));
        }
        self.write_nothing(jobs);
    }

    /// Nothing can be written any more. Whoever waits for the writer is told so, lest the drain
    /// that follows lasts until its deadline.
    fn write_nothing(&mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = self.waiting.take().map_or_else(|| jobs.recv(), Ok) {
            match job {
                Job::Epoch(epoch) => self.decided(epoch.number, Vec::new()),
                Job::Claim(job) => drop(job.reply.send(Vec::new())),
                Job::Attach(committer) => self.committer = Some(committer),
                Job::Stop => return,
            }
        }
    }

    fn decided(&self, number: u64, committed: Vec<Partition>) {
        if let Some(committer) = &self.committer {
            committer.do_send(EpochDecided { number, committed });
        }
    }

    fn epoch(&mut self, epoch: Epoch, jobs: &Receiver<Job>) -> Result<(), String> {
        let (began, began_at) = (Instant::now(), SystemTime::now());
        let (mut epochs, mut committed) = (Vec::new(), Vec::new());
        let sent = self.send(epoch, &mut epochs, jobs);
        let result = self.write(&epochs, sent, &mut committed);
        for epoch in &epochs {
            let of_this = committed.iter().filter(|(number, _)| *number == epoch.number);
            self.decided(epoch.number, of_this.map(|(_, partition)| *partition).collect());
        }
        result?;
        self.parts.times.observe(began.elapsed());
        self.trace(&epochs, &committed, began_at);
        Ok(())
    }

    /// Makes a span of a commit, for the attempts whose results it made durable.
    fn trace(&self, epochs: &[Epoch], committed: &[(u64, Partition)], began: SystemTime) {
        let Some(tracing) = &self.parts.tracing else { return };
        let is_committed = |part: &&PartitionEpoch| committed.contains(&(part.epoch, part.partition));
        let traces = || epochs.iter().flat_map(|epoch| &epoch.partitions).filter(is_committed);
        let commit = Committed {
            handler: &self.parts.handler,
            group: &self.parts.group,
            topic: &self.parts.topic,
            began,
            epochs: epochs.len(),
            writes: epochs.iter().map(Epoch::writes).sum(),
        };
        tracing.committed(&commit, traces().flat_map(|part| &part.traces));
    }

    /// The first attempt. Until its first record is acknowledged a transaction takes in what is closed
    /// meanwhile: coordinator and brokers have to hear of its partitions before anything is written, and
    /// nobody need wait for the next because of that.
    fn send(
        &mut self,
        epoch: Epoch,
        epochs: &mut Vec<Epoch>,
        jobs: &Receiver<Job>,
    ) -> Result<Delivered, AttemptError> {
        let (mut next, mut begun, mut result) = (Some(epoch), false, Ok(()));
        while let Some(mut epoch) = next {
            epoch.partitions.retain(|part| self.parts.held.is(part.partition, part.assignment));
            if !epoch.partitions.is_empty() {
                if !std::mem::replace(&mut begun, true) {
                    result = self.parts.wire.begin();
                }
                let parts: Vec<_> = epoch.partitions.iter().collect();
                result = result.and_then(|()| self.parts.wire.send(&parts));
            }
            epochs.push(epoch);
            next = if begun && result.is_ok() { self.joining(jobs) } else { None };
        }
        self.closed = Some(self.parts.wire.now());
        result?;
        let parts: Vec<_> = epochs.iter().flat_map(|epoch| &epoch.partitions).collect();
        if parts.is_empty() { Ok(Delivered::default()) } else { self.parts.wire.finish(&parts) }
    }

    /// The next epoch that the open transaction takes in, if it takes any more.
    fn joining(&mut self, jobs: &Receiver<Job>) -> Option<Epoch> {
        let not_before = self.closed.map(|at| at + self.parts.commit_interval);
        let early =
            not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(self.parts.wire.now()));
        let patience = if self.parts.wire.takes_more() { early.max(PATIENCE) } else { early };
        if patience.is_zero() || self.waiting.is_some() {
            return None;
        }
        match jobs.recv_timeout(patience) {
            Ok(Job::Epoch(epoch)) => Some(epoch),
            Ok(other) => {
                self.waiting = Some(other);
                None
            }
            Err(_) => None,
        }
    }

    /// Writes all of these epochs in one step or, where that takes too long, in several: each partition's
    /// share is a whole of its own. `sent` is what became of the first attempt.
    fn write(
        &mut self,
        epochs: &[Epoch],
        sent: Result<Delivered, AttemptError>,
        committed: &mut Vec<(u64, Partition)>,
    ) -> Result<(), String> {
        let all: Vec<_> = epochs.iter().flat_map(|epoch| &epoch.partitions).collect();
        let (mut steps, mut sent) = (VecDeque::from([all]), Some(sent));
        while let Some(mut step) = steps.pop_front() {
            match self.step(&step, sent.take(), committed)? {
                Written::Done => {}
                Written::TooLarge => {
                    let rest = step.split_off(step.len().div_ceil(2));
                    // In this order: a partition may have a share in both.
                    steps.push_front(rest);
                    steps.push_front(step);
                }
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        step: &[&PartitionEpoch],
        mut sent: Option<Result<Delivered, AttemptError>>,
        committed: &mut Vec<(u64, Partition)>,
    ) -> Result<Written, String> {
        let mut recovery = Recovery::default();
        loop {
            let is_held = |part: &&PartitionEpoch| self.parts.held.is(part.partition, part.assignment);
            let parts: Vec<&PartitionEpoch> = match sent {
                Some(_) => step.to_vec(),
                None => step.iter().copied().filter(is_held).collect(),
            };
            let Some(last) = parts.last() else { return Ok(Written::Done) };
            let written = sent.take().unwrap_or_else(|| self.parts.wire.write(&parts));
            let delivered = match written {
                Ok(delivered) => delivered,
                Err(error) => {
                    self.recover(&mut recovery, &error, last.epoch, &parts)?;
                    let unknown = matches!(error, AttemptError::Unknown(_));
                    if !unknown || !self.was_committed(&parts) {
                        if recovery.unacknowledged >= UNACKNOWLEDGED && parts.len() > 1 {
                            return Ok(Written::TooLarge);
                        }
                        continue;
                    }
                    Delivered::default()
                }
            };
            self.parts.stats.set_unwritten(None);
            self.committed(&parts, &delivered)?;
            committed.extend(parts.iter().map(|part| (part.epoch, part.partition)));
            return Ok(Written::Done);
        }
    }

    /// Hands the rows of a committed epoch to the view and tells of its dead letters.
    fn committed(&mut self, parts: &[&PartitionEpoch], delivered: &Delivered) -> Result<(), String> {
        let mut number = 0;
        let mut rows: BTreeMap<i32, Vec<&Row>> = BTreeMap::new();
        for part in parts {
            for letter in &part.letters {
                let place = delivered.places.get(&number).copied();
                self.tell_letter(part.partition, letter, place);
                self.parts.refusals.effects.forget(part.partition, letter.offset);
                number += 1;
            }
            rows.entry(part.partition.0).or_default().extend(part.rows.iter().chain([&part.partition_row]));
        }
        // All shares of a partition at once: their position lies behind the last of them.
        for (partition, rows) in rows {
            // Rows whose place is unknown are read from the changelog again after a restart: the
            // position does not move, and rows in the view may be newer than it says.
            let known = self.rows_next.entry(partition).or_insert(0);
            *known = (*known).max(delivered.rows_next.get(&partition).copied().unwrap_or(0));
            let rows = rows.into_iter().map(|row| (&row.key[..], row.value.as_deref()));
            self.parts.view.push(partition, rows, *known).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn tell_letter(&self, partition: Partition, letter: &Letter, place: Option<(i32, i64)>) {
        let WriterParts { handler, topic, .. } = &self.parts;
        let (to, trace) = (&letter.emit.topic, letter.trace);
        let to = match place {
            Some((at, number)) => {
                format!("sent to {to}[{at}]@{number}. See it: pawl dlt show {to} {at} {number}")
            }
            None => format!("sent to {to}[{partition}]. See it: pawl dlt list {to}"),
        };
        tracing::warn!(
            %handler, topic, partition = partition.0, offset = letter.offset.0, key = %letter.key,
            attempt = letter.attempt, trace_id = Trace::trace_field(trace), span_id = Trace::span_field(trace),
            "{}; {to}", letter.cause
        );
    }

    fn claim(&mut self, job: &ClaimJob) -> Result<(), String> {
        let mut recovery = Recovery::default();
        loop {
            let is_held = |claim: &&ClaimRequest| self.parts.held.is(claim.partition, claim.assignment);
            let claims: Vec<&ClaimRequest> = job.claims.iter().filter(is_held).collect();
            let written = if claims.is_empty() { Ok(Vec::new()) } else { self.parts.wire.claim(&claims) };
            match written {
                Ok(claimed) => {
                    self.parts.stats.set_unwritten(None);
                    for claimed in &claimed {
                        self.rows_next.insert(claimed.partition.0, claimed.claim + 1);
                    }
                    // An owner that gave up meanwhile does not listen any more.
                    let _ = job.reply.send(claimed);
                    return Ok(());
                }
                // A claim whose outcome is unknown is simply made again: the later one counts.
                Err(error) => self.recover(&mut recovery, &error, 0, &[])?,
            }
        }
    }
}

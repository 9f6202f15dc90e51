//! The writer thread: owns the handler's one producer, writes epochs and claims, one at a time.
//!
//! A failed epoch is sent again, not computed again, less every partition that was lost meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use actix::Addr;
use bytes::BytesMut;
use pawl_actors::clock;
use pawl_actors::epoch::{AssignmentEpoch, Committer, Epoch, EpochDecided, PartitionEpoch};
use pawl_actors::ledger::ClaimRow;
use pawl_actors::record::{NextOffset, Partition};
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;

use super::commit_metadata::CommitMetadata;
use super::consumer::Command;
use super::delivery::{Delivered, Tag};
use super::group;
use super::held::Held;
use super::rebalance::IntakeContext;
use super::transaction::{AttemptError, CALL_TIMEOUT, Commit, Session, Share};
use crate::observed::EpochCommitTimes;
use crate::store::LocalView;

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

/// Claims to write in one step.
pub struct ClaimJob {
    /// What is claimed.
    pub claims: Vec<ClaimRequest>,
    /// Gets the claims that were written: those still held.
    pub reply: Sender<Vec<Claimed>>,
}

/// A partition to claim.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment.
    pub assignment: AssignmentEpoch,
    /// The group's position, which the claim commits anew.
    pub next: NextOffset,
    /// Nobody had committed that position; it is what `start` says.
    pub resolved: bool,
    /// What that position carries proves that there is a ledger.
    pub ledger: bool,
    /// Tells this claim from every other.
    pub nonce: [u8; 16],
}

/// A written claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Which partition.
    pub partition: Partition,
    /// The claim's number: its row's offset in the changelog.
    pub claim: i64,
}

/// What a writer needs.
pub struct WriterParts {
    /// Name of the handler, for the log.
    pub handler: Arc<str>,
    /// Input topic.
    pub topic: String,
    /// Changelog topic.
    pub changelog: String,
    /// This instance's name, written into claims.
    pub instance: String,
    /// The producer's settings.
    pub producer: ClientConfig,
    /// Whether epochs are transactions.
    pub transactional: bool,
    /// How long all acknowledgements of an epoch may take.
    pub ack_timeout: Duration,
    /// The handler's consumer: its group metadata fences every commit.
    pub consumer: Arc<BaseConsumer<IntakeContext>>,
    /// Which partitions may still be written for.
    pub held: Arc<Held>,
    /// Gets committed rows.
    pub view: Arc<LocalView>,
    /// Is told when the group does not know this member any more.
    pub intake: Sender<Command>,
    /// Observes commits.
    pub times: EpochCommitTimes,
    /// Is told why the handler cannot go on.
    pub on_halt: Arc<dyn Fn(String) + Send + Sync>,
}

/// See the module's documentation.
pub struct Writer {
    parts: WriterParts,
    session: Option<Session>,
    committer: Option<Addr<Committer>>,
    /// Position after the last known row of each changelog partition.
    rows_next: BTreeMap<i32, i64>,
}

/// Delays between attempts: from the first to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// New producers in a row that achieve nothing, before the handler gives up.
const MAX_FUTILE_PRODUCERS: u32 = 20;

impl Writer {
    /// Before its first producer.
    pub fn new(parts: WriterParts) -> Self {
        Writer { parts, session: None, committer: None, rows_next: BTreeMap::new() }
    }

    /// Works until told to stop or until nothing can be achieved any more.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        // The producer is opened before the first job, because that ends an open transaction of this
        // instance's predecessor, for which every reader waits.
        let mut result = self.reopen();
        while let Ok(()) = result {
            match jobs.recv() {
                Ok(Job::Epoch(epoch)) => {
                    result = self.write(&epoch);
                    if result.is_err() {
                        self.decided(epoch.number, &[]);
                    }
                }
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
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Epoch(epoch) => self.decided(epoch.number, &[]),
                Job::Claim(job) => drop(job.reply.send(Vec::new())),
                Job::Attach(committer) => self.committer = Some(committer),
                Job::Stop => return,
            }
        }
    }

    fn decided(&self, number: u64, parts: &[&PartitionEpoch]) {
        let committed = parts.iter().map(|part| part.partition).collect();
        if let Some(committer) = &self.committer {
            committer.do_send(EpochDecided { number, committed });
        }
    }

    fn write(&mut self, epoch: &Epoch) -> Result<(), String> {
        let began = Instant::now();
        let mut retry = Retry::default();
        loop {
            let parts: Vec<&PartitionEpoch> = epoch
                .partitions
                .iter()
                .filter(|part| self.parts.held.is(part.partition, part.assignment))
                .collect();
            let done = if parts.is_empty() {
                true
            } else {
                match self.attempt(&parts, epoch.number) {
                    Ok(delivered) => {
                        self.committed(&parts, &delivered)?;
                        true
                    }
                    Err(error) => {
                        let happened = self.recover(&mut retry, &error, &parts, epoch.number)?;
                        if happened {
                            self.committed(&parts, &Delivered::default())?;
                        }
                        happened
                    }
                }
            };
            if done {
                self.parts.times.observe(began.elapsed());
                self.decided(epoch.number, &parts);
                return Ok(());
            }
        }
    }

    fn attempt(&mut self, parts: &[&PartitionEpoch], number: u64) -> Result<Delivered, AttemptError> {
        let WriterParts { changelog, topic, transactional, consumer, .. } = &self.parts;
        let session =
            self.session.as_mut().ok_or_else(|| AttemptError::Producer("there is no producer".into()))?;
        session.begin()?;
        let shares = || parts.iter().map(|part| Share { part, changelog });
        let mut letters = 0;
        for share in shares() {
            share.effects(session, letters)?;
            letters += share.part.letters.len();
        }
        let mut delivered = if *transactional { Delivered::default() } else { session.acked()? };
        for share in shares() {
            share.heads(session)?;
        }
        if !*transactional {
            session.acked()?;
        }
        for share in shares() {
            share.partition_row(session)?;
        }
        let last = session.acked()?;
        delivered.rows_next = last.rows_next;
        delivered.places.extend(last.places);
        let offsets = parts
            .iter()
            .map(|part| {
                let metadata =
                    CommitMetadata { claim: part.claim, epoch: number, resolved: false, ledger: false };
                (part.partition.0, part.next.0, metadata)
            })
            .collect();
        let held = || parts.iter().all(|part| self.parts.held.is(part.partition, part.assignment));
        session.commit(consumer, &Commit { topic, offsets, held: &held })?;
        Ok(delivered)
    }

    /// Hands the rows of a committed epoch to the view and tells of its dead letters.
    fn committed(&mut self, parts: &[&PartitionEpoch], delivered: &Delivered) -> Result<(), String> {
        let mut number = 0;
        for part in parts {
            for letter in &part.letters {
                let place = delivered.places.get(&number).copied();
                self.tell_letter(part.partition, letter, place);
                number += 1;
            }
            // Rows whose place is unknown are read from the changelog again after a restart: the
            // position does not move, and rows in the view may be newer than it says.
            let known = self.rows_next.entry(part.partition.0).or_insert(0);
            *known = (*known).max(delivered.rows_next.get(&part.partition.0).copied().unwrap_or(0));
            let next = *known;
            let rows = part.rows.iter().chain([&part.partition_row]);
            self.parts
                .view
                .push(part.partition.0, rows.map(|row| (&row.key[..], row.value.as_deref())), next)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn tell_letter(
        &self,
        partition: Partition,
        letter: &pawl_actors::epoch::Letter,
        place: Option<(i32, i64)>,
    ) {
        let WriterParts { handler, topic, .. } = &self.parts;
        let (to, key, cause, offset) = (&letter.emit.topic, &letter.key, &letter.cause, letter.offset);
        match place {
            Some((at, number)) => tracing::warn!(
                "{handler}: {topic}[{partition}]@{offset} key \"{key}\": {cause}; sent to {to}[{at}]@{number}. See it: \
                 pawl dlt show {to} {at} {number}"
            ),
            None => tracing::warn!(
                "{handler}: {topic}[{partition}]@{offset} key \"{key}\": {cause}; sent to {to}[{partition}]. See it: \
                 pawl dlt list {to}"
            ),
        }
    }

    /// After a failed attempt: `true` if it turns out that it was committed after all, `false` to
    /// send again.
    fn recover(
        &mut self,
        retry: &mut Retry,
        error: &AttemptError,
        parts: &[&PartitionEpoch],
        number: u64,
    ) -> Result<bool, String> {
        if let AttemptError::Hopeless(reason) = error {
            if let Some(session) = &mut self.session {
                session.abort();
            }
            return Err(format!(
                "{reason}. Nothing of the epoch is visible, and it is read again after a restart"
            ));
        }
        if let AttemptError::Fenced(_) = error {
            // Gone only at the very end of the process.
            let _ = self.parts.intake.send(Command::Fenced);
        }
        let delay = retry.next();
        tracing::warn!(handler = %self.parts.handler, epoch = number, "an epoch was not committed: {error}; again in {delay:?}");
        std::thread::sleep(delay);
        let usable = matches!(error, AttemptError::Abortable(_) | AttemptError::Fenced(_))
            && self.session.as_mut().is_some_and(Session::abort);
        if usable {
            return Ok(false);
        }
        self.reopen()?;
        if matches!(error, AttemptError::Unknown(_)) {
            return self.was_committed(parts, number);
        }
        Ok(false)
    }

    /// Opens a new producer, which decides every open transaction of the old one.
    fn reopen(&mut self) -> Result<(), String> {
        self.session = None;
        let mut retry = Retry::default();
        for _ in 0..MAX_FUTILE_PRODUCERS {
            match Session::open(&self.parts.producer, self.parts.transactional, self.parts.ack_timeout) {
                Ok(session) => {
                    self.session = Some(session);
                    return Ok(());
                }
                Err(error) => {
                    let delay = retry.next();
                    tracing::warn!(handler = %self.parts.handler, "no producer yet: {error}; again in {delay:?}");
                    std::thread::sleep(delay);
                }
            }
        }
        Err(format!(
            "no usable producer after {MAX_FUTILE_PRODUCERS} attempts: is the broker reachable, has this principal \
             the right to its transactional id, and does no other process use the instance name \"{}\"?",
            self.parts.instance
        ))
    }

    /// Asks the group whether an epoch with unknown outcome was committed.
    fn was_committed(&self, parts: &[&PartitionEpoch], number: u64) -> Result<bool, String> {
        let mut retry = Retry::default();
        loop {
            let Some(part) = parts.iter().find(|part| self.parts.held.is(part.partition, part.assignment))
            else {
                return Ok(false);
            };
            match group::committed(&self.parts.consumer, &self.parts.topic, part.partition.0, CALL_TIMEOUT) {
                Ok(found) => {
                    let metadata = found.and_then(|found| found.metadata);
                    let reached = metadata
                        .is_some_and(|metadata| metadata.claim == part.claim && metadata.epoch >= number);
                    tracing::warn!(
                        handler = %self.parts.handler, epoch = number,
                        "the commit with unknown outcome {}", if reached { "had succeeded" } else { "had not happened" }
                    );
                    return Ok(reached);
                }
                Err(error) => {
                    let delay = retry.next();
                    tracing::warn!(handler = %self.parts.handler, "the group's offsets are not known: {error}; again in {delay:?}");
                    std::thread::sleep(delay);
                }
            }
        }
    }

    fn claim(&mut self, job: &ClaimJob) -> Result<(), String> {
        let mut retry = Retry::default();
        loop {
            let claims: Vec<&ClaimRequest> = job
                .claims
                .iter()
                .filter(|claim| self.parts.held.is(claim.partition, claim.assignment))
                .collect();
            let written = if claims.is_empty() { Ok(Vec::new()) } else { self.attempt_claims(&claims) };
            match written {
                Ok(claimed) => {
                    for claimed in &claimed {
                        self.rows_next.insert(claimed.partition.0, claimed.claim + 1);
                    }
                    // An owner that gave up meanwhile does not listen any more.
                    let _ = job.reply.send(claimed);
                    return Ok(());
                }
                // A claim whose outcome is unknown is simply made again: the later one counts.
                Err(error) => {
                    self.recover(&mut retry, &error, &[], 0)?;
                }
            }
        }
    }

    fn attempt_claims(&mut self, claims: &[&ClaimRequest]) -> Result<Vec<Claimed>, AttemptError> {
        let WriterParts { changelog, topic, instance, consumer, .. } = &self.parts;
        let session =
            self.session.as_mut().ok_or_else(|| AttemptError::Producer("there is no producer".into()))?;
        session.begin()?;
        for (n, claim) in claims.iter().enumerate() {
            let row = ClaimRow { instance: instance.clone(), nonce: claim.nonce, at: clock::now().0 };
            session.row(changelog, claim.partition.0, &row.row(&mut BytesMut::new()), Tag::Numbered(n))?;
        }
        let delivered = session.acked()?;
        let number = |n| delivered.places.get(&n).map_or(-1, |(_, offset)| *offset);
        let offsets = claims
            .iter()
            .enumerate()
            .map(|(n, claim)| {
                let ClaimRequest { resolved, ledger, .. } = **claim;
                let metadata = CommitMetadata { claim: number(n), epoch: 0, resolved, ledger };
                (claim.partition.0, claim.next.0, metadata)
            })
            .collect();
        let held = || claims.iter().all(|claim| self.parts.held.is(claim.partition, claim.assignment));
        session.commit(consumer, &Commit { topic, offsets, held: &held })?;
        let claimed =
            |(n, claim): (usize, &&ClaimRequest)| Claimed { partition: claim.partition, claim: number(n) };
        Ok(claims.iter().enumerate().map(claimed).collect())
    }
}

/// Growing delays.
#[derive(Default)]
struct Retry(u32);

impl Retry {
    fn next(&mut self) -> Duration {
        let delay = BACKOFF.0.saturating_mul(1 << self.0.min(10)).min(BACKOFF.1);
        self.0 += 1;
        delay
    }
}

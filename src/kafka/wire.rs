//! What the writer asks of Kafka, and how Kafka is asked: one attempt to write an epoch or claims, the
//! producer that it takes, and what the group has committed. What to do about a failed attempt is the
//! writer's business.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pawl_actors::clock;
use pawl_actors::epoch::PartitionEpoch;
use pawl_actors::ledger::ClaimRow;
use pawl_actors::record::Partition;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::access::{Live, Plan};
use super::attempt::AttemptError;
use super::claim::{ClaimRequest, Claimed};
use super::commit_metadata::CommitMetadata;
use super::delivery::{Delivered, Tag};
use super::denied::Identity;
use super::group;
use super::held::Held;
use super::rebalance::IntakeContext;
use super::transaction::{CALL_TIMEOUT, Commit, Session, Share, commit_plainly};
use crate::rights::Right;

/// Everything that the writer asks of the world; in its tests a script answers.
pub trait Wire {
    /// Opens a new producer, which decides every open transaction of the one before.
    ///
    /// # Errors
    /// See [`OpenError`].
    fn open(&mut self) -> Result<(), OpenError>;

    /// Begins a step.
    ///
    /// # Errors
    /// See [`AttemptError`].
    fn begin(&mut self) -> Result<(), AttemptError>;

    /// Sends shares of an epoch in the step that was begun; nothing is waited for that need not be.
    ///
    /// # Errors
    /// See [`AttemptError`].
    fn send(&mut self, parts: &[&PartitionEpoch]) -> Result<(), AttemptError>;

    /// Whether the step takes in more without being longer for it: what was sent first is still under way.
    fn takes_more(&self) -> bool;

    /// Ends the step, in which these shares were sent, in this order.
    ///
    /// # Errors
    /// See [`AttemptError`].
    fn finish(&mut self, parts: &[&PartitionEpoch]) -> Result<Delivered, AttemptError>;

    /// Writes shares of epochs in one step.
    ///
    /// # Errors
    /// See [`AttemptError`].
    fn write(&mut self, parts: &[&PartitionEpoch]) -> Result<Delivered, AttemptError> {
        self.begin()?;
        self.send(parts)?;
        self.finish(parts)
    }

    /// Writes claims in one step.
    ///
    /// # Errors
    /// See [`AttemptError`].
    fn claim(&mut self, claims: &[&ClaimRequest]) -> Result<Vec<Claimed>, AttemptError>;

    /// Takes back what the last attempt sent; `false` if this producer can do no more.
    fn abort(&mut self) -> bool;

    /// Numbers of the effects of the last attempt that their topics refused for their key or their time stamp;
    /// all of them are known once it is taken back.
    fn refused_effects(&self) -> Vec<usize>;

    /// What the group has committed for a partition, waiting for open transactions; `None` for another
    /// tool's commit or none at all.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    fn committed(&self, partition: Partition) -> Result<Option<CommitMetadata>, KafkaError>;

    /// Waits between two attempts.
    fn pause(&self, delay: Duration);

    /// What time it is.
    fn now(&self) -> Instant;
}

/// Why there is no new producer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The broker cannot be reached, or its coordinator is not there yet: it will be.
    #[error("{0}")]
    Unreachable(String),
    /// The broker answered no.
    #[error("{0}")]
    Refused(String),
    /// A right is missing.
    #[error("{0}")]
    Forbidden(String),
}

fn unopened(identity: &Identity, error: &KafkaError) -> OpenError {
    let text = error.to_string();
    match error {
        KafkaError::Transaction(cause) if group::is_forbidden(cause.code()) => {
            OpenError::Forbidden(identity.denied(cause.code(), &text, ("", Right::Write)))
        }
        KafkaError::Transaction(cause) if cause.is_retriable() || group::is_unanswered(cause.code()) => {
            OpenError::Unreachable(text)
        }
        _ => OpenError::Refused(text),
    }
}

/// Kafka itself.
pub struct KafkaWire {
    /// Input topic.
    pub topic: String,
    /// Changelog topic.
    pub changelog: String,
    /// This instance's name, written into claims.
    pub instance: String,
    /// The settings of its producers: two for transactions, else one.
    pub producers: Vec<Plan>,
    /// Whether epochs are transactions.
    pub transactional: bool,
    /// How long all acknowledgements of an epoch may take.
    pub ack_timeout: Duration,
    /// The handler's consumer: its group metadata fences every commit.
    pub consumer: Arc<Live<BaseConsumer<IntakeContext>>>,
    /// As what brokers know the handler, for errors.
    pub identity: Arc<Identity>,
    /// Which partitions may still be written for.
    pub held: Arc<Held>,
    /// The producers as they are now.
    pub sessions: Sessions,
    /// What is known of the step that was begun.
    pub step: Step,
}

/// A step on its way.
#[derive(Default)]
pub struct Step {
    /// Records of what was sent first.
    first: usize,
    /// Effects and letters sent so far.
    effects: usize,
    letters: usize,
    /// Where letters lie that were acknowledged before the rest was sent.
    places: BTreeMap<usize, (i32, i64)>,
}

/// Producers that take turns. A coordinator refuses a producer's next transaction until the markers of
/// its last one are written, and librdkafka asks again 20 ms later; a second producer has nothing to
/// wait for. Transactions of both still come one after the other: the second begins when the commit
/// of the first is decided.
#[derive(Default)]
pub struct Sessions {
    all: Vec<Session>,
    turn: usize,
}

impl Sessions {
    /// Closes what is open and opens one for each of these settings, all at the same time.
    fn open(
        &mut self,
        configs: &[Plan],
        open: impl Fn(&Plan) -> Result<Session, KafkaError> + Sync,
    ) -> Result<(), KafkaError> {
        self.all.clear();
        let opened: Vec<_> = std::thread::scope(|scope| {
            let opening: Vec<_> = configs.iter().map(|config| scope.spawn(|| open(config))).collect();
            opening.into_iter().map(|one| one.join().expect("librdkafka does not panic")).collect()
        });
        self.all = opened.into_iter().collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Whose turn it is next.
    fn next(&mut self) -> Result<&mut Session, AttemptError> {
        self.turn = (self.turn + 1) % self.all.len().max(1);
        self.current()
    }

    /// Whose turn it was last.
    fn current(&mut self) -> Result<&mut Session, AttemptError> {
        self.all.get_mut(self.turn).ok_or_else(|| AttemptError::Producer("there is no producer".into()))
    }
}

impl Wire for KafkaWire {
    fn open(&mut self) -> Result<(), OpenError> {
        let (identity, transactional, ack_timeout) = (&self.identity, self.transactional, self.ack_timeout);
        let open = |config: &Plan| Session::open(config, identity.clone(), transactional, ack_timeout);
        self.sessions.open(&self.producers, open).map_err(|error| unopened(identity, &error))
    }

    fn begin(&mut self) -> Result<(), AttemptError> {
        self.step = Step::default();
        self.sessions.next()?.begin()
    }

    fn send(&mut self, parts: &[&PartitionEpoch]) -> Result<(), AttemptError> {
        let session = self.sessions.current()?;
        let shares = || parts.iter().map(|part| Share { part, changelog: &self.changelog });
        for share in shares() {
            share.effects(session, self.step.effects, self.step.letters)?;
            self.step.effects += share.part.emits.len();
            self.step.letters += share.part.letters.len();
        }
        // Without a transaction a row may only be there once what it tells of is.
        if !self.transactional {
            self.step.places = session.acked()?.places;
        }
        for share in shares() {
            share.heads(session)?;
        }
        if !self.transactional {
            session.acked()?;
        }
        for share in shares() {
            share.partition_row(session)?;
        }
        if self.step.first == 0 {
            self.step.first = session.count_sent();
        }
        Ok(())
    }

    fn takes_more(&self) -> bool {
        let session = self.sessions.all.get(self.sessions.turn);
        self.transactional && session.is_some_and(|session| session.count_acked() < self.step.first)
    }

    fn finish(&mut self, parts: &[&PartitionEpoch]) -> Result<Delivered, AttemptError> {
        let session = self.sessions.current()?;
        // Of a partition with several shares the last one counts.
        let offsets: BTreeMap<i32, _> = parts.iter().map(|part| (part.partition.0, offset(part))).collect();
        let offsets = offsets.into_values().collect();
        let held = || parts.iter().all(|part| self.held.is(part.partition, part.assignment));
        let commit = Commit { topic: &self.topic, offsets, held: &held };
        if self.transactional {
            session.add_offsets(&self.consumer, &commit)?;
        }
        let mut delivered = session.acked()?;
        delivered.places.append(&mut self.step.places);
        if self.transactional {
            session.commit()
        } else {
            commit_plainly(&self.identity, &self.consumer, &commit)
        }?;
        Ok(delivered)
    }

    fn claim(&mut self, claims: &[&ClaimRequest]) -> Result<Vec<Claimed>, AttemptError> {
        let session = self.sessions.next()?;
        session.begin()?;
        for (n, claim) in claims.iter().enumerate() {
            let row = ClaimRow { instance: self.instance.clone(), at: clock::now().0 };
            let row = row.row(&mut BytesMut::new());
            session.row(&self.changelog, claim.partition.0, &row, Tag::Numbered(n))?;
        }
        let delivered = session.acked()?;
        let placed = |n: usize| delivered.places.get(&n).is_some_and(|(_, offset)| *offset >= 0);
        if !(0..claims.len()).all(placed) {
            // A row that was sent twice is acknowledged without its place, and the place is the claim.
            return Err(AttemptError::Unacknowledged("a claim's place is not known".into()));
        }
        let number = |n| delivered.places[&n].1;
        let offsets = claims
            .iter()
            .enumerate()
            .map(|(n, claim)| {
                let ClaimRequest { resolved, ledger, claims, .. } = **claim;
                let metadata =
                    CommitMetadata { resolved, ledger, claims, ..CommitMetadata::of(number(n), 0) };
                (claim.partition.0, claim.next.0, metadata)
            })
            .collect();
        let held = || claims.iter().all(|claim| self.held.is(claim.partition, claim.assignment));
        let commit = Commit { topic: &self.topic, offsets, held: &held };
        if self.transactional {
            session.add_offsets(&self.consumer, &commit)?;
            session.commit()?;
        } else {
            commit_plainly(&self.identity, &self.consumer, &commit)?;
        }
        let claimed =
            |(n, claim): (usize, &&ClaimRequest)| Claimed { partition: claim.partition, claim: number(n) };
        Ok(claims.iter().enumerate().map(claimed).collect())
    }

    fn abort(&mut self) -> bool {
        self.sessions.current().is_ok_and(Session::abort)
    }

    fn refused_effects(&self) -> Vec<usize> {
        self.sessions.all.get(self.sessions.turn).map(Session::refused_effects).unwrap_or_default()
    }

    fn committed(&self, partition: Partition) -> Result<Option<CommitMetadata>, KafkaError> {
        let found = group::committed(&self.consumer, &self.topic, partition.0, CALL_TIMEOUT)?;
        Ok(found.and_then(|found| found.metadata))
    }

    fn pause(&self, delay: Duration) {
        std::thread::sleep(delay);
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// What the group commits for a share.
fn offset(part: &PartitionEpoch) -> (i32, i64, CommitMetadata) {
    let PartitionEpoch { claim, epoch, released, claims, .. } = *part;
    let metadata = CommitMetadata { released, claims, ..CommitMetadata::of(claim, epoch) };
    (part.partition.0, part.next.0, metadata)
}

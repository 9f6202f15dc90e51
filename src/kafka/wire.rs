//! What the writer asks of Kafka, and how Kafka is asked: one attempt to write an epoch or claims, the
//! producer that it takes, and what the group has committed. What to do about a failed attempt is the
//! writer's business.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pawl_actors::clock;
use pawl_actors::epoch::PartitionEpoch;
use pawl_actors::ledger::ClaimRow;
use pawl_actors::record::Partition;
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::claim::{ClaimRequest, Claimed};
use super::commit_metadata::CommitMetadata;
use super::delivery::{Delivered, Tag};
use super::group;
use super::held::Held;
use super::rebalance::IntakeContext;
use super::transaction::{AttemptError, CALL_TIMEOUT, Commit, Session, Share};

/// Everything that the writer asks of the world; in its tests a script answers.
pub trait Wire {
    /// Opens a new producer, which decides every open transaction of the one before.
    ///
    /// # Errors
    /// See [`OpenError`].
    fn open(&mut self) -> Result<(), OpenError>;

    /// Writes shares of an epoch in one step.
    ///
    /// # Errors
    /// See [`AttemptError`].
    fn write(&mut self, parts: &[&PartitionEpoch], number: u64) -> Result<Delivered, AttemptError>;

    /// Writes claims in one step.
    ///
    /// # Errors
    /// See [`AttemptError`].
    fn claim(&mut self, claims: &[&ClaimRequest]) -> Result<Vec<Claimed>, AttemptError>;

    /// Takes back what the last attempt sent; `false` if this producer can do no more.
    fn abort(&mut self) -> bool;

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
    #[error("{0}: give this principal the right to its transactional id")]
    Forbidden(String),
}

impl From<KafkaError> for OpenError {
    fn from(error: KafkaError) -> Self {
        let text = error.to_string();
        match &error {
            KafkaError::Transaction(cause) if group::is_forbidden(cause.code()) => OpenError::Forbidden(text),
            KafkaError::Transaction(cause) if cause.is_retriable() || group::is_unanswered(cause.code()) => {
                OpenError::Unreachable(text)
            }
            _ => OpenError::Refused(text),
        }
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
    /// `None` before the first producer, and between two.
    pub session: Option<Session>,
}

impl Wire for KafkaWire {
    fn open(&mut self) -> Result<(), OpenError> {
        self.session = None;
        self.session = Some(Session::open(&self.producer, self.transactional, self.ack_timeout)?);
        Ok(())
    }

    fn write(&mut self, parts: &[&PartitionEpoch], number: u64) -> Result<Delivered, AttemptError> {
        let session = self.session.as_mut().ok_or_else(no_producer)?;
        session.begin()?;
        let shares = || parts.iter().map(|part| Share { part, changelog: &self.changelog });
        let mut letters = 0;
        for share in shares() {
            share.effects(session, letters)?;
            letters += share.part.letters.len();
        }
        let mut delivered = if self.transactional { Delivered::default() } else { session.acked()? };
        for share in shares() {
            share.heads(session)?;
        }
        if !self.transactional {
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
        let held = || parts.iter().all(|part| self.held.is(part.partition, part.assignment));
        session.commit(&self.consumer, &Commit { topic: &self.topic, offsets, held: &held })?;
        Ok(delivered)
    }

    fn claim(&mut self, claims: &[&ClaimRequest]) -> Result<Vec<Claimed>, AttemptError> {
        let session = self.session.as_mut().ok_or_else(no_producer)?;
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
                let ClaimRequest { resolved, ledger, .. } = **claim;
                let metadata = CommitMetadata { claim: number(n), epoch: 0, resolved, ledger };
                (claim.partition.0, claim.next.0, metadata)
            })
            .collect();
        let held = || claims.iter().all(|claim| self.held.is(claim.partition, claim.assignment));
        session.commit(&self.consumer, &Commit { topic: &self.topic, offsets, held: &held })?;
        let claimed =
            |(n, claim): (usize, &&ClaimRequest)| Claimed { partition: claim.partition, claim: number(n) };
        Ok(claims.iter().enumerate().map(claimed).collect())
    }

    fn abort(&mut self) -> bool {
        self.session.as_mut().is_some_and(Session::abort)
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

fn no_producer() -> AttemptError {
    AttemptError::Producer("there is no producer".into())
}

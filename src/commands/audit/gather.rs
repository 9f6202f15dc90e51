//! Gathers an audit's facts. Reads only, and may run beside the handler.
//!
//! The order makes one moment of it. First each changelog partition is read up to its end as it is then,
//! waiting for transactions that are under way: the last partition row is the moment that is judged.
//! Letters and input are read afterwards, and of them only what that row and the keys' rows before it
//! have taken counts, whatever has been written since; what was committed with the row lies there
//! already. The group's offset is asked for last: it tells whether anything was committed since.

use std::collections::BTreeMap;

use pawl_actors::dead_letter::header;
use pawl_actors::partition::KeyBounds;
use pawl_actors::record::{Header, Millis, Offset, Record, TimestampType, last_header};
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::{BorrowedMessage, Message};

use super::facts::{Facts, Input, OpenTransaction, Output, PartitionFacts, Position};
use super::rows::{self, Ledger};
use super::tally::{InputTally, LetterTally, Origin, Sorting, Taken};
use crate::commands::{Failure, progress};
use crate::exit::Exit;
use crate::kafka::access::Live;
use crate::kafka::admin::{Admin, AdminError};
use crate::kafka::client::{self, LogContext};
use crate::kafka::group;
use crate::kafka::headers;
use crate::kafka::topic_reader::{Bounds, Range, TopicReader};
use crate::runtime::{TRANSACTION_SWEEP, max_row_bytes};
use crate::settings::{Guarantee, HandlerSettings, Kafka};

/// Asks about one handler.
pub struct Gathering<'a> {
    kafka: &'a Kafka,
    admin: Admin,
    name: &'a str,
    handler: &'a HandlerSettings,
}

/// Why there are no facts.
pub enum Missing {
    /// There is no such topic: the input's name is wrong.
    Input(String),
    /// There is no such topic: the handler never ran.
    Changelog(String),
}

type PerPartition<T> = BTreeMap<i32, T>;

impl<'a> Gathering<'a> {
    /// # Errors
    /// When librdkafka does not take the settings.
    pub fn new(kafka: &'a Kafka, name: &'a str, handler: &'a HandlerSettings) -> Result<Self, Failure> {
        Ok(Gathering { kafka, admin: Admin::new(kafka)?, name, handler })
    }

    /// All facts of the handler.
    ///
    /// # Errors
    /// No broker, no right to read, or a row that cannot be read.
    pub fn facts(&self) -> Result<Result<Facts, Missing>, Failure> {
        let (topic, changelog) = (&self.handler.topic, self.handler.changelog_topic(self.name));
        let Some(input) = self.admin.describe(topic)? else { return Ok(Err(Missing::Input(topic.clone()))) };
        let Some(found) = self.admin.describe(&changelog)? else {
            return Ok(Err(Missing::Changelog(changelog)));
        };
        let partitions: Vec<i32> = (0..found.partitions.min(input.partitions)).collect();
        let sorting = self.sorting(&changelog, input.partitions)?;
        let mut open = Vec::new();

        let ledgers = self.ledgers(&changelog, &partitions, &sorting, &mut open)?;
        let (mut tallies, letters_low) = self.letters(&partitions, &ledgers, &sorting, &mut open)?;
        let (bounds, counted) = self.input(&partitions, &ledgers, &mut tallies, &sorting, &mut open)?;
        let output = self.output(&mut open)?;
        let mut groups = self.groups(&partitions)?;
        let compacted = self.removes(topic)?.compacts;
        let facts = ledgers.into_iter().map(|(partition, ledger)| {
            let low = bounds.get(&partition).map_or(0, |bounds| bounds.low);
            let from = ledger.taken.as_ref().map_or(low, |taken| taken.began().max(low));
            let tally = tallies.remove(&partition).unwrap_or_default();
            let InputTally { below, ahead, second_pass } =
                counted.get(&partition).copied().unwrap_or_default();
            let high = bounds.get(&partition).map_or(0, |bounds| bounds.high);
            PartitionFacts {
                partition,
                claim: ledger.claim,
                heads: ledger.taken.as_ref().map(Taken::heads).unwrap_or_default(),
                row: ledger.row.map(|(_, row)| row),
                group: groups.remove(&partition),
                input: Input { low, high, compacted, below, ahead, second_pass },
                letters: letters_low.get(&partition).map(|low| tally.finish(from, *low)),
            }
        });
        Ok(Ok(Facts {
            handler: self.name.to_owned(),
            topic: topic.clone(),
            topic_id: input.id.unwrap_or(input.name),
            letters_topic: self.handler.dead_letter_topic(),
            fingerprint: self.handler.identity_fingerprint(),
            transactional: self.handler.guarantee == Guarantee::ExactlyOnce,
            input_partitions: input.partitions,
            partitions: facts.collect(),
            output,
            open,
        }))
    }

    fn sorting(&self, changelog: &str, partitions: i32) -> Result<Sorting, Failure> {
        let max_row_bytes = max_row_bytes(&self.admin, changelog)?;
        let bounds = KeyBounds { recent_ids: self.handler.recent_ids as usize, max_row_bytes };
        Ok(Sorting { key: self.handler.key.clone(), null_key: self.handler.null_key, bounds, partitions })
    }

    fn ledgers(
        &self,
        changelog: &str,
        partitions: &[i32],
        sorting: &Sorting,
        open: &mut Vec<OpenTransaction>,
    ) -> Result<PerPartition<Ledger>, Failure> {
        let reader = TopicReader::new(self.kafka, changelog, "audit");
        let bounds = self.bounds(&reader, changelog, partitions, true, open)?;
        let letters = self.admin.describe(&self.handler.dead_letter_topic())?;
        let letters_id = letters.map(|found| found.id.unwrap_or(found.name)).unwrap_or_default();
        rows::read(&reader, changelog, &bounds, &letters_id, sorting)
    }

    /// The letters of each partition, and the first that is left; nothing where there is no such topic.
    fn letters(
        &self,
        partitions: &[i32],
        ledgers: &PerPartition<Ledger>,
        sorting: &Sorting,
        open: &mut Vec<OpenTransaction>,
    ) -> Result<(PerPartition<LetterTally>, PerPartition<i64>), Failure> {
        let topic = self.handler.dead_letter_topic();
        let (mut tallies, mut low) = (PerPartition::<LetterTally>::new(), PerPartition::new());
        let Some(found) = self.admin.describe(&topic)? else { return Ok((tallies, low)) };
        let there: Vec<i32> =
            partitions.iter().copied().filter(|partition| *partition < found.partitions).collect();
        let reader = TopicReader::new(self.kafka, &topic, "audit");
        let bounds = self.bounds(&reader, &topic, &there, true, open)?;
        low.extend(bounds.iter().map(|(partition, bounds)| (*partition, bounds.low)));
        let group = self.handler.group(self.name);
        progress::read(&reader, &topic, &whole(&bounds), |message| {
            let taken = ledgers.get(&message.partition()).and_then(|ledger| ledger.taken.as_ref());
            if let (Some(taken), Some(origin)) = (taken, self.origin(message, group)) {
                let tally = tallies.entry(message.partition()).or_default();
                tally.letter(origin, || record(message), taken, sorting);
            }
            Ok(())
        })?;
        tallies.values_mut().for_each(LetterTally::close);
        Ok((tallies, low))
    }

    /// Where a letter's original lies; `None` for a letter of another group.
    fn origin(&self, message: &BorrowedMessage<'_>, group: &str) -> Option<Origin> {
        let (headers, letter) = (headers::read(message, bytes::Bytes::copy_from_slice), message.offset());
        let last = |name: &str| last_header(&headers, name).map(|value| &value[..]);
        let of = last(header::GROUP).or_else(|| last(header::ORIGINAL_CONSUMER_GROUP));
        if of != Some(group.as_bytes()) {
            return None;
        }
        let long = |name: &str| last(name).and_then(|it| it.try_into().ok()).map(i64::from_be_bytes);
        // The originals are those of an earlier pass then.
        if let Some(offset) = long(header::OFFSET) {
            return Some(Origin { letter, here: true, offset });
        }
        let partition =
            last(header::ORIGINAL_PARTITION).and_then(|it| it.try_into().ok()).map(i32::from_be_bytes);
        let offset = long(header::ORIGINAL_OFFSET);
        let here = last(header::ORIGINAL_TOPIC) == Some(self.handler.topic.as_bytes())
            && partition == Some(message.partition())
            && offset.is_some();
        Some(Origin { letter, here, offset: offset.unwrap_or(-1) })
    }

    fn input(
        &self,
        partitions: &[i32],
        ledgers: &PerPartition<Ledger>,
        letters: &mut PerPartition<LetterTally>,
        sorting: &Sorting,
        open: &mut Vec<OpenTransaction>,
    ) -> Result<(PerPartition<Bounds>, PerPartition<InputTally>), Failure> {
        let topic = &self.handler.topic;
        let reader = TopicReader::new(self.kafka, topic, "audit");
        let bounds = self.bounds(&reader, topic, partitions, false, open)?;
        let range = |(partition, bounds): (&i32, &Bounds)| {
            let taken = ledgers.get(partition)?.taken.as_ref()?;
            // What was taken is decided, even where a producer's transaction is open behind it.
            let (from, to) = (taken.began().max(bounds.low), taken.end().min(bounds.stable));
            Some(Range { partition: *partition, from: Some(from), to: Some(to) })
        };
        let ranges: Vec<Range> = bounds.iter().filter_map(range).collect();
        let mut counted: PerPartition<InputTally> = PerPartition::new();
        progress::read(&reader, topic, &ranges, |message| {
            let partition = message.partition();
            let Some(taken) = ledgers.get(&partition).and_then(|ledger| ledger.taken.as_ref()) else {
                return Ok(());
            };
            let letters = letters.entry(partition).or_default();
            let tally = counted.entry(partition).or_default();
            tally.record(
                message.offset(),
                || record(message),
                || returned(message),
                (taken, letters),
                sorting,
            );
            Ok(())
        })?;
        Ok((bounds, counted))
    }

    /// The output of a `forward` handler; other handlers write what they like.
    fn output(&self, open: &mut Vec<OpenTransaction>) -> Result<Option<Output>, Failure> {
        let Some(forward) = &self.handler.forward else { return Ok(None) };
        let Some(found) = self.admin.describe(&forward.topic)? else { return Ok(None) };
        let partitions: Vec<i32> = (0..found.partitions).collect();
        let reader = TopicReader::new(self.kafka, &forward.topic, "audit");
        let bounds = self.bounds(&reader, &forward.topic, &partitions, false, open)?;
        let mut records = 0;
        progress::read(&reader, &forward.topic, &whole(&bounds), |_| {
            records += 1;
            Ok(())
        })?;
        let removed = self.removes(&forward.topic)?.compacts || bounds.values().any(|bounds| bounds.low > 0);
        Ok(Some(Output { topic: forward.topic.clone(), records, removed }))
    }

    fn groups(&self, partitions: &[i32]) -> Result<PerPartition<Position>, Failure> {
        let failed = |error: rdkafka::error::KafkaError| {
            let group = self.handler.group(self.name);
            let message = format!(
                "cannot read the offsets of the group {group}: {error}; if it is a right, allow this client Describe \
                 of the group by an ACL"
            );
            Failure::new(Exit::Stopped, message)
        };
        let plan = client::consumer(self.kafka, self.handler.group(self.name));
        let opened = plan.open(LogContext::new("audit"));
        let consumer: Live<BaseConsumer<LogContext>> = opened.map_err(|error| failed(error.into()))?;
        let mut positions = PerPartition::new();
        for &partition in partitions {
            let timeout = self.kafka.request_timeout;
            let found =
                group::committed(&consumer, &self.handler.topic, partition, timeout).map_err(failed)?;
            let position = |it: group::Committed| Position { next: it.next, metadata: it.metadata };
            positions.extend(found.map(|found| (partition, position(found))));
        }
        Ok(positions)
    }

    /// What partitions hold now. Of the handler's own topics a dead instance's transaction is waited
    /// for as long as it may stay open; others may keep theirs.
    fn bounds(
        &self,
        reader: &TopicReader,
        topic: &str,
        partitions: &[i32],
        own: bool,
        open: &mut Vec<OpenTransaction>,
    ) -> Result<PerPartition<Bounds>, Failure> {
        let waited = match own {
            true => self.kafka.transaction_timeout + TRANSACTION_SWEEP,
            false => self.kafka.request_timeout,
        };
        let bar = progress::waiting(&format!("{topic}: waiting for a transaction to end"));
        let bounds = reader.bounds(partitions, waited, || bar.tick());
        bar.finish_and_clear();
        let bounds = bounds?;
        open.extend(bounds.iter().filter(|(_, bounds)| bounds.stable < bounds.high).map(
            |(partition, bounds)| {
                let (from, to) = (bounds.stable, bounds.high);
                OpenTransaction { topic: topic.to_owned(), partition: *partition, from, to, waited, own }
            },
        ));
        Ok(bounds)
    }

    fn removes(&self, topic: &str) -> Result<Removes, Failure> {
        match self.admin.configs(topic) {
            Ok(configs) => Ok(Removes { compacts: configs.cleanup_policy.contains("compact") }),
            // A right that running does not need. A compacted input is seldom, and says so by itself.
            Err(AdminError::Forbidden { .. }) => Ok(Removes { compacts: false }),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a topic does with its records.
struct Removes {
    compacts: bool,
}

/// All that is decided.
fn whole(bounds: &PerPartition<Bounds>) -> Vec<Range> {
    let range = |(partition, bounds): (&i32, &Bounds)| Range {
        partition: *partition,
        from: Some(bounds.low),
        to: Some(bounds.stable),
    };
    bounds.iter().map(range).collect()
}

/// What decides the lane of a record.
fn record(message: &BorrowedMessage<'_>) -> Record {
    let copy = |slice: Option<&[u8]>| slice.map(bytes::Bytes::copy_from_slice);
    Record {
        offset: Offset(message.offset()),
        timestamp: Millis(0),
        timestamp_type: TimestampType::NotAvailable,
        key: copy(message.key()),
        value: copy(message.payload()),
        headers: headers::read(message, bytes::Bytes::copy_from_slice),
    }
}

/// Whether a record came with a dead letter's headers.
fn returned(message: &BorrowedMessage<'_>) -> bool {
    let telling = |header: &Header| header.name == header::ORIGINAL_TOPIC.as_bytes();
    message.headers().is_some() && headers::read(message, bytes::Bytes::copy_from_slice).iter().any(telling)
}

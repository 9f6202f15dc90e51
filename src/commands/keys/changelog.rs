//! Reading keys from a changelog: committed rows, from the beginning to the end as it is when asked.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pawl_actors::ledger::{Head, LaneKey, PARTITION_KEY, PartitionRow, Rewinds, RowError, head_key};
use pawl_actors::selector::Selector;
use rdkafka::message::Message;

use super::fold::Fold;
use crate::commands::dlt::scan::no_such_partition;
use crate::commands::{Failure, progress};
use crate::exit::Exit;
use crate::kafka::admin::Admin;
use crate::kafka::partitioner::java_partition;
use crate::kafka::topic_reader::{Range, TopicReader};
use crate::looking::{KeyLine, KeyPage};
use crate::settings::{HandlerSettings, Kafka};

/// Offsets before the end in which a partition's row is looked for first.
const TAIL: i64 = 10_000;
/// Keys that one pass over a partition holds at least: some 20 MB. A list that asks for more holds
/// as many as it asks for.
const MIN_BOUND: usize = 100_000;

/// The changelog of a handler.
pub struct Changelog {
    topic: String,
    partitions: i32,
    reader: TopicReader,
    /// Whether the partition of a key follows from its bytes.
    keyed_by_record: bool,
}

/// The last rows of a partition that tell of one key.
#[derive(Default)]
struct Rows {
    head: Option<(i64, Vec<u8>)>,
    partition: Option<Vec<u8>>,
}

impl Changelog {
    /// # Errors
    /// No broker, or no changelog.
    pub fn open(kafka: &Kafka, name: &str, handler: &HandlerSettings) -> Result<Changelog, Failure> {
        let topic = handler.changelog_topic(name);
        let Some(found) = Admin::new(kafka)?.describe(&topic)? else {
            let message = format!(
                "there is no changelog \"{topic}\" at {}: the handler {name} has never run there",
                kafka.bootstrap_servers.join(",")
            );
            return Err(Failure::new(Exit::Stopped, message));
        };
        let reader = TopicReader::new(kafka, &topic, "changelog");
        let keyed_by_record = handler.key == Selector::Record;
        Ok(Changelog { topic, partitions: found.partitions, reader, keyed_by_record })
    }

    /// For a person.
    pub fn source(&self) -> String {
        format!("the changelog {}", self.topic)
    }

    /// The first `limit` keys that begin with `prefix` and are `wanted`, holding up to `bound` of them at a time, by partition, then by key, and whether there are
    /// more. Partition after partition is read, until there are enough.
    ///
    /// # Errors
    /// No such partition, no broker, or a row that cannot be read.
    pub fn list(
        &self,
        partition: Option<i32>,
        prefix: Bytes,
        limit: usize,
        bound: usize,
        wanted: impl Fn(&KeyLine) -> bool,
    ) -> Result<(Vec<KeyLine>, bool), Failure> {
        let mut keys = Vec::new();
        for range in self.ranges(&self.partitions(partition)?)? {
            let rewinds = self.rewinds(range)?;
            let mut from = Some(Bytes::new());
            // One more than is asked for tells whether there are more.
            while let Some(begin) = from.filter(|_| keys.len() <= limit) {
                let bound = (limit + 1).max(MIN_BOUND).max(bound);
                let fold = Fold::new(range.partition, prefix.clone(), begin, bound);
                let mut fold = fold.rewound(rewinds.clone());
                self.read(&[range], |_, offset, key, value| fold.take(key, value, offset))?;
                let (lines, next) = fold.finish();
                keys.extend(lines.filter(&wanted).take(limit + 1 - keys.len()));
                from = next;
            }
        }
        let more = keys.len() > limit;
        keys.truncate(limit);
        Ok((keys, more))
    }

    /// What is known of a key, one page for each partition that knows it. Without a partition given it
    /// is looked for where Java's partitioner puts it, and in the others only if it is not there.
    ///
    /// # Errors
    /// As [`Changelog::list`].
    pub fn show(&self, partition: Option<i32>, key: &LaneKey<Bytes>) -> Result<Vec<KeyPage>, Failure> {
        let all = self.partitions(partition)?;
        let likely = match key {
            LaneKey::Key(key) if self.keyed_by_record && partition.is_none() => {
                java_partition(key, self.partitions)
            }
            _ => return self.look(&all, key),
        };
        let found = self.look(&[likely], key)?;
        if !found.is_empty() || all.len() == 1 {
            return Ok(found);
        }
        eprintln!("not in partition {likely}, where Java's partitioner puts it; looking in the others");
        let others: Vec<i32> = all.into_iter().filter(|partition| *partition != likely).collect();
        self.look(&others, key)
    }

    fn look(&self, partitions: &[i32], key: &LaneKey<Bytes>) -> Result<Vec<KeyPage>, Failure> {
        let row_key = head_key(key.as_deref(), &mut BytesMut::new());
        let mut rows: BTreeMap<i32, Rows> = BTreeMap::new();
        self.read(&self.ranges(partitions)?, |partition, offset, read_key, value| {
            if read_key == row_key {
                rows.entry(partition).or_default().head = value.map(|value| (offset, value.to_vec()));
            } else if read_key == PARTITION_KEY {
                rows.entry(partition).or_default().partition = value.map(<[u8]>::to_vec);
            }
            Ok(())
        })?;
        let pages = rows.into_iter().filter_map(|(partition, rows)| page(partition, key, rows).transpose());
        pages.collect::<Result<_, _>>().map_err(|error| self.unreadable(&error))
    }

    /// How a partition was rewound. Every epoch ends with its row, so that most often lies near the end.
    fn rewinds(&self, range: Range) -> Result<Rewinds, Failure> {
        let tail = range.to.map(|to| Range { from: Some((to - TAIL).max(range.from.unwrap_or(0))), ..range });
        for range in tail.into_iter().chain([range]) {
            let mut last = None;
            self.read(&[range], |_, _, key, value| {
                if key == PARTITION_KEY {
                    last = value.map(PartitionRow::decode).transpose()?;
                }
                Ok(())
            })?;
            if let Some(row) = last {
                return Ok(row.rewinds);
            }
        }
        Ok(Rewinds::default())
    }

    fn partitions(&self, only: Option<i32>) -> Result<Vec<i32>, Failure> {
        match only {
            None => Ok((0..self.partitions).collect()),
            Some(partition) if partition < self.partitions => Ok(vec![partition]),
            Some(partition) => Err(no_such_partition(&self.topic, partition, self.partitions)),
        }
    }

    /// The partitions up to what is committed now.
    fn ranges(&self, partitions: &[i32]) -> Result<Vec<Range>, Failure> {
        let bounds = self.reader.bounds(partitions, Duration::ZERO, || {})?;
        Ok(bounds
            .into_iter()
            .map(|(partition, bounds)| Range { partition, from: Some(bounds.low), to: Some(bounds.stable) })
            .collect())
    }

    fn read(
        &self,
        ranges: &[Range],
        mut each: impl FnMut(i32, i64, &[u8], Option<&[u8]>) -> Result<(), RowError>,
    ) -> Result<(), Failure> {
        progress::read(&self.reader, &self.topic, ranges, |message| {
            let (partition, offset) = (message.partition(), message.offset());
            each(partition, offset, message.key().unwrap_or_default(), message.payload())
                .map_err(|error| self.unreadable(&error))
        })
    }

    fn unreadable(&self, error: &RowError) -> Failure {
        Failure::new(Exit::Stopped, format!("{}: {error}", self.topic))
    }
}

fn page(partition: i32, key: &LaneKey<Bytes>, rows: Rows) -> Result<Option<KeyPage>, RowError> {
    let Some((offset, value)) = rows.head else { return Ok(None) };
    let head = Head::decode(&value)?;
    let within = rows.partition.map(|row| PartitionRow::decode(&row)).transpose()?;
    Ok(Some(KeyPage::of(partition, key.clone(), Some(head), Some(offset), within.as_ref())))
}

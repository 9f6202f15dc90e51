//! Reading a dead-letter topic from a place to its end.

use std::ops::ControlFlow;

use pawl_actors::record::Record;
use rdkafka::message::{BorrowedMessage, Message};

use crate::commands::{Failure, progress};
use crate::exit::Exit;
use crate::kafka::admin::Admin;
use crate::kafka::chunk::Chunk;
use crate::kafka::topic_reader::{Bounds, Range, TopicReader};
use crate::settings::Kafka;

/// Where to start.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// The beginning of one partition, or of all.
    Beginning(Option<i32>),
    /// A partition and an offset.
    At(i32, i64),
}

/// A record, and the partition that it lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub partition: i32,
    pub record: Record,
}

impl Found {
    fn copy(message: &BorrowedMessage<'_>, chunk: &mut Chunk) -> Found {
        Found { partition: message.partition(), record: chunk.record(message) }
    }
}

/// A topic to read.
pub struct Scan {
    kafka: Kafka,
    topic: String,
    partitions: i32,
}

impl Scan {
    /// # Errors
    /// No broker, or no such topic.
    pub fn open(kafka: Kafka, topic: &str) -> Result<Scan, Failure> {
        let Some(found) = Admin::new(&kafka)?.describe(topic)? else {
            let servers = kafka.bootstrap_servers.join(",");
            let message = format!("there is no topic \"{topic}\" at {servers}; correct its name");
            return Err(Failure::new(Exit::Stopped, message));
        };
        Ok(Scan { kafka, topic: topic.to_owned(), partitions: found.partitions })
    }

    /// Hands over record after record, partition by partition in no fixed order among partitions,
    /// up to the end as it is now or until `each` breaks.
    ///
    /// # Errors
    /// No such partition, no answer within the request time-out, or what `each` says.
    pub fn read(
        &self,
        start: Start,
        mut each: impl FnMut(Found) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let ranges = self.ranges(start)?;
        let reader = TopicReader::new(&self.kafka, &self.topic, "dlt");
        let mut chunk = Chunk::default();
        reader.read(&ranges, |message| each(Found::copy(message, &mut chunk)))
    }

    /// Hands over all that is committed now, with a bar on a terminal, and tells how many records an open
    /// transaction holds back, which is waited for as long as a request.
    ///
    /// # Errors
    /// As [`Scan::read`].
    pub fn read_whole(
        &self,
        partition: Option<i32>,
        mut each: impl FnMut(Found) -> Result<(), Failure>,
    ) -> Result<i64, Failure> {
        let partitions: Vec<i32> =
            self.ranges(Start::Beginning(partition))?.iter().map(|range| range.partition).collect();
        let reader = TopicReader::new(&self.kafka, &self.topic, "dlt");
        let bar = progress::waiting(&format!("{}: waiting for a transaction to end", self.topic));
        let bounds = reader.bounds(&partitions, self.kafka.request_timeout, || bar.tick());
        bar.finish_and_clear();
        let bounds = bounds?;
        let range = |(partition, bounds): (&i32, &Bounds)| Range {
            partition: *partition,
            from: Some(bounds.low),
            to: Some(bounds.stable),
        };
        let ranges: Vec<Range> = bounds.iter().map(range).collect();
        let mut chunk = Chunk::default();
        progress::read(&reader, &self.topic, &ranges, |message| each(Found::copy(message, &mut chunk)))?;
        Ok(bounds.values().map(|bounds| bounds.high - bounds.stable).sum())
    }

    fn ranges(&self, start: Start) -> Result<Vec<Range>, Failure> {
        let range = |partition, from| Range { partition, from, to: None };
        let ranges: Vec<Range> = match start {
            Start::Beginning(None) => (0..self.partitions).map(|partition| range(partition, None)).collect(),
            Start::Beginning(Some(partition)) => vec![range(partition, None)],
            Start::At(partition, offset) => vec![range(partition, Some(offset))],
        };
        if let Some(beyond) = ranges.iter().find(|range| range.partition >= self.partitions) {
            return Err(no_such_partition(&self.topic, beyond.partition, self.partitions));
        }
        Ok(ranges)
    }
}

/// A partition that a person named and that is not there.
pub fn no_such_partition(topic: &str, partition: i32, partitions: i32) -> Failure {
    let last = partitions - 1;
    let message = format!("{topic} has no partition {partition}; its partitions are 0 to {last}");
    Failure::new(Exit::Usage, message)
}

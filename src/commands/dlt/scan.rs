//! Reading a dead-letter topic from a place to its end.

use std::ops::ControlFlow;

use super::letter::Letter;
use crate::commands::Failure;
use crate::exit::Exit;
use crate::kafka::admin::Admin;
use crate::kafka::topic_reader::{Range, TopicReader};
use crate::settings::Kafka;

/// Where to start.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// The beginning of one partition, or of all.
    Beginning(Option<i32>),
    /// A partition and an offset.
    At(i32, i64),
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
        mut each: impl FnMut(Letter) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let ranges = self.ranges(start)?;
        let reader = TopicReader::new(&self.kafka, &self.topic, "dlt");
        reader.read(&ranges, |message| each(Letter::read(message)))
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

//! Counts and checks an output: every unique event once, in order for each key.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::support::Broker;

/// # Panics
/// When an event is missing, there twice, or out of order.
pub fn output(broker: &Broker, topic: &str, unique: u64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", "bench-check")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..4 {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&list).expect("assigns");
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut last: HashMap<Vec<u8>, u64> = HashMap::new();
    let (mut seen, mut open) = (0u64, 4);
    while open > 0 {
        assert!(Instant::now() < deadline, "the output could not be read in time");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                seen += 1;
                let value = std::str::from_utf8(message.payload().expect("a value")).expect("text");
                let event: u64 = value[9..21].parse().expect("an event number");
                let before = last.insert(message.key().expect("a key").to_vec(), event);
                assert!(
                    before.is_none_or(|before| before < event),
                    "twice or out of order: {event} after {before:?}"
                );
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    assert_eq!(seen, unique, "every unique event once");
}

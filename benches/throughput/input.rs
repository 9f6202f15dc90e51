//! The records that every line processes.

use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, error::KafkaError};

use pawl_actors::record::Header;

use super::Load;
use super::support::Broker;

/// Publishes the load and returns how many unique events it holds.
pub fn publish(broker: &Broker, topic: &str, load: Load) -> u64 {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "200000")
        .create()
        .expect("a producer");
    let mut unique = 0;
    let mut last_of_key = vec![0u64; load.keys as usize];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..load.records {
        // xorshift64: the same keys in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let key = state % load.keys;
        let last = &mut last_of_key[key as usize];
        let repeats = n % load.duplicate_every == 0 && *last > 0;
        let event = if repeats { *last } else { n + 1 };
        *last = event;
        unique += u64::from(!repeats);
        send(&producer, topic, key, event, load.value_bytes);
    }
    producer.flush(std::time::Duration::from_secs(120)).expect("all acknowledged");
    unique
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    key: u64,
    event: u64,
    bytes: usize,
) {
    let key = format!("order-{key:08}");
    let value = format!("{{\"event\":{event:012},\"pad\":\"{}\"}}", "x".repeat(bytes - 31));
    let header = [Header::new("ce_id", format!("e{event:012}"))];
    loop {
        let headers = pawl::kafka::headers::write(&header);
        let record = BaseRecord::to(topic).key(&key).payload(&value).headers(headers);
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
}

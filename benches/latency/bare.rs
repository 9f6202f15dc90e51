//! The bare loop: consume, produce, and a transaction in a fixed interval; nothing else. Arguments:
//! brokers, input, output, interval in milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Acked(Arc<AtomicU64>);

impl ClientContext for Acked {}

impl ProducerContext for Acked {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "a record was refused");
        self.0.fetch_add(1, Ordering::Release);
    }
}

pub fn main(args: &[String]) {
    let [brokers, input, output, interval] = args else { panic!("four arguments") };
    let interval = Duration::from_millis(interval.parse().expect("milliseconds"));
    let id = format!("bare-{}", std::process::id());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", &id)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .expect("a consumer");
    let acked = Arc::new(AtomicU64::new(0));
    let producer: ThreadedProducer<Acked> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .set("transactional.id", &id)
        .set("linger.ms", "1")
        .create_with_context(Acked(acked.clone()))
        .expect("a producer");
    producer.init_transactions(LIMIT).expect("a transactional producer");
    consumer.subscribe(&[input]).expect("subscribes");
    let (mut sent, mut next) = (0, BTreeMap::new());
    let mut due = None;
    loop {
        let wait = due
            .map_or(Duration::from_millis(100), |due: Instant| due.saturating_duration_since(Instant::now()));
        if let Some(message) = consumer.poll(wait) {
            let message = message.expect("no error in a benchmark");
            if due.is_none() {
                producer.begin_transaction().expect("begins");
                due = Some(Instant::now() + interval);
            }
            let (key, value) = (message.key().expect("a key"), message.payload().expect("a value"));
            let record = BaseRecord::to(output).key(key).payload(value);
            producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
            sent += 1;
            next.insert(message.partition(), message.offset() + 1);
        }
        if due.is_some_and(|due| Instant::now() >= due) {
            commit(&consumer, &producer, input, &next, || acked.load(Ordering::Acquire) < sent);
            due = None;
        }
    }
}

fn commit(
    consumer: &BaseConsumer,
    producer: &ThreadedProducer<Acked>,
    input: &str,
    next: &BTreeMap<i32, i64>,
    unacked: impl Fn() -> bool,
) {
    while unacked() || producer.in_flight_count() > 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    let mut list = TopicPartitionList::new();
    for (&partition, &next) in next {
        list.add_partition_offset(input, partition, Offset::Offset(next)).expect("an offset");
    }
    let group = consumer.group_metadata().expect("a member");
    producer.send_offsets_to_transaction(&list, &group, LIMIT).expect("offsets");
    producer.commit_transaction(LIMIT).expect("commits");
}

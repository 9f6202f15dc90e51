//! Writes records that carry the time of their writing, and reads what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pawl_actors::record::Header;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::PARTITIONS;
use super::support::Broker;

const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 200;
/// Not counted: connections and caches are cold, and the subject joins its group.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long what is under way may take to arrive.
const DEADLINE: Duration = Duration::from_secs(60);

/// What was seen.
pub struct Probed {
    /// p50, p99 and the longest, in milliseconds.
    pub millis: [f64; 3],
    /// The whole, warm-up included.
    pub took: Duration,
}

/// Writes `rate` records a second for `duration` after the warm-up.
pub fn run(broker: &Broker, input: &str, output: &str, rate: u64, duration: Duration) -> Probed {
    let began = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (consumer, done) = (reader(broker, output), done.clone());
        std::thread::spawn(move || read(&consumer, &done, rate * (WARM_UP + duration).as_secs()))
    };
    write(broker, input, rate, WARM_UP + duration);
    done.store(true, Ordering::Relaxed);
    let mut latencies = reader.join().expect("reads");
    let took = began.elapsed();
    latencies.drain(..(rate * WARM_UP.as_secs()) as usize);
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    Probed { millis: [at(0.5), at(0.99), at(1.0)], took }
}

fn write(broker: &Broker, topic: &str, rate: u64, duration: Duration) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()
        .expect("a producer");
    let (began, mut sent) = (Instant::now(), 0);
    let total = rate * duration.as_secs();
    while sent < total {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due.min(total) {
            let key = format!("order-{:05}", sent.wrapping_mul(2_654_435_761) % KEYS);
            let value = format!("{:0>VALUE_BYTES$}", micros_now());
            let headers = pawl::kafka::headers::write(&[Header::new("ce_id", format!("e{sent}"))]);
            let record = BaseRecord::to(topic).key(&key).payload(&value).headers(headers);
            producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    producer.flush(DEADLINE).expect("all acknowledged");
}

fn reader(broker: &Broker, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", "latency-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "1")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&list).expect("assigns");
    consumer
}

/// The microseconds that each record took, in the order in which they were read.
fn read(consumer: &BaseConsumer, done: &AtomicBool, total: u64) -> Vec<u64> {
    let mut latencies = Vec::with_capacity(total as usize);
    let mut deadline = Instant::now() + DEADLINE;
    while (latencies.len() as u64) < total {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.expect("no error in a benchmark");
            let value = std::str::from_utf8(message.payload().expect("a value")).expect("text");
            let written: u64 = value.trim_start_matches('0').parse().expect("a time");
            latencies.push(micros_now().saturating_sub(written));
        }
        if !done.load(Ordering::Relaxed) {
            deadline = Instant::now() + DEADLINE;
        }
        assert!(Instant::now() < deadline, "only {} of {total} records came through", latencies.len());
    }
    latencies
}

fn micros_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_micros() as u64
}

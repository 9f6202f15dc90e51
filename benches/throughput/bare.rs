//! The bare loops: what a careful person writes around rdkafka by hand, tuned the same way.

use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Records of one transaction; what Pawl's epochs grow to under such a load.
const BATCH: usize = 13_000;
/// Bytes of a remembered event id in a row, as in Pawl's.
const ID_BYTES: usize = 24;

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

struct Loop {
    consumer: BaseConsumer,
    producer: ThreadedProducer<Acked>,
    acked: Arc<AtomicU64>,
    sent: u64,
    input: String,
    output: String,
    changelog: String,
    transactions: bool,
    in_transaction: bool,
    /// Remembered ids of each key.
    ids: HashMap<Vec<u8>, Vec<u8>>,
    changed: HashMap<Vec<u8>, i32>,
    next: [i64; 4],
}

/// Arguments: brokers, input, output, changelog, records, transactions.
pub fn main(args: &[String]) {
    let transactions = args[5] == "true";
    let records: u64 = args[4].parse().expect("a number");
    let acked = Arc::new(AtomicU64::new(0));
    let mut this = Loop {
        consumer: consumer(&args[0]),
        producer: producer(&args[0], transactions, Acked(acked.clone())),
        acked,
        sent: 0,
        input: args[1].clone(),
        output: args[2].clone(),
        changelog: args[3].clone(),
        transactions,
        in_transaction: false,
        ids: HashMap::new(),
        changed: HashMap::new(),
        next: [0; 4],
    };
    let seconds = this.run(records);
    println!("{seconds}");
    // Kept alive until the figures are taken.
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn consumer(brokers: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("bare-{}", std::process::id()))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "65536")
        .create()
        .expect("a consumer")
}

fn producer(brokers: &str, transactions: bool, context: Acked) -> ThreadedProducer<Acked> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "200000");
    if transactions {
        config.set("transactional.id", format!("bare-{}", std::process::id()));
    }
    let producer: ThreadedProducer<Acked> = config.create_with_context(context).expect("a producer");
    if transactions {
        producer.init_transactions(Duration::from_secs(30)).expect("a transactional producer");
    }
    producer
}

impl Loop {
    fn run(&mut self, records: u64) -> f64 {
        let input = self.input.clone();
        self.consumer.subscribe(&[&input]).expect("subscribes");
        let (mut taken, mut began) = (0, None);
        while taken < records {
            let mut batch = 0;
            let deadline = Instant::now() + Duration::from_millis(100);
            while batch < BATCH && taken < records && Instant::now() < deadline {
                batch += self.take(&mut began);
                taken = self.next.iter().sum::<i64>() as u64;
            }
            if batch > 0 {
                self.commit();
            }
        }
        began.expect("records came").elapsed().as_secs_f64()
    }

    /// Takes one record, if there is one.
    fn take(&mut self, began: &mut Option<Instant>) -> usize {
        let message = match self.consumer.poll(Duration::from_millis(10)) {
            None => return 0,
            Some(message) => message.expect("no error in a benchmark"),
        };
        let (key, value) = (message.key().expect("a key"), message.payload().expect("a value"));
        let headers = pawl::kafka::headers::read(&message, Bytes::copy_from_slice);
        let event_id = headers[0].value.clone().expect("an id");
        self.next[message.partition() as usize] = message.offset() + 1;
        let mut id = [0u8; ID_BYTES];
        id[..event_id.len().min(16)].copy_from_slice(&event_id[..event_id.len().min(16)]);
        let ids = self.ids.entry(key.to_vec()).or_default();
        let known = ids.chunks_exact(ID_BYTES).any(|known| known == id);
        if began.is_none() {
            *began = Some(Instant::now());
        }
        if self.transactions && !std::mem::replace(&mut self.in_transaction, true) {
            self.producer.begin_transaction().expect("begins");
        }
        if !known {
            ids.extend_from_slice(&id);
            self.changed.insert(key.to_vec(), message.partition());
            let headers = pawl::kafka::headers::write(&headers);
            let record = BaseRecord::to(&self.output).key(key).payload(value).headers(headers);
            self.producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
            self.sent += 1;
        }
        1
    }

    fn commit(&mut self) {
        let mut list = TopicPartitionList::new();
        for (partition, next) in self.next.iter().enumerate().filter(|(_, next)| **next > 0) {
            list.add_partition_offset(&self.input, partition as i32, Offset::Offset(*next))
                .expect("an offset");
        }
        if self.transactions {
            for (key, partition) in self.changed.drain() {
                let mut row_key = vec![2];
                row_key.extend_from_slice(&key);
                let record = BaseRecord::to(&self.changelog)
                    .key(&row_key)
                    .payload(&self.ids[&key])
                    .partition(partition);
                self.producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
                self.sent += 1;
            }
        }
        while self.acked.load(Ordering::Acquire) < self.sent {
            std::thread::sleep(Duration::from_micros(200));
        }
        if self.transactions {
            while self.producer.in_flight_count() > 0 {
                std::thread::yield_now();
            }
            let group = self.consumer.group_metadata().expect("a member");
            let limit = Duration::from_secs(30);
            self.producer.send_offsets_to_transaction(&list, &group, limit).expect("offsets");
            self.producer.commit_transaction(limit).expect("commits");
            self.in_transaction = false;
        } else {
            self.changed.clear();
            self.consumer.commit(&list, CommitMode::Sync).expect("commits");
        }
    }
}

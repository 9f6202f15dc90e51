//! Plain rdkafka clients, independent of Pawl's own: create topics, write, read committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_executor::block_on;
use pawl_actors::record::Header;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::kafka::Broker;
use super::wait::until;

const DEADLINE: Duration = Duration::from_secs(30);

/// A name that no other test and no earlier run has used.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970");
    format!("{name}-{:x}-{}", now.as_millis(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a topic whose name begins with `name` and is otherwise unique.
pub fn topic(broker: &Broker, name: &str, partitions: i32) -> String {
    let topic = unique(name);
    topic_with(broker, &topic, partitions, &[]);
    topic
}

/// Creates a topic of exactly this name with these configs.
pub fn topic_with(broker: &Broker, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    create(broker.bootstrap(), topic, partitions, configs).expect("the topic can be created");
}

fn create(bootstrap: &str, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> =
        config(bootstrap).create().map_err(|error| error.to_string())?;
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in configs {
        new = new.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE)).request_timeout(Some(DEADLINE));
    let results = block_on(admin.create_topics([&new], &options)).map_err(|error| error.to_string())?;
    match results.into_iter().next().expect("one result for one topic") {
        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
        Err((name, code)) => return Err(format!("{name}: {code}")),
    }
    // The controller has made it; a busy broker may hear of it a moment later.
    until(&format!("{topic} to be seen"), DEADLINE, || {
        let metadata = admin.inner().fetch_metadata(Some(topic), DEADLINE).ok()?;
        (!metadata.topics()[0].partitions().is_empty()).then_some(())
    });
    Ok(())
}

/// Changes configs of a topic; those not named go back to their defaults.
pub fn alter(broker: &Broker, topic: &str, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        config(broker.bootstrap()).create().expect("an admin client can be created");
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in configs {
        change = change.set(name, value);
    }
    let results = block_on(admin.alter_configs([&change], &AdminOptions::new())).expect("the broker answers");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// Removes a partition's records below an offset, as retention does.
pub fn remove_below(broker: &Broker, topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        config(broker.bootstrap()).create().expect("an admin client can be created");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
    let done = block_on(admin.delete_records(&list, &AdminOptions::new())).expect("the broker answers");
    assert!(done.elements().iter().all(|one| one.error().is_ok()), "{done:?}");
}

/// Gives a topic more partitions.
pub fn add_partitions(broker: &Broker, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> =
        config(broker.bootstrap()).create().expect("an admin client can be created");
    let wanted = NewPartitions::new(topic, partitions);
    let results =
        block_on(admin.create_partitions([&wanted], &AdminOptions::new())).expect("the broker answers");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// Deletes a topic; the broker does it soon after.
pub fn delete(broker: &Broker, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        config(broker.bootstrap()).create().expect("an admin client can be created");
    let results = block_on(admin.delete_topics(&[topic], &AdminOptions::new())).expect("the broker answers");
    assert_eq!(results, [Ok(topic.to_owned())]);
}

/// Metadata, then one record there: what a broker must do to be called ready.
pub fn round_trip(bootstrap: &str) -> Result<(), String> {
    let producer: ThreadedProducer<Refused> = config(bootstrap)
        .set("message.timeout.ms", "10000")
        .create_with_context(Refused::default())
        .map_err(|error: KafkaError| error.to_string())?;
    let second = Duration::from_secs(1);
    producer.client().fetch_metadata(None, second).map_err(|error| error.to_string())?;
    create(bootstrap, "ready", 1, &[])?;
    let record = BaseRecord::<(), [u8]>::to("ready").payload(b"?");
    producer.send(record).map_err(|(error, _)| error.to_string())?;
    producer.flush(DEADLINE).map_err(|error| error.to_string())?;
    producer.context().0.lock().expect("no holder panics").take().map_or(Ok(()), Err)
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    // A broker that just started may refuse connections for a moment; the tests wait by themselves.
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
    config
}

/// A record to write.
#[derive(Clone, Debug, Default)]
pub struct Out {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
    /// Milliseconds since the epoch; `None`: the time of writing.
    pub timestamp: Option<i64>,
}

impl Out {
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Out {
        Out { key: Some(key.into()), value: Some(value.into()), ..Out::default() }
    }

    pub fn at(mut self, partition: i32) -> Out {
        self.partition = Some(partition);
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<Bytes>) -> Out {
        self.headers.push(Header::new(name, value));
        self
    }
}

/// The first record that the broker refused, and why.
#[derive(Default)]
struct Refused(Mutex<Option<String>>);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("no holder panics").get_or_insert_with(|| error.to_string());
        }
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Abort,
}

/// Writes records in one transaction, which ends as told; the records reach the broker either way.
pub fn produce_in_transaction(
    broker: &Broker,
    topic: &str,
    records: impl IntoIterator<Item = Out>,
    ending: Ending,
) {
    let producer: ThreadedProducer<Refused> = config(broker.bootstrap())
        .set("transactional.id", unique("tests"))
        .set("partitioner", "murmur2_random")
        .create_with_context(Refused::default())
        .expect("a producer can be created");
    producer.init_transactions(DEADLINE).expect("the broker knows transactions");
    producer.begin_transaction().expect("initialised");
    for record in records {
        send(&producer, topic, &record);
    }
    flush(&producer);
    match ending {
        Ending::Commit => producer.commit_transaction(DEADLINE).expect("the broker commits"),
        Ending::Abort => producer.abort_transaction(DEADLINE).expect("the broker aborts"),
    }
}

/// A transaction that stays open until it is dropped, which aborts it.
pub struct OpenTransaction(ThreadedProducer<Refused>);

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        self.0.abort_transaction(DEADLINE).expect("the broker aborts");
    }
}

/// Writes a record in a transaction of several minutes.
pub fn open_transaction(broker: &Broker, topic: &str, record: Out) -> OpenTransaction {
    let producer: ThreadedProducer<Refused> = config(broker.bootstrap())
        .set("transactional.id", unique("stranger"))
        .set("transaction.timeout.ms", "600000")
        .create_with_context(Refused::default())
        .expect("a producer can be created");
    producer.init_transactions(DEADLINE).expect("the broker knows transactions");
    producer.begin_transaction().expect("initialised");
    send(&producer, topic, &record);
    flush(&producer);
    OpenTransaction(producer)
}

/// Writes records and waits until the broker has acknowledged all of them. Records without a
/// partition go where Java's default partitioner puts them.
pub fn produce(broker: &Broker, topic: &str, records: impl IntoIterator<Item = Out>) {
    let publisher = Publisher::new(broker);
    for record in records {
        publisher.send(topic, &record);
    }
    publisher.flush();
}

/// A producer that is kept, for writing over some time.
pub struct Publisher(ThreadedProducer<Refused>);

impl Publisher {
    pub fn new(broker: &Broker) -> Publisher {
        let producer = config(broker.bootstrap())
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            // The topic's own limit decides.
            .set("message.max.bytes", "16777216")
            .create_with_context(Refused::default());
        Publisher(producer.expect("a producer can be created"))
    }

    /// Hands a record to the producer.
    pub fn send(&self, topic: &str, record: &Out) {
        send(&self.0, topic, record);
    }

    /// Waits until the broker has acknowledged everything.
    pub fn flush(&self) {
        flush(&self.0);
    }
}

fn flush(producer: &ThreadedProducer<Refused>) {
    producer.flush(DEADLINE).expect("the broker answers for every record");
    let refused = producer.context().0.lock().expect("no holder panics").take();
    assert_eq!(refused, None, "a record was refused");
}

fn send(producer: &ThreadedProducer<Refused>, topic: &str, out: &Out) {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic);
    record.partition = out.partition;
    record.key = out.key.as_deref();
    record.payload = out.value.as_deref();
    record.timestamp = out.timestamp;
    record.headers = (!out.headers.is_empty()).then(|| pawl::kafka::headers::write(&out.headers));
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                flush(producer);
            }
            Err((error, _)) => panic!("a record for {topic} was refused: {error}"),
        }
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
}

impl Seen {
    /// The value of the last header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|header| header.name == name.as_bytes())
            .and_then(|header| header.value.as_deref())
    }

    /// The value as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().unwrap_or_default()).expect("a text value")
    }
}

/// Everything that a `read_committed` reader sees of a topic now, partition by partition in order
/// of offsets.
pub fn read_all(broker: &Broker, topic: &str) -> Vec<Seen> {
    read(broker, topic, DEADLINE, None)
}

/// What a `read_committed` reader sees of a topic once `done` is content with it.
///
/// # Panics
/// When `done` is not content within `deadline`.
pub fn read_until(
    broker: &Broker,
    topic: &str,
    deadline: Duration,
    done: impl Fn(&[Seen]) -> bool,
) -> Vec<Seen> {
    read(broker, topic, deadline, Some(&done))
}

/// What a group has committed, by partition; partitions without a commit are left out.
pub fn committed(broker: &Broker, group: &str, topic: &str) -> BTreeMap<i32, i64> {
    let consumer: BaseConsumer =
        config(broker.bootstrap()).set("group.id", group).create().expect("a consumer can be created");
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).expect("the broker answers metadata");
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        list.add_partition(topic, partition.id());
    }
    // A broker that has just started has no coordinator for a moment.
    let found = until("the coordinator's answer", DEADLINE, || {
        consumer.committed_offsets(list.clone(), DEADLINE).ok()
    });
    let offset = |place: Offset| place.to_raw().filter(|offset| *offset >= 0);
    found.elements().iter().filter_map(|one| Some((one.partition(), offset(one.offset())?))).collect()
}

/// Sets a group's committed offset, as an operator's tool does while the group has no members.
pub fn commit(broker: &Broker, group: &str, topic: &str, partition: i32, offset: i64) {
    let consumer: BaseConsumer =
        config(broker.bootstrap()).set("group.id", group).create().expect("a consumer can be created");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
    consumer.commit(&list, CommitMode::Sync).expect("the coordinator takes the offset");
}

/// The end of each partition; `None` while there is no such topic.
pub fn ends(broker: &Broker, topic: &str) -> Option<BTreeMap<i32, i64>> {
    let consumer: BaseConsumer =
        config(broker.bootstrap()).set("group.id", "pawl-tests-reader").create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).expect("the broker answers metadata");
    let partitions = metadata.topics()[0].partitions();
    let end = |partition| Some((partition, consumer.fetch_watermarks(topic, partition, DEADLINE).ok()?.1));
    let ends: Option<BTreeMap<i32, i64>> = partitions.iter().map(|one| end(one.id())).collect();
    ends.filter(|ends| !ends.is_empty())
}

/// Waits until a group has committed everything that lies in a topic now.
pub fn wait_for_end(broker: &Broker, group: &str, topic: &str, deadline: Duration) {
    let ends = ends(broker, topic).expect("the topic is there");
    until(&format!("the end of {topic}"), deadline, || {
        (committed(broker, group, topic) == ends).then_some(())
    });
}

/// Whether what was read so far is enough.
type Done<'a> = &'a dyn Fn(&[Seen]) -> bool;

fn read(broker: &Broker, topic: &str, deadline: Duration, done: Option<Done<'_>>) -> Vec<Seen> {
    let consumer: BaseConsumer = config(broker.bootstrap())
        .set("group.id", "pawl-tests-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer can be created");
    let (start, mut seen) = (Instant::now(), Vec::new());
    // Some of the topics that tests read are made by Pawl, at its own time.
    let patience = if done.is_some() { deadline } else { Duration::ZERO };
    let mut open = until(&format!("the topic {topic}"), patience, || assign(&consumer, topic));
    loop {
        if done.is_some_and(|done| done(&seen)) || (done.is_none() && open.is_empty()) {
            break;
        }
        assert!(start.elapsed() < deadline, "read only {} records of {topic} in {deadline:?}", seen.len());
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => seen.push(detach(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(error)) => panic!("reading {topic}: {error}"),
        }
    }
    seen.sort_by_key(|record| (record.partition, record.offset));
    seen
}

/// Assigns every partition of a topic from its beginning; `None` if there is no such topic.
fn assign(consumer: &BaseConsumer, topic: &str) -> Option<BTreeSet<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).expect("the broker answers metadata");
    let partitions: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
    if partitions.is_empty() {
        return None;
    }
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&list).expect("partitions can be assigned");
    Some(partitions)
}

fn detach(message: &rdkafka::message::BorrowedMessage<'_>) -> Seen {
    Seen {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: pawl::kafka::headers::read(message, Bytes::copy_from_slice),
    }
}

//! What only Kafka's DescribeTopics tells of a topic: its id and what this client may do with it.
//!
//! A topic that was deleted and made anew keeps its name but not its id (KIP-516), and offsets
//! belong to the id. rust-rdkafka 0.39 has no interface for it, so this file calls rdkafka-sys.
//! Deliberately absent: everything that rust-rdkafka can do itself (see `admin`).

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::admin_request::{self, Event, Options, Queue, any_broker, check};
use crate::rights::Right;

/// A topic as the broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id as Kafka's tools print it (base64url, 22 characters); `None` where the broker knows
    /// no ids (before Kafka 2.8).
    pub id: Option<String>,
    /// Number of partitions.
    pub partitions: i32,
    /// What this client may do with it; `None` where the broker does not tell, as one without an
    /// authorizer.
    pub rights: Option<Vec<Right>>,
}

/// Why a topic could not be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// The broker knows no such topic, or hides it from this client.
    #[error("the broker knows no topic \"{0}\" (or this client may not see it)")]
    Unknown(String),
    /// The name cannot be a topic's.
    #[error("\"{0}\" cannot be the name of a topic: it contains a NUL character")]
    Name(String),
    /// No answer within the time-out.
    #[error("the broker did not describe the topic \"{topic}\" within {timeout:?}")]
    TimedOut {
        /// The topic asked for.
        topic: String,
        /// The time-out given.
        timeout: Duration,
    },
    /// The broker refused.
    #[error("the broker did not describe the topic \"{topic}\": {code}")]
    Refused {
        /// The topic asked for.
        topic: String,
        /// Why.
        code: RDKafkaErrorCode,
    },
}

/// The id of a topic; `None` where the broker knows no ids. Blocks for at most about `timeout`.
///
/// # Errors
/// No such topic, no answer, or no right to ask.
pub fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, DescribeError> {
    describe_topic(client, topic, timeout).map(|description| description.id)
}

/// Describes a topic. Blocks for at most about `timeout`.
///
/// # Errors
/// No such topic, no answer, or no right to ask.
pub fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<TopicDescription, DescribeError> {
    let timed_out = || DescribeError::TimedOut { topic: topic.to_owned(), timeout };
    let refused = |code: sys::rd_kafka_resp_err_t| match code.into() {
        RDKafkaErrorCode::UnknownTopicOrPartition => DescribeError::Unknown(topic.to_owned()),
        RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::BrokerTransportFailure => timed_out(),
        code => DescribeError::Refused { topic: topic.to_owned(), code },
    };
    let name = CString::new(topic).map_err(|_| DescribeError::Name(topic.to_owned()))?;
    let event = request(client, &name, timeout).map_err(refused)?.ok_or_else(timed_out)?;
    read(&event).map_err(refused)
}

/// Sends the request and waits for its answer; `None`: none came in time.
fn request<C: ClientContext>(
    client: &Client<C>,
    name: &CStr,
    timeout: Duration,
) -> Result<Option<Event>, sys::rd_kafka_resp_err_t> {
    let start = Instant::now();
    let broker = any_broker(client, timeout)?;
    let timeout = timeout.saturating_sub(start.elapsed());
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let options = Options::new(client, operation, Some(broker), timeout)?;
    let queue = Queue::new(client);
    let topics = Topics::new(name);
    // SAFETY: client, collection, options and queue are alive; librdkafka copies the names and
    // options before this returns and holds its own reference to the queue.
    unsafe {
        sys::rd_kafka_DescribeTopics(
            client.native_ptr(),
            topics.0.as_ptr(),
            options.as_ptr(),
            queue.as_ptr(),
        );
    }
    Ok(queue.wait(timeout))
}

struct Topics(NonNull<sys::rd_kafka_TopicCollection_t>);

impl Topics {
    fn new(name: &CStr) -> Topics {
        let mut names = [name.as_ptr()];
        // SAFETY: one valid C string, copied by the call; the result is owned here.
        let topics = unsafe { sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) };
        Topics(NonNull::new(topics).expect("librdkafka always makes a collection"))
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { sys::rd_kafka_TopicCollection_destroy(self.0.as_ptr()) }
    }
}

fn read(event: &Event) -> Result<TopicDescription, sys::rd_kafka_resp_err_t> {
    let mut count = 0;
    // SAFETY: the event is alive, and all that it gives lives as long; a result of another kind than
    // DescribeTopics would be null, which is asserted.
    unsafe {
        check(sys::rd_kafka_event_error(event.as_ptr()))?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        assert!(!result.is_null(), "this queue only serves DescribeTopics");
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        assert!(count == 1 && !topics.is_null(), "one topic was asked for");
        describe(*topics)
    }
}

/// # Safety
/// `topic` points to a live description.
unsafe fn describe(
    topic: *const sys::rd_kafka_TopicDescription_t,
) -> Result<TopicDescription, sys::rd_kafka_resp_err_t> {
    let mut partitions = 0;
    // SAFETY: as the caller promises; every pointer below lives as long as the description, strings
    // are NUL-terminated, and null is checked where librdkafka documents it.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            check(sys::rd_kafka_error_code(error))?;
        }
        sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic));
        Ok(TopicDescription {
            name: name.to_string_lossy().into_owned(),
            id: id(sys::rd_kafka_TopicDescription_topic_id(topic)),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            rights: rights(topic),
        })
    }
}

/// # Safety
/// `uuid` is null or points to a live id.
unsafe fn id(uuid: *const sys::rd_kafka_Uuid_t) -> Option<String> {
    // SAFETY: as the caller promises; the text lives in the id itself.
    unsafe {
        let known = !uuid.is_null()
            && (sys::rd_kafka_Uuid_most_significant_bits(uuid) != 0
                || sys::rd_kafka_Uuid_least_significant_bits(uuid) != 0);
        let text = if known { sys::rd_kafka_Uuid_base64str(uuid) } else { ptr::null() };
        (!text.is_null()).then(|| base64url(&CStr::from_ptr(text).to_string_lossy()))
    }
}

/// librdkafka prints an id in the standard alphabet of base64, Kafka's tools in that for URLs.
fn base64url(text: &str) -> String {
    text.replace('+', "-").replace('/', "_")
}

/// # Safety
/// `topic` points to a live description.
unsafe fn rights(topic: *const sys::rd_kafka_TopicDescription_t) -> Option<Vec<Right>> {
    let mut count = 0;
    // SAFETY: as the caller promises; the array has `count` elements and lives with the topic.
    unsafe {
        let first = sys::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        admin_request::rights(first, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn client(bootstrap: &str) -> BaseConsumer<Quiet> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "g");
        config.create_with_context(Quiet).expect("a consumer")
    }

    /// A context that keeps librdkafka's complaints about the dead broker out of the output.
    struct Quiet;
    impl ClientContext for Quiet {
        fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    }
    impl rdkafka::consumer::ConsumerContext for Quiet {}

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        MockCluster::new(1).expect("a mock cluster")
    }

    #[test]
    fn topics_are_described_with_an_id_of_their_own() {
        let cluster = cluster();
        cluster.create_topic("a", 3, 1).expect("a topic");
        cluster.create_topic("b", 1, 1).expect("a topic");
        let consumer = client(&cluster.bootstrap_servers());
        let a = describe_topic(consumer.client(), "a", TIMEOUT).expect("described");
        assert_eq!((a.name.as_str(), a.partitions), ("a", 3));
        let id = a.id.clone().expect("the mock cluster knows ids");
        assert_eq!(id.len(), 22, "{id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{id}");
        assert_eq!(topic_id(consumer.client(), "a", TIMEOUT), Ok(Some(id)), "asked twice, the same");
        assert_ne!(topic_id(consumer.client(), "b", TIMEOUT).expect("described"), a.id);
    }

    #[test]
    fn without_a_broker_the_wait_is_bounded() {
        let consumer = client("127.0.0.1:1");
        let timeout = Duration::from_millis(300);
        let start = Instant::now();
        let error = topic_id(consumer.client(), "orders", timeout).expect_err("nobody answers");
        assert_eq!(error, DescribeError::TimedOut { topic: "orders".into(), timeout });
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_name_with_nul_is_refused_before_it_is_sent() {
        let consumer = client("127.0.0.1:1");
        let error = topic_id(consumer.client(), "a\0b", TIMEOUT).expect_err("not a name");
        assert_eq!(error, DescribeError::Name("a\0b".into()));
    }

    #[test]
    fn ids_use_the_alphabet_for_urls() {
        assert_eq!(base64url("a+b/c"), "a-b_c");
    }
}

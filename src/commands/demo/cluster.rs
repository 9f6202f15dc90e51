//! The demo's Kafka: the mock cluster inside librdkafka, a few broker threads' worth of protocol in
//! this process. It keeps 5 MiB of each partition, knows no transactions that deserve the name, and
//! creates no topics on request.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka_sys as sys;

use crate::kafka::access::Live;
use crate::kafka::client::{self, LogContext};
use crate::settings::Kafka;

/// Longest wait for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A running mock cluster; it ends when it is dropped.
pub struct Cluster {
    /// Owns the cluster: librdkafka ends it with this client.
    client: AdminClient<LogContext>,
}

impl Cluster {
    /// Starts a cluster of one broker with these topics.
    ///
    /// # Errors
    /// No port can be had, or a topic cannot be created.
    pub fn start(topics: &[String], partitions: i32) -> KafkaResult<Cluster> {
        let client: AdminClient<LogContext> = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create_with_context(LogContext::new("mock cluster"))?;
        let cluster = Cluster { client };
        cluster.form_groups_at_once();
        for topic in topics {
            cluster.mock().create_topic(topic, partitions, 1)?;
        }
        Ok(cluster)
    }

    /// How to reach it.
    pub fn kafka(&self) -> Kafka {
        let servers = self.mock().bootstrap_servers().split(',').map(str::to_owned).collect();
        // The mock broker looks for new records only when this time is over, a real one at once.
        let properties = BTreeMap::from([("fetch.wait.max.ms".to_owned(), "5".to_owned())]);
        Kafka { bootstrap_servers: servers, properties, ..Kafka::default() }
    }

    fn mock(&self) -> MockCluster<'_, LogContext> {
        self.client.inner().mock_cluster().expect("the client was made with a mock cluster")
    }

    /// Without this the first member of a group waits 3 s for others, as on a real broker.
    fn form_groups_at_once(&self) {
        // SAFETY: the client is alive and was made with `test.mock.num.brokers`, so it has a mock
        // cluster, which lives as long as the client; the call sets a number under the cluster's lock.
        unsafe {
            let mock = sys::rd_kafka_handle_mock_cluster(self.client.inner().native_ptr());
            assert!(!mock.is_null(), "the client was made with a mock cluster");
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(mock, 0);
        }
    }
}

/// Where a consumer group stands, asked by a client of its own that does not join the group.
pub struct GroupPosition {
    consumer: Live<BaseConsumer<LogContext>>,
    partitions: TopicPartitionList,
}

impl GroupPosition {
    /// For one topic.
    ///
    /// # Errors
    /// librdkafka does not take the settings.
    pub fn new(kafka: &Kafka, group: &str, topic: &str, partitions: i32) -> KafkaResult<Self> {
        let consumer = client::consumer(kafka, group).open(LogContext::new("group position"))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        Ok(GroupPosition { consumer, partitions: list })
    }

    /// Records below the group's committed offsets, over all partitions. The demo's topics begin at 0
    /// and have no gaps.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn records(&self) -> KafkaResult<u64> {
        let committed = self.consumer.committed_offsets(self.partitions.clone(), CALL_TIMEOUT)?;
        let records = committed.elements().into_iter().map(|element| match element.offset() {
            Offset::Offset(next) => next.unsigned_abs(),
            _ => 0,
        });
        Ok(records.sum())
    }
}

//! Topics: asked for, created, waited for. Every call blocks, for at most the request time-out; from
//! async code use `tokio::task::spawn_blocking`.
//!
//! Deliberately absent: which topics a handler needs (`commands::topics`), and what is wrong with
//! those there are (`commands::check`).

mod error;

use std::fmt::Write as _;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

pub use self::error::AdminError;

use super::access::{Access, Live};
use super::client::{self, LogContext};
use super::group_rights::group_rights;
use super::topic_id::{self, DescribeError, TopicDescription};
use crate::rights::Seen;
use crate::settings::{Kafka, Security};

/// A connection for questions about topics and for creating them. Meant to be short-lived: rust-rdkafka
/// never polls the log lines of an admin client, so they are kept until it is dropped.
pub struct Admin {
    client: Live<AdminClient<LogContext>>,
    kafka: Kafka,
    principal: String,
    timeout: Duration,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions, at least 1.
    pub partitions: i32,
    /// Replicas of each partition; -1 is the broker's default (Kafka 2.4 and later).
    pub replication_factor: i32,
    /// Topic-level configs, by Kafka's names.
    pub configs: Vec<(&'static str, String)>,
}

/// Whether a topic had to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New,
    /// It was there already, with whatever partitions and configs it has.
    Existed,
}

/// Those configs of a topic that decide whether Pawl can rely on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfigs {
    /// `message.timestamp.type`: "CreateTime" or "LogAppendTime".
    pub timestamp_type: String,
    /// `cleanup.policy`, as "delete", "compact" or "compact,delete".
    pub cleanup_policy: String,
    /// `retention.ms`; `None`: without limit.
    pub retention: Option<Duration>,
    /// `retention.bytes` of each partition; `None`: without limit.
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: the largest batch, so also the largest record.
    pub max_message_bytes: u64,
    /// `delete.retention.ms`: how long a tombstone can be read.
    pub delete_retention: Duration,
}

impl Admin {
    /// Prepares a connection; the first question opens it.
    ///
    /// # Errors
    /// [`AdminError::Properties`] alone.
    pub fn new(kafka: &Kafka) -> Result<Admin, AdminError> {
        let client = client::base(kafka).open(LogContext::new("admin"))?;
        let principal = Access::of(kafka).principal();
        Ok(Admin { client, kafka: kafka.clone(), principal, timeout: kafka.request_timeout })
    }

    /// The topic as the cluster describes it; `None`: there is no such topic.
    ///
    /// # Errors
    /// No broker, or no right to ask.
    pub fn describe(&self, topic: &str) -> Result<Option<TopicDescription>, AdminError> {
        match topic_id::describe_topic(self.client.inner(), topic, self.timeout) {
            Ok(description) => Ok(Some(description)),
            Err(DescribeError::Unknown(_)) => Ok(None),
            Err(DescribeError::TimedOut { .. }) => Err(self.unreachable()),
            Err(DescribeError::Refused { code, .. }) => {
                Err(self.refused("describe", "Describe", topic, code))
            }
            Err(error @ DescribeError::Name(_)) => {
                Err(AdminError::Failed { action: "describe", topic: topic.into(), reason: error.to_string() })
            }
        }
    }

    /// The configs of a topic that exists.
    ///
    /// # Errors
    /// No broker, no right to ask, or no such topic.
    pub fn configs(&self, topic: &str) -> Result<TopicConfigs, AdminError> {
        let (action, operation) = ("read the configs of", "DescribeConfigs");
        let answer =
            block_on(self.client.describe_configs([&ResourceSpecifier::Topic(topic)], &self.options()));
        let resources = answer.map_err(|error| self.failed(action, operation, topic, &error))?;
        let resource = resources.into_iter().next().expect("one answer for one question");
        let resource = resource.map_err(|code| self.refused(action, operation, topic, code))?;
        configs(&resource).map_err(|reason| AdminError::Failed { action, topic: topic.into(), reason })
    }

    /// Whether a topic of that name may be created, asked without creating it.
    ///
    /// # Errors
    /// No broker.
    pub fn may_create(&self, topic: &str) -> Result<bool, AdminError> {
        let asked = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
        let answer = block_on(self.client.create_topics([&asked], &self.options().validate_only(true)));
        let results = answer.map_err(|error| self.failed("create", "Create", topic, &error))?;
        Ok(!results.iter().any(|result| {
            let forbidden = |code: &RDKafkaErrorCode| {
                matches!(
                    code,
                    RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed
                )
            };
            result.as_ref().is_err_and(|(_, code)| forbidden(code))
        }))
    }

    /// What this client may do with a consumer group.
    ///
    /// # Errors
    /// No broker.
    pub fn group(&self, group: &str) -> Result<Seen, AdminError> {
        match group_rights(self.client.inner(), group, self.timeout) {
            Ok(rights) => Ok(rights.map_or(Seen::Untold, Seen::Rights)),
            Err(RDKafkaErrorCode::GroupAuthorizationFailed) => Ok(Seen::Hidden),
            Err(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::BrokerTransportFailure) => {
                Err(AdminError::NoCoordinator { group: group.to_owned(), timeout: self.timeout })
            }
            // Brokers that do not know the question, as the mock cluster.
            Err(_) => Ok(Seen::Untold),
        }
    }

    /// As whom this client comes, for a person.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Creates a topic unless there is one of that name, and waits until it can be seen.
    ///
    /// # Errors
    /// No broker, no right, or a number of replicas or partitions that the cluster does not take.
    pub fn create(&self, spec: &TopicSpec) -> Result<Created, AdminError> {
        let replication = TopicReplication::Fixed(spec.replication_factor);
        let mut topic = NewTopic::new(&spec.name, spec.partitions, replication);
        for (name, value) in &spec.configs {
            topic = topic.set(name, value);
        }
        let answer = block_on(self.client.create_topics([&topic], &self.options()));
        let results = answer.map_err(|error| self.failed("create", "Create", &spec.name, &error))?;
        match results.into_iter().next().expect("one answer for one topic") {
            Ok(_) => self.wait_visible(spec).map(|()| Created::New),
            // Another instance was faster, maybe by so little that it cannot be seen yet.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {
                self.wait_visible(spec).map(|()| Created::Existed)
            }
            Err((_, code)) => Err(self.not_created(spec, code)),
        }
    }

    fn wait_visible(&self, spec: &TopicSpec) -> Result<(), AdminError> {
        let start = Instant::now();
        while start.elapsed() < self.timeout {
            if self.describe(&spec.name)?.is_some() {
                return Ok(());
            }
            // The metadata of a new topic spreads over the brokers within milliseconds.
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(AdminError::NotVisible { topic: spec.name.clone(), timeout: self.timeout })
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }

    fn not_created(&self, spec: &TopicSpec, code: RDKafkaErrorCode) -> AdminError {
        let remedy = match code {
            RDKafkaErrorCode::InvalidReplicationFactor => {
                "set kafka.replication_factor to at most the number of brokers"
            }
            RDKafkaErrorCode::InvalidTopic => {
                "choose a name of at most 249 letters, digits, '.', '_' and '-'"
            }
            RDKafkaErrorCode::InvalidConfig => "the broker does not take one of its configs: look at its log",
            RDKafkaErrorCode::PolicyViolation => {
                "the cluster has a policy for new topics: have it created by its administrators"
            }
            _ => return self.refused("create", "Create", &spec.name, code),
        };
        AdminError::NotCreated { topic: spec.name.clone(), code, remedy }
    }

    fn failed(
        &self,
        action: &'static str,
        operation: &'static str,
        topic: &str,
        error: &KafkaError,
    ) -> AdminError {
        match error {
            KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut) => {
                return AdminError::Unanswered { action, topic: topic.into(), timeout: self.timeout };
            }
            // rust-rdkafka 0.39 leaves this one out of its answer to the question below.
            KafkaError::AdminOp(code) => return self.refused(action, operation, topic, *code),
            _ => {}
        }
        match error.rdkafka_error_code() {
            Some(code) => self.refused(action, operation, topic, code),
            None => AdminError::Failed { action, topic: topic.into(), reason: error.to_string() },
        }
    }

    fn refused(
        &self,
        action: &'static str,
        operation: &'static str,
        topic: &str,
        code: RDKafkaErrorCode,
    ) -> AdminError {
        let topic = topic.to_owned();
        match code {
            RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown => self.unreachable(),
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                AdminError::Forbidden { principal: self.principal.clone(), action, topic, operation, code }
            }
            code => AdminError::Failed { action, topic, reason: code.to_string() },
        }
    }

    fn unreachable(&self) -> AdminError {
        match Access::of(&self.kafka).refusal() {
            Ok(Some(cause)) => return AdminError::Refused { principal: self.principal.clone(), cause },
            Ok(None) => {}
            Err(error) => return error.into(),
        }
        AdminError::Unreachable { timeout: self.timeout, attempts: attempts(&self.kafka) }
    }
}

/// What a plain connection to each server gives: the cause that librdkafka's "timed out" hides.
/// Takes at most 2 s for each server, and looks at the first three.
pub fn attempts(kafka: &Kafka) -> String {
    let mut text = String::new();
    for server in kafka.bootstrap_servers.iter().take(3) {
        let separator = if text.is_empty() { "" } else { ", " };
        write!(text, "{separator}{server} ({})", attempt(server, kafka.security))
            .expect("a String takes any text");
    }
    text
}

fn attempt(server: &str, security: Security) -> String {
    let mut addresses = match server.to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => return format!("the name is not known: {error}"),
    };
    let Some(address) = addresses.next() else { return "the name has no address".into() };
    match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
        Ok(_) => format!(
            "takes connections, but does not answer as a Kafka listener for security = \"{}\"",
            security.name()
        ),
        Err(error) => error.kind().to_string(),
    }
}

fn configs(resource: &ConfigResource) -> Result<TopicConfigs, String> {
    let text = |name: &str| {
        let entry = resource.get(name).and_then(|entry| entry.value.clone());
        entry.ok_or_else(|| format!("the broker does not tell {name}"))
    };
    let number = |name: &str| {
        text(name)?.parse::<i64>().map_err(|error| format!("the broker tells no number for {name}: {error}"))
    };
    // Kafka writes "no limit" as -1.
    let limit = |name: &str| number(name).map(|number| u64::try_from(number).ok());
    Ok(TopicConfigs {
        timestamp_type: text("message.timestamp.type")?,
        cleanup_policy: text("cleanup.policy")?,
        retention: limit("retention.ms")?.map(Duration::from_millis),
        retention_bytes: limit("retention.bytes")?,
        max_message_bytes: limit("max.message.bytes")?.unwrap_or(0),
        delete_retention: Duration::from_millis(limit("delete.retention.ms")?.unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_broker_is_named_with_the_cause_and_the_remedy() {
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
        let kafka = Kafka {
            bootstrap_servers: vec![free.to_string(), "no-such-host.invalid:9092".into()],
            request_timeout: Duration::from_millis(200),
            ..Kafka::default()
        };
        let error = Admin::new(&kafka).expect("valid settings").describe("orders").expect_err("nobody there");
        let text = error.to_string();
        assert!(text.contains(&format!("{free} (connection refused)")), "{text}");
        assert!(text.contains("no-such-host.invalid:9092 (the name is not known"), "{text}");
        assert!(text.contains("kafka.bootstrap_servers"), "{text}");
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_is_named() {
        let properties = [("no.such.property".to_owned(), "1".to_owned())].into();
        let kafka = Kafka { bootstrap_servers: vec!["localhost:1".into()], properties, ..Kafka::default() };
        let Err(error) = Admin::new(&kafka) else { panic!("the property is unknown") };
        assert!(error.to_string().contains("no.such.property"), "{error}");
    }
}

//! What every librdkafka client of Pawl has in common: how it reaches the cluster, and where its
//! own log lines go.
//!
//! Deliberately absent: what only one client needs (rebalance callbacks, transactions, deliveries);
//! that is set where that client is made.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tracing::{debug, info, warn};

use super::access::{self, Access, Plan, is_refusal};
use crate::settings::Kafka;

/// What every client gets: the user's properties first, then what Pawl itself answers for.
pub fn base(kafka: &Kafka) -> Plan {
    let mut plan = Plan::new(Access::of(kafka));
    for (name, value) in &kafka.properties {
        plan.set(name, value);
    }
    plan.set("bootstrap.servers", kafka.bootstrap_servers.join(","));
    plan.set("client.id", &kafka.client_id);
    plan.log_at(log_level());
    plan
}

/// A producer whose writes are acknowledged by all in-sync replicas, neither doubled nor out of
/// order, and whose keys lie where Java clients put them (librdkafka's default partitioner is not
/// Java's).
pub fn producer(kafka: &Kafka) -> Plan {
    let mut config = base(kafka);
    config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
    config
}

/// A consumer of committed records that commits nothing by itself.
pub fn consumer(kafka: &Kafka, group: &str) -> Plan {
    let mut config = base(kafka);
    config
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false");
    config
}

/// A consumer of committed records by hand-made assignment, which tells when it has reached the end
/// of a partition. librdkafka demands a group id all the same; this one is never joined.
pub fn reader(kafka: &Kafka) -> Plan {
    let mut config = consumer(kafka, "pawl-reader");
    config.set("enable.partition.eof", "true");
    session(&mut config, kafka);
    config
}

/// The session of a member of a classic group. librdkafka holds max.poll.interval.ms, which a user may
/// set, against it even where no group is joined.
pub fn session(config: &mut Plan, kafka: &Kafka) {
    config.set("session.timeout.ms", kafka.session_timeout.as_millis().to_string());
}

/// Sets what only makes a client faster or smaller, where the user's properties do not say otherwise.
pub fn tune(config: &mut Plan, kafka: &Kafka, tuning: &[(&str, &str)]) {
    for (name, value) in tuning {
        if !kafka.properties.contains_key(*name) {
            config.set(name, *value);
        }
    }
}

/// librdkafka formats only the lines that somebody will see.
fn log_level() -> RDKafkaLogLevel {
    if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
        RDKafkaLogLevel::Debug
    } else if tracing::enabled!(target: "librdkafka", tracing::Level::INFO) {
        RDKafkaLogLevel::Info
    } else {
        RDKafkaLogLevel::Warning
    }
}

/// Forwards what librdkafka logs to `tracing`, target `librdkafka`, with a bound: an unreachable
/// broker would fill the log by itself. A client with a context of its own holds one of these and
/// hands `log` and `error` on.
#[derive(Debug)]
pub struct LogContext {
    client: &'static str,
    limit: Mutex<Limit>,
}

impl LogContext {
    /// `client` says in each line which client speaks: consumer, writer, admin.
    pub fn new(client: &'static str) -> LogContext {
        LogContext { client, limit: Mutex::default() }
    }

    fn admit(&self, kind: &str) -> Option<u64> {
        self.limit.lock().expect("no holder panics").admit(kind, Instant::now())
    }
}

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let client = self.client;
        // Each client gets all of the user's properties, also those that only consumers know.
        let foreign_property = facility == "CONFWARN" && text.contains("will be ignored by this");
        if foreign_property || matches!(level, RDKafkaLogLevel::Debug) {
            debug!(target: "librdkafka", client, facility, "{text}");
            return;
        }
        let Some(suppressed) = self.admit(facility) else { return };
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", client, facility, suppressed, "{text}");
            }
            // librdkafka calls a refused connection an error, and tries again by itself; what it
            // cannot put right comes back as the error of a call.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                warn!(target: "librdkafka", client, facility, suppressed, "{text}");
            }
            _ => info!(target: "librdkafka", client, facility, suppressed, "{text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let client = self.client;
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            // No error, and whoever asked for it gets it from poll as well.
            return;
        }
        // One kind for each code: a second problem is not hidden by the first.
        let kind = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}"));
        let refused = error.rdkafka_error_code().is_some_and(is_refusal);
        let reason = if refused { &access::note_refusal(reason) } else { reason };
        if let Some(suppressed) = self.admit(&kind) {
            warn!(target: "librdkafka", client, %error, suppressed, "{reason}");
        }
    }
}

impl ConsumerContext for LogContext {}

impl ProducerContext for LogContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// At most one line of a kind in each window.
#[derive(Debug, Default)]
struct Limit {
    kinds: BTreeMap<String, (Instant, u64)>,
}

impl Limit {
    const WINDOW: Duration = Duration::from_secs(10);
    /// librdkafka has some forty facilities and two hundred error codes.
    const MAX_KINDS: usize = 512;

    /// `Some(n)`: the line may pass, and n of its kind were kept back since the last that did.
    fn admit(&mut self, kind: &str, now: Instant) -> Option<u64> {
        if self.kinds.len() >= Self::MAX_KINDS {
            self.kinds.clear();
        }
        let Some((last, suppressed)) = self.kinds.get_mut(kind) else {
            self.kinds.insert(kind.to_owned(), (now, 0));
            return Some(0);
        };
        if now.duration_since(*last) < Self::WINDOW {
            *suppressed += 1;
            return None;
        }
        *last = now;
        Some(std::mem::take(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka() -> Kafka {
        Kafka {
            bootstrap_servers: vec!["a:9092".into(), "b:9092".into()],
            properties: BTreeMap::from([
                ("socket.keepalive.enable".to_owned(), "true".to_owned()),
                ("bootstrap.servers".to_owned(), "elsewhere:1".to_owned()),
            ]),
            ..Kafka::default()
        }
    }

    #[test]
    fn every_client_gets_the_users_properties_but_what_pawl_answers_for_wins() {
        for config in [producer(&kafka()), consumer(&kafka(), "g"), reader(&kafka())] {
            assert_eq!(config.get("socket.keepalive.enable"), Some("true"));
            assert_eq!(config.get("bootstrap.servers"), Some("a:9092,b:9092"));
            config.check().expect("librdkafka knows every property");
        }
    }

    #[test]
    fn tuning_leaves_the_users_properties_alone() {
        let mut kafka = kafka();
        kafka.properties.insert("linger.ms".into(), "7".into());
        let mut config = producer(&kafka);
        tune(&mut config, &kafka, &[("linger.ms", "1"), ("batch.num.messages", "500")]);
        assert_eq!((config.get("linger.ms"), config.get("batch.num.messages")), (Some("7"), Some("500")));
    }

    #[test]
    fn a_repeated_line_passes_once_in_a_window_and_says_how_many_were_kept_back() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        assert_eq!(limit.admit("FAIL", start), Some(0));
        assert_eq!(limit.admit("FAIL", start + Duration::from_secs(1)), None);
        assert_eq!(limit.admit("FAIL", start + Duration::from_secs(9)), None);
        assert_eq!(limit.admit("TERM", start + Duration::from_secs(9)), Some(0), "another kind");
        assert_eq!(limit.admit("FAIL", start + Duration::from_secs(10)), Some(2));
        assert_eq!(limit.admit("FAIL", start + Duration::from_secs(20)), Some(0));
    }

    #[test]
    fn kinds_without_end_do_not_take_memory_without_end() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for n in 0..10 * Limit::MAX_KINDS {
            limit.admit(&n.to_string(), start);
            assert!(limit.kinds.len() <= Limit::MAX_KINDS);
        }
    }
}

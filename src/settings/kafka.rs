//! `[kafka]`: how Pawl reaches the cluster, and the librdkafka properties that a user may not set.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::security::{MskIam, Oauth, Sasl, Security, Tls};
use super::{duration, secret};

/// The connection to the Kafka cluster, shared by all handlers.
#[derive(Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Brokers to make the first contact with, each "host:port"; one that answers is enough, the
    /// others are for when it is down. 1 to 100 of them. Must be set.
    pub bootstrap_servers: Vec<String>,
    /// How connections are secured. Default: plaintext.
    pub security: Security,
    /// Encryption, for every security but plaintext.
    pub tls: Tls,
    /// Name and password, for security = "scram" and "plain".
    pub sasl: Sasl,
    /// Credentials at an identity provider, for security = "oauth".
    pub oauth: Oauth,
    /// The AWS identity, for security = "msk-iam".
    pub msk_iam: MskIam,
    /// How often the files that hold passwords, certificates and keys are looked at for changes. A new
    /// password is used from then on; for new certificates each handler drains and connects anew.
    /// Bounds: 1s to 1h. Default: 10s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub reload_interval: Duration,
    /// The name by which brokers know this client in their logs and quotas. Default: pawl.
    pub client_id: String,
    /// What every transactional id begins with; the rest is "group.instance.number". An ACL can name this
    /// prefix. 1 to 100 characters of a-z, A-Z, 0-9, '.', '_' and '-'. Default: pawl-.
    pub transactional_id_prefix: String,
    /// How long the group waits for a silent instance before its partitions move to others. The
    /// broker narrows it further (group.min.session.timeout.ms, group.max.session.timeout.ms).
    /// Bounds: 6s to 30m. Default: 10s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub session_timeout: Duration,
    /// How long a transaction may stay open before the broker aborts it: readers of the output wait
    /// as long for what a dead instance left open. The broker's transaction.max.timeout.ms is
    /// the upper limit. Bounds: 1s to 15m. Default: 10s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub transaction_timeout: Duration,
    /// How long one request to a broker may take. Bounds: 1s to 5m. Default: 10s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub request_timeout: Duration,
    /// Replicas of each partition of the topics that Pawl creates; -1 is the broker's own default,
    /// 0 is not allowed. Bounds: -1 to 100. Default: -1.
    #[schemars(extend("not" = { "const": 0 }))]
    pub replication_factor: i32,
    /// Further properties for librdkafka, for all clients, by librdkafka's own names (quoted in
    /// TOML, for they have dots). Those that Pawl sets itself are refused. In an environment variable
    /// the dots are underscores: PAWL__KAFKA__PROPERTIES__SOCKET_KEEPALIVE_ENABLE. Values whose name
    /// contains password, secret, token, key or credential are never printed. Default: none.
    #[serde(serialize_with = "without_secrets")]
    #[schemars(schema_with = "properties_schema")]
    pub properties: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            bootstrap_servers: Vec::new(),
            security: Security::Plaintext,
            tls: Tls::default(),
            sasl: Sasl::default(),
            oauth: Oauth::default(),
            msk_iam: MskIam::default(),
            reload_interval: Duration::from_secs(10),
            client_id: "pawl".into(),
            transactional_id_prefix: "pawl-".into(),
            session_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            replication_factor: -1,
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("security", &self.security)
            .field("tls", &self.tls)
            .field("sasl", &self.sasl)
            .field("oauth", &self.oauth)
            .field("msk_iam", &self.msk_iam)
            .field("reload_interval", &self.reload_interval)
            .field("client_id", &self.client_id)
            .field("transactional_id_prefix", &self.transactional_id_prefix)
            .field("session_timeout", &self.session_timeout)
            .field("transaction_timeout", &self.transaction_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("replication_factor", &self.replication_factor)
            .field("properties", &self.properties.iter().map(shown).collect::<BTreeMap<_, _>>())
            .finish()
    }
}

fn shown<'a>((name, value): (&'a String, &'a String)) -> (&'a str, &'a str) {
    (name, if secret::named_by(name) { secret::HIDDEN } else { value })
}

fn without_secrets<S: Serializer>(map: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut serialized = serializer.serialize_map(Some(map.len()))?;
    for (name, value) in map.iter().map(shown) {
        serialized.serialize_entry(name, value)?;
    }
    serialized.end()
}

fn properties_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": { "type": ["string", "integer", "number", "boolean"] },
        "examples": [{ "socket.keepalive.enable": true }],
    })
}

/// Properties that Pawl sets itself, each with what to do instead. A promise of Pawl rests on every
/// one of them (names: librdkafka's CONFIGURATION.md).
const OWNED: [(&str, &str); 49] = [
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
    ("metadata.broker.list", "set kafka.bootstrap_servers"),
    ("security.protocol", "set kafka.security"),
    ("client.id", "set kafka.client_id"),
    ("ssl.ca.location", "set kafka.tls.ca_file"),
    ("ssl.certificate.location", "set kafka.tls.certificate_file"),
    ("ssl.key.location", "set kafka.tls.key_file"),
    ("ssl.key.password", "set PAWL__KAFKA__TLS__KEY_PASSWORD"),
    ("ssl.endpoint.identification.algorithm", "set kafka.tls.verify_host"),
    ("enable.ssl.certificate.verification", "name the brokers' authority in kafka.tls.ca_file"),
    ("sasl.mechanism", "set kafka.security"),
    ("sasl.mechanisms", "set kafka.security"),
    ("sasl.username", "set kafka.sasl.username"),
    ("sasl.password", "set kafka.sasl.password_file"),
    ("sasl.oauthbearer.config", "set kafka.oauth"),
    ("sasl.oauthbearer.method", "set kafka.oauth"),
    ("sasl.oauthbearer.client.id", "set kafka.oauth.client_id"),
    ("sasl.oauthbearer.client.secret", "set kafka.oauth.client_secret_file"),
    ("sasl.oauthbearer.token.endpoint.url", "set kafka.oauth.token_endpoint"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "set kafka.oauth"),
    ("session.timeout.ms", "set kafka.session_timeout"),
    ("transaction.timeout.ms", "set kafka.transaction_timeout"),
    ("request.timeout.ms", "set kafka.request_timeout"),
    ("group.id", "set group of the handler"),
    ("group.instance.id", "set membership = { static = true } of the handler; the id is the instance's name"),
    ("enable.auto.commit", "offsets are committed only together with the results they stand for"),
    ("auto.commit.enable", "offsets are committed only together with the results they stand for"),
    ("auto.commit.interval.ms", "set commit_interval of the handler"),
    ("enable.auto.offset.store", "offsets are committed only together with the results they stand for"),
    ("auto.offset.reset", "set start of the handler; it is resolved once, when a partition is first claimed"),
    ("isolation.level", "what is read must be committed, or a ledger could hold what never happened"),
    ("partition.assignment.strategy", "set membership = { assignor = ... } of the handler"),
    ("enable.partition.eof", "Pawl sets it where it reads a partition to its end"),
    ("allow.auto.create.topics", "set create_topics of the handler"),
    ("transactional.id", "it is made of kafka.transactional_id_prefix, the group and instance"),
    ("enable.idempotence", "without it a retried write could be doubled or out of order"),
    ("enable.gapless.guarantee", "a lost write is handled by sending the whole epoch again"),
    ("acks", "a write counts only when all in-sync replicas have it"),
    ("request.required.acks", "a write counts only when all in-sync replicas have it"),
    ("max.in.flight", "more than the idempotent producer allows would break order"),
    ("max.in.flight.requests.per.connection", "more than the idempotent producer allows would break order"),
    ("message.timeout.ms", "a write may take as long as its transaction; set kafka.transaction_timeout"),
    ("delivery.timeout.ms", "a write may take as long as its transaction; set kafka.transaction_timeout"),
    ("batch.size", "the broker holds a whole batch against the topic's max.message.bytes; Pawl reads that"),
    ("queue.buffering.max.ms", "set linger.ms, which is the same by its common name"),
    ("message.max.bytes", "the topic's own max.message.bytes decides"),
    ("group.protocol", "set membership = { protocol = ... } of the handler"),
    ("group.remote.assignor", "set membership = { assignor = ... } of the handler"),
    ("partitioner", "murmur2_random keeps keys where the Java clients put them"),
];

/// Why a librdkafka property cannot be set by a user; `None` if it can.
pub(super) fn owned(name: &str) -> Option<&'static str> {
    OWNED.iter().find(|(owned, _)| *owned == name).map(|(_, reason)| *reason)
}

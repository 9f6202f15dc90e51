//! `[handler.NAME]`: one pipeline, from its input topic to what its records are handed to.

use std::time::Duration;

use pawl_actors::policy::NullKey;
use pawl_actors::selector::Selector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::{
    Breaker, ByteSize, Careful, Gap, Parking, Replay, Retry, Supervision, duration, null_key, selector,
};

/// One handler: an input topic, its group, and what happens to each record. Exactly one of http,
/// forward and program says what its records are handed to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["topic"]), extend("oneOf" = [
    { "required": ["http"] }, { "required": ["forward"] }, { "required": ["program"] }
]))]
pub struct HandlerSettings {
    /// The input topic; one for each handler. Must be set.
    pub topic: String,
    /// The consumer group, unique among the handlers of the file; the changelog is named after it.
    /// 1 to 239 characters of a-z, A-Z, 0-9, '.', '_' and '-'. Default: the handler's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What Pawl's writes to Kafka promise. Default: exactly-once.
    pub guarantee: Guarantee,
    /// What orders records: those of one key reach the handler one at a time, in order. One of
    /// "record" (the record's key), "header:NAME" and "json:/pointer" (RFC 6901, into the value).
    /// A group that has a ledger does not start with another one. Default: record.
    #[serde(with = "selector")]
    #[schemars(schema_with = "selector::schema")]
    pub key: Selector,
    /// What becomes of a record that has no key, or nothing at the place of its key. One of "reject" (it becomes a
    /// dead letter) and { spread = 16 }: it goes to one of so many lanes of its partition, by its offset. Not with
    /// sequence. A group that has a ledger does not start with another one. Default: reject.
    #[serde(with = "null_key")]
    #[schemars(schema_with = "null_key::schema")]
    pub null_key: NullKey,
    /// What marks a producer's duplicate: a record whose key has seen this id is not handed on again.
    /// Written like key. A group that has a ledger does not start with another one. Default: none, only
    /// redelivered offsets are recognised.
    #[serde(with = "selector::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector::schema")]
    pub event_id: Option<Selector>,
    /// How many event ids each key remembers; 0 switches the recognition of producers' duplicates
    /// off. Bounds: 0 to 10000. Default: 64.
    pub recent_ids: u32,
    /// How long an event id is remembered, by the time stamps of the records. Bounds: 1m to
    /// 1year. Default: 7days.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub recent_ids_age: Duration,
    /// Where a record's number in its key's sequence lies, given by its producers: records are handed on in the
    /// order of these numbers, early ones wait. Written like key. A group that has a ledger does not start with
    /// another one. Default: none, the order is that of the offsets.
    #[serde(with = "selector::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector::schema")]
    pub sequence: Option<Selector>,
    /// The first number of a key's sequence. A group that has a ledger of a sequence does not start with another
    /// one. Bounds: 0 to 1000000. Default: 1.
    pub first_sequence: u32,
    /// How long a number that is missing in a sequence is waited for, and what follows.
    pub gap: Gap,
    /// Where a group begins that has never committed an offset. Default: earliest.
    pub start: Start,
    /// Records go to an HTTP service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Records go to another topic, unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<Forward>,
    /// Records go to a handler that a Rust program registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// When and how often a failure is tried again.
    pub retry: Retry,
    /// When the service or program is taken for down.
    pub breaker: Breaker,
    /// How much of what waits for a retry is kept in the ledger, so that others go on behind it.
    pub parking: Parking,
    /// What becomes of a record that failed for good.
    pub dead_letter: DeadLetter,
    /// How much of a replay of dead letters is under way at once.
    pub replay: Replay,
    /// How often a part of Pawl that came to a bad end is begun anew.
    pub supervision: Supervision,
    /// When one record of a partition runs at a time, because one of its records may end processes.
    pub careful: Careful,
    /// How much is taken in ahead of the handler.
    pub intake: Intake,
    /// How the handler's instances share the partitions.
    pub membership: Membership,
    /// The shortest time between two epoch commits; under load an epoch commit takes longer and epochs
    /// grow by themselves. Longer costs latency and spares the broker. Bounds: 0s to 10s. Default: 5ms.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub commit_interval: Duration,
    /// After how long without a record an order actor is let go; its ledger stays in the store.
    /// Bounds: 1s to 1day. Default: 1m.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub idle_key_after: Duration,
    /// Order actors alive at a time in each partition; beyond it the longest idle are let go.
    /// Bounds: 100 to 10000000. Default: 200000.
    pub max_live_keys: u32,
    /// Whether "pawl run" creates the topics of this handler that do not exist: changelog, commands
    /// and dead letters, never the input. Default: true.
    pub create_topics: bool,
}

/// What Pawl's writes to Kafka promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// Emitted records, dead letters, ledger and offsets are one Kafka transaction: a read_committed
    /// reader sees each effect once.
    #[default]
    ExactlyOnce,
    /// For brokers without transactions: the same writes in a safe order; after a crash some may be
    /// repeated.
    AtLeastOnce,
}

/// Where a group begins that has never committed an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the oldest record that the topic still has.
    #[default]
    Earliest,
    /// With the first record written after the group's first start.
    Latest,
}

/// An HTTP service to which each record is sent as a POST.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct Http {
    /// Where to send records: http:// or https://, without user name, password or fragment. Must be set.
    pub url: String,
    /// How long one call may take, connecting included; longer is a transient failure.
    /// Bounds: 10ms to 1h. Default: 5s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Duration,
    /// Calls that run at a time, over all keys and partitions of the handler. Bounds: 1 to 100000.
    /// Default: 256.
    pub max_in_flight: u32,
    /// What is asked with a GET whether the service is up, while the breaker is open: any 2xx says so. It has
    /// the scheme of url. Default: none, attempts at records are made instead, one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_url: Option<String>,
    /// The largest answer that is read; a larger one is cut off and its connection closed.
    /// Bounds: 1KiB to 64MiB. Default: 64KiB.
    pub max_response_bytes: ByteSize,
}

/// A topic to which each record is written unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["topic"]))]
pub struct Forward {
    /// The output topic; not the input topic of the same handler. Must be set.
    pub topic: String,
}

/// A handler that a Rust program registered under a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Program {
    /// The name under which the program registered it. Default: the name of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long the handling of one record may take; longer is a transient failure.
    /// Bounds: 10ms to 1day. Default: 30s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Duration,
    /// Records handled at a time, over all keys and partitions of the handler. Bounds: 1 to 100000.
    /// Default: 256.
    pub max_in_flight: u32,
}

/// What becomes of a record that failed for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetter {
    /// The dead-letter topic; never the input topic itself. Default: the input topic's name with
    /// "-dlt" after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// What becomes of the later records of the same key. Default: quarantine.
    pub then: Then,
}

/// What becomes of the later records of a key whose record was dead-lettered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// They follow it into the dead-letter topic, in order, without being tried, until their key's letters are
    /// replayed or given up.
    #[default]
    Quarantine,
    /// They are handled as if nothing had happened.
    Continue,
    /// The record is not written to the dead-letter topic: its partition stands still until an operator has
    /// decided on it.
    Halt,
}

/// How much is taken in ahead of the handler. A partition that reaches a bound is paused; the
/// consumer stays in its group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Intake {
    /// Unfinished records of each partition. Bounds: 1 to 10000000. Default: 20000.
    pub max_records: u32,
    /// Bytes of the unfinished records of each partition; one larger record is taken in alone.
    /// Bounds: 1MiB to 16GiB. Default: 64MiB.
    pub max_bytes: ByteSize,
    /// Records of each partition that are finished while an earlier one is not, so that the
    /// partition's offset cannot follow. Bounds: 1 to 100000000. Default: 1000000.
    pub max_finished_ahead: u32,
}

/// How the instances of a handler share the partitions of its topic. All of them must have the same
/// protocol and assignor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Membership {
    /// How the group is kept. Default: classic.
    pub protocol: GroupProtocol,
    /// Who decides on the partitions, and how. Default: cooperative-sticky.
    pub assignor: Assignor,
    /// Whether the group knows the instance by its name (group.instance.id, KIP-345): its partitions wait
    /// for it while it restarts, for as long as its session lasts. Default: false.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// How long running calls may go on when their partition is revoked, before they are cancelled and
    /// left for its next owner. Bounds: 0s to 4m. Default: 5s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub revoke_grace: Duration,
}

/// How a group is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// One of the instances assigns the partitions.
    #[default]
    Classic,
    /// The broker assigns them (KIP-848), from Kafka 4.0 on. The session time-out is the broker's own
    /// (group.consumer.session.timeout.ms).
    Consumer,
}

/// How partitions are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Assignor {
    /// Every instance keeps as many of its partitions as it can, and goes on with them meanwhile. With the
    /// consumer protocol this is the broker's uniform assignor, which does the same.
    #[default]
    CooperativeSticky,
    /// Neighbouring numbers to each instance. With the classic protocol every change takes all partitions
    /// from all instances first.
    Range,
}

impl Default for HandlerSettings {
    /// A handler without topic and without anything to hand records to: not valid until both are set.
    fn default() -> Self {
        HandlerSettings {
            topic: String::new(),
            group: None,
            guarantee: Guarantee::default(),
            key: Selector::Record,
            null_key: NullKey::Reject,
            event_id: None,
            sequence: None,
            first_sequence: 1,
            gap: Gap::default(),
            recent_ids: 64,
            recent_ids_age: Duration::from_secs(7 * 24 * 3600),
            start: Start::default(),
            http: None,
            forward: None,
            program: None,
            retry: Retry::default(),
            breaker: Breaker::default(),
            supervision: Supervision::default(),
            careful: Careful::default(),
            parking: Parking::default(),
            replay: Replay::default(),
            dead_letter: DeadLetter::default(),
            intake: Intake::default(),
            membership: Membership::default(),
            commit_interval: Duration::from_millis(5),
            idle_key_after: Duration::from_secs(60),
            max_live_keys: 200_000,
            create_topics: true,
        }
    }
}

impl Default for Http {
    /// A service without URL: not valid until it is set.
    fn default() -> Self {
        Http {
            url: String::new(),
            timeout: Duration::from_secs(5),
            max_in_flight: 256,
            health_url: None,
            max_response_bytes: ByteSize::kib(64),
        }
    }
}

impl Default for Program {
    fn default() -> Self {
        Program { name: None, timeout: Duration::from_secs(30), max_in_flight: 256 }
    }
}

impl Default for Membership {
    fn default() -> Self {
        Membership {
            protocol: GroupProtocol::default(),
            assignor: Assignor::default(),
            is_static: false,
            revoke_grace: Duration::from_secs(5),
        }
    }
}

impl Default for Intake {
    fn default() -> Self {
        Intake { max_records: 20_000, max_bytes: ByteSize::mib(64), max_finished_ahead: 1_000_000 }
    }
}

/// The key of the identity fingerprint; stored fingerprints depend on it.
const FINGERPRINT_KEY: (u64, u64) = (0x7061_776c_2d69_6465, 0x6e74_6974_792d_7631);

impl HandlerSettings {
    /// The consumer group of the handler that stands under `name` in the settings.
    pub fn group<'a>(&'a self, name: &'a str) -> &'a str {
        self.group.as_deref().unwrap_or(name)
    }

    /// The topic of the dead letters: as set, else `<topic>-dlt`.
    pub fn dead_letter_topic(&self) -> String {
        self.dead_letter.topic.clone().unwrap_or_else(|| format!("{}-dlt", self.topic))
    }

    /// The topic of the ledger rows of the handler that stands under `name`: `<group>-changelog`.
    pub fn changelog_topic(&self, name: &str) -> String {
        format!("{}-changelog", self.group(name))
    }

    /// The topic of operators' commands to the handler that stands under `name`: `<group>-commands`.
    pub fn command_topic(&self, name: &str) -> String {
        format!("{}-commands", self.group(name))
    }

    /// A stable number for the settings that decide which ledger a record belongs to (`key`, `null_key`,
    /// `event_id` and `sequence`). It is stored in the partition row, and a partition whose row has another one is not
    /// taken in: the text that is hashed, SipHash-1-3 and its key must therefore never change. A
    /// later setting that decides identity adds a line only where it is set.
    pub fn identity_fingerprint(&self) -> u64 {
        let mut text = String::from("pawl identity 1\n");
        push_selector(&mut text, "key", Some(&self.key));
        push_selector(&mut text, "event_id", self.event_id.as_ref());
        if let Some(sequence) = &self.sequence {
            push_selector(&mut text, "sequence", Some(sequence));
            text.push_str(&format!("first_sequence {}\n", self.first_sequence));
        }
        if let NullKey::Spread(lanes) = self.null_key {
            text.push_str(&format!("null_key spread {lanes}\n"));
        }
        SipHasher13::new_with_keys(FINGERPRINT_KEY.0, FINGERPRINT_KEY.1).hash(text.as_bytes())
    }
}

/// Adds `name length selector`; the length keeps a selector from passing for two lines.
fn push_selector(text: &mut String, name: &str, selector: Option<&Selector>) {
    if let Some(selector) = selector {
        let selector = selector.to_string();
        *text += &format!("{name} {} {selector}\n", selector.len());
    }
}

impl Program {
    /// The name under which the Rust program registered the handler that stands under `handler`.
    pub fn name<'a>(&'a self, handler: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or(handler)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_table_unless_they_are_set() {
        let mut handler = HandlerSettings { topic: "orders".into(), ..Default::default() };
        assert_eq!(handler.group("billing"), "billing");
        assert_eq!(handler.changelog_topic("billing"), "billing-changelog");
        assert_eq!(handler.dead_letter_topic(), "orders-dlt");
        assert_eq!(Program::default().name("billing"), "billing");

        handler.group = Some("accounts".into());
        handler.dead_letter.topic = Some("graveyard".into());
        assert_eq!(handler.group("billing"), "accounts");
        assert_eq!(handler.changelog_topic("billing"), "accounts-changelog");
        assert_eq!(handler.dead_letter_topic(), "graveyard");
        assert_eq!(Program { name: Some("tax".into()), ..Default::default() }.name("billing"), "tax");
    }

    #[test]
    fn the_stored_fingerprint_of_an_identity_never_changes() {
        let check = |key: &str, event_id: Option<&str>, expected: u64| {
            let handler = HandlerSettings {
                key: key.parse().expect("a valid selector"),
                event_id: event_id.map(|text| text.parse().expect("a valid selector")),
                ..Default::default()
            };
            assert_eq!(handler.identity_fingerprint(), expected, "{key} {event_id:?}");
        };
        check("record", None, 0x3eda_20ab_0df0_7931);
        check("record", Some("header:ce_id"), 0x7928_cc4f_1da1_541c);
        check("header:ce_id", Some("record"), 0x86c8_f6fc_790d_36e5);
        check("json:/order/id", Some("json:/id"), 0xce7d_d2fa_7653_b75a);
    }

    #[test]
    fn where_null_keys_are_spread_their_lanes_decide_identity() {
        let lanes = |lanes| NullKey::Spread(std::num::NonZeroU16::new(lanes).expect("not 0"));
        let check = |null_key, expected: u64| {
            let handler = HandlerSettings { null_key, ..Default::default() };
            assert_eq!(handler.identity_fingerprint(), expected, "{null_key:?}");
        };
        check(NullKey::Reject, 0x3eda_20ab_0df0_7931);
        check(lanes(1), 18_039_881_930_791_471_632);
        check(lanes(16), 4_555_895_828_096_941_394);
    }

    #[test]
    fn settings_that_do_not_decide_identity_leave_the_fingerprint_alone() {
        let handler = HandlerSettings { event_id: Some(Selector::Record), ..Default::default() };
        let other = HandlerSettings { topic: "other".into(), recent_ids: 1, ..handler.clone() };
        assert_eq!(handler.identity_fingerprint(), other.identity_fingerprint());
    }
}

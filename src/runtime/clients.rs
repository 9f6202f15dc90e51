//! How the clients of a handler's pipeline are tuned, beside what all clients of Pawl have in common.

use crate::kafka::access::Plan;
use crate::kafka::client;
use crate::rights::transactional_id_prefix;
use crate::settings::{Assignor, GroupProtocol, Guarantee, HandlerSettings, Membership, Settings};

/// librdkafka's default lets a fast consumer wait for up to a second.
const FETCH_AGAIN: (&str, &str) = ("fetch.queue.backoff.ms", "5");

/// Bounds of what the consumer fetches ahead, all partitions together.
const FETCHED_AHEAD_KIB: [u64; 2] = [1 << 10, 32 << 10];

/// The consumer of a handler's input.
pub fn consumer_config(settings: &Settings, handler: &HandlerSettings, group: &str, instance: &str) -> Plan {
    let mut config = client::consumer(&settings.kafka, group);
    membership(&mut config, settings, &handler.membership, instance);
    // No more than the intake takes: what is fetched ahead costs memory, and a pause throws it away.
    let intake = &handler.intake;
    let [least, most] = FETCHED_AHEAD_KIB;
    let ahead_kib = (intake.max_bytes.bytes() / 1024).clamp(least, most);
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
    // A quarter of the intake: fetched once more before it is used up, and small enough for the caches.
    let (messages, kib) = ((intake.max_records / 4).max(1).to_string(), ahead_kib.to_string());
    let tuning = [
        ("queued.min.messages", &*messages),
        ("queued.max.messages.kbytes", &kib),
        FETCH_AGAIN,
        // A partition that was just assigned joins the next fetch, and an idle fetch takes so long.
        ("fetch.wait.max.ms", "100"),
    ];
    client::tune(&mut config, &settings.kafka, &tuning);
    config
}

fn membership(config: &mut Plan, settings: &Settings, membership: &Membership, instance: &str) {
    let range = membership.assignor == Assignor::Range;
    match membership.protocol {
        GroupProtocol::Classic => {
            let strategy = if range { "range" } else { "cooperative-sticky" };
            config.set("partition.assignment.strategy", strategy);
            client::session(config, &settings.kafka);
            // An instance hears of a rebalance with a heartbeat, and all of them wait for the last to hear.
            client::tune(config, &settings.kafka, &[("heartbeat.interval.ms", "300")]);
        }
        GroupProtocol::Consumer => {
            let assignor = if range { "range" } else { "uniform" };
            config.set("group.protocol", "consumer").set("group.remote.assignor", assignor);
        }
    }
    if membership.is_static {
        config.set("group.instance.id", instance);
    }
}

/// The reader of a handler's changelog.
pub fn restore_config(settings: &Settings, group: &str) -> Plan {
    let mut config = client::consumer(&settings.kafka, group);
    client::session(&mut config, &settings.kafka);
    config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
    let tuning = [("queued.min.messages", "100000"), ("queued.max.messages.kbytes", "32768"), FETCH_AGAIN];
    client::tune(&mut config, &settings.kafka, &tuning);
    config
}

/// The readers of a handler's commands and dead letters. They read little, and seldom.
pub fn aside_config(settings: &Settings, group: &str) -> Plan {
    let mut config = client::consumer(&settings.kafka, group);
    client::session(&mut config, &settings.kafka);
    // What retention has removed is passed over.
    config.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
    let tuning = [
        ("queued.min.messages", "1000"),
        ("queued.max.messages.kbytes", "4096"),
        // A partition that is asked for joins the next fetch, and an idle fetch takes so long.
        ("fetch.wait.max.ms", "100"),
        FETCH_AGAIN,
    ];
    client::tune(&mut config, &settings.kafka, &tuning);
    config
}

/// How many producers take turns at a handler's transactions.
const TRANSACTIONAL_PRODUCERS: usize = 2;

/// The producers of a handler's epochs.
pub fn producer_configs(
    settings: &Settings,
    handler: &HandlerSettings,
    group: &str,
    instance: &str,
    max_batch_bytes: u64,
) -> Vec<Plan> {
    let plain = |linger: &str| {
        let mut config = client::producer(&settings.kafka);
        let tuning = [
            ("linger.ms", linger),
            ("batch.num.messages", "10000"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "131072"),
        ];
        client::tune(&mut config, &settings.kafka, &tuning);
        config
            // The broker holds a whole batch against the topic's limit, and librdkafka never splits one.
            .set("batch.size", max_batch_bytes.clamp(1, 1_000_000).to_string())
            // For a single record the topic's limit decides, not the client's.
            .set("message.max.bytes", "104857600");
        config
    };
    if handler.guarantee != Guarantee::ExactlyOnce {
        // Only while an epoch is being handed over: at its end all is sent at once.
        return vec![plain("20")];
    }
    let transactional = |number: usize| {
        let id = format!("{}{instance}.{number}", transactional_id_prefix(&settings.kafka, group));
        // Nothing is sent before the coordinator knows of the partitions, so more gains nothing.
        let mut config = plain("1");
        // A coordinator that is not done with the last transaction but one is asked again.
        client::tune(&mut config, &settings.kafka, &[("retry.backoff.ms", "20")]);
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", settings.kafka.transaction_timeout.as_millis().to_string());
        config
    };
    (0..TRANSACTIONAL_PRODUCERS).map(transactional).collect()
}

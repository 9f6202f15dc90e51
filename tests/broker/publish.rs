//! `pawl publish` against a real broker.

use std::collections::BTreeMap;

use pawl_actors::record::Header;

use crate::support::{self, Seen, command};

fn publish(topic: &str, flags: &[&str], stdin: &str) -> support::Finished {
    let broker = support::broker().expect("asked for by the test");
    let common = ["publish", "-b", broker.bootstrap(), "--topic", topic];
    command(&[&common, flags].concat(), stdin.as_bytes())
}

/// Where each key lies.
fn places(seen: &[Seen]) -> BTreeMap<Vec<u8>, i32> {
    seen.iter().map(|record| (record.key.clone().expect("a key"), record.partition)).collect()
}

/// Kafka's partitioner (`murmur2(key) & 0x7fffffff) % partitions`), written from the algorithm's
/// definition: a third opinion beside librdkafka's and Java's.
fn murmur2_partition(key: &[u8], partitions: i32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32 ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().expect("four bytes")).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        h = (h ^ tail).wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^= h >> 15;
    (h & 0x7fff_ffff) as i32 % partitions
}

#[test]
fn every_line_becomes_a_record_with_key_and_cloudevents_headers() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "publish", 1);
    let lines = "{\"id\":\"e1\",\"type\":\"placed\",\"order\":\"A1\"}\n\n{ \"order\": \"A1\", \"type\":\"paid\", \"id\":2 }";
    let flags =
        ["--key", "json:/order", "--event-id", "json:/id", "--type", "json:/type", "--source", "/shop"];
    let done = publish(&topic, &[&flags[..], &["--json"]].concat(), lines);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.json()["acked"], 2);
    let seen = support::read_all(broker, &topic);
    let texts: Vec<&str> = seen.iter().map(Seen::text).collect();
    assert_eq!(texts, lines.split("\n\n").collect::<Vec<_>>(), "byte for byte, in order");
    assert_eq!(seen[1].key.as_deref(), Some(&b"A1"[..]));
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "2"),
        ("ce_source", "/shop"),
        ("ce_type", "paid"),
        ("content-type", "application/json"),
    ];
    assert_eq!(seen[1].headers, expected.map(|(name, value)| Header::new(name, value)));
}

#[test]
fn keys_lie_where_javas_producer_puts_them() {
    let Some(broker) = support::broker() else { return };
    let partitions = 7;
    let topic = support::topic(broker, "murmur2", partitions);
    let keys: Vec<String> = (0..300)
        .map(|n| format!("{}{n}", "key-é-".chars().cycle().take(n % 9).collect::<String>()))
        .collect();
    let lines: String = keys.iter().map(|key| format!("{{\"k\":\"{key}\"}}\n")).collect();
    assert_eq!(publish(&topic, &["--key", "json:/k"], &lines).code, 0);
    let places = places(&support::read_all(broker, &topic));
    assert_eq!(places.len(), keys.len());
    for (key, partition) in &places {
        assert_eq!(*partition, murmur2_partition(key, partitions), "{key:?}");
    }

    let by_java = support::topic(broker, "murmur2-java", partitions);
    let input: String = keys.iter().map(|key| format!("{key}\tv\n")).collect();
    let flags = [
        "--bootstrap-server",
        broker.bootstrap(),
        "--topic",
        &by_java,
        "--reader-property",
        "parse.key=true",
    ];
    let producer = "org.apache.kafka.tools.ConsoleProducer";
    let Some(output) = broker.java_tool(producer, &flags, input.as_bytes()) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(places, self::places(&support::read_all(broker, &by_java)));
}

#[test]
fn nothing_after_a_bad_line_is_sent_and_the_count_before_it_is_exact() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "bad-line", 1);
    let done = publish(&topic, &["--key", "json:/k", "--json"], "{\"k\":1}\n{\"k\":2}\n{\"k\":\n{\"k\":4}\n");
    assert_eq!(done.code, 1, "{done:?}");
    for part in ["standard input:3: not JSON", "2 records were acknowledged", "--skip-invalid"] {
        assert!(done.stderr.contains(part), "{part:?} is not in {}", done.stderr);
    }
    assert_eq!(done.json()["acked"], 2);
    assert_eq!(support::read_all(broker, &topic).len(), 2);
}

#[test]
fn bad_lines_are_left_out_on_request_and_each_is_named() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "skip-invalid", 1);
    let lines = format!("{{\"k\":1}}\n{{}}\n\"{}\"\n{{\"k\":4}}\n", "x".repeat(200));
    let done = publish(&topic, &["--key", "json:/k", "--skip-invalid", "--max-line-bytes", "100"], &lines);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout.contains("2 records were acknowledged") && done.stdout.contains("2 bad lines"),
        "{done:?}"
    );
    for part in [":2: no key: there is nothing at json:/k; left out", ":3: longer than 100 bytes"] {
        assert!(done.stderr.contains(part), "{part:?} is not in {}", done.stderr);
    }
    let seen = support::read_all(broker, &topic);
    assert_eq!(
        seen.iter().map(|record| record.key.as_deref().expect("a key")).collect::<Vec<_>>(),
        [b"1", b"4"]
    );
}

#[test]
fn a_record_that_the_broker_refuses_is_named_by_its_line() {
    let Some(broker) = support::broker() else { return };
    let topic = support::unique("refused");
    support::topic_with(broker, &topic, 1, &[("max.message.bytes", "2000")]);
    let done = publish(&topic, &[], &format!("1\n\"{}\"\n", "x".repeat(5000)));
    assert_eq!(done.code, 4, "{done:?}");
    assert!(done.stderr.contains("standard input:2: the record was refused"), "{done:?}");
    assert!(done.stderr.contains("1 record was acknowledged"), "{done:?}");
    assert_eq!(support::read_all(broker, &topic).len(), 1);
}

#[test]
fn a_batch_never_exceeds_what_the_topic_takes() {
    let Some(broker) = support::broker() else { return };
    let topic = support::unique("small-batches");
    support::topic_with(broker, &topic, 1, &[("max.message.bytes", "2000")]);
    let done = publish(&topic, &["--json"], &format!("\"{}\"\n", "x".repeat(500)).repeat(100));
    assert_eq!((done.code, done.json()["acked"].as_u64()), (0, Some(100)), "{done:?}");
}

#[test]
fn a_missing_topic_and_a_missing_broker_are_told_apart() {
    let Some(_) = support::broker() else { return };
    let done = publish("no-such-topic", &[], "1\n");
    assert_eq!(done.code, 4, "{done:?}");
    assert!(done.stderr.contains("there is no topic \"no-such-topic\""), "{done:?}");

    let done = command(&["publish", "-b", "127.0.0.1:1", "--topic", "t"], b"1\n");
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.stderr.contains("127.0.0.1:1 (connection refused)"), "{done:?}");
}

#[test]
fn a_rate_is_kept() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "rate", 1);
    let done = publish(&topic, &["--rate", "100", "--json"], &"1\n".repeat(51));
    assert_eq!(done.json()["acked"], 51, "{done:?}");
    assert!(done.json()["seconds"].as_f64().expect("a number") >= 0.5, "{done:?}");
}

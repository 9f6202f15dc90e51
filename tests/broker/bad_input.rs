//! Input that is not what it should be, topics that do not fit, and brokers that go away: each ends
//! in a clear message, and nothing is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pawl_actors::dead_letter::header;
use pawl_actors::record::Header;

use crate::support::{self, Broker, Out, Pawl, Reply, Seen, Service};

const DEADLINE: Duration = Duration::from_secs(90);
/// Bytes of a value with which a record is as large as Kafka's default `max.message.bytes`
/// (1,048,588) allows: the rest is the batch's header, the record's lengths, and the key.
const LARGEST_VALUE: usize = 1_048_588 - 61 - 20;

/// A header whose name is no text.
fn odd() -> Header {
    Header { name: Bytes::from_static(b"caf\xc3 \xff"), value: Some(Bytes::from_static(b"\xfe\x00")) }
}

fn code(letter: &Seen) -> &str {
    let code = letter.header(header::EXCEPTION_FQCN).unwrap_or_else(|| panic!("no code: {letter:?}"));
    std::str::from_utf8(code).expect("codes are text")
}

fn message(letter: &Seen) -> String {
    String::from_utf8_lossy(letter.header(header::EXCEPTION_MESSAGE).expect("a message")).into_owned()
}

/// Runs until it ends by itself, for a reason that its last line tells with these parts.
fn assert_refused(settings: &str, parts: &[&str]) {
    Pawl::new(settings).start().assert_refused(parts);
}

#[test]
fn what_cannot_be_read_becomes_a_letter_with_its_bytes_and_holds_nothing_up() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "events", 1), support::topic(broker, "copies", 1));
    let with_odd = |mut out: Out| {
        out.headers.push(odd());
        out.headers.push(Header { name: Bytes::from_static(b"null"), value: None });
        out
    };
    let keyless = Out { key: None, ..Out::new("", r#"{"id":"3"}"#) };
    let tombstone = Out { value: None, ..Out::new("A", "") };
    let records: Vec<Out> = [
        Out::new("A", r#"{"id":"1"}"#),
        Out::new("A", "no { json"),
        Out::new("A", b"\"\xff\xfe\"".to_vec()),
        Out::new("A", r#"{"id":{"nested":"2"}}"#),
        keyless,
        tombstone,
        Out::new("A", r#"{"id":"1"}"#),
        Out::new("A", r#"{"no":"id"}"#),
        Out::new(b"\x00\xff".to_vec(), r#"{"id":"4"}"#),
        Out::new("A", r#"{"id":"1","but":"another value"}"#),
    ]
    .into_iter()
    .map(with_odd)
    .collect();
    support::produce(broker, &input, records.clone());
    let more = format!(
        "event_id = \"json:/id\"\nforward = {{ topic = \"{output}\" }}\ndead_letter = {{ then = \"continue\" }}"
    );
    let group = support::unique("copy");
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    pawl.start();
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    support::until("the conflict to be counted", DEADLINE, || {
        (pawl.metric("pawl_event_id_conflicts_total") == Some(1.0)).then_some(())
    });
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let conflict = format!("{input}[0]@9 key \"A\": its event id \"1\" came before with another value");
    assert!(pawl.log().contains(&conflict), "{}", pawl.log());
    let copies = support::read_all(broker, &output);
    let letters = support::read_all(broker, &format!("{input}-dlt"));
    assert_eq!(letters.len(), 4, "{letters:?}");

    let copied = |n: usize| copies.iter().any(|copy| same(copy, &records[n]));
    assert_eq!(copies.len(), 4, "{copies:?}");
    assert!([0, 5, 7, 8].into_iter().all(copied), "{copies:?}");
    assert!(copies.iter().all(|copy| copy.headers.len() == 2), "a forwarded record gets no headers");
    // Letters of different lanes have no order among them.
    let by_offset: BTreeMap<&[u8], &Seen> = letters
        .iter()
        .map(|letter| (letter.header(header::ORIGINAL_OFFSET).expect("a place"), letter))
        .collect();
    let codes: Vec<&str> = by_offset.values().map(|letter| code(letter)).collect();
    assert_eq!(codes, ["pawl.Undecodable", "pawl.Undecodable", "pawl.Undecodable", "pawl.NullKey"]);
    for (letter, n) in by_offset.values().zip([1, 2, 3, 4]) {
        assert!(same(letter, &records[n]), "{letter:?}");
    }
    let messages: Vec<String> = by_offset.values().map(|letter| message(letter)).collect();
    for (text, part) in messages.iter().zip(["not JSON", "not JSON", "is an object", "no key"]) {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// Key, value and leading headers, byte for byte.
fn same(seen: &Seen, sent: &Out) -> bool {
    (&seen.key, &seen.value) == (&sent.key, &sent.value) && seen.headers.starts_with(&sent.headers)
}

#[test]
fn a_key_that_lies_in_the_value_may_be_missing_there() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "events", 1), support::topic(broker, "copies", 1));
    let tombstone = Out { value: None, ..Out::new("x", "") };
    let records = [Out::new("x", "oops"), tombstone, Out::new("x", "{}"), Out::new("x", r#"{"order":7}"#)];
    support::produce(broker, &input, records);
    let more = format!("key = \"json:/order\"\nforward = {{ topic = \"{output}\" }}");
    let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("copy"), &more));
    pawl.start();
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 1);
    let letters = support::read_until(broker, &format!("{input}-dlt"), DEADLINE, |seen| seen.len() == 3);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let codes: Vec<&str> = letters.iter().map(code).collect();
    assert_eq!(codes, ["pawl.Undecodable", "pawl.NullKey", "pawl.NullKey"]);
    assert!(message(&letters[2]).contains("json:/order"), "{:?}", message(&letters[2]));
}

#[test]
fn a_failing_record_near_the_size_limit_fits_into_its_dead_letter() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "events", 1), support::topic(broker, "copies", 1));
    let value = vec![b'x'; LARGEST_VALUE];
    support::produce(broker, &input, [Out::new("A", value.clone()), Out::new("A", "small")]);
    let service = Service::start(|call| Reply::status(if call.body.len() > 100 { 422 } else { 200 }));
    let go_on = "then = \"continue\"";
    let more = format!("http = {{ url = \"{}\" }}\ndead_letter = {{ {go_on} }}", service.url());
    let settings = support::settings(broker, &input, &support::unique("billing"), &more);
    let forward = format!(
        "forward = {{ topic = \"{output}\" }}\ndead_letter = {{ topic = \"{output}-dlt\", {go_on} }}"
    );
    let forward = support::settings(broker, &input, &support::unique("copy"), &forward);
    let (mut posting, mut forwarding) = (Pawl::new(&settings), Pawl::new(&forward));
    posting.start();
    forwarding.start();
    let refused = support::read_until(broker, &format!("{input}-dlt"), DEADLINE, |seen| seen.len() == 1);
    let copies = support::read_until(broker, &output, DEADLINE, |seen| !seen.is_empty());
    service.wait("the record behind it", 1, DEADLINE, |call| call.status == 200);
    assert_eq!((posting.terminate(), forwarding.terminate()), (0, 0));

    assert_eq!((refused[0].value.as_ref(), code(&refused[0])), (Some(&value), "pawl.Rejected"));
    // What the output topic might not take is not tried: it would take its epoch down.
    let letters = support::read_all(broker, &format!("{output}-dlt"));
    assert_eq!((letters[0].value.as_ref(), code(&letters[0])), (Some(&value), "pawl.TooLarge"));
    assert_eq!(copies[0].text(), "small");
}

#[test]
fn a_letter_that_its_topic_does_not_take_stops_pawl_with_the_remedy_and_is_not_lost() {
    let Some(broker) = support::broker() else { return };
    let input = support::topic(broker, "events", 1);
    // Made by somebody else, without room for the headers of a letter.
    let letters = format!("{input}-dlt");
    support::topic_with(broker, &letters, 1, &[]);
    let value = vec![b'x'; LARGEST_VALUE];
    support::produce(broker, &input, [Out::new("A", value.clone()), Out::new("A", "next")]);
    let service = Service::start(|call| Reply::status(if call.body.len() > 100 { 422 } else { 200 }));
    // Long enough to see that nothing waits for a record that cannot end.
    let more = format!(
        "http = {{ url = \"{}\" }}\ndead_letter = {{ then = \"continue\" }}\n[shutdown]\ndeadline = \"10m\"",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("billing"), &more));
    let remedy = format!("Raise max.message.bytes of {letters}");
    pawl.start().assert_refused(&[&remedy, "nothing is lost"]);

    support::clients::alter(broker, &letters, &[("max.message.bytes", "2000000")]);
    pawl.start();
    let seen = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 1);
    service.wait("the record behind it", 1, DEADLINE, |call| call.status == 200);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(seen[0].value.as_ref(), Some(&value));
}

#[test]
fn batches_are_no_larger_than_the_smallest_topic_takes() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "events", 1), support::unique("copies"));
    support::topic_with(broker, &output, 1, &[("max.message.bytes", "20000")]);
    let records = (0..2_000).map(|n| Out::new(format!("K{}", n % 50), vec![b'x'; 500]));
    support::produce(broker, &input, records);
    let more = format!("forward = {{ topic = \"{output}\" }}");
    let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("copy"), &more));
    pawl.start();
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 2_000);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn a_missing_topic_is_named_with_the_command_that_creates_it() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "events", 1), support::unique("copy"));
    let nowhere = support::unique("nowhere");
    let forward = format!("forward = {{ topic = \"{nowhere}\" }}");
    let elsewhere = format!("forward = {{ topic = \"{input}\" }}");
    let settings = support::settings(broker, &nowhere, &group, &elsewhere);
    let remedy = "pawl topics create --input-partitions N";
    assert_refused(&settings, &[&format!("no input topic \"{nowhere}\""), remedy]);
    let settings = support::settings(broker, &input, &group, &forward);
    assert_refused(&settings, &[&format!("no forward topic \"{nowhere}\""), remedy]);

    let forbidden = format!("forward = {{ topic = \"{input}\" }}\ncreate_topics = false");
    let other = support::topic(broker, "events", 1);
    let settings = support::settings(broker, &other, &group, &forbidden);
    assert_refused(&settings, &[&format!("no changelog topic \"{group}-changelog\"")]);
    support::topic_with(broker, &format!("{group}-changelog"), 1, &[("cleanup.policy", "compact")]);
    assert_refused(&settings, &[&format!("no dead-letter topic \"{other}-dlt\""), "pawl topics create"]);
}

#[test]
fn topics_with_another_partition_count_are_refused_by_name() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "events", 3), support::topic(broker, "copies", 1));
    let (group, letters) = (support::unique("copy"), support::topic(broker, "letters", 2));
    let to = format!("forward = {{ topic = \"{output}\" }}");
    let more = format!("{to}\ndead_letter = {{ topic = \"{letters}\" }}");
    let settings = support::settings(broker, &input, &group, &more);
    let found = format!("the dead-letter topic \"{letters}\" has 2 partitions, the input topic 3");
    assert_refused(&settings, &[&found, "use another topic"]);

    let group = support::unique("copy");
    support::topic_with(broker, &format!("{group}-changelog"), 2, &[("cleanup.policy", "compact")]);
    let settings = support::settings(broker, &input, &group, &to);
    assert_refused(&settings, &[&format!("changelog topic \"{group}-changelog\" has 2 partitions")]);
}

#[test]
fn a_broker_that_is_away_at_the_start_or_goes_away_is_waited_for() {
    let Some(_) = support::broker() else { return };
    let Some(broker) = Broker::own() else { return };
    let (input, output) = (support::topic(&broker, "events", 2), support::topic(&broker, "copies", 2));
    let sent = |range: std::ops::Range<i32>| range.map(|n| Out::new(format!("K{}", n % 9), format!("{n}")));
    support::produce(&broker, &input, sent(0..500));
    broker.stop();
    let more = format!("forward = {{ topic = \"{output}\" }}\ncommit_interval = \"20ms\"");
    let settings = support::settings(&broker, &input, &support::unique("copy"), &more);
    let settings = settings.replace("[kafka]\n", "[kafka]\nrequest_timeout = \"1s\"\n");
    let mut pawl = Pawl::new(&settings);
    pawl.start();
    let waiting = || pawl.log().contains("connection refused").then_some(());
    support::until("a message that no broker answers", DEADLINE, waiting);
    assert_eq!(pawl.get("/live").map(|(status, _)| status), Some(200), "whoever waits is alive");
    assert_eq!(pawl.get("/ready").map(|(status, _)| status), Some(503));
    broker.start();
    pawl.wait_ready();
    support::read_until(&broker, &output, DEADLINE, |seen| seen.len() == 500);

    // In the middle of work: once in an orderly way, once by a crash.
    for (round, crash) in [(1, false), (2, true)] {
        let work = 500 * round..500 * round + 500;
        support::produce(&broker, &input, sent(work));
        if crash {
            broker.kill()
        } else {
            broker.stop()
        }
        broker.start();
    }
    let seen = support::read_until(&broker, &output, DEADLINE, |seen| seen.len() >= 1_500);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(support::read_all(&broker, &output).len(), 1_500, "nothing twice");
    let mut last = BTreeMap::new();
    for record in &seen {
        let n: i32 = record.text().parse().expect("a number");
        assert!(last.insert(record.key.clone(), n).is_none_or(|before| before < n), "in order");
    }
}

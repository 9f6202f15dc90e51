//! Reading dead letters from a real broker.

use pawl_actors::dead_letter::header;
use serde_json::Value;

use crate::support::{self, Broker, Ending, Finished, Out, command};

fn dlt(broker: &Broker, args: &[&str]) -> Finished {
    command(&[&["dlt", args[0], "-b", broker.bootstrap()], &args[1..]].concat(), b"")
}

fn letter(n: i64, group: &'static str) -> Out {
    Out::new(format!("key-{n}"), format!("{{\"n\":{n}}}"))
        .at((n % 2) as i32)
        .header(header::ORIGINAL_TOPIC, "orders")
        .header(header::ORIGINAL_PARTITION, 1i32.to_be_bytes().to_vec())
        .header(header::ORIGINAL_OFFSET, (100 + n).to_be_bytes().to_vec())
        .header(header::ORIGINAL_CONSUMER_GROUP, group)
        .header(header::EXCEPTION_FQCN, "pawl.Rejected")
        .header(header::EXCEPTION_MESSAGE, "the service answered 422")
        .header(header::DELIVERY_ATTEMPT, 1i32.to_be_bytes().to_vec())
}

#[test]
fn letters_are_listed_within_the_limit_and_by_group() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "letters", 2);
    let group = |n: i64| if n < 3 { "billing" } else { "mail" };
    support::produce(broker, &topic, (0..10).map(|n| letter(n, group(n))));

    let list = dlt(broker, &["list", &topic]);
    assert_eq!((list.code, list.stdout.lines().count()), (0, 10), "{list:?}");
    assert!(
        list.stdout.contains("key key-4  pawl.Rejected at attempt 1  from orders 1 104  the service"),
        "{list:?}"
    );

    let some = dlt(broker, &["list", &topic, "--limit", "4", "--partition", "1"]);
    assert_eq!(some.stdout.lines().count(), 4);
    assert!(some.stdout.lines().all(|line| line.starts_with("1 ")), "{some:?}");
    assert!(some.stderr.contains("there are more"), "{some:?}");

    let billing = dlt(broker, &["list", &topic, "--group", "billing", "--json"]);
    let parse = |line: &str| serde_json::from_str::<Value>(line).expect("one JSON object a line");
    let mut offsets: Vec<_> =
        billing.stdout.lines().map(|line| parse(line)["original"]["offset"].clone()).collect();
    offsets.sort_by_key(Value::as_i64);
    assert_eq!(offsets, [100, 101, 102]);
}

#[test]
fn letters_of_an_aborted_transaction_are_not_there() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "aborted-letters", 2);
    support::produce_in_transaction(broker, &topic, [letter(0, "billing")], Ending::Abort);
    support::produce_in_transaction(broker, &topic, [letter(2, "billing")], Ending::Commit);
    let list = dlt(broker, &["list", &topic]);
    assert_eq!(list.stdout.lines().count(), 1, "{list:?}");
    assert!(list.stdout.contains("key key-2"), "{list:?}");
    assert_eq!(support::read_all(broker, &topic).len(), 1, "the tests' own reader sees no more");
    let aborted = dlt(broker, &["show", &topic, "0", "0"]);
    assert_eq!(aborted.code, 1, "{aborted:?}");
    assert!(aborted.stderr.contains("the next is at offset 2"), "{aborted:?}");
}

#[test]
fn one_letter_is_shown_whole() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "letter", 2);
    let mut odd = letter(0, "billing").header("ce_id", "e1");
    odd.headers.push(pawl_actors::record::Header { name: vec![0xff].into(), value: None });
    odd.value = Some(vec![0, 0xff]);
    support::produce(broker, &topic, [letter(0, "billing"), odd]);

    let shown = dlt(broker, &["show", &topic, "0", "0"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    for part in ["original     orders 1 100", "group        billing", "{\n  \"n\": 0\n}"] {
        assert!(shown.stdout.contains(part), "{part:?} is not in {}", shown.stdout);
    }
    let odd = dlt(broker, &["show", &topic, "0", "1", "--json"]).json();
    assert_eq!(odd["value"]["hex"], "00ff");
    assert_eq!(odd["headers"][0]["value"], "e1");
    assert_eq!(odd["headers"][1]["name"]["hex"], "ff", "a name that is not UTF-8");

    let none = dlt(broker, &["show", &topic, "0", "2"]);
    assert_eq!(none.code, 1, "{none:?}");
    let beyond = dlt(broker, &["show", &topic, "2", "0"]);
    assert_eq!(beyond.code, 2, "{beyond:?}");
    assert!(beyond.stderr.contains("its partitions are 0 to 1"), "{beyond:?}");
}

#[test]
fn an_empty_and_a_missing_topic_are_told_apart() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "no-letters", 1);
    let empty = dlt(broker, &["list", &topic]);
    assert_eq!((empty.code, empty.stdout.as_str()), (0, ""), "{empty:?}");
    assert!(empty.stderr.contains("no dead letters"), "{empty:?}");
    assert_eq!(dlt(broker, &["list", "no-such-topic"]).code, 4);
}

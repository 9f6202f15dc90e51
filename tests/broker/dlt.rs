//! Reading dead letters from a real broker, and writing exported ones back.

use std::time::Duration;

use pawl_actors::dead_letter::header;
use pawl_actors::record::Header;
use serde_json::Value;

use crate::support::service::Received;
use crate::support::{self, Broker, Ending, Finished, Out, Pawl, Reply, Seen, Service, clients, command};

fn dlt(broker: &Broker, args: &[&str]) -> Finished {
    dlt_with(broker, args, "")
}

fn dlt_with(broker: &Broker, args: &[&str], stdin: &str) -> Finished {
    command(&[&["dlt", args[0], "-b", broker.bootstrap()], &args[1..]].concat(), stdin.as_bytes())
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
        list.stdout.contains("key key-4  pawl.Rejected at attempt 1  from orders 1 104 by mail  the service"),
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
    odd.headers.push(Header { name: vec![0xff].into(), value: None });
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

/// Two partitions of letters that Pawl wrote: three of the key BAD, which is in quarantine, a tombstone of
/// another key with odd headers, and one without a key.
fn letters_of_a_run(broker: &Broker) -> String {
    let (input, group) = (support::topic(broker, "failing", 2), support::unique("letters"));
    let service = Service::start(|call: &Received| {
        Reply::status(match call.key.as_str() {
            "BAD" => 422,
            "TOMB" => 503,
            _ => 200,
        })
    });
    let more = format!(
        "http = {{ url = \"{}\" }}\nretry = {{ attempts = 1 }}\ndead_letter = {{ then = \"quarantine\" }}",
        service.url()
    );
    let mut tombstone = Out::new("TOMB", "").at(1).header("a", "1").header("a", "2");
    tombstone.value = None;
    tombstone.headers.push(Header { name: vec![0xff].into(), value: None });
    tombstone.headers.push(Header { name: "empty".into(), value: Some("".into()) });
    let no_key = Out { key: None, ..Out::new("", vec![0, 0xfe]).at(1) };
    let bad = (0..3).map(|n| Out::new("BAD", format!("{{\"n\":{n}}}")).at(0));
    support::produce(broker, &input, bad.chain([tombstone, no_key, Out::new("GOOD", "1").at(0)]));
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    pawl.start();
    let letters = format!("{input}-dlt");
    support::read_until(broker, &letters, Duration::from_secs(60), |seen| seen.len() == 5);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    letters
}

/// All but the offset, in the order of the partitions.
fn contents(seen: Vec<Seen>) -> Vec<Seen> {
    let mut seen: Vec<Seen> = seen.into_iter().map(|record| Seen { offset: 0, ..record }).collect();
    seen.sort_by_key(|record| record.partition);
    seen
}

/// Exported lines without their offsets, in the order of the partitions.
fn lines(exported: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str::<Value>(line).expect("one JSON object a line");
    let mut lines: Vec<Value> = exported.lines().map(parse).collect();
    lines.iter_mut().for_each(|line| line["offset"] = Value::Null);
    lines.sort_by_key(|line| line["partition"].as_i64());
    lines
}

#[test]
fn letters_of_a_run_are_counted_filtered_exported_and_imported_byte_for_byte() {
    let Some(broker) = support::broker() else { return };
    let letters = letters_of_a_run(broker);
    let listed = |filter: &[&str]| {
        let list = dlt(broker, &[&["list", &letters], filter].concat());
        assert_eq!(list.code, 0, "{list:?}");
        list.stdout
    };
    let bad = listed(&["--key", "BAD"]);
    for (n, line) in bad.lines().enumerate() {
        assert!(line.contains(&format!("key BAD #{n}  pawl.")), "{bad}");
    }
    let count = |filter: &[&str]| listed(filter).lines().count();
    assert_eq!(bad.lines().count(), 3);
    assert_eq!(count(&["--key-hex", "544f4d42"]), 1);
    assert_eq!(count(&["--no-key"]), 1);
    assert_eq!(count(&["--disposition", "follower"]), 2);
    assert_eq!(count(&["--cause", "pawl.Unavailable"]), 1, "a cause behind the code pawl.Exhausted");
    assert_eq!(count(&["--cause", "answered 422"]), 3, "followers tell of the failure that they follow");
    assert_eq!(count(&["--since", "1h"]), 5);
    assert_eq!(count(&["--until", "1h"]), 0);
    // Where a line begins with: partition and offset.
    let place: Vec<&str> = bad.lines().nth(1).expect("the second").split_whitespace().take(2).collect();
    let shown = dlt(broker, &["show", &letters, place[0], place[1]]);
    assert!(shown.stdout.contains("quarantine   since offset 0\nnumber       #1\n"), "{shown:?}");

    let counted = listed(&["--count"]);
    let first = counted.lines().nth(1).unwrap_or_default();
    assert!(first.starts_with("      2     1  "), "{counted}");
    assert!(first.ends_with("follower     pawl.Quarantined  pawl.Quarantined"), "{counted}");
    assert_eq!(counted.lines().count(), 5, "{counted}");
    let counted = listed(&["--count", "--json", "--disposition", "exhausted"]);
    let counted: Value = serde_json::from_str(&counted).expect("one row");
    assert_eq!((&counted["letters"], &counted["keys"]), (&1.into(), &1.into()));

    let exported = dlt(broker, &["export", &letters]);
    assert_eq!((exported.code, exported.stdout.lines().count()), (0, 5), "{exported:?}");
    assert!(exported.stderr.contains("5 of 5 dead letters"), "{exported:?}");
    let some = dlt(broker, &["export", &letters, "--partition", "0", "--disposition", "follower"]);
    assert_eq!(some.stdout.lines().count(), 2, "{some:?}");

    let copy = support::topic(broker, "copy", 2);
    let imported = dlt_with(broker, &["import", &copy], &exported.stdout);
    assert_eq!(imported.code, 0, "{imported:?}");
    assert!(imported.stdout.starts_with("5 records were acknowledged"), "{imported:?}");
    let again = dlt(broker, &["export", &copy]);
    assert_eq!(lines(&again.stdout), lines(&exported.stdout));
    let read = |topic: &str| contents(support::read_all(broker, topic));
    assert_eq!(read(&copy), read(&letters), "as another client reads them");

    assert_eq!(dlt_with(broker, &["import", &copy], &exported.stdout).code, 0);
    assert_eq!(read(&copy).len(), 10, "an import writes copies beside what is there");
}

#[test]
fn nothing_is_imported_where_a_line_is_bad_or_its_partition_is_not_there() {
    let Some(broker) = support::broker() else { return };
    let (letters, copy) = (support::topic(broker, "to-export", 2), support::topic(broker, "small-copy", 1));
    support::produce(broker, &letters, [letter(0, "billing"), letter(1, "billing")]);
    let one = dlt(broker, &["export", &letters, "--partition", "0"]).stdout;
    let both = one.clone() + &dlt(broker, &["export", &letters, "--partition", "1"]).stdout;

    for flags in [&[][..], &["--skip-invalid"]] {
        let refused = dlt_with(broker, &[&["import", &copy], flags].concat(), &both);
        assert_eq!(refused.code, 1, "{refused:?}");
        let why = format!("standard input:2: {copy} has no partition 1; its partitions are 0 to 0");
        assert!(refused.stderr.contains(&why), "{refused:?}");
    }
    let damaged = format!("{one}{{\"partition\":0}}\n{one}\"{}\"\n", "x".repeat(2_000));
    let limit = ["--max-line-bytes", "1500"];
    let refused = dlt_with(broker, &[&["import", &copy][..], &limit].concat(), &damaged);
    assert_eq!(refused.code, 1, "{refused:?}");
    for part in ["standard input:2: ", "missing field", "nothing was written", "--skip-invalid"] {
        assert!(refused.stderr.contains(part), "{part:?} is not in {}", refused.stderr);
    }
    assert_eq!(support::read_all(broker, &copy), [], "nothing at all");

    let flags = ["import", &copy, "--skip-invalid", "--json"];
    let some = dlt_with(broker, &[&flags[..], &limit].concat(), &damaged);
    assert_eq!((some.code, &some.json()["acked"], &some.json()["skipped"]), (0, &2.into(), &2.into()));
    assert!(some.stderr.contains("standard input:4: longer than 1500 bytes"), "{some:?}");
    assert_eq!(support::read_all(broker, &copy).len(), 2);
    assert_eq!(dlt_with(broker, &["import", "no-such-topic"], &one).code, 4);
}

#[test]
fn an_export_replaces_no_file_and_tells_what_an_open_transaction_holds_back() {
    let Some(broker) = support::broker() else { return };
    let (letters, copy) = (support::topic(broker, "held-back", 1), support::unique("broker-times"));
    support::topic_with(broker, &copy, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let dated = Out { timestamp: Some(1_000), ..letter(0, "billing") };
    support::produce(broker, &letters, [dated]);
    let open = clients::open_transaction(broker, &letters, letter(2, "billing"));
    let settings = support::settings(broker, &letters, "nobody", "http = { url = \"http://127.0.0.1:1\" }")
        .replace("[store]", "request_timeout = \"1s\"\n[store]");
    let pawl = Pawl::new(&settings);
    let file = |name: &str| pawl.dir().join(name).to_str().expect("a path in UTF-8").to_owned();
    let (config, output) = (file("pawl.toml"), file("letters.jsonl"));
    let export = || command(&["dlt", "export", &letters, "-c", &config, "-o", &output], b"");

    let exported = export();
    assert_eq!((exported.code, exported.stdout.as_str()), (0, ""), "{exported:?}");
    assert!(exported.stderr.contains("an open transaction holds back 1 record"), "{exported:?}");
    let text = std::fs::read_to_string(&output).expect("the export");
    assert_eq!(lines(&text).len(), 1, "{text}");
    let refused = export();
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("name another file"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&output).expect("the export"), text);
    drop(open);

    let imported = command(&["dlt", "import", &copy, &output, "-c", &config], b"");
    assert_eq!(imported.code, 0, "{imported:?}");
    assert!(imported.stderr.contains("its letters get the time of the import"), "{imported:?}");
    let times: Vec<_> = support::read_all(broker, &copy).iter().map(|seen| seen.timestamp).collect();
    assert!(matches!(times[..], [Some(millis)] if millis > 1_000), "{times:?}");
}

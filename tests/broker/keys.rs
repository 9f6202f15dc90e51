//! Looking at keys, in a running instance and in the changelog.

use std::time::Duration;

use bytes::BytesMut;
use pawl_actors::ledger::{Head, IdHasher, PartitionRow, Row};
use pawl_actors::record::Offset;
use serde_json::Value;

use crate::support::{self, Broker, Finished, Out, Pawl, Reply, Service, command, process};

const DEADLINE: Duration = Duration::from_secs(60);

/// `pawl keys` with the settings of an instance.
fn keys(pawl: &Pawl, args: &[&str]) -> Finished {
    let file = pawl.dir().join("pawl.toml");
    command(&[&["keys"], args, &["--config", file.to_str().expect("a path in UTF-8")]].concat(), b"")
}

/// One object a line, without the one field that only a changelog knows.
fn lines(finished: &Finished) -> Vec<Value> {
    assert_eq!(finished.code, 0, "{finished:?}");
    let parse = |line| serde_json::from_str::<Value>(line).expect("one JSON object a line");
    let mut lines: Vec<Value> = finished.stdout.lines().map(parse).collect();
    for line in &mut lines {
        for place in ["/row", "/head/row"] {
            line.pointer_mut(place).map(Value::take);
        }
    }
    lines
}

fn http(broker: &Broker, service: &Service, topic: &str, more: &str) -> Pawl {
    let more = format!(
        "event_id = \"header:ce_id\"\nhttp = {{ url = \"{}\", timeout = \"60s\" }}\n{more}",
        service.url()
    );
    Pawl::new(&support::settings(broker, topic, &support::unique("look"), &more))
}

fn order(n: usize) -> Out {
    Out::new(format!("ORD-{}", n % 12), format!("{n}")).header("ce_id", format!("e{n}"))
}

#[test]
fn keys_of_a_running_and_of_a_stopped_instance_are_listed_and_shown_alike() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "orders", 2);
    let service = Service::start(|_| Reply::status(200));
    let mut pawl = http(broker, &service, &topic, "");
    support::produce(broker, &topic, (0..60).map(order));
    pawl.start().wait_ready();
    service.wait("the calls", 60, DEADLINE, |call| call.succeeded());
    support::until("the commits", DEADLINE, || {
        (pawl.metric("pawl_records_applied_total") == Some(60.0)).then_some(())
    });

    let running = keys(&pawl, &["list", "--json"]);
    assert!(running.stderr.contains("12 keys in the instance at 127.0.0.1:"), "{running:?}");
    assert!(running.stderr.contains("which holds partitions 0, 1"), "{running:?}");
    let read = keys(&pawl, &["list", "--json", "--changelog"]);
    assert!(read.stderr.contains("12 keys in the changelog look-"), "{read:?}");
    assert!(read.stdout.lines().all(|line| !line.contains("\"row\":null")), "{read:?}");
    assert_eq!(lines(&running), lines(&read));
    assert!(lines(&running).iter().all(|line| line["recent_ids"] == 5), "{running:?}");
    let shown = keys(&pawl, &["show", "ORD-7"]);
    assert!(shown.stdout.contains("recent ids   5, the newest seen 2"), "{shown:?}");
    assert!(shown.stdout.contains("lane         idle\n"), "{shown:?}");
    let shown = lines(&keys(&pawl, &["show", "ORD-7", "--json"])).remove(0);

    let some = keys(&pawl, &["list", "--prefix", "ORD-1", "--limit", "2"]);
    assert_eq!(some.stdout.lines().count(), 2, "{some:?}");
    assert!(some.stderr.contains("there are more: raise --limit"), "{some:?}");
    assert_eq!(lines(&keys(&pawl, &["list", "--prefix", "ORD-1", "--json"])).len(), 3, "1, 10, 11");
    let one = keys(&pawl, &["list", "--partition", "1", "--json"]);
    assert!(lines(&one).iter().all(|line| line["partition"] == 1), "{one:?}");
    let unknown = keys(&pawl, &["show", "ORD-12"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("nothing is known of the key ORD-12 in the instance"), "{unknown:?}");

    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let stopped = keys(&pawl, &["list", "--json"]);
    assert!(stopped.stderr.contains("no instance answers at 127.0.0.1:"), "{stopped:?}");
    assert!(stopped.stderr.contains("reading the changelog"), "{stopped:?}");
    assert_eq!(lines(&stopped), lines(&running));
    assert_eq!(lines(&keys(&pawl, &["list", "--prefix", "ORD-1", "--limit", "2", "--json"])).len(), 2);
    let page = lines(&keys(&pawl, &["show", "ORD-7", "--json"])).remove(0);
    assert_eq!(
        (&page["head"], &page["within"]["watermark"]),
        (&shown["head"], &shown["within"]["watermark"])
    );
    assert_eq!(page["lane"], Value::Null, "nobody runs that could tell");
    assert_eq!(keys(&pawl, &["show", "ORD-12"]).code, 1);
}

#[test]
fn a_key_in_flight_and_one_that_waits_for_a_retry_show_it_while_their_instance_runs() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "orders", 1);
    let service = Service::start(|call| match call.key.as_str() {
        "HELD" => Reply::status(200).held(),
        "BUSY" => Reply::status(503),
        _ => Reply::status(200),
    });
    let mut pawl =
        http(broker, &service, &topic, "retry = { initial = \"10m\", max = \"10m\", jitter = 0.0 }");
    let record = |key: &str, n: usize| Out::new(key, "{}").header("ce_id", format!("{key}{n}"));
    support::produce(
        broker,
        &topic,
        [("OK", 0), ("HELD", 0), ("BUSY", 0), ("BUSY", 1)].map(|(key, n)| record(key, n)),
    );
    pawl.start().wait_ready();
    let lane = |key: &str| {
        let shown = keys(&pawl, &["show", key, "--json"]);
        (shown.code == 0).then(|| shown.json()["lane"].clone())
    };
    let held = support::until("the held call", DEADLINE, || {
        lane("HELD").filter(|lane| lane["doing"] == "in-flight")
    });
    assert_eq!((&held["offset"], &held["attempt"]), (&1.into(), &1.into()));
    let busy = support::until("the failed attempt", DEADLINE, || {
        lane("BUSY").filter(|lane| lane["doing"] == "parked" && lane["queued"] == 1)
    });
    assert_eq!((&busy["offset"], &busy["attempt"]), (&2.into(), &2.into()), "the attempt that is next");
    let text = keys(&pawl, &["show", "BUSY"]);
    let expected = "lane         waits for a retry: offset 2, attempt 2 is next; 1 record behind it\n";
    assert!(text.stdout.contains(expected), "{text:?}");
    let taken = "taken        offset 3, at or above the partition's watermark 1: ";
    assert!(text.stdout.contains(taken), "{text:?}");
    let parked = "parked       2 records; attempt 2 of the first is due ";
    assert!(text.stdout.contains(parked) && text.stdout.contains("service answered 503"), "{text:?}");
    let changelog = keys(&pawl, &["show", "BUSY", "--changelog"]);
    assert!(changelog.stdout.contains(parked), "whoever comes next knows it: {changelog:?}");
    let list = keys(&pawl, &["list", "--changelog"]);
    assert!(list.stdout.contains("key BUSY  taken 3  0 ids  no state  2 parked  row "), "{list:?}");
}

/// Topics of a handler that never ran, and settings for it.
fn handler(broker: &Broker, partitions: i32) -> (String, String) {
    let name = support::unique("planted");
    support::topic_with(broker, &format!("{name}-in"), partitions, &[]);
    support::topic_with(broker, &format!("{name}-changelog"), partitions, &[("cleanup.policy", "compact")]);
    let settings = format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\n[handler.{name}]\ntopic = \"{name}-in\"\n\
         forward = {{ topic = \"{name}-out\" }}\n[admin]\nlisten = \"off\"\n",
        broker.bootstrap()
    );
    let file = process::scratch("settings").join("pawl.toml");
    std::fs::write(&file, settings).expect("the scratch directory can be written");
    (format!("{name}-changelog"), file.to_str().expect("a path in UTF-8").to_owned())
}

fn stored(row: Row) -> Out {
    Out { key: Some(row.key.to_vec()), value: row.value.map(|value| value.to_vec()), ..Out::default() }
}

fn head(taken: i64, state: Option<&'static [u8]>) -> Head {
    let mut head = Head { taken: Offset(taken), state: state.map(Into::into), ..Head::default() };
    head.ids.push(IdHasher::new([1; 16]).hash(b"e1", None, 1_700_000_000_000), 64);
    head
}

#[test]
fn keys_that_are_not_text_and_records_without_a_key_are_shown_from_the_changelog() {
    let Some(broker) = support::broker() else { return };
    let (changelog, settings) = handler(broker, 1);
    let mut out = BytesMut::new();
    let rows = [
        head(7, Some(b"{\"paid\":true}")).row(Some(&b"ORD-1"[..]), &mut out),
        head(8, Some(b"\x00\xff")).row(Some(&b"\xff\x00"[..]), &mut out),
        head(9, None).row(None, &mut out),
        head(3, None).row(Some(&b"GONE"[..]), &mut out),
        head(12, None).row(Some(&b"ORD-1"[..]), &mut out),
        Head::tombstone(Some(&b"GONE"[..]).into(), &mut out),
        head(14, Some(b"{\"paid\":true}")).row(Some(&b"ORD-1"[..]), &mut out),
        PartitionRow::new("id".into(), 10, 0, 0, [0; 16]).row(&mut out),
    ];
    support::produce(broker, &changelog, rows.map(|row| stored(row).at(0)));
    let keys = |args: &[&str]| command(&[&["keys"], args, &["--config", &settings]].concat(), b"");

    let list = keys(&["list"]);
    let expected = "0  key ORD-1  taken 14  1 id  state 13 bytes  row 6\n\
                    0  key 0xff00  taken 8  1 id  state 2 bytes  row 1\n\
                    0  key (no key)  taken 9  1 id  no state  row 2\n";
    assert_eq!((list.code, list.stdout.as_str()), (0, expected), "{list:?}");
    let shown = keys(&["show", "ORD-1"]);
    assert!(shown.stdout.contains("state (13 bytes):\n{\n  \"paid\": true\n}\n"), "{shown:?}");
    let binary = keys(&["show", "--key-hex", "ff00", "--json"]).json();
    assert_eq!((&binary["key"]["hex"], &binary["state"]["hex"]), (&"ff00".into(), &"00ff".into()));
    let unkeyed = keys(&["show", "--no-key", "--json"]).json();
    assert_eq!((&unkeyed["key"], &unkeyed["head"]["taken"]), (&Value::Null, &9.into()));
    assert_eq!(keys(&["show", "GONE"]).code, 1, "its row was removed");
    assert_eq!(keys(&["show", "ORD-1", "--partition", "1"]).code, 2, "there is no such partition");
}

#[test]
fn a_key_that_a_producer_placed_elsewhere_is_found_where_it_is() {
    let Some(broker) = support::broker() else { return };
    let (changelog, settings) = handler(broker, 3);
    let expected = pawl::kafka::partitioner::java_partition(b"ORD-1", 3);
    let elsewhere = (expected + 1) % 3;
    let row = stored(head(5, None).row(Some(&b"ORD-1"[..]), &mut BytesMut::new()));
    support::produce(broker, &changelog, [row.at(elsewhere)]);
    let shown = command(&["keys", "show", "ORD-1", "--json", "--config", &settings], b"");
    assert_eq!(shown.json()["partition"], elsewhere, "{shown:?}");
    assert!(shown.stderr.contains(&format!("not in partition {expected}, where Java's")), "{shown:?}");

    let none = command(&["keys", "list", "--admin", "http://127.0.0.1:1", "--config", &settings], b"");
    assert_eq!(none.code, 4, "{none:?}");
    assert!(none.stderr.contains("--changelog reads the changelog instead"), "{none:?}");
}

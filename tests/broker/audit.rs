//! Auditing the books against a real broker: what agrees, and what was planted.

use std::time::Duration;

use bytes::BytesMut;
use pawl_actors::dead_letter::header;
use pawl_actors::ledger::{Head, PARTITION_KEY, PartitionRow, Row};
use pawl_actors::record::Offset;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::support::{self, Broker, Finished, Out, Pawl, Reply, Service, clients, command};

const DEADLINE: Duration = Duration::from_secs(90);

fn audit(pawl: &Pawl, args: &[&str]) -> Finished {
    let file = pawl.dir().join("pawl.toml");
    command(&[&["audit"], args, &["--config", file.to_str().expect("a path in UTF-8")]].concat(), b"")
}

/// The findings that are not ok, as `level check: text`.
fn told(pawl: &Pawl) -> Vec<String> {
    let finished = audit(pawl, &["--json"]);
    let report = finished.json();
    let findings: Vec<String> = report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|finding| finding["level"] != "ok")
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default();
            format!("{} {}: {}", text("level"), text("check"), text("finding"))
        })
        .collect();
    let wrong = findings.iter().any(|finding| finding.starts_with("error"));
    assert_eq!(finished.code, i32::from(wrong), "{finished:?}");
    findings
}

/// A sum over the partitions of a report.
fn sum(report: &Value, what: &str) -> u64 {
    let partitions = report["partitions"].as_array().expect("a list").iter();
    partitions.map(|one| one[what].as_u64().expect("a number")).sum()
}

#[track_caller]
fn assert_told(pawl: &Pawl, expected: &[&str]) {
    let found = told(pawl);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, part) in found.iter().zip(expected) {
        assert!(found.contains(part), "{part:?} is not in {found:?}");
    }
}

#[test]
fn books_agree_while_records_flow_after_a_kill_and_at_the_end() {
    let Some(broker) = support::broker() else { return };
    let (topic, group) = (support::topic(broker, "orders", 2), support::unique("audit"));
    let service = Service::start(|call| match call.key.as_str() {
        "BUSY-0" | "BUSY-1" => Reply::status(503),
        key if key.ends_with("13") => Reply::status(422),
        _ => Reply::status(200),
    });
    let more = format!(
        "event_id = \"header:ce_id\"\nhttp = {{ url = \"{}\" }}\nretry = {{ initial = \"10m\", max = \"10m\" }}",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &topic, &group, &more));
    let order = |n: usize| match n {
        // They wait, and the watermark goes on behind them.
        500 | 501 => Out::new(format!("BUSY-{}", n - 500), "{}"),
        n if n % 50 == 49 => Out { key: None, value: Some(b"{}".to_vec()), ..Out::default() },
        n => {
            let event = if n % 10 == 9 { n - 1 } else { n };
            Out::new(format!("ORD-{}", event % 97), "{}").header("ce_id", format!("e{event}"))
        }
    };
    support::produce(broker, &topic, (0..4_000).map(order));
    pawl.start().wait_ready();
    service.wait("some calls", 300, DEADLINE, |call| call.succeeded());
    let running = audit(&pawl, &["--json"]);
    assert_eq!(running.code, 0, "{running:?}");
    pawl.kill();
    let killed = audit(&pawl, &["--json"]);
    assert_eq!(killed.code, 0, "{killed:?}");
    assert!(sum(&killed.json(), "received") >= sum(&running.json(), "received"));

    support::produce(broker, &topic, (4_000..6_000).map(order));
    pawl.start();
    let received = || sum(&audit(&pawl, &["--json"]).json(), "received");
    support::until("all records", DEADLINE, || (received() == 6_000).then_some(()));
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let ended = audit(&pawl, &["--json"]);
    let report = ended.json();
    assert_eq!((ended.code, sum(&report, "counted")), (0, 6_000), "{ended:?}");
    let applied = service.count(|call| call.succeeded());
    assert!(sum(&report, "applied") <= applied as u64, "a call may be repeated, an effect is counted once");
    for what in ["duplicates", "dead_lettered"] {
        assert!(sum(&report, what) > 100, "{what}: {ended:?}");
    }
    assert_eq!((sum(&report, "parked"), sum(&report, "watermark")), (2, 6_000), "{ended:?}");
    let text = audit(&pawl, &[]);
    assert!(text.stdout.contains("ok: billing partition 0: "), "{text:?}");
    assert!(text.stdout.ends_with("the books agree\n"), "{text:?}");
    assert_eq!(audit(&pawl, &["--handler", "shipping"]).code, 2, "there is no such handler");
}

/// A handler that has worked through ten records of one partition, of which it rejected three.
struct Worked {
    broker: &'static Broker,
    topic: String,
    group: String,
    pawl: Pawl,
    /// Rejects records of the key `BAD`.
    _service: Service,
}

impl Worked {
    fn new(broker: &'static Broker) -> Worked {
        let (topic, group) = (support::topic(broker, "orders", 1), support::unique("audit"));
        let service = Service::start(|call| match call.key.as_str() {
            "BAD" => Reply::status(422),
            _ => Reply::status(200),
        });
        let more = format!("http = {{ url = \"{}\" }}", service.url());
        let mut pawl = Pawl::new(&support::settings(broker, &topic, &group, &more));
        let key = |n: usize| if n % 3 == 1 { "BAD" } else { "GOOD" };
        support::produce(broker, &topic, (0..10).map(|n| Out::new(key(n), "{}")));
        pawl.start();
        clients::wait_for_end(broker, &group, &topic, DEADLINE);
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
        let worked = Worked { broker, topic, group, pawl, _service: service };
        assert_told(&worked.pawl, &[]);
        worked
    }

    fn letters(&self) -> String {
        format!("{}-dlt", self.topic)
    }

    fn write_row(&self, row: Row) {
        let value = row.value.map(|value| value.to_vec());
        let out = Out { key: Some(row.key.to_vec()), value, ..Out::default() };
        support::produce(self.broker, &format!("{}-changelog", self.group), [out.at(0)]);
    }

    /// Writes the partition row again as `change` leaves it.
    fn change_row(&self, change: impl FnOnce(&mut PartitionRow)) {
        let rows = support::read_all(self.broker, &format!("{}-changelog", self.group));
        let stored = rows.iter().rfind(|row| row.key.as_deref() == Some(PARTITION_KEY)).expect("a row");
        let mut row = PartitionRow::decode(stored.value.as_deref().expect("a value")).expect("decodes");
        change(&mut row);
        self.write_row(row.row(&mut BytesMut::new()));
    }

    /// A letter as Pawl would write it.
    fn letter(&self, offset: i64) -> Out {
        Out::new("BAD", "{}")
            .at(0)
            .header(header::ORIGINAL_TOPIC, self.topic.as_bytes().to_vec())
            .header(header::ORIGINAL_PARTITION, 0i32.to_be_bytes().to_vec())
            .header(header::ORIGINAL_OFFSET, offset.to_be_bytes().to_vec())
            .header(header::ORIGINAL_CONSUMER_GROUP, self.group.as_bytes().to_vec())
    }
}

#[test]
fn books_that_were_written_by_hand_are_found() {
    let Some(broker) = support::broker() else { return };
    let worked = Worked::new(broker);
    worked.change_row(|row| row.books.applied += 1);
    assert_told(&worked.pawl, &["error books: the books do not balance: 10 received, 8 applied"]);
    worked.change_row(|row| row.books.received += 1);
    assert_told(&worked.pawl, &["error received: 11 received, but the input holds 10 records"]);
    let text = audit(&worked.pawl, &[]);
    assert!(text.stdout.contains("error: billing partition 0: 11 received"), "{text:?}");
    assert!(text.stdout.ends_with("the books do not agree, errors: 1, notes: 0\n"), "{text:?}");
    worked.change_row(|row| row.claim += 1);
    let found = told(&worked.pawl);
    assert!(found.iter().any(|finding| finding.starts_with("error claim: ")), "{found:?}");
    assert!(found.iter().any(|finding| finding.starts_with("error group: ")), "{found:?}");
}

#[test]
fn letters_that_were_added_or_removed_are_found() {
    let Some(broker) = support::broker() else { return };
    let worked = Worked::new(broker);
    support::produce(broker, &worked.letters(), [worked.letter(2)]);
    assert_told(&worked.pawl, &["error dead-letters: 3 dead-lettered, 4 letters in orders-"]);

    let worked = Worked::new(broker);
    // Two that no audit of this group counts: of another group, and of an original from elsewhere.
    let others = [
        worked.letter(2).header(header::ORIGINAL_CONSUMER_GROUP, "mail"),
        worked.letter(3).header(header::ORIGINAL_TOPIC, "other"),
    ];
    support::produce(broker, &worked.letters(), others);
    assert_told(
        &worked.pawl,
        &["note dead-letters: letters of this group besides: 1 whose original lies in another"],
    );
    support::produce(broker, &worked.letters(), [worked.letter(10)]);
    let beyond =
        "error dead-letters: 1 dead letters name originals that the ledger has not taken, the first at 10";
    assert_told(&worked.pawl, &[beyond, "1 whose original lies in another"]);

    let worked = Worked::new(broker);
    let first = support::read_all(broker, &worked.letters())[0].offset;
    clients::remove_below(broker, &worked.letters(), 0, first + 1);
    assert_told(&worked.pawl, &["note dead-letters: 3 dead-lettered, 2 letters in orders-"]);
}

#[test]
fn what_retention_removed_is_a_note_and_what_comes_later_is_no_matter() {
    let Some(broker) = support::broker() else { return };
    let worked = Worked::new(broker);
    support::produce(broker, &worked.topic, (0..5).map(|_| Out::new("GOOD", "{}")));
    assert_told(&worked.pawl, &[]);
    clients::remove_below(broker, &worked.topic, 0, 4);
    assert_told(
        &worked.pawl,
        &["note received: 10 received can be judged only in part: the input holds 6 records"],
    );
    worked.change_row(|row| (row.books.received, row.books.applied) = (11, 8));
    assert_told(&worked.pawl, &["error received: 11 received, but the input holds 6 records"]);
}

#[test]
fn offsets_that_somebody_moved_and_keys_beyond_the_end_are_found() {
    let Some(broker) = support::broker() else { return };
    let worked = Worked::new(broker);
    clients::commit(broker, &worked.group, &worked.topic, 0, 3);
    assert_told(&worked.pawl, &["note group: group offset 3 lies below the watermark 10"]);
    support::produce(broker, &worked.topic, [Out::new("GOOD", "{}"), Out::new("GOOD", "{}")]);
    clients::commit(broker, &worked.group, &worked.topic, 0, 12);
    assert_told(&worked.pawl, &["error group: group offset 12 lies above the watermark 10"]);
    clients::commit(broker, &worked.group, &worked.topic, 0, 10);
    assert_told(&worked.pawl, &[]);
    worked.write_row(
        Head { taken: Offset(99), ..Head::default() }.row(Some(&b"GOOD"[..]), &mut BytesMut::new()),
    );
    // A key's row counts once a partition row follows it, as in every epoch.
    assert_told(&worked.pawl, &[]);
    worked.change_row(|_| {});
    let expected = [
        "error received: 10 received, but",
        "error heads: the key GOOD has taken offset 99, but the input ends",
    ];
    assert_told(&worked.pawl, &expected);
}

#[test]
fn an_output_is_held_against_the_books_and_a_transaction_that_stays_open_is_told() {
    let Some(broker) = support::broker() else { return };
    let topic = |name| support::topic(broker, name, 1);
    let (input, output, group) = (topic("orders"), topic("copies"), support::unique("audit"));
    let mut pawl = Pawl::new(&format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\nrequest_timeout = \"2s\"\n[handler.copy]\ntopic = \"{input}\"\n\
         group = \"{group}\"\nforward = {{ topic = \"{output}\" }}\n",
        broker.bootstrap()
    ));
    let never = told(&pawl);
    assert!(never[0].contains("the handler never ran"), "{never:?}");
    support::produce(broker, &input, (0..20).map(|n| Out::new(format!("K{n}"), "{}")));
    pawl.start();
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let text = audit(&pawl, &[]);
    assert!(text.stdout.contains(&format!("ok: copy: 20 applied, 20 records in {output}\n")), "{text:?}");
    support::produce(broker, &output, [Out::new("K", "{}")]);
    assert_told(&pawl, &["note output: 20 applied, 21 records in copies-"]);

    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("transactional.id", support::unique("open"))
        .create()
        .expect("a producer");
    producer.init_transactions(DEADLINE).expect("the broker knows transactions");
    producer.begin_transaction().expect("initialised");
    producer
        .send(BaseRecord::<(), [u8]>::to(&input).payload(b"{}"))
        .map_err(|(error, _)| error)
        .expect("room");
    producer.flush(DEADLINE).expect("acknowledged");
    assert_told(&pawl, &["note transactions: a transaction is open in orders-", "note output: "]);
    producer.abort_transaction(DEADLINE).expect("the broker aborts");
    assert_told(&pawl, &["note output: "]);
}

#[test]
fn what_an_operator_skipped_and_what_was_never_read_is_no_disagreement() {
    let Some(broker) = support::broker() else { return };
    let mut worked = Worked::new(broker);
    let more = |count| support::produce(broker, &worked.topic, (0..count).map(|_| Out::new("BAD", "{}")));
    more(5);
    clients::commit(broker, &worked.group, &worked.topic, 0, 13);
    worked.pawl.start();
    clients::wait_for_end(broker, &worked.group, &worked.topic, DEADLINE);
    assert_eq!(worked.pawl.terminate(), 0, "{}", worked.pawl.log());
    let skipped = "note received: 12 received can be judged only in part: the input holds 15 records";
    assert_told(&worked.pawl, &[skipped]);

    more(5);
    clients::remove_below(broker, &worked.topic, 0, 18);
    worked.pawl.start();
    clients::wait_for_end(broker, &worked.group, &worked.topic, DEADLINE);
    assert_eq!(worked.pawl.terminate(), 0, "{}", worked.pawl.log());
    let removed = "note received: 14 received can be judged only in part: the input holds 2 records";
    assert_told(&worked.pawl, &[removed]);
}

#[test]
fn at_least_once_books_agree_through_a_kill() {
    let Some(broker) = support::broker() else { return };
    let (topic, group) = (support::topic(broker, "orders", 1), support::unique("audit"));
    let service = Service::start(|call| Reply::status(if call.offset % 9 == 0 { 422 } else { 200 }));
    let more = format!(
        "guarantee = \"at-least-once\"\nevent_id = \"header:ce_id\"\nhttp = {{ url = \"{}\" }}\n\
         dead_letter = {{ then = \"continue\" }}",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &topic, &group, &more));
    let order = |n: usize| Out::new(format!("ORD-{}", n % 50), "{}").header("ce_id", format!("e{n}"));
    support::produce(broker, &topic, (0..2_000).map(order));
    pawl.start();
    service.wait("some calls", 500, DEADLINE, |call| call.succeeded());
    let running = audit(&pawl, &[]);
    assert_eq!(running.code, 0, "{running:?}");
    pawl.kill();
    let killed = audit(&pawl, &[]);
    assert_eq!(killed.code, 0, "{killed:?}");
    pawl.start();
    clients::wait_for_end(broker, &group, &topic, DEADLINE);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let ended = audit(&pawl, &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
}

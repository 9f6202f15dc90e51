//! Dead letters between Pawl and Spring Kafka itself: `tests/spring/Letters.java` is a small service with
//! its listeners, its error handler and its recoverer.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::service::Received;
use crate::support::{self, Broker, Out, Pawl, Reply, Service, command, java};

const DEADLINE: Duration = Duration::from_secs(60);
const SPRING_KAFKA: &str = "4.1.2";
/// What Spring wraps whatever a listener throws in.
const WRAPPER: &str = "org.springframework.kafka.listener.ListenerExecutionFailedException";
const THROWN: &str = "java.lang.IllegalStateException";
const UNREADABLE: &str = "org.springframework.kafka.support.serializer.DeserializationException";

/// Runs the service until it is done, and returns what it prints: one JSON object a line. `None`, said
/// aloud, where Java or Maven is missing.
///
/// # Panics
/// When it fails.
fn spring(args: &[&str]) -> Option<Vec<Value>> {
    let libs = java::jars("spring/pom.xml", "spring-kafka", SPRING_KAFKA)?;
    let mut command = java::command(&libs, "-Xmx256m");
    // Java compiles a program of one file by itself. This one ends before optimised code would pay.
    command.arg("-XX:TieredStopAtLevel=1");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spring/Letters.java")).args(args);
    let output = java::run(command, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    Some(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

#[test]
fn a_spring_listener_gets_every_header_of_pawls_letters_with_its_type() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("billing"));
    let service = Service::start(|call: &Received| match call.key.as_str() {
        "refused" => Reply::status(422),
        "busy" => Reply::status(503),
        _ => Reply::status(200),
    });
    let more = format!(
        "http = {{ url = \"{}\" }}\nretry = {{ attempts = 3, initial = \"10ms\", max = \"10ms\" }}",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    // Partition and offsets are not 0: a number that was not read must not look like one that was.
    let at = |out: Out, timestamp| Out { timestamp: Some(timestamp), ..out.at(1) };
    let records = [
        at(Out::new("plain", "1"), 1_700_000_000_000),
        at(Out::new("refused", "2"), 1_700_000_000_001),
        at(Out::new("busy", "3"), 1_700_000_000_002),
    ];
    support::produce(broker, &input, records);
    pawl.start();
    let letters = format!("{input}-dlt");
    support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 2);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());

    let Some(mut read) = spring(&["read", broker.bootstrap(), &letters, "2"]) else { return };
    // Letters of different keys have no order among them.
    read.sort_by_key(|letter| letter["offset"].as_i64());
    let expected = [
        json!({
            "key": "refused", "value": "2",
            "topic": input, "partition": 1, "offset": 1,
            "timestamp": 1_700_000_000_001_i64, "timestamp_type": "CreateTime", "group": group,
            "exception": "pawl.Rejected", "cause": "pawl.Rejected",
            "message": "service answered 422 \"answer 422\"", "stacktrace": "answer 422", "attempt": 1,
        }),
        json!({
            "key": "busy", "value": "3",
            "topic": input, "partition": 1, "offset": 2,
            "timestamp": 1_700_000_000_002_i64, "timestamp_type": "CreateTime", "group": group,
            "exception": "pawl.Exhausted", "cause": "pawl.Unavailable",
            "message": "service answered 503 \"answer 503\"", "stacktrace": "answer 503", "attempt": 3,
        }),
    ];
    assert_eq!(read, expected);
}

/// Lets Spring's error handler make letters of what a service may fail at: text, no key, a tombstone, bytes
/// with a header that comes twice, and a key that its deserializer refuses. Returns topic and group.
fn recovered(broker: &Broker, letters: &str) -> Option<(String, String)> {
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("spring"));
    let records = [
        Out::new("ORD-1", "{\"n\":1}"),
        Out { key: None, ..Out::new("", "text") },
        Out { value: None, ..Out::new("gone", "") },
        Out::new(b"\xff\x00".to_vec(), b"\x00\xfe".to_vec()).header("h", "1").header("h", "2"),
        Out::new("unreadable", "text"),
    ];
    let count = records.len().to_string();
    let numbered = (0..).zip(records);
    let at = |(n, out): (i64, Out)| Out { timestamp: Some(1_700_000_000_000 + n), ..out.at(1) };
    support::produce(broker, &input, numbered.map(at));
    spring(&["recover", broker.bootstrap(), &input, letters, &group, &count])?;
    Some((input, group))
}

fn dlt(broker: &Broker, letters: &str, args: &[&str]) -> String {
    let done = command(&[&["dlt", args[0], "-b", broker.bootstrap(), letters], &args[1..]].concat(), b"");
    assert_eq!(done.code, 0, "{done:?}");
    done.stdout
}

#[test]
fn letters_of_springs_recoverer_are_listed_and_shown() {
    let Some(broker) = support::broker() else { return };
    let letters = support::topic(broker, "letters", 2);
    let Some((input, group)) = recovered(broker, &letters) else { return };

    // What Spring wraps everything in says little; what was thrown is the cause.
    let thrown = format!("{WRAPPER} at attempt 3, caused by {THROWN}  from {input} 1");
    let expected = [
        format!("key ORD-1  {thrown} 0 by {group}  Listener failed; order refused"),
        format!("key (no key)  {thrown} 1 by {group}  Listener failed; order refused"),
        format!("key gone  {thrown} 2 by {group}  Listener failed; order refused"),
        format!("key 0xff00  {thrown} 3 by {group}  Listener failed; order refused"),
        format!(
            "key unreadable  {UNREADABLE} at attempt 1  from {input} 1 4 by {group}  failed to deserialize"
        ),
    ];
    let list = dlt(broker, &letters, &["list", "--group", &group]);
    let after_time = |line: &'_ str| line.split_once("Z  ").map(|(_, rest)| rest.to_owned());
    assert_eq!(list.lines().filter_map(after_time).collect::<Vec<_>>(), expected, "{list}");

    let page = dlt(broker, &letters, &["show", "1", "3"]);
    for part in [
        format!("original     {input} 1 3, 2023-11-14T22:13:20.003Z CreateTime\n"),
        format!("group        {group}\nwhy          {WRAPPER} at attempt 3\ncause        {THROWN}\n"),
        "message      Listener failed; order refused\nkey          0xff00\n".into(),
        format!("header       h: 1\nheader       h: 2\n\ndetail:\n  {WRAPPER}: Listener failed\n      at "),
        "\n  Caused by: java.util.NoSuchElementException: no such customer\n      ... ".into(),
        "\nvalue (2 bytes):\n00000000  00 fe\n".into(),
    ] {
        assert!(page.contains(&part), "{part:?} is not in\n{page}");
    }
    assert!(dlt(broker, &letters, &["show", "1", "1"]).contains("\nkey          none\n"));
    assert!(dlt(broker, &letters, &["show", "1", "2"]).ends_with("\nvalue: none (a tombstone)\n"));

    assert_json(broker, &letters, &input, &group);
}

#[test]
fn letters_of_springs_recoverer_are_replayed_through_pawl_once() {
    let Some(broker) = support::broker() else { return };
    let letters = support::topic(broker, "letters", 2);
    let Some((input, spring_group)) = recovered(broker, &letters) else { return };
    let service = Service::start(|_: &Received| Reply::status(200));
    let more = format!(
        "start = \"latest\"\nhttp = {{ url = \"{}\" }}\ndead_letter = {{ topic = \"{letters}\" }}",
        service.url()
    );
    let group = support::unique("heir");
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    pawl.start();
    pawl.wait_ready();
    let config = pawl.dir().join("pawl.toml");
    let replay = |filter: &[&str]| {
        let config = config.to_str().expect("a path in UTF-8");
        command(&[&["dlt", "replay", "--config", config], filter].concat(), b"")
    };
    let own = replay(&["--all"]);
    assert!(own.code == 0 && own.stdout.starts_with("letters: 0 took effect"), "{own:?}");
    let theirs = replay(&["--group", &spring_group]);
    let told = "letters: 4 took effect, 0 were duplicates, 1 failed again and stay, 0 were not meant";
    assert!(theirs.code == 1 && theirs.stdout.starts_with(told), "a record without a key stays: {theirs:?}");
    let mut calls: Vec<_> = service
        .calls()
        .into_iter()
        .map(|call| (call.received.partition, call.received.offset, call.received.body))
        .collect();
    calls.sort_by_key(|call| call.1);
    let call = |offset, body: &'static [u8]| (1, offset, bytes::Bytes::from_static(body));
    assert_eq!(calls, [call(0, b"{\"n\":1}"), call(2, b""), call(3, b"\x00\xfe"), call(4, b"text")]);
    let again = replay(&["--group", &spring_group]);
    assert!(
        again.stdout.starts_with("letters: 0 took effect, 0 were duplicates, 1 failed again"),
        "{again:?}"
    );
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();
}

/// The same letters, as scripts read them.
fn assert_json(broker: &Broker, letters: &str, input: &str, group: &str) {
    let header = |value: &str| json!({ "name": "h", "value": value });
    let expected = [
        (json!("ORD-1"), json!("{\"n\":1}"), json!([]), 3),
        (Value::Null, json!("text"), json!([]), 3),
        (json!("gone"), Value::Null, json!([]), 3),
        (json!({ "hex": "ff00" }), json!({ "hex": "00fe" }), json!([header("1"), header("2")]), 3),
        (json!("unreadable"), json!("text"), json!([]), 1),
    ];
    let list = dlt(broker, letters, &["list", "--json"]);
    assert_eq!(list.lines().count(), expected.len(), "{list}");
    for (n, (line, (key, value, headers, attempt))) in std::iter::zip(list.lines(), expected).enumerate() {
        assert_eq!(dlt(broker, letters, &["show", "1", &n.to_string(), "--json"]).trim_end(), line);
        let mut letter: Value = serde_json::from_str(line).expect("JSON");
        let detail = letter["detail"].take();
        let detail = detail.as_str().expect("a stack trace");
        let (code, cause, message) = match attempt {
            1 => (UNREADABLE, json!(UNREADABLE), "failed to deserialize"),
            _ => (WRAPPER, json!(THROWN), "Listener failed; order refused"),
        };
        assert!(detail.starts_with(&format!("{code}: ")) && detail.contains("\n\tat "), "{detail}");
        let expected = json!({
            "partition": 1, "offset": n, "timestamp": letter["timestamp"],
            "input_offset": null, "quarantine": null, "number": null,
            "original": {
                "topic": input, "partition": 1, "offset": n,
                "timestamp": 1_700_000_000_000_usize + n, "timestamp_type": "CreateTime",
            },
            "group": group, "code": code, "cause": cause, "message": message, "detail": null,
            "attempt": attempt, "disposition": null, "own_code": null, "key": key, "value": value, "headers": headers,
        });
        assert_eq!(letter, expected);
    }
}

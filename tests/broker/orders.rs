//! Thousands of orders' events through kills: at an HTTP service in order and never twice, and the
//! same through `forward`, as an independent reader of committed records sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pawl_actors::dead_letter::header;

use crate::support::orders::{self, Event};
use crate::support::service::{self, Received};
use crate::support::{self, Broker, Call, Pawl, Reply, Seen, Service, command};

const PARTITIONS: i32 = 4;
const DEADLINE: Duration = Duration::from_secs(120);

/// Publishes with Pawl's own command, as a newcomer would.
fn publish(broker: &Broker, topic: &str, events: &[Event]) {
    let lines: String = events.iter().map(|event| format!("{}\n", event.line)).collect();
    let places = ["--key", "json:/orderId", "--event-id", "json:/eventId", "--type", "json:/type"];
    let to = ["publish", "-b", broker.bootstrap(), "--topic", topic, "--json"];
    let done = command(&[&to[..], &places].concat(), lines.as_bytes());
    assert_eq!((done.code, done.json()["acked"].as_u64()), (0, Some(events.len() as u64)), "{done:?}");
}

/// The three orders that the service never takes.
fn refused(events: &[Event]) -> BTreeSet<String> {
    let orders: Vec<&str> = orders::by_order(events).into_keys().collect();
    [orders[5], orders[orders.len() / 2], orders[orders.len() - 9]].map(str::to_owned).into()
}

#[test]
fn orders_reach_the_service_in_order_and_never_twice_through_kills_and_a_lost_store() {
    let Some(broker) = support::broker() else { return };
    let events = orders::events();
    let sent = orders::with_repeats(&events);
    let refused = refused(&events);
    let input = support::topic(broker, "orders", PARTITIONS);
    publish(broker, &input, &sent);

    let never = refused.clone();
    let service = Service::start(move |call: &Received| {
        let status = if never.contains(&call.key) {
            422
        } else if service::unlucky(call, 10) {
            503
        } else {
            200
        };
        Reply::status(status).after(Duration::from_millis(1))
    });
    let more = format!(
        "event_id = \"header:ce_id\"\nhttp = {{ url = \"{}\", max_in_flight = 64 }}\n\
         retry = {{ attempts = 8, initial = \"20ms\", max = \"200ms\" }}\ndead_letter = {{ then = \"continue\" }}\n",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("billing"), &more));
    pawl.start().wait_ready();
    for kill in 1..=3 {
        service.wait("calls before a kill", kill * sent.len() / 4, DEADLINE, |_| true);
        pawl.kill();
        if kill == 2 {
            pawl.forget_store();
        }
        pawl.start();
    }
    let letters = format!("{input}-dlt");
    let taken: BTreeSet<&str> =
        sent.iter().filter(|event| !refused.contains(&event.order)).map(|event| event.id.as_str()).collect();
    support::until("the success of every event", DEADLINE, || {
        let calls = service.calls();
        let succeeded: BTreeSet<&str> = calls
            .iter()
            .filter(|call| call.succeeded())
            .map(|call| call.received.event_id.as_str())
            .collect();
        (succeeded == taken).then_some(())
    });
    let expected: Vec<Seen> = support::read_all(broker, &input)
        .into_iter()
        .filter(|record| refused.contains(std::str::from_utf8(record.key.as_deref().unwrap()).unwrap()))
        .collect();
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() >= expected.len());
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();

    check_calls(&service.calls(), &events, &refused);
    assert_eq!(support::read_all(broker, &letters).len(), dead.len(), "each letter once, over all kills");
    check_letters(&dead, &expected, &input);
}

/// Every order's events begin in order, one at a time; none succeeds twice but across a kill.
fn check_calls(calls: &[Call], events: &[Event], refused: &BTreeSet<String>) {
    let mut lanes: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        lanes.entry(&call.received.key).or_default().push(call);
    }
    let orders = orders::by_order(events);
    assert_eq!(lanes.len(), orders.len());
    for (order, lane) in lanes {
        let ids = &orders[order];
        let place = |call: &Call| {
            let found = ids.iter().position(|id| *id == call.received.event_id);
            found.unwrap_or_else(|| panic!("{order} has no event {}", call.received.event_id))
        };
        assert_eq!((place(lane[0]), lane[0].received.attempt), (0, 1), "{order} begins with its first event");
        let mut made: BTreeMap<i64, u32> = BTreeMap::new();
        for call in &lane {
            // After a kill an attempt may be made again, but none is left out.
            let latest = made.entry(call.received.offset).or_default();
            assert!((1..=*latest + 1).contains(&call.received.attempt), "{latest} were made: {call:?}");
            *latest = call.received.attempt.max(*latest);
        }
        for pair in lane.windows(2) {
            check_pair(pair[0], pair[1], [place(pair[0]), place(pair[1])], refused.contains(order));
        }
        let end = lane.last().expect("a lane has calls");
        // A refused event that its producer repeats is called again, so those may end with any.
        assert!(
            place(end) == ids.len() - 1 || refused.contains(order),
            "{order} ends with its last: {end:?}"
        );
    }
    check_repeats(calls, refused);
}

/// Two calls of one order, of which one began right after the other.
fn check_pair(first: &Call, next: &Call, [at, then]: [usize; 2], refused: bool) {
    let text = || format!("\n{first:?}\n{next:?}");
    if next.received.claim != first.received.claim {
        // A kill lies between them: what was not committed comes again.
        assert!(next.received.claim > first.received.claim, "a dead instance calls{}", text());
        assert!(refused || then <= at + 1, "an event was passed over{}", text());
        return;
    }
    assert!(first.end < next.begin, "two events of an order at once{}", text());
    if next.received.offset == first.received.offset {
        assert_eq!(first.status, 503, "only what may heal is tried again{}", text());
        assert_eq!(next.received.attempt, first.received.attempt + 1, "{}", text());
    } else if refused {
        // What was never applied is no duplicate when the producer repeats it.
        assert!(next.received.offset > first.received.offset, "{}", text());
    } else {
        assert!(first.succeeded(), "an event began before the one before it was done{}", text());
        assert_eq!(then, at + 1, "{}", text());
    }
}

/// An event succeeds once under one claim, and always from the same record, with the same key.
fn check_repeats(calls: &[Call], refused: &BTreeSet<String>) {
    let mut seen: BTreeMap<&str, (&str, i64)> = BTreeMap::new();
    let mut succeeded = BTreeSet::new();
    for call in calls.iter().filter(|call| !refused.contains(&call.received.key)) {
        let Received { idempotency_key, event_id, offset, claim, .. } = &call.received;
        let known = *seen.entry(event_id).or_insert((idempotency_key, *offset));
        assert_eq!(known, (idempotency_key.as_str(), *offset), "a repeat of a producer was called: {call:?}");
        if call.succeeded() {
            assert!(
                succeeded.insert((event_id, claim)),
                "{event_id} succeeded twice without a kill: {call:?}"
            );
        }
    }
}

/// The letters are the refused orders' records, byte for byte, and say where these lie.
fn check_letters(letters: &[Seen], expected: &[Seen], input: &str) {
    let place = |letter: &Seen| {
        let bytes =
            |name: &str| letter.header(name).unwrap_or_else(|| panic!("no {name}: {letter:?}")).to_vec();
        let partition = i32::from_be_bytes(bytes(header::ORIGINAL_PARTITION).try_into().unwrap());
        (partition, i64::from_be_bytes(bytes(header::ORIGINAL_OFFSET).try_into().unwrap()))
    };
    let mut by_place: BTreeMap<(i32, i64), &Seen> =
        letters.iter().map(|letter| (place(letter), letter)).collect();
    assert_eq!(by_place.len(), expected.len());
    for record in expected {
        let letter = by_place.remove(&(record.partition, record.offset)).expect("a letter for each record");
        assert_eq!(
            (&letter.key, &letter.value, letter.partition),
            (&record.key, &record.value, record.partition)
        );
        assert_eq!(
            letter.headers[..record.headers.len()],
            record.headers,
            "its own headers come first, as they were"
        );
        assert_eq!(letter.header(header::ORIGINAL_TOPIC), Some(input.as_bytes()));
        let timestamp = record.timestamp.expect("Kafka sets one").to_be_bytes();
        assert_eq!(letter.header(header::ORIGINAL_TIMESTAMP), Some(&timestamp[..]));
        assert_eq!(letter.header(header::ORIGINAL_TIMESTAMP_TYPE), Some(&b"CreateTime"[..]));
        assert_eq!(letter.header(header::EXCEPTION_FQCN), Some(&b"pawl.Rejected"[..]));
        assert_eq!(letter.header(header::EXCEPTION_CAUSE_FQCN), Some(&b"pawl.Rejected"[..]));
        assert_eq!(
            letter.header(header::EXCEPTION_MESSAGE),
            Some(&b"service answered 422 \"answer 422\""[..])
        );
        assert_eq!(letter.header(header::EXCEPTION_STACKTRACE), Some(&b"answer 422"[..]));
        assert_eq!(letter.header(header::DELIVERY_ATTEMPT), Some(&1i32.to_be_bytes()[..]));
        assert_eq!(letter.header(header::DISPOSITION), Some(&b"poison"[..]));
        assert!(letter.header(header::ORIGINAL_CONSUMER_GROUP).is_some());
    }
    for pair in letters.windows(2).filter(|pair| pair[0].key == pair[1].key) {
        assert!(place(&pair[0]) < place(&pair[1]), "a key's letters lie in order");
    }
}

#[test]
fn orders_are_forwarded_exactly_once_and_in_order_through_kills_and_a_lost_store() {
    let Some(broker) = support::broker() else { return };
    let events = orders::events();
    let sent = orders::with_repeats(&events);
    let input = support::topic(broker, "orders", PARTITIONS);
    let output = support::topic(broker, "billed", PARTITIONS);
    publish(broker, &input, &sent);
    // Small epochs, or all would be done before the first kill.
    let more = format!(
        "event_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\ncommit_interval = \"50ms\"\n\
         intake = {{ max_records = 20 }}\n"
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("billing"), &more));
    let mut before = 0;
    for kill in 1..=3 {
        pawl.start();
        support::until("records between two kills", DEADLINE, || {
            (pawl.metric("pawl_records_applied_total")? >= 300.0).then_some(())
        });
        pawl.kill();
        if kill == 2 {
            pawl.forget_store();
        }
        let written = support::read_all(broker, &output).len();
        assert!(before < written && written < events.len(), "killed on the way: {before}, then {written}");
        before = written;
    }
    pawl.start();
    let seen = support::read_until(broker, &output, DEADLINE, |seen| seen.len() >= events.len());
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();
    assert_eq!(support::read_all(broker, &output).len(), events.len(), "each event once");
    check_output(seen.iter().map(|record| (record.partition, record.text().to_owned())), &events);

    let Some(lines) = java_reads(broker, &output, events.len()) else { return };
    check_output(lines.into_iter(), &events);
}

#[test]
fn at_least_once_loses_nothing_and_keeps_order_through_a_kill() {
    let Some(broker) = support::broker() else { return };
    let events = orders::events();
    let input = support::topic(broker, "orders", PARTITIONS);
    let (output, group) = (support::topic(broker, "billed", PARTITIONS), support::unique("billing"));
    publish(broker, &input, &events);
    let more = format!(
        "guarantee = \"at-least-once\"\nevent_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\n\
         commit_interval = \"50ms\"\nintake = {{ max_records = 20 }}\n"
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    pawl.start();
    support::until("records before the kill", DEADLINE, || {
        (pawl.metric("pawl_records_applied_total")? >= 300.0).then_some(())
    });
    pawl.kill();
    let before = support::read_all(broker, &output).len();
    assert!(before < events.len(), "killed on the way: {before}");
    pawl.start();
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();
    let seen = support::read_all(broker, &output);
    // What was written but not committed comes again behind it, from where the offset stood.
    let mut known = BTreeSet::new();
    let once = seen.iter().filter(|record| known.insert(record.text().to_owned()));
    check_output(once.map(|record| (record.partition, record.text().to_owned())), &events);
}

/// What Kafka's own console consumer, set to read committed records, prints: partition and value.
fn java_reads(broker: &Broker, topic: &str, count: usize) -> Option<Vec<(i32, String)>> {
    let count = count.to_string();
    let flags = [
        ["--bootstrap-server", broker.bootstrap()],
        ["--topic", topic],
        ["--isolation-level", "read_committed"],
        ["--max-messages", &count],
        ["--timeout-ms", "60000"],
        ["--formatter-property", "print.partition=true"],
    ];
    let flags = [&flags.concat()[..], &["--from-beginning"]].concat();
    let output = broker.java_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &flags, b"")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let line = |line: &str| {
        let (partition, value) = line.split_once('\t').expect("partition and value");
        let partition = partition.trim_start_matches("Partition:").parse().expect("a partition's number");
        (partition, value.to_owned())
    };
    Some(text.lines().map(line).collect())
}

/// Each event once, each order's in its order, in one partition.
fn check_output(lines: impl Iterator<Item = (i32, String)>, events: &[Event]) {
    let ids: BTreeMap<&str, &Event> = events.iter().map(|event| (event.line.as_str(), event)).collect();
    let mut orders: BTreeMap<&str, (i32, Vec<&str>)> = BTreeMap::new();
    for (partition, line) in lines {
        let event = ids.get(line.as_str()).unwrap_or_else(|| panic!("not published: {line}"));
        let (at, seen) = orders.entry(&event.order).or_insert((partition, Vec::new()));
        assert_eq!(*at, partition, "an order stays in its partition");
        seen.push(&event.id);
    }
    let seen: BTreeMap<&str, Vec<&str>> = orders.into_iter().map(|(order, (_, ids))| (order, ids)).collect();
    assert_eq!(seen, orders::by_order(events));
}

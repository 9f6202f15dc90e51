//! Retries: finite, at the service's own pace, and nobody's business but the failing key's.

use std::collections::BTreeMap;
use std::time::Duration;

use pawl_actors::dead_letter::header;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::service::Received;
use crate::support::{self, Broker, Call, Out, Pawl, Reply, Service};

const DEADLINE: Duration = Duration::from_secs(60);

/// A handler that posts to the service, with this `retry` and this much more of its table.
fn posting(broker: &Broker, input: &str, group: &str, service: &Service, retry: &str, more: &str) -> Pawl {
    let more =
        format!("http = {{ url = \"{}\", timeout = \"500ms\" }}\nretry = {retry}\n{more}\n", service.url());
    Pawl::new(&support::settings(broker, input, group, &more))
}

fn attempts(service: &Service, key: &str) -> Vec<(u32, u16)> {
    let calls = service.calls();
    let of_key = calls.iter().filter(|call| call.received.key == key);
    of_key.map(|call| (call.received.attempt, call.status)).collect()
}

fn waits_for_nothing(call: &Call) -> bool {
    call.received.key != "stuck" && call.succeeded()
}

#[test]
fn a_key_that_retries_delays_no_other_and_goes_on_with_its_attempts_after_a_kill() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let service =
        Service::start(|call: &Received| Reply::status(if call.key == "stuck" { 503 } else { 200 }));
    let retry = "{ attempts = 1000, initial = \"50ms\", max = \"50ms\" }";
    let mut pawl = posting(broker, &input, &group, &service, retry, "");
    // The stuck key is first in the partition, and has followers that must wait for it.
    let stuck = (0..3).map(|n| Out::new("stuck", format!("stuck {n}")));
    let others = (0..2_000).map(|n| Out::new(format!("ORD-{}", n % 100), format!("{n}")));
    support::produce(broker, &input, stuck.chain(others));

    pawl.start();
    service.wait("the others' records", 2_000, DEADLINE, waits_for_nothing);
    service.wait("some attempts", 3, DEADLINE, |call| call.received.key == "stuck");
    let committed = || support::clients::committed(broker, &group, &input)[&0];
    support::until("the offset behind what waits", DEADLINE, || (committed() == 2_003).then_some(()));
    assert_eq!(pawl.metric("pawl_records_applied_total"), Some(2_000.0));
    assert_eq!(pawl.metric("pawl_parked_records"), Some(3.0));

    // The stuck key goes on where it was, and nothing is even delivered again.
    pawl.kill();
    let killed = attempts(&service, "stuck");
    pawl.start();
    let goes_on = || (attempts(&service, "stuck").len() > killed.len() + 2).then_some(());
    support::until("attempts after the kill", DEADLINE, goes_on);
    assert_eq!(service.count(waits_for_nothing), 2_000, "nothing is applied again");
    assert_eq!(pawl.metric("pawl_redelivered_total"), Some(0.0));

    service.script(|_| Reply::status(200));
    let empty = || (pawl.metric("pawl_parked_records") == Some(0.0)).then_some(());
    support::until("the end of the waiting", DEADLINE, empty);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();
    let calls = service.calls();
    let stuck: Vec<&Call> = calls.iter().filter(|call| call.received.key == "stuck").collect();
    let done: Vec<String> = stuck
        .iter()
        .filter(|call| call.succeeded())
        .map(|call| String::from_utf8_lossy(&call.received.body).into_owned())
        .collect();
    assert_eq!(done, ["stuck 0", "stuck 1", "stuck 2"]);
    let first: Vec<u32> = stuck
        .iter()
        .filter(|call| call.received.body == b"stuck 0"[..])
        .map(|call| call.received.attempt)
        .collect();
    assert_eq!(first[0], 1);
    // Attempts whose ends were not committed when Pawl was killed are made again under their numbers.
    let jumps: Vec<&[u32]> = first.windows(2).filter(|two| two[1] != two[0] + 1).collect();
    assert!(jumps.len() <= 1 && jumps.iter().all(|two| two[1] <= two[0] && two[1] > 1), "{first:?}");
}

/// Ten keys wait 10 s before each retry, while their partitions go from one instance to the other: each
/// of both is killed or ended five times, at points that a printed seed decides.
#[test]
fn a_back_off_outlives_restarts_and_takeovers_and_no_attempt_is_early_repeated_or_left_out() {
    const BACK_OFF: Duration = Duration::from_secs(10);
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("billing"));
    let service = Service::start(|call: &Received| Reply::status(if call.attempt < 3 { 503 } else { 200 }));
    let retry = "{ attempts = 4, initial = \"10s\", max = \"10s\", multiplier = 1.0, jitter = 0.0 }";
    let mut instances = ["one", "two"].map(|name| {
        // With it, attempts would be given back: nobody ever answers well before a third one.
        let without_breaker = "breaker = { keys = 0 }";
        let mut pawl = posting(broker, &input, &group, &service, retry, without_breaker);
        pawl.set_env(&[("PAWL__INSTANCE", name)]);
        pawl
    });
    support::produce(broker, &input, (0..10).map(|n| Out::new(format!("K{n}"), "first")));
    support::produce(broker, &input, (0..10).map(|n| Out::new(format!("K{n}"), "second")));
    instances[0].start();
    service.wait("the first attempts", 10, DEADLINE, |call| call.received.attempt == 1);

    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    for round in 0..10 {
        std::thread::sleep(Duration::from_millis(chance.random_range(100..2_500)));
        let (now, next) = (round % 2, (round + 1) % 2);
        instances[next].start();
        if chance.random_bool(0.5) {
            instances[now].kill();
        } else {
            assert_eq!(instances[now].terminate(), 0, "{}", instances[now].log());
        }
    }
    service.wait("all effects", 20, Duration::from_secs(120), Call::succeeded);
    let empty = || (instances[0].metric("pawl_parked_records") == Some(0.0)).then_some(());
    support::until("the end of the waiting", DEADLINE, empty);
    assert_eq!(instances[0].terminate(), 0, "{}", instances[0].log());
    instances[0].audit();

    let calls = service.calls();
    for (key, body) in (0..10).flat_map(|n| [(n, "first"), (n, "second")]) {
        let of_record =
            |call: &&Call| call.received.key == format!("K{key}") && call.received.body == *body.as_bytes();
        let made: Vec<&Call> = calls.iter().filter(of_record).collect();
        let attempts: Vec<u32> = made.iter().map(|call| call.received.attempt).collect();
        assert_eq!((attempts[0], attempts[attempts.len() - 1]), (1, 3), "{attempts:?}");
        for two in made.windows(2) {
            let (one, other) = (two[0].received.attempt, two[1].received.attempt);
            // The same one again: its end was not committed before a kill. The service does not know.
            assert!(other == one || other == one + 1, "{attempts:?}");
            let (ended, pause) = (two[0].ended, two[0].ended.map(|ended| two[1].began - ended));
            let early =
                other > one && pause.is_some_and(|pause| pause + Duration::from_millis(20) < BACK_OFF);
            assert!(!early, "attempt {other} of K{key} {body} began {pause:?} after {ended:?}");
        }
    }
}

#[test]
fn attempts_are_finite_and_the_letter_tells_what_the_last_one_said() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let service =
        Service::start(|call: &Received| Reply::status(if call.body == b"bad"[..] { 503 } else { 200 }));
    let retry = "{ attempts = 3, initial = \"10ms\", max = \"20ms\" }";
    let letters = support::topic(broker, "letters", 1);
    let to = format!("dead_letter = {{ topic = \"{letters}\", then = \"continue\" }}");
    let mut pawl = posting(broker, &input, &group, &service, retry, &to);
    support::produce(broker, &input, [Out::new("A", "bad").header("h", "1"), Out::new("A", "good")]);
    pawl.start();
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 1);
    service.wait("the record behind it", 1, DEADLINE, Call::succeeded);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());

    assert_eq!(attempts(&service, "A"), [(1, 503), (2, 503), (3, 503), (1, 200)]);
    let keys: Vec<String> =
        service.calls().iter().map(|call| call.received.idempotency_key.clone()).collect();
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3], "{keys:?}");
    let found: BTreeMap<&str, &[u8]> = dead[0]
        .headers
        .iter()
        .map(|header| (std::str::from_utf8(&header.name).unwrap(), header.value.as_deref().unwrap()))
        .collect();
    let timestamp = support::read_all(broker, &input)[0].timestamp.unwrap().to_be_bytes();
    let expected: BTreeMap<&str, &[u8]> = BTreeMap::from([
        ("h", &b"1"[..]),
        (header::ORIGINAL_TOPIC, input.as_bytes()),
        (header::ORIGINAL_PARTITION, &[0; 4]),
        (header::ORIGINAL_OFFSET, &[0; 8]),
        (header::ORIGINAL_TIMESTAMP, &timestamp),
        (header::ORIGINAL_TIMESTAMP_TYPE, b"CreateTime"),
        (header::ORIGINAL_CONSUMER_GROUP, group.as_bytes()),
        (header::EXCEPTION_FQCN, b"pawl.Exhausted"),
        (header::EXCEPTION_CAUSE_FQCN, b"pawl.Unavailable"),
        (header::EXCEPTION_MESSAGE, b"service answered 503 \"answer 503\""),
        (header::EXCEPTION_STACKTRACE, b"answer 503"),
        (header::DELIVERY_ATTEMPT, &[0, 0, 0, 3]),
        (header::DISPOSITION, b"exhausted"),
    ]);
    assert_eq!(found, expected);
    assert!(pawl.log().contains(&format!("pawl dlt show {letters} 0 0")), "{}", pawl.log());
}

#[test]
fn a_service_that_asks_for_a_pause_gets_it_and_one_that_is_silent_is_asked_again() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let service = Service::start(|call: &Received| match (call.key.as_str(), call.attempt) {
        ("busy", 1) => Reply::status(429).retry_after("2"),
        ("silent", 1) => Reply::status(200).held(),
        _ => Reply::status(200),
    });
    let retry = "{ attempts = 5, initial = \"10ms\", max = \"10s\" }";
    let mut pawl = posting(broker, &input, &group, &service, retry, "");
    support::produce(broker, &input, ["busy", "silent", "plain"].map(|key| Out::new(key, key)));
    pawl.start();
    service.wait("the end of all three", 3, DEADLINE, Call::succeeded);
    let committed = || (support::clients::committed(broker, &group, &input)[&0] == 3).then_some(());
    support::until("the commit", DEADLINE, committed);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());

    assert_eq!(attempts(&service, "busy"), [(1, 429), (2, 200)]);
    assert_eq!(attempts(&service, "silent"), [(1, 200), (2, 200)], "the first answer came too late");
    assert_eq!(attempts(&service, "plain"), [(1, 200)]);
    let calls = service.calls();
    let busy: Vec<&Call> = calls.iter().filter(|call| call.received.key == "busy").collect();
    let pause = busy[1].began - busy[0].ended.expect("it was answered");
    assert!(pause >= Duration::from_secs(2), "Retry-After: 2 became {pause:?}");
    assert!(support::read_all(broker, &format!("{input}-dlt")).is_empty());
}

#[test]
fn a_policy_for_a_status_or_for_the_services_own_code_decides_whether_and_how_often() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let service = Service::start(|call: &Received| match (call.key.as_str(), call.attempt) {
        // A service that reads a copy which is behind: the order is there a little later.
        ("late", 1..3) => Reply::status(404),
        ("gone", _) => Reply::status(404).error_code("order-deleted"),
        ("declined", _) => Reply::status(503).error_code("card-declined"),
        ("busy", _) => Reply::status(503),
        ("locked", 1..6) => Reply::status(503).error_code("account-locked"),
        _ => Reply::status(200),
    });
    let retry = concat!(
        r#"{ attempts = 3, initial = "10ms", max = "20ms", on = { "#,
        r#"404 = { class = "transient", attempts = 5 }, "#,
        r#"5xx = { attempts = 2 }, "#,
        r#"order-deleted = { class = "permanent" }, "#,
        r#"card-declined = { class = "permanent" }, "#,
        r#"account-locked = { attempts = "unlimited", delays = ["10ms", "20ms"] } } }"#,
    );
    let letters = support::topic(broker, "letters", 1);
    let to = format!("dead_letter = {{ topic = \"{letters}\" }}");
    let mut pawl = posting(broker, &input, &group, &service, retry, &to);
    let keys = ["late", "gone", "declined", "busy", "locked", "plain"];
    support::produce(broker, &input, keys.map(|key| Out::new(key, key)));
    pawl.start();
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 3);
    service.wait("what heals", 3, DEADLINE, Call::succeeded);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());

    assert_eq!(attempts(&service, "late"), [(1, 404), (2, 404), (3, 200)]);
    assert_eq!(attempts(&service, "gone"), [(1, 404)]);
    assert_eq!(attempts(&service, "declined"), [(1, 503)]);
    assert_eq!(attempts(&service, "busy"), [(1, 503), (2, 503)]);
    assert_eq!(attempts(&service, "locked").len(), 6);
    let text = |letter: &support::clients::Seen, name: &str| {
        let found = letter.headers.iter().find(|header| header.name == name.as_bytes());
        found.map(|header| String::from_utf8_lossy(header.value.as_deref().unwrap()).into_owned())
    };
    let told: BTreeMap<String, (Option<String>, Option<String>)> = dead
        .iter()
        .map(|letter| {
            let key = String::from_utf8_lossy(letter.key.as_deref().unwrap()).into_owned();
            (key, (text(letter, header::DISPOSITION), text(letter, header::OWN_CODE)))
        })
        .collect();
    let expected = [
        ("gone", ("poison", Some("order-deleted"))),
        ("declined", ("poison", Some("card-declined"))),
        ("busy", ("exhausted", None)),
    ];
    let owned = |text: &str| Some(text.to_owned());
    assert_eq!(
        told,
        expected.map(|(key, (why, own))| (key.to_owned(), (owned(why), own.and_then(owned)))).into()
    );
}

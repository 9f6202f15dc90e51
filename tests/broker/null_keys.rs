//! Records without a key, where they are spread over lanes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pawl_actors::dead_letter::header;

use crate::support::pawl::Finished;
use crate::support::service::Received;
use crate::support::{self, Call, Out, Pawl, Reply, Service, command};

const DEADLINE: Duration = Duration::from_secs(90);
const RECORDS: usize = 600;
const LANES: usize = 8;

fn number(call: &Received) -> usize {
    std::str::from_utf8(&call.body).expect("text").parse().expect("a number")
}

/// Offsets are numbers here: one partition, and nothing else in it.
fn bad(n: usize) -> bool {
    n % 10 == 3
}

fn ask(pawl: &Pawl, args: &[&str]) -> Finished {
    let file = pawl.dir().join("pawl.toml");
    command(&[args, &["--config", file.to_str().expect("a path in UTF-8")]].concat(), b"")
}

/// What each lane's records that did not become letters succeeded with first, in order.
fn by_lane(service: &Service) -> BTreeMap<usize, Vec<usize>> {
    let mut lanes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for call in service.calls().iter().filter(|call| call.succeeded()) {
        let n = number(&call.received);
        let lane = lanes.entry(n % LANES).or_default();
        if !bad(n) && !lane.contains(&n) {
            lane.push(n);
        }
    }
    lanes
}

#[test]
fn they_fail_each_for_itself_through_a_kill_and_a_replay_applies_each_once() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "events", 1), support::unique("keyless"));
    let mended = Arc::new(AtomicBool::new(false));
    let heals = mended.clone();
    let service = Service::start(move |call: &Received| match number(call) {
        n if bad(n) && !heals.load(Ordering::Relaxed) => Reply::status(422),
        n if n % 10 == 7 && call.attempt == 1 => Reply::status(503),
        _ => Reply::status(200),
    });
    let more = |lanes: usize| {
        format!(
            "null_key = {{ spread = {lanes} }}\nevent_id = \"header:ce_id\"\nhttp = {{ url = \"{}\" }}\n\
             retry = {{ initial = \"100ms\" }}\ndead_letter = {{ then = \"quarantine\" }}",
            service.url()
        )
    };
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more(LANES)));
    let event = |n: usize| Out { key: None, ..Out::new("", n.to_string()) }.header("ce_id", n.to_string());
    support::produce(broker, &input, (0..RECORDS / 2).map(event));
    pawl.start();
    let letters = format!("{input}-dlt");
    support::read_until(broker, &letters, DEADLINE, |seen| seen.len() >= 5);
    pawl.kill();
    support::produce(broker, &input, (RECORDS / 2..RECORDS).map(event));
    pawl.start();
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() >= RECORDS / 10);
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    let good = RECORDS - RECORDS / 10;
    service.wait("all that is good", good, DEADLINE, |call: &Call| {
        !bad(number(&call.received)) && call.succeeded()
    });
    let mut values: Vec<usize> = dead.iter().map(|letter| letter.text().parse().expect("a number")).collect();
    values.sort_unstable();
    assert_eq!(values, (0..RECORDS).filter(|n| bad(*n)).collect::<Vec<_>>(), "each once");
    for letter in &dead {
        assert_eq!((&letter.key, letter.header(header::DISPOSITION)), (&None, Some(&b"poison"[..])));
    }
    support::until("nothing waits any more", DEADLINE, || {
        (by_lane(&service).values().map(Vec::len).sum::<usize>() == good).then_some(())
    });
    let expected =
        (0..LANES).map(|lane| (lane, (lane..RECORDS).step_by(LANES).filter(|n| !bad(*n)).collect()));
    assert_eq!(by_lane(&service), expected.collect::<BTreeMap<_, Vec<_>>>(), "each lane in order");

    let lane = ask(&pawl, &["keys", "show", "--no-key-lane", "3"]);
    assert!(lane.stdout.starts_with("key          (no key, lane 3)\n"), "{lane:?}");
    let (status, told) = pawl.get("/handlers/billing/unkeyed/3").expect("it answers");
    assert!(status == 200 && told.contains("\"key\":null,\"null_key_lane\":3"), "{status} {told}");
    mended.store(true, Ordering::Relaxed);
    let replayed = ask(&pawl, &["dlt", "replay", "--no-key"]);
    assert!(
        replayed.stdout.starts_with("letters: 60 took effect, 0 were duplicates, 0 failed"),
        "{replayed:?}"
    );
    let again = ask(&pawl, &["dlt", "replay", "--all"]);
    assert!(again.stdout.starts_with("letters: 0 took effect, 0 were duplicates, 0 failed"), "{again:?}");
    let succeeded = |call: &Call| bad(number(&call.received)) && call.succeeded();
    assert_eq!(service.count(succeeded), RECORDS / 10, "each once");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let audit = pawl.audit();
    assert!(audit.stdout.contains(" 0 dead-lettered"), "{audit:?}");
    let listed = ask(&pawl, &["keys", "list", "--changelog"]);
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(
        lines.len() == LANES && lines[7].starts_with("0  key (no key, lane 7)  taken 599  64 ids"),
        "{listed:?}"
    );

    pawl.set(&support::settings(broker, &input, &group, &more(4)));
    pawl.start().assert_refused(&["other settings for key, null_key, event_id or sequence"]);
}

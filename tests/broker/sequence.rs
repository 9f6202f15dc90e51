//! Records that are ordered by their producers' own numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::orders::{self, Event};
use crate::support::service::Received;
use crate::support::{self, Out, Pawl, Reply, Service, command, until};

const DEADLINE: Duration = Duration::from_secs(120);
/// How far a producer may put a record off, in records.
const WINDOW: usize = 40;

fn number(event: &Event) -> i64 {
    let json: Value = serde_json::from_str(&event.line).expect("a line of JSON");
    json["sequence"].as_i64().expect("a number")
}

/// What three producers send who shuffle within a window and repeat themselves, less what is held back.
fn jumbled(events: &[Event], held_back: &BTreeSet<&str>, seed: u64) -> Vec<Event> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut sent: Vec<(usize, Event)> = Vec::new();
    for (n, event) in events.iter().enumerate().filter(|(_, event)| !held_back.contains(&*event.id)) {
        sent.push((n + random.random_range(0..WINDOW), event.clone()));
        if n % 20 == 19 {
            sent.push((n + random.random_range(0..3 * WINDOW), event.clone()));
        }
    }
    sent.sort_by_key(|(at, _)| *at);
    sent.into_iter().map(|(_, event)| event).collect()
}

#[test]
fn orders_of_shuffling_producers_are_handled_by_their_numbers_and_gaps_are_listed_through_kills() {
    let Some(broker) = support::broker() else { return };
    let events = orders::events();
    let (input, group) = (support::topic(broker, "orders", 4), support::unique("sequence"));
    let service = Service::start(|_: &Received| Reply::status(200).after(Duration::from_millis(1)));
    let more = format!(
        "sequence = \"json:/sequence\"\nevent_id = \"json:/eventId\"\ngap = {{ timeout = \"1h\" }}\n\
         http = {{ url = \"{}\", max_in_flight = 64 }}",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    // Two gaps: the second event of two orders that have a third one.
    let by_order = orders::by_order(&events);
    let long = by_order.values().filter(|ids| ids.len() > 2).map(|ids| ids[1]);
    let held_back: BTreeSet<&str> = long.step_by(300).take(2).collect();
    assert_eq!(held_back.len(), 2);
    let waiting: usize =
        by_order.values().filter(|ids| held_back.contains(ids[1])).map(|ids| ids.len() - 2).sum();
    let sent = jumbled(&events, &held_back, 7);
    pawl.start();
    let distinct = events.len() - 2 - waiting;
    let handled = || {
        let calls = service.calls();
        let done = calls.iter().filter(|call| call.succeeded());
        done.map(|call| call.received.event_id.clone()).collect::<BTreeSet<_>>().len()
    };
    for (n, part) in sent.chunks(sent.len() / 3 + 1).enumerate() {
        let input = input.as_str();
        std::thread::scope(|scope| {
            for producer in 0..3 {
                let own = part.iter().skip(producer).step_by(3);
                let own = own.map(|event| Out::new(event.order.clone(), event.line.clone()));
                scope.spawn(move || support::produce(broker, input, own));
            }
        });
        let enough = (n + 1) * distinct / 4;
        until("some are handled", DEADLINE, || (handled() >= enough).then_some(()));
        pawl.kill();
        pawl.start();
    }
    until("all but what waits is handled", DEADLINE, || (handled() == distinct).then_some(()));
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);

    let config = pawl.dir().join("pawl.toml");
    let keys = |args: &[&str]| {
        let config = config.to_str().expect("a path in UTF-8");
        command(&[&["keys", args[0], "--config", config], &args[1..]].concat(), b"")
    };
    let gaps = keys(&["list", "--gaps", "--json"]);
    let listed: Vec<Value> =
        gaps.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let expected: BTreeMap<String, i64> = events
        .iter()
        .filter(|event| held_back.contains(&*event.id))
        .map(|event| (event.order.clone(), number(event)))
        .collect();
    let found: BTreeMap<String, i64> = listed
        .iter()
        .map(|key| {
            let next = key["sequence"]["next"].as_i64().expect("a number");
            (key["key"].as_str().expect("a text").to_owned(), next)
        })
        .collect();
    assert_eq!(found, expected, "{gaps:?}");

    // One gap is filled, the other given up by hand.
    let mut held = events.iter().filter(|event| held_back.contains(&*event.id));
    let (filled, skipped) = (held.next().expect("two"), held.next().expect("two"));
    support::produce(broker, &input, [Out::new(filled.order.clone(), filled.line.clone())]);
    let to = (number(skipped) + 1).to_string();
    let wrong = keys(&["skip-gap", &skipped.order, "--to", "99", "--reason", "r"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let given_up = keys(&["skip-gap", &skipped.order, "--to", &to, "--reason", "lost by the producer"]);
    assert_eq!(given_up.code, 0, "{given_up:?}");
    until("everything is handled", DEADLINE, || (handled() == events.len() - 1).then_some(()));

    let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for call in service.calls().into_iter().filter(|call| call.succeeded()) {
        let ids = first.entry(call.received.key).or_default();
        // A call of an instance that was killed before its commit is made again.
        if !ids.contains(&call.received.event_id) {
            ids.push(call.received.event_id);
        }
    }
    for (order, mut ids) in orders::by_order(&events) {
        ids.retain(|id| *id != skipped.id);
        assert_eq!(first[order], ids, "order {order}");
    }
    // What comes after all is a dead letter, and stops nobody.
    support::produce(broker, &input, [Out::new(skipped.order.clone(), skipped.line.clone())]);
    let late = support::read_until(broker, &format!("{input}-dlt"), DEADLINE, |seen| seen.len() == 1);
    assert_eq!(late[0].header("pawl-disposition"), Some(&b"sequence-late"[..]));
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();
}

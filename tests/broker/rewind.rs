//! Rewinding a handler on purpose, with the `pawl` command as a user has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::library::{Run, example};
use crate::support::service::Received;
use crate::support::{self, Finished, Out, Pawl, Reply, Service, clients, command, process, until};

const DEADLINE: Duration = Duration::from_secs(90);

fn rewind(config: &str, args: &[&str]) -> Finished {
    command(&[&["rewind", "--reason", "a wrong price", "--config", config], args].concat(), b"")
}

#[test]
fn a_handler_that_keeps_state_sees_it_from_the_future_or_begins_anew() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "numbered", 1));
    let group = support::unique("numbering");
    let event = |n: usize| Out::new(format!("ORD-{}", n % 10), format!("{n}")).header("n", format!("{n}"));
    support::produce(broker, &input, (0..100).map(event));
    let dir = process::scratch("rewind");
    let config = dir.join("pawl.toml");
    std::fs::write(&config, support::settings(broker, &input, &group, "program = {}")).expect("writable");
    let config = config.to_str().expect("a path in UTF-8");
    let run = Run::start(broker, &input, &group, "program = {}", example::numbering(&output));
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() >= 100);
    clients::wait_for_end(broker, &group, &input, DEADLINE);

    let kept = rewind(config, &["--to-offset", "50", "--keep-state", "--yes"]);
    assert_eq!(kept.code, 0, "{kept:?}");
    assert!(
        kept.stdout.contains("from offset 100 back to 50") && kept.stdout.contains("states from after them")
    );
    assert!(
        kept.stdout.contains("rewound from offset 100 to 50") && kept.stdout.contains("states were kept")
    );
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() >= 150);
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    let reset = rewind(config, &["--to-earliest", "--reset-state", "--yes"]);
    assert!(reset.code == 0 && reset.stdout.contains("states were reset"), "{reset:?}");
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() >= 250);
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    run.stop();

    let mut orders: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    for record in support::read_all(broker, &output) {
        let number = record.text().parse().expect("a number");
        orders.entry(record.key.clone().expect("a key")).or_default().push(number);
    }
    assert_eq!(orders.len(), 10);
    assert!(orders.values().all(|numbers| numbers.iter().copied().eq((1..=15).chain(1..=10))), "{orders:?}");
    let audit = command(&["audit", "--config", config], b"");
    assert!(audit.code == 0 && audit.stdout.contains("100 received"), "{audit:?}");
    let _ = std::fs::remove_dir_all(&dir);
}

/// Which key a record has. BAD fails for good before the place that is rewound to, LATE behind it, BUSY waits.
fn key(n: usize) -> String {
    ["BAD", "LATE", "BUSY", "A", "B", "C"][n % 6].into()
}

/// The numbers that a key's calls succeeded with, in order.
fn done(service: &Service, key: &str) -> Vec<usize> {
    let of_key = |call: &support::service::Call| call.succeeded() && call.received.key == key;
    let number = |call: &support::service::Call| {
        std::str::from_utf8(&call.received.body).expect("text").parse().expect("a number")
    };
    service.calls().iter().filter(|call| of_key(call)).map(number).collect()
}

fn numbers(of: &str) -> Vec<usize> {
    (0..60).filter(|n| key(*n) == of).collect()
}

/// Sixty records in one partition, all finished, parked or dead-lettered as long as `mended` is not set.
struct Place {
    pawl: Pawl,
    service: Service,
    mended: Arc<AtomicBool>,
    input: String,
    group: String,
}

fn place(broker: &support::Broker, guarantee: &str) -> Place {
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("rewind"));
    let mended = Arc::new(AtomicBool::new(false));
    let well = mended.clone();
    let service = Service::start(move |call: &Received| {
        let n: usize = std::str::from_utf8(&call.body).expect("text").parse().expect("a number");
        let bad = call.key == "BAD" || (call.key == "LATE" && n >= 30);
        Reply::status(match call.key.as_str() {
            "BUSY" if n >= 20 => 503,
            _ if bad && !well.load(Ordering::Relaxed) => 422,
            _ => 200,
        })
    });
    let more = format!(
        "guarantee = \"{guarantee}\"\nevent_id = \"header:ce_id\"\nhttp = {{ url = \"{}\" }}\nbreaker = {{ keys = 0 }}\n\
         retry = {{ initial = \"10m\", max = \"10m\" }}\ndead_letter = {{ then = \"quarantine\" }}",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    support::produce(
        broker,
        &input,
        (0..60).map(|n| Out::new(key(n), n.to_string()).header("ce_id", n.to_string())),
    );
    pawl.start();
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    Place { pawl, service, mended, input, group }
}

impl Place {
    fn config(&self) -> String {
        self.pawl.dir().join("pawl.toml").to_str().expect("a path in UTF-8").to_owned()
    }

    fn replay(&self) -> Finished {
        command(&["dlt", "replay", "--all", "--config", &self.config()], b"")
    }
}

#[test]
fn a_rewind_goes_through_a_kill_and_its_books_balance_beside_what_stays_from_before() {
    let Some(broker) = support::broker() else { return };
    let mut place = place(broker, "exactly-once");
    let letters = format!("{}-dlt", place.input);
    assert_eq!(support::read_all(broker, &letters).len(), 15, "10 of BAD, 5 of LATE");
    let audit = place.pawl.audit();
    assert!(audit.stdout.contains("60 received") && audit.stdout.contains("7 parked"), "{audit:?}");

    place.mended.store(true, Ordering::Relaxed);
    let config = place.config();
    let asking = std::thread::spawn(move || {
        rewind(&config, &["--to-offset", "30", "--keep-state", "--yes", "--timeout", "1m"])
    });
    let commands = format!("{}-commands", place.group);
    support::read_until(broker, &commands, DEADLINE, |seen| !seen.is_empty());
    place.pawl.kill();
    place.pawl.start();
    let said = asking.join().expect("it does not panic");
    assert_eq!(said.code, 0, "{said:?}\n{}", place.pawl.log());
    assert!(said.stdout.contains("2 records from before wait on"), "{said:?}");
    clients::wait_for_end(broker, &place.group, &place.input, DEADLINE);
    for good in ["A", "B", "C"] {
        let (before, behind): (Vec<_>, Vec<_>) = numbers(good).into_iter().partition(|n| *n < 30);
        let expected = [before, behind.clone(), behind].concat();
        assert_eq!(done(&place.service, good), expected, "each record behind the place twice");
    }
    assert_eq!(done(&place.service, "LATE"), numbers("LATE"), "its records came again, and were taken");
    assert_eq!(done(&place.service, "BAD"), [0; 0]);
    assert_eq!(support::read_all(broker, &letters).len(), 20, "five of BAD follow once more");
    let audit = place.pawl.audit();
    assert!(audit.stdout.contains("32 received") && audit.stdout.contains("7 parked"), "{audit:?}");

    let replay = place.replay();
    assert!(replay.code == 0 && replay.stdout.starts_with("letters: 10 took effect"), "{replay:?}");
    assert_eq!(done(&place.service, "BAD"), numbers("BAD"), "each once, in order");
    let again = place.replay();
    assert!(again.stdout.starts_with("letters: 0 took effect"), "{again:?}");
    place.pawl.audit();

    let second = rewind(&place.config(), &["--to-time", "1h", "--reset-state", "--yes"]);
    assert!(second.code == 0 && second.stdout.contains("from offset 60 back to 0"), "{second:?}");
    let all =
        || (done(&place.service, "BAD").len() == 20 && done(&place.service, "C").len() == 25).then_some(());
    until("everything comes again", DEADLINE, all);
    clients::wait_for_end(broker, &place.group, &place.input, DEADLINE);
    assert_eq!(place.pawl.terminate(), 0, "{}", place.pawl.log());
    let audit = place.pawl.audit();
    assert!(audit.stdout.contains("60 received = 53 applied"), "{audit:?}");
    assert!(!place.pawl.log().contains("moved"), "nobody moved the group's offset:\n{}", place.pawl.log());
}

#[test]
fn without_transactions_a_kill_leaves_a_rewind_whole_too() {
    let Some(broker) = support::broker() else { return };
    let mut place = place(broker, "at-least-once");
    let config = place.config();
    let asking = std::thread::spawn(move || {
        rewind(&config, &["--to-earliest", "--reset-state", "--yes", "--timeout", "1m"])
    });
    let commands = format!("{}-commands", place.group);
    support::read_until(broker, &commands, DEADLINE, |seen| !seen.is_empty());
    place.pawl.kill();
    place.pawl.start();
    let said = asking.join().expect("it does not panic");
    assert_eq!(said.code, 0, "{said:?}\n{}", place.pawl.log());
    let again = || ["A", "B", "C"].iter().all(|good| done(&place.service, good).len() >= 20).then_some(());
    until("everything comes again", DEADLINE, again);
    clients::wait_for_end(broker, &place.group, &place.input, DEADLINE);
    for good in ["A", "B", "C"] {
        let all = done(&place.service, good);
        assert_eq!(all[all.len() - 10..], numbers(good), "in order, from the first one on");
    }
    assert_eq!(place.pawl.terminate(), 0, "{}", place.pawl.log());
    assert!(!place.pawl.log().contains("moved"), "nobody moved the group's offset:\n{}", place.pawl.log());
    place.pawl.audit();
}

#[test]
fn what_cannot_be_rewound_is_refused_before_anything_is_asked_and_by_the_owner() {
    let Some(broker) = support::broker() else { return };
    let place = place(broker, "exactly-once");
    let config = place.config();
    let commands = format!("{}-commands", place.group);
    let unsaid = rewind(&config, &["--to-offset", "30", "--keep-state"]);
    assert!(unsaid.code == 2 && unsaid.stderr.contains("--yes"), "{unsaid:?}");
    assert!(unsaid.stdout.contains("up to 30 records"), "it says what it means all the same: {unsaid:?}");
    let ahead = rewind(&config, &["--to-offset", "61", "--keep-state", "--yes"]);
    assert!(ahead.code == 2 && ahead.stderr.contains("lies ahead"), "{ahead:?}");
    clients::remove_below(broker, &place.input, 0, 10);
    let gone = rewind(&config, &["--to-offset", "9", "--keep-state", "--yes"]);
    assert!(gone.code == 2 && gone.stderr.contains("begins at 10"), "{gone:?}");
    let nothing = rewind(&config, &["--to-offset", "60", "--keep-state", "--yes"]);
    assert!(nothing.code == 1 && nothing.stdout.contains("stays at offset 60"), "{nothing:?}");
    assert_eq!(support::read_all(broker, &commands).len(), 0, "nobody was asked");

    let by_hand = r#"{"version":1,"id":"far","by":"t","command":"rewind","to":99,"reset":false,"reason":""}"#;
    support::produce(broker, &commands, [Out { key: None, ..Out::new("", by_hand) }]);
    let seen = support::read_until(broker, &commands, DEADLINE, |seen| seen.len() == 2);
    let answer: Value = serde_json::from_str(seen[1].text()).expect("JSON");
    assert_eq!(answer["progress"], "refused");
    assert!(answer["message"].as_str().is_some_and(|text| text.contains("lies ahead")), "{answer}");
}

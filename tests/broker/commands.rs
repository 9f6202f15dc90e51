//! What operators ask of instances through the command topic, with the `pawl` command as a user has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::pawl::Finished;
use crate::support::service::Received;
use crate::support::{self, Broker, Out, Pawl, Reply, Service, command, until};

const DEADLINE: Duration = Duration::from_secs(90);

fn event(key: String, n: usize) -> Out {
    Out::new(key, n.to_string()).header("ce_id", n.to_string())
}

fn wait(what: &str, is: impl Fn() -> bool) {
    until(what, DEADLINE, || is().then_some(()));
}

/// A command of `pawl` for the only handler of an instance's settings.
fn ask(pawl: &Pawl, args: &[&str]) -> Finished {
    let file = pawl.dir().join("pawl.toml");
    let config = file.to_str().expect("a path in UTF-8");
    command(&[args, &["--config", config]].concat(), b"")
}

/// The bodies that a key's calls succeeded with first, in order: what a kill left without a commit is called
/// again, and its effect in Kafka is written once.
fn effects(service: &Service) -> BTreeMap<String, Vec<usize>> {
    let mut effects: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for call in service.calls().iter().filter(|call| call.succeeded()) {
        let n = std::str::from_utf8(&call.received.body).expect("text").parse().expect("a number");
        let of_key = effects.entry(call.received.key.clone()).or_default();
        if !of_key.contains(&n) {
            of_key.push(n);
        }
    }
    effects
}

fn settings(broker: &Broker, input: &str, group: &str, service: &Service, more: &str) -> String {
    let more = format!(
        "event_id = \"header:ce_id\"\nhttp = {{ url = \"{}\" }}\nbreaker = {{ keys = 0 }}\n{more}",
        service.url()
    );
    support::settings(broker, input, group, &more)
}

#[test]
fn a_replay_brings_every_key_back_in_order_through_a_kill_while_the_producer_goes_on() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 4), support::unique("replay"));
    let mended = Arc::new(AtomicBool::new(false));
    let well = mended.clone();
    let bad = |key: &str| key.ends_with('3') || key.ends_with('7');
    let service = Service::start(move |call: &Received| {
        let fails = bad(&call.key) && !well.load(Ordering::Relaxed);
        Reply::status(if fails { 422 } else { 200 }).after(Duration::from_millis(2))
    });
    let more = "dead_letter = { then = \"quarantine\" }\nreplay = { max_records = 20 }";
    let mut pawl = Pawl::new(&settings(broker, &input, &group, &service, more));
    let key = |n: usize| format!("ORD-{}", n % 40);
    support::produce(broker, &input, (0..2_000).map(|n| event(key(n), n)));
    pawl.start();
    let letters = format!("{input}-dlt");
    support::read_until(broker, &letters, DEADLINE, |seen| seen.len() >= 400);

    mended.store(true, Ordering::Relaxed);
    let dry = ask(&pawl, &["dlt", "replay", "--all", "--dry-run"]);
    assert!(dry.stdout.starts_with("letters: 400 took effect"), "{dry:?}");
    let config = pawl.dir().join("pawl.toml");
    let asking = std::thread::spawn(move || {
        let config = config.to_str().expect("a path in UTF-8");
        command(&["dlt", "replay", "--all", "--rate", "400", "--timeout", "1m", "--config", config], b"")
    });
    let replayed = |service: &Service| service.count(|call| call.succeeded() && bad(&call.received.key));
    wait("some letters are replayed", || replayed(&service) >= 60);
    support::produce(broker, &input, (2_000..2_400).map(|n| event(key(n), n)));
    wait("more letters are replayed", || replayed(&service) >= 120);
    pawl.kill();
    support::produce(broker, &input, (2_400..2_800).map(|n| event(key(n), n)));
    pawl.start();
    let said = asking.join().expect("it does not panic");
    assert_eq!(said.code, 0, "{said:?}\n{}", pawl.log());
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    wait("nothing is on its way", || effects(&service).values().map(Vec::len).sum::<usize>() >= 2_800);
    let expected: BTreeMap<String, Vec<usize>> =
        (0..40).map(|k| (key(k), (0..70).map(|n| 40 * n + k).collect())).collect();
    assert!(effects(&service) == expected, "each in order: {:?}", effects(&service));

    let again = ask(&pawl, &["dlt", "replay", "--all"]);
    assert!(again.stdout.starts_with("letters: 0 took effect, 0 were duplicates, 0 failed"), "{again:?}");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let audit = pawl.audit();
    assert!(audit.stdout.contains(" 0 dead-lettered"), "{audit:?}");
}

#[test]
fn one_key_is_discarded_paused_resumed_skipped_released_and_erased() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 3), support::unique("keys"));
    let service = Service::start(move |call: &Received| {
        Reply::status(if call.body.starts_with(b"1") { 422 } else { 200 })
    });
    let more = "dead_letter = { then = \"quarantine\" }";
    let mut pawl = Pawl::new(&settings(broker, &input, &group, &service, more));
    pawl.start();
    let told = |args: &[&str]| {
        let said = ask(&pawl, args);
        (said.code, said.stdout.split_once(": ").map(|(_, rest)| rest.to_owned()).unwrap_or(said.stdout))
    };
    let applied = || effects(&service).get("A").cloned().unwrap_or_default();
    support::produce(broker, &input, [1, 2, 3].map(|n| event("A".into(), n)));
    let letters = format!("{input}-dlt");
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() >= 3);
    let (partition, offset) = (dead[0].partition.to_string(), dead[0].offset.to_string());
    let discard = ["dlt", "discard", &partition, &offset, "--reason", "cancelled"];
    assert_eq!(told(&discard), (0, "1 letters of key \"A\" are given up; 2 are left\n".into()));
    assert_eq!(told(&discard).0, 1, "it was dealt with");
    let replay = told(&["dlt", "replay", "--key", "A"]);
    assert!(replay.0 == 0 && replay.1.starts_with("2 took effect"), "{replay:?}");
    assert_eq!(applied(), [2, 3]);

    assert_eq!(told(&["keys", "pause", "A"]).0, 0);
    assert_eq!(told(&["keys", "resume", "NOBODY"]), (1, "nothing is known of the key\n".into()));
    support::produce(broker, &input, [4, 5, 6].map(|n| event("A".into(), n)));
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    let waits = ask(&pawl, &["keys", "show", "A"]);
    assert!(waits.stdout.contains("paused"), "{waits:?}");
    assert_eq!(applied(), [2, 3], "its offset went on, and nothing was called");
    let skip = |offset| told(&["keys", "skip", "A", "--offset", offset, "--reason", "not wanted"]);
    assert_eq!(
        skip("77"),
        (1, "refused: key \"A\" does not wait with offset 77, but with offset 3\n".into())
    );
    assert_eq!(skip("3").0, 0);
    assert_eq!(told(&["keys", "resume", "A"]).0, 0);
    wait("the key goes on", || applied() == [2, 3, 5, 6]);

    assert_eq!(told(&["keys", "erase", "A"]).0, 0);
    support::produce(broker, &input, [1].map(|n| event("B".into(), n)));
    support::read_until(broker, &letters, DEADLINE, |seen| seen.len() >= 4);
    assert_eq!(told(&["keys", "erase", "B"]).0, 1, "it has a letter");
    let release = ["keys", "release", "B", "--reason", "known"];
    assert_eq!(told(&release), (0, "1 letters of key \"B\" are given up; the key goes on\n".into()));
    support::produce(broker, &input, [8].map(|n| event("B".into(), n)));
    wait("the other key goes on", || effects(&service).get("B").is_some_and(|of| of == &[8]));
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let audit = pawl.audit();
    assert!(audit.stdout.contains("2 discarded") && audit.stdout.contains("1 skipped"), "{audit:?}");
}

#[test]
fn a_command_waits_for_an_instance_and_is_carried_out_once_by_the_next() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("absent"));
    let service = Service::start(|_: &Received| Reply::status(200));
    let mut pawl = Pawl::new(&settings(broker, &input, &group, &service, ""));
    let early = ask(&pawl, &["keys", "pause", "A"]);
    assert!(early.code == 4 && early.stderr.contains("no instance of"), "{early:?}");
    pawl.start();
    pawl.wait_ready();
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let absent = ask(&pawl, &["keys", "pause", "A", "--timeout", "1s"]);
    assert!(absent.code == 1 && absent.stdout.contains("carried out once"), "{absent:?}");
    // What is no command, and one of a later version, hold nothing up.
    let commands = format!("{group}-commands");
    let foreign = [&b"garbage"[..], br#"{"id":"later","version":9,"command":"fly"}"#];
    support::produce(broker, &commands, foreign.map(|value| Out { key: None, ..Out::new("", value) }));
    support::produce(broker, &input, [1, 2].map(|n| event("A".into(), n)));
    pawl.start();
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    assert_eq!(service.count(|_| true), 0, "it is paused");
    let resumed = ask(&pawl, &["keys", "resume", "A"]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    wait("it goes on", || service.count(|call| call.succeeded()) == 2);
    let answers = support::read_all(broker, &commands);
    let ids: Vec<&[u8]> = answers.iter().filter_map(|seen| seen.header("pawl-answer")).collect();
    let unique: BTreeSet<&[u8]> = ids.iter().copied().collect();
    assert_eq!((ids.len(), unique.len()), (3, 3), "pause, the later version, resume");
    assert!(pawl.log().contains("version 9"), "{}", pawl.log());
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

//! A record that ends the process, and a part of Pawl that panics: a Rust program whose handler does that on
//! purpose, as a process of its own.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use pawl::handlers::{Registry, from_fn};
use pawl::runtime;
use pawl::settings::Settings;
use pawl_actors::dead_letter::header;
use pawl_actors::effects::{Effects, Emit, StateChange};
use pawl_actors::handler::Call;
use pawl_actors::outcome::{Failure, Outcome, code};
use tokio::signal::unix::{SignalKind, signal};

use crate::support::{self, Broker, Out, Pawl, command, until};

const DEADLINE: Duration = Duration::from_secs(120);
/// Of the process that handles records.
const PROGRAM: &str = "careful::the_program_with_a_handler_that_does_harm";

/// What the handler does with a record, by its value. While the file "mended" lies in the working directory,
/// it does what was asked.
fn handle(call: &Call, output: &str) -> Outcome {
    let value = call.record.value.as_deref().unwrap_or_default();
    let harmless = Path::new("mended").exists();
    match (value, call.attempt) {
        _ if harmless => {}
        (b"aborts", _) => std::process::abort(),
        (b"aborts at its retry", 1) => {
            return Outcome::Failed(Failure::transient(code::UNAVAILABLE, "not now"));
        }
        (b"aborts at its retry", _) => std::process::abort(),
        (b"aborts in a replay", _) if Path::new("replaying").exists() => std::process::abort(),
        (b"aborts in a replay", _) => return Outcome::Failed(Failure::permanent(code::REJECTED, "refused")),
        _ => {}
    }
    let emit = Emit {
        topic: output.into(),
        partition: None,
        key: call.record.key.clone(),
        value: Some(Bytes::copy_from_slice(value)),
        headers: Vec::new(),
        timestamp: None,
    };
    Outcome::Done(Effects { emit: vec![emit], state: StateChange::Keep })
}

/// A value that panics when it is let go.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
#[ignore = "the program of other tests, which start it as a process of its own"]
fn the_program_with_a_handler_that_does_harm() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let settings = Settings::load(Path::new("pawl.toml")).unwrap_or_else(|error| panic!("{error}"));
    let output = std::fs::read_to_string("output").expect("the test has named it");
    let handler = from_fn(move |call: Call| {
        let output = output.clone();
        let harm =
            (call.record.value.as_deref() == Some(b"panics when it is given up")).then(|| PanicsInDrop);
        async move {
            if let Some(harm) = harm {
                std::future::pending::<()>().await;
                drop(harm);
            }
            handle(&call, &output)
        }
    });
    let mut registry = Registry::default();
    registry.register("billing", handler).expect("the first of its name");
    let stop = async {
        signal(SignalKind::terminate()).expect("signals can be taken").recv().await;
    };
    runtime::run(&settings, &registry, |_| {}, stop).unwrap_or_else(|error| panic!("{error}"));
}

fn program(broker: &Broker, input: &str, group: &str, more: &str, output: &str) -> Pawl {
    // A static member is back at once, however its process ended.
    let more = format!("membership = {{ static = true }}\n{more}");
    let pawl = Pawl::with_program(&support::settings(broker, input, group, &more), PROGRAM);
    std::fs::write(pawl.dir().join("output"), output).expect("a writable directory");
    pawl
}

/// Starts the process whenever it has ended, until `is` so. Returns how often it has ended.
fn keep_alive(pawl: &mut Pawl, most: usize, mut is: impl FnMut() -> bool) -> usize {
    let mut ends = 0;
    until("the process to get on", DEADLINE, || {
        if pawl.has_ended() {
            ends += 1;
            assert!(ends <= most, "it ended {ends} times:\n{}", pawl.log());
            pawl.start();
        }
        is().then_some(())
    });
    ends
}

#[test]
fn a_record_that_ends_the_process_is_found_as_input_as_retry_and_in_a_replay_and_all_others_take_effect_once()
{
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "billed", 1));
    let (group, letters) = (support::unique("careful"), format!("{input}-dlt"));
    let more = "program = { name = \"billing\" }\nretry = { attempts = 3, initial = \"50ms\" }\n\
                careful = { crashes = 2 }";
    let mut pawl = program(broker, &input, &group, more, &output);
    let harm = ["aborts", "aborts at its retry", "aborts in a replay"];
    let others = (0..200).map(|n| Out::new(format!("ORD-{}", n % 50), n.to_string()));
    let harmful = harm.map(|value| Out::new(value, value));
    let mut events: Vec<Out> = others.collect();
    for (n, event) in harmful.into_iter().enumerate() {
        events.insert(20 + 50 * n, event);
    }
    support::produce(broker, &input, events);

    pawl.start();
    let done =
        || support::read_all(broker, &output).len() >= 200 && support::read_all(broker, &letters).len() >= 3;
    // Twice before anybody is careful, and twice for each of two records.
    let ends = keep_alive(&mut pawl, 10, done);
    assert!(ends >= 4, "two are needed to be careful, and two to find the record; there were {ends}");
    let why = |value: &str| {
        let letters = support::read_all(broker, &letters);
        let letter = letters.iter().find(|letter| letter.text() == value).expect("a letter");
        String::from_utf8_lossy(letter.header(header::EXCEPTION_FQCN).expect("a code")).into_owned()
    };
    assert_eq!(harm.map(why), ["pawl.Crashed", "pawl.Crashed", "pawl.Rejected"]);
    assert!(pawl.log().contains("is in careful mode: 2 owners ended within 600s"), "{}", pawl.log());

    std::fs::write(pawl.dir().join("replaying"), "").expect("a writable directory");
    let config = pawl.dir().join("pawl.toml").display().to_string();
    let asking = std::thread::spawn(move || {
        let key = ["--key", "aborts in a replay", "--timeout", "1m", "--config", &config];
        command(&[&["dlt", "replay"][..], &key].concat(), b"")
    });
    let ends = keep_alive(&mut pawl, 6, || asking.is_finished());
    assert!(ends >= 2, "it ended {ends} times");
    let replayed = asking.join().expect("no panic");
    assert_eq!(replayed.code, 1, "{replayed:?}");
    assert!(
        replayed.stdout.contains("the process ended 2 times while the record was at the handler"),
        "{replayed:?}"
    );

    std::fs::write(pawl.dir().join("mended"), "").expect("a writable directory");
    let config = pawl.dir().join("pawl.toml").display().to_string();
    let replayed = command(&["dlt", "replay", "--all", "--config", &config], b"");
    assert_eq!(replayed.code, 0, "{replayed:?}");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let mut effects: Vec<String> =
        support::read_all(broker, &output).iter().map(|out| out.text().into()).collect();
    let mut expected: Vec<String> = (0..200).map(|n| n.to_string()).chain(harm.map(str::to_owned)).collect();
    effects.sort();
    expected.sort();
    assert_eq!(effects, expected);
    pawl.audit();
}

#[test]
fn a_panic_in_an_order_actor_costs_its_record_is_told_and_ends_nothing() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "billed", 1));
    let (group, letters) = (support::unique("panic"), format!("{input}-dlt"));
    let more = "program = { name = \"billing\", timeout = \"300ms\" }";
    let mut pawl = program(broker, &input, &group, more, &output);
    let harm = "panics when it is given up";
    let event = |n: usize| match n {
        30 => Out::new("BAD", harm),
        n => Out::new(format!("ORD-{}", n % 10), n.to_string()),
    };
    support::produce(broker, &input, (0..100).map(event));
    pawl.start();
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| !seen.is_empty());
    assert_eq!(dead[0].text(), harm);
    assert_eq!(dead[0].header(header::EXCEPTION_FQCN), Some(&b"pawl.Crashed"[..]));
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() >= 99);
    pawl.wait_ready();

    let config = pawl.dir().join("pawl.toml").display().to_string();
    let top = command(&["top", "--config", &config], b"");
    assert_eq!(top.code, 0, "{top:?}");
    assert!(
        top.stdout.contains("taken anew 1x") && top.stdout.contains("of key \"BAD\" panicked"),
        "{top:?}"
    );
    assert_eq!(pawl.metric("pawl_restarts_total"), Some(1.0));
    let tree = command(&["top", "--json", "--config", &config], b"").json();
    assert_eq!(tree["handlers"][0]["last_restarts"][0]["actor"], "the order actor");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(support::read_all(broker, &output).len(), 99, "each once");
    pawl.audit();
}

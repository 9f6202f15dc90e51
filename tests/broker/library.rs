//! Pawl as a library: a Rust program that brings its own handlers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use pawl::handlers::{Registry, from_fn};
use pawl::runtime::{self, RunError};
use pawl::settings::Settings;
use pawl_actors::dead_letter::header;
use pawl_actors::effects::Effects;
use pawl_actors::handler::{Call, Handler};
use pawl_actors::outcome::Outcome;
use tokio::sync::oneshot;

use crate::support::{self, Broker, Out, process};

#[path = "../../examples/handler.rs"]
#[allow(dead_code, reason = "its main is the example's own")]
pub mod example;

const DEADLINE: Duration = Duration::from_secs(60);

/// A run in a thread of this process.
pub struct Run {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), RunError>>,
}

impl Run {
    pub fn start(broker: &Broker, input: &str, group: &str, more: &str, handler: impl Handler) -> Run {
        let store = process::scratch("store").display().to_string();
        let text = support::settings(broker, input, group, more)
            .replace("[store]\n", &format!("[admin]\nlisten = \"off\"\n[store]\ndir = {store:?}\n"));
        let no_variables: [(&str, &str); 0] = [];
        let settings = Settings::parse(&PathBuf::from("pawl.toml"), &text, no_variables);
        let settings = settings.unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut registry = Registry::default();
        registry.register("billing", handler).expect("the first of its name");
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let stopped = async { stopped.await.expect("the test says when") };
            runtime::run(&settings, &registry, |running| assert_eq!(running.handlers.len(), 1), stopped)
        });
        Run { stop, thread }
    }

    pub fn stop(self) {
        self.stop.send(()).expect("it still runs");
        self.thread.join().expect("no panic").unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_programs_handler_keeps_state_and_writes_records_exactly_once_over_restarts() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 2), support::topic(broker, "numbered", 1));
    let group = support::unique("numbering");
    let event = |n: usize| Out::new(format!("ORD-{}", n % 10), format!("{n}")).header("n", format!("{n}"));
    // Each run has a store of its own: the state comes from the changelog.
    for round in 1..=3 {
        support::produce(broker, &input, (100 * (round - 1)..100 * round).map(event));
        let run = Run::start(broker, &input, &group, "program = {}", example::numbering(&output));
        support::read_until(broker, &output, DEADLINE, |seen| seen.len() >= 100 * round);
        run.stop();
    }
    let mut orders: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    for record in support::read_all(broker, &output) {
        let number = record.text().parse().expect("a number");
        orders.entry(record.key.clone().expect("a key")).or_default().push(number);
    }
    assert_eq!(orders.len(), 10);
    assert!(orders.values().all(|numbers| numbers.iter().copied().eq(1..=30)), "{orders:?}");
}

#[test]
fn a_handler_that_panics_or_never_answers_is_tried_again_and_then_given_up() {
    let Some(broker) = support::broker() else { return };
    let input = support::topic(broker, "orders", 1);
    let (group, letters) = (support::unique("billing"), format!("{input}-dlt"));
    let more = "retry = { attempts = 3, initial = \"10ms\" }\nprogram = { name = \"billing\", timeout = \"200ms\" }\n\
                dead_letter = { then = \"continue\" }";
    let handler = from_fn(|call: Call| async move {
        match call.record.value.as_deref() {
            Some(b"always") => panic!("no such currency"),
            Some(b"once") if call.attempt == 1 => panic!("only once"),
            Some(b"never answers") => std::future::pending().await,
            _ => Outcome::Done(Effects::default()),
        }
    });
    let values = ["always", "once", "never answers", "fine"];
    support::produce(broker, &input, values.map(|value| Out::new("K", value)));
    let run = Run::start(broker, &input, &group, more, handler);
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 2);
    let all = || (support::clients::committed(broker, &group, &input).get(&0) == Some(&4)).then_some(());
    support::until("the commit of all four", DEADLINE, all);
    run.stop();

    let text = |n: usize, name: &str| String::from_utf8_lossy(dead[n].header(name).expect(name)).into_owned();
    assert_eq!([dead[0].text(), dead[1].text()], ["always", "never answers"]);
    assert_eq!(text(0, header::EXCEPTION_FQCN), "pawl.Exhausted");
    assert_eq!(text(0, header::EXCEPTION_CAUSE_FQCN), "pawl.Panicked");
    assert!(text(0, header::EXCEPTION_MESSAGE).contains("no such currency"));
    assert_eq!(dead[0].header(header::DELIVERY_ATTEMPT), Some(&3i32.to_be_bytes()[..]));
    assert_eq!(text(1, header::EXCEPTION_CAUSE_FQCN), "pawl.TimedOut");
    assert_eq!(support::read_all(broker, &letters).len(), 2);
}

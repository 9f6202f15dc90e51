//! One instance: this program again, with Pawl as a library and the tally as its handler.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pawl::handlers::{Registry, from_fn};
use pawl::runtime;
use pawl::settings::Settings;
use pawl_actors::effects::{Effects, Emit, StateChange};
use pawl_actors::handler::{Call, Handler};
use pawl_actors::outcome::{Failure, Outcome, code};
use tokio::signal::unix::{SignalKind, signal};

use super::tally::{Link, Temper, temper};

/// `SETTINGS OUTPUT`
pub fn main(args: &[String]) {
    let [settings, output] = args else { panic!("settings file and output topic") };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let settings = Settings::load(Path::new(settings)).unwrap_or_else(|error| panic!("{error}"));
    let mut registry = Registry::default();
    registry.register("tally", tally(output)).expect("the first of its name");
    let stop = async {
        let mut signals = signal(SignalKind::terminate()).expect("a signal handler can be set");
        signals.recv().await;
    };
    if let Err(error) = runtime::run(&settings, &registry, |_| tracing::info!("started"), stop) {
        tracing::error!("ended: {error}");
        std::process::exit(4);
    }
}

fn tally(output: &str) -> impl Handler {
    let output: Arc<str> = output.into();
    from_fn(move |call: Call| {
        let output = output.clone();
        async move {
            let id = call.record.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
            let id = id.unwrap_or_default().to_owned();
            match temper(&id) {
                Temper::Takes(0) => {}
                Temper::Takes(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                Temper::FailsFor(attempts) if call.attempt <= attempts => {
                    return Outcome::Failed(Failure::transient(code::UNAVAILABLE, "not yet"));
                }
                Temper::FailsFor(_) => {}
                Temper::Poison => return Outcome::Failed(Failure::permanent(code::REJECTED, "poison")),
            }
            Outcome::Done(link(&call, &id, output))
        }
    })
}

fn link(call: &Call, id: &str, output: Arc<str>) -> Effects {
    let state = call.state.as_deref().and_then(|state| std::str::from_utf8(state).ok());
    let next = state.and_then(|state| state.parse::<Link>().ok()).unwrap_or_default().then(id);
    // The claim and the place are for whoever looks for a mistake.
    let text = format!("{next} {id} {}@{} claim {}", call.partition, call.record.offset, call.claim);
    let emit = Emit {
        topic: output,
        partition: None,
        key: call.record.key.clone(),
        value: Some(Bytes::from(text)),
        headers: Vec::new(),
        timestamp: None,
    };
    Effects { emit: vec![emit], state: StateChange::Set(Bytes::from(next.to_string())) }
}

//! One instance: this program again, with Pawl as a library and the tally as the handler of both groups.

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

use super::pipeline::{NUMBERED, TALLY};
use super::service::{self, Answer, Noted, SLOW, Service, Temper, temper};
use super::tally::Link;

/// `SETTINGS NAME SERVICE OUTPUT NUMBERED-OUTPUT`
pub fn main(args: &[String]) {
    let [settings, name, dir, output, numbered] = args else { panic!("five arguments") };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let settings = Settings::load(Path::new(settings)).unwrap_or_else(|error| panic!("{error}"));
    let service = Arc::new(Service::open(Path::new(dir), name));
    let mut registry = Registry::default();
    registry.register(TALLY, tally(output, &service)).expect("the first of its name");
    registry.register(NUMBERED, tally(numbered, &service)).expect("the first of its name");
    let stop = async {
        let mut signals = signal(SignalKind::terminate()).expect("a signal handler can be set");
        signals.recv().await;
    };
    if let Err(error) = runtime::run(&settings, &registry, |_| tracing::info!("started"), stop) {
        tracing::error!("ended: {error}");
        std::process::exit(4);
    }
}

fn tally(output: &str, service: &Arc<Service>) -> impl Handler {
    let (output, service): (Arc<str>, _) = (output.into(), service.clone());
    from_fn(move |call: Call| {
        let (output, service) = (output.clone(), service.clone());
        async move {
            let id = call.record.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
            let id = id.unwrap_or_default().to_owned();
            let (temper, at) = (temper(&id), service::now());
            if let Temper::Takes(millis) = temper {
                if millis > 0 {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                }
                return Outcome::Done(link(&call, &id, at, output));
            }
            let answer = service.answer(temper, call.attempt);
            service.note(&noted(&call, &id, answer));
            match answer {
                Answer::Done => Outcome::Done(link(&call, &id, at, output)),
                Answer::NotYet => Outcome::Failed(Failure::transient(code::UNAVAILABLE, "not yet")),
                Answer::NotYetSlow => {
                    Outcome::Failed(Failure::transient(code::UNAVAILABLE, "not for long").with_own_code(SLOW))
                }
                Answer::Refused => Outcome::Failed(Failure::permanent(code::REJECTED, "poison")),
            }
        }
    })
}

fn noted(call: &Call, id: &str, answer: Answer) -> Noted {
    Noted {
        handler: call.source.handler.to_string(),
        partition: call.partition.0,
        offset: call.record.offset.0,
        event_id: id.to_owned(),
        attempt: call.attempt,
        at: service::now(),
        failed: answer != Answer::Done,
    }
}

fn link(call: &Call, id: &str, at: u64, output: Arc<str>) -> Effects {
    let state = call.state.as_deref().and_then(|state| std::str::from_utf8(state).ok());
    let next = state.and_then(|state| state.parse::<Link>().ok()).unwrap_or_default().then(id);
    // When the call began is for the judge; claim and place are for whoever looks for a mistake.
    let (partition, offset, claim) = (call.partition, call.record.offset, call.claim);
    let text = format!("{next} {id} {at} {partition}@{offset} claim {claim} attempt {}", call.attempt);
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

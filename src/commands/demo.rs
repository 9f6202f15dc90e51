//! `pawl demo`: Pawl at work, with nothing to install. The mock cluster inside librdkafka stands in
//! for Kafka, a small HTTP server in this process for the billing service; between them runs Pawl as
//! `pawl run` does. Afterwards the evidence is judged: what was published, what the service saw, what
//! lies in the dead-letter topic. Deliberately absent: any number that Pawl tells of itself.

mod billing;
mod cluster;
mod instance;
mod judge;
mod report;
pub mod workload;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rdkafka::error::KafkaError;

use self::billing::Billing;
use self::cluster::{Cluster, GroupPosition};
use self::instance::{Ended, HANDLER, Instance, TOPIC};
use self::judge::{Evidence, judge};
use self::report::{Pace, Report};
use self::workload::{EventId, Workload};
use super::dlt::letter::Letter;
use super::dlt::scan::{Scan, Start};
use super::sending::sender::{Outgoing, Sender};
use super::{Failure, print, print_json};
use crate::cli::Demo;
use crate::exit::Exit;
use crate::settings::Kafka;
use crate::shown::Raw;

/// Of each topic.
const PARTITIONS: i32 = 4;
/// Records published ahead of the group's position: the mock cluster keeps 5 MiB of a partition, and
/// these make less than that even if all of them lie in one.
const MAX_AHEAD: u64 = 8_000;
/// Longest record, in bytes; the demo's are about 300.
const MAX_RECORD_BYTES: usize = 1_000;
/// How often the group is asked where it stands.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Longest time without any progress.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time in all.
const DEADLINE: Duration = Duration::from_secs(15 * 60);
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How the flow of records ended.
struct Flow {
    /// Records that were published.
    sent: usize,
    /// When it ended.
    at: Instant,
    /// Whether the group's position reached the last record.
    finished: bool,
}

/// The dead-letter topic, read back.
#[derive(Default)]
struct Letters {
    /// Intact ones of each event.
    intact: BTreeMap<EventId, u64>,
    /// Why, with their number.
    reasons: BTreeMap<String, u64>,
}

/// Carries `pawl demo` out.
///
/// # Errors
/// The parts cannot be started, or Pawl ends by itself.
pub fn execute(args: &Demo) -> Result<Exit, Failure> {
    let seed = args.seed.unwrap_or_else(any_seed);
    let workload = Arc::new(Workload::new(args.orders, seed));
    let letters_topic = format!("{TOPIC}-dlt");
    let topics = [
        TOPIC.to_owned(),
        letters_topic.clone(),
        format!("{HANDLER}-changelog"),
        format!("{HANDLER}-commands"),
    ];
    let cluster = Cluster::start(&topics, PARTITIONS).map_err(|error| failed("the mock cluster", error))?;
    let kafka = cluster.kafka();
    let billing = Billing::start(workload.clone()).map_err(|error| failed("the billing service", error))?;
    let store = tempfile::tempdir().map_err(|error| failed("a temporary directory", error))?;
    let settings = instance::settings(kafka.clone(), billing.url(), store.path(), args.recent_ids);
    let pawl = Instance::start(settings).map_err(|error| failed("Pawl", error))?;

    let bar = bar(workload.stream().len(), args.json);
    let flow = flow(&workload, &kafka, &pawl, &billing, &bar);
    bar.finish_and_clear();
    // Why Pawl ended matters more than what came of it.
    if pawl.stop()? == Ended::Interrupted {
        return Ok(Exit::Interrupted);
    }
    let flow = flow?;
    let history = billing.finish().map_err(|error| failed("the billing service", error))?;
    let letters = read_letters(&kafka, &letters_topic, &workload)?;
    let evidence =
        Evidence { published: &workload.copies(flow.sent), seen: &history.seen, letters: &letters.intact };
    let verdict = judge(&evidence);
    let took = flow.at.duration_since(history.first_call.unwrap_or(flow.at));
    let report = Report {
        orders: workload.orders(),
        seed,
        recent_ids: args.recent_ids,
        verdict,
        dead_letter_reasons: letters.reasons,
        pace: Pace::new(&verdict, took),
        finished: flow.finished,
    };
    if args.json {
        print_json(&report)?;
    } else {
        print(report.text().as_bytes())?;
    }
    Ok(if report.is_clean() { Exit::Done } else { Exit::Findings })
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Stopped, format!("the demo has to end, {what}: {error}"))
}

/// Short, because a person may type it again.
fn any_seed() -> u64 {
    u64::from(uuid::Uuid::new_v4().as_fields().0 % 1_000_000)
}

/// Drawn on a terminal only.
fn bar(records: usize, json: bool) -> ProgressBar {
    let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
    let style =
        ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} records  {per_sec:>12}  {msg}")
            .expect("a valid template");
    ProgressBar::with_draw_target(Some(records as u64), target).with_style(style)
}

/// Publishes, not too far ahead of the group's position, until that has reached the last record and none
/// waits for a retry.
fn flow(
    workload: &Workload,
    kafka: &Kafka,
    pawl: &Instance,
    billing: &Billing,
    bar: &ProgressBar,
) -> Result<Flow, Failure> {
    let lost = |error: KafkaError| failed("the mock cluster", error);
    let position = GroupPosition::new(kafka, HANDLER, TOPIC, PARTITIONS).map_err(lost)?;
    let sender = Sender::new(kafka, TOPIC, SEND_TIMEOUT, MAX_RECORD_BYTES, None).map_err(lost)?;
    let stream = workload.stream();
    let (began, mut progressed) = (Instant::now(), Instant::now());
    let (mut sent, mut reached, mut seen) = (0, 0, 0);
    while reached < stream.len() as u64 || pawl.parked() > 0 {
        let ahead = usize::try_from(MAX_AHEAD.saturating_sub(sent as u64 - reached)).unwrap_or(usize::MAX);
        for &id in stream[sent..].iter().take(ahead) {
            sender.send(sent as u64, &record(workload, id)).map_err(|stopped| lost(stopped.error))?;
            sent += 1;
        }
        std::thread::sleep(ASK_EVERY);
        let before = (reached, seen);
        reached = position.records().map_err(lost)?.min(sent as u64);
        let (applied, busy, calls) =
            billing.look(|history| (history.applied, history.busy, history.seen.len()));
        seen = calls;
        bar.set_position(reached);
        bar.set_message(format!("{applied} applied, {busy} times busy"));
        if before != (reached, seen) {
            progressed = Instant::now();
        }
        if pawl.has_ended() || progressed.elapsed() > PATIENCE || began.elapsed() > DEADLINE {
            break;
        }
    }
    let (at, finished) = (Instant::now(), reached == stream.len() as u64 && pawl.parked() == 0);
    sender.finish().map_err(|stopped| lost(stopped.error))?;
    Ok(Flow { sent, at, finished })
}

fn record(workload: &Workload, id: EventId) -> Outgoing {
    Outgoing {
        key: Some(Bytes::from(workload.key(id))),
        value: Some(Bytes::from(workload.value(id))),
        headers: workload.headers(id),
        ..Outgoing::default()
    }
}

/// Only a letter that has the original's key and value counts for its event.
fn read_letters(kafka: &Kafka, topic: &str, workload: &Workload) -> Result<Letters, Failure> {
    let mut letters = Letters::default();
    Scan::open(kafka.clone(), topic)?.read(Start::Beginning(None), |found| {
        let letter = Letter::read(&found);
        *letters.reasons.entry(reason(&letter)).or_default() += 1;
        if let Some(id) = intact(&letter, workload) {
            *letters.intact.entry(id).or_default() += 1;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(letters)
}

fn intact(letter: &Letter, workload: &Workload) -> Option<EventId> {
    let header = letter.headers.iter().find(|header| &header.name.0[..] == b"ce_id")?;
    let text = std::str::from_utf8(&header.value.as_ref()?.0).ok()?;
    let id: EventId = text.parse().ok()?;
    if !workload.stream().contains(&id) {
        return None;
    }
    let same = |raw: &Option<Raw>, original: &[u8]| raw.as_ref().is_some_and(|raw| raw.0 == original);
    let is_intact =
        same(&letter.key, workload.key(id).as_bytes()) && same(&letter.value, &workload.value(id));
    is_intact.then_some(id)
}

fn reason(letter: &Letter) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
    format!("{}: {}", text(&letter.code), text(&letter.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::dlt::letter::RawHeader;

    #[test]
    fn a_letter_counts_for_its_event_only_with_the_very_bytes_of_the_original() {
        let workload = Workload::new(10, 1);
        let id = EventId { order: 3, sequence: 2 };
        let raw = |text: &[u8]| Raw(Bytes::copy_from_slice(text));
        let header = RawHeader { name: raw(b"ce_id"), value: Some(raw(id.to_string().as_bytes())) };
        let letter = Letter {
            key: Some(raw(workload.key(id).as_bytes())),
            value: Some(raw(&workload.value(id))),
            headers: vec![header],
            ..Letter::default()
        };
        assert_eq!(intact(&letter, &workload), Some(id));
        for damaged in [
            Letter { value: None, ..letter.clone() },
            Letter { value: Some(raw(b"{}")), ..letter.clone() },
            Letter { key: Some(raw(b"ORD-000004")), ..letter.clone() },
            Letter { headers: Vec::new(), ..letter.clone() },
        ] {
            assert_eq!(intact(&damaged, &workload), None, "{damaged:?}");
        }
        assert_eq!(intact(&letter, &Workload::new(3, 1)), None, "an order that was never placed");
    }
}

//! The way back of dead letters: `pawl dlt replay`, `stop-replay` and `discard`.

use std::ops::ControlFlow;
use std::time::SystemTime;

use pawl_actors::command::{KeyName, Replay, What};
use pawl_actors::dead_letter::{Told, original};
use pawl_actors::ledger::LaneKey;
use pawl_actors::partition::{KeyBounds, lane_key};
use pawl_actors::record::Record;
use pawl_actors::selector::Reader;

use super::filter::filter;
use crate::cli::{DltDiscard, DltReplay, DltStopReplay};
use crate::commands::Failure;
use crate::commands::asking::Asked;
use crate::exit::Exit;
use crate::kafka::chunk::Chunk;
use crate::kafka::topic_reader::{Range, TopicReader};

/// Carries `pawl dlt replay` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn replay(args: &DltReplay) -> Result<Exit, Failure> {
    let asked = Asked::open(&args.asking)?;
    let filter = filter(&args.filter, args.group.as_ref(), SystemTime::now())?;
    // Each owner keeps to its share.
    let rate = args.rate.map(|rate| rate / asked.partitions().len().max(1) as f64);
    asked.ask(What::Replay(Replay { filter, rate, dry_run: args.dry_run, accept_lost: args.accept_lost }))
}

/// Carries `pawl dlt stop-replay` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn stop_replay(args: &DltStopReplay) -> Result<Exit, Failure> {
    Asked::open(&args.asking)?.ask(What::StopReplay {})
}

/// Carries `pawl dlt discard` out.
///
/// # Errors
/// Settings, no broker, no right, no such letter, or one that is not the handler's.
pub fn discard(args: &DltDiscard) -> Result<Exit, Failure> {
    let mut asked = Asked::open(&args.asking)?;
    let (partition, offset) = (args.letter_partition, args.offset);
    let topic = asked.handler().dead_letter_topic();
    let letter = read(&asked, &topic, partition, offset)?;
    let told = Told::read(&letter);
    if let Some(group) = told.group.as_deref().filter(|group| *group != asked.group()) {
        return Err(Failure::new(
            Exit::Findings,
            format!(
                "{topic} {partition} {offset} is a letter of group \"{group}\", and \"{}\" was asked: ask the handler of \
                 that group (--handler)",
                asked.group()
            ),
        ));
    }
    let Some((quarantine, number)) = told.place else {
        return Err(Failure::new(
            Exit::Findings,
            format!(
                "{topic} {partition} {offset} is no letter of a key in quarantine: nothing waits for it, and it need not \
                 be discarded"
            ),
        ));
    };
    let record = original(&letter);
    let bounds = KeyBounds { recent_ids: asked.handler().recent_ids as usize, max_row_bytes: usize::MAX };
    let handler = asked.handler();
    let key = lane_key(&mut Reader::new(&record), &handler.key, handler.null_key, bounds);
    let key = key.unwrap_or(LaneKey::Unusable);
    asked.only(partition);
    let (key, through) = (KeyName(key), Some((quarantine, number)));
    asked.ask(What::Discard { key, through, reason: args.reason.clone() })
}

/// The record at a place of the dead-letter topic.
fn read(asked: &Asked, topic: &str, partition: i32, offset: i64) -> Result<Record, Failure> {
    super::scan::Scan::open(asked.settings.kafka.clone(), topic)?;
    let reader = TopicReader::new(&asked.settings.kafka, topic, "dlt");
    let range = Range { partition, from: Some(offset), to: Some(offset + 1) };
    let (mut found, mut chunk) = (None, Chunk::default());
    reader.read(&[range], |message| {
        found = Some(chunk.record(message));
        Ok::<_, Failure>(ControlFlow::Break(()))
    })?;
    found.ok_or_else(|| {
        Failure::new(Exit::Findings, format!("there is no record at {topic} {partition} {offset}"))
    })
}

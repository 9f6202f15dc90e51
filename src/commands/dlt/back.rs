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
use crate::cli::{Asking, DltDiscard, DltReplay, DltStopReplay};
use crate::commands::Failure;
use crate::commands::asking::{Asked, Request, ask};
use crate::exit::Exit;
use crate::kafka::chunk::Chunk;
use crate::kafka::topic_reader::{Range, TopicReader};

/// Carries `pawl dlt replay` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn replay(args: &DltReplay) -> Result<Exit, Failure> {
    let filter = filter(&args.filter, args.group.as_ref(), SystemTime::now())?;
    let (rate, dry_run, accept_lost) = (args.rate, args.dry_run, args.accept_lost);
    ask(&args.asking, &Request::Replay(Replay { filter, rate, dry_run, accept_lost }))
}

/// Carries `pawl dlt stop-replay` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn stop_replay(args: &DltStopReplay) -> Result<Exit, Failure> {
    ask(&args.asking, &Request::Same(What::StopReplay {}))
}

/// Carries `pawl dlt discard` out.
///
/// # Errors
/// Settings, no broker, no right, no such letter, or one that is not the handler's.
pub fn discard(args: &DltDiscard) -> Result<Exit, Failure> {
    let asking = Asking { partition: Some(args.partition), whom: args.whom.clone() };
    ask(&asking, &Request::Discard { offset: args.offset, reason: args.reason.clone() })
}

/// What discards the letters of a key up to the one that lies here.
///
/// # Errors
/// No broker, no right, no such letter, or one that is not the handler's.
pub fn discard_of(asked: &Asked, partition: i32, offset: i64, reason: String) -> Result<What, Failure> {
    let topic = asked.handler().dead_letter_topic();
    let letter = read(asked, &topic, partition, offset)?;
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
    Ok(What::Discard { key: KeyName(key), through: Some((quarantine, number)), reason })
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

//! `pawl dlt list` and `pawl dlt show`: what failed, and why, as a `read_committed` reader sees it.
//!
//! Reads Spring Kafka's headers, so it shows the letters of a Spring service as well.

pub(super) mod back;
pub(super) mod letter;
pub(super) mod scan;

use std::ops::ControlFlow;

use self::letter::Letter;
use self::scan::{Scan, Start};
use super::{Failure, connection, print, print_json};
use crate::cli::{DltList, DltShow};
use crate::exit::Exit;

/// Carries `pawl dlt list` out.
///
/// # Errors
/// No broker, no such topic or partition.
pub fn list(args: &DltList) -> Result<Exit, Failure> {
    let scan = Scan::open(connection(&args.connection)?, &args.topic)?;
    let (mut shown, mut more) = (0, false);
    scan.read(Start::Beginning(args.partition), |letter| {
        let wanted = args.group.as_ref().is_none_or(|group| letter.group.as_ref() == Some(group));
        if !wanted {
            return Ok(ControlFlow::Continue(()));
        }
        if shown == args.limit {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        shown += 1;
        if args.json {
            print_json(&letter)?
        } else {
            print(letter.line().as_bytes())?
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !args.json {
        eprintln!("{}", summary(shown, more, &args.topic));
    }
    Ok(Exit::Done)
}

fn summary(shown: u32, more: bool, topic: &str) -> String {
    match (shown, more) {
        (0, _) => format!("no dead letters in {topic}"),
        (shown, true) => format!("the first {shown} dead letters in {topic}; there are more: raise --limit"),
        (1, false) => format!("1 dead letter in {topic}"),
        (shown, false) => format!("{shown} dead letters in {topic}"),
    }
}

/// Carries `pawl dlt show` out.
///
/// # Errors
/// No broker, or nothing at this place.
pub fn show(args: &DltShow) -> Result<Exit, Failure> {
    let scan = Scan::open(connection(&args.connection)?, &args.topic)?;
    let mut next: Option<Letter> = None;
    scan.read(Start::At(args.partition, args.offset), |letter| {
        next = Some(letter);
        Ok(ControlFlow::Break(()))
    })?;
    let DltShow { topic, partition, offset, .. } = args;
    match next {
        Some(letter) if letter.offset == *offset => {
            if args.json {
                print_json(&letter)?
            } else {
                print(letter.page().as_bytes())?
            }
            Ok(Exit::Done)
        }
        Some(letter) => Err(Failure::new(
            Exit::Findings,
            format!(
                "there is no record at {topic} {partition} {offset}: the next is at offset {}; \
                 pawl dlt list {topic} shows what is there",
                letter.offset
            ),
        )),
        None => Err(Failure::new(
            Exit::Findings,
            format!(
                "there is no record at {topic} {partition} {offset} or after it; \
                 pawl dlt list {topic} shows what is there"
            ),
        )),
    }
}

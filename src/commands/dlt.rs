//! `pawl dlt list` and `pawl dlt show`: what failed, and why, as a `read_committed` reader sees it.
//!
//! Reads Spring Kafka's headers, so it shows the letters of a Spring service as well.

pub(crate) mod back;
mod counts;
pub(super) mod export;
pub(crate) mod filter;
pub(super) mod import;
pub(super) mod letter;
mod line;
pub(super) mod scan;

use std::ops::ControlFlow;
use std::time::SystemTime;

use pawl_actors::command::Filter;

use self::counts::Counts;
use self::filter::{filter, is_about};
use self::letter::Letter;
use self::scan::{Found, Scan, Start};
use super::{Failure, connection, print, print_json};
use crate::cli::{DltList, DltShow};
use crate::exit::Exit;

/// Carries `pawl dlt list` out.
///
/// # Errors
/// No broker, no such topic or partition.
pub fn list(args: &DltList) -> Result<Exit, Failure> {
    let filter = filter(&args.filter, args.group.as_ref(), SystemTime::now())?;
    let scan = Scan::open(connection(&args.connection)?, &args.topic)?;
    if args.count {
        return count(args, &filter, &scan);
    }
    let (mut shown, mut more) = (0, false);
    scan.read(Start::Beginning(args.partition), |found| {
        if !is_about(&filter, &found) {
            return Ok(ControlFlow::Continue(()));
        }
        if shown == args.limit {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        shown += 1;
        let letter = Letter::read(&found);
        if args.json {
            print_json(&letter)?
        } else {
            print(letter.line().as_bytes())?
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !args.json {
        eprintln!("{}", summary(shown.into(), more, &args.topic, filter == Filter::default()));
    }
    Ok(Exit::Done)
}

fn count(args: &DltList, filter: &Filter, scan: &Scan) -> Result<Exit, Failure> {
    let mut counts = Counts::default();
    let held = scan.read_whole(args.partition, |found| {
        if is_about(filter, &found) {
            counts.add(&Letter::read(&found));
        }
        Ok(())
    })?;
    let rows = counts.rows();
    if args.json {
        rows.iter().try_for_each(print_json)?;
    } else {
        if !rows.is_empty() {
            print(counts::table(&rows).as_bytes())?;
        }
        let letters = rows.iter().map(|row| row.letters).sum();
        eprintln!("{}", summary(letters, false, &args.topic, *filter == Filter::default()));
    }
    held_back(held, &args.topic);
    Ok(Exit::Done)
}

fn summary(shown: u64, more: bool, topic: &str, all: bool) -> String {
    match (shown, more) {
        (0, _) if all => format!("no dead letters in {topic}"),
        (0, _) => format!("no such dead letters in {topic}"),
        (shown, true) => format!("the first {shown} dead letters in {topic}; there are more: raise --limit"),
        (1, false) => format!("1 dead letter in {topic}"),
        (shown, false) => format!("{shown} dead letters in {topic}"),
    }
}

/// Tells of records that nobody can read yet.
fn held_back(records: i64, topic: &str) {
    if records > 0 {
        let them = if records == 1 { "1 record".into() } else { format!("{records} records") };
        eprintln!("pawl: an open transaction holds back {them} of {topic}, left out here");
    }
}

/// Carries `pawl dlt show` out.
///
/// # Errors
/// No broker, or nothing at this place.
pub fn show(args: &DltShow) -> Result<Exit, Failure> {
    let scan = Scan::open(connection(&args.connection)?, &args.topic)?;
    let mut next: Option<Found> = None;
    scan.read(Start::At(args.partition, args.offset), |found| {
        next = Some(found);
        Ok(ControlFlow::Break(()))
    })?;
    let DltShow { topic, partition, offset, .. } = args;
    match next.as_ref().map(Letter::read) {
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

//! `pawl audit`: recomputes each partition's books from the topics and says whether they agree.
//!
//! Facts are gathered in `gather` and `rows`, counted in `tally`, judged in `judge` and `ledger`, which
//! ask nobody. Deliberately absent: changing anything.

mod facts;
mod finding;
mod gather;
mod judge;
mod ledger;
mod rows;
mod tally;

use pawl_actors::ledger::Books;
use serde::Serialize;

use self::facts::{Facts, PartitionFacts};
use self::finding::{Check, Finding, Level};
use self::gather::{Gathering, Missing};
use super::{Failure, handler, print, print_json, settings};
use crate::cli::Audit;
use crate::exit::Exit;
use crate::settings::{HandlerSettings, Kafka};

/// The books of a partition at the moment that is judged.
#[derive(Serialize)]
struct Judged {
    handler: String,
    partition: i32,
    /// Where the books begin.
    began: i64,
    watermark: i64,
    /// Records of the input that the books must account for, as far as they are still there.
    counted: u64,
    #[serde(flatten)]
    books: Books,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    errors: usize,
    notes: usize,
    partitions: Vec<Judged>,
    findings: Vec<Finding>,
}

/// Carries `pawl audit` out.
///
/// # Errors
/// No broker, no right to read, or a row that cannot be read. What does not agree is a finding.
pub fn execute(args: &Audit) -> Result<Exit, Failure> {
    let settings = settings(&args.settings)?;
    let (mut partitions, mut findings) = (Vec::new(), Vec::new());
    let handlers: Vec<(&str, &HandlerSettings)> = match &args.handler {
        Some(name) => vec![handler(&settings, Some(name))?],
        None => settings.handler.iter().map(|(name, handler)| (name.as_str(), handler)).collect(),
    };
    for (name, handler) in handlers {
        let (judged, found) = audit(&settings.kafka, name, handler)?;
        if !args.json {
            text(&judged, &found).iter().try_for_each(|line| print(line.as_bytes()))?;
        }
        partitions.extend(judged);
        findings.extend(found);
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, notes) = (count(Level::Error), count(Level::Note));
    if args.json {
        print_json(&Report { ok: errors == 0, errors, notes, partitions, findings })?;
    } else {
        print(summary(errors, notes).as_bytes())?;
    }
    Ok(if errors == 0 { Exit::Done } else { Exit::Findings })
}

/// A disagreement is looked at a second time where the handler runs on meanwhile: compaction may have
/// taken rows away between two readings.
fn audit(
    kafka: &Kafka,
    name: &str,
    handler: &HandlerSettings,
) -> Result<(Vec<Judged>, Vec<Finding>), Failure> {
    let gathering = Gathering::new(kafka, name, handler)?;
    let mut again = true;
    loop {
        let facts = match gathering.facts()? {
            Ok(facts) => facts,
            Err(missing) => return Ok((Vec::new(), vec![without_facts(name, missing)])),
        };
        let findings = judge::handler(&facts);
        let disagrees = findings.iter().any(|finding| finding.level == Level::Error);
        if disagrees && again && facts.partitions.iter().any(PartitionFacts::has_moved) {
            again = false;
            continue;
        }
        return Ok((judged(&facts), findings));
    }
}

fn without_facts(name: &str, missing: Missing) -> Finding {
    let at = Finding::new(name, None, Check::Books);
    match missing {
        Missing::Input(topic) => {
            at.error(format!("there is no input topic \"{topic}\""), "correct the settings, or create it")
        }
        Missing::Changelog(topic) => {
            at.note(format!("there is no changelog \"{topic}\": the handler never ran"))
        }
    }
}

fn judged(facts: &Facts) -> Vec<Judged> {
    let judged = |one: &PartitionFacts| {
        let row = one.row.as_ref()?;
        Some(Judged {
            handler: facts.handler.clone(),
            partition: one.partition,
            began: row.began,
            watermark: row.watermark,
            counted: one.input.below + one.input.ahead,
            books: row.books,
        })
    };
    facts.partitions.iter().filter_map(judged).collect()
}

/// One line for each partition that agrees, and one for each finding that a person should know.
fn text(partitions: &[Judged], findings: &[Finding]) -> Vec<String> {
    let wrong = |one: &Judged| {
        let of =
            |finding: &&Finding| finding.partition == Some(one.partition) && finding.level == Level::Error;
        findings.iter().any(|finding| of(&finding))
    };
    let agreed = partitions.iter().filter(|one| !wrong(one)).map(|one| {
        let Judged { handler, partition, watermark, books, .. } = one;
        let received = books.received;
        format!("ok: {handler} partition {partition}: {received} received = {books}; watermark {watermark}\n")
    });
    let without_books = findings.iter().filter(|finding| {
        let known = partitions.iter().any(|one| finding.partition == Some(one.partition));
        finding.level == Level::Ok && !known
    });
    let told = findings.iter().filter(|finding| finding.level != Level::Ok);
    agreed.chain(without_books.chain(told).map(Finding::line)).collect()
}

fn summary(errors: usize, notes: usize) -> String {
    match (errors, notes) {
        (0, 0) => "the books agree\n".into(),
        (0, notes) => format!("the books agree, notes: {notes}\n"),
        (errors, notes) => format!("the books do not agree, errors: {errors}, notes: {notes}\n"),
    }
}

//! `pawl rewind`: has records of a handler handled once more, and says first what that means.
//!
//! Where each partition goes back to is decided here, pure, from what the group and the topic say; the owner
//! of a partition decides again whether it may.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::time::SystemTime;

use pawl_actors::command::What;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::asking::{Asked, ask_and_tell};
use super::dlt::filter::millis;
use super::{Failure, print};
use crate::cli::Rewind;
use crate::exit::Exit;
use crate::kafka::access::Live;
use crate::kafka::client::{self, LogContext};
use crate::kafka::group;

/// What is known of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    partition: i32,
    /// The group's offset; `None`: nothing was ever committed.
    committed: Option<i64>,
    /// The first offset that the topic has.
    low: i64,
    /// The first offset of the time that is asked for; `None`: there is none, or no time is asked for.
    at_time: Option<i64>,
}

/// To where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An offset of the only partition.
    Offset(i64),
    /// The first record of this time, in milliseconds since the epoch, or later.
    Time(i64),
    /// The first record that the topic still has.
    Earliest,
}

/// What a partition would go back by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    partition: i32,
    from: i64,
    to: i64,
}

/// What a rewind would do.
pub struct Plan {
    /// Partitions that go back.
    pub steps: Vec<Step>,
    /// What becomes of each partition, a line each.
    pub told: String,
}

impl Plan {
    /// What each partition is asked.
    pub fn parts(&self, reset: bool, reason: &str) -> BTreeMap<i32, What> {
        let part =
            |step: &Step| (step.partition, What::Rewind { to: step.to, reset, reason: reason.to_owned() });
        self.steps.iter().map(part).collect()
    }
}

/// Carries `pawl rewind` out.
///
/// # Errors
/// Settings, no broker, no right, a place that cannot be, or nobody agreed.
pub fn execute(args: &Rewind) -> Result<Exit, Failure> {
    let asked = Asked::open(&args.asking)?;
    let place = match (args.to_offset, args.to_time) {
        (Some(offset), _) => Place::Offset(offset),
        (None, Some(time)) => Place::Time(millis(time, SystemTime::now())),
        (None, None) => Place::Earliest,
    };
    let mut plan = plan(&asked, place)?;
    if plan.steps.is_empty() {
        print(plan.told.as_bytes())?;
        return Ok(Exit::Findings);
    }
    plan.told += &meaning(args.reset_state, &asked);
    if args.asking.whom.json {
        eprint!("{}", plan.told)
    } else {
        print(plan.told.as_bytes())?
    }
    if !args.yes && !agreed()? {
        return Err(Failure::new(
            Exit::Usage,
            "nothing was done: agree with --yes, or with yes at a terminal",
        ));
    }
    ask_and_tell(&asked, &args.asking, &plan.parts(args.reset_state, &args.reason))
}

/// What a rewind to a place would do.
///
/// # Errors
/// No broker, no right, or a place that cannot be.
pub fn plan(asked: &Asked, place: Place) -> Result<Plan, Failure> {
    if matches!(place, Place::Offset(_)) && asked.partitions().len() > 1 {
        let message = "an offset is one of a partition: name it with --partition, or use --to-time";
        return Err(Failure::new(Exit::Usage, message));
    }
    let time = if let Place::Time(time) = place { Some(time) } else { None };
    let (mut steps, mut told) = (Vec::new(), String::new());
    for standing in &standings(asked, time)? {
        let decided = decide(place, standing).map_err(|message| Failure::new(Exit::Usage, message))?;
        told += &line(standing, decided);
        steps.extend(decided);
    }
    Ok(Plan { steps, told })
}

/// Where a partition goes back to; `None`: it need not.
fn decide(place: Place, standing: &Standing) -> Result<Option<Step>, String> {
    let Standing { partition, committed, low, at_time } = *standing;
    if let Place::Offset(offset) = place {
        if offset < low {
            return Err(format!(
                "offset {offset} of partition {partition} is gone: the topic begins at {low}"
            ));
        }
        if committed.is_none_or(|committed| offset > committed) {
            let done = committed.map_or("nothing".into(), |committed| format!("what lies below {committed}"));
            return Err(format!(
                "offset {offset} of partition {partition} lies ahead: the group has done {done}"
            ));
        }
    }
    let to = match place {
        Place::Offset(offset) => Some(offset),
        Place::Time(_) => at_time.map(|offset| offset.max(low)),
        Place::Earliest => Some(low),
    };
    let step = |(from, to)| Step { partition, from, to };
    Ok(committed.zip(to).filter(|(from, to)| to < from).map(step))
}

fn line(standing: &Standing, step: Option<Step>) -> String {
    let Standing { partition, committed, .. } = standing;
    match (step, committed) {
        (Some(Step { from, to, .. }), _) => format!(
            "partition {partition}: from offset {from} back to {to}, up to {} records are handled again\n",
            from - to
        ),
        (None, Some(committed)) => {
            format!("partition {partition}: stays at offset {committed}, nothing before it is meant\n")
        }
        (None, None) => format!("partition {partition}: nothing of it was ever handled\n"),
    }
}

/// What a rewind means for state and outputs.
pub fn meaning(reset: bool, asked: &Asked) -> String {
    let handler = asked.handler();
    let mut text = String::from("\nThis means:\n");
    let mut point = |point: &str| writeln!(text, "- {point}").expect("a String takes any text");
    point(
        "The handler is called again for each of these records. A service that does not know the Idempotency-Key of a \
         call does its work a second time.",
    );
    point("What the handler emits is written again: readers of its topics see it twice.");
    point(match reset {
        true => "All keys of these partitions lose their state, also those without a record from there on.",
        false => "Keys keep their state: the handler sees, with old records, states from after them.",
    });
    point(
        "The keys' event ids are forgotten: a duplicate of an event that lies before is taken for new; among what is \
         handled again duplicates are recognised.",
    );
    point(&format!(
        "Letters of these records stay in {}, and are not replayed any more: the records come again. A key in quarantine \
         since before stays there with its earlier letters, and its records follow once more.",
        handler.dead_letter_topic()
    ));
    point("Records that were parked before wait on for their retry.");
    point("The books begin anew. pawl audit judges what was done since.");
    let grace = humantime::format_duration(handler.membership.revoke_grace);
    writeln!(text, "\nEach partition stands still until its running calls have ended, {grace} at most, and a moment more.")
        .expect("a String takes any text");
    text
}

/// Asks a person, where there is one.
fn agreed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("Rewind? Type yes: ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

fn standings(asked: &Asked, time: Option<i64>) -> Result<Vec<Standing>, Failure> {
    let (kafka, handler) = (&asked.settings.kafka, asked.handler());
    let (topic, group) = (&handler.topic, handler.group(asked.name()));
    let failed = |error: KafkaError| {
        let what = "this takes the rights to read the topic and to describe the group";
        Failure::new(Exit::Stopped, format!("{topic}, group {group}: {error}; {what}"))
    };
    let opened = client::consumer(kafka, group).open(LogContext::new("rewind"));
    let consumer: Live<BaseConsumer<LogContext>> = opened.map_err(|error| failed(error.into()))?;
    let timeout = kafka.request_timeout;
    let standing = |partition: &i32| {
        let partition = *partition;
        let committed = group::committed(&consumer, topic, partition, timeout)?;
        let (low, _) = consumer.fetch_watermarks(topic, partition, timeout)?;
        let at_time = match time {
            None => None,
            Some(time) => {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(topic, partition, Offset::Offset(time))?;
                let found = consumer.offsets_for_times(list, timeout)?;
                found.elements().first().and_then(|one| one.offset().to_raw()).filter(|offset| *offset >= 0)
            }
        };
        Ok(Standing { partition, committed: committed.map(|found| found.next), low, at_time })
    };
    asked.partitions().iter().map(standing).collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDING: Standing = Standing { partition: 1, committed: Some(50), low: 10, at_time: None };

    fn to(place: Place, standing: Standing) -> Result<Option<(i64, i64)>, String> {
        decide(place, &standing).map(|step| step.map(|step| (step.from, step.to)))
    }

    #[test]
    fn a_partition_goes_back_to_what_was_asked_for_and_never_forward() {
        assert_eq!(to(Place::Offset(20), STANDING), Ok(Some((50, 20))));
        assert_eq!(to(Place::Offset(50), STANDING), Ok(None));
        assert_eq!(to(Place::Earliest, STANDING), Ok(Some((50, 10))));
        let at = |offset| Standing { at_time: Some(offset), ..STANDING };
        assert_eq!(to(Place::Time(0), at(30)), Ok(Some((50, 30))));
        assert_eq!(to(Place::Time(0), at(3)), Ok(Some((50, 10))), "what is gone cannot come again");
        assert_eq!(to(Place::Time(0), at(70)), Ok(None));
        assert_eq!(to(Place::Time(0), STANDING), Ok(None), "nothing is as late as that");
        let unborn = Standing { committed: None, ..STANDING };
        assert_eq!(to(Place::Earliest, unborn), Ok(None));
    }

    #[test]
    fn an_offset_that_cannot_be_is_refused_with_what_there_is() {
        let refused = |offset, standing| to(Place::Offset(offset), standing).expect_err("it cannot be");
        assert!(refused(9, STANDING).contains("begins at 10"));
        assert!(refused(51, STANDING).contains("below 50"));
        assert!(refused(20, Standing { committed: None, ..STANDING }).contains("nothing"));
    }
}

//! What the ledger says of itself: whose it is, who owns it, where the group stands. Pure.

use std::cmp::Ordering;

use pawl_actors::ledger::PartitionRow;

use super::facts::{Facts, PartitionFacts};
use super::finding::{Check, Finding};

/// A partition without a row: nothing of it was ever finished.
pub fn without_books(facts: &Facts, one: &PartitionFacts) -> Finding {
    let at = Finding::at(facts, one, Check::Books);
    let proves = one.group.and_then(|group| group.metadata).is_some_and(|it| it.proves_a_ledger());
    match &one.claim {
        _ if proves => at.error(
            "the group's offset was committed together with a ledger, but the changelog holds none".into(),
            "it was deleted, or its rows have expired (cleanup.policy must be compact): restore the topic, or begin \
             with a new group",
        ),
        Some(claim) => at.ok(format!("claimed by {}, nothing finished yet", claim.instance)),
        None => at.ok("never owned by anybody".into()),
    }
}

/// Partitions that were added to the input, whose records nobody takes in.
pub fn partitions(facts: &Facts) -> Option<Finding> {
    let (input, ledger) = (facts.input_partitions, facts.partitions.len());
    let what = format!(
        "{} has {input} partitions, the changelog {ledger}: the others are not taken in",
        facts.topic
    );
    let remedy = "keys have moved between partitions, away from their ledgers: drain the old partitions, then begin \
                  with a new group";
    let at = Finding::of(facts, None, Check::Ledger);
    usize::try_from(input).is_ok_and(|input| input > ledger).then(|| at.error(what, remedy))
}

/// A ledger that cannot be compared with what the settings and the topic are now.
pub fn foreign(facts: &Facts, one: &PartitionFacts, row: &PartitionRow) -> Option<Finding> {
    let at = Finding::at(facts, one, Check::Ledger);
    if row.topic_id != facts.topic_id {
        let what = format!(
            "the ledger belongs to topic id {}, but {} has id {}: it was deleted and made anew",
            row.topic_id, facts.topic, facts.topic_id
        );
        return Some(at.error(what, "begin with a new group"));
    }
    (row.fingerprint != facts.fingerprint).then(|| {
        at.error(
            "the ledger was written with other settings for key, null_key, event_id or sequence".into(),
            "set them back, or begin with a new group",
        )
    })
}

/// Claim, keys' rows, end of the input, and the group's position.
pub fn judge(facts: &Facts, one: &PartitionFacts, row: &PartitionRow) -> Vec<Finding> {
    let mut findings = vec![claim(facts, one, row), end(facts, one, row), group(facts, one, row)];
    if let Some(key) = &one.heads.misplaced {
        findings.push(Finding::at(facts, one, Check::Heads).note(format!(
            "keys such as {key} lie where Java's partitioner would not put them: their producer uses another one, or \
             partitions were added; a key that comes in two partitions has no order between them"
        )));
    }
    findings
}

fn claim(facts: &Facts, one: &PartitionFacts, row: &PartitionRow) -> Finding {
    let at = Finding::at(facts, one, Check::Claim);
    let Some(claim) = &one.claim else {
        return at.error(
            format!("the row was written under claim {}, but the changelog holds no claim", row.claim),
            "something else than Pawl has written there, or deleted records of it",
        );
    };
    let what = format!("claim {} by {}", claim.number, claim.instance);
    match claim.number.cmp(&row.claim) {
        Ordering::Equal => at.ok(what),
        Ordering::Greater => {
            at.ok(format!("{what}; nothing was finished under it yet, the row is of {}", row.claim))
        }
        Ordering::Less => at.error(
            format!("the row was written under claim {}, but the last claim is {}", row.claim, claim.number),
            "something else than Pawl has written there, or deleted records of it",
        ),
    }
}

/// Nothing is taken that the topic does not hold.
fn end(facts: &Facts, one: &PartitionFacts, row: &PartitionRow) -> Finding {
    let at = Finding::at(facts, one, Check::Heads);
    let high = one.input.high;
    let remedy = "the topic lost its end (an unclean leader election, a lost disk) or was made anew: what is written \
                  there now would be taken for processed, begin with a new group";
    if row.watermark > high {
        return at.error(format!("the watermark is {}, but the input ends at {high}", row.watermark), remedy);
    }
    match &one.heads.highest {
        Some((taken, key)) if *taken >= high => {
            at.error(format!("the key {key} has taken offset {taken}, but the input ends at {high}"), remedy)
        }
        _ => at.ok(format!("watermark {} of {high}", row.watermark)),
    }
}

/// The group's position against the row's watermark.
fn group(facts: &Facts, one: &PartitionFacts, row: &PartitionRow) -> Finding {
    let at = Finding::at(facts, one, Check::Group);
    let watermark = row.watermark;
    let Some(group) = one.group else {
        return at.note(format!(
            "the group has no offset here: it expired or was deleted; the ledger's watermark {watermark} counts"
        ));
    };
    let next = group.next;
    // A claim commits again what was there before.
    let claims = group.metadata.is_some_and(|metadata| metadata.epoch == 0);
    let by_pawl = one.committed_by().filter(|_| !claims);
    match by_pawl.map(|by| by.cmp(&(row.claim, row.epoch))) {
        Some(Ordering::Equal) if next == watermark => at.ok(format!("group offset {next}, as the watermark")),
        Some(Ordering::Greater) if next >= watermark => {
            at.ok(format!("group offset {next}, committed after the watermark {watermark}"))
        }
        Some(Ordering::Less) if !facts.transactional => at.note(format!(
            "group offset {next} of an earlier epoch than the watermark {watermark}: at-least-once writes it last"
        )),
        Some(_) => at.error(
            format!("group offset {next} and watermark {watermark} were not committed by one epoch"),
            "keep the topics as they are, and report it with this output: it should not happen",
        ),
        None if group.metadata.is_some_and(|metadata| metadata.resolved) => {
            at.ok(format!("group offset {next}, made of start; the watermark {watermark} counts"))
        }
        None => moved(at, next, watermark),
    }
}

/// The position as it is now is not Pawl's.
fn moved(at: Finding, next: i64, watermark: i64) -> Finding {
    match next.cmp(&watermark) {
        Ordering::Equal => at.ok(format!("group offset {next}, as the watermark")),
        Ordering::Less => at.note(format!(
            "group offset {next} lies below the watermark {watermark}: somebody set it back, which has no effect"
        )),
        Ordering::Greater => at.error(
            format!("group offset {next} lies above the watermark {watermark}: somebody set it forward"),
            "the next start skips what lies between and books it as skipped; to keep it, set the offset back to the \
             watermark with kafka-consumer-groups.sh while the handler is stopped",
        ),
    }
}

//! The dead letters: each has its reason, none is there twice, and those of a quarantine are in order without
//! a gap. That all of them were dealt with is told by the books and by the output.

use std::collections::{BTreeMap, BTreeSet};

use super::attempts::by_record;
use super::pipeline::{NUMBERED, Pipeline, TALLY};
use super::read::{Letter, Read};
use super::service::{ATTEMPTS, Noted, Temper, temper};

pub fn judge(
    pipeline: &Pipeline,
    input: &[Read],
    letters: &[Letter],
    noted: &[Noted],
    findings: &mut Vec<String>,
) {
    let calls = by_record(noted);
    let records: BTreeMap<_, _> = input.iter().map(|read| ((read.partition, read.offset), read)).collect();
    let mut seen = BTreeSet::new();
    let mut say = |letter: &Letter, what: &str| {
        let Letter { partition, original, event_id, disposition, .. } = letter;
        findings.push(format!(
            "{}: letter of {partition}@{original}, {event_id}, {disposition}: {what}",
            pipeline.name
        ));
    };
    for letter in letters {
        let place = (letter.partition, letter.original);
        if !seen.insert(place) {
            say(letter, "its record has another letter");
        }
        let same = |read: &&Read| (&read.key, &read.value) == (&letter.key, &letter.event_id);
        if records.get(&place).is_none_or(|read| !same(read)) {
            say(letter, "its record is another one");
        }
        let failed =
            calls.get(&(pipeline.name, letter.partition, letter.original)).map_or(&[][..], Vec::as_slice);
        let failed: BTreeSet<u32> =
            failed.iter().filter(|call| call.failed).map(|call| call.attempt).collect();
        if !has_reason(pipeline, letter, &failed) {
            say(letter, &format!("it has no such reason; failed attempts: {failed:?}"));
        }
    }
    judge_places(pipeline, letters, &mut say);
}

fn has_reason(pipeline: &Pipeline, letter: &Letter, failed: &BTreeSet<u32>) -> bool {
    let (temper, numbered) = (temper(&letter.event_id), pipeline.name == NUMBERED);
    match letter.disposition.as_str() {
        "poison" => matches!(temper, Temper::Poison(_)) && failed.contains(&1) && letter.attempt == Some(1),
        "exhausted" => {
            let all = (1..=ATTEMPTS).all(|attempt| failed.contains(&attempt));
            matches!(temper, Temper::Stubborn(_)) && all && letter.attempt == i32::try_from(ATTEMPTS).ok()
        }
        "follower" => letter.attempt.is_none() && letter.place.is_some_and(|(_, number)| number > 0),
        // Held against the numbers by the judge of the sequence.
        "sequence-gap" | "sequence-late" => numbered,
        _ => false,
    }
}

/// Letters of a quarantine are numbered from 0 on as they lie, and the first is that of the record that began
/// it; where offsets order a key, so are its letters.
fn judge_places(pipeline: &Pipeline, letters: &[Letter], say: &mut impl FnMut(&Letter, &str)) {
    let mut next: BTreeMap<(&str, i64), i64> = BTreeMap::new();
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for letter in letters {
        let Some((quarantine, number)) = letter.place else {
            if letter.disposition != "sequence-late" {
                say(letter, "it belongs to no quarantine");
            }
            continue;
        };
        let expected = next.entry((&letter.key, quarantine)).or_default();
        if number != *expected || (number == 0 && letter.original != quarantine) {
            say(letter, &format!("it is number {number} of quarantine {quarantine}, expected {expected}"));
        }
        *expected = number + 1;
        let before = last.insert(&letter.key, letter.original);
        if pipeline.name == TALLY && before.is_some_and(|before| before >= letter.original) {
            say(letter, &format!("it lies behind that of {before:?}"));
        }
    }
}

//! The order of producers' numbers: each event that was written takes effect once, and those of a key in the
//! order of their numbers, but for what came after its gap was given up. A gap is given up only where the
//! number was missing for as long as the settings say.

use std::collections::{BTreeMap, BTreeSet};

use super::Gap;
use super::pipeline::GAP_TIMEOUT;
use super::read::{Letter, Read, effect};
use super::tally::Link;

/// What is known of a key.
#[derive(Default)]
struct Key<'a> {
    /// Numbers that were written: offset and time of the first record with it.
    written: BTreeMap<i64, (i64, i64)>,
    /// Effects as they came: number, link, event id, time of the call.
    effects: Vec<(i64, &'a str, &'a str, i64)>,
    /// Numbers whose letter says that they came after their gap, or shows it: in quarantine they follow like others.
    late: BTreeSet<i64>,
    /// When the first letter of a number was written.
    letters: BTreeMap<i64, i64>,
}

pub fn judge(input: &[Read], output: &[Read], letters: &[Letter], gap: Gap, findings: &mut Vec<String>) {
    let mut keys: BTreeMap<&str, Key> = BTreeMap::new();
    for read in input {
        let written = &mut keys.entry(&read.key).or_default().written;
        written.entry(number(&read.value)).or_insert((read.offset, read.at));
    }
    for letter in letters {
        let (key, number) = (keys.entry(&letter.key).or_default(), number(&letter.event_id));
        if key.letters.contains_key(&number) {
            continue;
        }
        let behind = key.letters.range(number..).next().is_some();
        if letter.disposition == "sequence-late" || (letter.disposition == "follower" && behind) {
            key.late.insert(number);
        }
        key.letters.insert(number, letter.at);
    }
    for read in output {
        match effect(&read.value) {
            Some(effect) => keys.entry(&read.key).or_default().effects.push((
                number(effect.event_id),
                effect.link,
                effect.event_id,
                effect.at,
            )),
            None => findings.push(format!("{}: not an effect: {}", read.key, read.value)),
        }
    }
    for (name, key) in &keys {
        key.judge(gap, &mut |what| findings.push(format!("{name}: {what}")));
    }
}

impl Key<'_> {
    fn judge(&self, gap: Gap, say: &mut impl FnMut(String)) {
        let mut done = BTreeSet::new();
        let (mut state, mut before) = (Link::default(), 0);
        for (number, link, event_id, at) in &self.effects {
            state = state.then(event_id);
            if state.to_string() != *link {
                return say(format!("the chain breaks at {event_id}: {link} instead of {state}"));
            }
            if !done.insert(*number) {
                say(format!("number {number} took effect twice"));
            }
            if self.late.contains(number) {
                continue;
            }
            if *number < before {
                say(format!("number {number} took effect after {before}"));
            }
            if *number > before + 1 {
                self.judge_gap(before + 1, *number, *at, gap, say);
            }
            before = *number;
        }
        let written: BTreeSet<i64> = self.written.keys().copied().collect();
        if done != written {
            let (lost, strange) = (written.difference(&done), done.difference(&written));
            say(format!(
                "{:?} took no effect, {:?} were never written",
                lost.collect::<Vec<_>>(),
                strange.collect::<Vec<_>>()
            ));
        }
    }

    /// The numbers from `first` on were given up, `behind` stands behind them and was called at this time.
    fn judge_gap(&self, first: i64, behind: i64, called: i64, gap: Gap, say: &mut impl FnMut(String)) {
        let which = format!("the gap from {first} to {}", behind - 1);
        let given_up = match (gap, self.letters.get(&behind)) {
            (_, Some(at)) => *at,
            (Gap::Skip, None) => called,
            (Gap::DeadLetter, None) => return say(format!("{which}: no letter stands behind it")),
        };
        let waited = self.written.range(behind..).map(|(_, (_, at))| *at).min().unwrap_or(i64::MAX);
        if given_up < waited.saturating_add(GAP_TIMEOUT.as_millis() as i64) {
            say(format!("{which} was given up at {given_up}, and is known since {waited} at the earliest"));
        }
        let there = self.written.get(&behind).map_or(0, |(offset, _)| *offset);
        for (number, (offset, _)) in self.written.range(first..behind) {
            if *offset < there {
                say(format!("{which}: {number} was there before what stands behind the gap"));
            }
        }
    }
}

/// The number that an event id ends with.
fn number(event_id: &str) -> i64 {
    event_id.rsplit('/').next().and_then(|text| text.parse().ok()).expect("an id ends with its number")
}

//! The ledger of a handler without states does not grow with the keys that it has ever seen.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pawl_actors::ledger::lane_of;

use crate::support::{self, Broker, Out, Pawl, clients};

const DEADLINE: Duration = Duration::from_secs(120);
const WAVES: usize = 40;
/// Keys of a wave, each of which has one event and never another.
const KEYS: usize = 500;
/// Between two waves, by the time stamps of their records.
const APART: Duration = Duration::from_secs(30);
/// Waves whose ids are not yet older than `recent_ids_age`, one minute.
const REMEMBERED: usize = 3;

fn wave(number: usize) -> impl Iterator<Item = Out> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let at = now - APART * (WAVES - number) as u32;
    (0..KEYS).map(move |n| {
        let name = format!("order-{number}-{n}");
        let event = Out::new(name.clone(), "created").header("ce_id", name);
        Out { timestamp: Some(at.as_millis() as i64), ..event }
    })
}

/// Heads that compaction would leave.
fn heads(broker: &Broker, changelog: &str) -> usize {
    let mut rows = BTreeMap::new();
    for row in support::read_all(broker, changelog) {
        rows.insert((row.partition, row.key.expect("a row has a key")), row.value);
    }
    rows.iter().filter(|((_, key), value)| value.is_some() && lane_of(key).is_some()).count()
}

#[test]
fn the_ledger_stays_near_the_keys_whose_ids_are_still_remembered() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 2), support::topic(broker, "copies", 2));
    let group = support::unique("growth");
    let more = format!(
        "event_id = \"header:ce_id\"\nrecent_ids_age = \"1m\"\nforward = {{ topic = \"{output}\" }}\n\
         idle_key_after = \"1s\"\n"
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    pawl.start();
    let last: Vec<Out> = wave(WAVES - 1).collect();
    (0..WAVES - 1).for_each(|number| support::produce(broker, &input, wave(number)));
    support::produce(broker, &input, last.clone());
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == WAVES * KEYS);

    let changelog = format!("{group}-changelog");
    let left = support::until("the heads of old keys to be removed", DEADLINE, || {
        Some(heads(broker, &changelog)).filter(|left| *left <= REMEMBERED * KEYS)
    });
    assert!(left >= KEYS, "{left} heads are left, and the last wave has {KEYS} keys");

    support::produce(broker, &input, last);
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    let seen = support::read_all(broker, &output);
    assert_eq!(seen.len(), WAVES * KEYS, "what is remembered is still a duplicate");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();
}

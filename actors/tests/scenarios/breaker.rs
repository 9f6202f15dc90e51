//! A dependency that is down, and records that are poisoned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pawl_actors::policy::{Overflow, Policy};
use pawl_actors::record::Record;

use crate::house::*;

const KEYS: i64 = 20;

/// Two records of each key.
fn flood() -> impl Iterator<Item = Record> {
    (0..2 * KEYS).map(|n| record(n, Some(&format!("K{}", n % KEYS)), &format!("e{n}")))
}

/// A house whose handler is down when a flood comes.
async fn in_an_outage(script: Script, policy: Policy) -> House {
    script.down.store(true, Ordering::Relaxed);
    let house = House::new(script, Rows::default(), policy).await;
    house.take(flood());
    house.pass(Duration::from_secs(2)).await;
    house
}

fn few_calls() -> Policy {
    Policy { max_in_flight: 4, ..policy() }
}

#[test]
fn an_outage_costs_no_attempt_and_no_letter_and_ends_with_the_first_answer() {
    scenario(|| async {
        let house = in_an_outage(Script::default(), few_calls()).await;
        let reason = house.stats.breaker.open().expect("it is open");
        assert!(reason.contains("3 keys failed in a row") && reason.contains("no connection"), "{reason}");
        house.pass(Duration::from_secs(600)).await;
        assert!(letters().is_empty(), "three attempts would have been over long ago");
        let calls = house.script.calls();
        assert!(calls.iter().all(|call| call.ends_with("#1")), "every attempt is given back: {calls:?}");
        let probes: std::collections::BTreeSet<&String> = calls[calls.len() - 40..].iter().collect();
        assert!(probes.len() >= 15, "the probes go round the keys: {probes:?}");

        house.script.down.store(false, Ordering::Relaxed);
        house.pass(Duration::from_secs(2)).await;
        assert_eq!((house.stats.breaker.open(), house.stats.breaker.opened.get()), (None, 1));
        let books = house.partition_row().books;
        assert_eq!((books.received, books.applied, books.parked), (40, 40, 0));
        let done = &house.script.calls()[calls.len()..];
        for key in 0..KEYS {
            let of_key =
                |call: &&String| **call == format!("e{key}#1") || **call == format!("e{}#1", key + KEYS);
            let order: Vec<&String> = done.iter().filter(of_key).collect();
            assert_eq!(order, [&format!("e{key}#1"), &format!("e{}#1", key + KEYS)]);
        }
    });
}

#[test]
fn a_poisoned_key_opens_nothing_and_gets_its_dead_letter() {
    scenario(|| async {
        let script = Script::default();
        for event in ["a1", "a2", "a3"] {
            script.plan(event, vec![unavailable(); 3]);
        }
        let house = House::new(script, Rows::default(), policy()).await;
        house.take((0..3).map(|n| record(n, Some("A"), &format!("a{}", n + 1))));
        house.pass(Duration::from_secs(60)).await;
        assert_eq!(letters().len(), 3);
        assert_eq!(house.stats.breaker.opened.get(), 0);
    });
}

#[test]
fn a_refusal_shows_that_the_handler_is_there() {
    scenario(|| async {
        let script = Script::default();
        for key in ["A", "B", "C", "D"] {
            script.plan(&format!("{key}1"), vec![unavailable(); 3]);
        }
        let refusals = |n: i64| format!("r{n}");
        for n in 4..64 {
            script.plan(&refusals(n), [refused()]);
        }
        let house = House::new(script, Rows::default(), policy()).await;
        house.take(
            ["A", "B", "C", "D"]
                .iter()
                .enumerate()
                .map(|(n, key)| record(n as i64, Some(key), &format!("{key}1"))),
        );
        for n in 4..64 {
            house.take([record(n, Some(&format!("R{n}")), &refusals(n))]);
            house.pass(Duration::from_millis(200)).await;
        }
        assert_eq!(house.stats.breaker.opened.get(), 0);
        assert_eq!(letters().len(), 64, "four are used up, sixty refused");
    });
}

#[test]
fn where_the_handler_can_be_asked_no_record_is_tried_until_it_is_up() {
    scenario(|| async {
        let probes = Arc::new(AtomicUsize::new(0));
        let script = Script { probes: Some(probes.clone()), ..Script::default() };
        let house = in_an_outage(script, few_calls()).await;
        assert!(house.stats.breaker.open().is_some());
        let before = house.script.calls().len();
        house.pass(Duration::from_secs(60)).await;
        assert_eq!(house.script.calls().len(), before);
        assert!(probes.load(Ordering::Relaxed) >= 50);
        house.script.down.store(false, Ordering::Relaxed);
        house.pass(Duration::from_secs(2)).await;
        assert_eq!(house.partition_row().books.applied, 40);
    });
}

#[test]
fn a_drain_and_a_new_owner_in_an_outage_spend_no_attempt_either() {
    scenario(|| async {
        let house = in_an_outage(Script::default(), few_calls()).await;
        let rows = house.rows.clone();
        drop(house);
        assert!(!rows.parked().is_empty(), "what failed is parked");
        let house = House::new(Script::default(), rows, policy()).await;
        house.pass(Duration::from_secs(2)).await;
        let calls = house.script.calls();
        assert!(!calls.is_empty() && calls.iter().all(|call| call.ends_with("#1")), "{calls:?}");
    });
}

#[test]
fn where_overflow_ends_in_a_dead_letter_nothing_is_given_up_in_an_outage() {
    scenario(|| async {
        let mut policy = few_calls();
        policy.parking.partition.records = 3;
        policy.parking.overflow = Overflow::DeadLetter;
        policy.breaker.keys = 2;
        let house = in_an_outage(Script::default(), policy).await;
        assert!(house.stats.breaker.open().is_some());
        // Until it opened, room was short for the same reason as ever.
        let before = letters().len();
        house.pass(Duration::from_secs(120)).await;
        assert_eq!(letters().len(), before);
    });
}

#[test]
fn one_that_opens_again_and_again_asks_no_more_often() {
    scenario(|| async {
        let probes = Arc::new(AtomicUsize::new(0));
        let script = Script { probes: Some(probes.clone()), lies: true, ..Script::default() };
        let house = in_an_outage(script, policy()).await;
        house.pass(Duration::from_secs(20)).await;
        assert!(house.stats.breaker.opened.get() >= 2, "it says that it is up, and is not");
        let asked = probes.load(Ordering::Relaxed);
        assert!(asked <= 30, "{asked} times in 22 s");
    });
}

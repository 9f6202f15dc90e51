//! `pawl demo` as a newcomer runs it: no broker, no Java.

mod support;

use serde_json::Value;
use support::{Finished, command};

fn demo(args: &[&str]) -> (Finished, Value) {
    let finished = command(&[&["demo", "--json"], args].concat(), b"");
    let report = finished.json();
    (finished, report)
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("no number {name}: {report}"))
}

fn assert_books_balance(report: &Value) {
    let results = ["applied", "duplicates", "dead_letters", "lost"].map(|name| number(report, name));
    assert_eq!(number(report, "published"), results.iter().sum::<u64>(), "{report}");
}

#[test]
fn the_demo_loses_nothing_applies_nothing_twice_and_keeps_order() {
    let (finished, report) = demo(&["--orders", "300", "--seed", "7"]);
    assert_eq!(finished.code, 0, "{finished:?}");
    for violation in ["lost", "applied_twice", "out_of_order"] {
        assert_eq!(number(&report, violation), 0, "{report}");
    }
    for exercised in ["duplicates", "retries", "dead_letters", "records_per_second", "most_calls_at_once"] {
        assert!(report[exercised].as_f64().is_some_and(|number| number > 0.0), "{exercised}: {report}");
    }
    assert_books_balance(&report);
    assert_eq!(finished.stderr, "", "no progress where nobody looks, and nothing to complain of");
}

#[test]
fn without_recent_ids_the_demo_says_that_events_were_applied_twice_and_fails() {
    let (finished, report) = demo(&["--orders", "300", "--seed", "7", "--recent-ids", "0"]);
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(number(&report, "applied_twice") > 0, "{report}");
    assert_eq!((number(&report, "duplicates"), number(&report, "lost")), (0, 0), "{report}");
    assert_eq!(number(&report, "out_of_order"), 0, "{report}");
    assert_books_balance(&report);

    let told = command(&["demo", "--orders", "50", "--seed", "7", "--recent-ids", "0"], b"");
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stdout.contains("applied twice because --recent-ids 0"), "{}", told.stdout);
}

#[test]
fn the_same_seed_publishes_the_same() {
    let published = |seed| {
        let (finished, report) = demo(&["--orders", "100", "--seed", seed]);
        assert_eq!(finished.code, 0, "{finished:?}");
        ["seed", "events", "published", "duplicates", "dead_letters"].map(|name| number(&report, name))
    };
    let first = published("11");
    assert_eq!(first[0], 11);
    assert_eq!(first, published("11"));
    assert_ne!(first, published("12"));
}

//! Which policy applies to a failure, and for how long.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pawl_actors::dead_letter::header;
use pawl_actors::effects::Emit;
use pawl_actors::ledger::{Head, LaneKey, head_key};
use pawl_actors::outcome::{Failure, FailureClass, code};
use pawl_actors::policy::Policy;
use pawl_actors::record::Offset;
use pawl_actors::supervisor::{Attempts, RetryPolicies, RetryPolicy, RetryRule, Trigger};

use crate::house::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// Retries for an hour, however many attempts that takes.
fn for_an_hour() -> Policy {
    let retry = RetryPolicy { attempts: Attempts::Unlimited, max_elapsed: Some(HOUR), ..retry() };
    Policy { retry: retry.into(), ..policy() }
}

/// Makes the first failure of A's record older, as if time had passed.
fn let_time_pass(rows: &Rows, time: Duration) {
    let row_key = head_key(LaneKey::Key(&b"A"[..]), &mut BytesMut::new());
    let mut rows = rows.0.lock().unwrap();
    let mut head = Head::decode(&rows[&row_key]).unwrap();
    let parking = head.parking.as_mut().expect("A waits");
    assert!(parking.since > 0, "an attempt has failed");
    parking.since -= i64::try_from(time.as_millis()).unwrap();
    let row = head.row(LaneKey::Key(&b"A"[..]), &mut BytesMut::new());
    rows.insert(row.key, row.value.unwrap());
}

fn letter(offset: i64) -> Emit {
    COMMITTED.with_borrow(|all| {
        let parts = all.iter().flat_map(|epoch| &epoch.partitions);
        let mut letters = parts.flat_map(|part| &part.letters);
        letters.find(|letter| letter.offset == Offset(offset)).expect("a letter").emit.clone()
    })
}

fn text(letter: &Emit, name: &str) -> Option<String> {
    let found = letter.headers.iter().find(|header| header.name == name.as_bytes())?;
    Some(String::from_utf8_lossy(found.value.as_deref()?).into_owned())
}

#[test]
fn the_limit_of_time_counts_on_under_a_new_owner_and_anew_for_the_next_record() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [unavailable()]);
        let house = House::new(script, Rows::default(), for_an_hour()).await;
        house.take([record(0, Some("A"), "a1"), record(1, Some("A"), "a2")]);
        house.pass(SOON).await;
        let rows = house.rows.clone();
        drop(house);

        let script = Script::default();
        script.plan("a1", [unavailable()]);
        let house = House::new(script, rows.clone(), for_an_hour()).await;
        house.pass(Duration::from_secs(1) + SOON).await;
        assert_eq!(house.script.calls(), ["a1#2"]);
        assert!(letters().is_empty(), "an hour is not over");
        drop(house);

        let_time_pass(&rows, HOUR);
        let script = Script::default();
        script.plan("a1", [unavailable()]);
        script.plan("a2", [unavailable()]);
        let house = House::new(script, rows, for_an_hour()).await;
        house.pass(Duration::from_secs(3) + SOON).await;
        assert_eq!(house.script.calls(), ["a1#3", "a2#1", "a2#2"], "what was due is made, and none after it");
        assert_eq!(letters(), [Offset(0)]);
        let letter = letter(0);
        assert_eq!(text(&letter, header::DISPOSITION).as_deref(), Some("exhausted"));
        assert_eq!(text(&letter, header::EXCEPTION_FQCN).as_deref(), Some(code::EXHAUSTED));
        assert_eq!(
            text(&letter, header::EXCEPTION_MESSAGE).as_deref(),
            Some("service answered 503; the next attempt would begin after max_elapsed (3600s)")
        );
    });
}

#[test]
fn the_handlers_own_code_decides_how_a_failure_is_tried_again() {
    scenario(|| async {
        let rule = |attempts, class| RetryRule { policy: RetryPolicy { attempts, ..retry() }, class };
        let own = |own: &str| Trigger::OwnCode(own.into());
        let on = [
            (own("card-declined"), rule(Attempts::Limited(3), Some(FailureClass::Permanent))),
            (own("not-there-yet"), rule(Attempts::Limited(2), Some(FailureClass::Transient))),
            (own("ledger-closed"), rule(Attempts::Unlimited, None)),
        ];
        let fail = |failure: Failure, own: &str| Act::Fail(failure.with_own_code(own));
        let (transient, permanent) =
            (Failure::transient(code::UNAVAILABLE, "503"), Failure::permanent(code::REJECTED, "404"));
        let script = Script::default();
        script.plan("a1", [fail(transient.clone(), "card-declined")]);
        script.plan("b1", [fail(permanent.clone(), "not-there-yet"), fail(permanent, "not-there-yet")]);
        script.plan("c1", (0..5).map(|_| fail(transient.clone(), "ledger-closed")));
        let policy = Policy { retry: RetryPolicies::new(retry(), on), ..policy() };
        let house = House::new(script, Rows::default(), policy).await;
        house.take([
            record(0, Some("A"), "a1"),
            record(1, Some("B"), "b1"),
            record(2, Some("C"), "c1"),
            record(3, Some("C"), "c2"),
        ]);
        house.pass(Duration::from_secs(40)).await;
        let calls = house.script.calls();
        let of = |event: &str| calls.iter().filter(|call| call.starts_with(event)).count();
        assert_eq!((of("a1"), of("b1"), of("c1"), of("c2")), (1, 2, 6, 1), "{calls:?}");
        assert_eq!(letters(), [Offset(0), Offset(1)]);
        assert_eq!(text(&letter(0), header::OWN_CODE).as_deref(), Some("card-declined"));
        assert_eq!(text(&letter(0), header::DISPOSITION).as_deref(), Some("poison"));
        assert_eq!(text(&letter(1), header::DISPOSITION).as_deref(), Some("exhausted"));
        let of_class = |class| house.stats.failures(class).get();
        assert_eq!(of_class(FailureClass::Permanent), 1, "counted as it is taken");
        assert_eq!(of_class(FailureClass::Transient), 7);
    });
}

#[test]
fn a_letter_without_an_own_code_has_no_header_for_one() {
    scenario(|| async {
        let script = Script::default();
        script.plan("a1", [Act::Fail(Failure::permanent(code::REJECTED, "422"))]);
        let house = House::new(script, Rows::default(), policy()).await;
        let mut again = record(0, Some("A"), "a1");
        again.headers.push(pawl_actors::record::Header::new(header::OWN_CODE, Bytes::from_static(b"old")));
        house.take([again]);
        house.pass(SOON).await;
        assert_eq!(text(&letter(0), header::OWN_CODE), None, "nor that of an earlier pass");
    });
}

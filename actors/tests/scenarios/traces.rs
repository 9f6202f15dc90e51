//! The names of spans that actors carry.

use pawl_actors::outcome::{Failure, code};
use pawl_actors::policy::Policy;
use pawl_actors::record::Offset;
use pawl_actors::trace::{MAX_TRACES, SpanId, Trace, TraceId};

use std::time::Duration;

use crate::house::*;

/// Longer than the wait for a second attempt.
const SECONDS: Duration = Duration::from_secs(3);

fn span(number: u64) -> Trace {
    Trace { trace_id: TraceId(7), span_id: SpanId(number), sampled: true }
}

/// The spans that committed epochs name, in their order.
fn named() -> Vec<u64> {
    COMMITTED.with_borrow(|all| {
        let traces = all.iter().flat_map(|epoch| &epoch.partitions).flat_map(|part| &part.traces);
        traces.map(|trace| trace.span_id.0).collect()
    })
}

#[test]
fn an_epoch_names_the_spans_of_its_results_and_a_letter_that_of_its_last_attempt() {
    scenario(|| async {
        let script = Script::default();
        let (a, b, c) = (r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":3}"#);
        script.plan(a, [Act::Traced(span(1), None)]);
        let not_sampled = Trace { sampled: false, ..span(2) };
        script.plan(b, [Act::Traced(not_sampled, None)]);
        let refused = Some(Failure::permanent(code::REJECTED, "no"));
        let busy = Some(Failure::transient(code::UNAVAILABLE, "busy"));
        script.plan(c, [Act::Traced(span(3), busy), Act::Traced(span(4), refused)]);
        let event_id = Some("json:/id".parse().expect("a valid place"));
        let house = House::new(script, Rows::default(), Policy { event_id, ..policy() }).await;
        house.take([
            record(0, Some("A"), a),
            record(1, Some("B"), b),
            record(2, Some("C"), c),
            // Never reaches the handler: nothing of the attempt at the one before it may cling to it.
            record(3, Some("C"), "not JSON"),
        ]);
        house.pass(SECONDS).await;
        assert_eq!(named(), [1, 4], "what is not recorded is not linked, nor an attempt that is repeated");
        COMMITTED.with_borrow(|all| {
            let letters: Vec<_> =
                all.iter().flat_map(|epoch| &epoch.partitions).flat_map(|part| &part.letters).collect();
            let said: Vec<_> = letters.iter().map(|one| (one.offset, one.attempt, one.trace)).collect();
            assert_eq!(said, [(Offset(2), 2, Some(span(4))), (Offset(3), 1, None)]);
        });
    });
}

#[test]
fn an_epoch_names_a_bounded_number_of_spans() {
    scenario(|| async {
        let script = Script::default();
        let count = MAX_TRACES as u64 + 10;
        for number in 0..count {
            script.plan(&format!("e{number}"), [Act::Traced(span(number), None)]);
        }
        let house = House::new(script, Rows::default(), policy()).await;
        house.take((0..count).map(|n| record(n as i64, Some(&format!("K{n}")), &format!("e{n}"))));
        house.pass(SOON).await;
        COMMITTED.with_borrow(|all| {
            let parts = all.iter().flat_map(|epoch| &epoch.partitions);
            let most = parts.map(|part| part.traces.len()).max();
            assert_eq!(most, Some(MAX_TRACES), "of {count} results");
        });
    });
}

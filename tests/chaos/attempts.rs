//! Whether any attempt was left out, was early or was one too many, from what the service noted.

use std::collections::BTreeMap;

use super::pipeline::TALLY;
use super::service::{ATTEMPTS, Noted, least_wait, temper};

/// What is lost where times are cut to milliseconds.
const ROUNDED: u64 = 3;

/// The calls of one record, as they came.
type Calls<'a> = BTreeMap<(&'a str, i32, i64), Vec<&'a Noted>>;

pub fn by_record(noted: &[Noted]) -> Calls<'_> {
    let mut calls = Calls::new();
    for call in noted {
        calls.entry((&call.handler, call.partition, call.offset)).or_default().push(call);
    }
    calls.values_mut().for_each(|calls| calls.sort_by_key(|call| call.at));
    calls
}

/// Before each attempt but the first lies a failed one with the number before it, by at least the wait between
/// them. An instance that is killed makes the same attempt again, and a replay begins anew, so there may be
/// more than one.
pub fn judge(noted: &[Noted], findings: &mut Vec<String>) {
    for ((handler, partition, offset), calls) in by_record(noted) {
        for call in &calls {
            if call.attempt > ATTEMPTS {
                findings
                    .push(format!("{handler} {partition}@{offset}: attempt {} of {ATTEMPTS}", call.attempt));
            }
            // With the breaker a record may be tried before its time.
            let wait = least_wait(temper(&call.event_id), call.attempt.saturating_sub(1).max(1));
            let wait = if handler == TALLY { wait.as_millis() as u64 } else { 0 };
            let before = |earlier: &&&Noted| {
                earlier.failed
                    && earlier.attempt + 1 == call.attempt
                    && earlier.at + wait <= call.at + ROUNDED
            };
            if call.attempt > 1 && !calls.iter().any(|earlier| before(&earlier)) {
                let calls: Vec<_> = calls.iter().map(|call| (call.attempt, call.at)).collect();
                findings.push(format!(
                    "{handler} {partition}@{offset} {}: attempt {} at {} was early, or the one before it was left \
                     out: {calls:?}",
                    call.event_id, call.attempt, call.at
                ));
            }
        }
    }
}

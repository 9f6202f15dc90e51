//! The judgement: what was published, what the service saw and what lies in the dead-letter topic,
//! held against each other. Pure. Deliberately absent: anything that Pawl says of itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::workload::EventId;

/// What the service saw of a call, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A call for this event began.
    Began(EventId),
    /// It ended.
    Ended(EventId, Answer),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The event was applied (200).
    Applied,
    /// Not now (503).
    Busy,
    /// Never (422).
    Refused,
    /// The caller went away before the answer; the event was not applied.
    GivenUp,
}

impl Answer {
    /// Whether a later call for the same event can only come of another record with its id.
    fn is_final(self) -> bool {
        matches!(self, Answer::Applied | Answer::Refused)
    }
}

/// What there is to judge.
pub struct Evidence<'a> {
    /// How many records of each event were published.
    pub published: &'a BTreeMap<EventId, u64>,
    /// What the service saw.
    pub seen: &'a [Seen],
    /// How many intact dead letters of each event there are.
    pub letters: &'a BTreeMap<EventId, u64>,
}

/// The judgement. Where nothing was applied twice the books balance: published = applied + duplicates
/// + dead letters + lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Different events that were published.
    pub events: u64,
    /// Records that were published, producer's duplicates included.
    pub published: u64,
    /// Calls that the service saw.
    pub calls: u64,
    /// Calls that applied an event.
    pub applied: u64,
    /// Records of an applied event that never led to a result: recognised and dropped.
    pub duplicates: u64,
    /// Calls after the service had said that it is busy, or had not answered in time.
    pub retries: u64,
    /// Intact dead letters.
    pub dead_letters: u64,
    /// Records without any result whose event was not applied either.
    pub lost: u64,
    /// Results beyond the first application of an event: the service did it again, or did what was
    /// dead-lettered or never published.
    pub applied_twice: u64,
    /// Calls that began after a later event of the same order, or while another of it was running.
    pub out_of_order: u64,
    /// Most calls that ran at a time.
    pub most_calls_at_once: u64,
}

impl Verdict {
    /// Nothing lost, nothing twice, nothing out of order.
    pub fn is_clean(&self) -> bool {
        (self.lost, self.applied_twice, self.out_of_order) == (0, 0, 0)
    }
}

/// What is known of an event.
#[derive(Default)]
struct Event {
    applied: u64,
    last: Option<Answer>,
    is_over: bool,
}

/// What is known of an order.
#[derive(Default)]
struct Order {
    running: u64,
    furthest: u8,
}

/// Judges.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let events = follow(evidence.seen, &mut verdict);
    let Evidence { published, letters, .. } = evidence;
    let known: BTreeSet<&EventId> = events.keys().chain(published.keys()).chain(letters.keys()).collect();
    for id in known {
        let copies = published.get(id).copied().unwrap_or_default();
        let letters = letters.get(id).copied().unwrap_or_default();
        let applied = events.get(id).map_or(0, |event| event.applied);
        let results = applied + letters;
        let without = copies.saturating_sub(results);
        verdict.events += u64::from(copies > 0);
        verdict.published += copies;
        verdict.applied += applied;
        verdict.dead_letters += letters;
        verdict.applied_twice += applied.saturating_sub(1).max(results.saturating_sub(copies));
        if applied > 0 {
            verdict.duplicates += without;
        } else {
            verdict.lost += without;
        }
    }
    verdict
}

/// Follows the calls in time.
fn follow(seen: &[Seen], verdict: &mut Verdict) -> BTreeMap<EventId, Event> {
    let mut events: BTreeMap<EventId, Event> = BTreeMap::new();
    let mut orders: BTreeMap<u32, Order> = BTreeMap::new();
    let mut running: u64 = 0;
    for &one in seen {
        let (Seen::Began(id) | Seen::Ended(id, _)) = one;
        let (event, order) = (events.entry(id).or_default(), orders.entry(id.order).or_default());
        match one {
            Seen::Began(id) => {
                // A duplicate may come after later events of its order: that is no matter of order.
                let behind = id.sequence < order.furthest && !event.is_over;
                verdict.out_of_order += u64::from(behind || order.running > 0);
                verdict.calls += 1;
                verdict.retries += u64::from(event.last.is_some_and(|answer| !answer.is_final()));
                order.running += 1;
                order.furthest = order.furthest.max(id.sequence);
                running += 1;
                verdict.most_calls_at_once = verdict.most_calls_at_once.max(running);
            }
            Seen::Ended(_, answer) => {
                order.running = order.running.saturating_sub(1);
                running = running.saturating_sub(1);
                event.last = Some(answer);
                event.is_over |= answer.is_final();
                event.applied += u64::from(answer == Answer::Applied);
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::Answer::{Applied, Busy, GivenUp, Refused};
    use super::Seen::{Began, Ended};
    use super::*;

    fn id(order: u32, sequence: u8) -> EventId {
        EventId { order, sequence }
    }

    fn call(id: EventId, answer: Answer) -> [Seen; 2] {
        [Began(id), Ended(id, answer)]
    }

    fn judged(published: &[(EventId, u64)], seen: &[Seen], letters: &[(EventId, u64)]) -> Verdict {
        let published = published.iter().copied().collect();
        let letters = letters.iter().copied().collect();
        judge(&Evidence { published: &published, seen, letters: &letters })
    }

    #[test]
    fn a_history_without_fault_is_clean_and_its_books_balance() {
        let (a1, a2, b1) = (id(1, 1), id(1, 2), id(2, 1));
        let seen = [call(a1, Busy), call(a1, Applied), call(b1, Refused), call(a2, Applied)].concat();
        let verdict = judged(&[(a1, 2), (a2, 1), (b1, 1)], &seen, &[(b1, 1)]);
        assert!(verdict.is_clean());
        let expected = Verdict {
            events: 3,
            published: 4,
            calls: 4,
            applied: 2,
            duplicates: 1,
            retries: 1,
            dead_letters: 1,
            most_calls_at_once: 1,
            ..Verdict::default()
        };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn calls_of_different_orders_may_run_at_a_time() {
        let (a, b) = (id(1, 1), id(2, 1));
        let seen = [Began(a), Began(b), Ended(a, Applied), Ended(b, Applied)];
        let verdict = judged(&[(a, 1), (b, 1)], &seen, &[]);
        assert!(verdict.is_clean());
        assert_eq!(verdict.most_calls_at_once, 2);
    }

    #[test]
    fn a_record_without_any_result_is_lost() {
        let (a1, a2) = (id(1, 1), id(1, 2));
        let verdict = judged(&[(a1, 1), (a2, 2)], &call(a1, Applied), &[]);
        assert_eq!((verdict.lost, verdict.is_clean()), (2, false));
        let refused_without_a_letter = judged(&[(a1, 1)], &call(a1, Refused), &[]);
        assert_eq!(refused_without_a_letter.lost, 1);
        let busy_to_the_end = judged(&[(a1, 1)], &call(a1, Busy), &[]);
        assert_eq!(busy_to_the_end.lost, 1);
    }

    #[test]
    fn the_duplicate_of_a_dead_letter_needs_a_letter_of_its_own() {
        let a = id(1, 1);
        let seen = [call(a, Refused), call(a, Refused)].concat();
        assert!(judged(&[(a, 2)], &seen, &[(a, 2)]).is_clean());
        assert_eq!(judged(&[(a, 2)], &seen, &[(a, 1)]).lost, 1);
    }

    #[test]
    fn an_event_that_is_applied_again_counts_whether_a_duplicate_led_to_it_or_not() {
        let a = id(1, 1);
        let seen = [call(a, Applied), call(a, Applied)].concat();
        for copies in [1, 2, 3] {
            let verdict = judged(&[(a, copies)], &seen, &[]);
            assert_eq!((verdict.applied_twice, verdict.out_of_order), (1, 0), "{copies} copies");
        }
    }

    #[test]
    fn what_was_dead_lettered_or_never_published_must_not_be_applied() {
        let a = id(1, 1);
        assert_eq!(judged(&[(a, 1)], &call(a, Applied), &[(a, 1)]).applied_twice, 1);
        assert_eq!(judged(&[], &call(a, Applied), &[]).applied_twice, 1);
        assert_eq!(judged(&[(a, 1)], &call(a, Refused), &[(a, 2)]).applied_twice, 1);
    }

    #[test]
    fn an_event_that_begins_after_a_later_one_of_its_order_is_out_of_order() {
        let (a1, a2) = (id(1, 1), id(1, 2));
        let published = [(a1, 1), (a2, 1)];
        let swapped = [call(a2, Applied), call(a1, Applied)].concat();
        assert_eq!(judged(&published, &swapped, &[]).out_of_order, 1);
        for failed in [Busy, GivenUp] {
            let overtaken = [call(a1, failed), call(a2, Applied), call(a1, Applied)].concat();
            assert_eq!(judged(&published, &overtaken, &[]).out_of_order, 1, "{failed:?}");
        }
    }

    #[test]
    fn the_duplicate_of_an_event_that_is_over_is_no_matter_of_order() {
        let (a1, a2) = (id(1, 1), id(1, 2));
        for over in [Applied, Refused] {
            let seen = [call(a1, over), call(a2, over), call(a1, over)].concat();
            assert_eq!(judged(&[(a1, 2), (a2, 1)], &seen, &[]).out_of_order, 0, "{over:?}");
        }
    }

    #[test]
    fn two_calls_of_one_order_at_a_time_are_out_of_order() {
        let (a1, a2) = (id(1, 1), id(1, 2));
        let seen = [Began(a1), Began(a2), Ended(a1, Applied), Ended(a2, Applied)];
        assert_eq!(judged(&[(a1, 1), (a2, 1)], &seen, &[]).out_of_order, 1);
        let same_event = [Began(a1), Began(a1), Ended(a1, Busy), Ended(a1, Applied)];
        assert_eq!(judged(&[(a1, 1)], &same_event, &[]).out_of_order, 1);
    }
}

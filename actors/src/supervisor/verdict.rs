//! What becomes of a failed attempt. Pure: jitter is an argument.

use std::time::Duration;

use super::RetryPolicies;
use crate::outcome::{Failure, FailureClass, code};

/// Why a record went to the dead-letter topic; written into the letter as `pawl-disposition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// No attempt would ever succeed.
    Poison,
    /// The last allowed attempt failed.
    Exhausted,
    /// An earlier record of its key is a dead letter, and this one was not tried.
    Follower,
    /// The numbers before it in sequence did not come in time.
    SequenceGap,
    /// Its number came after its gap was given up.
    SequenceLate,
    /// The next attempt would begin later than this after the first one failed.
    OutOfTime(Duration),
}

impl Disposition {
    /// All values of the header.
    pub const NAMES: [&str; 5] = ["poison", "exhausted", "follower", "sequence-gap", "sequence-late"];

    /// The value of the header.
    pub fn name(self) -> &'static str {
        match self {
            Disposition::Poison => "poison",
            Disposition::Exhausted | Disposition::OutOfTime(_) => "exhausted",
            Disposition::Follower => "follower",
            Disposition::SequenceGap => "sequence-gap",
            Disposition::SequenceLate => "sequence-late",
        }
    }
}

/// The supervisor's answer to a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after this delay.
    Retry(Duration),
    /// The breaker is open: make the attempt of this number (again) after this delay.
    Hold {
        /// 1-based.
        attempt: u32,
        /// How long.
        delay: Duration,
    },
    /// Send the record to the dead-letter topic.
    DeadLetter(Disposition),
    /// Stop the handler.
    Halt,
}

/// What has been tried of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// 1-based number of the attempt that failed, whatever the ones before failed of.
    pub attempt: u32,
    /// How long ago the first one failed.
    pub elapsed: Duration,
}

/// Decides. `spread` is a random number from -1 to 1.
pub fn judge(policies: &RetryPolicies, tried: Tried, failure: &Failure, spread: f64) -> Verdict {
    let rule = policies.rule(failure);
    if rule.class(failure) == FailureClass::Fatal {
        return Verdict::Halt;
    }
    match failure.code {
        code::SEQUENCE_GAP => return Verdict::DeadLetter(Disposition::SequenceGap),
        code::SEQUENCE_LATE => return Verdict::DeadLetter(Disposition::SequenceLate),
        _ => {}
    }
    if !rule.heals(failure) {
        return Verdict::DeadLetter(Disposition::Poison);
    }
    if rule.policy.attempts.end_with(tried.attempt) {
        return Verdict::DeadLetter(Disposition::Exhausted);
    }
    let delay = rule.policy.delay(tried.attempt, failure.retry_after, spread);
    match rule.policy.max_elapsed {
        Some(limit) if tried.elapsed.saturating_add(delay) > limit => {
            Verdict::DeadLetter(Disposition::OutOfTime(limit))
        }
        _ => Verdict::Retry(delay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{Attempts, RetryPolicy, RetryRule, Trigger, Waits};

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: Attempts::Limited(4),
            waits: Waits::Growing { initial: Duration::from_millis(200), multiplier: 2.0 },
            max: Duration::from_secs(1),
            jitter: 0.2,
            max_elapsed: None,
        }
    }

    fn ms(n: u64) -> Verdict {
        Verdict::Retry(Duration::from_millis(n))
    }

    fn unavailable() -> Failure {
        Failure::transient(code::UNAVAILABLE, "503")
    }

    /// The verdict on an attempt that failed long ago or just now: without a limit that is the same.
    fn judged(policy: RetryPolicy, attempt: u32, failure: &Failure, spread: f64) -> Verdict {
        let verdict = |elapsed| judge(&policy.clone().into(), Tried { attempt, elapsed }, failure, spread);
        assert_eq!(verdict(Duration::ZERO), verdict(Duration::MAX), "it has no limit of time");
        verdict(Duration::ZERO)
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let policy = RetryPolicy { attempts: Attempts::Limited(9), ..policy() };
        let delays: Vec<Verdict> =
            (1..=5).map(|attempt| judged(policy.clone(), attempt, &unavailable(), 0.0)).collect();
        assert_eq!(delays, [ms(200), ms(400), ms(800), ms(1000), ms(1000)]);
    }

    #[test]
    fn listed_delays_are_taken_in_turn_and_spread() {
        let list = [300, 100].map(Duration::from_millis).to_vec();
        let policy = RetryPolicy { attempts: Attempts::Limited(9), waits: Waits::Listed(list), ..policy() };
        let delays: Vec<Verdict> =
            (1..=3).map(|attempt| judged(policy.clone(), attempt, &unavailable(), 0.0)).collect();
        assert_eq!(delays, [ms(300), ms(100), ms(100)]);
        assert_eq!(judged(policy, 1, &unavailable(), -1.0), ms(240));
    }

    #[test]
    fn jitter_spreads_a_delay_but_not_beyond_the_longest() {
        assert_eq!(judged(policy(), 1, &unavailable(), -1.0), ms(160));
        assert_eq!(judged(policy(), 1, &unavailable(), 1.0), ms(240));
        let policy = RetryPolicy { attempts: Attempts::Limited(99), ..policy() };
        assert_eq!(judged(policy, 50, &unavailable(), 1.0), ms(1000));
    }

    #[test]
    fn the_last_attempt_ends_in_a_dead_letter() {
        assert!(matches!(judged(policy(), 3, &unavailable(), 0.0), Verdict::Retry(_)));
        assert_eq!(judged(policy(), 4, &unavailable(), 0.0), Verdict::DeadLetter(Disposition::Exhausted));
    }

    #[test]
    fn what_must_never_be_given_up_is_tried_for_ever() {
        let policy = RetryPolicy { attempts: Attempts::Unlimited, ..policy() };
        for attempt in [1, 1_000, u32::MAX] {
            let verdict = judged(policy.clone(), attempt, &unavailable(), 0.0);
            assert!(matches!(verdict, Verdict::Retry(_)), "{attempt}: {verdict:?}");
        }
        assert_eq!(
            judged(policy, 1, &Failure::permanent(code::REJECTED, "422"), 0.0),
            Verdict::DeadLetter(Disposition::Poison),
            "what cannot heal is given up all the same"
        );
    }

    #[test]
    fn no_attempt_begins_after_the_time_is_over() {
        let limit = Duration::from_secs(10);
        let policies = RetryPolicies::from(RetryPolicy {
            attempts: Attempts::Unlimited,
            max_elapsed: Some(limit),
            ..policy()
        });
        let verdict = |elapsed, failure: &Failure| {
            let tried = Tried { attempt: 9, elapsed: Duration::from_millis(elapsed) };
            judge(&policies, tried, failure, 0.0)
        };
        let over = Verdict::DeadLetter(Disposition::OutOfTime(limit));
        assert_eq!(verdict(9_000, &unavailable()), ms(1_000), "it would begin just in time");
        assert_eq!(verdict(9_001, &unavailable()), over);
        assert_eq!(verdict(u64::MAX, &unavailable()), over);
        let wish = unavailable().with_retry_after(Some(Duration::from_millis(500)));
        assert_eq!(verdict(9_500, &wish), ms(500));
        assert_eq!(verdict(9_501, &wish), over, "a service's wish buys no time");
    }

    #[test]
    fn what_cannot_heal_is_not_tried_again_but_a_panic_is() {
        let rejected = Failure::permanent(code::REJECTED, "422");
        assert_eq!(judged(policy(), 1, &rejected, 0.0), Verdict::DeadLetter(Disposition::Poison));
        let panicked = Failure::permanent(code::PANICKED, "index out of bounds");
        assert!(matches!(judged(policy(), 1, &panicked, 0.0), Verdict::Retry(_)));
        assert_eq!(judged(policy(), 4, &panicked, 0.0), Verdict::DeadLetter(Disposition::Exhausted));
        assert_eq!(judged(policy(), 1, &Failure::fatal(code::REJECTED, "no right"), 0.0), Verdict::Halt);
    }

    #[test]
    fn a_rule_may_know_better_whether_a_failure_heals_but_not_that_a_handler_can_go_on() {
        let rule = |class, attempts| RetryRule {
            policy: RetryPolicy { attempts: Attempts::Limited(attempts), ..policy() },
            class: Some(class),
        };
        let policies = RetryPolicies::new(
            policy(),
            [
                (Trigger::Status(404), rule(FailureClass::Transient, 2)),
                (Trigger::OwnCode("gone".into()), rule(FailureClass::Permanent, 9)),
                (Trigger::Code(code::PANICKED.into()), rule(FailureClass::Permanent, 9)),
                (Trigger::Code(code::REJECTED.into()), rule(FailureClass::Transient, 9)),
            ],
        );
        let check = |attempt, failure: Failure, expected| {
            let tried = Tried { attempt, elapsed: Duration::ZERO };
            assert_eq!(judge(&policies, tried, &failure, 0.0), expected, "{failure:?}");
        };
        let poison = Verdict::DeadLetter(Disposition::Poison);
        let missing = || Failure::permanent(code::REJECTED, "404").with_status(404);
        check(1, missing(), ms(200));
        check(2, missing(), Verdict::DeadLetter(Disposition::Exhausted));
        check(1, unavailable().with_own_code("gone"), poison);
        check(1, Failure::permanent(code::PANICKED, ""), poison);
        check(1, Failure::fatal(code::REJECTED, "no right"), Verdict::Halt);
    }

    #[test]
    fn the_services_own_wish_replaces_the_delay_within_bounds() {
        let wish = |ms| {
            let failure = unavailable().with_retry_after(Some(Duration::from_millis(ms)));
            judged(policy(), 1, &failure, 1.0)
        };
        assert_eq!(wish(700), ms(700));
        assert_eq!(wish(60_000), ms(1000));
    }

    #[test]
    fn the_services_own_wish_is_bounded_by_the_policy_that_applies() {
        let patient = RetryPolicy { max: Duration::from_secs(60), ..policy() };
        let rule = RetryRule { policy: patient, class: None };
        let policies = RetryPolicies::new(policy(), [(Trigger::Status(429), rule)]);
        let wish = |status| {
            let failure = unavailable().with_status(status).with_retry_after(Some(Duration::from_secs(90)));
            judge(&policies, Tried { attempt: 1, elapsed: Duration::ZERO }, &failure, 0.0)
        };
        assert_eq!(wish(429), ms(60_000));
        assert_eq!(wish(503), ms(1_000));
    }
}

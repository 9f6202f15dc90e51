//! Which failures are tried again, when and how often: a handler's retry policies, and which of them
//! applies to a failure. Pure: jitter is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outcome::{Failure, FailureClass, code};

/// When and how often an attempt is made again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// How many attempts a record gets.
    pub attempts: Attempts,
    /// How long each wait is.
    pub waits: Waits,
    /// No wait is longer, a service's `Retry-After` included.
    pub max: Duration,
    /// A wait is spread by up to this share of itself in both directions; 0 to 1.
    pub jitter: f64,
    /// No attempt begins later than this after the first one failed.
    pub max_elapsed: Option<Duration>,
}

/// How many attempts a record gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// So many in all, the first included; at least 1.
    Limited(u32),
    /// As many as it takes.
    Unlimited,
}

/// How long each wait is.
#[derive(Clone, Debug, PartialEq)]
pub enum Waits {
    /// Each is longer than the one before.
    Growing {
        /// Before the second attempt.
        initial: Duration,
        /// Each is the one before times this; at least 1. With 1 all are the same.
        multiplier: f64,
    },
    /// One after the other; the last one stands for all that follow.
    Listed(Vec<Duration>),
}

/// What a policy of its own is for. The first of these that a failure meets decides, from the handler's
/// word to Pawl's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// The service's or handler's own error code.
    OwnCode(String),
    /// An HTTP status.
    Status(u16),
    /// The first digit of an HTTP status.
    StatusClass(u16),
    /// One of the codes in [`code::OF_ATTEMPTS`].
    Code(String),
}

/// What becomes of a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRule {
    /// When and how often its record is tried again.
    pub policy: RetryPolicy,
    /// Its class, where that is not what the handler says.
    pub class: Option<FailureClass>,
}

/// All retry policies of a handler.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicies {
    base: RetryRule,
    on: BTreeMap<Trigger, RetryRule>,
}

impl Attempts {
    /// Whether no attempt follows this one.
    pub fn end_with(self, attempt: u32) -> bool {
        match self {
            Attempts::Limited(attempts) => attempt >= attempts,
            Attempts::Unlimited => false,
        }
    }

    /// The attempt after this one, for people: `4 of 8`, or `4`.
    pub fn after(self, attempt: u32) -> String {
        let next = attempt.saturating_add(1);
        match self {
            Attempts::Limited(attempts) => format!("{next} of {attempts}"),
            Attempts::Unlimited => next.to_string(),
        }
    }
}

impl RetryPolicy {
    /// The wait after an attempt. `wish` is the service's own, `spread` a random number from -1 to 1.
    pub fn delay(&self, attempt: u32, wish: Option<Duration>, spread: f64) -> Duration {
        if let Some(wish) = wish {
            return wish.min(self.max);
        }
        let before = attempt.saturating_sub(1);
        let seconds = match &self.waits {
            Waits::Growing { initial, multiplier } => {
                initial.as_secs_f64() * multiplier.powi(i32::try_from(before).unwrap_or(i32::MAX))
            }
            Waits::Listed(delays) => {
                let last = delays.len().saturating_sub(1);
                delays.get(last.min(before as usize)).unwrap_or(&self.max).as_secs_f64()
            }
        };
        let most = self.max.as_secs_f64();
        let spread = seconds.min(most) * (1.0 + self.jitter * spread.clamp(-1.0, 1.0));
        Duration::from_secs_f64(spread.clamp(0.0, most))
    }
}

impl RetryRule {
    /// The class of a failure that this rule is for. A handler that cannot go on is always believed.
    pub fn class(&self, failure: &Failure) -> FailureClass {
        match failure.class {
            FailureClass::Fatal => FailureClass::Fatal,
            class => self.class.unwrap_or(class),
        }
    }

    /// Whether another attempt could go well. A panic may, unless the rule says that it does not.
    pub fn heals(&self, failure: &Failure) -> bool {
        match self.class(failure) {
            FailureClass::Fatal => false,
            FailureClass::Transient => true,
            FailureClass::Permanent => self.class.is_none() && failure.code == code::PANICKED,
        }
    }
}

impl RetryPolicies {
    /// The base for all failures, and what is otherwise for some.
    pub fn new(base: RetryPolicy, on: impl IntoIterator<Item = (Trigger, RetryRule)>) -> Self {
        RetryPolicies { base: RetryRule { policy: base, class: None }, on: on.into_iter().collect() }
    }

    /// What applies to a failure.
    pub fn rule(&self, failure: &Failure) -> &RetryRule {
        if self.on.is_empty() {
            return &self.base;
        }
        let triggers = [
            failure.own_code().map(|own| Trigger::OwnCode(own.to_owned())),
            failure.status.map(Trigger::Status),
            // As RFC 9110, section 15 has it: numbers beyond 599 count as 5xx.
            failure.status.map(|status| Trigger::StatusClass((status / 100).min(5))),
            Some(Trigger::Code(failure.code.to_owned())),
        ];
        triggers.iter().flatten().find_map(|trigger| self.on.get(trigger)).unwrap_or(&self.base)
    }
}

impl From<RetryPolicy> for RetryPolicies {
    fn from(base: RetryPolicy) -> Self {
        RetryPolicies::new(base, [])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(attempts: u32) -> RetryPolicy {
        RetryPolicy {
            attempts: Attempts::Limited(attempts),
            waits: Waits::Growing { initial: SECOND / 5, multiplier: 2.0 },
            max: SECOND,
            jitter: 0.2,
            max_elapsed: None,
        }
    }

    fn waits() -> impl Strategy<Value = Waits> {
        let time = || (1u64..100_000).prop_map(Duration::from_millis);
        prop_oneof![
            (time(), 1.0f64..100.0).prop_map(|(initial, multiplier)| Waits::Growing { initial, multiplier }),
            proptest::collection::vec(time(), 1..9).prop_map(Waits::Listed),
        ]
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest(
            waits in waits(),
            max in (1u64..100_000).prop_map(Duration::from_millis),
            jitter in 0.0f64..=1.0,
            attempt in any::<u32>(),
            wish in proptest::option::of(any::<u64>().prop_map(Duration::from_secs)),
            spread in -1.0f64..=1.0,
        ) {
            let policy = RetryPolicy { waits, max, jitter, ..policy(1) };
            prop_assert!(policy.delay(attempt, wish, spread) <= max);
        }

        #[test]
        fn waits_without_jitter_never_shrink_unless_a_list_says_so(
            initial in (1u64..10_000).prop_map(Duration::from_millis),
            multiplier in 1.0f64..100.0,
            attempt in 1u32..u32::MAX,
        ) {
            let waits = Waits::Growing { initial, multiplier };
            let policy = RetryPolicy { waits, jitter: 0.0, ..policy(1) };
            prop_assert!(policy.delay(attempt, None, 0.0) <= policy.delay(attempt + 1, None, 0.0));
        }

        #[test]
        fn the_last_of_a_list_stands_for_all_that_follow(
            list in proptest::collection::vec((1u64..=1_000).prop_map(Duration::from_millis), 1..9),
            beyond in any::<u32>(),
        ) {
            let waits = Waits::Listed(list.clone());
            let policy = RetryPolicy { waits, jitter: 0.0, ..policy(1) };
            let made: Vec<Duration> = (1..).take(list.len()).map(|attempt| policy.delay(attempt, None, 0.5)).collect();
            prop_assert_eq!(&made, &list);
            let later = beyond.saturating_add(u32::try_from(list.len()).expect("few"));
            prop_assert_eq!(policy.delay(later, None, 0.5), list[list.len() - 1]);
        }
    }

    #[test]
    fn the_next_attempt_is_told_with_the_last_one_where_there_is_one() {
        assert_eq!(Attempts::Limited(8).after(3), "4 of 8");
        assert_eq!(Attempts::Unlimited.after(3), "4");
    }

    #[test]
    fn the_handlers_word_goes_before_the_status_and_that_before_pawls_code() {
        let on = [
            (Trigger::OwnCode("busy".into()), 2),
            (Trigger::OwnCode("acme.Locked".into()), 3),
            (Trigger::Status(503), 4),
            (Trigger::StatusClass(5), 5),
            (Trigger::Code(code::UNAVAILABLE.into()), 6),
        ];
        let rule = |(trigger, attempts)| (trigger, RetryRule { policy: policy(attempts), class: None });
        let policies = RetryPolicies::new(policy(1), on.map(rule));
        let check = |failure: Failure, attempts: u32| {
            assert_eq!(policies.rule(&failure).policy, policy(attempts), "{failure:?}");
        };
        let unavailable = || Failure::transient(code::UNAVAILABLE, "");
        check(unavailable().with_status(503).with_own_code("busy"), 2);
        check(unavailable().with_status(503).with_own_code("other"), 4);
        check(unavailable().with_status(502), 5);
        check(unavailable().with_status(999), 5);
        check(unavailable().with_status(429), 6);
        check(unavailable(), 6);
        check(Failure::transient(code::TIMED_OUT, "").with_own_code(code::UNAVAILABLE), 1);
        check(Failure::permanent("acme.Locked", ""), 3);
        check(Failure::permanent("busy", "").with_own_code("acme.Locked"), 3);
    }
}

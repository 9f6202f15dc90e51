//! What becomes of a failed attempt. Pure: jitter is an argument.

use std::time::Duration;

use crate::outcome::{Failure, FailureClass, code};

/// Exponential backoff with jitter and a finite number of attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub attempts: u32,
    /// Delay before the second attempt.
    pub initial: Duration,
    /// No delay is longer, a service's `Retry-After` included.
    pub max: Duration,
    /// Each delay is the one before times this; at least 1.
    pub multiplier: f64,
    /// A delay is spread by up to this share of itself in both directions; 0 to 1.
    pub jitter: f64,
}

/// Why a record went to the dead-letter topic; written into the letter as `pawl-disposition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// No attempt would ever succeed.
    Poison,
    /// The last allowed attempt failed.
    Exhausted,
    /// An earlier record of its key is a dead letter, and this one was not tried.
    Follower,
}

impl Disposition {
    /// The value of the header.
    pub fn name(self) -> &'static str {
        match self {
            Disposition::Poison => "poison",
            Disposition::Exhausted => "exhausted",
            Disposition::Follower => "follower",
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

/// Decides. `spread` is a random number from -1 to 1.
pub fn judge(policy: &RetryPolicy, attempt: u32, failure: &Failure, spread: f64) -> Verdict {
    match failure.class {
        FailureClass::Fatal => Verdict::Halt,
        // A panic is permanent only when the attempts are used up: the next one may go well.
        FailureClass::Permanent if failure.code != code::PANICKED => Verdict::DeadLetter(Disposition::Poison),
        FailureClass::Permanent | FailureClass::Transient if attempt >= policy.attempts => {
            Verdict::DeadLetter(Disposition::Exhausted)
        }
        FailureClass::Permanent | FailureClass::Transient => {
            Verdict::Retry(delay(policy, attempt, failure.retry_after, spread))
        }
    }
}

fn delay(policy: &RetryPolicy, attempt: u32, wish: Option<Duration>, spread: f64) -> Duration {
    if let Some(wish) = wish {
        return wish.min(policy.max);
    }
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = policy.initial.as_secs_f64() * policy.multiplier.powi(exponent);
    let capped = seconds.min(policy.max.as_secs_f64());
    let spread = capped * (1.0 + policy.jitter * spread.clamp(-1.0, 1.0));
    Duration::from_secs_f64(spread.clamp(0.0, policy.max.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 4,
        initial: Duration::from_millis(200),
        max: Duration::from_secs(1),
        multiplier: 2.0,
        jitter: 0.2,
    };

    fn ms(n: u64) -> Verdict {
        Verdict::Retry(Duration::from_millis(n))
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let failure = Failure::transient(code::UNAVAILABLE, "503");
        let policy = RetryPolicy { attempts: 9, ..POLICY };
        let delays: Vec<Verdict> = (1..=5).map(|attempt| judge(&policy, attempt, &failure, 0.0)).collect();
        assert_eq!(delays, [ms(200), ms(400), ms(800), ms(1000), ms(1000)]);
    }

    #[test]
    fn jitter_spreads_a_delay_but_not_beyond_the_longest() {
        let failure = Failure::transient(code::UNAVAILABLE, "503");
        assert_eq!(judge(&POLICY, 1, &failure, -1.0), ms(160));
        assert_eq!(judge(&POLICY, 1, &failure, 1.0), ms(240));
        assert_eq!(judge(&RetryPolicy { attempts: 99, ..POLICY }, 50, &failure, 1.0), ms(1000));
    }

    #[test]
    fn the_last_attempt_ends_in_a_dead_letter() {
        let failure = Failure::transient(code::UNAVAILABLE, "503");
        assert!(matches!(judge(&POLICY, 3, &failure, 0.0), Verdict::Retry(_)));
        assert_eq!(judge(&POLICY, 4, &failure, 0.0), Verdict::DeadLetter(Disposition::Exhausted));
    }

    #[test]
    fn what_cannot_heal_is_not_tried_again_but_a_panic_is() {
        let rejected = Failure::permanent(code::REJECTED, "422");
        assert_eq!(judge(&POLICY, 1, &rejected, 0.0), Verdict::DeadLetter(Disposition::Poison));
        let panicked = Failure::permanent(code::PANICKED, "index out of bounds");
        assert!(matches!(judge(&POLICY, 1, &panicked, 0.0), Verdict::Retry(_)));
        assert_eq!(judge(&POLICY, 4, &panicked, 0.0), Verdict::DeadLetter(Disposition::Exhausted));
        assert_eq!(judge(&POLICY, 1, &Failure::fatal(code::REJECTED, "no right"), 0.0), Verdict::Halt);
    }

    #[test]
    fn the_services_own_wish_replaces_the_delay_within_bounds() {
        let wish = |ms| {
            let failure = Failure::transient(code::UNAVAILABLE, "429");
            judge(&POLICY, 1, &failure.with_retry_after(Some(Duration::from_millis(ms))), 1.0)
        };
        assert_eq!(wish(700), ms(700));
        assert_eq!(wish(60_000), ms(1000));
    }
}

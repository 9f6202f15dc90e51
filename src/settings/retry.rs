//! `[handler.NAME.retry]`: when and how often a failure is tried again, and what is otherwise for some.

use std::collections::BTreeMap;
use std::time::Duration;

use pawl_actors::outcome::{FailureClass, MAX_OWN_CODE, RESERVED, code};
use pawl_actors::supervisor::{Attempts, RetryPolicies, RetryPolicy, RetryRule, Trigger, Waits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::{Complaint, nearest, quoted_list};
use super::{attempts, duration};

/// When and how often a failure is tried again. Only the failing key waits.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts for each record, the first one included; after the last it is dead-lettered. With
    /// "unlimited" it is tried until it succeeds. Bounds: 1 to 1000. Default: 8.
    #[serde(with = "attempts")]
    #[schemars(schema_with = "attempts::schema")]
    pub attempts: Attempts,
    /// The wait before the second attempt; not above max. Bounds: 1ms to 1h. Default: 200ms.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub initial: Duration,
    /// The longest wait between two attempts, a service's Retry-After included. Bounds: 1ms to 1day.
    /// Default: 1m.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub max: Duration,
    /// By how much each wait is longer than the one before; with 1 all are the same. Bounds: 1 to 100.
    /// Default: 2.
    pub multiplier: f64,
    /// The waits one by one, in the place of initial and multiplier: 1 to 100 of them, none above max.
    /// The last one stands for all that follow. Bounds of each: 1ms to 1day. Default: none.
    #[serde(with = "duration::list", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::list::schema")]
    pub delays: Option<Vec<Duration>>,
    /// The part of a wait that is random, so that keys that failed together do not come back
    /// together: 0.2 is plus or minus 20 %. Bounds: 0 to 1. Default: 0.2.
    pub jitter: f64,
    /// How long a record is tried, from its first failure: it is dead-lettered as soon as its next
    /// attempt would begin later. Bounds: 1ms to 1year. Default: none.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::schema")]
    pub max_elapsed: Option<Duration>,
    /// What is otherwise for some failures, by code: the service's or handler's own error codes, HTTP
    /// statuses as "503" and "5xx" where the handler is http, and codes such as "pawl.TimedOut". The first
    /// that a failure meets in this order decides.
    pub on: BTreeMap<String, RetryOn>,
}

/// What is otherwise for failures of one code. What is not said here is as in retry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryOn {
    /// Whether these failures can heal. Default: as for other failures of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<RetryClass>,
    /// Attempts for the record in all, whatever the ones before failed of; or "unlimited".
    /// Bounds: 1 to 1000. Default: as in retry.
    #[serde(with = "attempts::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "attempts::schema")]
    pub attempts: Option<Attempts>,
    /// The wait after a first attempt; not above max. Bounds: 1ms to 1h. Default: as in retry.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::schema")]
    pub initial: Option<Duration>,
    /// The longest wait, a service's Retry-After included. Bounds: 1ms to 1day. Default: as in retry.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::schema")]
    pub max: Option<Duration>,
    /// By how much each wait is longer than the one before. Bounds: 1 to 100. Default: as in retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<f64>,
    /// The waits one by one, in the place of initial and multiplier: 1 to 100 of them, none above max.
    /// Bounds of each: 1ms to 1day. Default: as in retry.
    #[serde(with = "duration::list", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::list::schema")]
    pub delays: Option<Vec<Duration>>,
    /// The random part of a wait. Bounds: 0 to 1. Default: as in retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// How long a record is tried, from its first failure of any kind. Bounds: 1ms to 1year. Default: as in
    /// retry; none where attempts is "unlimited" here.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::schema")]
    pub max_elapsed: Option<Duration>,
}

/// Whether failures can heal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetryClass {
    /// They are tried again.
    Transient,
    /// The record becomes a dead letter at once.
    Permanent,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: Attempts::Limited(8),
            initial: Duration::from_millis(200),
            max: Duration::from_secs(60),
            multiplier: 2.0,
            delays: None,
            jitter: 0.2,
            max_elapsed: None,
            on: BTreeMap::new(),
        }
    }
}

impl Retry {
    /// The policies as the supervisor takes them; of a handler that is `http` or not.
    pub fn policies(&self, is_http: bool) -> RetryPolicies {
        let rules = self.on.iter().filter_map(|(key, on)| {
            let class = on.class.map(|class| match class {
                RetryClass::Transient => FailureClass::Transient,
                RetryClass::Permanent => FailureClass::Permanent,
            });
            // Keys that are none were refused when the settings were read.
            Some((trigger(key, is_http).ok()?, RetryRule { policy: self.with(on).policy(), class }))
        });
        RetryPolicies::new(self.policy(), rules)
    }

    /// The settings that hold for a code: its own, and these where it has none.
    pub(super) fn with(&self, on: &RetryOn) -> Retry {
        // Whoever sets the one kind of waits does not mean the other.
        let growing = on.initial.is_some() || on.multiplier.is_some();
        let delays = if growing { None } else { self.delays.clone() };
        // Nor whoever says that there is no end, an end.
        let endless = on.attempts == Some(Attempts::Unlimited);
        let max_elapsed = if endless { None } else { self.max_elapsed };
        Retry {
            attempts: on.attempts.unwrap_or(self.attempts),
            initial: on.initial.unwrap_or(self.initial),
            max: on.max.unwrap_or(self.max),
            multiplier: on.multiplier.unwrap_or(self.multiplier),
            delays: on.delays.clone().or(delays),
            jitter: on.jitter.unwrap_or(self.jitter),
            max_elapsed: on.max_elapsed.or(max_elapsed),
            on: BTreeMap::new(),
        }
    }

    fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            attempts: self.attempts,
            waits: match &self.delays {
                Some(delays) => Waits::Listed(delays.clone()),
                None => Waits::Growing { initial: self.initial, multiplier: self.multiplier },
            },
            max: self.max,
            jitter: self.jitter,
            max_elapsed: self.max_elapsed,
        }
    }
}

impl RetryOn {
    /// Whether it says how to try again, and not only whether to.
    pub(super) fn says_how(&self) -> bool {
        *self != RetryOn { class: self.class, ..RetryOn::default() }
    }
}

/// What the key of a policy stands for, of a handler that is `http` or not.
pub(super) fn trigger(key: &str, is_http: bool) -> Result<Trigger, Complaint> {
    if key.to_ascii_lowercase().starts_with(RESERVED) {
        return pawls_code(key);
    }
    if let (true, Some(status)) = (is_http, status(key)) {
        return status;
    }
    let legal = (1..=MAX_OWN_CODE).contains(&key.len())
        && key.trim() == key
        && !key.chars().any(|letter| letter.is_control());
    if legal {
        return Ok(Trigger::OwnCode(key.to_owned()));
    }
    Err(Complaint::new(
        "no error code looks like this",
        format!("write 1 to {MAX_OWN_CODE} bytes, without control characters, nor spaces at the ends"),
    ))
}

fn pawls_code(key: &str) -> Result<Trigger, Complaint> {
    if code::OF_ATTEMPTS.contains(&key) {
        return Ok(Trigger::Code(key.to_owned()));
    }
    if code::OTHERS.contains(&key) {
        return Err(Complaint::new("what ends with this code is not the end of an attempt", "remove it"));
    }
    let known = quoted_list(code::OF_ATTEMPTS);
    Err(match nearest(key, code::OF_ATTEMPTS) {
        Some(near) => {
            Complaint::new(format!("codes of attempts: {known}"), format!("did you mean {near:?}?"))
        }
        None => Complaint::new(format!("codes of attempts: {known}"), "write one of them"),
    })
}

/// A status or a class of statuses; `None` if the key looks like neither.
fn status(key: &str) -> Option<Result<Trigger, Complaint>> {
    let refused = |reason: &str, remedy: &str| Some(Err(Complaint::new(reason, remedy)));
    let [first, rest @ ..] = key.as_bytes() else { return None };
    let class = u16::from(first.checked_sub(b'0').filter(|digit| *digit < 10)?);
    match (class, rest) {
        (0 | 6.., _) if rest.eq_ignore_ascii_case(b"xx") => {
            refused("there is no such class of statuses", "write \"3xx\", \"4xx\" or \"5xx\"")
        }
        (1 | 2, [_, _]) if rest.eq_ignore_ascii_case(b"xx") || rest.iter().all(u8::is_ascii_digit) => {
            refused("no failure has this status", "remove it: 2xx is a success, and no 1xx ends a call")
        }
        (_, b"xx") => Some(Ok(Trigger::StatusClass(class))),
        (_, rest) if rest.eq_ignore_ascii_case(b"xx") => {
            refused("a class of statuses is written with two small x", &format!("write \"{class}xx\""))
        }
        (3.., [_, _]) => key.parse().ok().map(|status| Ok(Trigger::Status(status))),
        _ => None,
    }
}

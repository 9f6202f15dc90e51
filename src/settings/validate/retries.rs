//! How the retry policies of a handler fit together.

use std::time::Duration;

use pawl_actors::outcome::{FailureClass, code};
use pawl_actors::supervisor::Trigger;

use crate::settings::class_of_status;
use crate::settings::key_path::KeyPath;
use crate::settings::problem::{Complaint, Problem};
use crate::settings::retry::trigger;
use crate::settings::{Retry, RetryClass, duration, limits};

/// What does not fit together in the base policy and in those of codes.
pub(super) fn problems(base: &KeyPath, retry: &Retry, is_http: bool) -> Vec<Problem> {
    let defaults = Retry::default();
    let set = |name, differs: bool| differs.then_some(name);
    let growing = set("initial", retry.initial != defaults.initial)
        .or(set("multiplier", retry.multiplier != defaults.multiplier));
    let mut found = waits(base, retry, growing);
    if retry.on.len() > limits::MAX_RETRY_CODES {
        let subject = format!("{base}.on has {} policies", retry.on.len());
        let remedy = format!("keep at most {}", limits::MAX_RETRY_CODES);
        found.push(Problem::new(&base.name("on"), subject, remedy));
    }
    for (code, on) in &retry.on {
        let path = base.name("on").name(code);
        let trigger = match trigger(code, is_http) {
            Ok(trigger) => trigger,
            Err(Complaint { reason, remedy }) => {
                let subject = format!("{code:?} is no code that {base}.on could be for");
                found.push(Problem::new(&path, subject, remedy).because(reason));
                continue;
            }
        };
        if on.class == Some(RetryClass::Permanent) && on.says_how() {
            let subject = format!("{path} is permanent and says how to try again");
            let remedy = "remove class, or everything else";
            found.push(Problem::new(&path, subject, remedy).because("what is permanent is not tried again"));
        } else if on.class.is_none() && on.says_how() && is_permanent(&trigger) {
            let subject = format!("{path} says how to try again");
            let remedy = "add class = \"transient\", or remove it";
            let reason = "such a failure is permanent, and not tried again";
            found.push(Problem::new(&path, subject, remedy).because(reason));
        }
        let growing = set("initial", on.initial.is_some()).or(set("multiplier", on.multiplier.is_some()));
        // What is wrong with the base is told once.
        if on.delays.is_some() || growing.is_some() || on.max.is_some() {
            found.extend(waits(&path, &retry.with(on), growing.filter(|_| on.delays.is_some())));
        }
    }
    found
}

/// Whether failures that a policy is for are permanent where it does not say otherwise.
fn is_permanent(trigger: &Trigger) -> bool {
    match trigger {
        Trigger::Status(status) => class_of_status(*status) == Some(FailureClass::Permanent),
        Trigger::StatusClass(class) => *class == 3,
        Trigger::Code(code) => code == code::REJECTED,
        Trigger::OwnCode(_) => false,
    }
}

/// What does not fit together in one policy. `growing`: what says that waits grow, if something does.
fn waits(base: &KeyPath, retry: &Retry, growing: Option<&str>) -> Vec<Problem> {
    let mut found = Vec::new();
    let max = duration::format(retry.max);
    let mut too_long = |key: KeyPath, wait: Duration, what: &str| {
        if wait > retry.max {
            let wait = duration::format(wait);
            let reason = format!("{what} is longer than the longest, retry.max = \"{max}\"");
            let remedy = format!("lower it to at most {max}, or raise retry.max");
            found.push(Problem::with_value(&key, &format!("\"{wait}\""), Complaint::new(reason, remedy)));
        }
    };
    let Some(delays) = &retry.delays else {
        too_long(base.name("initial"), retry.initial, "the first wait");
        return found;
    };
    let key = base.name("delays");
    for (index, delay) in delays.iter().enumerate() {
        too_long(key.index(index), *delay, "this wait");
    }
    if let Some(growing) = growing {
        let subject = format!("{base} has delays and {growing}");
        found.push(Problem::new(&key, subject, "remove one of them").because("delays stand in its place"));
    }
    if !(1..=limits::MAX_DELAYS).contains(&delays.len()) {
        let subject = format!("{key} has {} elements", delays.len());
        let remedy = format!("write 1 to {}, or leave the key out", limits::MAX_DELAYS);
        found.push(Problem::new(&key, subject, remedy));
    }
    found
}

//! The tree of an instance as text.

use std::fmt::Write as _;
use std::time::Duration;

use crate::admin::supervision::{LastRestart, Supervised, SupervisedPartition, Supervision};
use crate::shown::time;

/// An earlier look, to tell rates by.
pub struct Before<'a> {
    /// What was seen.
    pub seen: &'a Supervision,
    /// How long ago.
    pub ago: Duration,
}

/// Every handler with what its supervisor watches over.
pub fn drawn(now: &Supervision, before: Option<&Before<'_>>) -> String {
    let mut text = String::new();
    for handler in &now.handlers {
        if !text.is_empty() {
            text.push('\n');
        }
        let rate = before.and_then(|before| rate(handler, before));
        // Writing to a text cannot fail.
        let _ = draw(&mut text, handler, rate);
    }
    text
}

/// Records applied in a second; `None` where the process was begun anew in between.
fn rate(handler: &Supervised, before: &Before<'_>) -> Option<f64> {
    let last = before.seen.handlers.iter().find(|last| last.name == handler.name)?;
    Some(handler.applied.checked_sub(last.applied)? as f64 / before.ago.as_secs_f64())
}

fn draw(text: &mut String, handler: &Supervised, rate: Option<f64>) -> std::fmt::Result {
    let Supervised { name, topic, group, applied, failures, dead_letters, in_flight, waiting, .. } = handler;
    let rate = rate.map_or(String::new(), |rate| format!(" ({rate:.0}/s)"));
    writeln!(text, "{name}  {topic}, group {group}")?;
    writeln!(
        text,
        "│  {applied} records applied{rate}, {failures} failed attempts, {dead_letters} dead letters; \
         {in_flight} calls at the handler, {waiting} lanes wait for a retry"
    )?;
    if let Some(why) = &handler.reason {
        writeln!(text, "│  not ready: {why}")?;
    }
    let breaker = handler.breaker.as_ref().map_or("closed".to_owned(), |why| format!("OPEN: {why}"));
    writeln!(text, "├─ breaker {breaker}")?;
    for partition in &handler.partitions {
        draw_partition(text, partition)?;
    }
    let Supervised { restarts, restarts_allowed, restarts_within, .. } = handler;
    writeln!(
        text,
        "└─ restarts {restarts} since the process began; of a partition at most {restarts_allowed} in \
         {restarts_within}"
    )?;
    handler.last_restarts.iter().try_for_each(|restart| draw_restart(text, restart))
}

fn draw_partition(text: &mut String, partition: &SupervisedPartition) -> std::fmt::Result {
    let SupervisedPartition { partition: number, phase, order_actors, unfinished, parked, restarts, .. } =
        partition;
    let lag = partition.lag.map_or("?".to_owned(), |lag| lag.to_string());
    let anew = if *restarts > 0 { format!("  taken anew {restarts}x") } else { String::new() };
    writeln!(
        text,
        "├─ partition {number:<4} {phase:<9}  lag {lag:<8} order actors {order_actors:<7} unfinished \
         {unfinished:<6} parked {parked}{anew}"
    )?;
    if let Some(why) = &partition.reason {
        writeln!(text, "│  └─ {why}")?;
    }
    if let Some(why) = &partition.careful {
        writeln!(text, "│  └─ careful mode: {why}")?;
    }
    Ok(())
}

fn draw_restart(text: &mut String, restart: &LastRestart) -> std::fmt::Result {
    let LastRestart { at, partition, actor, key, why } = restart;
    let what = partition.map_or("the handler".to_owned(), |partition| format!("partition {partition}"));
    let key = key.as_ref().map_or(String::new(), |key| format!(" of key \"{key}\""));
    writeln!(text, "   {}  {what}: {actor}{key} {why}", time(Some(*at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler() -> Supervised {
        let running = SupervisedPartition {
            partition: 0,
            phase: "running".into(),
            reason: None,
            careful: None,
            lag: Some(12),
            order_actors: 42,
            unfinished: 3,
            parked: 0,
            restarts: 0,
        };
        let careful = Some("3 owners ended".to_owned());
        let reason = Some("no progress for 2m with a lag of 7".to_owned());
        let slow =
            SupervisedPartition { partition: 11, careful, reason, restarts: 1, lag: None, ..running.clone() };
        Supervised {
            name: "billing".into(),
            group: "accounts".into(),
            topic: "orders".into(),
            reason: None,
            breaker: None,
            applied: 1_500,
            failures: 7,
            dead_letters: 2,
            in_flight: 3,
            waiting: 1,
            restarts: 1,
            restarts_allowed: 3,
            restarts_within: "10m".into(),
            last_restarts: vec![LastRestart {
                at: 0,
                partition: Some(11),
                actor: "the order actor".into(),
                key: Some("A".into()),
                why: "panicked".into(),
            }],
            partitions: vec![running, slow],
        }
    }

    #[test]
    fn the_tree_names_what_was_begun_anew_and_what_does_not_get_on() {
        let expected = "\
billing  orders, group accounts
│  1500 records applied, 7 failed attempts, 2 dead letters; 3 calls at the handler, 1 lanes wait for a retry
├─ breaker closed
├─ partition 0    running    lag 12       order actors 42      unfinished 3      parked 0
├─ partition 11   running    lag ?        order actors 42      unfinished 3      parked 0  taken anew 1x
│  └─ no progress for 2m with a lag of 7
│  └─ careful mode: 3 owners ended
└─ restarts 1 since the process began; of a partition at most 3 in 10m
   1970-01-01T00:00:00.000Z  partition 11: the order actor of key \"A\" panicked
";
        assert_eq!(drawn(&Supervision { handlers: vec![handler()] }, None), expected);
    }

    #[test]
    fn a_rate_is_told_from_two_looks_at_one_process() {
        let now = Supervision { handlers: vec![handler()] };
        let check = |applied, expected: &str| {
            let seen = Supervision { handlers: vec![Supervised { applied, ..handler() }] };
            let text = drawn(&now, Some(&Before { seen: &seen, ago: Duration::from_secs(2) }));
            assert!(text.contains(expected), "{text}");
        };
        check(1_000, "1500 records applied (250/s), 7");
        check(2_000, "1500 records applied, 7");
    }
}

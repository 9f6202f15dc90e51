//! Notices that the machine's clock was set: whoever reads a log whose times jump is told so, and what
//! may follow from it.

use std::time::{Duration, Instant, SystemTime};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// Smaller steps are told by nobody: time servers correct clocks by less all the time.
const TOLD_FROM: Duration = Duration::from_secs(10);

/// What two clocks say at a moment: the one that can be set, and the one that cannot.
#[derive(Clone, Copy)]
struct Look {
    wall: SystemTime,
    steady: Instant,
}

impl Look {
    fn now() -> Look {
        Look { wall: SystemTime::now(), steady: Instant::now() }
    }
}

/// By how much, and where to, the clock was set between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Forward(Duration),
    Back(Duration),
}

fn step(before: Look, now: Look) -> Option<Step> {
    let passed = now.steady.saturating_duration_since(before.steady);
    let expected = before.wall + passed;
    match now.wall.duration_since(expected) {
        Ok(ahead) => (ahead >= TOLD_FROM).then_some(Step::Forward(ahead)),
        Err(behind) => (behind.duration() >= TOLD_FROM).then_some(Step::Back(behind.duration())),
    }
}

fn tell(step: Step) {
    let seconds = |by: Duration| humantime::format_duration(Duration::from_secs(by.as_secs()));
    match step {
        Step::Forward(by) => tracing::warn!(
            "the machine's clock was set forward by {}: what waits for a retry waits as long as before, unless this \
             process is restarted; event ids are forgotten by the time stamps of the records, not by this clock",
            seconds(by)
        ),
        Step::Back(by) => tracing::warn!(
            "the machine's clock was set back by {}: the Kafka client waits by that clock, and may do nothing for as \
             long. If /ready tells of no progress, restart this process, with SIGKILL if it does not end: nothing is \
             lost or repeated by that",
            seconds(by)
        ),
    }
}

/// Looks at the clocks for as long as it is polled.
pub async fn watch() {
    let (mut ticks, mut before) = (tokio::time::interval(EVERY), Look::now());
    loop {
        ticks.tick().await;
        let now = Look::now();
        if let Some(step) = step(before, now) {
            tell(step);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told_from_one_that_runs() {
        let before = Look::now();
        let at = |steady: u64, wall: i64| {
            let wall = match wall {
                0.. => before.wall + Duration::from_secs(wall.unsigned_abs()),
                _ => before.wall - Duration::from_secs(wall.unsigned_abs()),
            };
            step(before, Look { wall, steady: before.steady + Duration::from_secs(steady) })
        };
        assert_eq!(at(1, 1), None);
        assert_eq!(at(600, 600), None, "a process that was stopped for long");
        assert_eq!((at(1, 10), at(1, -8)), (None, None), "as time servers correct it");
        assert_eq!(at(1, 61), Some(Step::Forward(Duration::from_secs(60))));
        assert_eq!(at(1, -59), Some(Step::Back(Duration::from_secs(60))));
    }
}

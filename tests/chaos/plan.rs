//! What happens when, drawn from the seed alone. Pure.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::pipeline::{NUMBERED, PARTITIONS, TALLY};
use super::service::{DEFECTS, Defects};
use super::support::proxy::Quality;
use super::{Faults, Options, load, numbered};

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGKILL.
    Kill(usize),
    /// SIGTERM.
    End(usize),
    /// The instance begins, or begins again.
    Start(usize),
    /// The same, on an empty disk.
    StartAnew(usize),
    /// SIGSTOP.
    Freeze(usize),
    /// SIGCONT.
    Thaw(usize),
    /// A link becomes what it says.
    Link(usize, Quality),
    /// The broker is ended and started.
    RestartBroker {
        /// By SIGKILL.
        hard: bool,
    },
    /// All instances end, another tool moves the group's offsets, all start.
    MoveOffsets(Move),
    /// The service has these defects from now on.
    Service(Defects),
    /// An operator gives a command.
    Asked(Asked),
}

/// A command of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub what: Ask,
    pub handler: &'static str,
    /// The key, where it is about one.
    pub key: String,
    /// The command's process is killed after this time, and given again.
    pub killed_after: Option<Duration>,
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    ReplayAll,
    ReplaySlowly,
    ReplayKey,
    StopReplay,
    Pause,
    Resume,
}

/// How another tool moves the group's offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// All to the beginning.
    Back,
    /// One partition's forward by so many.
    Forward(i32, i64),
}

/// All events by their time since the start.
pub fn draw(options: &Options, seed: u64) -> Vec<(Duration, Event)> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut events = Vec::new();
    for instance in 0..usize::from(options.instances) {
        if matches!(options.faults, Faults::All | Faults::Processes) {
            processes(&mut rng, options.duration, instance, &mut events);
        }
        if matches!(options.faults, Faults::All | Faults::Links) {
            links(&mut rng, options.duration, instance, &mut events);
        }
    }
    if options.faults == Faults::All {
        let share = |rng: &mut SmallRng, from, to| options.duration.mul_f64(rng.random_range(from..to));
        events.push((share(&mut rng, 0.2, 0.3), Event::MoveOffsets(Move::Back)));
        events.push((share(&mut rng, 0.45, 0.6), Event::RestartBroker { hard: rng.random() }));
        let forward = Move::Forward(rng.random_range(0..PARTITIONS), rng.random_range(1..50));
        events.push((share(&mut rng, 0.7, 0.8), Event::MoveOffsets(forward)));
    }
    operators(&mut rng, options.duration, &mut events);
    events.retain(|(at, _)| *at < options.duration);
    events.sort_by_key(|(at, _)| *at);
    events
}

fn seconds(rng: &mut SmallRng, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(rng.random_range(from..to))
}

fn processes(rng: &mut SmallRng, duration: Duration, instance: usize, events: &mut Vec<(Duration, Event)>) {
    let mut at = seconds(rng, 3.0, 12.0);
    while at < duration {
        let start = if rng.random_ratio(1, 4) { Event::StartAnew(instance) } else { Event::Start(instance) };
        let (begin, end, lasts) = match rng.random_range(0..10) {
            0..3 => (Event::Kill(instance), start, seconds(rng, 0.0, 12.0)),
            // Long enough for its partitions to be others', session time-out 6 s.
            3..6 => (Event::Freeze(instance), Event::Thaw(instance), seconds(rng, 7.0, 14.0)),
            6 => (Event::Freeze(instance), Event::Thaw(instance), seconds(rng, 0.1, 5.0)),
            _ => (Event::End(instance), start, seconds(rng, 0.5, 10.0)),
        };
        events.push((at, begin));
        events.push((at + lasts, end));
        at += lasts + seconds(rng, 2.0, 15.0);
    }
}

fn links(rng: &mut SmallRng, duration: Duration, link: usize, events: &mut Vec<(Duration, Event)>) {
    let mut at = seconds(rng, 3.0, 20.0);
    while at < duration {
        let (quality, lasts) = match rng.random_range(0..6) {
            0 => (Quality::Cut, seconds(rng, 0.1, 3.0)),
            1 => (Quality::Cut, seconds(rng, 7.0, 14.0)),
            2 => (Quality::Silent, seconds(rng, 0.5, 4.0)),
            3 => (Quality::Silent, seconds(rng, 7.0, 14.0)),
            4 => (Quality::Late { millis: rng.random_range(20..400) }, seconds(rng, 2.0, 10.0)),
            _ => (Quality::Narrow { kib_per_second: rng.random_range(20..200) }, seconds(rng, 2.0, 10.0)),
        };
        events.push((at, Event::Link(link, quality)));
        events.push((at + lasts, Event::Link(link, Quality::Good)));
        at += lasts + seconds(rng, 4.0, 20.0);
    }
}

/// The service is mended in part, and breaks in part; letters are replayed after it, and keys paused.
fn operators(rng: &mut SmallRng, duration: Duration, events: &mut Vec<(Duration, Event)>) {
    let mut at = seconds(rng, 8.0, 12.0);
    while at < duration {
        events.push((at, Event::Service(Defects(rng.random_range(0..1 << DEFECTS)))));
        for _ in 0..rng.random_range(1..4) {
            let what = match rng.random_range(0..8) {
                0..4 => Ask::ReplayAll,
                4..6 => Ask::ReplaySlowly,
                6 => Ask::ReplayKey,
                _ => Ask::StopReplay,
            };
            events.push((at + seconds(rng, 0.0, 4.0), Event::Asked(asked(rng, what))));
        }
        if rng.random_ratio(1, 2) {
            let pause = asked(rng, Ask::Pause);
            let resume = Asked { what: Ask::Resume, ..pause.clone() };
            events.push((at, Event::Asked(pause)));
            events.push((at + seconds(rng, 1.0, 15.0), Event::Asked(resume)));
        }
        at += seconds(rng, 4.0, 10.0);
    }
}

fn asked(rng: &mut SmallRng, what: Ask) -> Asked {
    let (handler, key) = if rng.random_ratio(2, 3) {
        (TALLY, format!("key-{}", rng.random_range(0..load::KEYS)))
    } else {
        (NUMBERED, format!("numbered-{}", rng.random_range(0..numbered::KEYS)))
    };
    let killed_after = rng.random_ratio(1, 3).then(|| seconds(rng, 0.05, 2.0));
    Asked { what, handler, key, killed_after }
}

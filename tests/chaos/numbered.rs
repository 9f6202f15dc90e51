//! Producers that number the events of each key, and write them in another order: within a window, now and
//! then twice, some long after the others, and some never.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::load::Load;
use super::pipeline::{GAP_TIMEOUT, NUMBER};
use super::support::clients::{Out, Publisher};
use super::support::kafka::Broker;

pub const KEYS: usize = 60;
const PRODUCERS: usize = 3;
/// How far apart records may be written that belong beside each other.
const WINDOW: Duration = Duration::from_secs(1);

/// Key and number of an event that is to be written at this time by this producer.
type Due = Reverse<(Duration, usize, u32, usize)>;

/// Begins to write about `rate` events a second; what is still to be written at the end is.
pub fn start(broker: &Broker, topic: &str, rate: u32, seed: u64) -> Load {
    let publishers: Vec<Publisher> = (0..PRODUCERS).map(|_| Publisher::new(broker)).collect();
    let topic = topic.to_owned();
    Load::of(move |stopped: Arc<AtomicBool>| {
        let mut rng = SmallRng::seed_from_u64(seed ^ 1);
        let mut numbers = vec![0_u32; KEYS];
        let mut due: BinaryHeap<Due> = BinaryHeap::new();
        let write = |key: usize, number: u32, producer: usize| {
            let id = format!("numbered-{key}/{number}");
            let event = Out::new(format!("numbered-{key}"), id.clone()).header("ce_id", id);
            publishers[producer].send(&topic, &event.header(NUMBER, number.to_string()));
        };
        let (began, mut events) = (Instant::now(), 0_u64);
        while !stopped.load(Ordering::Relaxed) {
            let now = began.elapsed();
            while events < (now.as_secs_f64() * f64::from(rate)) as u64 {
                let key = rng.random_range(0..KEYS);
                numbers[key] += 1;
                for at in times(&mut rng) {
                    due.push(Reverse((now + at, key, numbers[key], rng.random_range(0..PRODUCERS))));
                }
                events += 1;
            }
            while due.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
                let Reverse((_, key, number, producer)) = due.pop().expect("just seen");
                write(key, number, producer);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for Reverse((_, key, number, producer)) in due {
            write(key, number, producer);
        }
        publishers.iter().for_each(Publisher::flush);
        events
    })
}

/// When an event is written, from now on.
fn times(rng: &mut SmallRng) -> Vec<Duration> {
    let within = |rng: &mut SmallRng, window: Duration| window.mul_f64(rng.random());
    match rng.random_range(0..600) {
        // Lost by its producer.
        0..2 => Vec::new(),
        // Often after its gap was given up.
        2..6 => vec![GAP_TIMEOUT * 3 + within(rng, GAP_TIMEOUT)],
        6..36 => vec![within(rng, WINDOW), within(rng, 3 * WINDOW)],
        _ => vec![within(rng, WINDOW)],
    }
}

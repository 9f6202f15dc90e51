//! A producer that goes on whatever happens: keyed events with ids, some of them sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::support::clients::{Out, Publisher};
use super::support::kafka::Broker;

pub const KEYS: usize = 300;

/// A running producer.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Load {
    /// Begins to write about `rate` records a second.
    pub fn start(broker: &Broker, topic: &str, rate: u32, seed: u64) -> Load {
        let (publisher, topic) = (Publisher::new(broker), topic.to_owned());
        Load::of(move |stopped| {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut numbers = vec![0_u32; KEYS];
            let (began, mut sent) = (Instant::now(), 0_u64);
            while !stopped.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                while sent < due {
                    let key = rng.random_range(0..KEYS);
                    let id = format!("key-{key}/{}", numbers[key]);
                    numbers[key] += 1;
                    let event = Out::new(format!("key-{key}"), id.clone()).header("ce_id", id);
                    let times = if rng.random_ratio(1, 25) { 2 } else { 1 };
                    for _ in 0..times {
                        publisher.send(&topic, &event);
                    }
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            publisher.flush();
            sent
        })
    }

    /// Begins to write as `produce` does until it is told to stop; it returns how many different events those
    /// were.
    pub fn of(produce: impl FnOnce(Arc<AtomicBool>) -> u64 + Send + 'static) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Load { stop, thread: std::thread::spawn(move || produce(stopped)) }
    }

    /// Ends it; returns how many different events were written.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the producer does not panic")
    }
}

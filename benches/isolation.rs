//! What a key that retries costs the others: two runs of Pawl side by side, each with 1,000 records
//! a second, one of them with a key whose calls fail for 30 s. Prints the others' processing time,
//! from publishing a record to the end of its call, of both.
//!
//! `cargo bench --bench isolation`

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::clients::Publisher;
use support::service::Received;
use support::{Broker, Out, Pawl, Reply, Service};

/// Records a second of each run, all keys together.
const RATE: u64 = 1_000;
const KEYS: u64 = 500;
const RETRYING: Duration = Duration::from_secs(30);
/// Records of the first seconds are not counted: connections and caches are cold.
const WARM_UP: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(60);
const STUCK: &str = "stuck";

/// One run: a topic, a service and a process.
struct Lane<'a> {
    broker: &'a Broker,
    input: String,
    service: Service,
    pawl: Pawl,
}

impl<'a> Lane<'a> {
    fn start(broker: &'a Broker) -> Lane<'a> {
        let input = support::topic(broker, "isolation", 4);
        let service =
            Service::start(|call: &Received| Reply::status(if call.key == STUCK { 503 } else { 200 }));
        let more = format!(
            "http = {{ url = \"{}\" }}\nretry = {{ attempts = 1000, initial = \"200ms\", max = \"200ms\" }}",
            service.url()
        );
        let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("isolation"), &more));
        pawl.start().wait_ready();
        Lane { broker, input, service, pawl }
    }

    /// Publishes at the rate until `until`; the value of a record is the time of its writing.
    fn publish(&self, until: Instant) -> usize {
        let publisher = Publisher::new(self.broker);
        let began = Instant::now();
        let mut sent = 0;
        while Instant::now() < until {
            let due = began.elapsed().as_micros() as u64 * RATE / 1_000_000;
            for n in sent..due {
                publisher.send(&self.input, &Out::new(format!("K{}", n % KEYS), micros_now().to_string()));
            }
            sent = due;
            std::thread::sleep(Duration::from_millis(2));
        }
        publisher.flush();
        sent as usize
    }

    fn wait_for_the_others(&self, count: usize) {
        self.service.wait("the others' calls", count, DEADLINE, |call| {
            call.received.key != STUCK && call.succeeded()
        });
    }

    /// Processing times of the others in milliseconds, ascending.
    fn times(&self) -> Vec<f64> {
        let calls = self.service.calls();
        let warm = calls.first().expect("there were calls").began + WARM_UP;
        let others = calls.iter().filter(|call| call.received.key != STUCK && call.began > warm);
        let mut times: Vec<f64> = others.map(milliseconds).collect();
        times.sort_by(f64::total_cmp);
        times
    }
}

fn micros_now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_micros()
}

fn milliseconds(call: &support::Call) -> f64 {
    let text = std::str::from_utf8(&call.received.body).expect("a number");
    let published: u128 = text.parse().expect("a number");
    // The journal's clock is monotonic; this brings its instants to the wall's.
    let ended = micros_now() - call.ended.expect("all calls have ended").elapsed().as_micros();
    ended.saturating_sub(published) as f64 / 1_000.0
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

fn main() {
    let Some(broker) = support::broker() else { return };
    let (with, without) = (Lane::start(broker), Lane::start(broker));
    support::produce(broker, &with.input, [Out::new(STUCK, micros_now().to_string())]);
    with.service.wait("the first failure", 1, DEADLINE, |call| call.received.key == STUCK);

    let until = Instant::now() + RETRYING;
    let counts = std::thread::scope(|scope| {
        let lanes = [&with, &without].map(|lane| scope.spawn(move || lane.publish(until)));
        lanes.map(|lane| lane.join().expect("publishing succeeds"))
    });
    with.wait_for_the_others(counts[0]);
    without.wait_for_the_others(counts[1]);
    let failed = with.service.count(|call| call.received.key == STUCK);
    println!(
        "two runs side by side, {RATE} records/s each, {} and {} records; one key of the first failed {failed} times \
         in {RETRYING:?}",
        counts[0], counts[1]
    );
    println!("processing time of the others        p50        p99        max");
    for (name, lane) in [("with a key that retries", &with), ("without", &without)] {
        let times = lane.times();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(&times, share));
        println!("  {name:<28} {p50:>8.1} ms {p99:>8.1} ms {max:>8.1} ms");
    }
    drop((with.pawl, without.pawl));
}

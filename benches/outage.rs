//! A service that is down for a minute while records keep coming: what it costs. Prints attempts that
//! counted, dead letters, memory before and in the outage, how soon work went on, and whether each key's
//! records were done in order. One key is poisoned all the time.
//!
//! `cargo bench --bench outage -- --down 60s --rate 1000`

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use support::clients::{self, Publisher};
use support::service::Received;
use support::{Call, Out, Pawl, Reply, Service};

const KEYS: u64 = 500;
const DEADLINE: Duration = Duration::from_secs(120);
/// Before and after the outage.
const AROUND: Duration = Duration::from_secs(10);
const POISONED: &str = "poisoned";

#[derive(Parser)]
struct Options {
    /// How long the service is down.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    down: Duration,
    /// Records a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Publishes at the rate until `until`, a poisoned record each second; returns how many were no poison.
fn publish(publisher: &Publisher, topic: &str, rate: u64, until: Instant) -> u64 {
    let began = Instant::now();
    let (mut sent, mut poisoned) = (0, 0);
    while Instant::now() < until {
        let due = began.elapsed().as_micros() as u64 * rate / 1_000_000;
        for n in sent..due {
            publisher.send(topic, &Out::new(format!("K{}", n % KEYS), (n / KEYS).to_string()));
        }
        sent = due;
        if began.elapsed().as_secs() > poisoned {
            poisoned += 1;
            publisher.send(topic, &Out::new(POISONED, "poison"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    publisher.flush();
    sent
}

fn memory(pawl: &Pawl) -> f64 {
    pawl.metric("process_resident_memory_bytes").unwrap_or_default() / f64::from(1 << 20)
}

/// Keys whose records were not done as 0, 1, 2, ... each once.
fn out_of_order(calls: &[Call], sent: u64) -> usize {
    let mut done: HashMap<&str, Vec<u64>> = HashMap::new();
    for call in calls.iter().filter(|call| call.succeeded()) {
        let number = std::str::from_utf8(&call.received.body).ok().and_then(|text| text.parse().ok());
        done.entry(&call.received.key).or_default().push(number.unwrap_or(u64::MAX));
    }
    let expected = |key: u64| (0..sent).filter(move |n| n % KEYS == key).map(|n| n / KEYS);
    let right = |key: u64| {
        done.get(format!("K{key}").as_str()).is_some_and(|done| done.iter().copied().eq(expected(key)))
    };
    (0..KEYS).filter(|key| !right(*key)).count()
}

fn main() {
    let options = Options::parse();
    let Some(broker) = support::broker() else { return };
    let input = support::topic(broker, "outage", 4);
    let group = support::unique("outage");
    let is_down = Arc::new(AtomicBool::new(false));
    let service = Service::start({
        let is_down = is_down.clone();
        move |call: &Received| {
            Reply::status(if is_down.load(Ordering::Relaxed) || call.key == POISONED { 503 } else { 200 })
        }
    });
    let more = format!(
        "http = {{ url = \"{}\" }}\nretry = {{ attempts = 4, initial = \"100ms\", max = \"100ms\" }}",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    pawl.start().wait_ready();
    let publisher = Publisher::new(broker);
    let (from, to) = (Instant::now() + AROUND, Instant::now() + AROUND + options.down);
    let (rate, topic) = (options.rate, input.clone());
    let publishing = std::thread::spawn(move || publish(&publisher, &topic, rate, to + AROUND));

    std::thread::sleep(from.saturating_duration_since(Instant::now()));
    let (before, opened_before) = (memory(&pawl), pawl.metric("pawl_breaker_opened_total"));
    is_down.store(true, Ordering::Relaxed);
    std::thread::sleep(to.saturating_duration_since(Instant::now()));
    let within = memory(&pawl);
    let up = Instant::now();
    is_down.store(false, Ordering::Relaxed);
    service.wait("the first answers", 100, DEADLINE, |call| call.succeeded() && call.began > up);
    let calls = service.calls();
    let mut after = calls.iter().filter(|call| call.succeeded() && call.began > up);
    let resumed = after.nth(99).map(|call| call.began - up).unwrap_or_default();

    let sent = publishing.join().expect("publishing succeeds");
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    let waiting = || (pawl.metric("pawl_parked_records") == Some(0.0)).then_some(());
    support::until("the end of the waiting", DEADLINE, waiting);
    let calls = service.calls();
    let letters = support::read_all(broker, &format!("{input}-dlt"));
    let innocent = letters.iter().filter(|letter| letter.key.as_deref() != Some(POISONED.as_bytes())).count();
    let later =
        calls.iter().filter(|call| call.received.key != POISONED && call.received.attempt > 1).count();
    println!("{sent} records at {rate}/s over {KEYS} keys, the service down for {:?}", options.down);
    println!("breaker opened {opened_before:?} times before the outage, with a poisoned key each second");
    println!("dead letters: {} of the poisoned key, {innocent} of others", letters.len() - innocent);
    println!("calls beyond a first attempt, of keys that are not poisoned: {later}");
    println!("memory: {before:.0} MiB before, {within:.0} MiB at the end of the outage");
    println!("100 answers after the service came back: {resumed:?}");
    println!("keys whose records were not done each once and in order: {}", out_of_order(&calls, sent));
}

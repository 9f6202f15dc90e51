//! What keys that always fail cost the others: 1 % of 10,000 keys fail three times, a second apart, and
//! their later records follow them into the dead-letter topic. Runs with and without such keys take turns;
//! printed is how fast the healthy keys' records were done, and the ratio of the medians. After each run with
//! failing keys the service is mended, and `pawl dlt replay --all` brings them back while records go on.
//!
//! `cargo bench --bench poison -- --pairs 5`

#[path = "../tests/support/mod.rs"]
mod support;

#[allow(dead_code, reason = "the other benchmark uses the rest")]
#[path = "throughput/measure.rs"]
mod measure;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use support::service::Received;
use support::{Broker, Out, Pawl, Reply, Service};

const KEYS: usize = 10_000;
const RECORDS: usize = 100_000;
/// One in so many keys fails.
const ONE_IN: usize = 100;
/// Records that are written while letters are replayed.
const MEANWHILE: usize = 5_000;
const HANDLING: Duration = Duration::from_millis(5);
const DEADLINE: Duration = Duration::from_secs(600);

#[derive(Parser)]
struct Options {
    /// Runs of each kind.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// The handler's `commit_interval`.
    #[arg(long, default_value = "5ms")]
    commit_interval: String,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn fails(key: &str) -> bool {
    key[1..].parse::<usize>().is_ok_and(|key| key.is_multiple_of(ONE_IN))
}

/// What one run came to.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Records a second of the healthy keys, from the first call to the last of their ends.
    rate: f64,
    /// Seconds of CPU until then: of Pawl, of the broker, and of this process, which is the service.
    cpu: [f64; 3],
}

fn cpu(broker: &Broker, pawl: &Pawl) -> [f64; 3] {
    let pawl = pawl.pid().map_or(0.0, measure::cpu_seconds);
    [pawl, measure::broker_cpu(broker), measure::cpu_seconds(std::process::id())]
}

fn run(broker: &Broker, options: &Options, poisoned: bool) -> Run {
    let (input, group) = (support::topic(broker, "poison", 4), support::unique("poison"));
    support::produce(broker, &input, (0..RECORDS).map(|n| Out::new(format!("K{}", n % KEYS), n.to_string())));
    let mended = Arc::new(AtomicBool::new(!poisoned));
    let well = mended.clone();
    let service = Service::start(move |call: &Received| {
        let bad = fails(&call.key) && !well.load(Ordering::Relaxed);
        Reply::status(if bad { 503 } else { 200 }).after(HANDLING)
    });
    let more = format!(
        "http = {{ url = \"{}\", max_in_flight = 1000 }}\nretry = {{ attempts = 3, initial = \"1s\", max = \"1s\", jitter \
         = 0.0 }}\ndead_letter = {{ then = \"quarantine\" }}\ncommit_interval = \"{}\"",
        service.url(),
        options.commit_interval
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    let before = cpu(broker, &pawl);
    pawl.start();
    let healthy = |call: &support::Call| !fails(&call.received.key) && call.succeeded();
    let expected = RECORDS - RECORDS / ONE_IN;
    service.wait("the healthy keys' records", expected, DEADLINE, healthy);
    let after = cpu(broker, &pawl);
    let calls = service.calls();
    let began = calls.iter().map(|call| call.began).min().expect("there were calls");
    let ended = calls.iter().filter(|call| healthy(call)).filter_map(|call| call.ended).max();
    let rate = expected as f64 / (ended.unwrap_or_else(Instant::now) - began).as_secs_f64();
    if poisoned {
        check_letters(broker, &input);
        mended.store(true, Ordering::Relaxed);
        bring_back(broker, &input, &service, &pawl);
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
        pawl.audit();
    }
    drop(pawl);
    Run { rate, cpu: [0, 1, 2].map(|n| after[n] - before[n]) }
}

/// Every record of the failing keys lies in the dead-letter topic, each key's in order.
fn check_letters(broker: &Broker, input: &str) {
    let letters =
        support::read_until(broker, &format!("{input}-dlt"), DEADLINE, |seen| seen.len() >= RECORDS / ONE_IN);
    let number = |letter: &support::Seen| {
        std::str::from_utf8(letter.value.as_deref().unwrap_or_default()).ok()?.parse::<usize>().ok()
    };
    for key in (0..KEYS).step_by(ONE_IN) {
        let of_key =
            letters.iter().filter(|letter| letter.key.as_deref() == Some(format!("K{key}").as_bytes()));
        let found: Vec<Option<usize>> = of_key.map(number).collect();
        let expected: Vec<Option<usize>> = (key..RECORDS).step_by(KEYS).map(Some).collect();
        assert_eq!(found, expected, "K{key}");
    }
}

/// Replays all letters while records of all keys go on, and looks whether every key's records were done in
/// order, and each.
fn bring_back(broker: &Broker, input: &str, service: &Service, pawl: &Pawl) {
    let config = pawl.dir().join("pawl.toml");
    let began = Instant::now();
    let replay = std::thread::spawn(move || {
        let config = config.to_str().expect("a path in UTF-8");
        support::command(&["dlt", "replay", "--all", "--config", config], b"")
    });
    let last = RECORDS + MEANWHILE;
    support::produce(
        broker,
        input,
        (RECORDS..last).map(|n| Out::new(format!("K{}", n % KEYS), n.to_string())),
    );
    let said = replay.join().expect("it does not panic");
    assert_eq!(said.code, 0, "{said:?}");
    println!("replay in {:.1} s: {}", began.elapsed().as_secs_f64(), said.stdout.trim_end());
    service.wait("all records", last, DEADLINE, support::Call::succeeded);
    let mut done: HashMap<usize, Vec<usize>> = HashMap::new();
    for call in service.calls().iter().filter(|call| call.succeeded()) {
        let n: usize =
            std::str::from_utf8(&call.received.body).ok().and_then(|n| n.parse().ok()).expect("a number");
        done.entry(n % KEYS).or_default().push(n);
    }
    for (key, records) in done {
        assert_eq!(records, (key..last).step_by(KEYS).collect::<Vec<_>>(), "K{key}: each once and in order");
    }
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let options = Options::parse();
    let Some(broker) = support::broker() else { return };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for pair in 1..=options.pairs {
        without.push(run(broker, &options, false));
        with.push(run(broker, &options, true));
        let (without, with) = (without[pair - 1], with[pair - 1]);
        println!("pair {pair}: {:.0}/s without, {:.0}/s with failing keys", without.rate, with.rate);
    }
    let rates = [&without, &with].map(|runs| median(runs, |run| run.rate));
    println!(
        "healthy keys, medians: {:.0}/s without, {:.0}/s with: {:.2}",
        rates[0],
        rates[1],
        rates[1] / rates[0]
    );
    let mut ratios: Vec<f64> = without.iter().zip(&with).map(|(a, b)| b.rate / a.rate).collect();
    ratios.sort_by(f64::total_cmp);
    println!("ratios of the pairs: {ratios:.2?}, median {:.2}", ratios[ratios.len() / 2]);
    for (n, who) in ["Pawl", "broker", "service"].into_iter().enumerate() {
        let seconds = [&without, &with].map(|runs| median(runs, |run| run.cpu[n]));
        println!("CPU of the {who}, medians: {:.2} s without, {:.2} s with", seconds[0], seconds[1]);
    }
}

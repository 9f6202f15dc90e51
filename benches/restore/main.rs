//! How long a start takes with and without a local view, and in how much memory.
//!
//! `cargo bench --bench restore -- [--engine sled,fjall] [--keys N] [--partitions N] [--rounds N] [--with SETTINGS]`
//!
//! A plain producer fills the changelog of a handler with a ledger: a partition row for each
//! partition, and for each key one head with 100 B of state. Then, in each round, `pawl run` starts
//! without a view, is stopped by SIGTERM, and starts again with the view that it has written. Taken
//! is the time from the start of the process until `/ready` answers 200. `--with` adds lines to the
//! `[store]` table.

#[path = "../../tests/support/mod.rs"]
mod support;

#[path = "../throughput/measure.rs"]
#[allow(dead_code, reason = "the other benchmark counts CPU")]
mod measure;

mod ledger;

use std::fmt;
use std::time::{Duration, Instant};

use support::Pawl;

const DEADLINE: Duration = Duration::from_secs(600);
/// The finest grain of what is measured.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// After a cold start the engine may still merge what it has written.
const SETTLE: Duration = Duration::from_secs(15);
/// What the settings bound by default: `buffer_bytes`, `cache_bytes`, and what a reader fetches ahead.
const BOUND_MIB: u64 = 64 + 64 + 32;

/// What is restored.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub keys: u64,
    pub partitions: i32,
    pub state_bytes: usize,
}

/// One start of the program.
struct Start {
    ready: Duration,
    records: u64,
    peak_mib: f64,
    settled_mib: f64,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ready, records) = (self.ready.as_secs_f64(), self.records);
        let (peak, settled) = (self.peak_mib, self.settled_mib);
        write!(f, "{ready:>7.2} s  {records:>9} records  {peak:>5.0} MiB peak  {settled:>5.0} MiB settled")
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let text = |name: &str, default: &str| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default.to_owned(), |at| args[at + 1].clone())
    };
    let number = |name: &str, default: &str| text(name, default).parse::<u64>().expect("a number");
    let engines = text("--engine", "sled,fjall");
    let partitions = i32::try_from(number("--partitions", "4")).expect("a number of partitions");
    let load = Load { keys: number("--keys", "1000000"), partitions, state_bytes: 100 };
    let Some(broker) = support::broker() else { return };
    let topic = |name| support::topic(broker, name, partitions);
    let (topic, output, group) = (topic("bench-input"), topic("bench-output"), support::unique("bench"));
    let settings = |engine: &str| {
        format!(
            "[kafka]\nbootstrap_servers = [\"{}\"]\n\
             [handler.bench]\ntopic = \"{topic}\"\ngroup = \"{group}\"\nforward = {{ topic = \"{output}\" }}\n\
             [store]\nengine = \"{engine}\"\n{}\n",
            broker.bootstrap(),
            text("--with", "")
        )
    };
    let filled = Instant::now();
    let bytes = ledger::fill(broker, &settings("sled"), load);
    println!("{}", machine());
    println!(
        "{} keys of {} B of state in {} partitions, {} MiB of rows, written in {:.0} s; buffer, cache and reader \
         together at most {BOUND_MIB} MiB by default",
        load.keys,
        load.state_bytes,
        load.partitions,
        bytes >> 20,
        filled.elapsed().as_secs_f64()
    );
    for engine in engines.split(',') {
        let mut pawl = Pawl::new(&settings(engine));
        for round in 1..=number("--rounds", "1") {
            if round > 1 {
                pawl.forget_store();
            }
            println!("{engine:<5} round {round}, no view:   {}", start(&mut pawl, load.keys));
            println!("{engine:<5} round {round}, warm view: {}", start(&mut pawl, 0));
        }
    }
}

/// Starts the program, waits until it is ready and has settled, and stops it. It must have read at
/// least `least` records, and hardly more.
fn start(pawl: &mut Pawl, least: u64) -> Start {
    let began = Instant::now();
    pawl.start();
    while pawl.get("/ready").is_none_or(|(status, _)| status != 200) {
        assert!(began.elapsed() < DEADLINE, "not ready in time:\n{}", pawl.log());
        std::thread::sleep(ASK_EVERY);
    }
    let ready = began.elapsed();
    std::thread::sleep(SETTLE);
    let pid = pawl.pid().expect("it runs");
    let (peak_mib, settled_mib) = (measure::peak_mib(pid), measure::resident_mib(pid));
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let log = pawl.log();
    let line = log.lines().rfind(|line| line.contains("ledger restored")).expect("it has restored");
    let records = line.split("records=").nth(1).and_then(|rest| rest.split(' ').next());
    let records: u64 = records.and_then(|text| text.parse().ok()).expect("a number of records");
    assert!((least..least + 1_000).contains(&records), "{records} records were read, not {least}");
    Start { ready, records, peak_mib, settled_mib }
}

/// Processor, cores and memory of this machine.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal");
    format!("{}, {cores} cores, {memory} of memory", field("/proc/cpuinfo", "model name"))
}

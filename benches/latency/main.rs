//! How long it takes from producing a record until a reader of committed records sees what became of
//! it, at a steady rate, for several commit intervals, beside a bare rdkafka loop with a transaction
//! in the same interval.
//!
//! `cargo bench --bench latency -- [--rate N] [--seconds N] [--intervals MS,MS] [--rounds N] [--warm-up SECONDS]`
//!
//! All lines share one broker and one run; each has topics and a process of its own. The table is the
//! median of the rounds. A broker that has just started is several times slower, so the same load runs
//! for a while before anything is counted.

#[path = "../../tests/support/mod.rs"]
mod support;

#[path = "../throughput/measure.rs"]
#[allow(dead_code, reason = "shared with the benchmark of throughput, which uses the rest")]
mod measure;

mod bare;
mod probe;

use std::fmt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Broker, Pawl};

/// The global allocator of the `pawl` program, so that the bare loop has it as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: i32 = 4;
/// Milliseconds between two commits while the broker warms up.
const WARM_UP_INTERVAL: u64 = 10;

/// What one line costs.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// p50, p99 and the longest, in milliseconds.
    millis: [f64; 3],
    /// CPU of the program and of the broker, in percent of one core.
    cpu: [f64; 2],
    /// p50 and p99 of Pawl's epoch commits, in milliseconds: upper bounds of the metric's buckets.
    commits: Option<[f64; 2]>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { millis: [p50, p99, max], cpu: [own, broker], commits } = self;
        write!(
            f,
            "p50 {p50:>6.1} ms  p99 {p99:>6.1} ms  max {max:>6.1} ms  CPU {own:>4.0} %  broker {broker:>4.0} %"
        )?;
        match commits {
            Some([p50, p99]) => write!(f, "  commits p50 <= {p50:.1} ms, p99 <= {p99:.1} ms"),
            None => Ok(()),
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "bare-loop") {
        return bare::main(&args[at + 1..]);
    }
    let option = |name: &str, default: &str| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default.to_owned(), |at| args[at + 1].clone())
    };
    let number = |name: &str, default: &str| option(name, default).parse::<u64>().expect("a number");
    let (rate, seconds, rounds) =
        (number("--rate", "5000"), number("--seconds", "30"), number("--rounds", "1"));
    let warm_up = number("--warm-up", "60");
    let intervals: Vec<u64> = option("--intervals", "5,10,20,50")
        .split(',')
        .map(|interval| interval.parse().expect("milliseconds"))
        .collect();
    let Some(broker) = support::broker() else { return };
    println!("{rate} records/s for {seconds} s, {PARTITIONS} partitions, {rounds} rounds");
    if warm_up > 0 {
        let cold = measure_line(broker, true, WARM_UP_INTERVAL, rate, warm_up);
        println!("not counted: {warm_up} s with a cold broker, {cold}");
    }
    let mut table: Vec<(String, Vec<Figures>)> = Vec::new();
    for round in 1..=rounds {
        for &interval in &intervals {
            for subject in ["bare rdkafka, a transaction each", "pawl exactly-once, at most each"] {
                let line = format!("{subject} {interval} ms");
                let figures = measure_line(broker, subject.starts_with("bare"), interval, rate, seconds);
                println!("round {round}: {line:<42} {figures}");
                match table.iter_mut().find(|(name, _)| *name == line) {
                    Some((_, all)) => all.push(figures),
                    None => table.push((line, vec![figures])),
                }
            }
        }
    }
    println!("\nmedian of the rounds");
    for (line, all) in &table {
        println!("{line:<42} {}", median(all));
    }
}

fn median(all: &[Figures]) -> Figures {
    let pick = |field: &dyn Fn(&Figures) -> f64| {
        let mut values: Vec<f64> = all.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        millis: [0, 1, 2].map(|n| pick(&|figures| figures.millis[n])),
        cpu: [0, 1].map(|n| pick(&|figures| figures.cpu[n])),
        commits: all[0]
            .commits
            .map(|_| [0, 1].map(|n| pick(&|figures| figures.commits.map_or(f64::NAN, |commits| commits[n])))),
    }
}

fn measure_line(broker: &Broker, is_bare: bool, interval: u64, rate: u64, seconds: u64) -> Figures {
    let input = support::topic(broker, "latency-input", PARTITIONS);
    let output = support::topic(broker, "latency-output", PARTITIONS);
    let subject = if is_bare {
        Subject::bare(broker, &input, &output, interval)
    } else {
        Subject::pawl(broker, &input, &output, interval)
    };
    let before = [measure::cpu_seconds(subject.pid()), measure::broker_cpu(broker)];
    let probed = probe::run(broker, &input, &output, rate, Duration::from_secs(seconds));
    let after = [measure::cpu_seconds(subject.pid()), measure::broker_cpu(broker)];
    let commits = subject.commits();
    subject.end();
    for topic in [&input, &output] {
        support::clients::delete(broker, topic);
    }
    let cpu = [0, 1].map(|n| (after[n] - before[n]) / probed.took.as_secs_f64() * 100.0);
    Figures { millis: probed.millis, cpu, commits }
}

/// What is measured, as a process of its own.
enum Subject {
    Bare(Child),
    Pawl(Pawl),
}

impl Subject {
    fn bare(broker: &Broker, input: &str, output: &str, interval: u64) -> Subject {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.args(["bare-loop", broker.bootstrap(), input, output, &interval.to_string()]);
        command.stdin(Stdio::piped());
        Subject::Bare(support::process::spawn(command).expect("starts"))
    }

    fn pawl(broker: &Broker, input: &str, output: &str, interval: u64) -> Subject {
        let group = support::unique("latency");
        let mut pawl = Pawl::new(&format!(
            "[kafka]\nbootstrap_servers = [\"{}\"]\n[handler.bench]\ntopic = \"{input}\"\ngroup = \"{group}\"\n\
             event_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\ncommit_interval = \"{interval}ms\"\n",
            broker.bootstrap()
        ));
        pawl.start().wait_ready();
        Subject::Pawl(pawl)
    }

    fn pid(&self) -> u32 {
        match self {
            Subject::Bare(child) => child.id(),
            Subject::Pawl(pawl) => pawl.pid().expect("it runs"),
        }
    }

    fn commits(&self) -> Option<[f64; 2]> {
        let Subject::Pawl(pawl) = self else { return None };
        let millis =
            |share| pawl.quantile("pawl_epoch_commit_seconds", share).map(|seconds| seconds * 1000.0);
        Some([millis(0.5)?, millis(0.99)?])
    }

    fn end(self) {
        match self {
            Subject::Bare(mut child) => support::process::kill(&mut child),
            Subject::Pawl(mut pawl) => assert_eq!(pawl.terminate(), 0, "{}", pawl.log()),
        }
    }
}

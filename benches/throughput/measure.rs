//! Figures of a process, from the system's own accounting.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::support::Broker;

/// What one line costs.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub per_second: f64,
    pub cpu_us_per_record: f64,
    pub peak_mib: f64,
    pub broker_cpu_us_per_record: f64,
}

impl Figures {
    pub fn median(all: &[Figures]) -> Figures {
        let pick = |field: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = all.iter().map(field).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Figures {
            per_second: pick(|f| f.per_second),
            cpu_us_per_record: pick(|f| f.cpu_us_per_record),
            peak_mib: pick(|f| f.peak_mib),
            broker_cpu_us_per_record: pick(|f| f.broker_cpu_us_per_record),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.0} records/s  {:>5.2} us CPU/record  {:>5.0} MiB peak  broker {:>5.2} us CPU/record",
            self.per_second, self.cpu_us_per_record, self.peak_mib, self.broker_cpu_us_per_record
        )
    }
}

/// Seconds of CPU that a process has used.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a stat line").split_whitespace().collect();
    let ticks: f64 = fields[11..=12].iter().map(|field| field.parse::<f64>().expect("ticks")).sum();
    // USER_HZ is 100 on every Linux that Rust supports.
    ticks / 100.0
}

/// The most memory that a process has had resident, in MiB.
pub fn peak_mib(pid: u32) -> f64 {
    status_mib(pid, "VmHWM:")
}

/// The memory that a process has resident now, in MiB.
#[allow(dead_code, reason = "the throughput benchmark shows peaks")]
pub fn resident_mib(pid: u32) -> f64 {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("KiB") / 1024.0
}

/// Seconds of CPU that the broker has used.
pub fn broker_cpu(broker: &Broker) -> f64 {
    broker.pid().map_or(0.0, cpu_seconds)
}

/// Runs a program that prints its seconds of work as its last line before it waits for its input
/// to close, and takes its figures at that moment.
pub fn child(broker: &Broker, mut command: Command, records: u64) -> Figures {
    let broker_before = broker_cpu(broker);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    let output = child.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("reads");
    let seconds: f64 = line.trim().parse().expect("seconds");
    let figures = Figures {
        per_second: records as f64 / seconds,
        cpu_us_per_record: cpu_seconds(child.id()) * 1e6 / records as f64,
        peak_mib: peak_mib(child.id()),
        broker_cpu_us_per_record: (broker_cpu(broker) - broker_before) * 1e6 / records as f64,
    };
    drop(child.stdin.take());
    child.wait().expect("ends");
    figures
}

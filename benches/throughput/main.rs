//! Throughput of Pawl against bare loops over the same records on the same broker, in one run.
//!
//! `cargo bench --bench throughput -- [--records N] [--keys N] [--rounds N] [--only LINE]`
//!
//! | line | what it does |
//! |---|---|
//! | bare | one rdkafka loop: consume, recognise duplicates in memory, produce; offsets committed plainly |
//! | bare, transactions + rows | the same in Kafka transactions, with a changelog row for every changed key |
//! | pawl at-least-once | `pawl run` with `forward`, event ids, ledger |
//! | pawl exactly-once | the same in transactions |
//!
//! Every line runs as a process of its own, so that CPU and peak memory are its own; after each the
//! output is counted and checked. The last table is the median of the rounds.

#[path = "../../tests/support/mod.rs"]
mod support;

mod bare;
mod check;
mod input;
mod measure;
mod pawl;

use std::process::Command;

use measure::Figures;

/// The global allocator of the `pawl` program, so that the bare loops have it as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is processed.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub records: u64,
    pub keys: u64,
    pub partitions: i32,
    pub value_bytes: usize,
    /// One of so many records repeats an event id of its key.
    pub duplicate_every: u64,
}

const LINES: [&str; 4] = ["bare", "bare, transactions + rows", "pawl at-least-once", "pawl exactly-once"];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "bare-loop") {
        return bare::main(&args[at + 1..]);
    }
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default, |at| args[at + 1].parse().expect("a number after the option"))
    };
    let load = Load {
        records: number("--records", 1_000_000),
        keys: number("--keys", 100_000),
        partitions: 4,
        value_bytes: 200,
        duplicate_every: 20,
    };
    let rounds = number("--rounds", 1);
    let only = args.iter().position(|arg| arg == "--only").map(|at| args[at + 1].clone());
    let Some(broker) = support::broker() else { return };
    let input = support::topic(broker, "bench-input", load.partitions);
    let expected = input::publish(broker, &input, load);
    println!(
        "{} records of {} B, {} keys, {} unique events, {} partitions, {rounds} rounds",
        load.records, load.value_bytes, load.keys, expected, load.partitions
    );
    // Lines of exactly-once with more settings of the handler, for comparing these.
    let with: Vec<&str> = args.windows(2).filter(|pair| pair[0] == "--with").map(|pair| &*pair[1]).collect();
    let lines: Vec<&str> = LINES.into_iter().chain(with).collect();
    let mut table: Vec<(&str, Vec<Figures>)> = Vec::new();
    for round in 1..=rounds {
        for &line in lines.iter().filter(|line| only.as_deref().is_none_or(|only| line.contains(only))) {
            let output = support::topic(broker, "bench-output", load.partitions);
            let figures = match line {
                "bare" => run_bare(broker, &input, &output, load, false),
                "bare, transactions + rows" => run_bare(broker, &input, &output, load, true),
                "pawl at-least-once" => {
                    pawl::run(broker, &input, &output, load, "guarantee = \"at-least-once\"")
                }
                "pawl exactly-once" => pawl::run(broker, &input, &output, load, ""),
                settings => pawl::run(broker, &input, &output, load, settings),
            };
            check::output(broker, &output, expected);
            support::clients::delete(broker, &output);
            println!("round {round}: {line:<28} {figures}");
            match table.iter_mut().find(|(name, _)| *name == line) {
                Some((_, all)) => all.push(figures),
                None => table.push((line, vec![figures])),
            }
        }
    }
    report(&table);
}

fn run_bare(broker: &support::Broker, input: &str, output: &str, load: Load, transactions: bool) -> Figures {
    let changelog = support::unique("bench-rows");
    support::topic_with(broker, &changelog, load.partitions, &[("cleanup.policy", "compact")]);
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(program);
    command.args(["bare-loop", broker.bootstrap(), input, output, &changelog]);
    command.args([load.records.to_string(), transactions.to_string()]);
    let figures = measure::child(broker, command, load.records);
    support::clients::delete(broker, &changelog);
    figures
}

fn report(table: &[(&str, Vec<Figures>)]) {
    println!("\nmedian of the rounds");
    let median =
        |name: &str| table.iter().find(|(line, _)| *line == name).map(|(_, all)| Figures::median(all));
    for (line, all) in table {
        println!("{line:<28} {}", Figures::median(all));
    }
    let ratio = |a: &str, b: &str| {
        let (Some(a), Some(b)) = (median(a), median(b)) else { return };
        println!("{:.2}", a.per_second / b.per_second);
    };
    print!("pawl exactly-once / bare with the same rows in transactions: ");
    ratio("pawl exactly-once", "bare, transactions + rows");
    print!("pawl exactly-once / pawl at-least-once: ");
    ratio("pawl exactly-once", "pawl at-least-once");
    print!("pawl at-least-once / bare: ");
    ratio("pawl at-least-once", "bare");
}

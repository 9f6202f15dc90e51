//! Several instances of one group under everything that goes wrong, and the proof that nothing of it
//! shows: for every key the output is the fold of the input, nothing lost, nothing twice, in order.
//!
//! ```text
//! cargo test --test chaos -- --duration 30m --seed 7
//! ```
//!
//! Instances are killed (SIGKILL), stopped beyond their session and continued (SIGSTOP, SIGCONT), ended
//! (SIGTERM), started with and without their local view; their links to the broker are cut, silenced and
//! slowed by Toxiproxy; the broker is restarted once; and while all instances are down another tool
//! moves the group's offsets, back to the beginning and, later, forward.
//!
//! Each instance has two handlers: one goes by offsets, the other by numbers that three producers write out
//! of order, twice, late or never ([`numbered`]). The service that both call fails for a few attempts, or
//! until it is mended ([`service`]): keys wait for retries, and go into quarantine. Meanwhile an operator at
//! the command line replays letters and pauses keys, and some of the commands are killed and given again
//! ([`operator`]). In the end the service is mended, and everything is replayed until no letter is left.
//!
//! With `--rolling` nothing of that happens: the instances are replaced one after the other, as an orchestrator
//! does with a new image, and how long deliveries paused is told ([`rolling`]).
//!
//! What happens when is drawn from the seed, which is printed. The verdict is reached from what Kafka's own
//! console consumer reads, from the letters, and from the journals of the service: each event took effect
//! once, those of a key in order over the whole history, quarantine and replay included ([`verdict`],
//! [`sequence`]); each letter has its reason ([`letters`]); no attempt was left out or early ([`attempts`]);
//! the books agree with the topics.
//!
//! The program is its own harness: `cargo test` runs it with its defaults, a short run.

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod instance;
mod letters;
mod load;
mod member;
mod numbered;
mod operator;
mod pipeline;
mod plan;
mod read;
mod rolling;
mod sequence;
mod service;
mod tally;
mod verdict;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser};

/// What a run is like.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// How long records are produced while things go wrong.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Decides what happens when; drawn and printed if it is not given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Instances, of which any number may be down at a time.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub instances: u8,
    /// Records a second.
    #[arg(long, default_value_t = 400)]
    pub rate: u32,
    /// More lines of the handler's settings; if there are none, the seed decides how the group is kept.
    #[arg(long)]
    pub handler: Option<String>,
    /// More lines of the kafka table's settings.
    #[arg(long, default_value = "")]
    pub kafka: String,
    /// Only what happens to links, or to processes, or nothing at all.
    #[arg(long, value_enum, default_value_t = Faults::All)]
    pub faults: Faults,
    /// What follows on a number that is missing for too long; if nothing is said, the seed decides.
    #[arg(long, value_enum)]
    pub gap: Option<Gap>,
    /// Replace the instances one after the other, with no other faults.
    #[arg(long)]
    pub rolling: bool,
    /// What the instances are until they are replaced: this program, built at another revision.
    #[arg(long, value_name = "PROGRAM", requires = "rolling")]
    pub from: Option<PathBuf>,
}

/// What follows on a number that is missing for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Gap {
    /// A dead letter of the record behind it.
    DeadLetter,
    /// Nothing: it is given up.
    Skip,
}

/// Which kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Faults {
    /// Every kind.
    All,
    /// Instances are killed, stopped, ended.
    Processes,
    /// Links are cut, silenced, slowed.
    Links,
    /// None.
    None,
}

/// How the group is kept.
const MEMBERSHIPS: [&str; 5] = [
    "membership = { assignor = \"cooperative-sticky\" }",
    "membership = { assignor = \"range\" }",
    "membership = { protocol = \"consumer\" }",
    "membership = { static = true }",
    "membership = { revoke_grace = \"100ms\" }",
];

/// Findings that are told: one cause often has many.
const TOLD: usize = 25;

/// The options, or the defaults where the arguments are those that cargo gives to every test program:
/// names of tests, and flags for the usual harness. `None` where these are other tests' names.
fn options(args: &[String]) -> Option<Options> {
    let own = Options::command();
    let is_own = |arg: &String| {
        own.get_arguments().any(|one| one.get_long().is_some_and(|long| *arg == format!("--{long}")))
    };
    if args.iter().any(|arg| is_own(arg) || arg == "--help") {
        return Some(Options::parse_from(args));
    }
    if args.iter().any(|arg| arg == "--list") {
        println!("chaos: test");
        return None;
    }
    let mut names = args[1..].iter().filter(|arg| !arg.starts_with('-')).peekable();
    let wanted = names.peek().is_none() || names.any(|name| "chaos".contains(name.as_str()));
    wanted.then(|| Options::parse_from(&args[..1]))
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "instance") {
        return instance::main(&args[2..]);
    }
    let Some(mut options) = options(&args) else { return };
    let seed = options.seed.unwrap_or_else(|| rand::random::<u64>() % 1_000_000);
    let handler =
        options.handler.get_or_insert_with(|| MEMBERSHIPS[seed as usize % MEMBERSHIPS.len()].into()).clone();
    let gap = *options.gap.get_or_insert(if seed % 3 == 0 { Gap::Skip } else { Gap::DeadLetter });
    let (duration, instances) = (options.duration, options.instances);
    println!("chaos: seed {seed}, {duration:?}, {instances} instances, {handler}, gaps: {gap:?}");
    let Some(mut world) = world::World::build(&options) else { return };
    let outcome = world.run(&options, seed);
    let findings = verdict::reach(&world, &outcome, &options);
    if findings.is_empty() {
        println!("chaos: seed {seed}: nothing lost, nothing twice, all in order");
        return;
    }
    world.keep_logs(seed);
    for finding in findings.iter().take(TOLD) {
        println!("FOUND: {finding}");
    }
    if findings.len() > TOLD {
        println!("and {} more", findings.len() - TOLD);
    }
    println!("chaos: seed {seed}: failed; again: cargo test --test chaos -- --seed {seed}");
    std::process::exit(1);
}

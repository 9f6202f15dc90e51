//! The commands that look: `pawl keys` and `pawl audit`.

use std::time::Duration;

use bytes::Bytes;
use clap::{ArgGroup, Args, Subcommand};

use super::{EndpointArgs, KeyCommand, KeyRelease, KeySkip, KeySkipGap, SettingsFile};
use crate::shown::bytes_of_hex;

/// `pawl audit`.
#[derive(Args, Debug)]
#[command(after_help = "\
For each partition:
  the books balance;
  received records are those of the input below the watermark, and those taken ahead of it;
  dead-lettered records are the letters of this group, and their originals lie in the input;
  claim, group offset and watermark belong together;
  nothing is taken that the topic does not hold, and no transaction hangs.

For forward: the output holds as many records as were applied.

What retention, compaction or an operator's skip has removed cannot be judged; a note says so. \
The handler may run meanwhile: all is measured at the last committed partition row. Changelog, \
dead letters, input and output are read to their ends, in bounded memory.

Disagreements make the exit code 1. Notes do not.")]
pub struct Audit {
    #[command(flatten)]
    pub settings: SettingsFile,
    /// Only this handler.
    #[arg(long, value_name = "NAME")]
    pub handler: Option<String>,
    /// Print one JSON object with the books and a list of findings.
    #[arg(long)]
    pub json: bool,
}

/// `pawl top`.
#[derive(Args, Debug)]
#[command(after_help = "\
On a terminal the tree is drawn anew until Ctrl-C; elsewhere, or with --once, it is printed once. \
Other instances hold other partitions: each tells of its own.

Exit code 4 if no instance answers.")]
pub struct Top {
    #[command(flatten)]
    pub settings: SettingsFile,
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// Time between two looks, 100ms to 1h.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print the tree once.
    #[arg(long)]
    pub once: bool,
    /// Print the answer of the endpoint, one JSON object, once.
    #[arg(long)]
    pub json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_millis(100)..=Duration::from_secs(3_600);
    if bounds.contains(&interval) { Ok(interval) } else { Err("100ms to 1h".into()) }
}

/// `pawl keys`.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// List keys, by partition, then by their bytes.
    List(KeysList),
    /// Show one key: what its ledger says, and what goes on in its lane.
    Show(KeysShow),
    /// Hand no record of a key to the handler until it is resumed.
    Pause(KeyCommand),
    /// End a pause.
    Resume(KeyCommand),
    /// Give up the record that a key waits with.
    Skip(KeySkip),
    /// Give up the numbers that a key's sequence waits for.
    SkipGap(KeySkipGap),
    /// End a key's quarantine without a replay.
    Release(KeyRelease),
    /// Forget the state and the event ids of a key.
    Erase(KeyCommand),
}

/// Of which handler, and whom to ask.
#[derive(Args, Debug)]
pub struct KeysSource {
    #[command(flatten)]
    pub settings: SettingsFile,
    /// The handler; may be left out where the settings have only one.
    #[arg(long, value_name = "NAME")]
    pub handler: Option<String>,
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// Read the changelog, whether an instance runs or not.
    #[arg(long, conflicts_with = "admin")]
    pub changelog: bool,
    /// Only this partition.
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Print one JSON object a line; bytes that are not UTF-8 as {"hex": "..."}.
    #[arg(long)]
    pub json: bool,
}

/// `pawl keys list`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pawl keys list --prefix ORD-47 --limit 20
  pawl keys list --changelog --json | jq .key
  pawl keys list --gaps                   whose sequence waits for a number

A key is in the ledger while it has state, an event id not older than recent_ids_age, or something \
above the partition's watermark. A running instance is asked through its endpoint, and knows the \
partitions that it holds; where none answers, the changelog is read from beginning to end. The last \
line on standard error says who was asked.

Exit code 4 if no instance answers at --admin.")]
pub struct KeysList {
    #[command(flatten)]
    pub source: KeysSource,
    /// Only keys that begin with this text.
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Only keys that wait for a number that is missing in their sequence.
    #[arg(long)]
    pub gaps: bool,
    /// Only keys in quarantine.
    #[arg(long)]
    pub quarantined: bool,
    /// Only keys that an operator has paused.
    #[arg(long)]
    pub paused: bool,
    /// Keys, at most.
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `pawl keys show`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true)), after_help = "\
Examples:
  pawl keys show ORD-4711
  pawl keys show --key-hex ff00a1
  pawl keys show --no-key                 the lane of records without a usable key
  pawl keys show --no-key-lane 3          one of those that null keys are spread over

In the changelog a key is looked for in the partition where Java's partitioner puts it, then in the \
others; in an instance, in all partitions that it holds.

Exit code 1 if nothing is known of the key, 4 if no instance answers at --admin.")]
pub struct KeysShow {
    /// The key, as text.
    #[arg(group = "which")]
    pub key: Option<String>,
    /// The key, as hex digits.
    #[arg(long, value_name = "HEX", group = "which", value_parser = bytes_of_hex)]
    pub key_hex: Option<Bytes>,
    /// The lane of records whose key cannot be used, or is null where null keys are rejected.
    #[arg(long, group = "which")]
    pub no_key: bool,
    /// One of the lanes that null keys are spread over, by its number from 0 on.
    #[arg(long, value_name = "LANE", group = "which")]
    pub no_key_lane: Option<u16>,
    #[command(flatten)]
    pub source: KeysSource,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn a_key_is_named_in_one_way_and_an_endpoint_by_its_address() {
        let parse = |extra: &[&str]| Cli::try_parse_from([&["pawl", "keys", "show"], extra].concat());
        for valid in
            [&["K"][..], &["--key-hex", "ff00"], &["--no-key"], &["K", "--admin", "http://[::1]:9464/"]]
        {
            assert!(parse(valid).is_ok(), "{valid:?}");
        }
        let wrong: [&[&str]; 6] = [
            &[],
            &["K", "--no-key"],
            &["--key-hex", "f"],
            &["K", "--certificate-file", "c.pem"],
            &["K", "--admin", "a"],
            &["K", "--admin", "a:1", "--changelog"],
        ];
        for args in wrong {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}

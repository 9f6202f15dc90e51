//! The commands that instances carry out: `pawl dlt replay` and the like, `pawl keys pause` and the like.

use std::time::Duration;

use bytes::Bytes;
use clap::{ArgGroup, Args};

use super::{LetterFilter, SettingsFile};
use crate::shown::bytes_of_hex;

/// Which handler is asked, and how long for.
#[derive(Args, Clone, Debug)]
pub struct Whom {
    #[command(flatten)]
    pub settings: SettingsFile,
    /// The handler; may be left out where the settings have only one.
    #[arg(long, value_name = "NAME")]
    pub handler: Option<String>,
    /// How long to wait without hearing anything; the command is carried out all the same.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Print one JSON object with the answer of each partition.
    #[arg(long)]
    pub json: bool,
}

/// The same, and of which partition.
#[derive(Args, Clone, Debug)]
pub struct Asking {
    /// Only this partition.
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    #[command(flatten)]
    pub whom: Whom,
}

/// Which key.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true)))]
pub struct OneKey {
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
}

/// `pawl keys pause`, `resume`, `erase`.
#[derive(Args, Debug)]
#[command(after_help = "\
The command goes through the handler's command topic, and works from any machine that reaches the \
brokers. It waits until the instances that hold the partitions have answered.

Exit code 1 if nothing is known of the key, it was not paused (resume), the command was refused, or an instance did \
not answer.")]
pub struct KeyCommand {
    #[command(flatten)]
    pub which: OneKey,
    #[command(flatten)]
    pub asking: Asking,
}

/// `pawl keys release`.
#[derive(Args, Debug)]
#[command(after_help = "\
The key's letters stay in the dead-letter topic, count as discarded in the books, and are not replayed \
any more. Its next record is handed to the handler.

Exit code 1 if the key is in no quarantine, it was refused, or an instance did not answer.")]
pub struct KeyRelease {
    #[command(flatten)]
    pub which: OneKey,
    /// Why; it is kept in the command topic and in the log.
    #[arg(long)]
    pub reason: String,
    #[command(flatten)]
    pub asking: Asking,
}

/// `pawl keys skip`.
#[derive(Args, Debug)]
#[command(after_help = "\
`pawl keys show KEY` tells the offset with which a key waits. The record is neither applied nor written \
to the dead-letter topic; it counts as skipped in the books.

Exit code 1 if the key does not wait with this record, it was refused, or an instance did not answer.")]
pub struct KeySkip {
    #[command(flatten)]
    pub which: OneKey,
    /// Offset of the record that the key waits with; another one is not given up in its place.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: i64,
    /// Why; it is kept in the command topic and in the log.
    #[arg(long)]
    pub reason: String,
    #[command(flatten)]
    pub asking: Asking,
}

/// `pawl keys skip-gap`.
#[derive(Args, Debug)]
#[command(after_help = "\
`pawl keys list --gaps` lists the keys whose sequence waits for a number, `pawl keys show KEY` one of them. \
A record that brings one of these numbers later becomes a dead letter.

Exit code 1 if the key does not wait with this number, it was refused, or an instance did not answer.")]
pub struct KeySkipGap {
    #[command(flatten)]
    pub which: OneKey,
    /// The lowest number that waits: the key goes on with it. Another gap is not given up in its place.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub to: i64,
    /// Why; it is kept in the command topic and in the log.
    #[arg(long)]
    pub reason: String,
    #[command(flatten)]
    pub asking: Asking,
}

/// A replay says of what.
const SCOPE: [&str; 9] =
    ["all", "key", "key_hex", "no_key", "cause", "disposition", "since", "until", "group"];

/// `pawl dlt replay`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("scope").required(true).multiple(true).args(SCOPE)), after_help = "\
Examples:
  pawl dlt replay --all --dry-run             how many letters would be replayed
  pawl dlt replay --key ORD-4711
  pawl dlt replay --cause pawl.Exhausted --since 2h --rate 50

The instances that hold the partitions hand the letters to the handler again, through the lanes of their \
keys: of a key in quarantine in order, from its first letter on, by which the filters choose it. What \
comes for the key meanwhile waits behind the letters. A letter that fails again stays where it is, and \
holds its key only. Interrupting this command does not end the replay, nor does the end of an instance: \
the next owner of its partitions goes on. Run twice, nothing is applied twice.

Exit code 1 if letters failed again, are gone from the topic, or an instance did not answer.")]
pub struct DltReplay {
    /// Every key that has letters.
    #[arg(long, help_heading = "Which letters")]
    pub all: bool,
    #[command(flatten)]
    pub filter: LetterFilter,
    /// Letters of this consumer group instead of the handler's own: those of a Spring service, say.
    #[arg(long, value_name = "GROUP", help_heading = "Which letters")]
    pub group: Option<String>,
    /// Letters a second, at most, over all partitions.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// Only count.
    #[arg(long)]
    pub dry_run: bool,
    /// Book letters that are gone from the topic as lost, and go on with the next of their key.
    #[arg(long)]
    pub accept_lost: bool,
    #[command(flatten)]
    pub asking: Asking,
}

/// `pawl dlt stop-replay`.
#[derive(Args, Debug)]
#[command(after_help = "\
What is at the handler may end; letters that were not replayed stay outstanding.

Exit code 1 if no replay is under way, or an instance did not answer.")]
pub struct DltStopReplay {
    #[command(flatten)]
    pub asking: Asking,
}

/// `pawl dlt discard`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pawl dlt discard 3 1042 --reason \"the order was cancelled by phone\"
  pawl dlt replay --key ORD-4711              then those behind it

Of a key in quarantine the letters up to this one are given up, if nobody has dealt with them; the key \
goes on with the next. The record stays in the dead-letter topic, and counts as discarded in the books.

Exit code 1 if there is no such letter, nothing waits for it, it was refused, or an instance did not answer.")]
pub struct DltDiscard {
    /// The partition, as `dlt list` prints it.
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: i32,
    /// The offset, as `dlt list` prints it.
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: i64,
    /// Why; it is kept in the command topic and in the log.
    #[arg(long)]
    pub reason: String,
    #[command(flatten)]
    pub whom: Whom,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("more than 0".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn a_letter_is_named_by_its_place_alone() {
        let parse = |extra: &[&str]| {
            Cli::try_parse_from([&["pawl", "dlt", "discard", "3", "7", "--reason", "r"], extra].concat())
        };
        assert!(parse(&["--handler", "billing", "--timeout", "5s", "--json"]).is_ok());
        assert!(parse(&["--partition", "4"]).is_err(), "it is named already");
    }

    #[test]
    fn a_replay_says_of_what() {
        let parse = |extra: &[&str]| Cli::try_parse_from([&["pawl", "dlt", "replay"], extra].concat());
        for valid in [
            &["--all"][..],
            &["--key", "K", "--cause", "pawl.Exhausted"],
            &["--since", "2h", "--until", "2026-01-31T12:00:00Z", "--rate", "0.5"],
        ] {
            assert!(parse(valid).is_ok(), "{valid:?}");
        }
        for wrong in [
            &[][..],
            &["--dry-run"],
            &["--all", "--rate", "0"],
            &["--key", "a", "--no-key"],
            &["--since", "x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

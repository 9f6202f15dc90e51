//! The commands about dead letters, and which letters they are about.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;
use pawl_actors::supervisor::Disposition;

use super::Connection;
use crate::shown::bytes_of_hex;

/// Which letters are meant; all without.
#[derive(Args, Clone, Debug, Default)]
pub struct LetterFilter {
    /// Only letters with this key, as text.
    #[arg(long, value_name = "TEXT", group = "letter-key", help_heading = "Which letters")]
    pub key: Option<String>,
    /// Only letters with this key, as hex digits.
    #[arg(long, value_name = "HEX", group = "letter-key", value_parser = bytes_of_hex, help_heading = "Which letters")]
    pub key_hex: Option<Bytes>,
    /// Only letters without a key.
    #[arg(long, group = "letter-key", help_heading = "Which letters")]
    pub no_key: bool,
    /// Only letters with this code, cause or own code, or with this text in their message.
    #[arg(long, value_name = "TEXT", help_heading = "Which letters")]
    pub cause: Option<String>,
    /// Only letters written at this time or later: RFC 3339 in UTC, or an age such as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = "Which letters")]
    pub since: Option<Moment>,
    /// Only letters written before this time, or this long ago.
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = "Which letters")]
    pub until: Option<Moment>,
    /// Only letters with this disposition.
    #[arg(long, value_name = "NAME", value_parser = Disposition::NAMES, help_heading = "Which letters")]
    pub disposition: Option<String>,
}

/// A point in time, as a person gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Milliseconds since the epoch.
    At(i64),
    /// So long before now.
    Ago(Duration),
}

/// Reads a point in time.
///
/// # Errors
/// Says how it is written.
pub fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(age) = humantime::parse_duration(text) {
        return Ok(Moment::Ago(age));
    }
    let time = humantime::parse_rfc3339(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let millis = time.and_then(|time| i64::try_from(time.as_millis()).ok());
    millis.map(Moment::At).ok_or_else(|| {
        "neither a time in UTC, such as 2026-11-24T02:30:00Z, nor an age, such as 2h or 3days".into()
    })
}

/// `pawl dlt list`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pawl dlt list orders-dlt --limit 20
  pawl dlt list orders-dlt --since 2h --cause pawl.Unavailable
  pawl dlt list orders-dlt --key ORD-4711
  pawl dlt list orders-dlt --count

With --count all letters are read and a table is printed: letters, keys, and the times of the first \
and the last, for each code, cause and disposition, and for each group where there are several. \
Beyond 100,000 keys their numbers are \"at least\"; beyond 1,000 rows the rest is one row.")]
pub struct DltList {
    #[command(flatten)]
    pub connection: Connection,
    /// The dead-letter topic.
    pub topic: String,
    /// Only this partition.
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(0..), help_heading = "Which letters")]
    pub partition: Option<i32>,
    /// Only letters of this consumer group (two handlers may share a topic).
    #[arg(long, short, help_heading = "Which letters")]
    pub group: Option<String>,
    #[command(flatten)]
    pub filter: LetterFilter,
    /// Print how many there are of each code, cause and disposition, most frequent first.
    #[arg(long, conflicts_with = "limit")]
    pub count: bool,
    /// Letters, at most.
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Print one JSON object a line; bytes that are not UTF-8 as {"hex": "..."}.
    #[arg(long)]
    pub json: bool,
}

/// `pawl dlt show`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  pawl dlt show orders-dlt 3 1042")]
pub struct DltShow {
    #[command(flatten)]
    pub connection: Connection,
    /// The dead-letter topic.
    pub topic: String,
    /// The partition, as `dlt list` prints it.
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: i32,
    /// The offset, as `dlt list` prints it.
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: i64,
    /// Print one JSON object; bytes that are not UTF-8 as {"hex": "..."}.
    #[arg(long)]
    pub json: bool,
}

/// `pawl dlt export`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pawl dlt export orders-dlt --output letters.jsonl
  pawl dlt export orders-dlt --until 30days | zstd > old-letters.jsonl.zst

Each line is one letter as a JSON object: partition, offset, timestamp, timestamp_type, key, value \
and headers, with all bytes in base64; key_text, code and message are for people. Letters of a \
partition are in their order, those of different partitions between each other. `pawl dlt import` \
writes them back. Letters that are written meanwhile are not in it.")]
pub struct DltExport {
    #[command(flatten)]
    pub connection: Connection,
    /// The dead-letter topic.
    pub topic: String,
    /// Only this partition.
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(0..), help_heading = "Which letters")]
    pub partition: Option<i32>,
    /// Only letters of this consumer group (two handlers may share a topic).
    #[arg(long, short, help_heading = "Which letters")]
    pub group: Option<String>,
    #[command(flatten)]
    pub filter: LetterFilter,
    /// The file to write, which must not be there yet; "-" is standard output.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

/// `pawl dlt import`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pawl dlt import orders-dlt-copy letters.jsonl
  zstdcat old-letters.jsonl.zst | pawl dlt import orders-dlt-copy

Each line of `pawl dlt export` becomes a record in the partition of the same number, with the bytes \
and the time stamp of the letter; its offset is a new one. The producer is idempotent, and all \
in-sync replicas acknowledge.

Warning: into the topic that the letters came from, and wherever they have been imported before, \
this writes copies beside the letters that are there.

All lines are read and checked before the first is written: at a bad line, or where the topic does \
not have a letter's partition, nothing is written. Standard input is kept in a temporary file for \
that.")]
pub struct DltImport {
    #[command(flatten)]
    pub connection: Connection,
    /// The topic to write to; it must exist.
    pub topic: String,
    /// The lines; "-" is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Leave bad lines out, with a message for each, instead of writing nothing.
    #[arg(long, help_heading = "Limits")]
    pub skip_invalid: bool,
    /// The longest line, in bytes, up to 67108864; base64 makes a third more of a letter's.
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024 * 1024, help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64 * 1024 * 1024))]
    pub max_line_bytes: u32,
    /// How long a record may wait for its acknowledgement.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    #[arg(help_heading = "Limits")]
    pub timeout: Duration,
    /// Print one JSON object as the report.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, Dlt};

    fn list(extra: &[&str]) -> Result<DltList, clap::Error> {
        match Cli::try_parse_from([&["pawl", "dlt", "list", "t"], extra].concat())?.command {
            Command::Dlt(Dlt::List(list)) => Ok(list),
            other => panic!("another command: {other:?}"),
        }
    }

    #[test]
    fn letters_are_named_by_one_key_and_by_times_or_ages() {
        let filter = list(&["--key-hex", "ff00", "--since", "2026-11-24T02:30:00.5Z", "--until", "90min"])
            .expect("valid")
            .filter;
        assert_eq!(filter.key_hex, Some(Bytes::from_static(&[0xff, 0])));
        assert_eq!(filter.since, Some(Moment::At(1_795_487_400_500)));
        assert_eq!(filter.until, Some(Moment::Ago(Duration::from_secs(90 * 60))));
        let wrong: [&[&str]; 5] = [
            &["--key", "a", "--no-key"],
            &["--key-hex", "f"],
            &["--since", "yesterday"],
            &["--since", "2026-11-24T02:30:00"],
            &["--count", "--limit", "3"],
        ];
        for args in wrong {
            assert!(list(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn a_disposition_is_one_that_a_letter_can_have() {
        let out_of_time = Disposition::OutOfTime(Duration::from_secs(1));
        for each in [
            Disposition::Poison,
            Disposition::Exhausted,
            Disposition::Follower,
            Disposition::SequenceGap,
            Disposition::SequenceLate,
            out_of_time,
        ] {
            assert!(list(&["--disposition", each.name()]).is_ok(), "{each:?}");
        }
        let told = list(&["--disposition", "sequence"]).expect_err("none").to_string();
        assert!(Disposition::NAMES.iter().all(|name| told.contains(name)), "{told}");
    }
}

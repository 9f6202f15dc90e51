//! `pawl rewind`.

use clap::{ArgGroup, Args};

use super::Asking;
use super::letters::{Moment, moment};

/// `pawl rewind`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("place").required(true)), group(ArgGroup::new("state").required(true)), after_help = "\
Examples:
  pawl rewind --to-time 2026-11-24T02:30:00Z --keep-state --reason \"wrong prices since the release\"
  pawl rewind --to-offset 4711 --partition 3 --reset-state --reason \"bad batch\" --yes
  pawl rewind --to-earliest --reset-state --reason \"new version of the state\"

First it says what would be handled again and what that means, and asks. Then the instances that hold the \
partitions let their running calls end, go back, and answer. A partition that nobody holds is rewound by \
the next instance that does. Interrupting this command does not take it back.

Exit code 1 if there is nothing to rewind, a partition refused, or an instance did not answer; 2 if it was \
not agreed to.")]
pub struct Rewind {
    /// To this offset; of a topic with several partitions, with --partition.
    #[arg(long, value_name = "N", group = "place", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,
    /// In each partition to the first record of this time or later: RFC 3339 in UTC, or an age such as 2h.
    #[arg(long, value_name = "TIME", group = "place", value_parser = moment)]
    pub to_time: Option<Moment>,
    /// In each partition to the first record that the topic still has.
    #[arg(long, group = "place")]
    pub to_earliest: bool,
    /// Keys keep their state: the handler sees, with old records, states from after them.
    #[arg(long, group = "state")]
    pub keep_state: bool,
    /// All keys of these partitions lose their state.
    #[arg(long, group = "state")]
    pub reset_state: bool,
    /// Why; it is kept in the command topic and in the log.
    #[arg(long)]
    pub reason: String,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub asking: Asking,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn a_rewind_says_to_where_why_and_what_becomes_of_the_states() {
        let parse = |extra: &[&str]| Cli::try_parse_from([&["pawl", "rewind"], extra].concat());
        let valid: [&[&str]; 3] = [
            &["--to-offset", "5", "-p", "1", "--keep-state", "--reason", "r", "--yes"],
            &["--to-time", "2026-01-31T12:00:00Z", "--reset-state", "--reason", "r"],
            &["--to-earliest", "--reset-state", "--reason", "r"],
        ];
        for args in valid {
            assert!(parse(args).is_ok(), "{args:?}");
        }
        let wrong: [&[&str]; 5] = [
            &["--keep-state", "--reason", "r"],
            &["--to-earliest", "--reason", "r"],
            &["--to-earliest", "--keep-state"],
            &["--to-earliest", "--to-offset", "5", "--keep-state", "--reason", "r"],
            &["--to-earliest", "--keep-state", "--reset-state", "--reason", "r"],
        ];
        for args in wrong {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}

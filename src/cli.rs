//! The command line as types: names, defaults, help. What a command does stands in `commands`.

mod asking;
mod endpoint;
mod health;
mod iam_policy;
mod letters;
mod looking;
mod rewind;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pawl_actors::selector::Selector;

use crate::exit::Exit;
use crate::settings::{Settings, SettingsError};

pub use asking::{
    Asking, DltDiscard, DltReplay, DltStopReplay, KeyCommand, KeyRelease, KeySkip, KeySkipGap, OneKey, Whom,
};
pub use endpoint::{Address, EndpointArgs};
pub use health::Health;
pub use iam_policy::{IamPolicy, PolicyForm};
pub use letters::{DltExport, DltImport, DltList, DltShow, LetterFilter, Moment, moment};
pub use looking::{Audit, Keys, KeysList, KeysShow, KeysSource, Top};
pub use rewind::Rewind;

/// Ordered, idempotent, per-key event processing on Kafka topics.
///
/// Pawl reads records from Kafka, hands them to your service one at a time for each key, drops
/// duplicates, retries what fails without holding up other keys, and writes what cannot be
/// processed to a dead-letter topic. One binary, one settings file.
#[derive(Debug, Parser)]
#[command(name = "pawl", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = after_help())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

fn after_help() -> String {
    format!(
        "Examples:\n  \
         pawl demo                                           see it work, with nothing to install\n  \
         pawl check                                          is everything ready to run?\n  \
         pawl run                                            process records\n  \
         pawl publish --topic orders --key json:/orderId orders.jsonl\n  \
         pawl dlt list orders-dlt                            what failed, and why\n  \
         pawl dlt replay --all                               hand it to the handler again\n  \
         pawl keys show ORD-4711                             what is known of one key\n  \
         pawl top                                            what goes on in the running instance\n  \
         pawl audit                                          do the books agree with the topics?\n\n{}",
        Exit::table()
    )
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Process records until a signal says stop.
    Run(Run),
    /// Check the settings, then the broker and its topics; one line a finding, with its remedy.
    Check(Check),
    /// Print the rights that these settings need at the brokers, as a policy for MSK or as ACLs.
    IamPolicy(IamPolicy),
    /// Write JSON lines to a topic, from a file or standard input.
    Publish(Publish),
    /// Look at dead letters, hand them to their handler again, give them up, or keep them elsewhere.
    #[command(subcommand)]
    Dlt(Dlt),
    /// Recompute each partition's books from the topics, and say whether they agree.
    Audit(Audit),
    /// Look at the keys of a handler, pause, resume, skip, release or erase one.
    #[command(subcommand)]
    Keys(Keys),
    /// Have a handler's records handled once more, from an offset or a time on.
    Rewind(Rewind),
    /// Watch a running instance: what watches over what, what was begun anew, and why.
    Top(Top),
    /// Is the running instance alive? For the health check of a container.
    Health(Health),
    /// Create the topics of the settings.
    #[command(subcommand)]
    Topics(Topics),
    /// See Pawl work, with nothing to install: no broker, no Java.
    Demo(Demo),
}

/// Which settings file.
#[derive(Args, Clone, Debug)]
pub struct SettingsFile {
    /// The settings file; environment variables PAWL__TABLE__KEY override it.
    #[arg(long, short, value_name = "FILE", default_value = "pawl.toml")]
    config: PathBuf,
    /// An environment variable that holds the text of the settings, in place of a file.
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    config_env: Option<String>,
}

impl SettingsFile {
    /// A file, whatever the environment holds.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        SettingsFile { config: path.into(), config_env: None }
    }

    /// Where they are, for messages: the file's name, or the variable's after a dollar sign.
    pub fn place(&self) -> String {
        match &self.config_env {
            Some(name) => format!("${name}"),
            None => self.config.display().to_string(),
        }
    }

    /// Reads the settings from where they are.
    ///
    /// # Errors
    /// Lists all that is wrong with them, for a person.
    pub fn load(&self) -> Result<Settings, SettingsError> {
        match &self.config_env {
            Some(name) => Settings::load_variable(name),
            None => Settings::load(&self.config),
        }
    }
}

/// How to reach the cluster, for commands that need nothing else of the settings.
#[derive(Args, Debug)]
pub struct Connection {
    #[command(flatten)]
    settings: SettingsFile,
    /// Brokers to connect to, in place of a settings file.
    #[arg(long, short, value_name = "HOST:PORT", value_delimiter = ',')]
    #[arg(conflicts_with_all = ["config", "config_env"])]
    bootstrap_servers: Vec<String>,
}

impl Connection {
    /// The settings file, unless brokers were named.
    pub fn source(&self) -> Result<&[String], &SettingsFile> {
        if self.bootstrap_servers.is_empty() { Err(&self.settings) } else { Ok(&self.bootstrap_servers) }
    }
}

/// `pawl run`.
#[derive(Args, Debug)]
#[command(after_help = "\
Ctrl-C or SIGTERM drains: running calls end, what they did is committed, the group is left; at most \
shutdown.deadline later the process ends. A second signal ends it at once; what was not committed is \
delivered again after the next start.")]
pub struct Run {
    #[command(flatten)]
    pub settings: SettingsFile,
}

/// `pawl check`.
#[derive(Args, Debug)]
#[command(after_help = "\
Checked: the settings; a broker answers; input and forward topic are there; changelog, command topic and \
dead-letter topic have as many partitions as the input; the changelog is compacted, the other two are not; dead \
letters are kept without limit and fit, and so do forwarded records and the ledger's rows; the rights to these \
topics, the group and the transactional ids, where the brokers tell them. To find out about the last of these an \
id of its own is used once, <prefix><group>.check. Not checked: whether an HTTP service answers.

Errors make the exit code 1. Warnings and notes do not.

With --offline only the settings and the variables over them are checked, and no broker is asked: for the place \
where settings are written, which cannot reach the cluster.")]
pub struct Check {
    #[command(flatten)]
    pub settings: SettingsFile,
    /// Check the settings alone, and ask no broker.
    #[arg(long)]
    pub offline: bool,
    /// Print one JSON object with a list of findings.
    #[arg(long)]
    pub json: bool,
}

/// `pawl publish`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pawl publish --topic orders --key json:/orderId --event-id json:/eventId orders.jsonl
  tail -f app.log | pawl publish -b localhost:9092 --topic events --key json:/user/id

Every line is one JSON value and becomes the value of one record, byte for byte. The producer is \
idempotent, all in-sync replicas acknowledge, and keys go to the partitions that Java's default \
partitioner gives them. At the first bad line nothing more is sent, and the message says how many \
records were acknowledged.")]
pub struct Publish {
    #[command(flatten)]
    pub connection: Connection,
    /// The lines; "-" is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// The topic to write to; it must exist.
    #[arg(long, short, help_heading = "Records")]
    pub topic: String,
    /// Where in a line the record's key is, as a JSON pointer. Without it records have no key.
    #[arg(long, short, value_name = "json:/POINTER", value_parser = json_place, help_heading = "Records")]
    pub key: Option<Selector>,
    /// Where the event id is; it becomes the header ce_id, with the other CloudEvents headers.
    #[arg(long, value_name = "json:/POINTER", value_parser = json_place, help_heading = "Records")]
    pub event_id: Option<Selector>,
    /// The event type (header ce_type): a text, or where it is in a line.
    #[arg(long = "type", value_name = "TEXT|json:/POINTER", requires = "event_id")]
    #[arg(default_value = "pawl.record", value_parser = text_or_place, help_heading = "Records")]
    pub event_type: TextOrPlace,
    /// The event source (header ce_source) [default: /kafka/TOPIC].
    #[arg(long, value_name = "URI", requires = "event_id", help_heading = "Records")]
    pub source: Option<String>,
    /// Leave bad lines out, with a message for each, instead of stopping at the first.
    #[arg(long, help_heading = "Limits")]
    pub skip_invalid: bool,
    /// Records a second, at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    pub rate: Option<u32>,
    /// The longest line, in bytes, up to 16777216; a little less than a topic's default max.message.bytes
    /// if it is not set.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000, help_heading = "Limits")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16 * 1024 * 1024))]
    pub max_line_bytes: u32,
    /// How long a record may wait for its acknowledgement.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    #[arg(help_heading = "Limits")]
    pub timeout: std::time::Duration,
    /// Print one JSON object as the report.
    #[arg(long)]
    pub json: bool,
}

/// A text of its own, or a place in each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextOrPlace {
    /// The same for every record.
    Text(String),
    /// Read from the line.
    Place(Selector),
}

fn json_place(text: &str) -> Result<Selector, String> {
    match text.parse()? {
        place @ Selector::Json(_) => Ok(place),
        _ => Err("a line has no key and no headers: write \"json:/pointer\"".into()),
    }
}

fn text_or_place(text: &str) -> Result<TextOrPlace, String> {
    if text.starts_with("json:") {
        json_place(text).map(TextOrPlace::Place)
    } else {
        Ok(TextOrPlace::Text(text.to_owned()))
    }
}

/// `pawl dlt`.
#[derive(Debug, Subcommand)]
pub enum Dlt {
    /// List dead letters, oldest first in each partition.
    List(DltList),
    /// Show one dead letter: why it is there, its headers, key and value.
    Show(DltShow),
    /// Hand dead letters to their handler again, a key's letters in order.
    Replay(DltReplay),
    /// End a replay that is under way.
    StopReplay(DltStopReplay),
    /// Give up the first letters of a key, up to this one.
    Discard(DltDiscard),
    /// Write dead letters to a file, byte for byte, one JSON object a line.
    Export(DltExport),
    /// Write exported letters back to a topic.
    Import(DltImport),
}

/// `pawl topics`.
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Create what is missing; what is there stays as it is.
    Create(TopicsCreate),
}

/// `pawl topics create`.
#[derive(Args, Debug)]
#[command(after_help = "\
For each handler: its changelog (compacted), its command topic and its dead-letter topic (kept without \
limit), all with as many partitions as the input topic. Input and forward topic only with --input-partitions. \
`pawl run` does the same, without these two, unless create_topics = false.")]
pub struct TopicsCreate {
    #[command(flatten)]
    pub settings: SettingsFile,
    /// Create missing input and forward topics too, with this many partitions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub input_partitions: Option<i32>,
    /// Print one JSON object with a list of topics.
    #[arg(long)]
    pub json: bool,
}

/// `pawl demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Orders are placed, confirmed, reminded of and paid, thousands at a time; one event in twenty is \
written twice. A billing service in this process takes each event over HTTP: for some orders it is \
often busy, and one order it refuses for good. Kafka is the mock cluster inside librdkafka.

The report is counted from what was published, what the service saw and what lies in the dead-letter \
topic, not from Pawl's own counters. The exit code is 0 only if nothing was lost, nothing applied \
twice and nothing out of order. See what the recognition of duplicates is for:
  pawl demo --recent-ids 0")]
pub struct Demo {
    /// Orders, 10 to 100000; each has three to eight events.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub orders: u32,
    /// Makes the same orders again, in the same order; the report tells it [default: any].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Event ids that each order remembers to recognise duplicates, up to 10000; 0 switches that off.
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub recent_ids: u32,
    /// Print one JSON object as the report, and no progress.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_shows_examples_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    }

    /// Where a terminal is narrower than a line of the source, a line break of ours leaves single words alone.
    #[test]
    fn paragraphs_of_the_help_are_broken_by_nobody_but_the_terminal() {
        fn walk(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for paragraph in help.split("\n\n").filter(|paragraph| !paragraph.starts_with("Exit codes:")) {
                let broken = paragraph.lines().skip(1).find(|line| !line.starts_with(' '));
                assert_eq!(broken, None, "in the help of {}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
        let wide = Exit::table().lines().map(str::len).max();
        assert!(wide <= Some(100), "the table of exit codes is {wide:?} wide");
    }

    #[test]
    fn a_place_that_a_line_does_not_have_is_refused_with_the_likely_intention() {
        let parse = |key: &str| Cli::try_parse_from(["pawl", "publish", "--topic", "t", "--key", key]);
        assert!(parse("json:/orderId").is_ok());
        for (key, hint) in [("json:orderId", "json:/orderId"), ("header:id", "json:/pointer")] {
            let error = parse(key).expect_err("not a place in a line").to_string();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn brokers_on_the_command_line_stand_in_for_a_settings_file() {
        let parse = |extra: &[&str]| {
            let Cli { command } = Cli::try_parse_from([&["pawl", "dlt", "list", "t"], extra].concat())?;
            let Command::Dlt(Dlt::List(list)) = command else { panic!("another command") };
            Ok::<_, clap::Error>(
                list.connection.source().map(<[_]>::to_vec).map_err(|file| file.config.clone()),
            )
        };
        assert_eq!(parse(&[]).expect("valid"), Err("pawl.toml".into()));
        assert_eq!(parse(&["-b", "a:1,b:2"]).expect("valid"), Ok(vec!["a:1".into(), "b:2".into()]));
        assert!(parse(&["-b", "a:1", "-c", "x.toml"]).is_err(), "one of them, not both");
        assert!(parse(&["-b", "a:1", "--config-env", "X"]).is_err(), "one of them, not both");
    }

    #[test]
    fn settings_come_from_a_file_or_from_a_variable_and_not_from_both() {
        let place = |extra: &[&str]| {
            let Cli { command } = Cli::try_parse_from([&["pawl", "run"], extra].concat()).ok()?;
            let Command::Run(run) = command else { panic!("another command") };
            Some(run.settings.place())
        };
        assert_eq!(place(&[]).as_deref(), Some("pawl.toml"));
        assert_eq!(place(&["--config", "x.toml"]).as_deref(), Some("x.toml"));
        assert_eq!(place(&["--config-env", "PAWL_SETTINGS"]).as_deref(), Some("$PAWL_SETTINGS"));
        assert_eq!(place(&["--config-env", "PAWL_SETTINGS", "--config", "pawl.toml"]), None);
    }
}

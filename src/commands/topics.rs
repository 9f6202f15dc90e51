//! `pawl topics create`, and the same for `pawl run`: the topics of a handler, made if missing.
//!
//! Deliberately absent: changing a topic that is there. Whether it fits is told by `pawl check`.

use serde::Serialize;

use super::{Failure, print, print_json, settings};
use crate::cli::TopicsCreate;
use crate::exit::Exit;
use crate::kafka::admin::{Admin, AdminError, Created, TopicSpec};
use crate::settings::HandlerSettings;

/// How much larger than an input record a dead letter or a changelog row of it may be: headers,
/// texts, attempts.
pub const OVERHEAD_BYTES: u64 = 64 * 1024;

/// How long a tombstone of the changelog stays readable. An instance whose local store is younger
/// than half of that reads only what is new; an older one reads the whole changelog.
const DELETE_RETENTION_MS: u64 = 7 * 24 * 3600 * 1000;

/// Compaction never touches the segment that is being written. Smaller segments keep a restore
/// short: Kafka's default is 1 GiB for each partition.
const CHANGELOG_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// How long commands and their answers are kept.
const COMMANDS_RETENTION_MS: u64 = 365 * 24 * 3600 * 1000;

/// What a topic is to a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Where its records come from.
    Input,
    /// Where `forward` writes them.
    Forward,
    /// Its ledger.
    Changelog,
    /// What operators ask of it.
    Commands,
    /// What it gave up on.
    DeadLetters,
}

impl Role {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Input => "input",
            Role::Forward => "forward",
            Role::Changelog => "changelog",
            Role::Commands => "command",
            Role::DeadLetters => "dead-letter",
        }
    }
}

/// A topic that is there now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ensured {
    /// Name of the handler in the settings.
    pub handler: String,
    /// The topic.
    pub topic: String,
    /// What it is to the handler.
    pub role: Role,
    /// Number of partitions.
    pub partitions: i32,
    /// Whether it had to be created.
    pub created: bool,
}

/// Why the topics of a handler are not all there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// The cluster could not be asked, or refused.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Pawl does not make up the number of partitions of a topic that others write to.
    #[error(
        "handler {handler}: there is no {} topic \"{topic}\"; correct the settings, or create it: pawl topics create{}",
        role.name(), if matches!(role, Role::Input | Role::Forward) { " --input-partitions N" } else { "" }
    )]
    Missing {
        /// Name of the handler.
        handler: String,
        /// The topic.
        topic: String,
        /// What it is to the handler.
        role: Role,
    },
    /// A partition's rows and dead letters lie in the partition of the same number.
    #[error(
        "handler {handler}: the {} topic \"{topic}\" has {partitions} partitions, the input topic {expected}; \
         they must be equal: use another topic, or, while it is empty, delete it and create it anew",
        role.name()
    )]
    Partitions {
        /// Name of the handler.
        handler: String,
        /// The topic.
        topic: String,
        /// What it is to the handler.
        role: Role,
        /// How many it has.
        partitions: i32,
        /// How many the input topic has.
        expected: i32,
    },
    /// Rows of keys that rest would be deleted after a while.
    #[error(
        "handler {handler}: the changelog \"{changelog}\" has cleanup.policy={policy}: the ledger of keys that rest would be \
         deleted, and what was done for them would be done again. Set cleanup.policy=compact on it"
    )]
    Forgetful {
        /// Name of the handler.
        handler: String,
        /// The changelog.
        changelog: String,
        /// What it has.
        policy: String,
    },
    /// A record that cannot be processed could not be put aside either.
    #[error(
        "handler {handler}: the dead-letter topic \"{letters}\" takes {letter_limit} bytes, the input topic \"{input}\" \
         {input_limit} (max.message.bytes): a large record that fails would stop the handler for good. Set it on \
         \"{letters}\" to at least {} bytes",
        input_limit + OVERHEAD_BYTES
    )]
    LettersTooSmall {
        /// Name of the handler.
        handler: String,
        /// The dead-letter topic.
        letters: String,
        /// What it takes.
        letter_limit: u64,
        /// The input topic.
        input: String,
        /// What it takes.
        input_limit: u64,
    },
}

impl From<TopicsError> for Failure {
    fn from(error: TopicsError) -> Failure {
        match error {
            TopicsError::Admin(error) => error.into(),
            error @ (TopicsError::Missing { .. }
            | TopicsError::Partitions { .. }
            | TopicsError::Forgetful { .. }
            | TopicsError::LettersTooSmall { .. }) => Failure::new(Exit::Stopped, error.to_string()),
        }
    }
}

/// Makes sure that the changelog, the command topic and the dead-letter topic of a handler are there, with as many
/// partitions as its input topic; with `input_partitions` also that the input and forward topics
/// are. What exists stays as it is. Safe to repeat and to run in several instances at once. Blocks.
///
/// # Errors
/// No broker, no right, no input topic, or a topic with another number of partitions.
pub fn ensure(
    admin: &Admin,
    handler: &str,
    settings: &HandlerSettings,
    replication_factor: i32,
    input_partitions: Option<i32>,
) -> Result<Vec<Ensured>, TopicsError> {
    let work = Work { admin, handler, replication_factor };
    let input = work.given(Role::Input, &settings.topic, input_partitions)?;
    let partitions = input.partitions;
    let mut topics = vec![input];
    if let Some(forward) = &settings.forward {
        topics.push(work.given(Role::Forward, &forward.topic, input_partitions)?);
    }
    let max_bytes = admin.configs(&settings.topic)?.max_message_bytes + OVERHEAD_BYTES;
    let changelog = settings.changelog_topic(handler);
    topics.push(work.own(Role::Changelog, changelog, partitions, changelog_configs(max_bytes))?);
    let commands = settings.command_topic(handler);
    topics.push(work.own(Role::Commands, commands, partitions, command_configs())?);
    let letters = settings.dead_letter_topic();
    topics.push(work.own(Role::DeadLetters, letters, partitions, dead_letter_configs(max_bytes))?);
    Ok(topics)
}

fn changelog_configs(max_bytes: u64) -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "compact".into()),
        // Rows of an instance whose clock is hours ahead would be refused.
        ("message.timestamp.type", "LogAppendTime".into()),
        ("delete.retention.ms", DELETE_RETENTION_MS.to_string()),
        ("segment.bytes", CHANGELOG_SEGMENT_BYTES.to_string()),
        ("max.message.bytes", max_bytes.to_string()),
    ]
}

/// Commands and their answers are a record of who did what: a year of them is kept.
fn command_configs() -> Vec<(&'static str, String)> {
    vec![("cleanup.policy", "delete".into()), ("retention.ms", COMMANDS_RETENTION_MS.to_string())]
}

fn dead_letter_configs(max_bytes: u64) -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "delete".into()),
        ("retention.ms", "-1".into()),
        ("retention.bytes", "-1".into()),
        ("max.message.bytes", max_bytes.to_string()),
    ]
}

struct Work<'a> {
    admin: &'a Admin,
    handler: &'a str,
    replication_factor: i32,
}

impl Work<'_> {
    /// A topic that others own: created only when told how many partitions it shall have.
    fn given(&self, role: Role, topic: &str, partitions: Option<i32>) -> Result<Ensured, TopicsError> {
        if let Some(found) = self.admin.describe(topic)? {
            return Ok(self.ensured(role, topic, found.partitions, Created::Existed));
        }
        let Some(partitions) = partitions else {
            return Err(TopicsError::Missing { handler: self.handler.into(), topic: topic.into(), role });
        };
        self.create(role, topic, partitions, Vec::new())
    }

    /// A topic of the handler itself, whose partitions must be those of the input topic.
    fn own(
        &self,
        role: Role,
        topic: String,
        expected: i32,
        configs: Vec<(&'static str, String)>,
    ) -> Result<Ensured, TopicsError> {
        let ensured = match self.admin.describe(&topic)? {
            Some(found) => self.ensured(role, &topic, found.partitions, Created::Existed),
            None => self.create(role, &topic, expected, configs)?,
        };
        if ensured.partitions == expected {
            return Ok(ensured);
        }
        let (handler, partitions) = (self.handler.to_owned(), ensured.partitions);
        Err(TopicsError::Partitions { handler, topic, role, partitions, expected })
    }

    fn create(
        &self,
        role: Role,
        topic: &str,
        partitions: i32,
        configs: Vec<(&'static str, String)>,
    ) -> Result<Ensured, TopicsError> {
        let spec = TopicSpec {
            name: topic.to_owned(),
            partitions,
            replication_factor: self.replication_factor,
            configs,
        };
        match self.admin.create(&spec)? {
            Created::New => Ok(self.ensured(role, topic, partitions, Created::New)),
            // Another instance was faster; what it made counts.
            Created::Existed => {
                let found = self.admin.describe(topic)?.map_or(partitions, |found| found.partitions);
                Ok(self.ensured(role, topic, found, Created::Existed))
            }
        }
    }

    fn ensured(&self, role: Role, topic: &str, partitions: i32, created: Created) -> Ensured {
        let created = created == Created::New;
        Ensured { handler: self.handler.to_owned(), topic: topic.to_owned(), role, partitions, created }
    }
}

#[derive(Serialize)]
struct Report {
    topics: Vec<Ensured>,
}

/// `pawl topics create`.
///
/// # Errors
/// The first handler whose topics could not be made; those before it are there.
pub fn execute(args: &TopicsCreate) -> Result<Exit, Failure> {
    let settings = settings(&args.settings)?;
    let admin = Admin::new(&settings.kafka)?;
    let mut topics = Vec::new();
    for (name, handler) in &settings.handler {
        let replication = settings.kafka.replication_factor;
        let ensured = ensure(&admin, name, handler, replication, args.input_partitions)?;
        if !args.json {
            ensured.iter().try_for_each(|topic| print(line(topic).as_bytes()))?;
        }
        topics.extend(ensured);
    }
    if args.json {
        print_json(&Report { topics })?;
    }
    Ok(Exit::Done)
}

fn line(topic: &Ensured) -> String {
    let Ensured { handler, topic, role, partitions, created } = topic;
    let done = if *created { "created" } else { "exists " };
    let noun = if *partitions == 1 { "partition" } else { "partitions" };
    format!("{done}  {topic}  ({} of {handler}, {partitions} {noun})\n", role.name())
}

//! What must be known of a handler's topics before its threads start. Blocks.

use std::sync::Arc;
use std::time::Duration;

use crate::commands::topics::{self, TopicsError};
use crate::kafka::admin::{Admin, AdminError};
use crate::settings::{HandlerSettings, Kafka};

/// A topic's size limit where the broker does not tell it: Kafka's default `max.message.bytes`.
const DEFAULT_MAX_MESSAGE_BYTES: u64 = 1_048_588;
/// Kafka's default `delete.retention.ms`.
const DEFAULT_DELETE_RETENTION: Duration = Duration::from_secs(86_400);
/// What a record costs in its batch beside its own bytes: the batch's header (61 bytes) and the
/// lengths of its parts, which take at most five bytes each.
const RECORD_OVERHEAD: u64 = 1_024;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Id of the input topic; its name where the broker knows no ids.
    pub input_id: Arc<str>,
    /// Id of the changelog, likewise.
    pub changelog_id: String,
    /// Id of the dead-letter topic, likewise.
    pub letters_id: Arc<str>,
    /// Id of the command topic, likewise.
    pub commands_id: String,
    /// Partitions of the changelog.
    pub changelog_partitions: i32,
    /// Largest batch that every topic of the handler takes.
    pub max_batch_bytes: u64,
    /// Largest record a handler may emit.
    pub max_emit_bytes: usize,
    /// Largest dead letter.
    pub max_letter_bytes: usize,
    /// Largest ledger row.
    pub max_row_bytes: usize,
    /// A local view that is older may have missed tombstones that compaction has removed since: half
    /// of the changelog's `delete.retention.ms`.
    pub max_view_age: Duration,
}

impl TopicFacts {
    /// Creates what is missing, if the settings allow it, and asks for the rest.
    ///
    /// # Errors
    /// No broker, no right, a missing topic, or one with a wrong number of partitions.
    pub fn gather(kafka: &Kafka, name: &str, settings: &HandlerSettings) -> Result<Self, TopicsError> {
        let admin = Admin::new(kafka)?;
        if settings.create_topics {
            topics::ensure(&admin, name, settings, kafka.replication_factor, None)?;
        }
        let describe = |topic: &str, role| {
            admin.describe(topic)?.ok_or_else(|| TopicsError::Missing {
                handler: name.to_owned(),
                topic: topic.to_owned(),
                role,
            })
        };
        let input = describe(&settings.topic, topics::Role::Input)?;
        let changelog = describe(&settings.changelog_topic(name), topics::Role::Changelog)?;
        let letters = describe(&settings.dead_letter_topic(), topics::Role::DeadLetters)?;
        let commands = describe(&settings.command_topic(name), topics::Role::Commands)?;
        let own = [
            (topics::Role::Changelog, &changelog),
            (topics::Role::Commands, &commands),
            (topics::Role::DeadLetters, &letters),
        ];
        for (role, found) in own {
            // Fewer would leave records without a place; a partition that was added to the input
            // later is refused when it is assigned, the others go on.
            if found.partitions > input.partitions
                || (role != topics::Role::Changelog && found.partitions < input.partitions)
            {
                return Err(TopicsError::Partitions {
                    handler: name.to_owned(),
                    topic: found.name.clone(),
                    role,
                    partitions: found.partitions,
                    expected: input.partitions,
                });
            }
        }
        let emit_limit = match &settings.forward {
            Some(forward) => limits(&admin, &describe(&forward.topic, topics::Role::Forward)?.name)?.bytes,
            None => DEFAULT_MAX_MESSAGE_BYTES,
        };
        let letter_limit = limits(&admin, &letters.name)?.bytes;
        let command_limit = limits(&admin, &commands.name)?.bytes;
        let input_limit = limits(&admin, &settings.topic)?.bytes;
        if letter_limit < input_limit {
            return Err(TopicsError::LettersTooSmall {
                handler: name.to_owned(),
                letters: letters.name,
                letter_limit,
                input: settings.topic.clone(),
                input_limit,
            });
        }
        let rows = limits(&admin, &changelog.name)?;
        if let Some(policy) = rows.cleanup_policy.filter(|policy| policy != "compact") {
            return Err(TopicsError::Forgetful {
                handler: name.to_owned(),
                changelog: changelog.name,
                policy,
            });
        }
        let row_limit = rows.bytes;
        Ok(TopicFacts {
            max_batch_bytes: emit_limit
                .min(letter_limit)
                .min(command_limit)
                .min(row_limit)
                .saturating_sub(RECORD_OVERHEAD),
            letters_id: letters.id.unwrap_or(letters.name).into(),
            commands_id: commands.id.unwrap_or(commands.name),
            input_id: input.id.unwrap_or(input.name).into(),
            changelog_id: changelog.id.unwrap_or(changelog.name),
            changelog_partitions: changelog.partitions,
            max_emit_bytes: usable(emit_limit),
            max_letter_bytes: usable(letter_limit),
            max_row_bytes: usable(row_limit),
            max_view_age: rows.delete_retention / 2,
        })
    }
}

/// The largest ledger row that a changelog takes.
///
/// # Errors
/// No broker.
pub fn max_row_bytes(admin: &Admin, changelog: &str) -> Result<usize, AdminError> {
    limits(admin, changelog).map(|limits| usable(limits.bytes))
}

fn usable(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(RECORD_OVERHEAD)).unwrap_or(usize::MAX)
}

/// What a topic sets for its records.
struct Limits {
    bytes: u64,
    delete_retention: Duration,
    /// `None` where the broker does not tell it.
    cleanup_policy: Option<String>,
}

/// The topic's own limits; brokers without the request (the mock cluster) and principals without
/// the right get Kafka's defaults.
fn limits(admin: &Admin, topic: &str) -> Result<Limits, AdminError> {
    match admin.configs(topic) {
        Ok(configs) => Ok(Limits {
            bytes: configs.max_message_bytes,
            delete_retention: configs.delete_retention,
            cleanup_policy: Some(configs.cleanup_policy),
        }),
        Err(unreachable @ AdminError::Unreachable { .. }) => Err(unreachable),
        Err(error) => {
            tracing::debug!(topic, %error, "the topic's limits are not known; Kafka's defaults are assumed");
            Ok(Limits {
                bytes: DEFAULT_MAX_MESSAGE_BYTES,
                delete_retention: DEFAULT_DELETE_RETENTION,
                cleanup_policy: None,
            })
        }
    }
}

//! Why an attempt to write failed, by what has to be done about it.

use rdkafka::types::RDKafkaErrorCode;

use super::delivery::{Refused, Tag};
use super::denied::Identity;
use super::group;
use crate::rights::Right;

/// Why an attempt failed, by what has to be done about it.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// Nothing of it is visible once the transaction is aborted; the same may be sent again.
    #[error("{0}")]
    Abortable(String),
    /// Not everything was acknowledged in time. What is still under way could arrive within this
    /// producer's next transaction and be committed with it, so it takes a new producer, whose
    /// predecessor's records brokers refuse.
    #[error("{0}")]
    Unacknowledged(String),
    /// The group does not know this member, or this generation, any more: what it held, others hold.
    #[error("{0}")]
    Fenced(String),
    /// It may have been committed: ask, with a new producer. An error of a commit says nothing about
    /// whether it happened, not even one that asks for an abort.
    #[error("{0}")]
    Unknown(String),
    /// This producer can do no more.
    #[error("{0}")]
    Producer(String),
    /// This producer can do no more because a newer one has its transactional id, or because the
    /// broker ended a transaction that took too long.
    #[error("{0}")]
    Usurped(String),
    /// A topic refuses a record for what it is: its size, its key, its time stamp. Sending it again cannot help.
    #[error("{0}")]
    Record(RefusedRecord),
    /// Sending again cannot help.
    #[error("{0}")]
    Hopeless(String),
}

/// A record that its topic does not take.
#[derive(Debug, thiserror::Error)]
#[error("{topic}[{partition}] did not take a record: {why}")]
pub struct RefusedRecord {
    /// Destination.
    pub topic: String,
    /// Destination.
    pub partition: i32,
    /// What it was.
    pub tag: Tag,
    /// Why.
    pub code: RDKafkaErrorCode,
    /// Why, and what to do.
    pub why: String,
}

/// What it means for the attempt that the broker refused a record: a `code` that is more exact than its own.
pub fn refused(identity: &Identity, refused: &Refused, code: RDKafkaErrorCode) -> AttemptError {
    let Some(remedy) = remedy(code, &refused.topic) else {
        return refused_record(identity, code, refused.to_string(), &refused.topic);
    };
    AttemptError::Record(RefusedRecord {
        topic: refused.topic.clone(),
        partition: refused.partition,
        tag: refused.tag,
        code,
        why: format!("{code}: {remedy}"),
    })
}

/// Whether a transaction that failed for this reason did so because of one of its records.
pub fn is_of_a_record(code: RDKafkaErrorCode) -> bool {
    remedy(code, "").is_some()
}

/// What to do about a record that is refused for what it is.
fn remedy(code: RDKafkaErrorCode, topic: &str) -> Option<String> {
    Some(match code {
        RDKafkaErrorCode::MessageSizeTooLarge => {
            format!("raise max.message.bytes of {topic}, which counts for a batch of records")
        }
        RDKafkaErrorCode::InvalidRecord => format!(
            "a compacted topic takes no record without a key; see cleanup.policy of {topic}, and whether this \
             machine's clock is right"
        ),
        RDKafkaErrorCode::InvalidTimestamp => format!(
            "its time stamp is too far from the broker's clock; see whether this machine's is right, and \
             message.timestamp.before.max.ms and message.timestamp.after.max.ms of {topic}"
        ),
        _ => return None,
    })
}

/// What it means for the attempt that a record, or a partition for the transaction, was refused.
pub fn refused_record(
    identity: &Identity,
    code: RDKafkaErrorCode,
    text: String,
    topic: &str,
) -> AttemptError {
    if let Some(remedy) = remedy(code, topic) {
        return AttemptError::Hopeless(format!("{text}: {remedy}"));
    }
    match code {
        RDKafkaErrorCode::MessageTimedOut => AttemptError::Unacknowledged(text),
        code if group::is_forbidden(code) => {
            AttemptError::Hopeless(identity.denied(code, &text, (topic, Right::Write)))
        }
        RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownPartition => {
            AttemptError::Abortable(format!("{text}. {}", make_topic(topic)))
        }
        _ => AttemptError::Abortable(text),
    }
}

/// The remedy of a topic that is gone.
pub fn make_topic(topic: &str) -> String {
    format!(
        "Is there still a topic {topic}? pawl topics create makes those of the handler that are missing, an input and a \
         forward topic with --input-partitions N"
    )
}

/// What it means for the attempt that offsets of the input topic were refused.
pub fn refused_offsets(
    identity: &Identity,
    code: RDKafkaErrorCode,
    text: String,
    topic: &str,
) -> AttemptError {
    if group::is_forbidden(code) {
        AttemptError::Hopeless(identity.denied(code, &text, (topic, Right::Read)))
    } else if group::is_fenced(code) {
        AttemptError::Fenced(text)
    } else if group::is_unanswered(code) {
        // The offsets could arrive within this producer's next transaction.
        AttemptError::Unacknowledged(text)
    } else {
        AttemptError::Abortable(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { principal: "User:pawl".into(), group: "g".into(), transactional_ids: "pawl-g.".into() }
    }

    #[test]
    fn a_missing_right_is_told_with_what_it_is_a_right_to_whoever_was_asked() {
        let topic = RDKafkaErrorCode::TopicAuthorizationFailed;
        let group = RDKafkaErrorCode::GroupAuthorizationFailed;
        for (error, wanted) in [
            (refused_record(&identity(), topic, "no".into(), "billed"), "Write to the topic \"billed\""),
            (refused_offsets(&identity(), topic, "no".into(), "orders"), "Read to the topic \"orders\""),
            (refused_offsets(&identity(), group, "no".into(), "orders"), "Read to the group \"g\""),
        ] {
            let AttemptError::Hopeless(text) = error else { panic!("{error:?}") };
            assert!(text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn offsets_that_nobody_answered_for_take_a_new_producer() {
        let error =
            refused_offsets(&identity(), RDKafkaErrorCode::OperationTimedOut, "late".into(), "orders");
        assert!(matches!(error, AttemptError::Unacknowledged(_)), "{error:?}");
        let error = refused_offsets(&identity(), RDKafkaErrorCode::UnknownMemberId, "who".into(), "orders");
        assert!(matches!(error, AttemptError::Fenced(_)), "{error:?}");
        let error = refused_offsets(&identity(), RDKafkaErrorCode::IllegalGeneration, "old".into(), "orders");
        assert!(matches!(error, AttemptError::Abortable(_)), "{error:?}");
    }
}

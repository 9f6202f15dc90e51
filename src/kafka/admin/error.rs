//! Why the cluster could not be asked, or refused.

use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;

use crate::kafka::access::AccessError;

/// Why the cluster could not be asked, or refused. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// librdkafka does not take a property.
    #[error("librdkafka does not take the settings: {0}; correct kafka.properties in the settings")]
    Properties(String),
    /// The secret to come with cannot be read.
    #[error("{0}")]
    NoSecret(String),
    /// Nobody gives a token to come with.
    #[error("{0}")]
    NoToken(String),
    /// The brokers do not take what this client comes with.
    #[error(
        "the brokers refuse {principal}: {cause}; see kafka.security and the table of the settings that goes with it"
    )]
    Refused {
        /// As whom it came.
        principal: String,
        /// What the broker, or the check of its certificate, said.
        cause: String,
    },
    /// No broker answered.
    #[error(
        "no broker answered within {timeout:?}: {attempts}; is Kafka running there, and is \
         kafka.bootstrap_servers right?"
    )]
    Unreachable {
        /// The time-out of the request.
        timeout: Duration,
        /// Each server and what a connection to it gave.
        attempts: String,
    },
    /// This client may not do it.
    #[error(
        "{principal} may not {action} the topic \"{topic}\" ({code}); allow it {operation} of the topic: pawl \
         iam-policy prints all that Pawl needs"
    )]
    Forbidden {
        /// As whom it was tried.
        principal: String,
        /// What was tried: "describe", "create", ...
        action: &'static str,
        /// The topic.
        topic: String,
        /// The ACL operation that allows it.
        operation: &'static str,
        /// The broker's answer.
        code: RDKafkaErrorCode,
    },
    /// The broker did not create a topic.
    #[error("the broker did not create the topic \"{topic}\": {code}; {remedy}")]
    NotCreated {
        /// The topic.
        topic: String,
        /// The broker's answer.
        code: RDKafkaErrorCode,
        /// What to do.
        remedy: &'static str,
    },
    /// A created topic did not show up.
    #[error(
        "the topic \"{topic}\" was created but is still not to be seen after {timeout:?}; look at the \
         brokers' logs, then try again"
    )]
    NotVisible {
        /// The topic.
        topic: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// Brokers are there, but none coordinates this group.
    #[error(
        "the coordinator of the group \"{group}\" did not answer within {timeout:?}; on a new cluster it takes a moment \
         to begin: try again, or raise kafka.request_timeout"
    )]
    NoCoordinator {
        /// The group.
        group: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// A broker is there, but did not answer this: it is slow, or does not know the question (the mock
    /// cluster).
    #[error(
        "could not {action} the topic \"{topic}\": no answer within {timeout:?}; try again, or raise kafka.request_timeout"
    )]
    Unanswered {
        /// What was tried.
        action: &'static str,
        /// The topic.
        topic: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The broker gave another answer.
    #[error("could not {action} the topic \"{topic}\": {reason}; try again, and look at the brokers' logs")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The topic.
        topic: String,
        /// The broker's answer.
        reason: String,
    },
}

impl From<AccessError> for AdminError {
    fn from(error: AccessError) -> AdminError {
        match error {
            AccessError::Client(why) => AdminError::Properties(why),
            AccessError::Secret(why) => AdminError::NoSecret(why),
            AccessError::Token(why) => AdminError::NoToken(why),
        }
    }
}

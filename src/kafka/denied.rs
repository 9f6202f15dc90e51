//! What a broker's "not authorised" means: who lacks which right to what. `pawl check` finds the same before
//! anything runs; this is for rights that are taken away later, and for whoever did not run it.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::group;
use crate::rights::{Resource, Right};

/// How long a right may be missing: whoever changes rights may take one away before the next is given.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A handler as brokers know it, for what they refuse it.
#[derive(Debug)]
pub struct Identity {
    /// As whom it comes, for a person.
    pub principal: String,
    /// Its consumer group.
    pub group: String,
    /// What its transactional ids begin with.
    pub transactional_ids: String,
}

impl Identity {
    /// The broker's refusal in `text`, with whose right to what is missing. Of a topic only who asked knows which
    /// one it was, and what for.
    pub fn denied(&self, code: RDKafkaErrorCode, text: &str, topic: (&str, Right)) -> String {
        let (right, resource, name) = match code {
            RDKafkaErrorCode::GroupAuthorizationFailed => (Right::Read, Resource::Group, &*self.group),
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
                (Right::Write, Resource::TransactionalId, &*self.transactional_ids)
            }
            RDKafkaErrorCode::ClusterAuthorizationFailed => {
                return format!(
                    "{text}: {} has no right to the cluster; brokers before 2.8 want IdempotentWrite (KIP-679)",
                    self.principal
                );
            }
            _ => (topic.1, Resource::Topic, topic.0),
        };
        denied(&self.principal, text, right, (resource, name))
    }

    /// The same of an error of any kind, which is told as it is where it is no refusal.
    pub fn told(&self, error: &KafkaError, topic: (&str, Right)) -> String {
        match error.rdkafka_error_code().filter(|code| group::is_forbidden(*code)) {
            Some(code) => self.denied(code, &error.to_string(), topic),
            None => error.to_string(),
        }
    }
}

/// The same where it is known what was asked for.
pub fn denied(principal: &str, text: &str, right: Right, (resource, name): (Resource, &str)) -> String {
    format!(
        "{text}: {principal} has no right {right:?} to the {} \"{name}\"; allow it: pawl iam-policy prints all that \
         Pawl needs, pawl check what is missing",
        resource.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_told_with_whose_it_is_and_to_what() {
        let identity = Identity {
            principal: "User:pawl".into(),
            group: "billing-v2".into(),
            transactional_ids: "pawl-billing-v2.".into(),
        };
        let told = |code| identity.denied(code, "no", ("billed", Right::Write));
        for (code, wanted) in [
            (RDKafkaErrorCode::TopicAuthorizationFailed, "no right Write to the topic \"billed\";"),
            (RDKafkaErrorCode::GroupAuthorizationFailed, "no right Read to the group \"billing-v2\";"),
            (
                RDKafkaErrorCode::TransactionalIdAuthorizationFailed,
                "no right Write to the transactional id \"pawl-billing-v2.\";",
            ),
            (RDKafkaErrorCode::ClusterAuthorizationFailed, "no right to the cluster;"),
        ] {
            let text = told(code);
            assert!(text.starts_with(&format!("no: User:pawl has {wanted}")), "{text}");
        }
    }
}

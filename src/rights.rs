//! What Pawl needs to be allowed at the brokers, by its settings: one list, which `pawl iam-policy` prints and
//! `pawl check` looks for.
//!
//! Pure. Kafka's ACLs imply Describe of a topic in Read and Write of it, so it does not stand in the list of its own.

use crate::settings::{Guarantee, HandlerSettings, Kafka, Settings};

/// An operation that an ACL can allow. Those that Pawl never needs are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Read records; of a group: be a member, and commit offsets.
    Read,
    /// Write records; of a transactional id: use it.
    Write,
    /// Create it.
    Create,
    /// See that it exists.
    Describe,
    /// See its settings.
    DescribeConfigs,
    /// Any other.
    Other,
}

/// What the brokers said of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// They do not tell what this client may do with it, as those without an authorizer.
    Untold,
    /// It may do this.
    Rights(Vec<Right>),
    /// It may not even see it.
    Hidden,
    /// It is not there yet, and may be created.
    Absent,
    /// It is not there yet, and may not be created.
    AbsentAndForbidden,
}

impl Seen {
    /// Whether it allows this, as far as is known.
    pub fn allows(&self, right: Right) -> bool {
        match self {
            Seen::Untold | Seen::Absent => true,
            Seen::Rights(rights) => rights.contains(&right),
            Seen::Hidden => false,
            Seen::AbsentAndForbidden => right != Right::Create,
        }
    }
}

/// What a right is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// Transactional ids.
    TransactionalId,
}

impl Resource {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Topic => "topic",
            Resource::Group => "group",
            Resource::TransactionalId => "transactional id",
        }
    }
}

/// A right that Pawl needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// To what.
    pub resource: Resource,
    /// Its name, or what its name begins with.
    pub name: String,
    /// Whether `name` is the beginning of names.
    pub prefixed: bool,
    /// To do what.
    pub right: Right,
}

/// All that these settings need, each once, in order.
pub fn needed(settings: &Settings) -> Vec<Need> {
    let handlers = settings.handler.iter();
    let mut needs: Vec<Need> =
        handlers.flat_map(|(name, handler)| of_handler(&settings.kafka, name, handler)).collect();
    needs.sort();
    needs.dedup();
    needs
}

/// What one handler needs.
pub fn of_handler(kafka: &Kafka, name: &str, handler: &HandlerSettings) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut topic = |name: &str, rights: &[Right]| {
        let need = |right: &Right| Need {
            resource: Resource::Topic,
            name: name.to_owned(),
            prefixed: false,
            right: *right,
        };
        needs.extend(rights.iter().map(need));
    };
    topic(&handler.topic, &[Right::Read, Right::DescribeConfigs]);
    if let Some(forward) = &handler.forward {
        topic(&forward.topic, &[Right::Write, Right::DescribeConfigs]);
    }
    for own in [handler.changelog_topic(name), handler.command_topic(name), handler.dead_letter_topic()] {
        topic(&own, &[Right::Read, Right::Write, Right::DescribeConfigs]);
        if handler.create_topics {
            topic(&own, &[Right::Create]);
        }
    }
    let group = handler.group(name);
    needs.push(Need {
        resource: Resource::Group,
        name: group.to_owned(),
        prefixed: false,
        right: Right::Read,
    });
    if handler.guarantee == Guarantee::ExactlyOnce {
        let name = transactional_id_prefix(kafka, group);
        needs.push(Need { resource: Resource::TransactionalId, name, prefixed: true, right: Right::Write });
    }
    needs
}

/// What the transactional ids of a group begin with.
pub fn transactional_id_prefix(kafka: &Kafka, group: &str) -> String {
    format!("{}{group}.", kafka.transactional_id_prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Forward;

    fn of(change: impl FnOnce(&mut HandlerSettings)) -> Vec<String> {
        let mut handler = HandlerSettings { topic: "orders".into(), ..HandlerSettings::default() };
        change(&mut handler);
        let mut settings = Settings::default();
        settings.handler.insert("billing".into(), handler);
        let text = |need: Need| {
            let rest = if need.prefixed { "*" } else { "" };
            format!("{:?} {}{rest} {:?}", need.resource, need.name, need.right)
        };
        needed(&settings).into_iter().map(text).collect()
    }

    #[test]
    fn each_topic_group_and_id_of_a_handler_is_named_with_no_more_than_is_used() {
        let needs = of(|handler| handler.create_topics = false);
        let expected = [
            "Topic billing-changelog Read",
            "Topic billing-changelog Write",
            "Topic billing-changelog DescribeConfigs",
            "Topic billing-commands Read",
            "Topic billing-commands Write",
            "Topic billing-commands DescribeConfigs",
            "Topic orders Read",
            "Topic orders DescribeConfigs",
            "Topic orders-dlt Read",
            "Topic orders-dlt Write",
            "Topic orders-dlt DescribeConfigs",
            "Group billing Read",
            "TransactionalId pawl-billing.* Write",
        ];
        assert_eq!(needs, expected);
    }

    #[test]
    fn an_output_is_written_and_only_pawls_own_topics_are_created() {
        let needs = of(|handler| handler.forward = Some(Forward { topic: "out".into() }));
        assert!(
            needs.contains(&"Topic out Write".to_owned()) && !needs.contains(&"Topic out Read".to_owned())
        );
        let created: Vec<&String> = needs.iter().filter(|need| need.ends_with("Create")).collect();
        assert_eq!(created.len(), 3, "{created:?}");
    }

    #[test]
    fn without_transactions_no_transactional_id_is_needed() {
        let needs = of(|handler| handler.guarantee = Guarantee::AtLeastOnce);
        assert!(!needs.iter().any(|need| need.starts_with("TransactionalId")), "{needs:?}");
    }
}

//! Which of the rights that Pawl needs are missing. Pure: what the brokers said in, findings out.

use std::collections::BTreeMap;

use super::{Finding, Level};
use crate::rights::{Need, Resource, Right, Seen};

/// What was said of each resource, by kind and name.
pub type Answers = BTreeMap<(Resource, String), Seen>;

/// The rights that are missing, each with whose and to what.
pub fn missing(handler: &str, principal: &str, needs: &[Need], answers: &Answers) -> Vec<Finding> {
    let lacks = |need: &&Need| {
        let seen = answers.get(&(need.resource, need.name.clone()));
        seen.is_some_and(|seen| !seen.allows(need.right))
    };
    let mut lacking: BTreeMap<(Resource, &str), Vec<&Need>> = BTreeMap::new();
    for need in needs.iter().filter(lacks) {
        lacking.entry((need.resource, &need.name)).or_default().push(need);
    }
    let seen = |resource: Resource, name: &str| &answers[&(resource, name.to_owned())];
    lacking
        .into_iter()
        .map(|((resource, name), needs)| {
            finding(handler, principal, (resource, name), seen(resource, name), &needs)
        })
        .collect()
}

fn finding(
    handler: &str,
    principal: &str,
    (resource, name): (Resource, &str),
    seen: &Seen,
    needs: &[&Need],
) -> Finding {
    let rights: Vec<String> = needs.iter().map(|need| format!("{:?}", need.right)).collect();
    let rights = rights.join(", ");
    let any = if needs.iter().any(|need| need.prefixed) { "…" } else { "" };
    // Without it topics keep the limits that Kafka's defaults have, and nothing else is amiss.
    let only = |right| needs.iter().all(|need| need.right == right);
    let (level, consequence) = if only(Right::DescribeConfigs) {
        (Level::Warning, ": its limits cannot be read, and Kafka's defaults are assumed")
    } else if only(Right::Create) && *seen != Seen::AbsentAndForbidden {
        (Level::Warning, ": it is there, so this matters only once it is deleted")
    } else {
        (Level::Error, "")
    };
    Finding {
        level,
        handler: Some(handler.to_owned()),
        finding: format!(
            "{principal} has no right {rights} to the {} \"{name}{any}\"{consequence}",
            resource.name()
        ),
        remedy: "allow it; pawl iam-policy prints all that Pawl needs, for MSK and as ACLs".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights;
    use crate::settings::{HandlerSettings, Kafka};

    fn found(resource: Resource, name: &str, seen: Seen) -> Vec<Finding> {
        let handler = HandlerSettings { topic: "orders".into(), ..HandlerSettings::default() };
        let needs = rights::of_handler(&Kafka::default(), "billing", &handler);
        let answers = Answers::from([((resource, name.to_owned()), seen)]);
        missing("billing", "User:pawl", &needs, &answers)
    }

    #[test]
    fn a_missing_right_is_told_with_whose_it_is_and_to_what() {
        let rights = Seen::Rights(vec![Right::Describe, Right::Read, Right::DescribeConfigs, Right::Create]);
        let findings = found(Resource::Topic, "billing-changelog", rights);
        assert_eq!(findings.len(), 1, "{findings:?}");
        let text = &findings[0].finding;
        assert_eq!(text, "User:pawl has no right Write to the topic \"billing-changelog\"");
        assert_eq!(findings[0].level, Level::Error);
    }

    #[test]
    fn what_cannot_even_be_seen_lacks_all_that_is_needed() {
        let findings = found(Resource::Topic, "orders", Seen::Hidden);
        assert!(findings[0].finding.contains("no right Read, DescribeConfigs to"), "{findings:?}");
        let findings = found(Resource::TransactionalId, "pawl-billing.", Seen::Hidden);
        assert!(
            findings[0].finding.contains("Write to the transactional id \"pawl-billing.…\""),
            "{findings:?}"
        );
    }

    #[test]
    fn limits_that_cannot_be_read_are_a_warning() {
        let findings = found(Resource::Topic, "orders", Seen::Rights(vec![Right::Read]));
        assert_eq!(findings[0].level, Level::Warning, "{findings:?}");
    }

    #[test]
    fn a_topic_that_is_not_there_yet_needs_only_the_right_to_create_it() {
        assert_eq!(found(Resource::Topic, "orders-dlt", Seen::Absent), []);
        let findings = found(Resource::Topic, "orders-dlt", Seen::AbsentAndForbidden);
        assert!(findings[0].finding.contains("no right Create to the topic \"orders-dlt\""), "{findings:?}");
    }

    #[test]
    fn nothing_is_found_where_the_brokers_do_not_tell() {
        assert_eq!(found(Resource::Group, "billing", Seen::Untold), []);
    }
}

//! `pawl iam-policy`: what has to be allowed for these settings, as a policy for Amazon MSK with IAM access
//! control or as ACLs of Kafka.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Failure, print, settings};
use crate::cli::{IamPolicy, PolicyForm};
use crate::exit::Exit;
use crate::rights::{Need, Resource, Right, needed};
use crate::settings::{Security, Settings};

/// Carries `pawl iam-policy` out.
///
/// # Errors
/// The settings are wrong, or do not say for which cluster or principal.
pub fn execute(args: &IamPolicy) -> Result<Exit, Failure> {
    let settings = settings(&args.settings)?;
    let needs = needed(&settings);
    let text = match args.form {
        PolicyForm::Iam => {
            let policy = policy(&needs, &cluster(args)?);
            format!("{policy:#}\n")
        }
        PolicyForm::Acl => acls(&needs, &principal(args, &settings)?),
    };
    print(text.as_bytes())?;
    Ok(Exit::Done)
}

/// The parts of an ARN `arn:aws:kafka:REGION:ACCOUNT:cluster/NAME/UUID`.
#[derive(Debug)]
struct Cluster {
    arn: String,
    /// Up to the kind of the resource.
    base: String,
    /// Name and UUID.
    path: String,
}

fn cluster(args: &IamPolicy) -> Result<Cluster, Failure> {
    let Some(arn) = args.cluster_arn.as_deref() else {
        let message = "a policy names the cluster: --cluster-arn arn:aws:kafka:REGION:ACCOUNT:cluster/NAME/UUID; or ask with \
                       --form acl for Kafka's ACLs";
        return Err(Failure::new(Exit::Usage, message));
    };
    let parts = arn.rsplit_once(":cluster/").filter(|(base, path)| {
        base.starts_with("arn:") && path.split('/').count() == 2 && !path.split('/').any(str::is_empty)
    });
    let Some((base, path)) = parts else {
        let message = format!(
            "--cluster-arn {arn:?} is not the ARN of a cluster; write it as in \
             arn:aws:kafka:eu-central-1:123456789012:cluster/NAME/UUID, or ask with --form acl for Kafka's ACLs"
        );
        return Err(Failure::new(Exit::Usage, message));
    };
    Ok(Cluster { arn: arn.to_owned(), base: base.to_owned(), path: path.to_owned() })
}

impl Cluster {
    fn resource(&self, need: &Need) -> String {
        let kind = match need.resource {
            Resource::Topic => "topic",
            Resource::Group => "group",
            Resource::TransactionalId => "transactional-id",
        };
        let any = if need.prefixed { "*" } else { "" };
        format!("{}:{kind}/{}/{}{any}", self.base, self.path, need.name)
    }
}

/// The actions that Amazon MSK wants for a right, those among them that it names as required for others
/// ("Actions, resources, and condition keys for Apache Kafka APIs for Amazon MSK clusters").
fn actions(need: &Need) -> &'static [&'static str] {
    match (need.resource, need.right) {
        (Resource::Topic, Right::Read) => &["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"],
        (Resource::Topic, Right::Write) => &["kafka-cluster:DescribeTopic", "kafka-cluster:WriteData"],
        (Resource::Topic, Right::Create) => &["kafka-cluster:CreateTopic"],
        (Resource::Topic, Right::DescribeConfigs) => {
            &["kafka-cluster:DescribeTopic", "kafka-cluster:DescribeTopicDynamicConfiguration"]
        }
        (Resource::Topic, Right::Describe | Right::Other) => &["kafka-cluster:DescribeTopic"],
        (Resource::Group, _) => &["kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup"],
        (Resource::TransactionalId, _) => {
            &["kafka-cluster:AlterTransactionalId", "kafka-cluster:DescribeTransactionalId"]
        }
    }
}

/// One statement for each kind of resource and set of actions.
fn policy(needs: &[Need], cluster: &Cluster) -> Value {
    let mut allowed: BTreeMap<(Resource, String), BTreeSet<&str>> = BTreeMap::new();
    for need in needs {
        allowed.entry((need.resource, cluster.resource(need))).or_default().extend(actions(need));
    }
    let mut statements: BTreeMap<(Resource, BTreeSet<&str>), Vec<String>> = BTreeMap::new();
    for ((resource, name), actions) in allowed {
        statements.entry((resource, actions)).or_default().push(name);
    }
    let mut written = vec![json!({
        "Sid": "Cluster",
        "Effect": "Allow",
        "Action": ["kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"],
        "Resource": [cluster.arn],
    })];
    for (number, ((resource, actions), names)) in statements.into_iter().enumerate() {
        let kind = match resource {
            Resource::Topic => "Topics",
            Resource::Group => "Groups",
            Resource::TransactionalId => "TransactionalIds",
        };
        written.push(json!({
            "Sid": format!("{kind}{}", number + 1),
            "Effect": "Allow",
            "Action": actions,
            "Resource": names,
        }));
    }
    json!({ "Version": "2012-10-17", "Statement": written })
}

fn principal(args: &IamPolicy, settings: &Settings) -> Result<String, Failure> {
    match &args.principal {
        Some(principal) => Ok(principal.clone()),
        None if matches!(settings.kafka.security, Security::Scram | Security::Plain) => {
            Ok(format!("User:{}", settings.kafka.sasl.username))
        }
        None => {
            let message =
                "the settings do not tell as whom the brokers know Pawl; name it with --principal User:NAME";
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// A line for each right, as kafka-acls.sh takes it.
fn acls(needs: &[Need], principal: &str) -> String {
    let line = |need: &Need| {
        let option = match need.resource {
            Resource::Topic => "--topic",
            Resource::Group => "--group",
            Resource::TransactionalId => "--transactional-id",
        };
        let pattern = if need.prefixed { " --resource-pattern-type prefixed" } else { "" };
        format!(
            "--add --allow-principal {principal} --operation {:?}{pattern} {option} {}\n",
            need.right, need.name
        )
    };
    needs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::HandlerSettings;

    fn needs() -> Vec<Need> {
        let mut settings = Settings::default();
        let handler = HandlerSettings { topic: "orders".into(), ..HandlerSettings::default() };
        settings.handler.insert("billing".into(), handler);
        needed(&settings)
    }

    fn args(arn: &str) -> IamPolicy {
        IamPolicy {
            settings: crate::cli::SettingsFile::file("pawl.toml"),
            form: PolicyForm::Iam,
            cluster_arn: Some(arn.into()),
            principal: None,
        }
    }

    #[test]
    fn a_policy_names_resources_of_the_cluster_and_nothing_else() {
        let arn = "arn:${AWS::Partition}:kafka:${AWS::Region}:${AWS::AccountId}:cluster/${Name}/${Uuid}";
        let cluster = cluster(&args(arn)).expect("an ARN");
        let policy = policy(&needs(), &cluster);
        let text = policy.to_string();
        let base = "arn:${AWS::Partition}:kafka:${AWS::Region}:${AWS::AccountId}";
        for part in [
            format!("{base}:topic/${{Name}}/${{Uuid}}/orders\""),
            format!("{base}:group/${{Name}}/${{Uuid}}/billing\""),
            format!("{base}:transactional-id/${{Name}}/${{Uuid}}/pawl-billing.*\""),
        ] {
            assert!(text.contains(&part), "{part} is not in {text}");
        }
        let statements = policy["Statement"].as_array().expect("a list");
        let input =
            statements.iter().find(|one| one["Resource"].to_string().contains("/orders\"")).expect("there");
        assert!(!input["Action"].to_string().contains("WriteData"), "the input is only read: {input}");
        assert!(!text.contains("\"*\""), "no wildcard of its own: {text}");
    }

    #[test]
    fn what_is_no_cluster_is_refused() {
        for arn in ["", "orders", "arn:aws:kafka:eu-central-1:1:cluster/orders", "arn:aws:s3:::bucket"] {
            let error = cluster(&args(arn)).expect_err("refused").to_string();
            assert!(error.contains("cluster/NAME/UUID") && error.contains("is not the ARN"), "{error}");
        }
        let none = IamPolicy { cluster_arn: None, ..args("") };
        let error = cluster(&none).expect_err("refused").to_string();
        assert!(error.contains("--cluster-arn arn:") && error.contains("--form acl"), "{error}");
        assert!(!error.contains("is not the ARN"), "nobody has named one: {error}");
    }

    #[test]
    fn acls_are_lines_that_kafkas_own_tool_takes() {
        let text = acls(&needs(), "User:pawl");
        let expected = "--add --allow-principal User:pawl --operation Write --resource-pattern-type prefixed \
                        --transactional-id pawl-billing.\n";
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains("--add --allow-principal User:pawl --operation Read --topic orders\n"),
            "{text}"
        );
    }
}

//! Creating a handler's topics and checking them, against a real broker.

use std::time::Duration;

use pawl::kafka::admin::Admin;
use pawl::settings::Kafka;
use serde_json::Value;

use crate::support::{self, Broker, Finished, command, process};

/// Runs a command with settings in a file of its own.
fn with_settings(settings: &str, args: &[&str]) -> Finished {
    let dir = process::scratch("settings");
    let file = dir.join("pawl.toml");
    std::fs::write(&file, settings).expect("the scratch directory can be written");
    command(&[args, &["--config", file.to_str().expect("a path in UTF-8")]].concat(), b"")
}

fn settings(broker: &Broker, name: &str) -> String {
    format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\n[handler.{name}]\ntopic = \"{name}-in\"\n\
         forward = {{ topic = \"{name}-out\" }}\n",
        broker.bootstrap()
    )
}

fn admin(broker: &Broker) -> Admin {
    let bootstrap_servers = vec![broker.bootstrap().to_owned()];
    Admin::new(&Kafka { bootstrap_servers, ..Kafka::default() }).expect("valid settings")
}

fn findings(finished: &Finished) -> Vec<String> {
    let json = finished.json();
    let findings = json["findings"].as_array().expect("a list").iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    findings.map(|finding| format!("{}: {}", text(finding, "level"), text(finding, "finding"))).collect()
}

#[test]
fn created_topics_pass_the_check_and_creating_them_again_changes_nothing() {
    let Some(broker) = support::broker() else { return };
    let name = support::unique("ready");
    let settings = settings(broker, &name);

    let before = with_settings(&settings, &["check", "--json"]);
    assert_eq!(before.code, 1, "{before:?}");
    assert!(findings(&before)[0].starts_with("error: there is no input topic"), "{before:?}");
    let refused = with_settings(&settings, &["topics", "create"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("--input-partitions"), "{refused:?}");

    let created = with_settings(&settings, &["topics", "create", "--input-partitions", "3", "--json"]);
    assert_eq!(created.code, 0, "{created:?}");
    let topics = created.json()["topics"].as_array().expect("a list").clone();
    assert_eq!(topics.len(), 5);
    assert!(topics.iter().all(|topic| topic["created"] == true && topic["partitions"] == 3), "{topics:?}");

    let checked = with_settings(&settings, &["check", "--json"]);
    assert_eq!((checked.code, findings(&checked)), (0, Vec::new()), "{checked:?}");
    let again = with_settings(&settings, &["topics", "create"]);
    assert_eq!((again.code, again.stdout.matches("exists ").count()), (0, 5), "{again:?}");
}

#[test]
fn a_handlers_topics_get_the_configs_that_its_promises_rest_on() {
    let Some(broker) = support::broker() else { return };
    let name = support::unique("configs");
    support::topic_with(broker, &format!("{name}-in"), 2, &[("max.message.bytes", "3000000")]);
    support::topic_with(broker, &format!("{name}-out"), 2, &[]);
    let created = with_settings(&settings(broker, &name), &["topics", "create"]);
    assert_eq!(created.code, 0, "{created:?}");

    let admin = admin(broker);
    let letters = admin.configs(&format!("{name}-in-dlt")).expect("it exists");
    assert_eq!(
        (letters.cleanup_policy.as_str(), letters.retention, letters.retention_bytes),
        ("delete", None, None)
    );
    assert_eq!(letters.max_message_bytes, 3_000_000 + 64 * 1024);
    let changelog = admin.configs(&format!("{name}-changelog")).expect("it exists");
    assert_eq!(changelog.cleanup_policy, "compact");
    assert_eq!(changelog.timestamp_type, "LogAppendTime", "a clock that is ahead must not stop the rows");
    assert_eq!(changelog.delete_retention, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(changelog.max_message_bytes, 3_000_000 + 64 * 1024);
}

#[test]
fn topics_that_do_not_fit_are_found_and_not_worked_with() {
    let Some(broker) = support::broker() else { return };
    let name = support::unique("unfit");
    support::topic_with(broker, &format!("{name}-in"), 4, &[]);
    support::topic_with(broker, &format!("{name}-out"), 1, &[]);
    support::topic_with(broker, &format!("{name}-in-dlt"), 3, &[("retention.ms", "60000")]);
    support::topic_with(broker, &format!("{name}-changelog"), 4, &[("cleanup.policy", "delete")]);
    let settings = settings(broker, &name);

    let checked = with_settings(&settings, &["check", "--json"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    let found = findings(&checked);
    for part in ["has 3 partitions", "cleanup.policy=delete", "drops letters after 1m"] {
        assert!(found.iter().any(|finding| finding.contains(part)), "{part:?} is not in {found:#?}");
    }
    let text = with_settings(&settings, &["check"]);
    assert_eq!(text.stdout.lines().count(), found.len() + 1, "one line a finding, and a summary: {text:?}");

    let refused = with_settings(&settings, &["topics", "create"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("has 3 partitions, the input topic 4"), "{refused:?}");
}

#[test]
fn a_check_tells_settings_from_brokers_by_its_exit_code() {
    let wrong = with_settings("[kafka]\nbootstrap_server = [\"a:1\"]\n", &["check"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("bootstrap_servers"), "the likely intention is named: {wrong:?}");

    let nobody = "[kafka]\nbootstrap_servers = [\"127.0.0.1:1\"]\nrequest_timeout = \"1s\"\n\
                  [handler.a]\ntopic = \"t\"\nforward = { topic = \"o\" }\n";
    let away = with_settings(nobody, &["check", "--json"]);
    assert_eq!(away.code, 3, "{away:?}");
    assert!(findings(&away)[0].contains("connection refused"), "{away:?}");
    let unasked = with_settings(nobody, &["check", "--offline"]);
    assert_eq!((unasked.code, unasked.stdout.contains("no broker was asked")), (0, true), "{unasked:?}");
    assert_eq!(with_settings("[kafka]\n", &["check", "--offline", "--json"]).code, 2);
}

#[test]
fn a_topic_made_anew_has_another_id() {
    let Some(broker) = support::broker() else { return };
    let (admin, topic) = (admin(broker), support::topic(broker, "id", 1));
    let id = || admin.describe(&topic).expect("the broker answers").and_then(|found| found.id);
    let first = id().expect("Kafka knows ids");
    assert_eq!(id().as_deref(), Some(first.as_str()));
    support::clients::delete(broker, &topic);
    support::until("the end of the topic", Duration::from_secs(30), || {
        matches!(admin.describe(&topic), Ok(None)).then_some(())
    });
    support::topic_with(broker, &topic, 1, &[]);
    assert_ne!(id().expect("Kafka knows ids"), first);
}

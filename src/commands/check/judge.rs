//! What is wrong with a handler's topics. Pure: facts in, findings out.

use super::{Finding, Level};
use crate::commands::topics::{OVERHEAD_BYTES, Role};
use pawl_actors::ledger::Sequence;

use crate::kafka::admin::TopicConfigs;
use crate::rights::Seen;
use crate::settings::HandlerSettings;

/// Bytes of one recent event id in a head, rounded up.
const RECENT_ID_BYTES: u64 = 32;
/// Bytes of everything else in a head but the user's own state.
const HEAD_BYTES: u64 = 16 * 1024;

/// The topics of a handler as they are.
#[derive(Clone, Debug)]
pub struct Facts {
    pub input: Topic,
    pub changelog: Topic,
    pub commands: Topic,
    pub letters: Topic,
    pub forward: Option<Topic>,
}

/// A topic that the settings name.
#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    /// `None`: it does not exist, or is hidden from this client.
    pub found: Option<Found>,
    /// What this client may do with it.
    pub seen: Seen,
}

/// A topic that exists.
#[derive(Clone, Debug)]
pub struct Found {
    pub partitions: i32,
    /// `None`: this client may not read them.
    pub configs: Option<TopicConfigs>,
}

/// Judges one handler.
pub fn handler(name: &str, settings: &HandlerSettings, facts: &Facts) -> Vec<Finding> {
    let mut judge = Judge { handler: name, settings, findings: Vec::new() };
    judge.input(&facts.input);
    judge.changelog(&facts.input, &facts.changelog);
    judge.commands(&facts.input, &facts.commands);
    judge.letters(&facts.input, &facts.letters);
    if let Some(forward) = &facts.forward {
        judge.forward(&facts.input, forward);
    }
    judge.findings
}

struct Judge<'a> {
    handler: &'a str,
    settings: &'a HandlerSettings,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn add(&mut self, level: Level, finding: String, remedy: impl Into<String>) {
        let handler = Some(self.handler.to_owned());
        self.findings.push(Finding { level, handler, finding, remedy: remedy.into() });
    }

    fn input(&mut self, topic: &Topic) {
        if topic.found.is_none() {
            self.missing_given(Role::Input, topic);
        }
    }

    fn forward(&mut self, input: &Topic, topic: &Topic) {
        let Some(found) = &topic.found else { return self.missing_given(Role::Forward, topic) };
        if let (Some(configs), Some(largest)) = (&found.configs, largest(input))
            && configs.max_message_bytes < largest
        {
            let finding = format!(
                "the forward topic \"{}\" takes {} bytes at most, the input topic {largest}: larger records \
                 become dead letters",
                topic.name, configs.max_message_bytes
            );
            self.add(Level::Warning, finding, format!("raise its max.message.bytes to {largest}"));
        }
    }

    fn changelog(&mut self, input: &Topic, topic: &Topic) {
        let Some(found) = &topic.found else { return self.missing_own(Role::Changelog, topic) };
        self.partitions(Role::Changelog, input, topic, found);
        let Some(configs) = &found.configs else { return };
        if configs.cleanup_policy != "compact" {
            let finding = format!(
                "the changelog \"{}\" has cleanup.policy={}: the ledger of keys that rest would be deleted",
                topic.name, configs.cleanup_policy
            );
            self.add(Level::Error, finding, "set cleanup.policy=compact on it");
        }
        let waiting = self.settings.sequence.as_ref().map_or(0, |_| self.settings.gap.max_waiting as usize);
        let numbers = if waiting > 0 { Sequence::max_bytes(waiting) as u64 } else { 0 };
        let head = u64::from(self.settings.recent_ids) * RECENT_ID_BYTES + HEAD_BYTES + numbers;
        if head > configs.max_message_bytes {
            let fitting = configs.max_message_bytes.saturating_sub(HEAD_BYTES + numbers) / RECENT_ID_BYTES;
            let finding = format!(
                "recent_ids = {} makes ledger rows of up to {head} bytes, the changelog \"{}\" takes {}",
                self.settings.recent_ids, topic.name, configs.max_message_bytes
            );
            let remedy = format!(
                "lower recent_ids to {fitting}, or raise the changelog's max.message.bytes to {head}"
            );
            self.add(Level::Error, finding, remedy);
        }
    }

    fn commands(&mut self, input: &Topic, topic: &Topic) {
        let Some(found) = &topic.found else { return self.missing_own(Role::Commands, topic) };
        self.partitions(Role::Commands, input, topic, found);
        let Some(configs) = &found.configs else { return };
        if configs.cleanup_policy.contains("compact") {
            let finding = format!(
                "the command topic \"{}\" is compacted, which takes records with keys only: no command could be written",
                topic.name
            );
            self.add(Level::Error, finding, "set cleanup.policy=delete on it");
        }
    }

    fn letters(&mut self, input: &Topic, topic: &Topic) {
        let Some(found) = &topic.found else { return self.missing_own(Role::DeadLetters, topic) };
        self.partitions(Role::DeadLetters, input, topic, found);
        let Some(configs) = &found.configs else { return };
        self.kept(topic, configs);
        if let Some(largest) = largest(input) {
            self.fitting(topic, configs.max_message_bytes, largest);
        }
    }

    fn kept(&mut self, topic: &Topic, configs: &TopicConfigs) {
        if configs.cleanup_policy.contains("compact") {
            let finding = format!(
                "the dead-letter topic \"{}\" is compacted: of several letters of a key only the last would stay",
                topic.name
            );
            return self.add(Level::Error, finding, "set cleanup.policy=delete and retention.ms=-1 on it");
        }
        let time = configs.retention.map(|time| format!("after {}", humantime::format_duration(time)));
        let bytes = configs.retention_bytes.map(|bytes| format!("beyond {bytes} bytes a partition"));
        let limits: Vec<String> = time.into_iter().chain(bytes).collect();
        if !limits.is_empty() {
            let finding = format!(
                "the dead-letter topic \"{}\" drops letters {}: they cannot be read any more then",
                topic.name,
                limits.join(" and ")
            );
            self.add(Level::Warning, finding, "set retention.ms=-1 and retention.bytes=-1 on it");
        }
    }

    fn fitting(&mut self, topic: &Topic, takes: u64, largest: u64) {
        let wanted = largest + OVERHEAD_BYTES;
        if takes >= wanted {
            return;
        }
        // Its headers make a letter a little larger than its record.
        let level = if takes <= largest { Level::Error } else { Level::Warning };
        let finding = format!(
            "the dead-letter topic \"{}\" takes {takes} bytes at most, the input topic {largest}: the letter of \
             a large record may not fit",
            topic.name
        );
        self.add(level, finding, format!("raise its max.message.bytes to {wanted}"));
    }

    fn missing_given(&mut self, role: Role, topic: &Topic) {
        if topic.seen == Seen::Hidden {
            return;
        }
        let finding = format!("there is no {} topic \"{}\"", role.name(), topic.name);
        let remedy = "correct the settings, or create it: pawl topics create --input-partitions N";
        self.add(Level::Error, finding, remedy);
    }

    fn missing_own(&mut self, role: Role, topic: &Topic) {
        if topic.seen == Seen::Hidden {
            return;
        }
        let finding = format!("there is no {} topic \"{}\"", role.name(), topic.name);
        if self.settings.create_topics {
            self.add(Level::Note, format!("{finding} yet; pawl run creates it"), "");
        } else {
            self.add(Level::Error, finding, "create it: pawl topics create, or set create_topics = true");
        }
    }

    fn partitions(&mut self, role: Role, input: &Topic, topic: &Topic, found: &Found) {
        let Some(expected) = input.found.as_ref().map(|input| input.partitions) else { return };
        if found.partitions != expected {
            let finding = format!(
                "the {} topic \"{}\" has {} partitions, the input topic \"{}\" {expected}; they must be equal",
                role.name(),
                topic.name,
                found.partitions,
                input.name
            );
            self.add(
                Level::Error,
                finding,
                "use another topic, or, while it is empty, delete it and create it anew",
            );
        }
    }
}

/// The largest record of the input topic, where its configs are known.
fn largest(input: &Topic) -> Option<u64> {
    input.found.as_ref()?.configs.as_ref().map(|configs| configs.max_message_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Forward;
    use std::time::Duration;

    const MIB: u64 = 1024 * 1024;

    fn topic(name: &str, cleanup_policy: &str, max_message_bytes: u64) -> Topic {
        let configs = TopicConfigs {
            timestamp_type: "CreateTime".into(),
            cleanup_policy: cleanup_policy.into(),
            retention: None,
            retention_bytes: None,
            max_message_bytes,
            delete_retention: Duration::from_secs(86_400),
        };
        let found = Found { partitions: 4, configs: Some(configs) };
        Topic { name: name.into(), found: Some(found), seen: Seen::Untold }
    }

    fn good() -> (HandlerSettings, Facts) {
        let settings = HandlerSettings {
            topic: "orders".into(),
            forward: Some(Forward { topic: "out".into() }),
            ..HandlerSettings::default()
        };
        let facts = Facts {
            input: topic("orders", "delete", MIB),
            changelog: topic("billing-changelog", "compact", 2 * MIB),
            commands: topic("billing-commands", "delete", MIB),
            letters: topic("orders-dlt", "delete", 2 * MIB),
            forward: Some(topic("out", "delete", MIB)),
        };
        (settings, facts)
    }

    /// Changes what is good, and expects exactly these findings: level, part of the finding, part
    /// of the remedy.
    fn check(change: impl Fn(&mut HandlerSettings, &mut Facts), expected: &[(Level, &str, &str)]) {
        let (mut settings, mut facts) = good();
        change(&mut settings, &mut facts);
        let findings = handler("billing", &settings, &facts);
        assert_eq!(findings.len(), expected.len(), "{findings:#?}");
        for (finding, (level, what, remedy)) in findings.iter().zip(expected) {
            assert_eq!(finding.level, *level, "{finding:?}");
            assert!(finding.finding.contains(what), "{finding:?}");
            assert!(finding.remedy.contains(remedy), "{finding:?}");
            assert_eq!(finding.handler.as_deref(), Some("billing"));
        }
    }

    fn found(topic: &mut Topic) -> &mut Found {
        topic.found.as_mut().expect("it exists")
    }

    fn configs(topic: &mut Topic) -> &mut TopicConfigs {
        found(topic).configs.as_mut().expect("known")
    }

    #[test]
    fn nothing_is_found_where_all_is_well() {
        check(|_, _| {}, &[]);
    }

    #[test]
    fn a_missing_input_or_forward_topic_is_an_error() {
        check(
            |_, facts| facts.input.found = None,
            &[(Level::Error, "no input topic \"orders\"", "--input-partitions")],
        );
        check(
            |_, facts| facts.forward.as_mut().expect("set").found = None,
            &[(Level::Error, "no forward topic \"out\"", "--input-partitions")],
        );
    }

    #[test]
    fn pawls_own_topics_may_be_missing_unless_it_must_not_create_them() {
        let gone = |facts: &mut Facts| {
            facts.changelog.found = None;
            facts.letters.found = None;
        };
        let note = (Level::Note, "pawl run creates it", "");
        check(|_, facts| gone(facts), &[note, note]);
        let error = (Level::Error, "there is no", "pawl topics create");
        check(
            |settings, facts| {
                settings.create_topics = false;
                gone(facts);
            },
            &[error, error],
        );
    }

    #[test]
    fn partition_counts_must_agree() {
        check(
            |_, facts| {
                found(&mut facts.changelog).partitions = 3;
                found(&mut facts.letters).partitions = 8;
            },
            &[
                (
                    Level::Error,
                    "\"billing-changelog\" has 3 partitions, the input topic \"orders\" 4",
                    "delete it",
                ),
                (Level::Error, "\"orders-dlt\" has 8 partitions", "delete it"),
            ],
        );
    }

    #[test]
    fn a_changelog_that_forgets_is_an_error() {
        for policy in ["delete", "compact,delete"] {
            check(
                |_, facts| configs(&mut facts.changelog).cleanup_policy = policy.into(),
                &[(Level::Error, policy, "cleanup.policy=compact")],
            );
        }
    }

    #[test]
    fn dead_letters_that_will_be_dropped_are_told() {
        check(
            |_, facts| {
                configs(&mut facts.letters).retention = Some(Duration::from_secs(7 * 86_400));
                configs(&mut facts.letters).retention_bytes = Some(1000);
            },
            &[(Level::Warning, "after 7days and beyond 1000 bytes", "retention.ms=-1")],
        );
        check(
            |_, facts| configs(&mut facts.letters).cleanup_policy = "compact".into(),
            &[(Level::Error, "only the last would stay", "cleanup.policy=delete")],
        );
    }

    #[test]
    fn a_letter_must_fit_with_its_headers() {
        let takes = |bytes: u64| {
            move |_: &mut HandlerSettings, facts: &mut Facts| {
                configs(&mut facts.letters).max_message_bytes = bytes;
            }
        };
        check(takes(MIB + OVERHEAD_BYTES), &[]);
        check(takes(MIB + OVERHEAD_BYTES - 1), &[(Level::Warning, "may not fit", "1114112")]);
        check(takes(MIB), &[(Level::Error, "may not fit", "1114112")]);
    }

    #[test]
    fn the_ledgers_rows_must_fit_the_changelog() {
        let ids = |n: u32| move |settings: &mut HandlerSettings, _: &mut Facts| settings.recent_ids = n;
        let most = u32::try_from((2 * MIB - HEAD_BYTES) / RECENT_ID_BYTES).expect("small");
        check(ids(most), &[]);
        check(ids(most + 1), &[(Level::Error, "makes ledger rows", &format!("lower recent_ids to {most}"))]);
    }

    #[test]
    fn a_topic_that_is_hidden_is_not_said_to_be_missing() {
        check(
            |_, facts| {
                facts.input.found = None;
                facts.input.seen = Seen::Hidden;
                facts.letters.found = None;
                facts.letters.seen = Seen::Hidden;
            },
            &[],
        );
    }

    #[test]
    fn an_output_that_takes_less_than_the_input_is_told() {
        check(
            |_, facts| configs(facts.forward.as_mut().expect("set")).max_message_bytes = 1000,
            &[(Level::Warning, "takes 1000 bytes at most", "1048576")],
        );
    }
}

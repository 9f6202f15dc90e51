//! `pawl check`: is everything ready to run? First the settings, then the broker and its topics.
//!
//! Facts are gathered here, judged in `judge`, which asks nobody. Deliberately absent: changing
//! anything (`pawl topics create` does), and calling the HTTP service.

mod judge;
mod rights;

use serde::Serialize;

use self::judge::{Facts, Found, Topic};
use self::rights::Answers;
use super::{Failure, print, print_json};
use crate::cli::Check;
use crate::exit::Exit;
use crate::kafka::admin::{Admin, AdminError};
use crate::kafka::transactional_id;
use crate::rights::{Resource, Right, Seen, transactional_id_prefix};
use crate::settings::{Guarantee, HandlerSettings, Kafka, Settings};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Pawl cannot run like this, or would break a promise.
    Error,
    /// It runs, but a person should know.
    Warning,
    /// Nothing to do.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The handler it is about; `None`: the settings or the cluster as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// What is the case, and why it matters.
    pub finding: String,
    /// What to do; empty for a note.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    errors: usize,
    warnings: usize,
    findings: &'a [Finding],
}

/// Carries `pawl check` out.
///
/// # Errors
/// Only when the output cannot be written: everything else is a finding.
pub fn execute(args: &Check) -> Result<Exit, Failure> {
    let (mut exit, findings) = match args.settings.load() {
        Ok(settings) if args.offline => exposure(&settings.admin),
        Ok(settings) => inspect(&settings),
        Err(error) => {
            if !args.json {
                // The settings' own report shows the lines of the file too.
                return Err(error.into());
            }
            (Exit::Usage, error.problems().iter().map(of_settings).collect())
        }
    };
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    if exit == Exit::Done && errors > 0 {
        exit = Exit::Findings;
    }
    if args.json {
        print_json(&Report { ok: errors == 0, errors, warnings, findings: &findings })?;
    } else {
        findings.iter().try_for_each(|finding| print(line(finding).as_bytes()))?;
        let sound = args.offline && errors == 0;
        let summary = if sound { SETTINGS_SOUND.to_owned() } else { summary(errors, warnings) };
        print(summary.as_bytes())?;
    }
    Ok(exit)
}

fn of_settings(problem: &crate::settings::Problem) -> Finding {
    let remedy = problem.remedy().to_owned();
    Finding { level: Level::Error, handler: None, finding: problem.finding(), remedy }
}

/// Whether `pawl run` would refuse the endpoint's address: as much of it as can be said without its files, which may
/// lie on another machine.
fn exposure(settings: &crate::settings::Admin) -> (Exit, Vec<Finding>) {
    match settings.check_exposure() {
        Ok(()) => (Exit::Done, Vec::new()),
        Err(error) => (Exit::Usage, error.problems().iter().map(of_settings).collect()),
    }
}

/// Asks the cluster about each handler. Stops at a cluster that does not answer.
fn inspect(settings: &Settings) -> (Exit, Vec<Finding>) {
    let (usable, mut findings) = endpoint(&settings.admin);
    if !usable {
        return (Exit::Usage, findings);
    }
    let admin = match Admin::new(&settings.kafka) {
        Ok(admin) => admin,
        Err(error @ AdminError::NoToken(_)) => return (Exit::Unreachable, vec![of_cluster(&error)]),
        Err(error) => return (Exit::Usage, vec![of_cluster(&error)]),
    };
    for (name, handler) in &settings.handler {
        let asked = Asked { admin: &admin, kafka: &settings.kafka, name, handler };
        match asked.findings() {
            Ok(found) => findings.extend(found),
            Err(error @ AdminError::Unreachable { .. }) => {
                findings.push(of_cluster(&error));
                return (Exit::Unreachable, findings);
            }
            Err(error @ AdminError::Refused { .. }) => {
                findings.push(of_cluster(&error));
                return (Exit::Done, findings);
            }
            Err(error) => findings.push(Finding { handler: Some(name.clone()), ..of_cluster(&error) }),
        }
    }
    (Exit::Done, findings)
}

/// What can be said of the admin endpoint on this machine; and whether Pawl would start.
fn endpoint(settings: &crate::settings::Admin) -> (bool, Vec<Finding>) {
    let finding = |level, text: &str| {
        let (finding, remedy) = text.rsplit_once("; ").unwrap_or((text, ""));
        Finding { level, handler: None, finding: finding.to_owned(), remedy: remedy.to_owned() }
    };
    let (_, open) = exposure(settings);
    if !open.is_empty() {
        return (false, open);
    }
    if settings.listen.is_none() {
        return (true, Vec::new());
    }
    if let Err(error) = crate::admin::Credentials::read(settings) {
        return (false, vec![finding(Level::Error, &error.to_string())]);
    }
    let plain = settings.is_exposed() && settings.has_tokens() && settings.tls.is_none();
    (true, plain.then(|| finding(Level::Warning, crate::admin::PLAIN_TOKENS)).into_iter().collect())
}

/// The errors of `admin` read "what; what to do".
fn of_cluster(error: &AdminError) -> Finding {
    let text = error.to_string();
    let (finding, remedy) = text.rsplit_once("; ").unwrap_or((text.as_str(), ""));
    Finding { level: Level::Error, handler: None, finding: finding.to_owned(), remedy: remedy.to_owned() }
}

/// One handler, and whom to ask about it.
struct Asked<'a> {
    admin: &'a Admin,
    kafka: &'a Kafka,
    name: &'a str,
    handler: &'a HandlerSettings,
}

impl Asked<'_> {
    fn findings(&self) -> Result<Vec<Finding>, AdminError> {
        let facts = self.facts()?;
        let mut findings = judge::handler(self.name, self.handler, &facts);
        let needs = crate::rights::of_handler(self.kafka, self.name, self.handler);
        let answers = self.answers(&facts)?;
        findings.extend(rights::missing(self.name, self.admin.principal(), &needs, &answers));
        Ok(findings)
    }

    fn facts(&self) -> Result<Facts, AdminError> {
        let (name, handler) = (self.name, self.handler);
        let given = |topic: &str| self.topic(topic.to_owned(), false);
        let own = |topic: String| self.topic(topic, handler.create_topics);
        Ok(Facts {
            input: given(&handler.topic)?,
            changelog: own(handler.changelog_topic(name))?,
            commands: own(handler.command_topic(name))?,
            letters: own(handler.dead_letter_topic())?,
            forward: handler.forward.as_ref().map(|forward| given(&forward.topic)).transpose()?,
        })
    }

    fn topic(&self, name: String, may_be_created: bool) -> Result<Topic, AdminError> {
        let description = match self.admin.describe(&name) {
            Ok(Some(description)) => description,
            Ok(None) => {
                let forbidden = may_be_created && !self.admin.may_create(&name)?;
                let seen = if forbidden { Seen::AbsentAndForbidden } else { Seen::Absent };
                return Ok(Topic { name, found: None, seen });
            }
            Err(AdminError::Forbidden { .. }) => return Ok(Topic { name, found: None, seen: Seen::Hidden }),
            Err(error) => return Err(error),
        };
        let seen = description.rights.map_or(Seen::Untold, Seen::Rights);
        // A right that running does not need: it is found among the rights. Brokers answer whoever lacks it with
        // no configs at all.
        let configs = match seen.allows(Right::DescribeConfigs).then(|| self.admin.configs(&name)).transpose()
        {
            Err(AdminError::Forbidden { .. }) => None,
            asked => asked?,
        };
        let found = Found { partitions: description.partitions, configs };
        Ok(Topic { name, found: Some(found), seen })
    }

    fn answers(&self, facts: &Facts) -> Result<Answers, AdminError> {
        let topics = [&facts.input, &facts.changelog, &facts.commands, &facts.letters];
        let topics = topics.into_iter().chain(&facts.forward);
        let mut answers: Answers =
            topics.map(|topic| ((Resource::Topic, topic.name.clone()), topic.seen.clone())).collect();
        let group = self.handler.group(self.name);
        answers.insert((Resource::Group, group.to_owned()), self.admin.group(group)?);
        if self.handler.guarantee == Guarantee::ExactlyOnce {
            let prefix = transactional_id_prefix(self.kafka, group);
            let allowed = transactional_id::may_use(self.kafka, &format!("{prefix}check"));
            let seen = if allowed { Seen::Untold } else { Seen::Hidden };
            answers.insert((Resource::TransactionalId, prefix), seen);
        }
        Ok(answers)
    }
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    };
    let handler = finding.handler.as_ref().map_or(String::new(), |name| format!("handler {name}: "));
    let remedy = if finding.remedy.is_empty() { String::new() } else { format!("; {}", finding.remedy) };
    format!("{level}: {handler}{}{remedy}\n", finding.finding)
}

/// Whoever reads this may not take it for more than it is.
const SETTINGS_SOUND: &str = "the settings are sound; no broker was asked\n";

fn summary(errors: usize, warnings: usize) -> String {
    match (errors, warnings) {
        (0, 0) => "ready to run\n".into(),
        (0, warnings) => format!("ready to run, warnings: {warnings}\n"),
        (errors, warnings) => format!("not ready to run, errors: {errors}, warnings: {warnings}\n"),
    }
}

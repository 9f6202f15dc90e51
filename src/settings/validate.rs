//! What the types alone cannot say: bounds, legal names, and how settings fit together.
//!
//! Pure: it reads settings and returns problems. It asks no broker and opens no file; that is
//! what `pawl check` does afterwards.

mod retries;
mod security;
mod telemetry;

use std::collections::BTreeMap;

use hyper::Uri;
use pawl_actors::policy::NullKey;
use pawl_actors::selector::Selector;
use rdkafka::ClientConfig;
use tracing_subscriber::EnvFilter;

use super::key_path::KeyPath;
use super::problem::{Complaint, Problem};
use super::{HandlerSettings, Http, Kafka, Settings, admin, environment, kafka, limits, secret};

/// The longest name of a topic that Kafka takes, in characters.
const MAX_TOPIC_CHARS: usize = 249;
/// The longest group: its changelog's name must be a topic's as well.
const MAX_GROUP_CHARS: usize = MAX_TOPIC_CHARS - "-changelog".len();
/// The longest name of a handler, instance, client or prefix.
const MAX_NAME_CHARS: usize = 100;
const MAX_BOOTSTRAP_SERVERS: usize = 100;

/// Problems of single settings.
pub(super) fn values(settings: &Settings) -> Vec<Problem> {
    let mut found: Vec<Problem> = limits::problems(settings).collect();
    found.extend(settings.instance.as_deref().and_then(instance));
    found.extend(of_kafka(&settings.kafka));
    if settings.store.dir.as_os_str().is_empty() {
        let complaint = Complaint::new("it is empty", "name a directory, or leave the key out");
        found.push(Problem::with_value(&KeyPath::of(&["store", "dir"]), "\"\"", complaint));
    }
    found.extend(admin::problems(&settings.admin));
    let filter = &settings.log.filter;
    found.extend(check(&KeyPath::of(&["log", "filter"]), filter, log_filter(filter)));
    found.extend(telemetry::problems(&settings.telemetry));
    for (name, handler) in &settings.handler {
        found.extend(of_handler(name, handler));
    }
    found
}

/// Problems between settings. Only asked when each by itself is sound: otherwise one mistake would
/// be told twice.
pub(super) fn relations(settings: &Settings) -> Vec<Problem> {
    let mut found = Vec::new();
    if settings.handler.is_empty() {
        let remedy = "add a table [handler.NAME] with a topic and one of http, forward and program";
        found.push(Problem::new(&KeyPath::of(&["handler"]), "there is no handler", remedy));
    }
    found.extend(security::problems(&KeyPath::of(&["kafka"]), &settings.kafka));
    found.extend(shared_groups(settings));
    found.extend(shared_spellings(settings));
    for (name, handler) in &settings.handler {
        found.extend(within_handler(&KeyPath::of(&["handler", name]), name, handler));
    }
    found
}

/// What is wrong with the name of an instance, set or told by the operating system.
pub(super) fn instance(instance: &str) -> Option<Problem> {
    let Complaint { reason, remedy } = name(instance, MAX_NAME_CHARS).err()?;
    let remedy = format!("set instance to a name that no other instance has: {remedy}");
    let key = KeyPath::of(&["instance"]);
    Some(Problem::with_value(&key, &format!("{instance:?}"), Complaint { reason, remedy }))
}

fn check(key: &KeyPath, value: &str, result: Result<(), Complaint>) -> Option<Problem> {
    result.err().map(|complaint| Problem::with_value(key, &format!("{value:?}"), complaint))
}

fn of_kafka(kafka: &Kafka) -> Vec<Problem> {
    let base = KeyPath::of(&["kafka"]);
    let servers = base.name("bootstrap_servers");
    let mut found = Vec::new();
    match kafka.bootstrap_servers.len() {
        0 => found.push(missing(
            &servers,
            "name at least one broker, as in bootstrap_servers = [\"localhost:9092\"]",
        )),
        1..=MAX_BOOTSTRAP_SERVERS => {}
        _ => found.push(Problem::new(
            &servers,
            format!("{servers} names more than 100 brokers"),
            "a few are enough",
        )),
    }
    for (index, server) in kafka.bootstrap_servers.iter().enumerate() {
        found.extend(check(&servers.index(index), server, broker(server)));
    }
    found.extend(check(&base.name("client_id"), &kafka.client_id, name(&kafka.client_id, MAX_NAME_CHARS)));
    let prefix = &kafka.transactional_id_prefix;
    found.extend(check(&base.name("transactional_id_prefix"), prefix, name(prefix, MAX_NAME_CHARS)));
    if kafka.replication_factor == 0 {
        let complaint =
            Complaint::new("a topic needs a replica", "write -1 for the broker's default, or 1 and more");
        found.push(Problem::with_value(&base.name("replication_factor"), "0", complaint));
    }
    for (name, value) in &kafka.properties {
        found.extend(check(&base.name("properties").name(name), value, property(name, value)));
    }
    found
}

fn of_handler(name: &str, handler: &HandlerSettings) -> Vec<Problem> {
    let base = KeyPath::of(&["handler", name]);
    let mut found = Vec::new();
    if let Err(Complaint { reason, remedy }) = handler_name(name) {
        found.push(
            Problem::new(&base, format!("{name:?} cannot be the name of a handler"), remedy).because(reason),
        );
    }
    let mut topic_at = |key: KeyPath, topic: &str, remedy: &str| match topic {
        "" => found.push(missing(&key, remedy)),
        _ => found.extend(check(&key, topic, self::topic(topic))),
    };
    topic_at(base.name("topic"), &handler.topic, "name the input topic, as in topic = \"orders\"");
    if let Some(forward) = &handler.forward {
        topic_at(base.name("forward").name("topic"), &forward.topic, "name the output topic");
    }
    if let Some(topic) = &handler.dead_letter.topic {
        topic_at(base.name("dead_letter").name("topic"), topic, "name a topic, or leave the key out");
    }
    if let Some(group) = &handler.group {
        found.extend(check(&base.name("group"), group, self::name(group, MAX_GROUP_CHARS)));
    }
    if let Some(name) = handler.program.as_ref().and_then(|program| program.name.as_ref()) {
        found.extend(check(&base.name("program").name("name"), name, self::name(name, MAX_NAME_CHARS)));
    }
    found.extend(selector(&base.name("key"), Some(&handler.key)));
    found.extend(selector(&base.name("event_id"), handler.event_id.as_ref()));
    found.extend(selector(&base.name("sequence"), handler.sequence.as_ref()));
    found.extend(handler.http.as_ref().and_then(|http| url(&base.name("http").name("url"), &http.url)));
    found.extend(
        handler.http.as_ref().and_then(|http| health_url(&base.name("http").name("health_url"), http)),
    );
    found
}

fn within_handler(base: &KeyPath, name: &str, handler: &HandlerSettings) -> Vec<Problem> {
    let mut found = Vec::new();
    let present = [
        ("http", handler.http.is_some()),
        ("forward", handler.forward.is_some()),
        ("program", handler.program.is_some()),
    ];
    let present: Vec<&str> = present.iter().filter(|(_, present)| *present).map(|(kind, _)| *kind).collect();
    if present.is_empty() {
        let remedy =
            "add exactly one of http = { url = \"…\" }, forward = { topic = \"…\" } and program = {}";
        found.push(Problem::new(base, format!("{base} does not say what its records are handed to"), remedy));
    } else if present.len() > 1 {
        let subject = format!("{base} hands its records to {}", present.join(" and to "));
        found.push(Problem::new(base, subject, "keep one of them, or make a handler of its own for each"));
    }
    let letters = handler.dead_letter_topic();
    let letters_at = base.name("dead_letter").name("topic");
    let mut differ = |key: KeyPath, topic: &str, other: &str, reason: &str, remedy: &str| {
        if topic == other {
            found.push(Problem::with_value(&key, &format!("{topic:?}"), Complaint::new(reason, remedy)));
        }
    };
    let loops = "this is the input topic, so every record of it would come in again";
    differ(letters_at.clone(), &letters, &handler.topic, loops, "name another topic");
    if let Some(forward) = &handler.forward {
        let key = base.name("forward").name("topic");
        differ(key.clone(), &forward.topic, &handler.topic, loops, "name another topic");
        let mixed = "this is also the dead-letter topic, where nobody could tell letters from output";
        differ(key, &forward.topic, &letters, mixed, "name another topic for one of them");
    }
    if let Err(complaint) = topic(&letters) {
        found.extend(check(&letters_at, &letters, Err(complaint)));
    }
    if let Err(Complaint { reason, .. }) = topic(&handler.changelog_topic(name)) {
        let remedy = "set a shorter group";
        found.push(Problem::with_value(
            &base.name("group"),
            &format!("{name:?}"),
            Complaint::new(reason, remedy),
        ));
    }
    found.extend(retries::problems(&base.name("retry"), &handler.retry, handler.http.is_some()));
    found.extend(without_order(base, handler));
    found
}

/// Numbers are a key's: records without one have no order that they could be given in.
fn without_order(base: &KeyPath, handler: &HandlerSettings) -> Option<Problem> {
    let spread = matches!(handler.null_key, NullKey::Spread(_)) && handler.sequence.is_some();
    spread.then(|| {
        let subject =
            format!("{base} spreads records without a key, and orders records by their key's numbers");
        Problem::new(&base.name("null_key"), subject, "write null_key = \"reject\", or leave out sequence")
    })
}

/// Pairs of handlers that share what each must have for itself: that, the first and the second.
fn shared(
    settings: &Settings,
    value: impl Fn(&str, &HandlerSettings) -> String,
) -> Vec<(String, &str, &str)> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, handler) in &settings.handler {
        let value = value(name, handler);
        match owners.get(&value) {
            Some(owner) => found.push((value, *owner, name.as_str())),
            None => drop(owners.insert(value, name)),
        }
    }
    found
}

fn shared_groups(settings: &Settings) -> impl Iterator<Item = Problem> {
    let groups = shared(settings, |name, handler| handler.group(name).to_owned());
    groups.into_iter().map(|(group, first, second)| {
        let subject = format!("{group:?} is the group of the handlers {first:?} and {second:?}");
        let reason = "each has its own offsets and its own changelog";
        let key = KeyPath::of(&["handler", second, "group"]);
        Problem::new(&key, subject, "give one of them another group").because(reason)
    })
}

fn shared_spellings(settings: &Settings) -> impl Iterator<Item = Problem> {
    let names = shared(settings, |name, _| environment::spelled(name));
    names.into_iter().map(|(_, first, second)| {
        let subject =
            format!("the handlers {first:?} and {second:?} have the same name in environment variables");
        Problem::new(&KeyPath::of(&["handler", second]), subject, "rename one of them")
    })
}

fn missing(key: &KeyPath, remedy: &str) -> Problem {
    Problem::new(key, format!("{key} is missing"), remedy)
}

/// Letters of which Kafka's names are made (`org.apache.kafka.common.internals.Topic`).
fn legal_chars(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn name(text: &str, max_chars: usize) -> Result<(), Complaint> {
    if legal_chars(text) && (1..=max_chars).contains(&text.len()) {
        return Ok(());
    }
    let rule = format!("1 to {max_chars} characters of a-z, A-Z, 0-9, '.', '_' and '-'");
    Err(Complaint::new("not a legal name", format!("use {rule}")))
}

fn handler_name(text: &str) -> Result<(), Complaint> {
    name(text, MAX_NAME_CHARS)?;
    if text.contains("__") {
        let reason = "two underscores part the levels of environment variables";
        return Err(Complaint::new(reason, "use one underscore or a dash"));
    }
    Ok(())
}

fn topic(text: &str) -> Result<(), Complaint> {
    if text == "." || text == ".." {
        return Err(Complaint::new("Kafka does not allow this name", "name a topic"));
    }
    name(text, MAX_TOPIC_CHARS)
        .map_err(|complaint| Complaint::new("not a legal name of a topic", complaint.remedy))
}

fn broker(text: &str) -> Result<(), Complaint> {
    let remedy = || "write \"host:port\", as in \"localhost:9092\"".to_owned();
    if text.contains("://") {
        return Err(Complaint::new("a broker is named without a scheme", remedy()));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Complaint::new(
            "there is no port",
            format!("write \"{text}:9092\", or the port that is meant"),
        ));
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let legal =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_') || (bracketed && "[]:%".contains(c));
    if host.is_empty() || !host.chars().all(legal) {
        return Err(Complaint::new("this is not the name or address of a host", remedy()));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(Complaint::new(format!("{port:?} is not a port of 1 to 65535"), remedy())),
    }
}

/// Refuses properties that are Pawl's, and lets librdkafka judge the others.
fn property(name: &str, value: &str) -> Result<(), Complaint> {
    if let Some(reason) = kafka::owned(name) {
        return Err(Complaint::new("Pawl sets this property itself", format!("remove it: {reason}")));
    }
    let Err(error) = ClientConfig::new().set(name, value).create_native_config() else { return Ok(()) };
    let reason = match error {
        rdkafka::error::KafkaError::ClientConfig(_, description, _, _) if !secret::named_by(name) => {
            description
        }
        _ => "librdkafka refuses it".to_owned(),
    };
    Err(Complaint::new(reason, "look it up in librdkafka's CONFIGURATION.md"))
}

fn selector(key: &KeyPath, selector: Option<&Selector>) -> Option<Problem> {
    let selector = selector?.to_string();
    let again = selector.parse::<Selector>();
    check(key, &selector, again.map(drop).map_err(|reason| Complaint::new(reason, "correct it")))
}

fn log_filter(filter: &str) -> Result<(), Complaint> {
    let remedy =
        "write a level (error, warn, info, debug, trace) or a list such as \"info,pawl::kafka=debug\"";
    if filter.trim().is_empty() {
        return Err(Complaint::new("it is empty", remedy));
    }
    EnvFilter::try_new(filter).map(drop).map_err(|error| Complaint::new(error.to_string(), remedy))
}

fn health_url(key: &KeyPath, http: &Http) -> Option<Problem> {
    let health = http.health_url.as_deref()?;
    let scheme = |url: &str| url.split(':').next().map(str::to_ascii_lowercase);
    url(key, health).or_else(|| {
        let same = http.url.is_empty() || scheme(health) == scheme(&http.url);
        let remedy = "write both with http:// or both with https://";
        (!same).then(|| {
            Problem::new(key, format!("{key} has another scheme than url"), remedy).because("refused")
        })
    })
}

fn url(key: &KeyPath, text: &str) -> Option<Problem> {
    let remedy = "write it as in \"http://billing:8080/events\"";
    if text.is_empty() {
        return Some(missing(key, remedy));
    }
    if secret::names_a_user(text) {
        let remedy = "remove them: they would not be sent, and would show up in logs";
        return Some(
            Problem::new(key, format!("{key} has a user name or password in it"), remedy).because("refused"),
        );
    }
    check(key, text, parsed_url(text).map_err(|reason| Complaint::new(reason, remedy)))
}

fn parsed_url(text: &str) -> Result<(), String> {
    if text.contains('#') {
        return Err("a fragment (#…) is never sent to a service".into());
    }
    let uri: Uri = text.parse().map_err(|error| format!("this is not a URL: {error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        Some("http" | "https") => Err("there is no host".into()),
        Some(other) => Err(format!("{other}:// is not a scheme that Pawl speaks; http and https are")),
        None => Err("it does not begin with http:// or https://".into()),
    }
}

//! `pawl keys list` and `pawl keys show`: what is known of keys. A running instance is asked through
//! its endpoint; where none answers, the changelog is read.
//!
//! Both sources tell the same but for two things: only an instance knows what goes on in a lane, only
//! the changelog knows at which of its offsets a row lies.

pub(super) mod asked;
mod changelog;
mod fold;
mod instance;
mod report;

use bytes::Bytes;
use pawl_actors::ledger::LaneKey;

use self::changelog::Changelog;
use self::instance::Instance;
use super::endpoint::{Endpoint, EndpointError};
use super::{Failure, handler, print, print_json, settings};
use crate::admin::keys::HeldPartition;
use crate::cli::{KeysList, KeysShow, KeysSource};
use crate::exit::Exit;
use crate::looking::window::MAX_LIMIT;
use crate::looking::{KeyLine, KeyPage};
use crate::settings::Settings;
use crate::shown::Raw;

/// What was found, and whom it was asked of.
struct Found<T> {
    keys: Vec<T>,
    more: bool,
    /// For the summary: "the instance at ..., which holds ...".
    source: String,
}

/// Carries `pawl keys list` out.
///
/// # Errors
/// Neither an instance nor a broker answers, or there is no changelog.
pub fn list(args: &KeysList) -> Result<Exit, Failure> {
    let settings = settings(&args.source.settings)?;
    let (name, handler) = handler(&settings, args.source.handler.as_ref())?;
    let found = match asked(&args.source, &settings, name, |endpoint| list_instance(endpoint, args))? {
        Some(found) => found,
        None => {
            let changelog = Changelog::open(&settings.kafka, name, handler)?;
            let limit = args.limit as usize;
            let wanted = |line: &KeyLine| is_wanted(args, line);
            let bound = if is_filtered(args) { FILTERED_BOUND } else { 0 };
            let (keys, more) = changelog.list(args.source.partition, prefix(args), limit, bound, wanted)?;
            Found { keys, more, source: changelog.source() }
        }
    };
    for key in &found.keys {
        if args.source.json {
            print_json(key)?;
        } else {
            print(report::line(key).as_bytes())?;
        }
    }
    eprintln!("{}", summary(&found));
    Ok(Exit::Done)
}

/// Carries `pawl keys show` out.
///
/// # Errors
/// As [`list`], or nothing is known of the key.
pub fn show(args: &KeysShow) -> Result<Exit, Failure> {
    let settings = settings(&args.source.settings)?;
    let (name, handler) = handler(&settings, args.source.handler.as_ref())?;
    let key = lane(&args.key, &args.key_hex, args.no_key_lane);
    let instance =
        asked(&args.source, &settings, name, |endpoint| show_instance(endpoint, args, key.as_deref()));
    let found = match instance? {
        Some(found) => found,
        None => {
            let changelog = Changelog::open(&settings.kafka, name, handler)?;
            let keys = changelog.show(args.source.partition, &key)?;
            Found { keys, more: false, source: changelog.source() }
        }
    };
    for page in &found.keys {
        if args.source.json {
            print_json(page)?;
        } else {
            print(report::page(page).as_bytes())?;
        }
    }
    if found.keys.is_empty() {
        return Err(Failure::new(Exit::Findings, nothing(key, &found.source)));
    }
    eprintln!("from {}", found.source);
    Ok(Exit::Done)
}

fn prefix(args: &KeysList) -> Bytes {
    args.prefix.clone().unwrap_or_default().into()
}

/// The lane that a person means.
fn lane(key: &Option<String>, hex: &Option<Bytes>, no_key_lane: Option<u16>) -> LaneKey<Bytes> {
    let key = key.clone().map(Bytes::from).or_else(|| hex.clone());
    match (key, no_key_lane) {
        (Some(key), _) => LaneKey::Key(key),
        (None, Some(lane)) => LaneKey::NoKey(lane),
        (None, None) => LaneKey::Unusable,
    }
}

/// What an instance says; `None`: the changelog has to be read.
fn asked<T>(
    source: &KeysSource,
    settings: &Settings,
    handler: &str,
    ask: impl Fn(&Instance) -> Result<Option<Found<T>>, EndpointError>,
) -> Result<Option<Found<T>>, Failure> {
    if source.changelog {
        return Ok(None);
    }
    let Some(endpoint) = Endpoint::find(&source.endpoint, Some(&settings.admin))? else { return Ok(None) };
    let endpoint = Instance::new(endpoint, handler);
    let why = match ask(&endpoint) {
        Ok(Some(found)) => return Ok(Some(found)),
        Ok(None) => format!("the instance at {} holds no partition whose keys it knows", endpoint.address()),
        Err(error) => error.to_string(),
    };
    if source.endpoint.admin.is_some() {
        return Err(Failure::new(Exit::Stopped, format!("{why}; --changelog reads the changelog instead")));
    }
    eprintln!("{why}; reading the changelog");
    Ok(None)
}

/// Keys that are held while a changelog is read for those that a filter leaves.
const FILTERED_BOUND: usize = 100_000;

fn is_filtered(args: &KeysList) -> bool {
    args.gaps || args.quarantined || args.paused
}

/// Whether a key is one of those that were asked for.
fn is_wanted(args: &KeysList, line: &KeyLine) -> bool {
    (!args.gaps || line.sequence.as_ref().is_some_and(|sequence| sequence.waiting > 0))
        && (!args.quarantined || line.quarantine.is_some())
        && (!args.paused || line.paused)
}

fn list_instance(endpoint: &Instance, args: &KeysList) -> Result<Option<Found<KeyLine>>, EndpointError> {
    let (limit, prefix) = (args.limit as usize, prefix(args));
    let mut keys: Vec<KeyLine> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let room = if is_filtered(args) { MAX_LIMIT } else { (limit - keys.len()).min(MAX_LIMIT) };
        let answer = endpoint.list(args.source.partition, &prefix, after.as_deref(), room)?;
        if !knows_keys(&answer.partitions, args.source.partition) {
            return Ok(None);
        }
        keys.extend(answer.keys.into_iter().filter(|line| is_wanted(args, line)));
        after = answer.next;
        if after.is_none() || keys.len() >= limit {
            let source = instance(endpoint, &answer.partitions);
            let more = after.is_some() || keys.len() > limit;
            keys.truncate(limit);
            return Ok(Some(Found { keys, more, source }));
        }
    }
}

fn show_instance(
    endpoint: &Instance,
    args: &KeysShow,
    key: LaneKey<&[u8]>,
) -> Result<Option<Found<KeyPage>>, EndpointError> {
    let answer = endpoint.show(key)?;
    if !knows_keys(&answer.partitions, args.source.partition) {
        return Ok(None);
    }
    let mut keys = answer.found;
    keys.retain(|page| args.source.partition.is_none_or(|only| only == page.partition));
    Ok(Some(Found { keys, more: false, source: instance(endpoint, &answer.partitions) }))
}

/// Whether the instance can tell anything of what was asked.
fn knows_keys(held: &[HeldPartition], only: Option<i32>) -> bool {
    held.iter().any(|held| held.has_keys() && only.is_none_or(|only| only == held.partition))
}

fn instance(endpoint: &Instance, held: &[HeldPartition]) -> String {
    let told: Vec<String> =
        held.iter().filter(|held| held.has_keys()).map(|held| held.partition.to_string()).collect();
    let others: Vec<String> = held
        .iter()
        .filter(|held| !held.has_keys())
        .map(|held| format!("{} is {}", held.partition, held.phase))
        .collect();
    let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
    let noun = if told.len() == 1 { "partition" } else { "partitions" };
    format!("the instance at {}, which holds {noun} {}{others}", endpoint.address(), told.join(", "))
}

fn summary(found: &Found<KeyLine>) -> String {
    let Found { keys, more, source } = found;
    match (keys.len(), more) {
        (0, _) => format!("no keys in {source}"),
        (count, true) => format!("the first {count} keys of {source}; there are more: raise --limit"),
        (1, false) => format!("1 key in {source}"),
        (count, false) => format!("{count} keys in {source}"),
    }
}

fn nothing(key: LaneKey<Bytes>, source: &str) -> String {
    let key = match key {
        LaneKey::Unusable => "of records without a usable key".into(),
        LaneKey::NoKey(lane) => format!("of lane {lane} of records without a key"),
        LaneKey::Key(key) => format!("of the key {}", Raw(key).shown()),
    };
    format!(
        "nothing is known {key} in {source}: no record of it was ever finished there, or what was left no state, no \
         recent event id and nothing above the watermark; pawl keys list shows what is known"
    )
}

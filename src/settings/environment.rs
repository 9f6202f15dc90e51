//! Settings from environment variables: `PAWL__KAFKA__BOOTSTRAP_SERVERS=a:9092,b:9092`.
//!
//! - After `PAWL`, each level of the settings follows after two underscores, in any case. Dashes and
//!   dots of a handler's or property's name are written as underscores.
//! - A handler must be in the file; its name is matched without regard to case.
//! - The value is read by the type of the setting; the elements of a list stand between commas.
//! - With `__FILE` at its end the variable names a file that holds the value, such as a mounted
//!   secret: at most 64 KiB of UTF-8, a newline at its end is not part of the value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use super::document::{Data, Node};
use super::key_path::KeyPath;
use super::problem::{Origin, Problem, Source, nearest};
use super::shape::{SETTINGS, Shape};
use crate::bounded_file;

const PREFIX: &str = "PAWL__";
const LEVEL: &str = "__";
const FROM_FILE: &str = "__FILE";
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A value that a variable sets.
pub(super) struct Override {
    pub(super) key: KeyPath,
    pub(super) data: Data,
    pub(super) origin: Origin,
}

/// Reads the variables that begin with `PAWL__`; the others are not Pawl's.
pub(super) fn read<I, K, V>(variables: I, file: &Node, source: &Source<'_>) -> (Vec<Override>, Vec<Problem>)
where
    I: IntoIterator<Item = (K, V)>,
    K: Into<OsString>,
    V: Into<OsString>,
{
    let known = names(file);
    let mut overrides: BTreeMap<KeyPath, Override> = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, value) in variables {
        let name = name.into().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        match one(&name, value.into(), file, &known, source) {
            Ok(found) => {
                if let Some(other) = overrides.insert(found.key.clone(), found) {
                    problems.push(twice(&other).at(&Origin::Variable(name), source));
                }
            }
            Err(problem) => problems.push(*problem),
        }
    }
    (overrides.into_values().collect(), problems)
}

fn twice(other: &Override) -> Problem {
    let subject = match &other.origin {
        Origin::Variable(name) | Origin::VariableFile(name) => format!("{} is set by {name} too", other.key),
        Origin::File(_) => unreachable!("only variables are overrides"),
    };
    Problem::new(&other.key, subject, "unset one of the two variables")
}

fn one(
    name: &str,
    value: OsString,
    file: &Node,
    known: &[String],
    source: &Source<'_>,
) -> Result<Override, Box<Problem>> {
    let variable = Origin::Variable(name.to_owned());
    let whole = name.to_ascii_uppercase();
    let (plain, from_file) = match whole.strip_suffix(FROM_FILE) {
        Some(plain) => (plain, true),
        None => (whole.as_str(), false),
    };
    let levels: Vec<String> = plain[PREFIX.len()..].split(LEVEL).map(str::to_ascii_lowercase).collect();
    let Some((key, shape)) = resolve(&levels, file) else {
        return Err(Box::new(unknown(plain, from_file, known).at(&variable, source)));
    };
    let not_text = || Problem::new(&key, key.to_string(), "give it a value in UTF-8").because("not UTF-8");
    let given = value.into_string().map_err(|_| Box::new(not_text().at(&variable, source)))?;
    let (text, origin) = if from_file {
        let text = contents(&key, &given).map_err(|problem| Box::new(problem.at(&variable, source)))?;
        (text, Origin::VariableFile(name.to_owned()))
    } else {
        (given, variable)
    };
    match shape.read(&text, &origin) {
        Ok(data) => Ok(Override { key, data, origin }),
        Err(complaint) => {
            Err(Box::new(Problem::with_value(&key, &format!("{text:?}"), complaint).at(&origin, source)))
        }
    }
}

fn unknown(plain: &str, from_file: bool, known: &[String]) -> Problem {
    let suffix = if from_file { FROM_FILE } else { "" };
    let remedy = match nearest_name(plain, known) {
        Some(near) => format!("did you mean {near}{suffix}?"),
        None => "variables are named after the keys of the file, as in PAWL__KAFKA__BOOTSTRAP_SERVERS or \
                 PAWL__HANDLER__NAME__TOPIC, and a handler must be in the file"
            .to_owned(),
    };
    Problem::new(&KeyPath::default(), format!("unknown variable {plain}{suffix}"), remedy)
}

/// The known variable that was probably meant: alike but for the underscores, or alike level by
/// level. As a whole, any two names that lead into the same table would look alike.
fn nearest_name<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let flat = |name: &str| name.replace('_', "");
    if let Some(found) = known.iter().find(|other| flat(other) == flat(name)) {
        return Some(found);
    }
    let count = name.split(LEVEL).count();
    let alike = |other: &&str| {
        let pairs = || name.split(LEVEL).zip(other.split(LEVEL));
        other.split(LEVEL).count() == count && pairs().all(|(level, other)| nearest(level, [other]).is_some())
    };
    let distance = |other: &&str| strsim::damerau_levenshtein(name, other);
    known.iter().map(String::as_str).filter(alike).min_by_key(distance)
}

/// The setting that the levels of a variable's name lead to.
fn resolve(levels: &[String], file: &Node) -> Option<(KeyPath, &'static Shape)> {
    let mut shape: &'static Shape = &SETTINGS;
    let mut node = Some(file);
    let mut path = KeyPath::default();
    for level in levels {
        let written = node.and_then(|node| match &node.data {
            Data::Table(table) => table.keys().find(|name| spelled(name) == *level),
            _ => None,
        });
        let name = match shape {
            Shape::Table(keys) | Shape::NullKey(keys) => keys.contains_key(level).then(|| level.clone())?,
            Shape::Names(values) => match (written, &**values) {
                (Some(written), _) => written.clone(),
                // librdkafka's properties have dots and no underscores.
                (None, Shape::Scalar) if !level.is_empty() => level.replace('_', "."),
                (None, _) => return None,
            },
            _ => return None,
        };
        shape = match shape {
            Shape::Table(keys) | Shape::NullKey(keys) => &keys[&name],
            Shape::Names(values) => values,
            _ => return None,
        };
        node = node.and_then(|node| match &node.data {
            Data::Table(table) => table.get(&name),
            _ => None,
        });
        path = path.name(&name);
    }
    Some((path, shape))
}

/// A user's name as a variable spells it, in lower case.
pub(super) fn spelled(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', '.'], "_")
}

/// Every variable that could be set, handlers by the names that are in the file.
fn names(file: &Node) -> Vec<String> {
    fn push(shape: &Shape, node: Option<&Node>, name: &str, names: &mut Vec<String>) {
        let table =
            node.and_then(|node| if let Data::Table(table) = &node.data { Some(table) } else { None });
        let level = |key: &str| format!("{name}{LEVEL}{}", spelled(key).to_ascii_uppercase());
        if let Shape::NullKey(_) = shape {
            // Also a word.
            names.push(name.to_owned());
        }
        match shape {
            Shape::Table(keys) | Shape::NullKey(keys) => keys.iter().for_each(|(key, shape)| {
                push(shape, table.and_then(|table| table.get(key)), &level(key), names);
            }),
            Shape::Names(shape) => table.into_iter().flatten().for_each(|(key, node)| {
                push(shape, Some(node), &level(key), names);
            }),
            _ => names.push(name.to_owned()),
        }
    }
    let mut names = Vec::new();
    push(&SETTINGS, Some(file), PREFIX.trim_end_matches('_'), &mut names);
    names
}

/// The value that a file holds.
fn contents(key: &KeyPath, path: &str) -> Result<String, Box<Problem>> {
    let problem = |reason: String, remedy: &str| {
        let subject = format!("{key} is to be read from the file {path:?}");
        Box::new(Problem::new(key, subject, remedy).because(reason))
    };
    let bytes = bounded_file::read(Path::new(path), MAX_FILE_BYTES).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::FileTooLarge => "name a file that holds only the value",
            _ => "name a file that this process may read",
        };
        problem(error.to_string(), remedy)
    })?;
    let mut text = String::from_utf8(bytes)
        .map_err(|_| problem("it is not UTF-8".into(), "name a file that holds the value as text"))?;
    let end = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).map_or(text.len(), str::len);
    text.truncate(end);
    Ok(text)
}

//! What may stand where: the names and types of all settings, taken from their JSON schema.
//!
//! One walk over a layer finds every unknown key and every value of a wrong type or form, not
//! only the first as a deserializer would. Bounds of numbers are in the schema too; what only the
//! typed settings can tell is `validate`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use pawl_actors::selector::Selector;
use serde_json::Value;

use super::document::{Data, Node};
use super::key_path::KeyPath;
use super::limits;
use super::problem::{Complaint, Origin, Problem, Source, nearest, quoted_list};
use super::{ByteSize, attempts, byte_size, duration, listen, null_key, schema, secret, selector};

/// The form of one setting or table.
#[derive(Debug)]
pub(super) enum Shape {
    /// A table with these keys.
    Table(BTreeMap<String, Shape>),
    /// A table whose names are the user's own.
    Names(Box<Shape>),
    List(Box<Shape>),
    Choice(Vec<String>),
    Text,
    Whole {
        low: i128,
        high: i128,
    },
    Real {
        low: f64,
        high: f64,
    },
    /// A whole number, or "unlimited".
    Attempts {
        low: i128,
        high: i128,
    },
    Truth,
    /// A string, number or truth value, kept as text.
    Scalar,
    Duration,
    Size,
    Selector,
    Listen,
    /// Told by the environment only.
    Secret,
    /// "reject", or a table with these keys.
    NullKey(BTreeMap<String, Shape>),
}

/// The shape of all settings.
pub(super) static SETTINGS: LazyLock<Shape> = LazyLock::new(|| Shape::of(&schema::json_schema()));

impl Shape {
    /// Reads the shape out of a schema that has no references.
    fn of(schema: &Value) -> Shape {
        let title = schema["title"].as_str().unwrap_or_default();
        let within = |key: &str, otherwise: f64| schema[key].as_f64().unwrap_or(otherwise);
        if let Some(properties) = schema["properties"].as_object() {
            let keys = properties.iter().map(|(k, v)| (k.clone(), Shape::of(v))).collect();
            return if title == null_key::TITLE { Shape::NullKey(keys) } else { Shape::Table(keys) };
        }
        if schema["additionalProperties"].is_object() {
            return Shape::Names(Box::new(Shape::of(&schema["additionalProperties"])));
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let names = choices.iter().filter_map(|choice| choice["const"].as_str());
            return Shape::Choice(names.map(str::to_owned).collect());
        }
        let low = || within("minimum", f64::from(i32::MIN)) as i128;
        let high = || within("maximum", f64::from(i32::MAX)) as i128;
        match (schema["type"].as_str(), title) {
            (_, attempts::TITLE) => Shape::Attempts { low: low(), high: high() },
            (_, duration::TITLE) => Shape::Duration,
            (_, byte_size::TITLE) => Shape::Size,
            (_, selector::TITLE) => Shape::Selector,
            (_, listen::TITLE) => Shape::Listen,
            (_, secret::TITLE) => Shape::Secret,
            (Some("array"), _) => Shape::List(Box::new(Shape::of(&schema["items"]))),
            (Some("string"), _) => Shape::Text,
            (Some("boolean"), _) => Shape::Truth,
            (Some("integer"), _) => Shape::Whole { low: low(), high: high() },
            (Some("number"), _) => {
                Shape::Real { low: within("minimum", f64::MIN), high: within("maximum", f64::MAX) }
            }
            _ => Shape::Scalar,
        }
    }

    /// Checks one value, tables and lists only for being such.
    fn check(&self, data: &Data) -> Result<(), Complaint> {
        let form = |text: &str, result: Result<(), String>| {
            result.map_err(|reason| {
                Complaint::new(reason, format!("write {} instead of {text:?}", self.wanted()))
            })
        };
        match (self, data) {
            (Shape::Table(_) | Shape::Names(_), Data::Table(_)) => Ok(()),
            (Shape::NullKey(_), Data::Table(keys)) if !keys.is_empty() => Ok(()),
            (Shape::NullKey(_), Data::Text(text)) if text == null_key::REJECT => Ok(()),
            (Shape::List(_), Data::List(_)) => Ok(()),
            (Shape::Text | Shape::Secret, Data::Text(_)) | (Shape::Truth, Data::Truth(_)) => Ok(()),
            (Shape::Scalar, Data::Text(_) | Data::Whole(_) | Data::Real(_) | Data::Truth(_)) => Ok(()),
            (Shape::Choice(choices), Data::Text(text)) => choice(choices, text),
            (Shape::Whole { low, high } | Shape::Attempts { low, high }, Data::Whole(number)) => {
                limits::within(number, low, high)
            }
            (Shape::Attempts { .. }, Data::Text(text)) if text == attempts::UNLIMITED => Ok(()),
            (Shape::Real { low, high }, Data::Whole(number)) => limits::within(&(*number as f64), low, high),
            (Shape::Real { low, high }, Data::Real(number)) => limits::within(number, low, high),
            (Shape::Size, Data::Whole(bytes)) => limits::within(bytes, &0, &u64::MAX.into()),
            (Shape::Size, Data::Text(text)) => form(text, text.parse::<ByteSize>().map(drop)),
            (Shape::Duration, Data::Text(text)) => form(text, duration::parse(text).map(drop)),
            (Shape::Selector, Data::Text(text)) => form(text, text.parse::<Selector>().map(drop)),
            (Shape::Listen, Data::Text(text)) => form(text, listen::parse(text).map(drop)),
            (Shape::Duration, Data::Whole(number)) => Err(Complaint::new(
                "a duration needs a unit",
                format!("write \"{number}s\" or \"{number}ms\", whichever is meant"),
            )),
            (Shape::Scalar, Data::Table(_)) => Err(Complaint::new(
                "a property's value is a string, number or truth value, and this is a table",
                "put the name of the property in quotes, as in \"socket.keepalive.enable\" = true",
            )),
            _ => Err(Complaint::new(format!("this is {}", data.kind()), format!("write {}", self.wanted()))),
        }
    }

    /// What is wanted, for a person.
    fn wanted(&self) -> String {
        match self {
            Shape::Table(keys) => {
                format!("a table with keys of {}", quoted_list(keys.keys().map(String::as_str)))
            }
            Shape::Names(_) => "a table".into(),
            Shape::List(_) => "a list, as in [\"a\", \"b\"]".into(),
            Shape::Choice(choices) => format!("one of {}", quoted_list(choices.iter().map(String::as_str))),
            Shape::Text | Shape::Secret => "a string in quotes".into(),
            Shape::Whole { low, high } => format!("a whole number of {low} to {high}"),
            Shape::Attempts { low, high } => {
                format!("a whole number of {low} to {high}, or \"{}\"", attempts::UNLIMITED)
            }
            Shape::Real { low, high } => format!("a number of {low} to {high}"),
            Shape::Truth => "true or false".into(),
            Shape::Scalar => "a string, number or truth value".into(),
            Shape::Duration => "a duration such as \"200ms\", \"5s\" or \"7d\"".into(),
            Shape::Size => "a size such as \"64KiB\", \"10MB\" or a whole number of bytes".into(),
            Shape::Selector => "\"record\", \"header:NAME\" or \"json:/pointer\"".into(),
            Shape::NullKey(_) => format!("\"{}\" or {{ spread = 16 }}", null_key::REJECT),
            Shape::Listen => "an IP address and a port, as in \"127.0.0.1:9464\", or \"off\"".into(),
        }
    }

    /// Reads the text of a variable as a value of this shape.
    pub(super) fn read(&self, text: &str, origin: &Origin) -> Result<Data, Complaint> {
        let as_text = || Data::Text(text.to_owned());
        let data = match self {
            Shape::Table(_) | Shape::Names(_) => {
                return Err(Complaint::new(
                    "this is a table",
                    "name the key inside of it after two underscores",
                ));
            }
            Shape::List(item) => {
                let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
                let node = |data| Node { data, key_at: origin.clone(), value_at: origin.clone() };
                Data::List(texts.map(|text| item.read(text, origin).map(node)).collect::<Result<_, _>>()?)
            }
            Shape::Whole { .. } | Shape::Attempts { .. } => {
                text.trim().parse().map_or_else(|_| as_text(), Data::Whole)
            }
            Shape::Real { .. } => text.trim().parse().map_or_else(|_| as_text(), Data::Real),
            Shape::Truth => text.trim().parse().map_or_else(|_| as_text(), Data::Truth),
            _ => as_text(),
        };
        self.check(&data).map(|()| data)
    }
}

/// A secret in the settings file, which is copied, shown and kept in version control.
fn misplaced(path: &KeyPath) -> Problem {
    let variable = path.names().map(str::to_uppercase).collect::<Vec<_>>().join("__");
    let remedy = format!(
        "take it out, and set PAWL__{variable}, or PAWL__{variable}__FILE to the name of a file that holds it"
    );
    Problem::new(path, format!("{path} stands in the settings file"), remedy)
        .because("a secret does not belong in this file")
}

fn choice(choices: &[String], text: &str) -> Result<(), Complaint> {
    if choices.iter().any(|choice| choice == text) {
        return Ok(());
    }
    let names = || choices.iter().map(String::as_str);
    let reason = format!("allowed: {}", quoted_list(names()));
    Err(match nearest(text, names()) {
        Some(near) => Complaint::new(reason, format!("did you mean {near:?}?")),
        None => Complaint::new(reason, "write one of them"),
    })
}

/// Goes through a layer, reports what cannot be taken, and takes it out, so that the rest can be
/// checked further.
pub(super) fn inspect(node: &mut Node, source: &Source<'_>) -> Vec<Problem> {
    let mut walk = Walk { source, problems: Vec::new() };
    walk.keeps(&SETTINGS, node, &KeyPath::default());
    walk.problems
}

struct Walk<'a> {
    source: &'a Source<'a>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    /// Whether the node can stay; what is wrong inside of it has been taken out.
    fn keeps(&mut self, shape: &Shape, node: &mut Node, path: &KeyPath) -> bool {
        if let Shape::Secret = shape {
            self.problems.push(misplaced(path).at(&node.value_at, self.source));
            return false;
        }
        if let Err(complaint) = shape.check(&node.data) {
            let problem = Problem::with_value(path, &node.data.to_string(), complaint);
            self.problems.push(problem.at(&node.value_at, self.source));
            return false;
        }
        match (shape, &mut node.data) {
            (Shape::Table(known) | Shape::NullKey(known), Data::Table(table)) => {
                let present: BTreeSet<String> = table.keys().cloned().collect();
                table.retain(|name, child| match known.get(name) {
                    Some(shape) => self.keeps(shape, child, &path.name(name)),
                    None => {
                        self.unknown(name, child, path, known, &present);
                        false
                    }
                });
                // Without its key it would be no value at all.
                !matches!(shape, Shape::NullKey(_)) || !table.is_empty()
            }
            (Shape::Names(shape), Data::Table(table)) => {
                table.retain(|name, child| self.keeps(shape, child, &path.name(name)));
                true
            }
            (Shape::List(shape), Data::List(items)) => {
                let mut sound = true;
                for (index, item) in items.iter_mut().enumerate() {
                    sound &= self.keeps(shape, item, &path.index(index));
                }
                sound
            }
            _ => true,
        }
    }

    fn unknown(
        &mut self,
        name: &str,
        node: &Node,
        path: &KeyPath,
        known: &BTreeMap<String, Shape>,
        present: &BTreeSet<String>,
    ) {
        let whereabouts = match path.names().next() {
            Some(_) => format!("in [{path}]"),
            None => "at the top of the file".to_owned(),
        };
        let candidates = known.keys().map(String::as_str).filter(|key| !present.contains(*key));
        let near = nearest(name, candidates).or_else(|| nearest(name, known.keys().map(String::as_str)));
        let remedy = match near {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known here: {}", quoted_list(known.keys().map(String::as_str))),
        };
        let mut problem =
            Problem::new(&path.name(name), format!("unknown key \"{name}\" {whereabouts}"), remedy);
        problem.meant = near.map(|near| path.name(near));
        self.problems.push(problem.at(&node.key_at, self.source));
    }
}

//! A layer of settings as data, each value with its origin: the TOML file, or the environment.
//!
//! It knows no types; `shape` does. It exists because the `config` crate, which merges the
//! layers, keeps no line numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use config::{Map, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::key_path::KeyPath;
use super::problem::{Origin, Problem, Source};

/// A value as written.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Text(String),
    /// Wider than any setting, so that a number that is too large can be told from a wrong type.
    Whole(i128),
    Real(f64),
    Truth(bool),
    /// A date or time; no setting is one.
    Time(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

/// A value, where it is, and where its key is.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) data: Data,
    pub(super) key_at: Origin,
    pub(super) value_at: Origin,
}

/// Reads the text of the file as TOML.
///
/// # Errors
/// The first syntax error; those after it would mostly follow from it.
pub(super) fn parse(source: &Source<'_>) -> Result<Node, Vec<Problem>> {
    match DeTable::parse(source.text) {
        Ok(table) => Ok(Node { data: table_of(table.into_inner()), ..Node::table() }),
        Err(error) => {
            let remedy = "correct it: tables are written [name], keys are key = value, strings need quotes";
            let problem = Problem::new(&KeyPath::default(), "this is not TOML", remedy);
            let origin = Origin::File(error.span().unwrap_or(0..0));
            Err(vec![problem.because(error.message()).at(&origin, source)])
        }
    }
}

fn table_of(table: DeTable<'_>) -> Data {
    let node = |key_span: Range<usize>, value: toml::Spanned<DeValue<'_>>| {
        let value_at = Origin::File(value.span());
        Node { data: data_of(value.into_inner()), key_at: Origin::File(key_span), value_at }
    };
    Data::Table(
        table.into_iter().map(|(key, value)| (key.get_ref().to_string(), node(key.span(), value))).collect(),
    )
}

fn data_of(value: DeValue<'_>) -> Data {
    match value {
        DeValue::String(text) => Data::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let limit = if number.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
            Data::Whole(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(limit))
        }
        DeValue::Float(number) => Data::Real(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(truth) => Data::Truth(truth),
        DeValue::Datetime(time) => Data::Time(time.to_string()),
        DeValue::Array(items) => Data::List(
            items
                .into_iter()
                .map(|item| {
                    let at = Origin::File(item.span());
                    Node { data: data_of(item.into_inner()), key_at: at.clone(), value_at: at }
                })
                .collect(),
        ),
        DeValue::Table(table) => table_of(table),
    }
}

impl Data {
    /// What it is, for a person.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Data::Text(_) => "a string",
            Data::Whole(_) => "a whole number",
            Data::Real(_) => "a number with a fraction",
            Data::Truth(_) => "a truth value",
            Data::Time(_) => "a date or time",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::Text(text) => write!(f, "{text:?}"),
            Data::Whole(i128::MAX) | Data::Whole(i128::MIN) => f.write_str("a number beyond 128 bits"),
            Data::Whole(number) => write!(f, "{number}"),
            Data::Real(number) => write!(f, "{number}"),
            Data::Truth(truth) => write!(f, "{truth}"),
            Data::Time(time) => f.write_str(time),
            Data::List(_) => f.write_str("[…]"),
            Data::Table(_) => f.write_str("{…}"),
        }
    }
}

impl Node {
    /// A layer without settings.
    pub(super) fn table() -> Self {
        Node { data: Data::Table(BTreeMap::new()), key_at: Origin::File(0..0), value_at: Origin::File(0..0) }
    }

    /// Puts a value from a variable at a path, with the tables on the way.
    pub(super) fn insert(&mut self, path: &KeyPath, data: Data, origin: &Origin) {
        let mut node = self;
        for name in path.names() {
            if !matches!(node.data, Data::Table(_)) {
                node.data = Data::Table(BTreeMap::new());
            }
            let Data::Table(table) = &mut node.data else { unreachable!("made a table above") };
            node = table.entry(name.to_owned()).or_insert_with(|| Node {
                data: Data::Table(BTreeMap::new()),
                key_at: origin.clone(),
                value_at: origin.clone(),
            });
        }
        *node = Node { data, key_at: origin.clone(), value_at: origin.clone() };
    }

    /// Notes the origins of this value and all inside it; those of a list before are forgotten.
    pub(super) fn note_origins(&self, path: &KeyPath, origins: &mut BTreeMap<KeyPath, Origin>) {
        match &self.data {
            Data::Table(table) => {
                origins.entry(path.clone()).or_insert_with(|| self.key_at.clone());
                for (name, node) in table {
                    node.note_origins(&path.name(name), origins);
                }
            }
            Data::List(items) => {
                origins.retain(|known, _| !known.is_within(path));
                origins.insert(path.clone(), self.value_at.clone());
                for (index, node) in items.iter().enumerate() {
                    node.note_origins(&path.index(index), origins);
                }
            }
            _ => {
                origins.insert(path.clone(), self.value_at.clone());
            }
        }
    }

    /// The same value for the `config` crate, which merges the layers.
    pub(super) fn to_config(&self) -> Value {
        let kind = match &self.data {
            Data::Text(text) | Data::Time(text) => ValueKind::String(text.clone()),
            Data::Whole(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => ValueKind::I64(number),
                (_, Ok(number)) => ValueKind::U64(number),
                _ => ValueKind::I128(*number),
            },
            Data::Real(number) => ValueKind::Float(*number),
            Data::Truth(truth) => ValueKind::Boolean(*truth),
            Data::List(items) => ValueKind::Array(items.iter().map(Node::to_config).collect()),
            Data::Table(table) => ValueKind::Table(
                table.iter().map(|(name, node)| (name.clone(), node.to_config())).collect::<Map<_, _>>(),
            ),
        };
        Value::new(None, kind)
    }
}

//! The settings: one TOML file, environment variables over it, and what is wrong with either.
//!
//! The way of a file: `document` parses it and keeps the places, `shape` finds unknown keys and wrong
//! types, `environment` reads the variables, the `config` crate merges both and fills the
//! typed settings, `validate` checks what types cannot say, `problem` tells a person. Deliberately
//! absent: anything that asks a broker or opens the store.

mod admin;
mod attempts;
mod byte_size;
mod document;
mod duration;
mod environment;
mod handler;
mod kafka;
mod key_path;
mod limits;
mod listen;
mod null_key;
mod problem;
mod process;
mod retry;
mod schema;
mod secret;
mod security;
mod selector;
mod shape;
mod status;
mod telemetry;
#[cfg(test)]
mod tests;
mod token;
mod validate;
mod waiting;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Map, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use admin::{Admin, AdminTls};
pub use byte_size::ByteSize;
pub use handler::{
    Assignor, DeadLetter, Forward, GroupProtocol, Guarantee, HandlerSettings, Http, Intake, Membership,
    Program, Start, Then,
};
pub use kafka::Kafka;
pub use problem::{Place, Problem, SettingsError};
pub use process::{Engine, Log, LogFormat, LogKeys, Shutdown, Store};
pub use retry::{Retry, RetryClass, RetryOn};
pub use schema::json_schema;
pub use secret::Secret;
pub(crate) use secret::{names_a_user, shown_url};
pub use security::{MskIam, Oauth, Sasl, ScramMechanism, Security, Tls};
pub(crate) use status::class_of_status;
pub use telemetry::{Emf, Otlp, Telemetry};
pub use token::Token;
pub use waiting::{Breaker, Careful, Gap, GapThen, Overflow, Parking, Replay, Supervision};

use crate::bounded_file;
use document::{Data, Node};
use environment::Override;
use key_path::KeyPath;
use problem::{Origin, Source};

/// The largest settings file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Everything that one process of Pawl is told. Only the brokers and one handler must be given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["handler"]))]
pub struct Settings {
    /// The name of this instance, the same after every restart and unlike that of every other instance:
    /// transactional ids are made of it, so that a restarted instance ends what it left open.
    /// 1 to 100 characters of a-z, A-Z, 0-9, '.', '_' and '-'. Default: the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The connection to the Kafka cluster.
    pub kafka: Kafka,
    /// The handlers by name, at least one. The name is the default of the group, and environment
    /// variables find the handler by it: 1 to 100 characters of a-z, A-Z, 0-9, '.', '_' and '-',
    /// no two underscores together.
    #[schemars(extend("minProperties" = 1))]
    pub handler: BTreeMap<String, HandlerSettings>,
    /// The local view of the ledgers.
    pub store: Store,
    /// The process's own HTTP endpoint.
    pub admin: Admin,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// What the process logs.
    pub log: Log,
    /// What the process tells of itself to others: traces and metrics.
    pub telemetry: Telemetry,
}

impl Settings {
    /// Reads a file and the environment of the process.
    ///
    /// # Errors
    /// Lists all that is wrong with the file and the variables, for a person.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        match read(path) {
            Ok(text) => Self::parse(path, &text, std::env::vars_os()),
            Err(error) => {
                let subject = format!("cannot read {}", path.display());
                let remedy = match error.kind() {
                    io::ErrorKind::NotFound => "name the settings file with --config",
                    _ => "the settings are one TOML file in UTF-8 that this process may read",
                };
                let problem = Problem::new(&KeyPath::default(), subject, remedy).because(error.to_string());
                Err(SettingsError { file: Some(path.to_owned()), problems: vec![problem] })
            }
        }
    }

    /// Reads the text that an environment variable holds, in the place of a file, and the environment of
    /// the process: where a platform hands out variables and mounts no files.
    ///
    /// # Errors
    /// Lists all that is wrong with the text and the variables, for a person; places in the text are told
    /// by the variable's name after a dollar sign, and line and column.
    pub fn load_variable(name: &str) -> Result<Self, SettingsError> {
        Self::parse_variable(name, std::env::var_os(name), std::env::vars_os())
    }

    /// As `load_variable`, with the value and the other variables given.
    fn parse_variable<I, K, V>(
        name: &str,
        value: Option<OsString>,
        variables: I,
    ) -> Result<Self, SettingsError>
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let place = PathBuf::from(format!("${name}"));
        let refused = |reason: &str, remedy: &str| {
            let subject = format!("cannot read settings from the variable {name}");
            let problem = Problem::new(&KeyPath::default(), subject, remedy).because(reason);
            SettingsError { file: Some(place.clone()), problems: vec![problem] }
        };
        let whole = "let it hold the whole text of a settings file, or name a file with --config";
        let value = value.ok_or_else(|| refused("it is not set", whole))?;
        let text = value.into_string().map_err(|_| refused("it is not in UTF-8", whole))?;
        if text.trim().is_empty() {
            return Err(refused("it is empty", whole));
        }
        Self::parse(&place, &text, variables)
    }

    /// Reads the text of a file, whose name is only used to tell places, and environment variables.
    /// Besides these it reads only files that variables ending in `__FILE` name.
    ///
    /// # Errors
    /// Lists all that is wrong with the text and the variables, for a person.
    pub fn parse<I, K, V>(path: &Path, text: &str, variables: I) -> Result<Self, SettingsError>
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let source = Source { path, text };
        merged(&source, variables).map_err(|mut problems| {
            problems.sort_by(|a, b| (a.place.is_none(), &a.place).cmp(&(b.place.is_none(), &b.place)));
            SettingsError { file: Some(path.to_owned()), problems }
        })
    }

    /// Checks settings that a program has put together itself; `load` and `parse` have done it.
    ///
    /// # Errors
    /// Lists all that is wrong, without places.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let mut problems = validate::values(self);
        if problems.is_empty() {
            problems = validate::relations(self);
        }
        if problems.is_empty() { Ok(()) } else { Err(SettingsError { file: None, problems }) }
    }

    /// The name of this instance: as set, else the host name that the operating system tells.
    ///
    /// # Errors
    /// There is no host name, or it cannot be part of a transactional id.
    pub fn instance(&self) -> Result<String, SettingsError> {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let instance = self.instance.clone().unwrap_or_else(host);
        match validate::instance(&instance) {
            None => Ok(instance),
            Some(problem) => Err(SettingsError { file: None, problems: vec![problem] }),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = bounded_file::read(path, MAX_FILE_BYTES)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

fn merged<I, K, V>(source: &Source<'_>, variables: I) -> Result<Settings, Vec<Problem>>
where
    I: IntoIterator<Item = (K, V)>,
    K: Into<OsString>,
    V: Into<OsString>,
{
    let mut file = document::parse(source)?;
    let mut problems = shape::inspect(&mut file, source);
    let (overrides, wrong) = environment::read(variables, &file, source);
    problems.extend(wrong);

    let mut environment = Node::table();
    for Override { key, data, origin } in overrides {
        environment.insert(&key, data, &origin);
    }
    let mut origins = BTreeMap::new();
    file.note_origins(&KeyPath::default(), &mut origins);
    environment.note_origins(&KeyPath::default(), &mut origins);

    let settings = match filled(&file, &environment) {
        Ok(settings) => settings,
        Err(error) => {
            // `shape` lets nothing through that the types refuse, so this names a defect of Pawl.
            let remedy = "please report this with the settings that led to it";
            problems.push(Problem::new(&KeyPath::default(), error.to_string(), remedy));
            return Err(problems);
        }
    };
    let mut found = validate::values(&settings);
    if problems.is_empty() && found.is_empty() {
        found = validate::relations(&settings);
    }
    found.retain(|one| !problems.iter().any(|known| known.covers(one)));
    problems.extend(found.into_iter().map(|problem| placed(problem, &origins, source)));
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// The typed settings from both layers, the environment over the file.
fn filled(file: &Node, environment: &Node) -> Result<Settings, ConfigError> {
    let layers = Config::builder().add_source(file.clone()).add_source(environment.clone());
    layers.build()?.try_deserialize()
}

/// Gives a problem the place of its key, or of the nearest table around it.
fn placed(problem: Problem, origins: &BTreeMap<KeyPath, Origin>, source: &Source<'_>) -> Problem {
    let mut key = Some(problem.key.clone());
    while let Some(path) = key.filter(|path| path.names().next().is_some()) {
        if let Some(origin) = origins.get(&path) {
            return problem.at(origin, source);
        }
        key = path.parent();
    }
    problem
}

impl config::Source for Node {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        match &self.data {
            Data::Table(table) => {
                Ok(table.iter().map(|(name, node)| (name.clone(), node.to_config())).collect())
            }
            _ => Ok(Map::new()),
        }
    }
}

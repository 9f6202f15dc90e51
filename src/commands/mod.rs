//! The commands of the command line, one file each, and what they share: how they fail and how
//! they print.

pub(crate) mod asking;
pub mod audit;
pub mod check;
pub mod demo;
pub mod dlt;
mod endpoint;
pub mod health;
pub mod iam_policy;
pub mod keys;
mod progress;
pub mod publish;
pub mod rewind;
pub mod run;
mod sending;
pub mod top;
pub mod topics;

use std::io::{self, Write};

use pawl_actors::record::KeyDisplay;
use serde::Serialize;

use crate::cli::{Command, Connection, Dlt, Keys, SettingsFile, Topics};
use crate::exit::Exit;
use crate::kafka::admin::AdminError;
use crate::kafka::topic_reader::ReadError;
use crate::settings::{HandlerSettings, Kafka, Settings, SettingsError};

/// Why a command could not do what it was told, with the exit code that says so. `Display` is for
/// the person at the terminal: what, where, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the process ends with.
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// A failure that has no type of its own.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Failure {
        let exit = match error {
            AdminError::Unreachable { .. }
            | AdminError::Unanswered { .. }
            | AdminError::NoCoordinator { .. }
            | AdminError::NoToken(_) => Exit::Unreachable,
            AdminError::Properties(_) | AdminError::NoSecret(_) => Exit::Usage,
            AdminError::Refused { .. }
            | AdminError::Forbidden { .. }
            | AdminError::NotCreated { .. }
            | AdminError::NotVisible { .. }
            | AdminError::Failed { .. } => Exit::Stopped,
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        let exit = match error {
            ReadError::TimedOut { .. } => Exit::Unreachable,
            ReadError::Failed { .. } => Exit::Stopped,
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Failure {
        Failure::new(Exit::Usage, error.to_string())
    }
}

impl From<io::Error> for Failure {
    /// Output that cannot be written.
    fn from(error: io::Error) -> Failure {
        Failure::new(Exit::Stopped, format!("cannot write the output: {error}"))
    }
}

/// Carries a command out.
///
/// # Errors
/// Whatever kept it from being carried out; not yet printed.
pub fn execute(command: &Command) -> Result<Exit, Failure> {
    if !matches!(command, Command::Run(_)) {
        log_to_stderr();
    }
    match command {
        Command::Run(args) => run::execute(args),
        Command::Audit(args) => audit::execute(args),
        Command::Check(args) => check::execute(args),
        Command::Demo(args) => demo::execute(args),
        Command::IamPolicy(args) => iam_policy::execute(args),
        Command::Publish(args) => publish::execute(args),
        Command::Dlt(Dlt::List(args)) => dlt::list(args),
        Command::Dlt(Dlt::Show(args)) => dlt::show(args),
        Command::Dlt(Dlt::Replay(args)) => dlt::back::replay(args),
        Command::Dlt(Dlt::StopReplay(args)) => dlt::back::stop_replay(args),
        Command::Dlt(Dlt::Discard(args)) => dlt::back::discard(args),
        Command::Dlt(Dlt::Export(args)) => dlt::export::execute(args),
        Command::Dlt(Dlt::Import(args)) => dlt::import::execute(args),
        Command::Keys(Keys::List(args)) => keys::list(args),
        Command::Keys(Keys::Show(args)) => keys::show(args),
        Command::Keys(Keys::Pause(args)) => keys::asked::pause(args),
        Command::Keys(Keys::Resume(args)) => keys::asked::resume(args),
        Command::Keys(Keys::Skip(args)) => keys::asked::skip(args),
        Command::Keys(Keys::SkipGap(args)) => keys::asked::skip_gap(args),
        Command::Keys(Keys::Release(args)) => keys::asked::release(args),
        Command::Keys(Keys::Erase(args)) => keys::asked::erase(args),
        Command::Rewind(args) => rewind::execute(args),
        Command::Top(args) => top::execute(args),
        Command::Health(args) => health::execute(args),
        Command::Topics(Topics::Create(args)) => topics::execute(args),
    }
}

/// For commands that end by themselves: their own output says what matters, so the log holds only
/// errors, unless `RUST_LOG` asks for more.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::ERROR.into())
        .from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

fn settings(file: &SettingsFile) -> Result<Settings, Failure> {
    Ok(file.load()?)
}

/// The handler that is meant: the one that is named, else the only one.
fn handler<'a>(
    settings: &'a Settings,
    name: Option<&'a String>,
) -> Result<(&'a str, &'a HandlerSettings), Failure> {
    let known: Vec<&str> = settings.handler.keys().map(String::as_str).collect();
    let refused = |message: String| Failure::new(Exit::Usage, message);
    match (name, &known[..]) {
        (Some(name), _) => {
            settings.handler.get(name).map(|handler| (name.as_str(), handler)).ok_or_else(|| {
                refused(format!("the settings have no handler {name:?}; they have {}", known.join(", ")))
            })
        }
        (None, [only]) => Ok((only, &settings.handler[*only])),
        (None, _) => Err(refused(format!(
            "the settings have several handlers: name one with --handler ({})",
            known.join(", ")
        ))),
    }
}

/// How to reach the cluster: by the brokers that were named, else by the settings.
fn connection(connection: &Connection) -> Result<Kafka, Failure> {
    match connection.source() {
        Ok(servers) => Ok(Kafka { bootstrap_servers: servers.to_vec(), ..Kafka::default() }),
        Err(file) => Ok(settings(file)?.kafka),
    }
}

/// What leaves the process about itself, and how keys are told in it: as the settings say, if there are any; the
/// environment may say it too.
fn telemetry(connection: &Connection) -> Result<crate::settings::Telemetry, Failure> {
    match connection.source() {
        Ok(_) => Ok(crate::settings::Telemetry::default()),
        Err(file) => {
            let settings = settings(file)?;
            KeyDisplay::from(settings.log.keys).set();
            Ok(settings.telemetry)
        }
    }
}

/// One JSON value and a line break on standard output.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec(value).map_err(io::Error::from)?;
    text.push(b'\n');
    print(&text)
}

/// Text on standard output. A reader that went away (`| head`) is not an error of the command.
fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(text).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

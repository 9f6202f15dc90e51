//! `pawl run`: processes records until a signal says stop.

mod place_first;

use std::io::{self, IsTerminal};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::place_first::PlaceFirst;
use super::{Failure, settings};
use crate::admin::OpenError;
use crate::admin::audit_file::{self, AUDIT};
use crate::cli::Run;
use crate::commands::topics::TopicsError;
use crate::exit::Exit;
use crate::handlers::Registry;
use crate::runtime::{self, RunError};
use crate::settings::{LogFormat, Settings};

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        match error {
            RunError::Settings(error) => error.into(),
            RunError::Topics(error @ TopicsError::Admin(_)) => error.into(),
            error @ (RunError::Handler(_)
            | RunError::Telemetry(_)
            | RunError::Endpoint(OpenError::Credentials(_))) => Failure::new(Exit::Usage, error.to_string()),
            error @ (RunError::Topics(_)
            | RunError::Start(_)
            | RunError::Endpoint(OpenError::Address { .. })
            | RunError::Halted(_)
            | RunError::Undrained { .. }) => Failure::new(Exit::Stopped, error.to_string()),
        }
    }
}

/// Runs.
///
/// # Errors
/// Whatever kept the process from running on.
pub fn execute(args: &Run) -> Result<Exit, Failure> {
    let settings = settings(&args.settings)?;
    log(&settings)?;
    let started = |running: runtime::Running| {
        let names: Vec<&str> = running.handlers.iter().map(|handler| &*handler.name).collect();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), handlers = ?names, "started");
    };
    runtime::run(&settings, &Registry::default(), started, first_signal())?;
    Ok(Exit::Done)
}

/// Ends with the first Ctrl-C or SIGTERM. A second one ends the process.
async fn first_signal() {
    next_signal().await;
    actix::spawn(async {
        next_signal().await;
        tracing::warn!("second signal: ending at once");
        std::process::exit(i32::from(Exit::Interrupted as u8));
    });
}

async fn next_signal() {
    let listen = |kind| signal(kind).expect("the handlers of these signals can always be set");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Logs to standard error, as the settings say; `RUST_LOG` overrides the filter. The audit log is shown unless the
/// filter speaks of it, and always if it has a file.
fn log(settings: &Settings) -> Result<(), Failure> {
    let audit =
        audit_file::layer(&settings.admin).map_err(|error| Failure::new(Exit::Stopped, error.to_string()))?;
    let log = &settings.log;
    let filter =
        std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| EnvFilter::try_new(filter).is_ok());
    let filter = filter.unwrap_or_else(|| log.filter.clone());
    let mut shown = EnvFilter::new(&filter);
    if audit.is_some() || !filter.contains(AUDIT) {
        shown = shown.add_directive(format!("{AUDIT}=info").parse().expect("a directive"));
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.fmt_fields(PlaceFirst).with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // One filter for all: see `audit_file::AuditOnly`.
    tracing_subscriber::registry().with(shown).with(lines).with(audit).init();
    Ok(())
}

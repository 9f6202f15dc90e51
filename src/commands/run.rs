//! `pawl run`: processes records until a signal says stop.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Failure, settings};
use crate::cli::Run;
use crate::commands::topics::TopicsError;
use crate::exit::Exit;
use crate::handlers::Registry;
use crate::runtime::{self, RunError};
use crate::settings::{Log, LogFormat};

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        match error {
            RunError::Settings(error) => error.into(),
            RunError::Topics(error @ TopicsError::Admin(_)) => error.into(),
            error @ (RunError::Handler(_) | RunError::Telemetry(_)) => {
                Failure::new(Exit::Usage, error.to_string())
            }
            error @ (RunError::Topics(_)
            | RunError::Start(_)
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
    log(&settings.log);
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

/// Logs to standard error, as the settings say; `RUST_LOG` overrides the filter.
fn log(log: &Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&log.filter));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

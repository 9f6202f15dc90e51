//! Wiring: builds each handler's parts, hands each its neighbours, serves the process's endpoint,
//! and owns shutdown.

mod clients;
mod pipeline;
mod topics;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use self::pipeline::TRANSACTION_SWEEP;
pub use self::topics::max_row_bytes;

use self::pipeline::{Blueprint, OnHalt, Pipeline};
use self::topics::TopicFacts;
use crate::admin;
use crate::commands::topics::TopicsError;
use crate::handlers::{BuildError, Registry};
use crate::kafka::admin::AdminError;
use crate::observed::HandlerView;
use crate::settings::{Settings, SettingsError};

/// Why a run ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A handler cannot be built from its settings.
    #[error(transparent)]
    Handler(#[from] BuildError),
    /// The topics of a handler are not as they must be.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// Something else was refused at the start.
    #[error("{0:#}")]
    Start(#[from] anyhow::Error),
    /// A handler cannot go on.
    #[error("{0}")]
    Halted(String),
    /// The drain was not over in time.
    #[error(
        "the drain was not over after {deadline:?} (shutdown.deadline); what was not committed is delivered again \
         after the next start"
    )]
    Undrained {
        /// How long was waited.
        deadline: Duration,
    },
}

/// What a running process shows of itself.
pub struct Running {
    /// One for each handler.
    pub handlers: Vec<HandlerView>,
}

/// Runs all handlers until `stop` is over, then drains. Blocks the thread it is called on, which
/// becomes the process's actix system. `started` is called when every handler has been started.
///
/// # Errors
/// See [`RunError`].
pub fn run(
    settings: &Settings,
    registry: &Registry,
    started: impl FnOnce(Running),
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    actix::System::new().block_on(run_here(settings, registry, started, stop))
}

async fn run_here(
    settings: &Settings,
    registry: &Registry,
    started: impl FnOnce(Running),
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    settings.validate()?;
    let instance = settings.instance()?;
    let listener = match settings.admin.listen {
        Some(listen) => Some(admin::bind(listen).await.map_err(anyhow::Error::from)?),
        None => None,
    };
    let (tell_halt, mut halted) = unbounded_channel();
    let handlers: Vec<HandlerView> =
        settings.handler.iter().map(|(name, handler)| HandlerView::new(name, handler)).collect();
    // Before the brokers are reached: a process that waits for them is alive, and not ready.
    if let Some(listener) = listener {
        let stalled_after = settings.admin.stalled_after;
        actix::spawn(admin::serve(listener, handlers.clone(), stalled_after, std::future::pending()));
    }
    tokio::pin!(stop);
    let pipelines = tokio::select! {
        pipelines = start_all(settings, registry, &instance, &handlers, &tell_halt) => pipelines?,
        () = &mut stop => return Ok(()),
    };
    started(Running { handlers });
    let ended = tokio::select! {
        () = &mut stop => Ok(()),
        reason = next_halt(&mut halted) => Err(RunError::Halted(reason)),
    };
    let drained = stop_all(pipelines, settings.shutdown.deadline).await;
    ended.and(drained)
}

async fn next_halt(halted: &mut UnboundedReceiver<String>) -> String {
    halted.recv().await.unwrap_or_else(|| "every handler has ended".into())
}

async fn start_all(
    settings: &Settings,
    registry: &Registry,
    instance: &str,
    views: &[HandlerView],
    tell_halt: &UnboundedSender<String>,
) -> Result<Vec<Pipeline>, RunError> {
    // What can be refused comes before the first handler runs.
    let mut blueprints = Vec::new();
    for ((name, handler_settings), view) in settings.handler.iter().zip(views) {
        let handler = registry.build(name, handler_settings)?;
        let facts = topic_facts(settings, name).await?;
        let tell = tell_halt.clone();
        let on_halt: OnHalt = Arc::new(move |reason: String| {
            tracing::error!("{reason}");
            // Gone only after the first reason was heard.
            let _ = tell.send(reason);
        });
        let view = view.clone();
        let blueprint =
            Blueprint { settings, name, handler_settings, handler, facts, instance, view, on_halt };
        blueprints.push(blueprint);
    }
    let mut pipelines = Vec::new();
    for blueprint in blueprints {
        pipelines.push(Pipeline::start(blueprint).await?);
    }
    Ok(pipelines)
}

/// A broker that is away at the start is waited for: in a deployment everything starts at once.
async fn topic_facts(settings: &Settings, name: &str) -> Result<TopicFacts, RunError> {
    loop {
        let (kafka, handler, owned) =
            (settings.kafka.clone(), settings.handler[name].clone(), name.to_owned());
        let gathered =
            tokio::task::spawn_blocking(move || TopicFacts::gather(&kafka, &owned, &handler)).await;
        match gathered.map_err(anyhow::Error::from)? {
            Ok(facts) => return Ok(facts),
            Err(TopicsError::Admin(
                error @ (AdminError::Unreachable { .. } | AdminError::NotVisible { .. }),
            )) => {
                tracing::warn!(handler = name, "{error}; trying again");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn stop_all(pipelines: Vec<Pipeline>, deadline: Duration) -> Result<(), RunError> {
    tracing::info!(?deadline, "draining");
    let stopping = pipelines.into_iter().map(|pipeline| {
        // Threads of their own: a runtime that ends waits for its blocking tasks without a deadline.
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            pipeline.stop();
            // Nobody listens any more once the deadline is over.
            let _ = tell.send(());
        });
        told
    });
    let all = futures_util::future::join_all(stopping);
    match tokio::time::timeout(deadline, all).await {
        Ok(_) => {
            tracing::info!("drained, committed and left the group");
            Ok(())
        }
        Err(_) => Err(RunError::Undrained { deadline }),
    }
}

//! Wiring: builds each handler's parts, hands each its neighbours, serves the process's endpoint,
//! and owns shutdown.

mod clients;
mod clock_watch;
mod handlers;
mod pipeline;
mod policy;
mod reconnecting;
mod topics;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pawl_actors::record::KeyDisplay;
use tokio::sync::mpsc::unbounded_channel;

pub use self::pipeline::TRANSACTION_SWEEP;
pub use self::topics::max_row_bytes;

use self::handlers::Handlers;
use self::reconnecting::Reconnecting;
use crate::admin;
use crate::commands::topics::TopicsError;
use crate::handlers::{BuildError, Registry};
use crate::kafka::access::Access;
use crate::metrics::Metrics;
use crate::observed::HandlerView;
use crate::settings::{Settings, SettingsError};
use crate::telemetry::{Emf, MetricsText, Shown, Telemetry, TelemetryError, TelemetryStats};

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
    /// The process's endpoint cannot be opened.
    #[error(transparent)]
    Endpoint(#[from] admin::OpenError),
    /// Telemetry cannot be sent as the settings say.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
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
    KeyDisplay::from(settings.log.keys).set();
    settings.admin.check_exposure()?;
    let endpoint = match settings.admin.listen {
        Some(listen) => Some(admin::open(listen, &settings.admin).await?),
        None => None,
    };
    let (tell_halt, mut halted) = unbounded_channel();
    let views: Vec<HandlerView> =
        settings.handler.iter().map(|(name, handler)| HandlerView::new(name, handler)).collect();
    let stats = Arc::new(TelemetryStats::default());
    let stalled_after = settings.admin.stalled_after;
    let mut metrics = Metrics::new(views.clone(), stalled_after).with(Shown(stats.clone()));
    if let Some(endpoint) = &endpoint {
        endpoint.register(&mut metrics);
    }
    let metrics = Arc::new(metrics);
    let text = metrics.clone();
    let text: MetricsText = Arc::new(move || text.text().ok());
    let telemetry = Telemetry::start(&settings.telemetry, &instance, &stats, Some(text))?;
    if let Some(emf) = Emf::new(&settings.telemetry.emf, views.clone()) {
        emf.start().map_err(anyhow::Error::from)?;
    }
    // Before the brokers are reached: a process that waits for them is alive, and not ready.
    if let Some(endpoint) = endpoint {
        let settings = Arc::new(settings.clone());
        actix::spawn(admin::serve(endpoint, settings, views.clone(), metrics, std::future::pending()));
    }
    actix::spawn(clock_watch::watch());
    // Held from the start: without a holder each question would begin to fetch a token of its own.
    let mut reconnecting = Reconnecting::new(Access::of(&settings.kafka), settings.handler.len());
    tokio::pin!(stop);
    let mut handlers = tokio::select! {
        handlers = Handlers::start(settings, registry, &instance, &views, telemetry.tracing.as_ref(), tell_halt) => handlers?,
        () = &mut stop => return Ok(()),
    };
    started(Running { handlers: views });
    let ended = loop {
        let drained = tokio::select! {
            biased;
            () = &mut stop => break Ok(()),
            drained = handlers.next(&mut halted, &mut reconnecting) => drained,
        };
        let begun = match drained {
            Ok(handler) => handlers.begin_anew(handler).await,
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            break Err(error);
        }
    };
    drop(reconnecting);
    let drained = handlers.stop().await;
    telemetry.stop(settings.telemetry.otlp.timeout);
    ended.and(drained)
}

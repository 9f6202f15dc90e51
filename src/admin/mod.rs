//! The process's own HTTP endpoint: `/live`, `/ready`, `/metrics`, `/supervision`, the handlers' keys, and commands
//! for them.
//!
//! A request passes `connection` (bounds, TLS), `gate` (who asks, how often; rules in `access`), and then what its
//! path names. One request for each connection, so that one time-out bounds all that a client can hold, and nothing
//! that follows a request can be taken for another one. Deliberately absent: sessions, cookies, CORS, and anything
//! that a browser could be made to do.

mod access;
pub mod audit_file;
mod commands;
mod connection;
mod credentials;
mod denials;
mod gate;
pub mod keys;
mod rates;
mod readiness;
pub mod supervision;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use pawl_actors::clock;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::access::Visitor;
use self::connection::{Connections, Times};
use self::credentials::Watched;
use self::denials::Denials;
use self::rates::Rates;
use crate::kafka::access as kafka_access;
use crate::metrics::{self, Metrics};
use crate::observed::HandlerView;
use crate::settings::{Admin, Settings};

pub use credentials::{Credentials, CredentialsError};
pub use readiness::{HandlerReadiness, PartitionReadiness, Readiness, judge, judge_handlers};

/// From accepting a connection to its last byte, half of it until the request's head is there; probes and scrapes give
/// up earlier. Commands are granted more.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

struct Process {
    handlers: Vec<HandlerView>,
    metrics: Arc<Metrics>,
    settings: Arc<Settings>,
    credentials: watch::Receiver<Arc<Credentials>>,
    rates: Rates,
    denials: Denials,
    /// Commands that are under way.
    commands: Arc<Semaphore>,
    /// Only this machine can reach the endpoint.
    is_local: bool,
}

/// The endpoint before it answers: its socket, and what it knows people by.
pub struct Opened {
    listener: TcpListener,
    credentials: Watched,
    denials: Denials,
}

impl Opened {
    /// Adds what the endpoint itself counts.
    pub fn register(&self, metrics: &mut Metrics) {
        let help = "Requests to the admin endpoint that were denied";
        metrics.register("pawl_admin_denied", help, self.denials.counts.clone());
    }
}

/// Why the endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is wrong or taken.
    #[error(
        "cannot listen on {listen} for /live, /ready and /metrics: {error}; name another address in admin.listen, or turn the endpoint off with \"off\""
    )]
    Address {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Tokens or certificates.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Opens the endpoint's socket and reads its credentials, apart from [`serve`], so that what is wrong ends the
/// start with a message.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(listen: SocketAddr, settings: &Admin) -> Result<Opened, OpenError> {
    let credentials = Watched::read(settings)?;
    let bound = TcpListener::bind(listen).await;
    let listener = bound.map_err(|error| OpenError::Address { listen, error })?;
    if settings.is_exposed() && settings.has_tokens() && settings.tls.is_none() {
        tracing::warn!("{}", PLAIN_TOKENS);
    }
    Ok(Opened { listener, credentials, denials: Denials::default() })
}

/// What should be known of tokens without TLS.
pub const PLAIN_TOKENS: &str = "admin.listen is reachable from other machines without TLS, so whoever reads that network reads \
     the tokens; set up [admin.tls], or keep the network to those who may read it";

/// Answers requests until `shutdown` is over.
pub async fn serve(
    opened: Opened,
    settings: Arc<Settings>,
    handlers: Vec<HandlerView>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) {
    serve_within(REQUEST_TIMEOUT, opened, settings, handlers, metrics, shutdown).await;
}

async fn serve_within(
    request_timeout: Duration,
    opened: Opened,
    settings: Arc<Settings>,
    handlers: Vec<HandlerView>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) {
    let Opened { listener, credentials: watched, denials } = opened;
    let credentials = watched.subscribe();
    let admin = &settings.admin;
    let process = Arc::new(Process {
        handlers,
        metrics,
        rates: Rates::new(admin.requests_per_second, admin.burst),
        settings,
        credentials: credentials.clone(),
        denials,
        commands: Arc::new(Semaphore::new(commands::MAX_AT_ONCE)),
        is_local: listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback()),
    });
    tokio::spawn(watched.follow());
    let (routes, connections) = (routes(process), Connections::of(listener));
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            (stream, address, place) = connections.next() => {
                let acceptor = credentials.borrow().acceptor.clone();
                let times = Times { head: request_timeout / 2, request: request_timeout };
                tokio::spawn(connection::answer(stream, address, acceptor, routes.clone(), times, place));
            }
        }
    }
}

fn routes(process: Arc<Process>) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(show_metrics))
        .route("/supervision", get(supervision::show))
        .route("/handlers/{name}/keys", get(keys::list))
        // The empty key; a capture takes at least one character.
        .route("/handlers/{name}/keys/", get(keys::show))
        .route("/handlers/{name}/keys/{key}", get(keys::show))
        .route("/handlers/{name}/unkeyed", get(keys::show_unkeyed))
        .route("/handlers/{name}/unkeyed/{lane}", get(keys::show_spread))
        .route("/handlers/{name}/commands", post(commands::ask))
        .layer(middleware::from_fn_with_state(process.clone(), gate::gate))
        .with_state(process)
}

async fn live() -> &'static str {
    "live\n"
}

/// What probes are told, which have no token.
#[derive(Serialize)]
struct ReadyOrNot {
    ready: bool,
}

async fn ready(State(process): State<Arc<Process>>, visitor: Option<Extension<Visitor>>) -> Response {
    let readiness = judge(
        &process.handlers,
        kafka_access::statuses(),
        clock::now(),
        process.settings.admin.stalled_after,
    );
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match visitor {
        Some(_) => (status, Json(readiness)).into_response(),
        None => (status, Json(ReadyOrNot { ready: readiness.ready })).into_response(),
    }
}

/// In OpenMetrics for whoever asks for it, as Prometheus does; else in the older format, which everything reads.
async fn show_metrics(State(process): State<Arc<Process>>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepted.into_iter().any(|value| value.contains("application/openmetrics-text"));
    let (text, content_type) = if open {
        (process.metrics.text(), metrics::CONTENT_TYPE)
    } else {
        (process.metrics.classic_text(), metrics::CLASSIC_CONTENT_TYPE)
    };
    match text {
        Ok(text) => ([(CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

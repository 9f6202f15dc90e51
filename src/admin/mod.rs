//! The process's own HTTP endpoint: `/live`, `/ready`, `/metrics`, `/supervision` and the handlers' keys.
//!
//! Deliberately absent: anything that changes something, and TLS; it is for the machine that
//! runs the process and belongs to no public network. One request for each connection, so that
//! one time-out bounds all that a client can hold.

pub mod keys;
mod readiness;
pub mod supervision;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pawl_actors::record::Millis;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::metrics::{self, Metrics};
use crate::observed::HandlerView;

pub use readiness::{HandlerReadiness, PartitionReadiness, Readiness, judge};

/// From accepting a connection to its last byte; probes and scrapes give up earlier.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// The most connections at once; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 64;

/// How long to wait after a connection could not be accepted, which happens when the process has
/// no file descriptor left: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Process {
    handlers: Vec<HandlerView>,
    metrics: Arc<Metrics>,
    stalled_after: Duration,
    /// Only this machine can reach the endpoint.
    is_local: bool,
}

/// Opens the endpoint's socket, apart from [`serve`], so that a wrong or taken address ends the
/// start with a message that names it.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        let text = format!(
            "cannot listen on {listen} for /live, /ready and /metrics: {error}; name another \
             address in admin.listen, or turn the endpoint off with \"off\""
        );
        io::Error::new(error.kind(), text)
    })
}

/// Answers requests until `shutdown` is over. A partition with lag is not ready any more when it
/// got no further for `stalled_after`.
pub async fn serve(
    listener: TcpListener,
    handlers: Vec<HandlerView>,
    metrics: Arc<Metrics>,
    stalled_after: Duration,
    shutdown: impl Future<Output = ()>,
) {
    serve_within(REQUEST_TIMEOUT, listener, handlers, metrics, stalled_after, shutdown).await;
}

async fn serve_within(
    request_timeout: Duration,
    listener: TcpListener,
    handlers: Vec<HandlerView>,
    metrics: Arc<Metrics>,
    stalled_after: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let routes = routes(Arc::new(Process { handlers, metrics, stalled_after, is_local }));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            (stream, permit) = accept(&listener, &connections) => {
                tokio::spawn(answer(stream, routes.clone(), permit, request_timeout));
            }
        }
    }
}

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the admin endpoint");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, routes: Router, permit: OwnedSemaphorePermit, request_timeout: Duration) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match timeout(request_timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request to the admin endpoint failed"),
        Err(_) => tracing::debug!("a request to the admin endpoint took too long"),
    }
    drop(permit);
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
        .with_state(process)
}

async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(process): State<Arc<Process>>) -> Response {
    let readiness = judge(&process.handlers, now(), process.stalled_after);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
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

fn now() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

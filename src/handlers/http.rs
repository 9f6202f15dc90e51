//! The `http` handler: one POST for each attempt, over kept connections.
//!
//! Deliberately absent: redirects (a POST that moves is a mistake in the settings), retries (they
//! are the supervisor's) and a limit of calls in flight (the partition actors hold it).

mod answer;
mod request;
#[cfg(test)]
pub(super) mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use pawl_actors::effects::Effects;
use pawl_actors::handler::{Answer, Call, Handler};
use pawl_actors::outcome::{Failure, Outcome, code};
use tokio::time::{Instant, timeout_at};

use crate::connections::{Connections, Schemes, causes};
use crate::telemetry::CallSpan;

/// How long an unused connection is kept. Services and load balancers commonly close theirs
/// after 60 s or more; one that was closed meanwhile is noticed and replaced.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// The most bytes of an answer's head; more is a broken service, not an answer.
const MAX_ANSWER_HEAD_BYTES: usize = 64 << 10;

/// Hands records to a service by HTTP.
pub struct HttpHandler {
    service: Arc<Service>,
}

/// Why the settings of an `http` handler cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpHandlerError {
    /// The url is none, or not one that a record can be posted to.
    #[error("url \"{url}\" cannot be used: {reason}; write it like \"http://billing:8080/events\"")]
    Url {
        /// As the settings have it, less user and password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine's certificate authorities could not be loaded.
    #[error(
        "no certificate authorities found for \"{url}\": {source}; install the system's CA bundle \
         or name one in SSL_CERT_FILE"
    )]
    CertificateAuthorities {
        /// The handler's url.
        url: String,
        /// What the system said.
        source: std::io::Error,
    },
}

struct Service {
    client: Connections,
    url: Uri,
    health: Option<Uri>,
    /// The url without its query, which may hold a secret.
    shown: String,
    timeout: Duration,
    max_response_bytes: u64,
}

/// How the reading of an answer's body ended.
enum BodyEnd {
    Complete,
    /// More bytes came than may be read; the connection is given up.
    TooLarge,
    Broken(String),
    TimedOut,
}

impl HttpHandler {
    /// A handler that posts to `url`. `timeout` covers connecting, sending and the whole answer;
    /// `max_in_flight` bounds the idle connections that are kept; of an answer at most
    /// `max_response_bytes` are read. Opens no connection yet.
    pub fn new(
        url: &str,
        timeout: Duration,
        max_in_flight: u32,
        max_response_bytes: u64,
    ) -> Result<Self, HttpHandlerError> {
        let url = parse(url)?;
        let shown = shown(&url);
        let schemes = if url.scheme_str() == Some("https") { Schemes::Https } else { Schemes::Http };
        let connections = Connections::new(schemes, &pool(max_in_flight), tcp(timeout))
            .map_err(|source| HttpHandlerError::CertificateAuthorities { url: shown.clone(), source })?;
        let service = Service { client: connections, url, health: None, shown, timeout, max_response_bytes };
        Ok(HttpHandler { service: Arc::new(service) })
    }

    /// The same, asking at this url, which has the scheme of the other, whether the service is up.
    pub fn with_health(self, url: &str) -> Result<Self, HttpHandlerError> {
        let health = Some(parse(url)?);
        let service = Arc::into_inner(self.service).expect("no attempt runs yet");
        Ok(HttpHandler { service: Arc::new(Service { health, ..service }) })
    }
}

impl Handler for HttpHandler {
    fn handle(&self, call: Call) -> Answer {
        match request::build(&self.service.url, &call) {
            Ok(mut request) => {
                let (service, attempt) = (self.service.clone(), call.attempt);
                let span = CallSpan::begin(&service.url, &service.shown, attempt, request.headers_mut());
                Answer::later(async move {
                    let outcome = service.attempt(request, &span).await;
                    span.end(&outcome);
                    outcome
                })
            }
            Err(request::HeadersTooLarge { bytes }) => Answer::Ready(Outcome::Failed(Failure::permanent(
                code::TOO_LARGE,
                format!(
                    "key and headers of the record make {bytes} bytes of HTTP headers, more than the {} that \
                     a call may carry",
                    request::MAX_HEADER_BYTES
                ),
            ))),
        }
    }

    fn probe(&self) -> Option<Pin<Box<dyn Future<Output = bool>>>> {
        let url = self.service.health.clone()?;
        Some(Box::pin(self.service.clone().is_healthy(url)))
    }
}

impl Service {
    /// Whether the service says that it is up.
    async fn is_healthy(self: Arc<Self>, url: Uri) -> bool {
        let deadline = Instant::now() + self.timeout;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = url;
        match timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                // To its end, lest each question costs a connection.
                let _ = read(body, self.max_response_bytes, 0, deadline).await;
                head.status.is_success()
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    async fn attempt(self: Arc<Self>, request: Request<Full<Bytes>>, span: &CallSpan) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        let response = match timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Outcome::Failed(self.no_answer(&error)),
            Err(_) => return Outcome::Failed(self.timed_out()),
        };
        let (head, body) = response.into_parts();
        span.status(head.status.as_u16());
        let keep = answer::bytes_to_keep(head.status, &head.headers);
        let (excerpt, end) = read(body, self.max_response_bytes, keep, deadline).await;
        match answer::failure(head.status, &head.headers, &excerpt, SystemTime::now()) {
            Some(failure) => Outcome::Failed(failure),
            None => self.success(end),
        }
    }

    /// A 2xx counts only if its body came to an end: a service that died while it answered may
    /// not have done its work.
    fn success(&self, end: BodyEnd) -> Outcome {
        match end {
            BodyEnd::Complete | BodyEnd::TooLarge => Outcome::Done(Effects::default()),
            BodyEnd::Broken(reason) => Outcome::Failed(Failure::transient(
                code::UNAVAILABLE,
                format!("{} said success but broke off its answer: {reason}", self.shown),
            )),
            BodyEnd::TimedOut => Outcome::Failed(self.timed_out()),
        }
    }

    fn timed_out(&self) -> Failure {
        let timeout = humantime::format_duration(self.timeout);
        Failure::transient(
            code::TIMED_OUT,
            format!("no complete answer from {} within {timeout}", self.shown),
        )
    }

    fn no_answer(&self, error: &Error) -> Failure {
        // The pool's own text only repeats which step failed.
        let reason = causes(std::error::Error::source(error).unwrap_or(error));
        if error.is_connect() {
            Failure::transient(code::UNREACHABLE, format!("cannot connect to {}: {reason}", self.shown))
        } else {
            Failure::transient(code::UNAVAILABLE, format!("no valid answer from {}: {reason}", self.shown))
        }
    }
}

/// Reads a body to its end, so that its connection can serve the next call, but no more than
/// `max_bytes` of it; returns its first `keep` bytes.
async fn read(mut body: Incoming, max_bytes: u64, keep: usize, deadline: Instant) -> (Vec<u8>, BodyEnd) {
    let mut excerpt = Vec::new();
    let mut bytes_read: u64 = 0;
    loop {
        let data = match timeout_at(deadline, body.frame()).await {
            Err(_) => return (excerpt, BodyEnd::TimedOut),
            Ok(None) => return (excerpt, BodyEnd::Complete),
            Ok(Some(Err(error))) => return (excerpt, BodyEnd::Broken(causes(&error))),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        let room = keep.min(usize::try_from(max_bytes).unwrap_or(usize::MAX)) - excerpt.len();
        excerpt.extend_from_slice(&data[..data.len().min(room)]);
        bytes_read += data.len() as u64;
        if bytes_read > max_bytes {
            return (excerpt, BodyEnd::TooLarge);
        }
    }
}

fn parse(url: &str) -> Result<Uri, HttpHandlerError> {
    let refused = |reason: &str| HttpHandlerError::Url { url: without_user(url), reason: reason.to_owned() };
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(refused("it must begin with http:// or https://"));
    }
    let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| refused(&error.to_string()))?;
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err(refused("it must not hold a user or password"))
        }
        Some(authority) if !authority.host().is_empty() => Ok(uri),
        _ => Err(refused("it names no host")),
    }
}

fn without_user(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://{}", &url[..scheme], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

fn shown(url: &Uri) -> String {
    let authority = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    format!("{}://{authority}{}", url.scheme_str().unwrap_or_default(), url.path())
}

fn tcp(timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(timeout));
    connector
}

fn pool(max_in_flight: u32) -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(usize::try_from(max_in_flight).unwrap_or(usize::MAX))
        .http1_max_buf_size(MAX_ANSWER_HEAD_BYTES);
    builder
}

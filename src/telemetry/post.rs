//! One OTLP request: protobuf over HTTP, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;

use super::destination::{Destination, TelemetryError};
use crate::connections::{Connections, Schemes, causes};

/// The most bytes of an answer that are read; it says what was rejected.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How much of what an endpoint says of it is told, in characters.
const TOLD_CHARS: usize = 200;
/// What is sent, and what answers come in.
const PROTOBUF: &str = "application/x-protobuf";

/// Posts to an endpoint.
pub struct Poster {
    client: Connections,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It may be another time: nobody answers, or the endpoint has too much to do.
    #[error("{why}")]
    Again {
        /// What happened.
        why: String,
        /// How long the endpoint wants to be left alone.
        after: Option<Duration>,
    },
    /// The same request will never be.
    #[error("{0}")]
    Never(String),
}

impl NotTaken {
    fn again(why: String) -> NotTaken {
        NotTaken::Again { why, after: None }
    }
}

/// What an endpoint says of a request that it has taken: of each signal it is the same message, but for its name.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<Rejected>,
}

/// What it has not taken of it.
#[derive(Clone, PartialEq, Message)]
struct Rejected {
    /// Spans, or points.
    #[prost(int64, tag = "1")]
    count: i64,
    #[prost(string, tag = "2")]
    why: String,
}

/// What was not taken of a request that was.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// So many spans, or points.
    pub rejected: u64,
    /// What the endpoint says of it, for a person.
    pub why: String,
}

impl Poster {
    /// For these headers; a request may take `timeout`.
    ///
    /// # Errors
    /// No certificate authorities, where an endpoint is secured.
    pub fn new(destination: &Destination, timeout: Duration) -> Result<Self, TelemetryError> {
        let secured = [&destination.traces, &destination.metrics]
            .into_iter()
            .flatten()
            .any(|url| url.scheme_str() == Some("https"));
        let schemes = if secured { Schemes::Both } else { Schemes::Http };
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(timeout));
        let pool = Client::builder(TokioExecutor::new());
        let client = Connections::new(schemes, &pool, tcp).map_err(|error| {
            TelemetryError::Start(format!("no certificate authorities found for the OTLP endpoint: {error}"))
        })?;
        Ok(Poster { client, headers: destination.headers.clone(), timeout })
    }

    /// Sends one message, and tells what of it was rejected.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub async fn post(&self, url: &Uri, message: Bytes) -> Result<Part, NotTaken> {
        match tokio::time::timeout(self.timeout, self.answered(url, message)).await {
            Ok(result) => result,
            Err(_) => {
                Err(NotTaken::again(format!("no answer from {} within {:?}", shown(url), self.timeout)))
            }
        }
    }

    async fn answered(&self, url: &Uri, message: Bytes) -> Result<Part, NotTaken> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pawl/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let response = self.client.request(request).await.map_err(|error| {
            NotTaken::again(format!("{} cannot be reached: {}", shown(url), causes(&error)))
        })?;
        let (head, body) = response.into_parts();
        // To its end, so that the connection can be used again.
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        judge(url, head.status, &head.headers)?;
        // It was taken, whatever became of the answer.
        Ok(body.map(|body| part(url, &head.headers, body.to_bytes())).unwrap_or_default())
    }
}

/// What OTLP says of statuses: these four may be tried again, no other.
fn judge(url: &Uri, status: StatusCode, headers: &HeaderMap) -> Result<(), NotTaken> {
    let why = format!("{} answered {status}", shown(url));
    match status.as_u16() {
        200..=299 => Ok(()),
        429 | 502..=504 => Err(NotTaken::Again { why, after: after(headers) }),
        _ => Err(NotTaken::Never(why)),
    }
}

/// `Retry-After` in seconds, as exporters read it.
fn after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What an answer says that was not taken; nothing where it says nothing, or is none of OTLP.
fn part(url: &Uri, headers: &HeaderMap, body: Bytes) -> Part {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_protobuf = kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(PROTOBUF);
    let Some(Response { partial_success: Some(Rejected { count, why }) }) =
        Response::decode(body).ok().filter(|_| is_protobuf)
    else {
        return Part::default();
    };
    let rejected = u64::try_from(count).unwrap_or(0);
    let why: String = why.chars().take(TOLD_CHARS).collect();
    Part { rejected, why: format!("{} has rejected {rejected} of them: {why:?}", shown(url)) }
}

/// Without a query, which may hold a secret.
fn shown(url: &Uri) -> String {
    let authority = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{authority}{}", url.scheme_str().unwrap_or_default(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_heal_is_sent_again() {
        let url = Uri::from_static("http://user:s3cret@collector:4318/v1/traces?key=s3cret");
        let judged = |status| judge(&url, StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        for status in [200, 202] {
            assert!(judged(status).is_ok());
        }
        for (status, again) in
            [(429, true), (502, true), (503, true), (504, true), (400, false), (500, false)]
        {
            let error = judged(status).unwrap_err();
            assert_eq!(matches!(error, NotTaken::Again { .. }), again, "{status}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn an_endpoint_that_has_too_much_to_do_says_when_to_come_back() {
        let url = Uri::from_static("http://collector:4318/v1/traces");
        for (value, expected) in [("7", Some(Duration::from_secs(7))), ("soon", None)] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            let error = judge(&url, StatusCode::TOO_MANY_REQUESTS, &headers).unwrap_err();
            assert!(matches!(error, NotTaken::Again { after, .. } if after == expected), "{error:?}");
        }
    }

    #[test]
    fn what_was_rejected_of_a_request_that_was_taken_is_read_of_either_signal() {
        use opentelemetry_proto::tonic::collector::metrics::v1::{
            ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
        };
        use opentelemetry_proto::tonic::collector::trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceResponse,
        };
        let url = Uri::from_static("http://collector:4318/v1/traces?key=s3cret");
        let read = |kind, body: Vec<u8>| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            part(&url, &headers, body.into())
        };
        let why = "too old\nforged";
        let spans = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess { rejected_spans: 3, error_message: why.into() }),
        };
        let points = ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points: 3,
                error_message: why.into(),
            }),
        };
        for body in [spans.encode_to_vec(), points.encode_to_vec()] {
            let told = "http://collector:4318/v1/traces has rejected 3 of them: \"too old\\nforged\"";
            assert_eq!(read("application/x-protobuf", body), Part { rejected: 3, why: told.into() });
        }
        assert_eq!(read("text/plain", spans.encode_to_vec()), Part::default());
        for body in [Vec::new(), b"{}".to_vec()] {
            assert_eq!(read("application/x-protobuf", body), Part::default());
        }
    }
}

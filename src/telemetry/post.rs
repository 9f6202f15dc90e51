//! One OTLP request: protobuf over HTTP, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::destination::{Destination, TelemetryError};
use crate::connections::{Connections, Schemes};

/// The most bytes of an answer that are read; it says what was rejected, and nothing depends on it.
const MAX_ANSWER_BYTES: usize = 64 << 10;

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
    #[error("{0}")]
    Again(String),
    /// The same request will never be.
    #[error("{0}")]
    Never(String),
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

    /// Sends one message.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub async fn post(&self, url: &Uri, message: Bytes) -> Result<(), NotTaken> {
        match tokio::time::timeout(self.timeout, self.answered(url, message)).await {
            Ok(result) => result,
            Err(_) => {
                Err(NotTaken::Again(format!("no answer from {} within {:?}", shown(url), self.timeout)))
            }
        }
    }

    async fn answered(&self, url: &Uri, message: Bytes) -> Result<(), NotTaken> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pawl/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let response = self.client.request(request).await.map_err(|error| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            NotTaken::Again(format!("{} cannot be reached: {error}{cause}", shown(url)))
        })?;
        let status = response.status();
        // To its end, so that the connection can be used again.
        let _ = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        judge(url, status)
    }
}

/// What OTLP says of statuses: these four may be tried again, no other.
fn judge(url: &Uri, status: StatusCode) -> Result<(), NotTaken> {
    let text = format!("{} answered {status}", shown(url));
    match status.as_u16() {
        200..=299 => Ok(()),
        429 | 502..=504 => Err(NotTaken::Again(text)),
        _ => Err(NotTaken::Never(text)),
    }
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
        for status in [200, 202] {
            assert!(judge(&url, StatusCode::from_u16(status).unwrap()).is_ok());
        }
        for (status, again) in
            [(429, true), (502, true), (503, true), (504, true), (400, false), (500, false)]
        {
            let error = judge(&url, StatusCode::from_u16(status).unwrap()).unwrap_err();
            assert_eq!(matches!(error, NotTaken::Again(_)), again, "{status}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}

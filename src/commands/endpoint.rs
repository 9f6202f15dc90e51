//! Asking a running instance through its endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::admin::keys::NoAnswer;

/// Longer than the endpoint takes for its own longest answer.
const TIMEOUT: Duration = Duration::from_secs(12);
/// A page of states and keys at their largest; what is beyond it is no answer of Pawl.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why an instance cannot tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nobody listens there.
    #[error("no instance answers at {address}: {reason}")]
    Silent {
        /// Where was asked.
        address: String,
        /// What the connection gave.
        reason: String,
    },
    /// Something listens there that does not know what was asked, or is no Pawl.
    #[error("{address} answers {status}: {reason}")]
    Refused {
        /// Where was asked.
        address: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        reason: String,
    },
}

/// An instance.
pub struct Endpoint {
    address: String,
    client: Client<HttpConnector, Empty<Bytes>>,
    runtime: Runtime,
}

/// Where an instance with this setting is reached from its own machine.
pub fn address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

impl Endpoint {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// When the process can start no thread.
    pub fn new(address: String) -> std::io::Result<Endpoint> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Endpoint { address, client, runtime })
    }

    /// Where is asked.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it answers at a path.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EndpointError> {
        let refused = |status: StatusCode, reason: String| EndpointError::Refused {
            address: self.address.clone(),
            status: status.as_u16(),
            reason,
        };
        let (status, body) = self.ask(path, TIMEOUT)?;
        if status != StatusCode::OK {
            let said = serde_json::from_slice::<NoAnswer>(&body).map(|answer| answer.error);
            return Err(refused(
                status,
                said.unwrap_or_else(|_| "it is no Pawl, or one that does not know this".into()),
            ));
        }
        serde_json::from_slice(&body)
            .map_err(|error| refused(status, format!("not an answer of Pawl: {error}")))
    }

    /// Its answer at a path, whatever it is, if it is there `within` this time.
    ///
    /// # Errors
    /// [`EndpointError::Silent`].
    pub fn ask(&self, path: &str, within: Duration) -> Result<(StatusCode, Bytes), EndpointError> {
        let silent = |reason: String| EndpointError::Silent { address: self.address.clone(), reason };
        let uri: Uri =
            format!("http://{}{path}", self.address).parse().map_err(|error| silent(format!("{error}")))?;
        let asking = async {
            let answer = self.client.get(uri).await.map_err(|error| silent(cause(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| silent(error.to_string()))?.to_bytes()))
        };
        let asked = self.runtime.block_on(async { tokio::time::timeout(within, asking).await });
        asked.map_err(|_| silent(format!("no answer within {within:?}")))?
    }
}

/// As it stands in a path.
pub fn encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, NON_ALPHANUMERIC).to_string()
}

/// The innermost cause, which says "connection refused" where the outermost says "client error".
fn cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_listens_everywhere_is_asked_on_this_machine() {
        let check = |listen: &str, expected: &str| {
            assert_eq!(address(listen.parse().expect("an address")).to_string(), expected);
        };
        check("0.0.0.0:9464", "127.0.0.1:9464");
        check("[::]:9464", "[::1]:9464");
        check("10.0.0.7:1", "10.0.0.7:1");
    }

    #[test]
    fn nobody_there_is_told_by_its_cause() {
        let endpoint = Endpoint::new("127.0.0.1:1".into()).expect("a runtime");
        let error = endpoint.get::<()>("/ready").expect_err("nobody listens on port 1").to_string();
        assert!(error.contains("127.0.0.1:1") && error.to_lowercase().contains("refused"), "{error}");
    }
}

//! Asking a running instance through its endpoint.

mod access;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{AUTHORIZATION, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use self::access::Own;
use super::Failure;
use crate::admin::keys::NoAnswer;
use crate::cli::{Address, EndpointArgs};
use crate::connections::innermost;
use crate::settings::{Admin, Secret};

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
    address: Address,
    token: Option<Secret>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    runtime: Runtime,
}

/// Where an instance with this setting is reached from its own machine.
fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn place(args: &EndpointArgs, own: Option<&Admin>) -> Option<Address> {
    let listens = own.and_then(|admin| Some((admin.listen?, admin.tls.is_some())));
    let listens = listens.map(|(listen, tls)| Address { tls, authority: here(listen).to_string() });
    args.admin.clone().or(listens)
}

impl Endpoint {
    /// The endpoint that a person names, else that of these settings; `None`: there is neither. Asks nobody yet.
    /// Tokens of the settings are for their own endpoint only.
    ///
    /// # Errors
    /// A file that was named cannot be used, or the process can start no thread.
    pub fn find(args: &EndpointArgs, settings: Option<&Admin>) -> Result<Option<Endpoint>, Failure> {
        let own = settings.filter(|_| args.admin.is_none());
        let Some(address) = place(args, own) else { return Ok(None) };
        let token = access::token(args, own)?;
        let tls = access::tls(args, own, address.tls, Own::Set)?;
        Ok(Some(Endpoint::new(address, token, tls)?))
    }

    /// The same for a probe, which says yes or no: as nobody, and of the settings' own endpoint whatever certificate it
    /// shows. Neither a token that cannot be used nor a certificate that is being exchanged makes a process a dead one.
    ///
    /// # Errors
    /// See [`Endpoint::find`].
    pub fn probe(args: &EndpointArgs, settings: Option<&Admin>) -> Result<Option<Endpoint>, Failure> {
        let own = settings.filter(|_| args.admin.is_none());
        let Some(address) = place(args, own) else { return Ok(None) };
        let tls = access::tls(args, own, address.tls, Own::Any)?;
        Ok(Some(Endpoint::new(address, None, tls)?))
    }

    fn new(address: Address, token: Option<Secret>, tls: ClientConfig) -> Result<Endpoint, Failure> {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Endpoint { address, token, client, runtime })
    }

    /// Where is asked.
    pub fn address(&self) -> &str {
        &self.address.authority
    }

    /// What it answers at a path.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EndpointError> {
        let refused = |status: StatusCode, reason: String| EndpointError::Refused {
            address: self.address.authority.clone(),
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
        let silent =
            |reason: String| EndpointError::Silent { address: self.address.authority.clone(), reason };
        let asking = async {
            loop {
                let answer = self.client.request(self.request(path).map_err(silent)?).await;
                let answer = answer.map_err(|error| silent(innermost(&error)))?;
                if let Some(wait) = too_early(&answer) {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                let status = answer.status();
                let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
                return Ok((status, body.map_err(|error| silent(error.to_string()))?.to_bytes()));
            }
        };
        let asked = self.runtime.block_on(async { tokio::time::timeout(within, asking).await });
        asked.map_err(|_| silent(format!("no answer within {within:?}")))?
    }

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::get(format!("{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        request.body(Empty::new()).map_err(|error| error.to_string())
    }
}

/// How long an instance wants to be left alone.
fn too_early<T>(answer: &Response<T>) -> Option<Duration> {
    let wait = answer.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
    (answer.status() == StatusCode::TOO_MANY_REQUESTS).then(|| Duration::from_secs(wait.unwrap_or(1)))
}

/// As it stands in a path.
pub fn encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_listens_everywhere_is_asked_on_this_machine() {
        let check = |listen: &str, expected: &str| {
            assert_eq!(here(listen.parse().expect("an address")).to_string(), expected);
        };
        check("0.0.0.0:9464", "127.0.0.1:9464");
        check("[::]:9464", "[::1]:9464");
        check("10.0.0.7:1", "10.0.0.7:1");
    }

    #[test]
    fn nobody_there_is_told_by_its_cause() {
        let nobody = Address { tls: false, authority: "127.0.0.1:1".into() };
        let args = EndpointArgs { admin: Some(nobody), ..EndpointArgs::default() };
        let endpoint = Endpoint::find(&args, None).expect("a runtime").expect("it is named");
        let error = endpoint.get::<()>("/ready").expect_err("nobody listens on port 1").to_string();
        assert!(error.contains("127.0.0.1:1") && error.to_lowercase().contains("refused"), "{error}");
    }

    #[test]
    fn a_file_without_an_end_is_refused_in_place_of_being_read() {
        let address = Address { tls: true, authority: "127.0.0.1:1".into() };
        let args = EndpointArgs { admin: Some(address), ..EndpointArgs::default() };
        let endless = || Some("/dev/zero".into());
        for args in [
            EndpointArgs { token_file: endless(), ..args.clone() },
            EndpointArgs { ca_file: endless(), ..args },
        ] {
            let why = Endpoint::find(&args, None).err().expect("it has no end").to_string();
            assert!(why.contains("(/dev/zero) cannot be used: it is larger than 1 MiB"), "{why}");
        }
    }
}

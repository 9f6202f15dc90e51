//! Connections to HTTP servers, kept for the next request.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// `http` alone.
    Http,
    /// `https` alone.
    Https,
    /// Both.
    Both,
}

/// A pool; without TLS where none is spoken, so that no certificate authorities have to be there: a static image may
/// have none.
pub enum Connections {
    /// Without TLS.
    Plain(Client<HttpConnector, Full<Bytes>>),
    /// With it.
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Connections {
    /// A pool of this kind, over TCP connections of this kind. Opens none yet.
    ///
    /// # Errors
    /// The machine's certificate authorities could not be loaded.
    pub fn new(schemes: Schemes, pool: &Builder, mut tcp: HttpConnector) -> io::Result<Self> {
        tcp.enforce_http(false);
        if schemes == Schemes::Http {
            return Ok(Connections::Plain(pool.build(tcp)));
        }
        let builder = HttpsConnectorBuilder::new().with_native_roots()?;
        let builder = if schemes == Schemes::Https { builder.https_only() } else { builder.https_or_http() };
        Ok(Connections::Tls(pool.build(builder.enable_http1().wrap_connector(tcp))))
    }

    /// A pool to one server that is asked seldom; `connect` bounds each TCP connection's making.
    ///
    /// # Errors
    /// TLS is spoken, and the machine's certificate authorities could not be loaded; says what to do about it.
    pub fn to(url: &str, connect: Option<Duration>) -> Result<Self, String> {
        let schemes = if url.starts_with("https:") { Schemes::Https } else { Schemes::Http };
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(connect);
        Connections::new(schemes, &Client::builder(TokioExecutor::new()), tcp).map_err(|error| {
            format!("no certificate authorities found for {url}: {error}; name a bundle in SSL_CERT_FILE")
        })
    }

    /// Sends a request.
    pub fn request(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        match self {
            Connections::Plain(client) => client.request(request),
            Connections::Tls(client) => client.request(request),
        }
    }
}

/// An error and what caused it, in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.join(": ")
}

/// The innermost cause, which says "connection refused" where the outermost says "client error".
pub fn innermost(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

//! What the AWS libraries ask by: the connections that everything else in Pawl asks by, in place of a second HTTP
//! client with an HTTP/2 that nobody here speaks.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, http};

use crate::connections::Connections;

/// Credentials and their errors are some kilobytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Opens a connection for each request: there is one in some minutes, and until the next the other side has closed
/// what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct AwsHttp;

impl HttpClient for AwsHttp {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Asking {
            connect: settings.connect_timeout(),
            read: settings.read_timeout(),
        })
    }
}

/// The bounds of a request; without them the attempt of which it is a part is bounded.
#[derive(Clone, Copy, Debug)]
struct Asking {
    connect: Option<Duration>,
    read: Option<Duration>,
}

impl HttpConnector for Asking {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Asking { connect, read } = *self;
        HttpConnectorFuture::new(async move {
            let answer = answer(connect, request);
            let Some(read) = read else { return answer.await };
            let limit = connect.unwrap_or_default() + read;
            tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                let text = format!("no answer within {}", humantime::format_duration(limit));
                Err(ConnectorError::timeout(text.into()))
            })
        })
    }
}

async fn answer(connect: Option<Duration>, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = plain(request)?;
    let connections = Connections::to(&request.uri().to_string(), connect);
    let asked = connections.map_err(|why| ConnectorError::user(why.into()))?.request(request).await;
    let response = asked.map_err(|error| ConnectorError::io(error.into()))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(ConnectorError::io)?;
    let response = http::Response::from_parts(head, SdkBody::from(body.to_bytes()));
    HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
}

fn plain(request: HttpRequest) -> Result<Request<Full<Bytes>>, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (head, body) = request.into_parts();
    let body = body.bytes().ok_or_else(|| ConnectorError::user("a request that is a stream".into()))?;
    Ok(Request::from_parts(head, Full::new(Bytes::copy_from_slice(body))))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};

    use super::*;

    /// What a server that answers so is asked, and what the libraries get of it.
    async fn ask(
        answer: &'static str,
        read: Option<Duration>,
    ) -> (String, Result<HttpResponse, ConnectorError>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).expect("a request");
            stream.write_all(answer.as_bytes()).expect("sent");
            if answer.is_empty() {
                // Until the client has given up.
                let _ = stream.read(&mut asked[length..]);
            }
            let _ = stream.shutdown(Shutdown::Both);
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let mut request = HttpRequest::new(SdkBody::from("Action=GetCallerIdentity"));
        request.set_uri(format!("http://{address}/role")).expect("a URI");
        request.set_method("POST").expect("a method");
        let got = Asking { connect: None, read }.call(request).await;
        // Aside: the connection is closed by a task of this thread.
        let asked = tokio::task::spawn_blocking(move || server.join().expect("the server")).await;
        (asked.expect("joined"), got)
    }

    #[tokio::test]
    async fn a_request_of_the_aws_libraries_reaches_the_server_and_its_answer_them() {
        let (asked, got) = ask("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", None).await;
        assert!(asked.starts_with("POST /role HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\nAction=GetCallerIdentity"), "{asked}");
        let got = got.expect("an answer");
        assert_eq!((got.status().as_u16(), got.body().bytes()), (403, Some(&b"no"[..])));
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_refused() {
        let (_, got) = ask("HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n", None).await;
        assert!(got.expect_err("refused").is_io());
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_a_timeout_of_which_the_libraries_know() {
        let (_, got) = ask("", Some(Duration::from_millis(50))).await;
        assert!(got.expect_err("given up").is_timeout());
    }
}

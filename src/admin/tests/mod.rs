//! The endpoint on a real socket.

#[path = "../../../tests/support/authority.rs"]
mod authority;
mod guarded;
mod open;
mod secured;

use std::time::Duration;

use pawl_actors::stats::HandlerStats;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::observed::EpochCommitTimes;
use crate::settings::Secret;

const PATIENT: Duration = Duration::from_secs(20);

const READ: &str = "read-0123456789abcdef";
const OPERATE: &str = "operate-0123456789abcdef";

struct Endpoint {
    address: SocketAddr,
    stats: Arc<HandlerStats>,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A request, put together piece by piece.
#[derive(Clone)]
struct Request {
    line: String,
    headers: Vec<String>,
    body: String,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Request {
    fn get(path: &str) -> Request {
        Request {
            line: format!("GET {path} HTTP/1.1"),
            headers: vec!["host: localhost".into()],
            body: String::new(),
        }
    }

    fn post(path: &str, body: &str) -> Request {
        let headers = [
            "host: localhost".into(),
            "content-type: application/json".into(),
            format!("content-length: {}", body.len()),
        ];
        Request { line: format!("POST {path} HTTP/1.1"), headers: headers.to_vec(), body: body.into() }
    }

    fn header(&self, header: &str) -> Request {
        let mut with = self.clone();
        with.headers.push(header.into());
        with
    }

    fn token(&self, token: &str) -> Request {
        self.header(&format!("authorization: Bearer {token}"))
    }

    fn text(&self) -> String {
        format!("{}\r\n{}\r\n\r\n{}", self.line, self.headers.join("\r\n"), self.body)
    }
}

impl Endpoint {
    async fn start() -> Self {
        Endpoint::start_within(REQUEST_TIMEOUT).await
    }

    async fn start_within(request_timeout: Duration) -> Self {
        Self::start_on("127.0.0.1:0", request_timeout, Admin::default()).await
    }

    /// With a token of each role.
    async fn guarded(admin: Admin) -> Self {
        let token = |name: &str, secret| Some(Secret::new(format!("{name}:{secret}")));
        let admin =
            Admin { read_token: token("scraper", READ), operator_token: token("alice", OPERATE), ..admin };
        Self::start_on("127.0.0.1:0", REQUEST_TIMEOUT, admin).await
    }

    async fn start_on(listen: &str, request_timeout: Duration, admin: Admin) -> Self {
        Self::start_with(listen, request_timeout, Settings { admin, ..Settings::default() }).await
    }

    async fn start_with(listen: &str, request_timeout: Duration, settings: Settings) -> Self {
        let opened = super::open(listen.parse().unwrap(), &settings.admin)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let address = opened.listener.local_addr().unwrap();
        let stats = Arc::<HandlerStats>::default();
        let view = HandlerView {
            name: "billing".into(),
            group: "accounts".into(),
            topic: "orders".into(),
            stats: stats.clone(),
            epoch_commit_times: EpochCommitTimes::default(),
            keys: Arc::default(),
            supervision: Default::default(),
            bounds: Default::default(),
        };
        let (shutdown, ended) = oneshot::channel();
        let settings = Arc::new(settings);
        let mut metrics = Metrics::new(vec![view.clone()], settings.admin.stalled_after);
        opened.register(&mut metrics);
        let task = tokio::spawn(serve_within(
            request_timeout,
            opened,
            settings,
            vec![view],
            Arc::new(metrics),
            async {
                let _ = ended.await;
            },
        ));
        Endpoint { address, stats, shutdown, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything the endpoint answers to these bytes until it closes the connection.
    async fn send(&self, request: &str) -> String {
        exchange(self.connect().await, request).await
    }

    async fn ask(&self, request: &Request) -> Answer {
        Answer::of(&self.send(&request.text()).await)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(&Request::get(path)).await;
        assert!(answer.head.contains("connection: close"), "{answer:?}");
        (answer.status, answer.body)
    }
}

impl Answer {
    fn of(text: &str) -> Answer {
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        Answer { status: status.unwrap(), head: head.to_owned(), body: body.to_owned() }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    let mut answer = Vec::new();
    // A refusal may come before all is written, so that writing or reading can fail late.
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = timeout(PATIENT, stream.read_to_end(&mut answer)).await.expect("it closes");
    String::from_utf8(answer).unwrap()
}

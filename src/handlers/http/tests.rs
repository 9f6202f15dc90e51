//! The handler against a service on a real socket that answers byte by byte as told.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pawl_actors::effects::Effects;
use pawl_actors::handler::{Answer, Call, Handler, Source};
use pawl_actors::outcome::{Failure, FailureClass, Outcome, code};
use pawl_actors::record::{Header, Millis, Offset, Partition, Record, TimestampType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const PATIENT: Duration = Duration::from_secs(20);
const MAX_RESPONSE_BYTES: u64 = 64 << 10;

pub(in crate::handlers) fn record() -> Record {
    Record {
        offset: Offset(42),
        timestamp: Millis(1_700_000_000_123),
        timestamp_type: TimestampType::CreateTime,
        key: Some(Bytes::from_static(b"order 1\xff")),
        value: Some(Bytes::from_static(b"{\"total\":1}")),
        headers: Vec::new(),
    }
}

pub(in crate::handlers) fn call(record: Record) -> Call {
    Call {
        record: Arc::new(record),
        source: Arc::new(Source {
            handler: "billing".into(),
            topic: "orders".into(),
            topic_id: "topic-id".into(),
            group: "billing".into(),
        }),
        partition: Partition(3),
        attempt: 2,
        claim: 7,
        event_id: None,
        state: None,
    }
}

/// What the service does with the n-th request, counted from 0.
enum Reply {
    /// Answers and waits for the next request.
    Stay(Vec<u8>),
    /// Answers and closes the connection.
    Close(Vec<u8>),
    /// Answers (or not) and holds the connection open until the client closes it.
    Hang(Vec<u8>),
}

/// A service that keeps what it saw.
struct FakeService {
    url: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    hung_up: Arc<tokio::sync::Notify>,
}

impl FakeService {
    async fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = FakeService {
            url: format!("http://{}/events?token=secret", listener.local_addr().unwrap()),
            connections: Arc::default(),
            requests: Arc::default(),
            hung_up: Arc::default(),
        };
        let (connections, requests, hung_up) =
            (service.connections.clone(), service.requests.clone(), service.hung_up.clone());
        let reply = Arc::new(reply);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, reply.clone(), requests.clone(), hung_up.clone()));
            }
        });
        service
    }

    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        FakeService::start(move |_| Reply::Stay(answer.clone())).await
    }

    fn handler(&self) -> HttpHandler {
        handler(&self.url, PATIENT)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn request(&self, n: usize) -> String {
        self.requests.lock().unwrap()[n].clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    reply: Arc<impl Fn(usize) -> Reply>,
    requests: Arc<Mutex<Vec<String>>>,
    hung_up: Arc<tokio::sync::Notify>,
) {
    let mut input = Vec::new();
    while let Some(request) = next_request(&mut stream, &mut input).await {
        let n = {
            let mut requests = requests.lock().unwrap();
            requests.push(request);
            requests.len() - 1
        };
        let (answer, stays) = match reply(n) {
            Reply::Stay(answer) => (answer, true),
            Reply::Close(answer) => (answer, false),
            Reply::Hang(answer) => {
                let _ = stream.write_all(&answer).await;
                while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
                hung_up.notify_one();
                return;
            }
        };
        if stream.write_all(&answer).await.is_err() || !stays {
            hung_up.notify_one();
            return;
        }
    }
}

async fn next_request(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(input).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                input.drain(..head.len() + 4 + length);
                return Some(format!("{head}\r\n\r\n{}", &body[..length]));
            }
        }
        if stream.read_buf(input).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

fn handler(url: &str, timeout: Duration) -> HttpHandler {
    HttpHandler::new(url, timeout, 8, MAX_RESPONSE_BYTES).unwrap()
}

fn start(handler: &HttpHandler, record: Record) -> Pin<Box<dyn Future<Output = Outcome>>> {
    match handler.handle(call(record)) {
        Answer::Later(future) => future,
        Answer::Ready(outcome) => Box::pin(std::future::ready(outcome)),
        Answer::Traced(..) => panic!("nobody traces it"),
    }
}

async fn outcome(handler: &HttpHandler) -> Outcome {
    start(handler, record()).await
}

async fn failure(handler: &HttpHandler) -> Failure {
    match outcome(handler).await {
        Outcome::Failed(failure) => failure,
        done => panic!("expected a failure, got {done:?}"),
    }
}

#[track_caller]
fn check(failure: &Failure, class: FailureClass, code: &str, message: &str) {
    assert_eq!((failure.class, failure.code), (class, code), "{failure:?}");
    assert!(failure.message.contains(message), "{:?} lacks {message:?}", failure.message);
    assert!(!failure.message.contains("secret"), "{:?} shows the query", failure.message);
}

#[tokio::test]
async fn a_record_is_one_post_of_its_value() {
    let service = FakeService::answering(OK).await;
    assert_eq!(outcome(&service.handler()).await, Outcome::Done(Effects::default()));
    let request = service.request(0);
    assert!(request.starts_with("POST /events?token=secret HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"total\":1}"), "{request}");
    for line in ["idempotency-key: topic-id/3/42", "ce-id: topic-id/3/42", "pawl-attempt: 2"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{request} lacks {line}");
    }
}

#[tokio::test]
async fn a_tombstone_is_a_marked_post_without_a_body() {
    let service = FakeService::answering(OK).await;
    let handler = service.handler();
    start(&handler, Record { value: None, ..record() }).await;
    let request = service.request(0);
    assert!(request.contains("\r\npawl-tombstone: true\r\n"), "{request}");
    assert!(request.contains("\r\ncontent-length: 0\r\n") && request.ends_with("\r\n\r\n"), "{request}");
}

#[tokio::test]
async fn headers_that_are_not_utf8_do_not_stop_the_call() {
    let service = FakeService::answering(OK).await;
    let handler = service.handler();
    let header = |name: &'static [u8]| Header {
        name: Bytes::from_static(name),
        value: Some(Bytes::from_static(b"\xff\x00")),
    };
    let record = Record { headers: vec![header(b"ce_\xfe"), header(b"\xfe"), header(b"ce_raw")], ..record() };
    assert_eq!(start(&handler, record).await, Outcome::Done(Effects::default()));
    assert!(service.request(0).contains("\r\nce-raw: %FF%00\r\n"), "{}", service.request(0));
}

#[tokio::test]
async fn a_hundred_calls_in_turn_use_one_connection() {
    // Success, rejection and failure alike: each body is read to its end.
    let service = FakeService::start(|n| {
        let status = ["200 OK", "422 Unprocessable Entity", "503 Service Unavailable"][n % 3];
        Reply::Stay(format!("HTTP/1.1 {status}\r\ncontent-length: 5000\r\n\r\n{}", "x".repeat(5000)).into())
    })
    .await;
    let handler = service.handler();
    for _ in 0..100 {
        outcome(&handler).await;
    }
    assert_eq!(service.requests.lock().unwrap().len(), 100);
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn each_status_has_its_class_on_the_wire() {
    for (status, expect) in [
        (200, None),
        (201, None),
        (204, None),
        (301, Some(FailureClass::Permanent)),
        (308, Some(FailureClass::Permanent)),
        (400, Some(FailureClass::Permanent)),
        (401, Some(FailureClass::Transient)),
        (404, Some(FailureClass::Permanent)),
        (409, Some(FailureClass::Permanent)),
        (422, Some(FailureClass::Permanent)),
        (429, Some(FailureClass::Transient)),
        (500, Some(FailureClass::Transient)),
        (503, Some(FailureClass::Transient)),
        (999, Some(FailureClass::Transient)),
    ] {
        let length = if status == 204 { "" } else { "content-length: 0\r\n" };
        let service = FakeService::answering(format!("HTTP/1.1 {status} x\r\n{length}\r\n")).await;
        let class = match outcome(&service.handler()).await {
            Outcome::Done(_) => None,
            Outcome::Failed(failure) => Some(failure.class),
        };
        assert_eq!(class, expect, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let service = FakeService::answering(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let failure = failure(&service.handler()).await;
    check(&failure, FailureClass::Permanent, code::REJECTED, "a redirect to \"/elsewhere\"");
    assert_eq!(service.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_rejection_carries_the_words_of_the_service() {
    let service = FakeService::answering(
        "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 16\r\n\r\nunknown currency",
    )
    .await;
    let failure = failure(&service.handler()).await;
    assert_eq!(failure.message, "service answered 422 \"unknown currency\"");
    assert_eq!(failure.detail, "unknown currency");
}

#[tokio::test]
async fn the_services_own_code_is_read_from_the_wire_also_out_of_a_long_problem() {
    let body = format!(r#"{{"detail":"{}","type":"/locked"}}"#, "x".repeat(10_000));
    let problem = format!("content-type: application/problem+json\r\ncontent-length: {}", body.len());
    for (head, expect) in
        [(problem.clone(), "/locked"), (format!("PAWL-Error-Code: busy\r\n{problem}"), "busy")]
    {
        let answer = format!("HTTP/1.1 409 Conflict\r\n{head}\r\n\r\n{body}");
        let failure = failure(&FakeService::answering(answer).await.handler()).await;
        assert_eq!((failure.own_code(), failure.status), (Some(expect), Some(409)));
        assert_eq!(failure.detail.len(), answer::DETAIL_BYTES, "of the text no more is kept");
    }
}

#[tokio::test]
async fn the_delay_that_a_service_asks_for_is_handed_on() {
    let service = FakeService::answering(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(failure(&service.handler()).await.retry_after, Some(Duration::from_secs(30)));

    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1000));
    let service = FakeService::answering(format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: {date}\r\ncontent-length: 0\r\n\r\n"
    ))
    .await;
    let delay = failure(&service.handler()).await.retry_after.unwrap();
    assert!(delay > Duration::from_secs(900) && delay <= Duration::from_secs(1000), "{delay:?}");
}

#[tokio::test]
async fn a_service_that_never_answers_times_out_and_the_connection_is_given_up() {
    for answer in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfive!"] {
        let service = FakeService::start(move |_| Reply::Hang(answer.into())).await;
        let failure = failure(&handler(&service.url, Duration::from_millis(50))).await;
        check(&failure, FailureClass::Transient, code::TIMED_OUT, "within 50ms");
        tokio::time::timeout(PATIENT, service.hung_up.notified()).await.expect("the client hangs up");
    }
}

#[tokio::test]
async fn a_rejection_whose_body_hangs_is_still_a_rejection() {
    let service = FakeService::start(|_| {
        Reply::Hang("HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 100\r\n\r\nunknown".into())
    })
    .await;
    let failure = failure(&handler(&service.url, Duration::from_millis(50))).await;
    check(&failure, FailureClass::Permanent, code::REJECTED, "422 \"unknown\"");
}

#[tokio::test]
async fn a_cancelled_call_closes_its_connection() {
    let service = FakeService::start(|_| Reply::Hang(Vec::new())).await;
    let handler = service.handler();
    let call = start(&handler, record());
    tokio::select! {
        outcome = call => panic!("the service never answers, yet: {outcome:?}"),
        () = async { while service.requests.lock().unwrap().is_empty() { tokio::task::yield_now().await } } => {}
    }
    tokio::time::timeout(PATIENT, service.hung_up.notified()).await.expect("the client hangs up");
}

#[tokio::test]
async fn a_refused_connection_is_transient_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = failure(&handler(&format!("http://{address}/events?token=secret"), PATIENT)).await;
    let message = format!("cannot connect to http://{address}/events: tcp connect error: Connection refused");
    check(&failure, FailureClass::Transient, code::UNREACHABLE, &message);
}

#[tokio::test]
async fn a_service_that_speaks_no_tls_is_unreachable_by_https() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/events", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
    });
    let failure = failure(&handler(&url, PATIENT)).await;
    let message = format!("cannot connect to {url}: received corrupt message");
    check(&failure, FailureClass::Transient, code::UNREACHABLE, &message);
}

#[tokio::test]
async fn answers_that_are_not_http_are_transient() {
    let endless_head = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(MAX_ANSWER_HEAD_BYTES + 1));
    let broken_chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n";
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "", "\u{0}\u{1}\u{2}", &endless_head, broken_chunks] {
        let bytes = answer.as_bytes().to_vec();
        let service = FakeService::start(move |_| Reply::Close(bytes.clone())).await;
        let failure = failure(&service.handler()).await;
        check(&failure, FailureClass::Transient, code::UNAVAILABLE, "/events");
    }
}

#[tokio::test]
async fn a_success_that_breaks_off_is_transient() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfive!",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfive!\r\n",
    ] {
        let service = FakeService::start(move |_| Reply::Close(answer.into())).await;
        let failure = failure(&service.handler()).await;
        check(&failure, FailureClass::Transient, code::UNAVAILABLE, "broke off its answer");
    }
}

#[tokio::test]
async fn a_connection_that_the_service_closed_while_idle_is_replaced() {
    let service = FakeService::start(|_| Reply::Close(OK.into())).await;
    let handler = service.handler();
    for n in 1..=3 {
        assert_eq!(outcome(&handler).await, Outcome::Done(Effects::default()));
        tokio::time::timeout(PATIENT, service.hung_up.notified()).await.expect("the service hangs up");
        assert_eq!(service.connections(), n);
    }
}

#[tokio::test]
async fn of_a_huge_answer_only_the_start_is_read() {
    let body = "x".repeat(8 << 20);
    for (status, done) in [("200 OK", true), ("422 Unprocessable Entity", false)] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let service = FakeService::answering(answer).await;
        match outcome(&service.handler()).await {
            Outcome::Done(_) => assert!(done, "{status}"),
            Outcome::Failed(failure) => {
                assert!(!done, "{status}");
                assert_eq!(failure.detail.len(), answer::DETAIL_BYTES);
                assert!(failure.message.len() < 1000, "{} bytes", failure.message.len());
            }
        }
        // The service's write fails half-way, because the client has closed the connection.
        tokio::time::timeout(PATIENT, service.hung_up.notified()).await.expect("the client hangs up");
    }
}

#[tokio::test]
async fn a_key_too_large_for_a_header_is_rejected_without_a_call() {
    let service = FakeService::answering(OK).await;
    let handler = service.handler();
    let record = Record { key: Some(Bytes::from(vec![b'k'; 1 << 20])), ..record() };
    match start(&handler, record).await {
        Outcome::Failed(failure) => check(&failure, FailureClass::Permanent, code::TOO_LARGE, "HTTP headers"),
        done => panic!("expected a failure, got {done:?}"),
    }
    assert_eq!(service.connections(), 0);
}

#[test]
fn a_url_that_cannot_be_posted_to_is_refused_with_the_reason() {
    for (url, reason) in [
        ("billing:8080/events", "it must begin with http:// or https://"),
        ("ftp://billing/events", "it must begin with http:// or https://"),
        ("/events", "it must begin with http:// or https://"),
        ("http://user:hunter2@billing/events", "it must not hold a user or password"),
        ("http://", ""),
        ("http:///events", ""),
        ("http://bil ling/", ""),
    ] {
        let error = HttpHandler::new(url, PATIENT, 1, 1).map(|_| ()).expect_err(url).to_string();
        assert!(error.contains(reason), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn the_service_is_asked_for_its_health_and_only_a_2xx_is_well() {
    let service = FakeService::start(|n| match n {
        0 => Reply::Stay(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec()),
        1 => Reply::Stay(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_vec()),
        2 => Reply::Stay(OK.into()),
        _ => Reply::Close(b"nonsense\r\n\r\n".to_vec()),
    })
    .await;
    assert!(service.handler().probe().is_none(), "no health_url is set");
    let health = service.url.replace("/events?token=secret", "/healthz");
    let handler = service.handler().with_health(&health).expect("a good url");
    let ask = || async { handler.probe().expect("it can be asked").await };
    assert_eq!((ask().await, ask().await, ask().await, ask().await), (false, false, true, false));
    assert!(service.request(0).starts_with("GET /healthz HTTP/1.1\r\n"), "{}", service.request(0));
    assert_eq!(service.connections(), 1, "connections are kept");
}

//! An endpoint with tokens.

use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::admin::commands::MAX_AT_ONCE;
use crate::admin::connection::MAX_CONNECTIONS;
use crate::settings::{ByteSize, HandlerSettings, Kafka};

const PAUSE: &str = r#"{"command":"pause","key":"K"}"#;
const COMMANDS: &str = "/handlers/billing/commands";

#[tokio::test]
async fn a_token_of_each_role_opens_what_its_role_may_see_and_probes_need_none() {
    let endpoint = Endpoint::guarded(Admin::default()).await;
    assert_eq!(endpoint.get("/live").await, (200, "live\n".to_owned()));
    assert_eq!(
        endpoint.get("/ready").await,
        (503, r#"{"ready":false}"#.to_owned()),
        "without details for strangers"
    );
    for path in
        ["/metrics", "/supervision", "/handlers/billing/keys", "/handlers/billing/keys/K", "/no/such/path"]
    {
        let stranger = endpoint.ask(&Request::get(path)).await;
        assert_eq!(stranger.status, 401, "{path}: {stranger:?}");
        assert!(stranger.head.contains("www-authenticate: Bearer realm=\"pawl\""), "{stranger:?}");
        assert!(!stranger.body.contains("billing"), "strangers are told nothing: {stranger:?}");
        for token in [READ, OPERATE] {
            let known = endpoint.ask(&Request::get(path).token(token)).await;
            let expected = if path.starts_with("/no") { 404 } else { 200 };
            assert_eq!(known.status, expected, "{path}: {known:?}");
            assert!(known.head.contains("cache-control: no-store"), "{known:?}");
        }
    }
    let ready = endpoint.ask(&Request::get("/ready").token(READ)).await;
    assert!(ready.body.contains("billing"), "{ready:?}");
    // Any name may stand in the header Host: whoever has a token is no page.
    let elsewhere =
        "GET /metrics HTTP/1.1\r\nhost: pawl.internal\r\nauthorization: Bearer read-0123456789abcdef\r\n\r\n";
    assert!(endpoint.send(elsewhere).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_denied_request_is_told_with_who_asked_where_they_are_known() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("audit.jsonl");
    let settings = Admin { audit_file: Some(path.clone()), ..Admin::default() };
    let log = tracing_subscriber::registry().with(audit_file::layer(&settings).unwrap());
    let _logged = tracing::subscriber::set_default(log);
    let endpoint = Endpoint::guarded(Admin::default()).await;
    let change = Request::post(COMMANDS, PAUSE);
    for request in [change.clone(), change.token(READ)] {
        endpoint.ask(&request).await;
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["reason"], lines[0].get("by")), (&"unknown".into(), None), "{text}");
    assert_eq!(lines[1]["reason"], "not-operator", "{text}");
    let by = lines[1]["by"].as_str().unwrap_or_default();
    assert!(by.starts_with("scraper (token) from 127.0.0.1:"), "{text}");
}

#[tokio::test]
async fn wrong_tokens_and_tokens_in_wrong_places_are_refused_and_counted() {
    let endpoint = Endpoint::guarded(Admin::default()).await;
    let metrics = Request::get("/metrics");
    for wrong in ["wrong-0123456789abcdef", "read-0123456789abcde", "", "read-0123456789abcdef x"] {
        let answer = endpoint.ask(&metrics.token(wrong)).await;
        assert_eq!(answer.status, 401, "{wrong}: {answer:?}");
        assert!(answer.head.contains("error=\"invalid_token\""), "{answer:?}");
    }
    let twice = metrics.token(READ).token(OPERATE);
    assert_eq!(endpoint.ask(&twice).await.status, 401);
    assert_eq!(endpoint.ask(&metrics.header("authorization: Basic cmVhZA==")).await.status, 401);
    for path in ["/metrics?access_token=read-0123456789abcdef", "/metrics?token=read-0123456789abcdef"] {
        assert_eq!(endpoint.get(path).await.0, 401, "{path}");
    }
    assert_eq!(
        endpoint.ask(&Request::get("/live").token("nonsense")).await.status,
        200,
        "a probe is a probe"
    );
    let seen = endpoint.ask(&metrics.token(READ)).await.body;
    assert!(seen.contains("\npawl_admin_denied_total{reason=\"wrong-token\"} 6\n"), "{seen}");
    assert!(seen.contains("\npawl_admin_denied_total{reason=\"unknown\"} 2\n"), "{seen}");
}

#[tokio::test]
async fn commands_take_an_operator_json_a_handler_and_no_page() {
    let endpoint = Endpoint::guarded(Admin { max_body: ByteSize::kib(1), ..Admin::default() }).await;
    let post = |body: &str| Request::post(COMMANDS, body);
    let (reader, stranger) = (endpoint.ask(&post(PAUSE).token(READ)).await, endpoint.ask(&post(PAUSE)).await);
    assert_eq!((reader.status, stranger.status), (403, 401));
    assert!(
        reader.head.contains("insufficient_scope") && reader.body.contains("operator role"),
        "{reader:?}"
    );
    let ask = async |request: Request| endpoint.ask(&request.token(OPERATE)).await;
    let page = ask(post(PAUSE).header("origin: https://pawl.example")).await;
    assert!(page.status == 403 && page.body.contains("Origin"), "{page:?}");
    let form = Request {
        headers: vec!["host: x".into(), "content-type: text/plain".into(), "content-length: 2".into()],
        ..post("{}")
    };
    assert_eq!(ask(form.clone()).await.status, 415);
    assert_eq!(ask(post(PAUSE).header("content-encoding: gzip")).await.status, 415);
    let wrong = ask(post(r#"{"command":"fly"}"#)).await;
    assert!(wrong.status == 400 && wrong.body.contains("docs/admin.md"), "{wrong:?}");
    assert_eq!(ask(Request::post("/handlers/shipping/commands", PAUSE)).await.status, 404);
    assert_eq!(ask(Request::post("/metrics", "")).await.status, 405);
    assert_eq!(ask(Request::get(COMMANDS)).await.status, 405);
}

#[tokio::test]
async fn a_body_beyond_its_bound_is_refused_whether_its_length_is_told_or_not() {
    let endpoint = Endpoint::guarded(Admin { max_body: ByteSize::kib(1), ..Admin::default() }).await;
    let long = Request::post(COMMANDS, &" ".repeat(1025)).token(OPERATE);
    assert_eq!(endpoint.ask(&long).await.status, 413);
    let headers = ["host: x", "content-type: application/json", "transfer-encoding: chunked"];
    let chunk = format!("401\r\n{}\r\n0\r\n\r\n", " ".repeat(1025));
    let unmeasured = Request { headers: headers.map(str::to_owned).to_vec(), body: chunk, ..long };
    assert_eq!(endpoint.ask(&unmeasured.token(OPERATE)).await.status, 413);
}

#[tokio::test]
async fn a_request_that_has_come_keeps_its_place() {
    let endpoint = Endpoint::guarded(Admin::default()).await;
    let request = Request::post(COMMANDS, "{}").token(OPERATE).header("expect: 100-continue").text();
    let (head, body) = request.split_at(request.len() - "{}".len());
    let mut stream = endpoint.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    timeout(PATIENT, stream.read_exact(&mut go_on)).await.expect("it reads the body").unwrap();
    let mut silent = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        silent.push(endpoint.connect().await);
    }
    assert_eq!(endpoint.get("/live").await.0, 200, "all before it have been taken in");
    assert_eq!(Answer::of(&exchange(stream, body).await).status, 400, "no command");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_probes_are_answered_all_the_same() {
    let endpoint = Endpoint::guarded(Admin { requests_per_second: 1, burst: 2, ..Admin::default() }).await;
    // At a request a second no machine is so slow that 50 of them pass.
    let mut denied = None;
    for _ in 0..50 {
        let answer = endpoint.ask(&Request::get("/metrics").token(READ)).await;
        if answer.status == 429 {
            denied = Some(answer);
            break;
        }
    }
    let denied = denied.expect("too many");
    assert!(
        denied.head.contains("retry-after: 1") && denied.body.contains("requests_per_second"),
        "{denied:?}"
    );
    assert_eq!(endpoint.get("/live").await.0, 200);
}

#[tokio::test]
async fn commands_at_once_are_bounded() {
    // A broker that takes connections and says nothing: whoever asks it waits for kafka.request_timeout.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = silent.local_addr().unwrap().to_string();
    let kafka = Kafka { bootstrap_servers: vec![broker], ..Kafka::default() };
    let handler =
        [("billing".to_owned(), HandlerSettings { topic: "orders".into(), ..HandlerSettings::default() })];
    let admin = Admin { operator_token: Some(Secret::new(OPERATE)), ..Admin::default() };
    let settings = Settings { kafka, handler: handler.into(), admin, ..Settings::default() };
    let endpoint = Endpoint::start_with("127.0.0.1:0", REQUEST_TIMEOUT, settings).await;
    let request = Request::post(COMMANDS, PAUSE).token(OPERATE);
    let asking = (0..=MAX_AT_ONCE).map(|_| Box::pin(endpoint.ask(&request)));
    let (first, ..) = futures_util::future::select_all(asking).await;
    assert!(first.status == 503 && first.body.contains("under way already"), "{first:?}");
    assert!(first.head.contains("retry-after: 1"), "{first:?}");
}

//! An endpoint without tokens, for this machine only.

use pawl_actors::clock::now;
use pawl_actors::record::Partition;
use pawl_actors::stats::{PartitionPhase, Restart};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::admin::connection::{MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_HEADERS};
use crate::admin::{open, supervision};

#[tokio::test]
async fn a_process_is_live_before_it_is_ready() {
    let endpoint = Endpoint::start().await;
    assert_eq!(endpoint.get("/live").await, (200, "live\n".to_owned()));
    assert_eq!(endpoint.get("/ready").await.0, 503);
}

#[tokio::test]
async fn ready_names_each_partition_and_what_it_waits_for() {
    let endpoint = Endpoint::start().await;
    endpoint.stats.rebalances.add(1);
    let partition = endpoint.stats.assigned(Partition(3));
    partition.set_phase(PartitionPhase::Restoring);
    partition.restore_left.set(7);
    let (status, body) = endpoint.get("/ready").await;
    let expect = serde_json::json!({
        "ready": false,
        "handlers": [{
            "name": "billing", "group": "accounts", "topic": "orders", "ready": false,
            "partitions": [{
                "partition": 3, "phase": "restoring", "lag": null, "parked": 0, "ready": false,
                "reason": "the ledger is being read from the changelog, about 7 records left",
            }],
        }],
    });
    assert_eq!((status, serde_json::from_str::<serde_json::Value>(&body).unwrap()), (503, expect));

    partition.set_phase(PartitionPhase::Running);
    partition.watermark.set(10);
    partition.end.set(12);
    partition.last_progress.set(now().0);
    let (status, body) = endpoint.get("/ready").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ready"]), (200, &serde_json::json!(true)));
    assert_eq!(body["handlers"][0]["partitions"][0]["lag"], 2);

    partition.last_progress.set(now().0 - 61_000);
    assert_eq!(endpoint.get("/ready").await.0, 503);
}

#[tokio::test]
async fn metrics_are_open_metrics_text() {
    let endpoint = Endpoint::start().await;
    endpoint.stats.applied.add(7);
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3";
    let answer =
        endpoint.send(&format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n")).await;
    assert!(answer.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.contains("\npawl_records_applied_total{handler=\"billing\"} 7\n"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn metrics_are_the_older_text_for_whoever_asks_for_nothing() {
    let endpoint = Endpoint::start().await;
    endpoint.stats.applied.add(7);
    let answer = endpoint.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\n# TYPE pawl_records_applied_total counter\n"), "{answer}");
    assert!(answer.contains("\npawl_records_applied_total{handler=\"billing\"} 7\n"), "{answer}");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let endpoint = Endpoint::start().await;
    assert_eq!(endpoint.get("/").await.0, 404);
    let answer = endpoint.send("POST /ready HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn requests_beyond_the_bounds_are_refused() {
    let endpoint = Endpoint::start().await;
    let long = "x".repeat(MAX_HEAD_BYTES + 1);
    let many = "x: y\r\n".repeat(MAX_HEADERS + 1);
    for request in
        [format!("GET /live HTTP/1.1\r\nx: {long}\r\n\r\n"), format!("GET /live HTTP/1.1\r\n{many}\r\n")]
    {
        let answer = endpoint.send(&request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert_eq!(endpoint.get("/live").await.0, 200);
}

#[tokio::test]
async fn clients_that_send_nothing_make_room_for_whoever_does() {
    let endpoint = Endpoint::start_within(10 * PATIENT).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(endpoint.connect().await);
    }
    assert_eq!(endpoint.get("/live").await.0, 200);
}

#[tokio::test]
async fn clients_that_send_nothing_or_no_whole_head_are_closed() {
    let endpoint = Endpoint::start_within(Duration::from_millis(100)).await;
    for sent in ["", "GET /live HTTP/1.1\r\nhost:"] {
        assert_eq!(endpoint.send(sent).await, "", "{sent:?}");
    }
}

#[tokio::test]
async fn the_endpoint_ends_with_the_process() {
    let endpoint = Endpoint::start().await;
    endpoint.shutdown.send(()).unwrap();
    timeout(PATIENT, endpoint.task).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(endpoint.address).await.is_err());
}

#[tokio::test]
async fn a_taken_address_is_named_with_the_remedy() {
    let endpoint = Endpoint::start().await;
    let error = open(endpoint.address, &Admin::default()).await.err().expect("it is taken").to_string();
    assert!(error.contains(&endpoint.address.to_string()) && error.contains("admin.listen"), "{error}");
}

#[tokio::test]
async fn keys_are_told_of_known_handlers_and_only_of_partitions_that_run() {
    let endpoint = Endpoint::start().await;
    let (status, body) = endpoint.get("/handlers/shipping/keys").await;
    assert_eq!(status, 404);
    assert!(body.contains("no handler \\\"shipping\\\" in this process; there is billing"), "{body}");
    let (status, body) = endpoint.get("/handlers/billing/keys?limit=5000").await;
    assert_eq!((status, body.as_str()), (400, r#"{"error":"limit is 1 to 1000"}"#));
    endpoint.stats.assigned(Partition(4)).set_phase(PartitionPhase::Restoring);
    let held = r#"{"partitions":[{"partition":4,"phase":"restoring"}],"#;
    let empty = (200, format!(r#"{held}"keys":[],"next":null}}"#));
    assert_eq!(endpoint.get("/handlers/billing/keys").await, empty);
    for path in ["keys/K", "keys/%ff%2f", "keys/", "unkeyed"] {
        let nothing = (200, format!(r#"{held}"found":[]}}"#));
        assert_eq!(endpoint.get(&format!("/handlers/billing/{path}")).await, nothing, "{path}");
    }
}

#[tokio::test]
async fn the_tree_tells_what_was_begun_anew() {
    let endpoint = Endpoint::start().await;
    let stats = &endpoint.stats;
    stats.assigned(Partition(3)).set_careful(Some("3 owners ended".into()));
    stats.restarts.note(Restart {
        at: 5,
        partition: Some(Partition(3)),
        actor: "the order actor",
        key: Some("A".into()),
        why: "panicked".into(),
    });
    let (status, body) = endpoint.get("/supervision").await;
    let tree: supervision::Supervision = serde_json::from_str(&body).unwrap();
    let handler = &tree.handlers[0];
    assert_eq!((status, handler.restarts, handler.partitions[0].restarts), (200, 1, 1));
    assert_eq!(handler.partitions[0].careful.as_deref(), Some("3 owners ended"));
    let last = &handler.last_restarts[0];
    assert_eq!((last.key.as_deref(), last.why.as_str()), (Some("A"), "panicked"));
}

#[tokio::test]
async fn a_page_that_has_its_own_name_resolved_to_this_machine_is_told_nothing() {
    let endpoint = Endpoint::start().await;
    for host in ["host: evil.example:9464\r\n", "host: localhost\r\nhost: evil.example\r\n", ""] {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{host}\r\n");
        let answer = endpoint.send(&get("/handlers/billing/keys")).await;
        let expected = if host.is_empty() { "HTTP/1.1 400 " } else { "HTTP/1.1 403 " };
        assert!(answer.starts_with(expected), "{host:?}: {answer}");
        let answer = endpoint.send(&get("/ready")).await;
        assert!(answer.ends_with(r#"{"ready":false}"#), "{host:?}: {answer}");
    }
    let absolute = "GET http://evil.example/metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert!(endpoint.send(absolute).await.starts_with("HTTP/1.1 403 "), "the place of a request wins");
}

#[tokio::test]
async fn nobody_changes_anything_where_there_is_no_operator() {
    let endpoint = Endpoint::start().await;
    let command = Request::post("/handlers/billing/commands", r#"{"command":"pause","key":"K"}"#);
    let answer = endpoint.ask(&command).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("admin.operator_token_file"), "{answer:?}");
    let page = endpoint.ask(&command.header("origin: http://localhost:9464")).await;
    assert_eq!(page.status, 403, "{page:?}");
}

#[tokio::test]
async fn others_than_this_machine_are_told_nothing_without_a_token_whoever_opened_the_endpoint() {
    let endpoint = Endpoint::start_on("0.0.0.0:0", PATIENT, Admin::default()).await;
    for path in ["/metrics", "/supervision", "/handlers/billing/keys"] {
        let (status, why) = endpoint.get(path).await;
        assert_eq!(status, 403, "{path}");
        assert!(why.contains("admin.read_token_file"), "{why}");
    }
    assert_eq!(endpoint.get("/live").await.0, 200);
}

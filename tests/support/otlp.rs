//! An OTLP receiver: real HTTP, protobuf or JSON decoded, every span kept.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use prost::Message;
use serde_json::Value;
use tokio::sync::oneshot;

use super::wait::until;

/// A span as the receiver got it; ids in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub service: String,
    pub name: String,
    /// As OTLP numbers them: 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i64,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
    /// Spans that it has links to: trace and span.
    pub links: Vec<(String, String)>,
    /// 2 is an error.
    pub status: i64,
}

impl Span {
    /// An attribute as text; empty where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Default)]
struct Inner {
    spans: Mutex<Vec<Span>>,
    metrics: Mutex<Vec<Metric>>,
    headers: Mutex<Vec<HeaderMap>>,
    refuses: AtomicBool,
}

/// The receiver; it stops when dropped.
pub struct Collector {
    port: u16,
    inner: Arc<Inner>,
    stop: Option<oneshot::Sender<()>>,
}

impl Collector {
    pub fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let inner = Arc::new(Inner::default());
        let (stop, stopped) = oneshot::channel();
        let shared = inner.clone();
        let serve = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
                let app = axum::Router::new().fallback(receive).with_state(shared);
                tokio::select! {
                    served = async { axum::serve(listener, app).await } => served.expect("the socket stays open"),
                    _ = stopped => {}
                }
            });
        };
        std::thread::Builder::new().name("otlp".into()).spawn(serve).expect("a thread can be started");
        Collector { port, inner, stop: Some(stop) }
    }

    /// The base URL, as OTEL_EXPORTER_OTLP_ENDPOINT has it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on it answers 503, or what it should.
    pub fn refuse(&self, refuses: bool) {
        self.inner.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        self.inner.spans.lock().expect("no holder panics").clone()
    }

    /// Every metric of every message so far.
    pub fn metrics(&self) -> Vec<Metric> {
        self.inner.metrics.lock().expect("no holder panics").clone()
    }

    /// The headers of every request so far.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.inner.headers.lock().expect("no holder panics").clone()
    }

    /// The first span that matches, once it is there.
    pub fn wait(&self, what: &str, matching: impl Fn(&Span) -> bool) -> Span {
        until(what, Duration::from_secs(60), || self.spans().into_iter().find(&matching))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Gone when the thread has ended already.
            let _ = stop.send(());
        }
    }
}

async fn receive(State(inner): State<Arc<Inner>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    if inner.refuses.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let json = headers.get("content-type").is_some_and(|kind| kind == "application/json");
    inner.headers.lock().expect("no holder panics").push(headers);
    match (uri.path(), json) {
        ("/v1/traces", true) => {
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            inner.spans.lock().expect("no holder panics").extend(spans_of_json(&message));
        }
        ("/v1/traces", false) => {
            let message = ExportTraceServiceRequest::decode(body).expect("a protobuf message of OTLP");
            inner.spans.lock().expect("no holder panics").extend(spans(message));
        }
        ("/v1/metrics", false) => {
            let message = ExportMetricsServiceRequest::decode(body).expect("a protobuf message of OTLP");
            let scopes = message.resource_metrics.into_iter().flat_map(|one| one.scope_metrics);
            inner.metrics.lock().expect("no holder panics").extend(scopes.flat_map(|scope| scope.metrics));
        }
        _ => return StatusCode::NOT_FOUND,
    }
    StatusCode::OK
}

fn spans(message: ExportTraceServiceRequest) -> Vec<Span> {
    let mut all = Vec::new();
    for of_resource in message.resource_spans {
        let resource = attributes(&of_resource.resource.unwrap_or_default().attributes);
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.extend(spans.map(|span| Span {
            service: resource.get("service.name").cloned().unwrap_or_default(),
            name: span.name,
            kind: span.kind.into(),
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            attributes: attributes(&span.attributes),
            links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
            status: span.status.map_or(0, |status| status.code.into()),
        }));
    }
    all
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

/// Spans of a message in OTLP's JSON, as collectors write it into files.
pub fn spans_of_json(message: &Value) -> Vec<Span> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for of_resource in list(&message["resourceSpans"]) {
        let resource = attributes_of_json(&of_resource["resource"]["attributes"]);
        let scopes = list(&of_resource["scopeSpans"]);
        for span in scopes.iter().flat_map(|scope| list(&scope["spans"])) {
            all.push(Span {
                service: resource.get("service.name").cloned().unwrap_or_default(),
                name: text(&span["name"]),
                kind: span["kind"].as_i64().unwrap_or_default(),
                trace: text(&span["traceId"]),
                id: text(&span["spanId"]),
                parent: text(&span["parentSpanId"]),
                attributes: attributes_of_json(&span["attributes"]),
                links: list(&span["links"])
                    .iter()
                    .map(|link| (text(&link["traceId"]), text(&link["spanId"])))
                    .collect(),
                status: span["status"]["code"].as_i64().unwrap_or_default(),
            });
        }
    }
    all
}

fn attributes_of_json(pairs: &Value) -> BTreeMap<String, String> {
    let shown = |value: &Value| {
        let only = value.as_object().and_then(|value| value.values().next()).cloned().unwrap_or_default();
        only.as_str().map_or_else(|| only.to_string(), str::to_owned)
    };
    let pairs = pairs.as_array().into_iter().flatten();
    pairs.map(|pair| (pair["key"].as_str().unwrap_or_default().to_owned(), shown(&pair["value"]))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! `[telemetry]`: what leaves the process about itself. All of it is off by default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// Traces and metrics that Pawl sends, beside /metrics, which others fetch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The name that traces and metrics carry as service.name. Default: that of OTEL_SERVICE_NAME, else pawl.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Further attributes of the resource, as in { "deployment.environment.name" = "production" }; they win over
    /// those of OTEL_RESOURCE_ATTRIBUTES. At most 64. Default: none.
    pub resource: BTreeMap<String, String>,
    /// Traces and metrics for an OpenTelemetry collector, as OTLP over HTTP (protobuf).
    pub otlp: Otlp,
    /// Metrics for CloudWatch, as lines on standard output.
    pub emf: Emf,
}

/// Where OTLP goes, and how much of it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// The collector's base URL, as in "http://collector:4318"; v1/traces and v1/metrics are added. Default: that of
    /// OTEL_EXPORTER_OTLP_ENDPOINT (or of OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT);
    /// without any of them nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A file with headers for the endpoint, one name=value a line, values percent-encoded. Default: those of
    /// OTEL_EXPORTER_OTLP_HEADERS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// Whether traces are sent, once there is an endpoint. Default: true.
    pub traces: bool,
    /// Whether metrics are sent: those of /metrics, with the same names. Default: false.
    pub metrics: bool,
    /// The part of the traces that begin with Pawl which is recorded. A record that belongs to a trace already is
    /// recorded if its producer records it. Bounds: 0 to 1. Default: 1.
    pub sampling_ratio: f64,
    /// Spans that wait to be sent, at most. What finds no room is dropped and counted in
    /// pawl_telemetry_spans_dropped_total; records never wait. Bounds: 1 to 1000000. Default: 8192.
    pub queue_spans: u32,
    /// Spans of one request, at most. Bounds: 1 to 10000. Default: 512.
    pub batch_spans: u32,
    /// How long spans are gathered for one request. Bounds: 10ms to 1m. Default: 1s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub export_interval: Duration,
    /// How often metrics are sent. Bounds: 1s to 1h. Default: 1m.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub metrics_interval: Duration,
    /// How long a request may take, and (2s at most) the end of the process waits for what is queued.
    /// Bounds: 100ms to 1m. Default: 5s.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub timeout: Duration,
}

/// CloudWatch's embedded metric format: ECS scales by what a container writes to its log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Emf {
    /// The namespace of the metrics in CloudWatch, 1 to 256 characters. Default: none, and nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// How often a line is written for each handler. A period of an alarm should hold one line of each instance at
    /// least. Bounds: 1s to 1h. Default: 1m.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub interval: Duration,
}

impl Default for Otlp {
    fn default() -> Self {
        Otlp {
            endpoint: None,
            headers_file: None,
            traces: true,
            metrics: false,
            sampling_ratio: 1.0,
            queue_spans: 8_192,
            batch_spans: 512,
            export_interval: Duration::from_secs(1),
            metrics_interval: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Emf {
    fn default() -> Self {
        Emf { namespace: None, interval: Duration::from_secs(60) }
    }
}

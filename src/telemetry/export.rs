//! The thread that sends: spans in batches as they come, metrics at an interval.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::destination::{Destination, TelemetryError};
use super::openmetrics;
use super::post::{NotTaken, Part, Poster};
use super::stats::TelemetryStats;
use crate::settings::Otlp;

/// Tells the process's metrics, in OpenMetrics text.
pub type MetricsText = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// How often a batch is sent that is not taken, and how long is waited before that: the queue fills meanwhile.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// The longest of these waits, whatever an endpoint asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long the end of the process waits, at most: platforms kill soon after the drain's own deadline.
const LONGEST_END: Duration = Duration::from_secs(2);

/// What the thread needs.
pub struct Parts {
    pub settings: Otlp,
    pub destination: Destination,
    pub resource: Resource,
    pub spans: Receiver<SpanData>,
    pub metrics: Option<MetricsText>,
    pub stats: Arc<TelemetryStats>,
}

/// The thread, while it runs.
pub struct Exporter {
    stop: watch::Sender<bool>,
    stopped: mpsc::Receiver<()>,
}

impl Exporter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started, or has nothing to speak TLS with.
    pub fn start(parts: Parts) -> Result<Exporter, TelemetryError> {
        let poster = Arc::new(Poster::new(&parts.destination, parts.settings.timeout)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| TelemetryError::Start(error.to_string()))?;
        let (stop, stopping) = watch::channel(false);
        let (tell, stopped) = mpsc::channel();
        let work = move || {
            runtime.block_on(run(parts, poster, stopping));
            // Nobody listens any more once the time for it is over.
            let _ = tell.send(());
        };
        let started = thread::Builder::new().name("pawl-telemetry".into()).spawn(work);
        started.map_err(|error| TelemetryError::Start(error.to_string()))?;
        Ok(Exporter { stop, stopped })
    }

    /// Has what is queued sent, for as long as `timeout` and 2 seconds at most.
    pub fn stop(self, timeout: Duration) {
        self.stop.send_replace(true);
        // What is not sent by then is lost with the process.
        let _ = self.stopped.recv_timeout(timeout.min(LONGEST_END));
    }
}

async fn run(parts: Parts, poster: Arc<Poster>, stopping: watch::Receiver<bool>) {
    let Parts { settings, destination, resource, spans, metrics, stats } = parts;
    let of = || ResourceAttributesWithSchema::from(&resource);
    let measuring = destination.metrics.zip(metrics).map(|(url, text)| Metrics {
        url,
        text,
        began: SystemTime::now(),
        every: settings.metrics_interval,
        resource: of(),
        poster: poster.clone(),
        trouble: Trouble::new("metrics"),
    });
    let measuring = measuring.map(|metrics| metrics.run(stopping.clone()));
    let tracing = destination.traces.map(|url| {
        let trouble = Trouble::new("spans");
        Spans { url, settings, resource: of(), spans, poster, stats, stopping, trouble }.run()
    });
    let maybe = |future: Option<_>| futures_util::future::OptionFuture::from(future);
    tokio::join!(
        maybe(tracing.map(|it| Box::pin(it) as Task)),
        maybe(measuring.map(|it| Box::pin(it) as Task))
    );
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()>>>;

struct Spans {
    url: hyper::Uri,
    settings: Otlp,
    resource: ResourceAttributesWithSchema,
    spans: Receiver<SpanData>,
    poster: Arc<Poster>,
    stats: Arc<TelemetryStats>,
    stopping: watch::Receiver<bool>,
    trouble: Trouble,
}

impl Spans {
    async fn run(mut self) {
        loop {
            let stopped = self.stops();
            let batch = if stopped { self.rest() } else { self.batch().await };
            if !batch.is_empty() {
                self.send(batch).await;
            } else if stopped {
                return;
            }
        }
    }

    /// Whether it was told to stop, or nobody is there to tell it.
    fn stops(&self) -> bool {
        *self.stopping.borrow() || self.stopping.has_changed().is_err()
    }

    /// The next batch: full, or what came within the interval, or before the end.
    async fn batch(&mut self) -> Vec<SpanData> {
        let most = self.settings.batch_spans as usize;
        let mut batch = Vec::new();
        let first = tokio::select! {
            first = self.spans.recv() => first,
            _ = self.stopping.wait_for(|stopping| *stopping) => None,
        };
        batch.extend(first);
        let deadline = Instant::now() + self.settings.export_interval;
        while !batch.is_empty() && batch.len() < most && !self.stops() {
            let next = tokio::select! {
                next = timeout_at(deadline, self.spans.recv()) => next,
                _ = self.stopping.wait_for(|stopping| *stopping) => break,
            };
            match next {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    fn rest(&mut self) -> Vec<SpanData> {
        let next = std::iter::from_fn(|| self.spans.try_recv().ok());
        next.take(self.settings.batch_spans as usize).collect()
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let message = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let mut pauses = PAUSES.iter();
        loop {
            let error = match self.poster.post(&self.url, message.clone()).await {
                Ok(Part { rejected, why }) => {
                    let rejected = rejected.min(count);
                    self.stats.sent.add(count - rejected);
                    self.stats.not_taken.add(rejected);
                    return if rejected > 0 { self.tell(&why) } else { self.trouble.over() };
                }
                Err(error) => error,
            };
            self.tell(&error);
            // A process that ends has no time to wait.
            let NotTaken::Again { after, .. } = error else { break };
            let Some(pause) = pauses.next().filter(|_| !self.stops()) else { break };
            let pause = asked(*pause, after);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopping.wait_for(|stopping| *stopping) => {}
            }
        }
        self.stats.not_taken.add(count);
    }

    fn tell(&mut self, error: &dyn Display) {
        let lost = self.stats.dropped();
        self.trouble
            .tell(error, &format!("{lost} spans are lost so far (pawl_telemetry_spans_dropped_total)"));
    }
}

/// As long as the endpoint asks for, within bounds.
fn asked(pause: Duration, after: Option<Duration>) -> Duration {
    after.map_or(pause, |after| after.clamp(pause, LONGEST_PAUSE))
}

struct Metrics {
    url: hyper::Uri,
    text: MetricsText,
    began: SystemTime,
    every: Duration,
    resource: ResourceAttributesWithSchema,
    poster: Arc<Poster>,
    trouble: Trouble,
}

impl Metrics {
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval_at(Instant::now() + self.every, self.every);
        // A time that was missed is not made up for.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = ticks.tick() => false,
                _ = stopping.wait_for(|stopping| *stopping) => true,
            };
            self.send().await;
            if last {
                return;
            }
        }
    }

    async fn send(&mut self) {
        let Some(text) = (self.text)() else { return };
        let resource_metrics =
            openmetrics::resource_metrics(&text, &self.resource, self.began, SystemTime::now());
        let message =
            ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }.encode_to_vec();
        match self.poster.post(&self.url, message.into()).await {
            Ok(Part { rejected: 0, .. }) => self.trouble.over(),
            Ok(Part { why, .. }) => self.trouble.tell(&why, "the others are taken"),
            // The next ones say all that these do.
            Err(error) => self.trouble.tell(&error, "the next ones are sent all the same"),
        }
    }
}

/// Tells once that something cannot be sent, and once that it can again.
struct Trouble {
    what: &'static str,
    told: bool,
}

impl Trouble {
    fn new(what: &'static str) -> Self {
        Trouble { what, told: false }
    }

    fn tell(&mut self, error: &dyn Display, consequence: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                "telemetry: {} cannot be sent: {error}; {consequence}. Records are not held up",
                self.what
            );
        }
    }

    fn over(&mut self) {
        if std::mem::take(&mut self.told) {
            tracing::info!("telemetry: {} are sent again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn span() -> SpanData {
        SpanData {
            span_context: SpanContext::NONE,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "span".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: Default::default(),
        }
    }

    /// An endpoint that answers one request by this and closes the connection.
    async fn endpoint(answer: Vec<u8>) -> hyper::Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8 << 10];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(&answer).await.unwrap();
        });
        url.parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_rejected_of_a_batch_counts_as_lost() {
        let partial_success =
            Some(ExportTracePartialSuccess { rejected_spans: 2, error_message: "too old".into() });
        let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let url = endpoint([head.into_bytes(), body].concat()).await;
        let destination = Destination { traces: Some(url.clone()), metrics: None, headers: Vec::new() };
        let stats = Arc::<TelemetryStats>::default();
        let (_stop, stopping) = watch::channel(false);
        let mut spans = Spans {
            url,
            settings: Otlp::default(),
            resource: ResourceAttributesWithSchema::default(),
            spans: tokio::sync::mpsc::channel(1).1,
            poster: Arc::new(Poster::new(&destination, Duration::from_secs(20)).unwrap()),
            stats: stats.clone(),
            stopping,
            trouble: Trouble::new("spans"),
        };
        spans.send(vec![span(), span(), span()]).await;
        assert_eq!((stats.sent.get(), stats.not_taken.get()), (1, 2));
        assert!(spans.trouble.told);
    }

    #[test]
    fn a_pause_is_as_long_as_the_endpoint_asks_for_within_a_bound() {
        let seconds = Duration::from_secs;
        for (after, expected) in [(None, 2), (Some(1), 2), (Some(7), 7), (Some(3600), 10)] {
            assert_eq!(asked(seconds(2), after.map(seconds)), seconds(expected), "{after:?}");
        }
        assert!(PAUSES.iter().all(|pause| *pause <= LONGEST_PAUSE));
    }
}

//! Traces and metrics over OTLP, and metrics as CloudWatch's embedded metric format.
//!
//! The actors know nothing of it. A decorator around the handler ([`Traced`]) makes a span of each attempt, the
//! `http` handler one of its call ([`CallSpan`]), the writer one of each commit ([`Tracing::committed`]). What is
//! switched off is not there: no decorator, no thread, no queue. Deliberately absent: anything that waits. A span that
//! finds no room in the queue is counted and dropped.

mod call_span;
mod commit;
pub mod context;
mod destination;
mod emf;
mod export;
mod openmetrics;
mod post;
mod published;
mod sampler;
mod spans;
mod stats;
#[cfg(test)]
mod tests;
mod traced;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

pub use call_span::CallSpan;
pub use commit::Committed;
pub use destination::{Destination, TelemetryError};
pub use emf::Emf;
pub use export::MetricsText;
pub use published::Published;
pub use stats::{Shown, TelemetryStats};
pub use traced::Traced;

use crate::settings::Telemetry as Settings;
use export::Exporter;

/// Makes spans. Clones share one tracer; without one there is no tracing.
#[derive(Clone, Debug)]
pub struct Tracing {
    tracer: SdkTracer,
}

/// What runs while telemetry is switched on: the tracer, and the thread that sends.
#[derive(Default)]
pub struct Telemetry {
    /// `None`: no traces.
    pub tracing: Option<Tracing>,
    exporter: Option<Exporter>,
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts what settings and environment (`OTEL_EXPORTER_OTLP_ENDPOINT` and its kin) ask for; nothing leaves the
    /// machine before the first span. `stats` counts, `metrics` tells the process's metrics as text, where they are to be sent too.
    ///
    /// # Errors
    /// When an endpoint or its headers cannot be used.
    pub fn start(
        settings: &Settings,
        instance: &str,
        stats: &Arc<TelemetryStats>,
        metrics: Option<MetricsText>,
    ) -> Result<Telemetry, TelemetryError> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(destination) = Destination::find(settings, &variable)? else {
            return Ok(Telemetry::default());
        };
        let resource = resource(settings, instance);
        let (processor, spans) = spans::queue(settings.otlp.queue_spans as usize, stats.clone());
        let traces = destination.traces.is_some();
        let metrics = metrics.filter(|_| destination.metrics.is_some());
        if !traces && metrics.is_none() {
            return Ok(Telemetry::default());
        }
        let exporter = Exporter::start(export::Parts {
            settings: settings.otlp.clone(),
            destination,
            resource: resource.clone(),
            spans,
            metrics,
            stats: stats.clone(),
        })?;
        let provider = traces.then(|| {
            SdkTracerProvider::builder()
                .with_sampler(sampler::Ratio::new(settings.otlp.sampling_ratio))
                .with_resource(resource)
                .with_span_processor(processor)
                .build()
        });
        let tracing = provider.as_ref().map(|provider| {
            let scope = InstrumentationScope::builder("pawl").with_version(env!("CARGO_PKG_VERSION")).build();
            Tracing { tracer: provider.tracer_with_scope(scope) }
        });
        Ok(Telemetry { tracing, exporter: Some(exporter), provider })
    }

    /// Sends what is queued, for as long as `timeout` and 2 seconds at most, and ends. Blocks.
    pub fn stop(self, timeout: Duration) {
        if let Some(exporter) = self.exporter {
            exporter.stop(timeout);
        }
        drop(self.provider);
    }
}

/// Who sends: the settings win over `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, which the SDK reads.
fn resource(settings: &Settings, instance: &str) -> Resource {
    // What the SDK says where nobody names the service.
    let unknown = |name: &str| name.starts_with("unknown_service");
    let told = Resource::builder().build().get(&Key::new("service.name")).map(|name| name.to_string());
    let name = settings.service_name.clone().or(told.filter(|name| !unknown(name)));
    let pairs = [("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", instance)];
    let pairs = pairs.into_iter().map(|(name, value)| KeyValue::new(name, value.to_owned()));
    let given = settings.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    let builder = Resource::builder().with_attributes(pairs.chain(given));
    builder.with_service_name(name.unwrap_or_else(|| "pawl".to_owned())).build()
}

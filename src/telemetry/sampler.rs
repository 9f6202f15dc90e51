//! Which traces are recorded: a record's trace as its producer has decided, others by a ratio of trace ids.
//!
//! A span that has links and no parent (that of an epoch commit) is recorded: it is only made where one of the spans
//! that it is linked to is.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Ratio(Sampler);

impl Ratio {
    /// Of traces that begin here this part is recorded, 0 to 1.
    pub fn new(ratio: f64) -> Self {
        Ratio(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
    }
}

impl ShouldSample for Ratio {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let has_parent = parent.is_some_and(|parent| parent.span().span_context().is_valid());
        let always = !has_parent && links.iter().any(|link| link.span_context.is_sampled());
        let sampler = if always { &Sampler::AlwaysOn } else { &self.0 };
        sampler.should_sample(parent, trace_id, name, span_kind, attributes, links)
    }
}

//! The span of an epoch commit, with a link to the spans of the attempts whose results it made durable.

use std::time::SystemTime;

use opentelemetry::trace::{Link, Span, SpanKind, Tracer};
use opentelemetry::{Context, KeyValue};
use pawl_actors::trace::Trace;

use super::{Tracing, context};

/// Links of one span, at most; the SDK's own limit.
const MAX_LINKS: usize = 128;

/// An epoch commit that is over.
#[derive(Clone, Debug)]
pub struct Committed<'a> {
    /// Name of the handler.
    pub handler: &'a str,
    /// Its consumer group.
    pub group: &'a str,
    /// Its input topic.
    pub topic: &'a str,
    /// When its first epoch was taken.
    pub began: SystemTime,
    /// Epochs that it took in.
    pub epochs: usize,
    /// Records that were written: emitted ones, dead letters, rows.
    pub writes: usize,
}

impl Tracing {
    /// Tells of an epoch commit; of none whose records nobody traces.
    pub fn committed<'a>(&self, commit: &Committed<'_>, traces: impl Iterator<Item = &'a Trace>) {
        let links = traces.filter(|trace| trace.sampled).take(MAX_LINKS);
        let links: Vec<Link> =
            links.map(|trace| Link::new(context::span_context(trace), Vec::new(), 0)).collect();
        if links.is_empty() {
            return;
        }
        let builder = self
            .tracer
            .span_builder(format!("commit {}", commit.topic))
            .with_kind(SpanKind::Client)
            .with_start_time(commit.began)
            .with_links(links)
            .with_attributes([
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.type", "settle"),
                KeyValue::new("messaging.operation.name", "commit"),
                KeyValue::new("messaging.destination.name", commit.topic.to_owned()),
                KeyValue::new("messaging.consumer.group.name", commit.group.to_owned()),
                KeyValue::new("pawl.handler", commit.handler.to_owned()),
                KeyValue::new("pawl.commit.epochs", commit.epochs as i64),
                KeyValue::new("pawl.commit.writes", commit.writes as i64),
            ]);
        self.tracer.build_with_context(builder, &Context::new()).end();
    }
}

//! The spans of records that `pawl publish` writes: one each, in the trace of its caller if it was given one.

use std::collections::HashMap;
use std::sync::Mutex;

use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use pawl_actors::record::{Header, key_text};

use super::{Tracing, context};

/// Begins a span with each record and ends it when the record is acknowledged or refused. Holds as many as are under
/// way.
pub struct Published {
    tracing: Tracing,
    topic: String,
    /// The span that the command was called in: the variables TRACEPARENT and TRACESTATE, as OpenTelemetry has them.
    caller: Context,
    under_way: Mutex<HashMap<u64, Context>>,
}

impl Published {
    /// For records of this topic.
    pub fn new(tracing: Tracing, topic: &str) -> Self {
        let given = ["TRACEPARENT", "TRACESTATE"].into_iter().zip(context::NAMES);
        let given =
            given.filter_map(|(variable, name)| Some(Header::new(name, std::env::var(variable).ok()?)));
        let caller = context::of_record(&given.collect::<Vec<_>>());
        Published { tracing, topic: topic.to_owned(), caller, under_way: Mutex::default() }
    }

    /// A record of this line is about to be sent; its headers name the span.
    pub fn begin(&self, line: u64, key: Option<&[u8]>, headers: &mut Vec<Header>) {
        let tracer = &self.tracing.tracer;
        let builder = tracer.span_builder(format!("send {}", self.topic)).with_kind(SpanKind::Producer);
        let mut span = tracer.build_with_context(builder, &self.caller);
        span.set_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("messaging.destination.name", self.topic.clone()),
        ]);
        if let Some(key) = key {
            span.set_attribute(KeyValue::new("messaging.kafka.message.key", key_text(Some(key))));
        }
        let context = Context::new().with_span(span);
        context::set(headers, &context);
        self.under_way.lock().expect("no holder panics").insert(line, context);
    }

    /// The record of this line was acknowledged, or refused for this reason.
    pub fn end(&self, line: u64, error: Option<&str>) {
        let context = self.under_way.lock().expect("no holder panics").remove(&line);
        let Some(context) = context else { return };
        let span = context.span();
        if let Some(error) = error {
            span.set_attribute(KeyValue::new("error.type", "not acknowledged"));
            span.set_status(Status::error(error.to_owned()));
        }
        span.end();
    }
}

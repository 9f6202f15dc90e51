//! The decorator around a handler: a span of each attempt, and one of each record that it emits.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for messaging and for Kafka; what they have
//! no word for begins with `pawl.`.

use std::pin::Pin;
use std::sync::Arc;

use opentelemetry::context::FutureExt;
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use pawl_actors::effects::Emit;
use pawl_actors::handler::{Answer, Call, Handler};
use pawl_actors::outcome::{Failure, Outcome};
use pawl_actors::record::key_text;

use super::{Tracing, context};

/// What a span says of its error where an attempt was given up before it had an outcome.
const GIVEN_UP: &str = "given up";

/// See the module's documentation.
pub struct Traced {
    inner: Arc<dyn Handler>,
    tracing: Tracing,
    max_emit_bytes: usize,
}

impl Traced {
    /// Traces a handler. A record that it emits names its span only as far as the topics' size limit,
    /// `max_emit_bytes`, allows: telemetry makes no record too large.
    pub fn new(inner: Arc<dyn Handler>, tracing: Tracing, max_emit_bytes: usize) -> Self {
        Traced { inner, tracing, max_emit_bytes }
    }
}

impl Handler for Traced {
    fn handle(&self, call: Call) -> Answer {
        let parent = context::of_record(&call.record.headers);
        let origin = parent.span().span_context().clone();
        let span = self.tracing.process_span(&call, &parent);
        let context = parent.with_span(span).with_value(self.tracing.clone());
        let attempt = Attempt {
            context: context.clone(),
            origin,
            tracing: self.tracing.clone(),
            max_emit_bytes: self.max_emit_bytes,
            ended: false,
        };
        let answer = {
            let _current = context.clone().attach();
            self.inner.handle(call)
        };
        Answer::Traced(context::trace(&context), Box::new(attempt.follow(answer)))
    }

    fn probe(&self) -> Option<Pin<Box<dyn Future<Output = bool>>>> {
        self.inner.probe()
    }
}

impl Tracing {
    fn process_span(&self, call: &Call, parent: &Context) -> opentelemetry_sdk::trace::Span {
        let (record, source) = (&call.record, &call.source);
        let builder =
            self.tracer.span_builder(format!("process {}", source.topic)).with_kind(SpanKind::Consumer);
        let mut span = self.tracer.build_with_context(builder, parent);
        if !span.is_recording() {
            return span;
        }
        span.set_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.destination.name", source.topic.clone()),
            KeyValue::new("messaging.destination.partition.id", call.partition.to_string()),
            KeyValue::new("messaging.consumer.group.name", source.group.clone()),
            KeyValue::new("messaging.kafka.offset", record.offset.0),
            KeyValue::new("pawl.handler", source.handler.clone()),
            KeyValue::new("pawl.attempt", i64::from(call.attempt)),
            KeyValue::new("pawl.claim", call.claim),
        ]);
        if let Some(key) = &record.key {
            span.set_attribute(KeyValue::new("messaging.kafka.message.key", key_text(Some(&key[..]))));
        }
        match &record.value {
            Some(value) => {
                span.set_attribute(KeyValue::new("messaging.message.body.size", value.len() as i64));
            }
            None => span.set_attribute(KeyValue::new("messaging.kafka.message.tombstone", true)),
        }
        span
    }
}

/// An attempt that is under way. Dropped without an outcome, its span says that it was given up.
struct Attempt {
    context: Context,
    /// The span that the record came from.
    origin: SpanContext,
    tracing: Tracing,
    max_emit_bytes: usize,
    ended: bool,
}

impl Attempt {
    /// Ends the span when the handler's answer is there.
    fn follow(self, answer: Answer) -> Answer {
        match answer {
            Answer::Ready(outcome) => Answer::Ready(self.ended(outcome)),
            Answer::Later(future) => {
                let context = self.context.clone();
                Answer::later(async move {
                    let outcome = future.with_context(context).await;
                    self.ended(outcome)
                })
            }
            Answer::Traced(_, answer) => self.follow(*answer),
        }
    }

    fn ended(mut self, outcome: Outcome) -> Outcome {
        self.ended = true;
        let outcome = match outcome {
            Outcome::Done(mut effects) => {
                effects.emit.iter_mut().for_each(|emit| self.send(emit));
                Outcome::Done(effects)
            }
            Outcome::Failed(failure) => {
                tell_failure(&self.context, &failure);
                Outcome::Failed(failure)
            }
        };
        self.context.span().end();
        outcome
    }

    /// The span of a record that is emitted, whose context it carries from here on. A handler that made a span of its
    /// own has named it in the record: that one is the parent then. Where nothing is recorded there is no span to
    /// name but the attempt's.
    fn send(&self, emit: &mut Emit) {
        let named = context::of_record(&emit.headers);
        let own = named.span().span_context().clone();
        let parent = if own.is_valid() && own != self.origin { &named } else { &self.context };
        if !parent.span().span_context().is_sampled() {
            return self.name(emit, parent);
        }
        let builder =
            self.tracing.tracer.span_builder(format!("send {}", emit.topic)).with_kind(SpanKind::Producer);
        let mut span = self.tracing.tracer.build_with_context(builder, parent);
        span.set_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("messaging.destination.name", emit.topic.clone()),
        ]);
        if let Some(key) = &emit.key {
            span.set_attribute(KeyValue::new("messaging.kafka.message.key", key_text(Some(&key[..]))));
        }
        let context = Context::new().with_span(span);
        self.name(emit, &context);
        context.span().end();
    }

    /// Names a span in a record that is emitted, if that does not make it too large.
    fn name(&self, emit: &mut Emit, context: &Context) {
        let before = emit.headers.clone();
        context::set(&mut emit.headers, context);
        if emit.size() > self.max_emit_bytes {
            emit.headers = before;
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let span = self.context.span();
        span.set_attribute(KeyValue::new("error.type", GIVEN_UP));
        span.set_status(Status::error(
            "given up without an outcome: a time-out, a drain, a rebalance, or a panic",
        ));
        span.end();
    }
}

/// What went wrong, as the conventions want it.
fn tell_failure(context: &Context, failure: &Failure) {
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    span.set_attribute(KeyValue::new("error.type", failure.code));
    span.set_attribute(KeyValue::new("pawl.failure.class", failure.class.name()));
    if let Some(own) = failure.own_code() {
        span.set_attribute(KeyValue::new("pawl.failure.own_code", own.to_owned()));
    }
    span.set_status(Status::error(failure.message.clone()));
}

//! Spans of attempts and of what they emit, without any endpoint.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use pawl_actors::effects::{Effects, Emit, StateChange};
use pawl_actors::handler::{Answer, Call, Handler, Source};
use pawl_actors::outcome::Outcome;
use pawl_actors::record::{Header, Millis, Offset, Partition, Record, TimestampType};
use pawl_actors::trace::Trace;
use tokio::sync::mpsc::Receiver;

use super::commit::Committed;
use super::{Traced, Tracing, context, sampler, spans};
use crate::handlers::from_fn;
use crate::telemetry::TelemetryStats;

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn tracing(ratio: f64) -> (Tracing, Receiver<SpanData>) {
    let (queue, spans) = spans::queue(100, Arc::new(TelemetryStats::default()));
    let provider = SdkTracerProvider::builder().with_sampler(sampler::Ratio::new(ratio));
    let provider = provider.with_span_processor(queue).build();
    (Tracing { tracer: provider.tracer("test") }, spans)
}

fn call(traceparent: Option<&'static str>) -> Call {
    let record = Record {
        offset: Offset(42),
        timestamp: Millis(0),
        timestamp_type: TimestampType::NotAvailable,
        key: Some(Bytes::from_static(b"ORD-1")),
        value: None,
        headers: traceparent.map(|text| Header::new("traceparent", text)).into_iter().collect(),
    };
    Call {
        record: Arc::new(record),
        source: Arc::new(Source {
            handler: "copy".into(),
            topic: "orders".into(),
            topic_id: "id".into(),
            group: "copy".into(),
        }),
        partition: Partition(3),
        attempt: 1,
        claim: 7,
        event_id: None,
        state: None,
    }
}

fn emit(headers: Vec<Header>) -> Emit {
    Emit { topic: "copies".into(), partition: None, key: None, value: None, headers, timestamp: None }
}

/// Emits what it got, with this header more.
fn copying(more: Option<Header>) -> impl Handler {
    from_fn(move |call: Call| {
        let headers = call.record.headers.iter().cloned().chain(more.clone()).collect();
        async move { Outcome::Done(Effects { emit: vec![emit(headers)], state: StateChange::Keep }) }
    })
}

/// The span of an attempt, and what it emitted.
fn attempted(handler: Traced, call: Call) -> (Trace, Vec<Emit>) {
    let Answer::Traced(trace, answer) = handler.handle(call) else { panic!("a decorator names its span") };
    let Answer::Later(future) = *answer else { panic!("a closure's future") };
    match futures_executor::block_on(future) {
        Outcome::Done(effects) => (trace, effects.emit),
        Outcome::Failed(failure) => panic!("{failure:?}"),
    }
}

fn ended(spans: &mut Receiver<SpanData>) -> Vec<SpanData> {
    std::iter::from_fn(|| spans.try_recv().ok()).collect()
}

fn said(emit: &Emit) -> Vec<String> {
    let pairs = emit.headers.iter().filter(|header| header.name == "traceparent");
    pairs.map(|header| String::from_utf8(header.value.clone().unwrap().to_vec()).unwrap()).collect()
}

#[test]
fn what_its_producer_does_not_record_is_not_recorded_and_what_it_emits_says_so() {
    let (tracing, mut spans) = tracing(1.0);
    let handler = Traced::new(Arc::new(copying(None)), tracing, usize::MAX);
    let (trace, emits) = attempted(handler, call(Some(NOT_SAMPLED)));
    assert!(!trace.sampled);
    let expected = format!("00-0af7651916cd43dd8448eb211c80319c-{}-00", trace.span_id);
    assert_eq!(said(&emits[0]), [expected]);
    assert_eq!(ended(&mut spans), []);
}

#[test]
fn a_record_without_a_trace_begins_one_by_the_ratio() {
    for (ratio, recorded) in [(0.0, 0), (1.0, 2)] {
        let (tracing, mut spans) = tracing(ratio);
        let handler = Traced::new(Arc::new(copying(None)), tracing, usize::MAX);
        let (trace, emits) = attempted(handler, call(None));
        assert_eq!((trace.sampled, ended(&mut spans).len()), (recorded > 0, recorded), "{ratio}");
        assert!(said(&emits[0])[0].contains(&trace.trace_id.to_string()), "{emits:?}");
    }
}

#[test]
fn a_span_that_the_handler_has_named_in_what_it_emits_is_the_parent_of_the_send() {
    let (tracing, mut spans) = tracing(1.0);
    let own = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let handler = Traced::new(Arc::new(copying(Some(Header::new("traceparent", own)))), tracing, usize::MAX);
    let (_, emits) = attempted(handler, call(Some(SAMPLED)));
    let sent = ended(&mut spans).into_iter().find(|span| span.span_kind == SpanKind::Producer).unwrap();
    assert_eq!(sent.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(said(&emits[0]).len(), 1, "one span is named: {emits:?}");
    assert!(said(&emits[0])[0].contains(&sent.span_context.span_id().to_string()));
}

#[test]
fn telemetry_makes_no_record_too_large() {
    let bare = emit(Vec::new()).size();
    for (most, named) in [(bare + 65, 0), (bare + 66, 1)] {
        let (tracing, _spans) = tracing(1.0);
        let handler = Traced::new(Arc::new(copying(None)), tracing, most);
        let (_, emits) = attempted(handler, call(None));
        assert_eq!(said(&emits[0]).len(), named, "{most} bytes");
    }
}

#[test]
fn an_attempt_that_is_given_up_says_so() {
    let (tracing, mut spans) = tracing(1.0);
    let waiting = from_fn(|_: Call| std::future::pending::<Outcome>());
    drop(Traced::new(Arc::new(waiting), tracing, usize::MAX).handle(call(Some(SAMPLED))));
    let spans = ended(&mut spans);
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert!(matches!(&spans[0].status, Status::Error { description } if description.contains("given up")));
}

#[test]
fn a_handler_finds_the_span_of_its_attempt_in_its_context() {
    let (tracing, _spans) = tracing(1.0);
    let handler = from_fn(|_: Call| async {
        tokio::task::yield_now().await;
        let current = context::trace(&opentelemetry::Context::current());
        let headers = vec![Header::new("seen", current.span_id.to_string())];
        Outcome::Done(Effects { emit: vec![emit(headers)], state: StateChange::Keep })
    });
    let (trace, emits) = attempted(Traced::new(Arc::new(handler), tracing, usize::MAX), call(Some(SAMPLED)));
    assert_eq!(emits[0].headers[0], Header::new("seen", trace.span_id.to_string()));
}

#[test]
fn a_commit_is_recorded_where_an_attempt_of_it_is_whatever_the_ratio() {
    let (tracing, mut spans) = tracing(0.0);
    let commit = Committed {
        handler: "copy",
        group: "copy",
        topic: "orders",
        began: std::time::SystemTime::now(),
        epochs: 1,
        writes: 2,
    };
    let of = |traceparent| context::trace(&context::of_record(&[Header::new("traceparent", traceparent)]));
    tracing.committed(&commit, [].iter());
    tracing.committed(&commit, [of(NOT_SAMPLED)].iter());
    assert_eq!(ended(&mut spans), []);
    tracing.committed(&commit, std::iter::repeat_n(&of(SAMPLED), 1_000));
    let spans = ended(&mut spans);
    assert_eq!((spans.len(), spans[0].links.len()), (1, 128), "links are bounded");
}

#[test]
fn a_span_that_finds_the_queue_full_is_counted_and_nobody_waits() {
    let stats = Arc::new(TelemetryStats::default());
    let (queue, _spans) = spans::queue(2, stats.clone());
    let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
    let tracing = Tracing { tracer: provider.tracer("test") };
    for _ in 0..5 {
        drop(Traced::new(Arc::new(copying(None)), tracing.clone(), usize::MAX).handle(call(Some(SAMPLED))));
    }
    assert_eq!((stats.queue_full.get(), stats.dropped()), (3, 3));
}

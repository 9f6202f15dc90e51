//! W3C Trace Context in the headers of Kafka records (and of calls): read, and replaced by that of a span.
//!
//! Deliberately absent: `baggage`, which is nobody's but the application's. It stays where it is, byte for byte.

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use pawl_actors::record::Header;
use pawl_actors::trace::{SpanId, Trace, TraceId};

/// The names of the headers that say to which span something belongs.
pub const NAMES: [&str; 2] = ["traceparent", "tracestate"];

/// What a record's headers say of the span that it comes from; an empty context where they say nothing, or
/// something that Trace Context does not allow.
pub fn of_record(headers: &[Header]) -> Context {
    // Most records of an estate without tracing have neither; the propagator need not be asked.
    if !headers.iter().any(|header| is(&header.name, NAMES[0])) {
        return Context::new();
    }
    // The propagator takes shorter ids too, which Trace Context does not allow.
    let is_whole = |parent: &String| parent.trim().len() >= TRACEPARENT_BYTES;
    let found =
        Found { parent: joined(headers, NAMES[0]).filter(is_whole), state: joined(headers, NAMES[1]) };
    TraceContextPropagator::new().extract_with_context(&Context::new(), &found)
}

/// Names the context's span in the headers of a record, in place of what they said before.
pub fn set(headers: &mut Vec<Header>, context: &Context) {
    headers.retain(|header| !NAMES.iter().any(|name| is(&header.name, name)));
    let pairs = pairs(context).into_iter();
    headers.extend(pairs.map(|(name, value)| Header::new(name, Bytes::from(value))));
}

/// Bytes of a `traceparent`, at least: version, trace id, span id and flags.
const TRACEPARENT_BYTES: usize = 55;

/// The context's span as header names and values; a `tracestate` that is empty is left out.
pub fn pairs(context: &Context) -> Vec<(&'static str, String)> {
    let mut pairs = Pairs::default();
    TraceContextPropagator::new().inject_context(context, &mut pairs);
    pairs.0
}

/// The context's span as actors carry it.
pub fn trace(context: &Context) -> Trace {
    let span = context.span();
    let span = span.span_context();
    Trace {
        trace_id: TraceId(u128::from_be_bytes(span.trace_id().to_bytes())),
        span_id: SpanId(u64::from_be_bytes(span.span_id().to_bytes())),
        sampled: span.is_sampled(),
    }
}

/// The span that actors have carried.
pub fn span_context(trace: &Trace) -> SpanContext {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
    let flags = if trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(
        TraceId::from_bytes(trace.trace_id.0.to_be_bytes()),
        SpanId::from_bytes(trace.span_id.0.to_be_bytes()),
        flags,
        false,
        TraceState::default(),
    )
}

/// HTTP has no case in the names of headers, and producers that copy them from a request keep what they got.
fn is(name: &[u8], wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

/// The last `traceparent`; of `tracestate`, which may come in several headers, all of them.
fn joined(headers: &[Header], name: &str) -> Option<String> {
    let texts = headers.iter().filter(|header| is(&header.name, name));
    let texts = texts.filter_map(|header| std::str::from_utf8(header.value.as_deref()?).ok());
    if name == NAMES[0] {
        return texts.last().map(str::to_owned);
    }
    let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

struct Found {
    parent: Option<String>,
    state: Option<String>,
}

impl Extractor for Found {
    fn get(&self, key: &str) -> Option<&str> {
        let found = if key == NAMES[0] { &self.parent } else { &self.state };
        found.as_deref()
    }

    fn keys(&self) -> Vec<&str> {
        NAMES.to_vec()
    }
}

#[derive(Default)]
struct Pairs(Vec<(&'static str, String)>);

impl Injector for Pairs {
    fn set(&mut self, key: &str, value: String) {
        if let Some(name) = NAMES.into_iter().find(|name| *name == key && !value.is_empty()) {
            self.0.push((name, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn header(name: &'static str, value: &'static str) -> Header {
        Header::new(name, value)
    }

    fn said(headers: &[Header]) -> Vec<(&'static str, String)> {
        pairs(&of_record(headers))
    }

    #[test]
    fn what_headers_say_is_read_whatever_the_case_of_their_names() {
        assert_eq!(said(&[header("TraceParent", PARENT)]), [("traceparent", PARENT.to_owned())]);
    }

    #[test]
    fn several_states_are_one_and_of_several_parents_the_last_counts() {
        let other = "00-11111111111111111111111111111111-2222222222222222-00";
        let headers = [
            header("traceparent", other),
            header("tracestate", "a=1"),
            header("traceparent", PARENT),
            header("tracestate", "b=2"),
        ];
        let expected = [("traceparent", PARENT.to_owned()), ("tracestate", "a=1,b=2".to_owned())];
        assert_eq!(said(&headers), expected);
    }

    #[test]
    fn what_trace_context_does_not_allow_says_nothing() {
        let null = Header { value: None, ..header("traceparent", "") };
        let bytes = Header { value: Some(Bytes::from_static(b"\xff")), ..null.clone() };
        let zero = header("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01");
        for headers in [vec![], vec![null], vec![bytes], vec![zero], vec![header("traceparent", "00-1-2-3")]]
        {
            assert_eq!(said(&headers), [], "{headers:?}");
        }
    }

    #[test]
    fn a_span_takes_the_place_of_what_was_said_and_everything_else_stays() {
        let raw = Header { name: Bytes::from_static(b"\xfe"), value: None };
        let mut headers = vec![
            header("Tracestate", "x=1"),
            raw.clone(),
            header("baggage", "user=1"),
            header("traceparent", "?"),
        ];
        set(&mut headers, &of_record(&[header("traceparent", PARENT)]));
        assert_eq!(headers, [raw, header("baggage", "user=1"), header("traceparent", PARENT)]);
    }

    #[test]
    fn actors_carry_a_span_unchanged() {
        let context = of_record(&[header("traceparent", PARENT)]);
        let carried = span_context(&trace(&context));
        assert_eq!(carried.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace(&context).trace_id.to_string(), carried.trace_id().to_string());
        assert_eq!(trace(&context).span_id.to_string(), "b7ad6b7169203331");
        assert!(carried.is_sampled());
    }
}

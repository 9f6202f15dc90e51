//! The name of an attempt's span, which actors carry from the handler's answer into the log and to the epoch commit.
//!
//! Deliberately absent: what a span is. A handler that is not traced names none, and nothing is carried then.

use std::fmt;

use tracing::field::{DisplayValue, display};

/// Spans that one partition's share of an epoch names, at most: the span of an epoch commit has a link to each.
pub const MAX_TRACES: usize = 32;

/// A span, as W3C Trace Context names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Of all spans that belong together.
    pub trace_id: TraceId,
    /// Of this one.
    pub span_id: SpanId,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Trace {
    /// Its trace id as a field of a log line.
    pub fn trace_field(trace: Option<Trace>) -> Option<DisplayValue<TraceId>> {
        trace.map(|trace| display(trace.trace_id))
    }

    /// Its span id as a field of a log line.
    pub fn span_field(trace: Option<Trace>) -> Option<DisplayValue<SpanId>> {
        trace.map(|trace| display(trace.span_id))
    }
}

/// Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

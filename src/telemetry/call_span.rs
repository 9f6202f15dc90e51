//! The span of the `http` handler's call, whose context goes to the service.

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use pawl_actors::outcome::Outcome;

use super::{Tracing, context};

/// A call that is under way. Dropped before its end, its span says that it was given up.
pub struct CallSpan(Option<Context>);

impl CallSpan {
    /// Begins where the attempt itself is traced, and says so in the headers of the call; does nothing else.
    /// `shown` is the url without what may be a secret.
    pub fn begin(url: &Uri, shown: &str, attempt: u32, headers: &mut HeaderMap) -> CallSpan {
        let of_attempt = Context::current();
        let Some(Tracing { tracer }) = of_attempt.get() else { return CallSpan(None) };
        if !of_attempt.span().is_recording() {
            // The service learns that nothing is recorded, by the attempt's own context.
            name(headers, &of_attempt);
            return CallSpan(None);
        }
        let builder = tracer.span_builder("POST").with_kind(SpanKind::Client);
        let mut span = tracer.build_with_context(builder, &of_attempt);
        span.set_attributes([
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("url.full", shown.to_owned()),
            KeyValue::new("server.address", url.host().unwrap_or_default().to_owned()),
            KeyValue::new("server.port", i64::from(port(url))),
            KeyValue::new("pawl.attempt", i64::from(attempt)),
        ]);
        let context = Context::new().with_span(span);
        name(headers, &context);
        CallSpan(Some(context))
    }

    /// The service's status is known.
    pub fn status(&self, status: u16) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        }
    }

    /// Ends with the outcome of the attempt.
    pub fn end(mut self, outcome: &Outcome) {
        let Some(context) = self.0.take() else { return };
        let span = context.span();
        if let Outcome::Failed(failure) = outcome {
            let kind = failure.status.map_or_else(|| failure.code.to_owned(), |status| status.to_string());
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(failure.message.clone()));
        }
        span.end();
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        let Some(context) = self.0.take() else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("error.type", "given up"));
        span.set_status(Status::error("given up before the service answered"));
        span.end();
    }
}

/// Names a span in the headers of a call.
fn name(headers: &mut HeaderMap, context: &Context) {
    for name in context::NAMES {
        headers.remove(name);
    }
    for (name, value) in context::pairs(context) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn port(url: &Uri) -> u16 {
    url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 })
}

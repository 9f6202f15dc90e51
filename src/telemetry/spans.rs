//! The bounded queue between those who end spans and the thread that sends them.
//!
//! The SDK's own batch processor does the same and tells nobody what it drops, and its thread has no runtime that a
//! hyper client could run on.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::stats::TelemetryStats;

/// Puts ended spans into the queue; never waits.
#[derive(Debug)]
pub struct Queue {
    spans: Sender<SpanData>,
    stats: Arc<TelemetryStats>,
}

/// A queue for so many spans.
pub fn queue(spans: usize, stats: Arc<TelemetryStats>) -> (Queue, Receiver<SpanData>) {
    let (put, take) = channel(spans);
    (Queue { spans: put, stats }, take)
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.stats.queue_full.add(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

//! Requests that were denied: a count of each reason, and lines in the log, as many as a person can read.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::Method;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::access::Denied;
use super::gate::shown;

/// Lines a second.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
/// Lines at once before that counts.
const LINES_AT_ONCE: NonZeroU32 = NonZeroU32::new(20).expect("not 0");
/// The longest path that a line shows, in characters.
const SHOWN_CHARS: usize = 200;

/// Denied requests by reason.
pub type DeniedCounts = Family<Vec<(&'static str, &'static str)>, Counter>;

/// See the module's documentation.
pub struct Denials {
    /// For the metrics.
    pub counts: DeniedCounts,
    lines: DefaultDirectRateLimiter,
    unsaid: AtomicU64,
}

impl Default for Denials {
    fn default() -> Self {
        let lines = RateLimiter::direct(Quota::per_second(LINES_PER_SECOND).allow_burst(LINES_AT_ONCE));
        Denials { counts: DeniedCounts::default(), lines, unsaid: AtomicU64::new(0) }
    }
}

impl Denials {
    /// Counts a denied request, and tells of it.
    pub fn note(&self, denied: Denied, method: &Method, path: &str, peer: SocketAddr) {
        self.counts.get_or_create(&vec![("reason", denied.reason())]).inc();
        if self.lines.check().is_err() {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unsaid = self.unsaid.swap(0, Ordering::Relaxed);
        // As texts, which the log escapes: the path is whatever somebody sent.
        let path: String = path.chars().take(SHOWN_CHARS).collect();
        let (path, method, peer) = (path.as_str(), method.as_str(), shown(peer));
        let (reason, peer) = (denied.reason(), peer.as_str());
        tracing::warn!(target: "pawl::audit", reason, peer, method, path, unsaid, "request denied");
    }
}

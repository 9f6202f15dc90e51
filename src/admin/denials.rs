//! Requests that were denied: a count of each reason, and lines in the log, as many as a person can read.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::Method;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::access::{Denied, Visitor};
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
#[derive(Default)]
pub struct Denials {
    /// For the metrics.
    pub counts: DeniedCounts,
    /// Of those who are known: strangers must not use up their lines.
    known: Lines,
    strangers: Lines,
}

/// Lines up to a bound.
struct Lines {
    limiter: DefaultDirectRateLimiter,
    unsaid: AtomicU64,
}

impl Default for Lines {
    fn default() -> Self {
        let quota = Quota::per_second(LINES_PER_SECOND).allow_burst(LINES_AT_ONCE);
        Lines { limiter: RateLimiter::direct(quota), unsaid: AtomicU64::new(0) }
    }
}

impl Lines {
    /// How many had no line since the last one that had; `None`: this has none either.
    fn take(&self) -> Option<u64> {
        if self.limiter.check().is_err() {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.unsaid.swap(0, Ordering::Relaxed))
    }
}

impl Denials {
    /// Counts a denied request, and tells of it, and of who asked where they are known.
    pub fn note(&self, denied: Denied, by: Option<&Visitor>, method: &Method, path: &str, peer: SocketAddr) {
        self.counts.get_or_create(&vec![("reason", denied.reason())]).inc();
        let lines = if by.is_some() { &self.known } else { &self.strangers };
        let Some(unsaid) = lines.take() else { return };
        // As texts, which the log escapes: the path is whatever somebody sent.
        let path: String = path.chars().take(SHOWN_CHARS).collect();
        let by = by.map(Visitor::to_string);
        let (path, method, peer, by) = (path.as_str(), method.as_str(), shown(peer), by.as_deref());
        let (reason, peer) = (denied.reason(), peer.as_str());
        tracing::warn!(target: "pawl::audit", reason, by, peer, method, path, unsaid, "request denied");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::access::{Means, Role};

    #[test]
    fn strangers_do_not_use_up_the_lines_of_those_who_are_known() {
        let (denials, peer) = (Denials::default(), "10.0.0.7:5".parse().expect("an address"));
        let known = Visitor { role: Role::Read, means: Means::Token, name: "ops".into(), peer };
        let note = |by| denials.note(Denied::NotOperator, by, &Method::POST, "/", peer);
        let unsaid = || [&denials.known, &denials.strangers].map(|of| of.unsaid.load(Ordering::Relaxed));
        (0..100).for_each(|_| note(None));
        let of_strangers = unsaid()[1];
        assert!(of_strangers > 0, "there is a bound");
        (0..LINES_AT_ONCE.get()).for_each(|_| note(Some(&known)));
        assert_eq!(unsaid(), [0, of_strangers]);
    }
}

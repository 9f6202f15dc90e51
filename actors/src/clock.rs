//! The wall clock, where a decision needs one. Durations are measured with `Instant`, never with this.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::record::Millis;

/// Milliseconds since the epoch; 0 on a machine whose clock stands before it.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

//! Waiting for a condition with a deadline; never for a time.

use std::time::{Duration, Instant};

/// Asks `condition` until it answers, at most for `deadline`.
///
/// # Panics
/// When the deadline is over; `what` completes the sentence "waited in vain for ...".
pub fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(start.elapsed() < deadline, "waited in vain for {what} ({deadline:?})");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! New certificates and keys for the brokers: tried first, then taken up by one handler after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::kafka::access::{Access, Verdict};

/// How long after a refusal, or while no broker is there, they are tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// See the module's documentation.
pub struct Reconnecting {
    access: Arc<Access>,
    changed: watch::Receiver<u64>,
    /// When new ones are tried; `None`: there are none.
    due: Option<Instant>,
    /// Handlers that still come with the old ones.
    left: VecDeque<usize>,
    handlers: usize,
}

impl Reconnecting {
    /// For so many handlers. What changes from now on is noticed.
    pub fn new(access: Arc<Access>, handlers: usize) -> Self {
        let changed = access.certificates();
        Reconnecting { access, changed, due: None, left: VecDeque::new(), handlers }
    }

    /// The next handler that has to be begun anew. May be dropped while it waits, and asked again.
    pub async fn next(&mut self) -> usize {
        loop {
            if let Some(handler) = self.left.pop_front() {
                return handler;
            }
            let due = self.due.unwrap_or_else(Instant::now);
            tokio::select! {
                Ok(()) = self.changed.changed() => self.due = Some(Instant::now()),
                () = sleep_until(due), if self.due.is_some() => self.try_them().await,
            }
        }
    }

    async fn try_them(&mut self) {
        let access = self.access.clone();
        let verdict = tokio::task::spawn_blocking(move || access.try_new_certificates()).await;
        self.due = match verdict {
            Ok(Verdict::Taken) => {
                self.left = (0..self.handlers).collect();
                None
            }
            Ok(Verdict::Refused(why)) => {
                tracing::error!(
                    "the new certificates or keys for Kafka are not used, for brokers refuse them: {why}; Pawl goes on with \
                     the old ones, and tries these again in {} s",
                    AGAIN.as_secs()
                );
                Some(Instant::now() + AGAIN)
            }
            // No broker is there, so nobody could commit what a handler drains.
            Ok(Verdict::Unknown) | Err(_) => Some(Instant::now() + AGAIN),
        };
    }
}

//! New certificates and keys for the brokers: tried first, then taken up by one handler after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::kafka::access::{Access, Verdict};

/// How long after a trial that ended otherwise they are tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// See the module's documentation.
pub struct Reconnecting {
    access: Arc<Access>,
    changed: watch::Receiver<u64>,
    /// When new ones are tried; `None`: there are none.
    due: Option<Instant>,
    /// Under way. Kept here, for `next` may be dropped while it waits.
    trial: Option<oneshot::Receiver<Option<Verdict>>>,
    /// Handlers that still come with the old ones.
    left: VecDeque<usize>,
    handlers: usize,
}

impl Reconnecting {
    /// For so many handlers. What changes from now on is noticed.
    pub fn new(access: Arc<Access>, handlers: usize) -> Self {
        let changed = access.certificates();
        Reconnecting { access, changed, due: None, trial: None, left: VecDeque::new(), handlers }
    }

    /// The next handler that has to be begun anew. May be dropped while it waits, and asked again.
    pub async fn next(&mut self) -> usize {
        loop {
            if let Some(handler) = self.left.pop_front() {
                return handler;
            }
            if let Some(trial) = &mut self.trial {
                let verdict =
                    trial.await.unwrap_or_else(|_| Some(Verdict::Unknown("the trial panicked".into())));
                self.trial = None;
                self.heed(verdict);
                continue;
            }
            let due = self.due.unwrap_or_else(Instant::now);
            tokio::select! {
                Ok(()) = self.changed.changed() => self.due = Some(Instant::now()),
                () = sleep_until(due), if self.due.is_some() => self.try_them(),
            }
        }
    }

    fn try_them(&mut self) {
        let access = self.access.clone();
        let (tell, told) = oneshot::channel();
        // On a thread of its own, for which nobody waits when the process ends; it gives up once nobody listens.
        std::thread::spawn(move || {
            let verdict = access.try_new_certificates(|| tell.is_closed());
            let _ = tell.send(verdict);
        });
        self.trial = Some(told);
    }

    fn heed(&mut self, verdict: Option<Verdict>) {
        let again = AGAIN.as_secs();
        match verdict {
            None => {
                self.due = None;
                return;
            }
            Some(Verdict::Taken) => {
                self.left = (0..self.handlers).collect();
                self.due = None;
                return;
            }
            Some(Verdict::Refused(why)) => tracing::error!(
                "the new certificates or keys for Kafka are not used, for brokers refuse them: {why}; Pawl goes on with the \
                 old ones, and tries these again in {again} s"
            ),
            Some(Verdict::Unusable(why)) => tracing::error!(
                "the new certificates or keys for Kafka are not used, for they cannot be read or do not belong together: {why}; \
                 Pawl goes on with the old ones, and tries these again in {again} s"
            ),
            // Nobody could commit what a handler drains.
            Some(Verdict::Unknown(why)) => tracing::warn!(
                "the new certificates or keys for Kafka could not be tried: {why}; Pawl goes on with the old ones, and tries \
                 these again in {again} s"
            ),
        }
        self.due = Some(Instant::now() + AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Kafka;

    #[test]
    fn handlers_connect_anew_only_with_certificates_that_were_taken() {
        let mut reconnecting = Reconnecting::new(Access::of(&Kafka::default()), 2);
        for verdict in [Verdict::Refused, Verdict::Unusable, Verdict::Unknown] {
            reconnecting.heed(Some(verdict("why".into())));
            assert!(reconnecting.left.is_empty() && reconnecting.due.is_some(), "tried again");
        }
        reconnecting.heed(None);
        assert!(reconnecting.left.is_empty() && reconnecting.due.is_none(), "they were taken back");
        reconnecting.heed(Some(Verdict::Taken));
        assert!(reconnecting.left == [0, 1] && reconnecting.due.is_none());
    }
}

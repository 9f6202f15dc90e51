//! Handlers that a Rust program brings along: from a closure, and under a time-out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pawl_actors::handler::{Answer, Call, Handler};
use pawl_actors::outcome::{Failure, Outcome, code};

/// A handler from an async closure.
///
/// ```
/// use pawl::handlers::from_fn;
/// use pawl_actors::effects::Effects;
/// use pawl_actors::handler::Call;
/// use pawl_actors::outcome::{Failure, Outcome, code};
///
/// let handler = from_fn(|call: Call| async move {
///     match call.record.value {
///         Some(_) => Outcome::Done(Effects::default()),
///         None => Outcome::Failed(Failure::permanent(code::REJECTED, "an order cannot be deleted")),
///     }
/// });
/// # let _ = handler;
/// ```
///
/// The future runs on the actors' thread: it need not be `Send`, and it must not block.
pub fn from_fn<F, O>(function: F) -> impl Handler
where
    F: Fn(Call) -> O + Send + Sync + 'static,
    O: Future<Output = Outcome> + 'static,
{
    FromFn(function)
}

struct FromFn<F>(F);

impl<F, O> Handler for FromFn<F>
where
    F: Fn(Call) -> O + Send + Sync + 'static,
    O: Future<Output = Outcome> + 'static,
{
    fn handle(&self, call: Call) -> Answer {
        Answer::later((self.0)(call))
    }
}

/// A program's handler whose answers are waited for no longer than `timeout`; a late one is
/// dropped where it waits and counts as a transient failure.
pub(super) struct Timed {
    pub inner: Arc<dyn Handler>,
    pub timeout: Duration,
}

impl Handler for Timed {
    fn handle(&self, call: Call) -> Answer {
        let timeout = self.timeout;
        match self.inner.handle(call) {
            Answer::Ready(outcome) => Answer::Ready(outcome),
            Answer::Later(future) => Answer::later(async move {
                tokio::time::timeout(timeout, future).await.unwrap_or_else(|_| {
                    let shown = humantime::format_duration(timeout);
                    let message = format!("the program's handler did not answer within {shown}");
                    Outcome::Failed(Failure::transient(code::TIMED_OUT, message))
                })
            }),
        }
    }
}

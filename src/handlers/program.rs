//! Handlers that a Rust program brings along as closures. Deliberately absent: their time-out, which
//! the order actors hold for every handler.

use std::future::Future;

use pawl_actors::handler::{Answer, Call, Handler};
use pawl_actors::outcome::Outcome;

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

//! The supervisor actor: receives failures, answers verdicts, owns timers, starts and stops the
//! partition actors of its handler.

mod actor;
mod breaker;
mod followers;
mod outage;
mod restarts;
mod retry;
mod timers;
mod verdict;

pub use actor::{Attach, Failed, Halt, Own, Resume, SupervisorActor};
pub use breaker::{Breaker, BreakerPolicy, Refund, Ruling};
pub use followers::{Followers, Gather};
pub use restarts::Panicked;
pub use retry::{Attempts, RetryPolicies, RetryPolicy, RetryRule, Trigger, Waits};
pub use timers::Timers;
pub use verdict::{Disposition, Tried, Verdict, judge};

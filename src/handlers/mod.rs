//! What a record is handed to: an HTTP service, another topic, or a Rust program's own code.
//!
//! All stand behind [`Handler`](pawl_actors::handler::Handler); [`Registry::build`] makes the one
//! that the settings name. Deliberately absent: order, retries and limits of calls in flight,
//! which the actors decide.

pub mod forward;
pub mod http;
mod program;
mod registry;

pub use program::from_fn;
pub use registry::{AlreadyRegistered, BuildError, Names, Registry};

//! What a record is handed to: an HTTP service, another topic, or a Rust program's own code.

pub mod forward;
pub mod http;

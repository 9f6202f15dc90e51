//! What a running instance tells of a handler's keys.

use pawl_actors::ledger::LaneKey;

use crate::admin::keys::{KeyAnswer, KeysAnswer};
use crate::commands::endpoint::{Endpoint, EndpointError, encoded};

/// An instance and a handler of it.
pub struct Instance {
    endpoint: Endpoint,
    handler: String,
}

impl Instance {
    /// Asks nobody yet.
    pub fn new(endpoint: Endpoint, handler: &str) -> Instance {
        Instance { endpoint, handler: encoded(handler.as_bytes()) }
    }

    /// Where is asked.
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    /// A part of the list.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn list(
        &self,
        partition: Option<i32>,
        prefix: &[u8],
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeysAnswer, EndpointError> {
        let partition = partition.map_or(String::new(), |partition| format!("&partition={partition}"));
        let after = after.map_or(String::new(), |after| format!("&after={after}"));
        let (handler, prefix) = (&self.handler, encoded(prefix));
        let path = format!("/handlers/{handler}/keys?limit={limit}&prefix={prefix}{partition}{after}");
        self.endpoint.get(&path)
    }

    /// All that is known of a key, or of another lane.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn show(&self, key: LaneKey<&[u8]>) -> Result<KeyAnswer, EndpointError> {
        let handler = &self.handler;
        match key {
            LaneKey::Key(key) => self.endpoint.get(&format!("/handlers/{handler}/keys/{}", encoded(key))),
            LaneKey::NoKey(lane) => self.endpoint.get(&format!("/handlers/{handler}/unkeyed/{lane}")),
            LaneKey::Unusable => self.endpoint.get(&format!("/handlers/{handler}/unkeyed")),
        }
    }
}

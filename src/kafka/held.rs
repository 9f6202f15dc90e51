//! Which partitions this instance holds, and since which assignment: asked by whoever is about to
//! write something for one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pawl_actors::epoch::AssignmentEpoch;
use pawl_actors::record::Partition;
use rdkafka::error::KafkaError;

use super::{denied, group};

/// Between two questions to a broker that cannot answer yet.
pub const ASK_EVERY: Duration = Duration::from_millis(500);

/// Kept by the consumer thread, read by the writer and the owner.
#[derive(Debug, Default)]
pub struct Held(Mutex<HashMap<Partition, AssignmentEpoch>>);

impl Held {
    /// The partition is assigned.
    pub fn assign(&self, partition: Partition, assignment: AssignmentEpoch) {
        self.lock().insert(partition, assignment);
    }

    /// The partition is given up or lost.
    pub fn release(&self, partition: Partition) {
        self.lock().remove(&partition);
    }

    /// Whether the partition is held without a break since that assignment.
    pub fn is(&self, partition: Partition, assignment: AssignmentEpoch) -> bool {
        self.lock().get(&partition) == Some(&assignment)
    }

    /// What `ask` is answered, asked again every half second after an error, of which `tell` hears;
    /// `None` once the partition is not held any more.
    ///
    /// # Errors
    /// A right is missing for too long ([`denied::PATIENCE`]).
    pub fn ask_while<T>(
        &self,
        partition: Partition,
        assignment: AssignmentEpoch,
        ask: impl Fn() -> Result<T, KafkaError>,
        tell: impl Fn(&KafkaError),
    ) -> Result<Option<T>, KafkaError> {
        let mut denied_since = None;
        while self.is(partition, assignment) {
            match ask() {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => {
                    let is_denied = error.rdkafka_error_code().is_some_and(group::is_forbidden);
                    denied_since = is_denied.then(|| denied_since.unwrap_or_else(Instant::now));
                    if denied_since.is_some_and(|since| since.elapsed() >= denied::PATIENCE) {
                        return Err(error);
                    }
                    tell(&error);
                }
            }
            std::thread::sleep(ASK_EVERY);
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Partition, AssignmentEpoch>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

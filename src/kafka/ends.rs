//! Where partitions end. A reader of committed records is told the last stable offset; behind it lies
//! what a producer's open transaction holds back, and only the high watermark tells of that.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use pawl_actors::record::{Millis, Partition};
use pawl_actors::stats::PartitionStats;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;

use super::access::{Live, Plan};
use super::client::LogContext;
use super::consumer::Assigned;
use super::held::{ASK_EVERY, Held};
use super::rebalance::IntakeContext;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a leader may tell an end below what was taken already, before it is believed.
const END_ANSWERS: u32 = 20;

/// See the module's documentation.
pub struct Ends {
    /// Input topic.
    pub topic: String,
    /// The handler's consumer, which reads committed records.
    pub consumer: Arc<Live<BaseConsumer<IntakeContext>>>,
    /// Settings of a consumer of a group that is never joined.
    pub config: Plan,
}

impl Ends {
    /// The first offset that is left, and the last stable one.
    ///
    /// # Errors
    /// When the partition's leader does not answer.
    pub fn stable(&self, partition: Partition) -> KafkaResult<(i64, i64)> {
        self.consumer.fetch_watermarks(&self.topic, partition.0, CALL_TIMEOUT)
    }

    /// Asks for the end of a partition, and notes what an open transaction holds back.
    ///
    /// # Errors
    /// As [`Ends::stable`].
    pub fn observe(&self, partition: Partition, stats: &PartitionStats, now: Millis) -> KafkaResult<()> {
        let (_, stable) = self.stable(partition)?;
        let undecided = self.fetched_high(partition).map_or(0, |high| (high - stable).max(0));
        if undecided == 0 || stats.end.get() != stable || stats.undecided.get() == 0 {
            stats.undecided_since.set(now.0);
        }
        stats.undecided.set(undecided);
        stats.end.set(stable);
        Ok(())
    }

    /// The high watermark as the last fetch told it; `None` before the first. Asking for it would take a
    /// client that reads uncommitted records.
    fn fetched_high(&self, partition: Partition) -> Option<i64> {
        let topic = CString::new(self.topic.as_str()).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client lives as long as the consumer, which is borrowed; the name is NUL-terminated,
        // and both numbers are written before the call returns.
        let code = unsafe {
            rdkafka_sys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition.0,
                &raw mut low,
                &raw mut high,
            )
        };
        (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }

    /// A topic that ends before what was taken from it has lost its end; what is written to it until it
    /// is as long again would never be read.
    ///
    /// # Errors
    /// Says so.
    pub fn check(&self, one: &Assigned, held: &Held, watermark: i64, stable: i64) -> Result<(), String> {
        let mut end = stable;
        // A leader that was just elected may not know the end yet.
        let mut answers = 0;
        while end < watermark && answers < END_ANSWERS {
            if !held.is(one.partition, one.assignment) {
                return Ok(());
            }
            std::thread::sleep(ASK_EVERY);
            if let Ok(high) = self.high(one.partition) {
                (end, answers) = (high, answers + 1);
            }
        }
        if end >= watermark {
            return Ok(());
        }
        Err(format!(
            "partition {}: the ledger has taken the offsets below {watermark}, but the topic ends at {end}: it lost its \
             end (an unclean leader election, a lost disk) or was deleted and made anew. What is written now would be \
             taken for processed: begin with a new group",
            one.partition
        ))
    }

    /// The high watermark: an offset that somebody set by hand may lie behind an open transaction.
    fn high(&self, partition: Partition) -> Result<i64, KafkaError> {
        let mut config = self.config.clone();
        config.set("isolation.level", "read_uncommitted");
        let client: Live<BaseConsumer<LogContext>> = config.open(LogContext::new("ends"))?;
        Ok(client.fetch_watermarks(&self.topic, partition.0, CALL_TIMEOUT)?.1)
    }
}

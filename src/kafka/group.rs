//! The group as the writer sees it: the membership that fences a commit, and what the group has
//! committed.
//!
//! `unsafe`, because rust-rdkafka 0.39 neither shows a membership's generation nor reads metadata
//! that is not UTF-8 (it panics), and both decide here whether something is written twice.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{NoCustomPartitioner, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::commit_metadata::CommitMetadata;

/// A membership that the coordinator will check: member id and generation are set. Without them
/// the classic coordinator accepts a commit unchecked, a zombie's as well.
pub struct Membership(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

impl Membership {
    /// The consumer's membership now; `None` while it is in no generation of its group.
    pub fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the client lives as long as the reference; the result is owned, or null for a
        // client without a group.
        let native = unsafe { sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) };
        let membership = Membership(NonNull::new(native)?);
        // SAFETY: the pointer is valid, and the member id is NUL-terminated and lives as long.
        let (generation, member) = unsafe {
            let member = sys::rd_kafka_consumer_group_metadata_member_id(membership.0.as_ptr());
            let generation = sys::rd_kafka_consumer_group_metadata_generation_id(membership.0.as_ptr());
            (generation, if member.is_null() { &[][..] } else { CStr::from_ptr(member).to_bytes() })
        };
        (generation >= 0 && !member.is_empty()).then_some(membership)
    }

    /// Adds offsets to the producer's open transaction, fenced by this membership.
    ///
    /// # Errors
    /// What the coordinator answered.
    pub fn add_offsets<C: ProducerContext<NoCustomPartitioner>>(
        &self,
        producer: &impl Producer<C, NoCustomPartitioner>,
        offsets: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<(), Refusal> {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: producer, list and membership are alive during the call; the error is owned and
        // destroyed by `Refusal::take`.
        let error = unsafe {
            sys::rd_kafka_send_offsets_to_transaction(
                producer.client().native_ptr(),
                offsets.ptr(),
                self.0.as_ptr(),
                timeout,
            )
        };
        NonNull::new(error).map_or(Ok(()), |error| Err(Refusal::take(error)))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

/// Why the producer's open transaction has to be aborted, if it has. The records that it takes down are only
/// reported as purged, and librdkafka tells the cause to whoever asks for something else in the same
/// transaction: offsets of a group that there is not, which are aborted with the rest if they are taken.
pub fn transaction_error<C: ProducerContext<NoCustomPartitioner>>(
    producer: &impl Producer<C, NoCustomPartitioner>,
    timeout: Duration,
) -> Option<Refusal> {
    const NOBODY: &CStr = c"pawl-nobody";
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("pawl-nothing", 0, Offset::Offset(0)).ok()?;
    // SAFETY: the name is NUL-terminated and copied; the result is owned and destroyed by `Membership`.
    let native = unsafe { sys::rd_kafka_consumer_group_metadata_new(NOBODY.as_ptr()) };
    Membership(NonNull::new(native)?).add_offsets(producer, &offsets, timeout).err()
}

/// Why offsets were not added to a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The cause.
    pub code: RDKafkaErrorCode,
    /// Whether the producer can do no more.
    pub fatal: bool,
    text: String,
}

impl Refusal {
    fn take(error: NonNull<sys::rd_kafka_error_t>) -> Self {
        // SAFETY: the pointer is valid until it is destroyed, last; the text is copied before.
        unsafe {
            let refusal = Refusal {
                code: sys::rd_kafka_error_code(error.as_ptr()).into(),
                fatal: sys::rd_kafka_error_is_fatal(error.as_ptr()) != 0,
                text: CStr::from_ptr(sys::rd_kafka_error_string(error.as_ptr()))
                    .to_string_lossy()
                    .into_owned(),
            };
            sys::rd_kafka_error_destroy(error.as_ptr());
            refusal
        }
    }
}

/// Whether the group does not know this member any more. A generation that is not the newest is another
/// matter: the next attempt reads it anew.
pub fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedMemberEpoch
            | RDKafkaErrorCode::FencedInstanceId
    )
}

/// Whether nobody answered, so that what was asked for may still happen.
pub fn is_unanswered(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
    )
}

/// Whether a right is missing, which no retry mends.
pub fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// What the group has committed for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The position.
    pub next: i64,
    /// Pawl's metadata; `None` for another tool's commit.
    pub metadata: Option<CommitMetadata>,
}

/// The group's stable position: with a `read_committed` consumer this waits for open transactions
/// that carry it (KIP-447). `None` when the group has committed nothing.
///
/// # Errors
/// When the coordinator does not answer in time or refuses.
pub fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> KafkaResult<Option<Committed>> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Invalid)?;
    let found = consumer.committed_offsets(list, timeout)?;
    let elements = found.elements_for_topic(topic);
    let Some(element) = elements.iter().find(|element| element.partition() == partition) else {
        return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition));
    };
    element.error()?;
    let Offset::Offset(next) = element.offset() else { return Ok(None) };
    Ok(Some(Committed { next, metadata: metadata(&found, topic, partition) }))
}

fn metadata(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<CommitMetadata> {
    // SAFETY: `elems` points to `cnt` elements that live as long as the list; metadata is null or
    // points to `metadata_size` bytes; topics are NUL-terminated.
    unsafe {
        let native = &*list.ptr();
        let elements = std::slice::from_raw_parts(native.elems, usize::try_from(native.cnt).unwrap_or(0));
        let element = elements.iter().find(|element| {
            element.partition == partition && CStr::from_ptr(element.topic).to_bytes() == topic.as_bytes()
        })?;
        if element.metadata.is_null() {
            return None;
        }
        let bytes = std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size);
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: Option<&str>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition("orders", 1);
        let mut element = list.add_partition("orders", 3);
        if let Some(text) = text {
            element.set_metadata(text);
        }
        list
    }

    #[test]
    fn metadata_is_read_of_the_right_partition_and_another_tools_is_none() {
        let ours = CommitMetadata::of(4, 9);
        assert_eq!(metadata(&list(Some(&ours.to_string())), "orders", 3), Some(ours));
        assert_eq!(metadata(&list(Some(&ours.to_string())), "orders", 1), None);
        assert_eq!(metadata(&list(Some(&ours.to_string())), "others", 3), None);
        assert_eq!(metadata(&list(Some("somebody else's")), "orders", 3), None);
        assert_eq!(metadata(&list(None), "orders", 3), None);
    }

    #[test]
    fn a_consumer_outside_its_group_has_no_membership() {
        let consumer: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("group.id", "g")
            .create()
            .expect("a consumer");
        assert!(Membership::of(&consumer).is_none());
    }
}

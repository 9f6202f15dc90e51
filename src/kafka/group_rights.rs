//! What this client may do with a consumer group, which only DescribeGroups tells.

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::admin_request::{self, Event, Options, Queue, check};
use crate::rights::Right;

/// What this client may do with the group, whether there is one of that name or not; `None` where the broker
/// does not tell. Blocks for at most about `timeout`.
///
/// # Errors
/// No answer, or no right to ask.
pub fn group_rights<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Option<Vec<Right>>, RDKafkaErrorCode> {
    let Ok(name) = CString::new(group) else { return Err(RDKafkaErrorCode::InvalidGroupId) };
    let event = request(client, &name, timeout)?.ok_or(RDKafkaErrorCode::OperationTimedOut)?;
    Ok(read(&event)?)
}

fn request<C: ClientContext>(
    client: &Client<C>,
    name: &CStr,
    timeout: Duration,
) -> Result<Option<Event>, sys::rd_kafka_resp_err_t> {
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let options = Options::new(client, operation, None, timeout)?;
    let queue = Queue::new(client);
    let mut names = [name.as_ptr()];
    // SAFETY: client, name, options and queue are alive; librdkafka copies names and options before this
    // returns and holds its own reference to the queue.
    unsafe {
        sys::rd_kafka_DescribeConsumerGroups(
            client.native_ptr(),
            names.as_mut_ptr(),
            names.len(),
            options.as_ptr(),
            queue.as_ptr(),
        );
    }
    Ok(queue.wait(timeout))
}

fn read(event: &Event) -> Result<Option<Vec<Right>>, sys::rd_kafka_resp_err_t> {
    let (mut groups, mut operations) = (0, 0);
    // SAFETY: the event is alive, and all that it gives lives as long; a result of another kind than
    // DescribeConsumerGroups would be null, which is asserted; null is checked where librdkafka documents it.
    unsafe {
        check(sys::rd_kafka_event_error(event.as_ptr()))?;
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.as_ptr());
        assert!(!result.is_null(), "this queue only serves DescribeConsumerGroups");
        let found = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut groups);
        assert!(groups == 1 && !found.is_null(), "one group was asked for");
        let error = sys::rd_kafka_ConsumerGroupDescription_error(*found);
        if !error.is_null() {
            check(sys::rd_kafka_error_code(error))?;
        }
        let first = sys::rd_kafka_ConsumerGroupDescription_authorized_operations(*found, &mut operations);
        Ok(admin_request::rights(first, operations))
    }
}

//! What requests of librdkafka's admin interface have in common that rust-rdkafka 0.39 does not offer: what
//! this client may do with a topic or a group.

use std::ffi::c_char;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use crate::rights::Right;

/// A broker that answers. By itself librdkafka would ask the controller, which no cluster needs for
/// this and the mock cluster does not have: the request would wait in vain.
pub(super) fn any_broker<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
) -> Result<i32, sys::rd_kafka_resp_err_t> {
    let mut metadata = ptr::null();
    // SAFETY: the client is alive; without topics only the brokers are asked for; on success
    // `metadata` is owned here, its array of brokers holds `broker_cnt` elements, and it is
    // destroyed once, after the last use.
    unsafe {
        check(sys::rd_kafka_metadata(
            client.native_ptr(),
            0,
            ptr::null_mut(),
            &mut metadata,
            millis(timeout),
        ))?;
        let count = usize::try_from((*metadata).broker_cnt).unwrap_or(0);
        let first = (count > 0).then(|| (*(*metadata).brokers).id);
        sys::rd_kafka_metadata_destroy(metadata);
        first.ok_or(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TRANSPORT)
    }
}

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

pub(super) fn check(code: sys::rd_kafka_resp_err_t) -> Result<(), sys::rd_kafka_resp_err_t> {
    match code {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(code),
    }
}

/// What a request may take; it also asks what this client may do with what is described.
pub(super) struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Options {
    /// `broker`: who is asked; `None`: whoever librdkafka takes for this operation.
    pub(super) fn new<C: ClientContext>(
        client: &Client<C>,
        operation: sys::rd_kafka_admin_op_t,
        broker: Option<i32>,
        timeout: Duration,
    ) -> Result<Options, sys::rd_kafka_resp_err_t> {
        // SAFETY: the client is alive; the result is owned here.
        let options = unsafe { sys::rd_kafka_AdminOptions_new(client.native_ptr(), operation) };
        let options = Options(NonNull::new(options).expect("librdkafka knows this operation"));
        let mut text: [c_char; 256] = [0; 256];
        // SAFETY: the options are alive, and the error text is written within the given size.
        unsafe {
            check(sys::rd_kafka_AdminOptions_set_request_timeout(
                options.0.as_ptr(),
                millis(timeout),
                text.as_mut_ptr(),
                text.len(),
            ))?;
            if let Some(broker) = broker {
                check(sys::rd_kafka_AdminOptions_set_broker(
                    options.0.as_ptr(),
                    broker,
                    text.as_mut_ptr(),
                    text.len(),
                ))?;
            }
            let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0.as_ptr(), 1);
            assert!(error.is_null(), "requests that describe take this option");
        }
        Ok(options)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_AdminOptions_t {
        self.0.as_ptr()
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

/// Where a request is answered.
pub(super) struct Queue(NonNull<sys::rd_kafka_queue_t>);

impl Queue {
    pub(super) fn new<C: ClientContext>(client: &Client<C>) -> Queue {
        // SAFETY: the client is alive; the result is owned here.
        let queue = unsafe { sys::rd_kafka_queue_new(client.native_ptr()) };
        Queue(NonNull::new(queue).expect("librdkafka always makes a queue"))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.0.as_ptr()
    }

    /// The answer; `None`: none came in time.
    pub(super) fn wait(&self, timeout: Duration) -> Option<Event> {
        // A little longer than the request's own time-out, so that its error is what is seen.
        let wait = millis(timeout).saturating_add(500);
        // SAFETY: the queue is alive; the event belongs to the caller, who destroys it.
        let event = unsafe { sys::rd_kafka_queue_poll(self.0.as_ptr(), wait) };
        NonNull::new(event).map(Event)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once; a late answer is dropped with it.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// An answer.
pub(super) struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// What a description says that this client may do; `None` where the broker does not tell.
///
/// # Safety
/// `first` is null or points to `count` operations that live through the call.
pub(super) unsafe fn rights(first: *const sys::rd_kafka_AclOperation_t, count: usize) -> Option<Vec<Right>> {
    use sys::rd_kafka_AclOperation_t as Operation;
    if first.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let operations = unsafe { std::slice::from_raw_parts(first, count) };
    let right = |operation: &Operation| match operation {
        Operation::RD_KAFKA_ACL_OPERATION_READ => Right::Read,
        Operation::RD_KAFKA_ACL_OPERATION_WRITE => Right::Write,
        Operation::RD_KAFKA_ACL_OPERATION_CREATE => Right::Create,
        Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE => Right::Describe,
        Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Right::DescribeConfigs,
        _ => Right::Other,
    };
    Some(operations.iter().map(right).collect())
}

//! What a service's status stands for where no policy says otherwise.

use pawl_actors::outcome::FailureClass;

/// The class of a status; `None`: success. 401, 403 and 407 can heal, because an expired secret must not send
/// every record to the dead-letter topic. Numbers outside of 100..600 count as 5xx, as RFC 9110,
/// section 15 has it.
pub(crate) fn class_of_status(status: u16) -> Option<FailureClass> {
    match status {
        200..=299 => None,
        401 | 403 | 407 | 408 | 425 | 429 | 500.. => Some(FailureClass::Transient),
        _ => Some(FailureClass::Permanent),
    }
}

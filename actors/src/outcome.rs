//! What a handler answers: effects, or a failure and its class.

use std::time::Duration;

use crate::effects::Effects;

/// The end of one attempt at a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record was processed; its effects join the open epoch.
    Done(Effects),
    /// The attempt failed.
    Failed(Failure),
}

/// Whether a failure can heal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Worth another attempt: time-outs, refused connections, 5xx, rate limits.
    Transient,
    /// No attempt will succeed: the record goes to the dead-letter topic.
    Permanent,
    /// Pawl itself cannot go on: settings, rights, storage. The handler stops.
    Fatal,
}

impl FailureClass {
    /// Every class, for metrics that show zeros too.
    pub const ALL: [FailureClass; 3] =
        [FailureClass::Transient, FailureClass::Permanent, FailureClass::Fatal];

    /// The name in logs and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            FailureClass::Transient => "transient",
            FailureClass::Permanent => "permanent",
            FailureClass::Fatal => "fatal",
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether it can heal.
    pub class: FailureClass,
    /// Stable code, one of [`code`] or the handler's own; becomes `kafka_dlt-exception-fqcn`.
    pub code: &'static str,
    /// For the person who reads it: what happened, in one line.
    pub message: String,
    /// Text that helps to find the cause (a response body, a panic's place); may be empty.
    pub detail: String,
    /// The service's own wish for the next attempt (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// The HTTP status that the service answered.
    pub status: Option<u16>,
    own_code: Option<Box<str>>,
}

/// The longest own code of a service or handler, in bytes.
pub const MAX_OWN_CODE: usize = 256;
/// How Pawl's own codes begin.
pub const RESERVED: &str = "pawl.";

/// Stable codes of failures: they are written into dead letters and so are a public interface.
pub mod code {
    /// The service or handler refused the record for good.
    pub const REJECTED: &str = "pawl.Rejected";
    /// The last allowed attempt failed.
    pub const EXHAUSTED: &str = "pawl.Exhausted";
    /// Key, event id or value could not be read as the settings demand.
    pub const UNDECODABLE: &str = "pawl.Undecodable";
    /// No key where one is needed.
    pub const NULL_KEY: &str = "pawl.NullKey";
    /// The service answered with a status that may heal.
    pub const UNAVAILABLE: &str = "pawl.Unavailable";
    /// No answer within the handler's time-out.
    pub const TIMED_OUT: &str = "pawl.TimedOut";
    /// No connection to the service.
    pub const UNREACHABLE: &str = "pawl.Unreachable";
    /// The handler panicked.
    pub const PANICKED: &str = "pawl.Panicked";
    /// An emitted record, a state or a key is larger than the topic takes that it has to go to, or the headers
    /// of a call are.
    pub const TOO_LARGE: &str = "pawl.TooLarge";
    /// A topic refused what the handler emitted, for its key or its time stamp.
    pub const REFUSED: &str = "pawl.Refused";
    /// An earlier record of its key became a dead letter, and nobody has dealt with that.
    pub const QUARANTINED: &str = "pawl.Quarantined";
    /// The numbers before it in sequence did not come in time.
    pub const SEQUENCE_GAP: &str = "pawl.SequenceGap";
    /// Its number came after the gap that it belongs to was given up.
    pub const SEQUENCE_LATE: &str = "pawl.SequenceLate";
    /// Another attempt would have to be waited for, and there is no room left to wait in.
    pub const OVERFLOW: &str = "pawl.Overflow";
    /// Whoever worked on it came to a bad end, and the record is the reason: the whole process, several times, or
    /// a part of Pawl.
    pub const CRASHED: &str = "pawl.Crashed";

    /// Those of attempts at a handler: a retry policy may be for one of these. What the others stand for
    /// never reached a handler, or is not for it to try again.
    pub const OF_ATTEMPTS: [&str; 5] = [REJECTED, UNAVAILABLE, TIMED_OUT, UNREACHABLE, PANICKED];
    /// The others.
    pub const OTHERS: [&str; 10] = [
        EXHAUSTED,
        UNDECODABLE,
        NULL_KEY,
        TOO_LARGE,
        REFUSED,
        QUARANTINED,
        SEQUENCE_GAP,
        SEQUENCE_LATE,
        OVERFLOW,
        CRASHED,
    ];
}

impl Failure {
    /// A failure that another attempt may heal.
    pub fn transient(code: &'static str, message: impl Into<String>) -> Self {
        Failure::new(FailureClass::Transient, code, message)
    }

    /// A failure that no attempt will heal.
    pub fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Failure::new(FailureClass::Permanent, code, message)
    }

    /// A failure that stops the handler.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Failure::new(FailureClass::Fatal, code, message)
    }

    /// Adds text that helps to find the cause.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds the service's own wish for the next attempt.
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Adds the HTTP status that the service answered.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Adds the error code of the service or handler itself, by which retry policies may tell failures
    /// apart. One that is empty or longer than 256 bytes is none: a part of it could pass for another.
    pub fn with_own_code(mut self, own_code: impl Into<Box<str>>) -> Self {
        self.own_code = Some(own_code.into()).filter(|own| (1..=MAX_OWN_CODE).contains(&own.len()));
        self
    }

    /// The error code of the service or handler itself, if it gave one.
    pub fn own_code(&self) -> Option<&str> {
        let code = Some(self.code).filter(|code| !code.starts_with(RESERVED));
        self.own_code.as_deref().or(code)
    }

    fn new(class: FailureClass, code: &'static str, message: impl Into<String>) -> Self {
        Failure {
            class,
            code,
            message: message.into(),
            detail: String::new(),
            retry_after: None,
            status: None,
            own_code: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_code_is_bounded_and_a_code_that_is_not_pawls_is_one() {
        let failure = || Failure::permanent(code::REJECTED, "no");
        let given = |own: &str| failure().with_own_code(own).own_code().map(str::to_owned);
        assert_eq!(given("card-declined").as_deref(), Some("card-declined"));
        assert_eq!(given(&"x".repeat(MAX_OWN_CODE)).map(|own| own.len()), Some(MAX_OWN_CODE));
        assert_eq!(given(&"x".repeat(MAX_OWN_CODE + 1)), None);
        assert_eq!(given(""), None);
        assert_eq!(failure().own_code(), None);
        assert_eq!(Failure::permanent("acme.Declined", "no").own_code(), Some("acme.Declined"));
    }
}

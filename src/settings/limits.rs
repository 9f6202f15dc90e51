//! The bounds of every number, duration and size of the settings, in one list.
//!
//! The list feeds the validation, the JSON schema, and a test that the documentation of each field
//! tells its bounds and its default. Bounds between two settings are `validate`'s.

use std::fmt::Display;
use std::time::Duration;

use pawl_actors::policy::NullKey;
use pawl_actors::supervisor::Attempts;

use super::key_path::KeyPath;
use super::problem::{Complaint, Problem};
use super::{ByteSize, HandlerSettings, Http, Program, Retry, RetryOn, Settings, duration};

/// A value with its lowest and its highest allowed one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    Whole([i64; 3]),
    Real([f64; 3]),
    Time([Duration; 3]),
    Size([ByteSize; 3]),
}

impl Limit {
    /// Checks the value against its bounds.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        match self {
            Limit::Whole([value, low, high]) => within(value, low, high),
            Limit::Real([value, low, high]) => within(value, low, high),
            Limit::Time(times @ [value, low, high]) => {
                let [_, low_text, high_text] = times.map(duration::format);
                ordered(value, low, high, &low_text, &high_text)
            }
            Limit::Size([value, low, high]) => within(value, low, high),
        }
    }

    /// Value, lowest and highest as the settings write them.
    pub(super) fn texts(&self) -> [String; 3] {
        match self {
            Limit::Whole(numbers) => numbers.map(|number| number.to_string()),
            Limit::Real(numbers) => numbers.map(|number| number.to_string()),
            Limit::Time(times) => times.map(duration::format),
            Limit::Size(sizes) => sizes.map(|size| size.to_string()),
        }
    }

    fn value_text(&self) -> String {
        let [value, ..] = self.texts();
        match self {
            Limit::Whole(_) | Limit::Real(_) => value,
            Limit::Time(_) | Limit::Size(_) => format!("{value:?}"),
        }
    }
}

/// Whether a value lies within its bounds.
pub(super) fn within<T: PartialOrd + Display>(value: &T, low: &T, high: &T) -> Result<(), Complaint> {
    ordered(value, low, high, &low.to_string(), &high.to_string())
}

fn ordered<T: PartialOrd>(
    value: &T,
    low: &T,
    high: &T,
    low_text: &str,
    high_text: &str,
) -> Result<(), Complaint> {
    if low <= value && value <= high {
        return Ok(());
    }
    let allowed = format!("{low_text} to {high_text} is allowed");
    Err(if value < low {
        Complaint::new(format!("too small, {allowed}"), format!("raise it to at least {low_text}"))
    } else {
        Complaint::new(format!("too large, {allowed}"), format!("lower it to at most {high_text}"))
    })
}

/// Waits in a list of them, at most.
pub(super) const MAX_DELAYS: usize = 100;
/// Retry policies of a handler that are for a code, at most.
pub(super) const MAX_RETRY_CODES: usize = 1_000;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// A year as humantime counts it (365.25 days).
const YEAR: Duration = Duration::from_secs(31_557_600);

/// Every bounded value of the settings with its bounds.
pub(super) fn all(settings: &Settings) -> Vec<(KeyPath, Limit)> {
    let mut limits = process(settings);
    for (name, handler) in &settings.handler {
        let base = KeyPath::of(&["handler", name]);
        limits.extend(self::handler(&base, handler));
        let in_retry = base.name("retry");
        limits.extend(retry(&in_retry, &as_override(&handler.retry)));
        for (code, on) in &handler.retry.on {
            limits.extend(retry(&in_retry.name("on").name(code), on));
        }
        limits.extend(handler.http.iter().flat_map(|http| self::http(&base.name("http"), http)));
        limits
            .extend(handler.program.iter().flat_map(|program| self::program(&base.name("program"), program)));
    }
    limits
}

/// The values that are out of their bounds.
pub(super) fn problems(settings: &Settings) -> impl Iterator<Item = Problem> {
    all(settings).into_iter().filter_map(|(path, limit)| {
        limit.check().err().map(|complaint| Problem::with_value(&path, &limit.value_text(), complaint))
    })
}

fn process(settings: &Settings) -> Vec<(KeyPath, Limit)> {
    use Limit::{Real, Size, Time, Whole};
    let Settings { kafka, store, admin, shutdown, telemetry, .. } = settings;
    let (otlp, in_otlp) = (&telemetry.otlp, KeyPath::of(&["telemetry", "otlp"]));
    let (kib, mib, gib) = (ByteSize::kib, ByteSize::mib, ByteSize::gib);
    vec![
        (KeyPath::of(&["kafka", "session_timeout"]), Time([kafka.session_timeout, 6 * SECOND, 30 * MINUTE])),
        (
            KeyPath::of(&["kafka", "transaction_timeout"]),
            Time([kafka.transaction_timeout, SECOND, 15 * MINUTE]),
        ),
        (KeyPath::of(&["kafka", "request_timeout"]), Time([kafka.request_timeout, SECOND, 5 * MINUTE])),
        (KeyPath::of(&["kafka", "replication_factor"]), Whole([kafka.replication_factor.into(), -1, 100])),
        (KeyPath::of(&["kafka", "reload_interval"]), Time([kafka.reload_interval, SECOND, HOUR])),
        (KeyPath::of(&["kafka", "oauth", "timeout"]), Time([kafka.oauth.timeout, SECOND, MINUTE])),
        (KeyPath::of(&["kafka", "msk_iam", "timeout"]), Time([kafka.msk_iam.timeout, SECOND, MINUTE])),
        (
            KeyPath::of(&["store", "checkpoint_interval"]),
            Time([store.checkpoint_interval, 100 * MILLI, 10 * MINUTE]),
        ),
        (KeyPath::of(&["store", "buffer_bytes"]), Size([store.buffer_bytes, mib(1), gib(16)])),
        (KeyPath::of(&["store", "cache_bytes"]), Size([store.cache_bytes, mib(1), gib(64)])),
        (KeyPath::of(&["store", "restore_timeout"]), Time([store.restore_timeout, SECOND, HOUR])),
        (KeyPath::of(&["admin", "stalled_after"]), Time([admin.stalled_after, 5 * SECOND, DAY])),
        (
            KeyPath::of(&["admin", "requests_per_second"]),
            Whole([admin.requests_per_second.into(), 1, 100_000]),
        ),
        (KeyPath::of(&["admin", "burst"]), Whole([admin.burst.into(), 1, 100_000])),
        (KeyPath::of(&["admin", "max_body"]), Size([admin.max_body, kib(1), mib(1)])),
        (KeyPath::of(&["admin", "audit_file_size"]), Size([admin.audit_file_size, kib(64), gib(16)])),
        (KeyPath::of(&["admin", "audit_files_kept"]), Whole([admin.audit_files_kept.into(), 1, 1_000])),
        (KeyPath::of(&["shutdown", "deadline"]), Time([shutdown.deadline, SECOND, HOUR])),
        (in_otlp.name("sampling_ratio"), Real([otlp.sampling_ratio, 0.0, 1.0])),
        (in_otlp.name("queue_spans"), Whole([otlp.queue_spans.into(), 1, 1_000_000])),
        (in_otlp.name("batch_spans"), Whole([otlp.batch_spans.into(), 1, 10_000])),
        (in_otlp.name("export_interval"), Time([otlp.export_interval, 10 * MILLI, MINUTE])),
        (in_otlp.name("metrics_interval"), Time([otlp.metrics_interval, SECOND, HOUR])),
        (in_otlp.name("timeout"), Time([otlp.timeout, 100 * MILLI, MINUTE])),
        (KeyPath::of(&["telemetry", "emf", "interval"]), Time([telemetry.emf.interval, SECOND, HOUR])),
    ]
}

fn handler(base: &KeyPath, handler: &HandlerSettings) -> Vec<(KeyPath, Limit)> {
    use Limit::{Size, Time, Whole};
    let HandlerSettings { parking, replay, intake, .. } = handler;
    let (in_parking, in_replay, in_intake) = (base.name("parking"), base.name("replay"), base.name("intake"));
    let mut limits = vec![
        (base.name("recent_ids"), Whole([handler.recent_ids.into(), 0, 10_000])),
        (base.name("first_sequence"), Whole([handler.first_sequence.into(), 0, 1_000_000])),
        (base.name("gap").name("timeout"), Time([handler.gap.timeout, 10 * MILLI, 30 * DAY])),
        (base.name("gap").name("max_waiting"), Whole([handler.gap.max_waiting.into(), 1, 100_000])),
        (base.name("recent_ids_age"), Time([handler.recent_ids_age, MINUTE, YEAR])),
        (
            base.name("membership").name("revoke_grace"),
            Time([handler.membership.revoke_grace, Duration::ZERO, 4 * MINUTE]),
        ),
        (base.name("commit_interval"), Time([handler.commit_interval, Duration::ZERO, 10 * SECOND])),
        (base.name("idle_key_after"), Time([handler.idle_key_after, SECOND, DAY])),
        (base.name("max_live_keys"), Whole([handler.max_live_keys.into(), 100, 10_000_000])),
        (in_parking.name("max_records_per_key"), Whole([parking.max_records_per_key.into(), 1, 1_000_000])),
        (
            in_parking.name("max_bytes_per_key"),
            Size([parking.max_bytes_per_key, ByteSize::kib(1), ByteSize::gib(1)]),
        ),
        (base.name("breaker").name("keys"), Whole([handler.breaker.keys.into(), 0, 10_000])),
        (
            base.name("breaker").name("probe_every"),
            Time([handler.breaker.probe_every, 10 * MILLI, 10 * MINUTE]),
        ),
        (base.name("supervision").name("restarts"), Whole([handler.supervision.restarts.into(), 0, 1_000])),
        (base.name("supervision").name("within"), Time([handler.supervision.within, SECOND, DAY])),
        (base.name("careful").name("crashes"), Whole([handler.careful.crashes.into(), 0, 10])),
        (base.name("careful").name("within"), Time([handler.careful.within, SECOND, DAY])),
        (in_parking.name("max_records"), Whole([parking.max_records.into(), 1, 10_000_000])),
        (in_parking.name("max_bytes"), Size([parking.max_bytes, ByteSize::mib(1), ByteSize::gib(16)])),
        (in_replay.name("max_records"), Whole([replay.max_records.into(), 1, 1_000_000])),
        (in_replay.name("max_bytes"), Size([replay.max_bytes, ByteSize::kib(1), ByteSize::gib(1)])),
        (in_intake.name("max_records"), Whole([intake.max_records.into(), 1, 10_000_000])),
        (in_intake.name("max_bytes"), Size([intake.max_bytes, ByteSize::mib(1), ByteSize::gib(16)])),
        (in_intake.name("max_finished_ahead"), Whole([intake.max_finished_ahead.into(), 1, 100_000_000])),
    ];
    if let NullKey::Spread(lanes) = handler.null_key {
        limits.push((base.name("null_key").name("spread"), Whole([lanes.get().into(), 1, 1024])));
    }
    limits
}

/// The base policy in the form of one that is for a code: both have the same bounds.
fn as_override(retry: &Retry) -> RetryOn {
    RetryOn {
        class: None,
        attempts: Some(retry.attempts),
        initial: Some(retry.initial),
        max: Some(retry.max),
        multiplier: Some(retry.multiplier),
        delays: retry.delays.clone(),
        jitter: Some(retry.jitter),
        max_elapsed: retry.max_elapsed,
    }
}

fn retry(base: &KeyPath, retry: &RetryOn) -> Vec<(KeyPath, Limit)> {
    use Limit::{Real, Time, Whole};
    let mut limits = Vec::new();
    let mut push = |name: &str, limit: Option<Limit>| {
        limits.extend(limit.map(|limit| (base.name(name), limit)));
    };
    let attempts = match retry.attempts {
        Some(Attempts::Limited(attempts)) => Some(Whole([attempts.into(), 1, 1_000])),
        Some(Attempts::Unlimited) | None => None,
    };
    push("attempts", attempts);
    push("initial", retry.initial.map(|time| Time([time, MILLI, HOUR])));
    push("max", retry.max.map(|time| Time([time, MILLI, DAY])));
    push("multiplier", retry.multiplier.map(|times| Real([times, 1.0, 100.0])));
    push("jitter", retry.jitter.map(|part| Real([part, 0.0, 1.0])));
    push("max_elapsed", retry.max_elapsed.map(|time| Time([time, MILLI, YEAR])));
    let delays = retry.delays.iter().flatten().enumerate();
    limits.extend(delays.map(|(index, time)| (base.name("delays").index(index), Time([*time, MILLI, DAY]))));
    limits
}

fn http(base: &KeyPath, http: &Http) -> Vec<(KeyPath, Limit)> {
    vec![
        (base.name("timeout"), Limit::Time([http.timeout, 10 * MILLI, HOUR])),
        (base.name("max_in_flight"), Limit::Whole([http.max_in_flight.into(), 1, 100_000])),
        (
            base.name("max_response_bytes"),
            Limit::Size([http.max_response_bytes, ByteSize::kib(1), ByteSize::mib(64)]),
        ),
    ]
}

fn program(base: &KeyPath, program: &Program) -> Vec<(KeyPath, Limit)> {
    vec![
        (base.name("timeout"), Limit::Time([program.timeout, 10 * MILLI, DAY])),
        (base.name("max_in_flight"), Limit::Whole([program.max_in_flight.into(), 1, 100_000])),
    ]
}

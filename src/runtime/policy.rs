//! A handler's settings, and what its topics take, as its actors need them.

use std::time::Duration;

use pawl_actors::policy::{self, CarefulPolicy, ParkingBounds, ParkingPolicy, Policy, RestartPolicy};
use pawl_actors::supervisor::BreakerPolicy;

use super::pipeline::{Blueprint, MAX_OPEN};
use crate::settings::{ByteSize, Careful, GapThen, Guarantee, HandlerSettings, Overflow, Parking, Then};

/// An epoch takes partitions in until it holds so much: it has to be written within a transaction's
/// time-out.
const MAX_EPOCH_BYTES: u64 = 32 << 20;
/// Least time between two epochs where a transaction takes in several: each carries a row for each of
/// its partitions.
const MIN_EPOCH_INTERVAL: Duration = Duration::from_millis(1);
/// Epochs of a handler that are closed and not yet decided, at most, where a transaction takes in several.
const MAX_UNDECIDED: usize = 8;
/// How long records gather that follow an earlier one into the dead-letter topic: several transactions under load,
/// and less than anybody waits who looks at letters.
const FOLLOWERS_GATHER: Duration = Duration::from_millis(100);
/// Heads that the sweep for dead rows looks at in a second, for each partition.
const SWEEP_ROWS_PER_SECOND: usize = 1_000;
/// An answer of the `http` handler that exceeds its own time-out by this much is given up by the
/// order actor: the handler's own message is the better one.
const HTTP_GRACE: Duration = Duration::from_secs(1);

impl Blueprint<'_> {
    /// Its settings as its actors need them.
    pub(super) fn policy(&self) -> Policy {
        let (settings, facts) = (self.handler_settings, &self.facts);
        let (max_in_flight, attempt_timeout) = match (&settings.http, &settings.program) {
            (Some(http), _) => (http.max_in_flight, http.timeout + HTTP_GRACE),
            (None, Some(program)) => (program.max_in_flight, program.timeout),
            (None, None) => (u32::MAX, HTTP_GRACE),
        };
        // A transaction takes in what is closed while its first records are under way, so the intake's
        // effects are on their way long before the interval is over.
        let interval = settings.commit_interval;
        let (epoch_interval, max_undecided) = match settings.guarantee {
            Guarantee::ExactlyOnce if interval <= MAX_OPEN => {
                (MIN_EPOCH_INTERVAL.max(interval / 4), MAX_UNDECIDED)
            }
            Guarantee::ExactlyOnce => (interval, MAX_UNDECIDED),
            Guarantee::AtLeastOnce => (interval, 1),
        };
        Policy {
            key: settings.key.clone(),
            null_key: settings.null_key,
            event_id: settings.event_id.clone(),
            recent_ids: settings.recent_ids as usize,
            recent_ids_age: settings.recent_ids_age,
            sequence: settings.sequence.clone().map(|at| policy::SequencePolicy {
                at,
                first: settings.first_sequence.into(),
                timeout: settings.gap.timeout,
                max_waiting: settings.gap.max_waiting as usize,
                then: match settings.gap.then {
                    GapThen::DeadLetter => policy::GapThen::DeadLetter,
                    GapThen::Skip => policy::GapThen::Skip,
                    GapThen::Halt => policy::GapThen::Halt,
                },
            }),
            retry: settings.retry.policies(settings.http.is_some()),
            breaker: BreakerPolicy {
                keys: settings.breaker.keys as usize,
                probe_every: settings.breaker.probe_every,
            },
            restarts: RestartPolicy {
                restarts: settings.supervision.restarts,
                within: settings.supervision.within,
            },
            careful: careful(settings),
            followers_gather: FOLLOWERS_GATHER,
            parking: parking(&settings.parking),
            dead_letter_topic: settings.dead_letter_topic().into(),
            dead_letter_topic_id: facts.letters_id.clone(),
            command_topic: settings.command_topic(self.name).into(),
            replay: ParkingBounds {
                records: settings.replay.max_records.into(),
                bytes: settings.replay.max_bytes.bytes(),
            },
            then: match settings.dead_letter.then {
                Then::Quarantine => policy::Then::Quarantine,
                Then::Continue => policy::Then::Continue,
                Then::Halt => policy::Then::Halt,
            },
            max_emit_bytes: facts.max_emit_bytes,
            max_letter_bytes: facts.max_letter_bytes,
            max_row_bytes: facts.max_row_bytes,
            max_epoch_bytes: MAX_EPOCH_BYTES,
            max_in_flight: max_in_flight as usize,
            attempt_timeout,
            rewind_grace: settings.membership.revoke_grace,
            epoch_interval,
            max_undecided,
            idle_key_after: settings.idle_key_after,
            max_live_keys: settings.max_live_keys as usize,
            mailbox_capacity: 2 * settings.intake.max_records as usize + 1_024,
            sweep_rows_per_second: SWEEP_ROWS_PER_SECOND,
        }
    }
}

fn parking(settings: &Parking) -> ParkingPolicy {
    let bounds =
        |records: u32, bytes: ByteSize| ParkingBounds { records: records.into(), bytes: bytes.bytes() };
    ParkingPolicy {
        lane: bounds(settings.max_records_per_key, settings.max_bytes_per_key),
        partition: bounds(settings.max_records, settings.max_bytes),
        overflow: match settings.overflow {
            Overflow::PauseIntake => policy::Overflow::PauseIntake,
            Overflow::DeadLetter => policy::Overflow::DeadLetter,
        },
    }
}

/// What an owner may have had in hand: records that it took in, letters of a replay, and lanes whose retry was due.
fn careful(settings: &HandlerSettings) -> Option<CarefulPolicy> {
    let Careful { crashes, within } = settings.careful;
    let suspects = u64::from(settings.intake.max_records) + u64::from(settings.replay.max_records);
    (crashes > 0).then_some(CarefulPolicy { crashes, within, suspects })
}

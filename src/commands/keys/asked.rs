//! What `pawl keys` asks instances to do with a key: pause, resume, skip, release, erase.

use pawl_actors::command::{KeyName, What};
use pawl_actors::ledger::LaneKey;
use pawl_actors::selector::Selector;

use super::lane;
use crate::cli::{KeyCommand, KeyRelease, KeySkip, KeySkipGap, OneKey};
use crate::commands::Failure;
use crate::commands::asking::Asked;
use crate::exit::Exit;
use crate::kafka::partitioner::java_partition;

fn name(which: &OneKey) -> KeyName {
    KeyName(lane(&which.key, &which.key_hex, which.no_key_lane))
}

/// Carries `pawl keys pause` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn pause(args: &KeyCommand) -> Result<Exit, Failure> {
    let asked = Asked::open(&args.asking)?;
    let key = name(&args.which);
    // A key that nothing is known of yet is paused where its records will come: where Java's partitioner puts
    // them, or where the person says.
    let home = match (key.lane(), &asked.handler().key) {
        (LaneKey::Key(bytes), Selector::Record) if args.asking.partition.is_none() => {
            let partitions = i32::try_from(asked.partitions().len()).unwrap_or(i32::MAX);
            Some(java_partition(bytes, partitions))
        }
        _ => args.asking.partition,
    };
    asked.ask_each(|partition| What::Pause { key: key.clone(), create: home == Some(partition) })
}

/// Carries `pawl keys resume` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn resume(args: &KeyCommand) -> Result<Exit, Failure> {
    Asked::open(&args.asking)?.ask(What::Resume { key: name(&args.which) })
}

/// Carries `pawl keys erase` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn erase(args: &KeyCommand) -> Result<Exit, Failure> {
    Asked::open(&args.asking)?.ask(What::Erase { key: name(&args.which) })
}

/// Carries `pawl keys release` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn release(args: &KeyRelease) -> Result<Exit, Failure> {
    let what = What::Release { key: name(&args.which), reason: args.reason.clone() };
    Asked::open(&args.asking)?.ask(what)
}

/// Carries `pawl keys skip` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn skip(args: &KeySkip) -> Result<Exit, Failure> {
    let (key, offset, reason) = (name(&args.which), args.offset, args.reason.clone());
    Asked::open(&args.asking)?.ask(What::Skip { key, offset, reason })
}

/// Carries `pawl keys skip-gap` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn skip_gap(args: &KeySkipGap) -> Result<Exit, Failure> {
    let (key, to, reason) = (name(&args.which), args.to, args.reason.clone());
    Asked::open(&args.asking)?.ask(What::SkipGap { key, to, reason })
}

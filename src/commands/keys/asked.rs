//! What `pawl keys` asks instances to do with a key: pause, resume, skip, release, erase.

use pawl_actors::command::{KeyName, What};

use super::lane;
use crate::cli::{KeyCommand, KeyRelease, KeySkip, KeySkipGap, OneKey};
use crate::commands::Failure;
use crate::commands::asking::{Request, ask};
use crate::exit::Exit;

fn name(which: &OneKey) -> KeyName {
    KeyName(lane(&which.key, &which.key_hex, which.no_key_lane))
}

/// Carries `pawl keys pause` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn pause(args: &KeyCommand) -> Result<Exit, Failure> {
    // A key that nothing is known of yet is paused where its records will come: where Java's partitioner puts
    // them, or where the person says.
    ask(&args.asking, &Request::Pause { key: name(&args.which), home: args.asking.partition })
}

/// Carries `pawl keys resume` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn resume(args: &KeyCommand) -> Result<Exit, Failure> {
    ask(&args.asking, &Request::Same(What::Resume { key: name(&args.which) }))
}

/// Carries `pawl keys erase` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn erase(args: &KeyCommand) -> Result<Exit, Failure> {
    ask(&args.asking, &Request::Same(What::Erase { key: name(&args.which) }))
}

/// Carries `pawl keys release` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn release(args: &KeyRelease) -> Result<Exit, Failure> {
    let what = What::Release { key: name(&args.which), reason: args.reason.clone() };
    ask(&args.asking, &Request::Same(what))
}

/// Carries `pawl keys skip` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn skip(args: &KeySkip) -> Result<Exit, Failure> {
    let (key, offset, reason) = (name(&args.which), args.offset, args.reason.clone());
    ask(&args.asking, &Request::Same(What::Skip { key, offset, reason }))
}

/// Carries `pawl keys skip-gap` out.
///
/// # Errors
/// Settings, no broker, no right.
pub fn skip_gap(args: &KeySkipGap) -> Result<Exit, Failure> {
    let (key, to, reason) = (name(&args.which), args.to, args.reason.clone());
    ask(&args.asking, &Request::Same(What::SkipGap { key, to, reason }))
}

//! `pawl health`: asks the instance on this machine whether it is alive, or ready, for the health check of a
//! container. Docker knows 0 and 1 as answers.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::{Failure, print, settings};
use crate::cli::Health;
use crate::exit::Exit;
use crate::settings::Admin;

/// Reasons that are told: an orchestrator keeps no more than a few lines of a check.
const TOLD: usize = 5;

/// Carries `pawl health` out.
///
/// # Errors
/// With [`Exit::Findings`] where the answer is no, or none comes in time.
pub fn execute(args: &Health) -> Result<Exit, Failure> {
    let began = Instant::now();
    let own = if args.endpoint.admin.is_some() { None } else { Some(settings(&args.settings)?.admin) };
    let off = || {
        let why = format!(
            "{}: admin.listen is \"off\", so nobody can be asked: give it an address, such as \"127.0.0.1:9464\", \
             or check the process in another way",
            args.settings.place()
        );
        Failure::new(Exit::Usage, why)
    };
    let endpoint = Endpoint::probe(&args.endpoint, own.as_ref())?.ok_or_else(off)?;
    let (path, good) = if args.ready { ("/ready", "ready") } else { ("/live", "live") };
    let asked = endpoint.ask(path, args.timeout);
    let (status, body) = asked.map_err(|error| Failure::new(Exit::Findings, error.to_string()))?;
    if status == StatusCode::OK {
        print(format!("{good}\n").as_bytes())?;
        return Ok(Exit::Done);
    }
    let mut why = reasons(&body);
    if args.ready && why.is_empty() {
        why = told(args, own.as_ref(), args.timeout.saturating_sub(began.elapsed())).unwrap_or_default();
    }
    let why = format!("not {good}: {} answers {path} with {status}{why}", endpoint.address());
    Err(Failure::new(Exit::Findings, why))
}

/// What it tells to those it knows, if it is there in time. The answer is no without it.
fn told(args: &Health, own: Option<&Admin>, within: Duration) -> Option<String> {
    let endpoint = Endpoint::find(&args.endpoint, own).ok().flatten()?;
    endpoint.ask("/ready", within).ok().map(|(_, body)| reasons(&body))
}

/// What `/ready` tells to those who may know; nothing to others.
#[derive(Deserialize)]
struct Told {
    handlers: Vec<Handler>,
}

#[derive(Deserialize)]
struct Handler {
    name: String,
    reason: Option<String>,
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Partition {
    partition: i32,
    reason: Option<String>,
}

fn reasons(body: &[u8]) -> String {
    let Ok(told) = serde_json::from_slice::<Told>(body) else { return String::new() };
    let mut all = Vec::new();
    for Handler { name, reason, partitions } in told.handlers {
        all.extend(reason.map(|reason| format!("{name}: {reason}")));
        all.extend(partitions.into_iter().filter_map(|Partition { partition, reason }| {
            reason.map(|reason| format!("{name} partition {partition}: {reason}"))
        }));
    }
    let more = all.len().saturating_sub(TOLD);
    all.truncate(TOLD);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all.into_iter().map(|reason| format!("; {reason}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_up_to_a_bound_and_a_stranger_gets_none() {
        let partitions: Vec<_> = (0..7)
            .map(|n| serde_json::json!({"partition": n, "reason": if n == 1 { None } else { Some("stuck") }}))
            .collect();
        let body = serde_json::json!({"ready": false, "handlers": [
            {"name": "billing", "reason": "no assignment", "partitions": partitions},
        ]});
        let told = reasons(body.to_string().as_bytes());
        assert!(told.starts_with("; billing: no assignment; billing partition 0: stuck; "), "{told}");
        assert!(!told.contains("partition 1") && told.ends_with("; and 2 more"), "{told}");
        assert_eq!(reasons(b"not ready\n"), "");
    }
}

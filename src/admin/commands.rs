//! `POST /handlers/{name}/commands`: what the command line asks of instances, asked by an operator over HTTP. It goes
//! the same way, through the handler's command topic, so the instance that is asked need not be the one that holds
//! the key.

mod body;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pawl_actors::command::{Progress, Reply};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use self::body::Order;
use super::access::Visitor;
use super::connection::Peer;
use super::keys::{NoAnswer, Refused, handler};
use super::{Process, REQUEST_TIMEOUT};
use crate::commands::asking::{Answers, Asked, Asker, Patience, Request as Asking, merge};
use crate::commands::{Failure, rewind};
use crate::exit::Exit;
use crate::settings::Settings;

/// Commands of a process that are under way at once; each has a thread, a reader and a producer.
pub const MAX_AT_ONCE: usize = 4;
/// The wait for answers, unless the body says another.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// The command's id: in the command topic, and in the audit log of who was asked and of who carried it out.
    pub id: String,
    /// How it ended.
    pub result: Ended,
    /// What happened, for people.
    pub message: String,
    /// The last answer of each partition that has answered.
    pub partitions: BTreeMap<i32, Reply>,
    /// Partitions that have not answered to the end in time; they carry the command out all the same.
    pub silent: Vec<i32>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// A partition carried it out, and none refused it.
    Done,
    /// Not every partition has answered to the end.
    Unanswered,
    /// A partition refused it.
    Refused,
    /// There was nothing to do in any partition.
    Nothing,
    /// It was only said what would be done.
    DryRun,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Ended::Done => "done",
            Ended::Unanswered => "unanswered",
            Ended::Refused => "refused",
            Ended::Nothing => "nothing",
            Ended::DryRun => "dry-run",
        }
    }

    fn of(answers: &Answers) -> Ended {
        let any = |progress| answers.partitions.values().any(|reply| reply.progress == progress);
        match () {
            () if any(Progress::Refused) => Ended::Refused,
            () if !answers.silent.is_empty() => Ended::Unanswered,
            () if any(Progress::Done) => Ended::Done,
            () => Ended::Nothing,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Ended::Done | Ended::DryRun => StatusCode::OK,
            Ended::Unanswered => StatusCode::ACCEPTED,
            Ended::Refused => StatusCode::CONFLICT,
            Ended::Nothing => StatusCode::NOT_FOUND,
        }
    }
}

/// The route. Whoever gets here is an operator.
pub(super) async fn ask(
    State(process): State<Arc<Process>>,
    Extension(peer): Extension<Peer>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    match carry_out(&process, &peer, &visitor, request).await {
        Ok(answer) => (answer.result.status(), Json(answer)).into_response(),
        Err((status, error)) => {
            let mut response = (status, Json(NoAnswer { error })).into_response();
            if status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    }
}

async fn carry_out(
    process: &Process,
    peer: &Peer,
    visitor: &Visitor,
    request: Request,
) -> Result<CommandAnswer, Refused> {
    let name = handler(process, request.uri())?.name.to_string();
    let (head, body) = request.into_parts();
    is_json(&head.headers)?;
    let most = usize::try_from(process.settings.admin.max_body.bytes()).unwrap_or(usize::MAX);
    let body = read(&head.headers, body, most).await?;
    let (order, text) = Order::read(&body).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let busy = || {
        let why = format!("{MAX_AT_ONCE} commands are under way already, and no more are taken: ask again");
        (StatusCode::SERVICE_UNAVAILABLE, why)
    };
    let permit = process.commands.clone().try_acquire_owned().map_err(|_| busy())?;
    let kafka = process.settings.kafka.request_timeout;
    // The topic is described, its ends are asked for, and the command is written before answers are waited for.
    peer.deadline.send_replace(Instant::now() + order.timeout + 3 * kafka + REQUEST_TIMEOUT);
    let instance = process.settings.instance().unwrap_or_default();
    let asker = Asker::new(format!("{visitor} over the admin endpoint of {instance}"));
    tell_asked(&asker, visitor, &name, &text);
    in_thread(Work { settings: process.settings.clone(), name, asker, order, permit }).await
}

fn tell_asked(asker: &Asker, visitor: &Visitor, handler: &str, command: &str) {
    let (id, by, role) = (asker.id.as_str(), asker.by.as_str(), visitor.role.name());
    tracing::info!(target: "pawl::audit", id, by, role, handler, command, "command asked for");
}

fn is_json(headers: &HeaderMap) -> Result<(), Refused> {
    let is = |kind: &str| {
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    };
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    // Nothing that a page can send without asking first (CORS) is taken for JSON.
    if kind.is_some_and(is) && !headers.contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    let why =
        "send the command as JSON, with the header \"Content-Type: application/json\" and not compressed";
    Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why.into()))
}

async fn read(headers: &HeaderMap, body: Body, most: usize) -> Result<Bytes, Refused> {
    let too_long = || {
        let why = format!("the body is longer than {most} bytes (admin.max_body)");
        (StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > most)) {
        return Err(too_long());
    }
    let read = Limited::new(body, most).collect().await;
    read.map(|body| body.to_bytes()).map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => too_long(),
        None => (StatusCode::BAD_REQUEST, format!("the body ended early: {error}")),
    })
}

/// A command with all that is needed to carry it out.
struct Work {
    settings: Arc<Settings>,
    name: String,
    asker: Asker,
    order: Order,
    /// Held until it is over, also when nobody waits for the answer any more.
    permit: OwnedSemaphorePermit,
}

/// In a thread of its own: clients of Kafka block, and the end of the process must not wait for it.
async fn in_thread(work: Work) -> Result<CommandAnswer, Refused> {
    let (answer, answered) = oneshot::channel();
    let id = work.asker.id.clone();
    let ask = move || {
        let permit = work.permit;
        let done = put(&work.settings, work.name, &work.asker, &work.order);
        tell_answered(&work.asker.id, &done);
        // Whoever asked may have gone.
        let _ = answer.send(done);
        drop(permit);
    };
    let started = std::thread::Builder::new().name("admin-command".into()).spawn(ask);
    let failed = |why: String| (StatusCode::INTERNAL_SERVER_ERROR, format!("command {id}: {why}"));
    started.map_err(|error| failed(error.to_string()))?;
    answered.await.map_err(|_| failed("Pawl itself failed; see its log".into()))?
}

fn put(settings: &Settings, name: String, asker: &Asker, order: &Order) -> Result<CommandAnswer, Refused> {
    let refused = |failure: Failure| {
        let status = match failure.exit {
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::Findings => StatusCode::NOT_FOUND,
            Exit::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            Exit::Done | Exit::Stopped | Exit::Interrupted => StatusCode::BAD_GATEWAY,
        };
        (status, failure.to_string())
    };
    let asked = Asked::of(settings.clone(), name, order.partition).map_err(refused)?;
    if let (true, Asking::Rewind { place, reset, .. }) = (order.dry_run, &order.request) {
        let plan = rewind::plan(&asked, *place).map_err(refused)?;
        let message = plan.told + &rewind::meaning(*reset, &asked);
        let (id, partitions, silent) = (asker.id.clone(), BTreeMap::new(), Vec::new());
        return Ok(CommandAnswer { id, result: Ended::DryRun, message, partitions, silent });
    }
    let parts = order.request.of_each(&asked).map_err(refused)?;
    let patience = Patience { silence: order.timeout, total: order.timeout };
    let answers = asked.answers(asker, &parts, patience, |_| ()).map_err(refused)?;
    let (result, message) = (Ended::of(&answers), merge::told(&answers, asked.name()));
    let Answers { id, partitions, silent } = answers;
    Ok(CommandAnswer { id, result, message, partitions, silent })
}

fn tell_answered(id: &str, done: &Result<CommandAnswer, Refused>) {
    match done {
        Ok(answer) => {
            let of = |(partition, reply): (&i32, &Reply)| serde_json::json!({ "partition": partition, "result": reply.progress, "message": reply.message });
            let partitions: Vec<_> = answer.partitions.iter().map(of).collect();
            let partitions = serde_json::Value::from(partitions).to_string();
            let (partitions, result) = (partitions.as_str(), answer.result.name());
            let silent = answer.silent.len();
            tracing::info!(target: "pawl::audit", id, result, partitions, silent, "command answered");
        }
        Err((status, why)) => {
            let (status, why) = (status.as_u16(), why.as_str());
            tracing::warn!(target: "pawl::audit", id, status, why, "command not carried out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_how_a_command_ended() {
        let reply =
            |progress| Reply { version: 1, id: "c".into(), progress, message: String::new(), replay: None };
        let status = |replies: &[Progress], silent: &[i32]| {
            let partitions = (0..).zip(replies.iter().map(|progress| reply(*progress))).collect();
            Ended::of(&Answers { id: "c".into(), partitions, silent: silent.to_vec() }).status().as_u16()
        };
        assert_eq!(status(&[Progress::Nothing, Progress::Done], &[]), 200);
        assert_eq!(status(&[Progress::Nothing, Progress::Nothing], &[]), 404);
        assert_eq!(status(&[Progress::Done, Progress::Refused], &[2]), 409);
        assert_eq!(status(&[Progress::Done, Progress::Running], &[1]), 202);
        assert_eq!(status(&[], &[0]), 202);
    }
}

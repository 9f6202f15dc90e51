//! Fetches the next token long before the last one ends, and looks at the files, on a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::files::{Changes, Pem, Read};
#[cfg(feature = "aws")]
use super::msk_iam::MskIamTokens;
use super::oidc::OidcTokens;
use super::state::{State, Token};
use crate::settings::{Kafka, Security};

/// The first wait after a failure; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The shortest time between two tokens, however short they live.
const LEAST_LIFE: Duration = Duration::from_secs(1);
/// The longest time between two looks at the clocks.
const CLOCK_CHECK: Duration = Duration::from_secs(30);
/// How long reading the files may take before it is told.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Threads for what blocks: reading files, and asking for addresses. A file system that hangs holds some of them.
const MAX_BLOCKING_THREADS: usize = 16;

/// A running keeper; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    _stop: oneshot::Sender<()>,
}

/// Where tokens come from.
enum Source {
    Oidc(Box<OidcTokens>),
    #[cfg(feature = "aws")]
    MskIam(Box<MskIamTokens>),
    #[cfg(test)]
    Made(fn() -> Result<Token, String>),
}

impl Source {
    fn of(kafka: &Kafka) -> Option<Source> {
        match kafka.security {
            Security::Oauth => Some(Source::Oidc(Box::new(OidcTokens::new(kafka.oauth.clone())))),
            #[cfg(feature = "aws")]
            Security::MskIam => Some(Source::MskIam(Box::new(MskIamTokens::new(kafka)))),
            _ => None,
        }
    }

    fn timeout(&self) -> Duration {
        match self {
            Source::Oidc(tokens) => tokens.timeout(),
            #[cfg(feature = "aws")]
            Source::MskIam(tokens) => tokens.timeout(),
            #[cfg(test)]
            Source::Made(_) => Duration::MAX,
        }
    }

    async fn token(&mut self) -> Result<Token, String> {
        match self {
            Source::Oidc(tokens) => tokens.fetch().await,
            #[cfg(feature = "aws")]
            Source::MskIam(tokens) => tokens.sign().await,
            #[cfg(test)]
            Source::Made(make) => make(),
        }
    }
}

struct Work {
    state: Arc<State>,
    kafka: Kafka,
    source: Option<Source>,
    passwords: Changes<String>,
    certificates: Changes<Pem>,
    /// Under way; not begun again before it is over.
    reading: Option<JoinHandle<Read>>,
    failures: u32,
}

impl Keeper {
    /// Starts keeping; `None` if nothing of these settings ends or changes.
    pub(super) fn start(kafka: &Kafka, state: &Arc<State>) -> Option<Keeper> {
        let source = Source::of(kafka);
        let tls = &kafka.tls;
        let files = [&tls.ca_file, &tls.certificate_file, &tls.key_file, &kafka.sasl.password_file];
        if source.is_none() && files.into_iter().all(Option::is_none) {
            return None;
        }
        let mut work = Work::new(kafka, state, source);
        let (stop, stopped) = oneshot::channel();
        let every = kafka.reload_interval;
        let thread = std::thread::Builder::new().name("pawl-access".into());
        let running = thread.spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            match builder.enable_all().max_blocking_threads(MAX_BLOCKING_THREADS).build() {
                Ok(runtime) => {
                    runtime.block_on(work.keep(every, stopped));
                    // Without those that hang.
                    runtime.shutdown_background();
                }
                Err(error) => work.state.failed(format!("no runtime could be started: {error}")),
            }
        });
        if let Err(error) = running {
            state.failed(format!("the thread that fetches tokens could not be started: {error}"));
        }
        Some(Keeper { _stop: stop })
    }
}

/// What the clocks show. One stands still while the machine is suspended, the other may be set.
#[derive(Clone, Copy)]
struct Clocks {
    running: Instant,
    wall: SystemTime,
}

impl Clocks {
    fn now() -> Clocks {
        Clocks { running: Instant::now(), wall: SystemTime::now() }
    }

    /// So much later.
    fn after(self, wait: Duration) -> Clocks {
        Clocks { running: self.running + wait, wall: self.wall + wait }
    }

    /// How long until the first of them shows this.
    fn until(self, due: Clocks) -> Duration {
        let running = due.running.saturating_duration_since(self.running);
        running.min(due.wall.duration_since(self.wall).unwrap_or_default())
    }
}

impl Work {
    fn new(kafka: &Kafka, state: &Arc<State>, source: Option<Source>) -> Work {
        Work {
            state: state.clone(),
            kafka: kafka.clone(),
            source,
            passwords: Changes::default(),
            certificates: Changes::default(),
            reading: None,
            failures: 0,
        }
    }

    async fn keep(&mut self, every: Duration, stopped: oneshot::Receiver<()>) {
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Clocks::now();
        tokio::pin!(stopped);
        loop {
            let left = Clocks::now().until(due);
            if self.source.is_some() && left.is_zero() {
                // Looks at the files wait for it, and do not cut it off.
                due = tokio::select! {
                    biased;
                    _ = &mut stopped => return,
                    wait = self.refresh() => Clocks::now().after(wait),
                };
                continue;
            }
            tokio::select! {
                biased;
                _ = &mut stopped => return,
                () = sleep(left.min(CLOCK_CHECK)), if self.source.is_some() => {}
                _ = looks.tick() => self.look_at_files().await,
            }
        }
    }

    /// Fetches a token. How long the next one can wait. A panic is a failure like any other: if this thread ended, so
    /// would the token that is there.
    async fn refresh(&mut self) -> Duration {
        let renewed = AssertUnwindSafe(self.renew()).catch_unwind().await;
        match renewed
            .unwrap_or_else(|_| Err("fetching it panicked; this is a bug in Pawl, please report it".into()))
        {
            Ok(wait) => wait,
            Err(why) => self.failed(why),
        }
    }

    async fn renew(&mut self) -> Result<Duration, String> {
        let source = self.source.as_mut().expect("only called with one");
        let limit = source.timeout();
        let fetched = timeout(limit, source.token()).await;
        let token = fetched.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))?;
        let now = SystemTime::now();
        check(&token, now)?;
        let wait = until_next(token.expires, now);
        tracing::debug!(expires = ?token.expires, "fetched a token for Kafka");
        self.state.renew(token);
        if self.failures > 0 {
            tracing::info!("a token for Kafka was fetched again, after {} failures", self.failures);
        }
        self.failures = 0;
        Ok(wait)
    }

    fn failed(&mut self, why: String) -> Duration {
        let left = self.state.token().and_then(|token| token.expires.duration_since(SystemTime::now()).ok());
        let wait = after_failure(self.failures, left);
        self.failures = self.failures.saturating_add(1);
        match left {
            Some(left) => tracing::warn!(
                "no new token for Kafka: {why}; the one in use is good for {} s, trying again in {} s",
                left.as_secs(),
                wait.as_secs()
            ),
            None => tracing::error!(
                "no token for Kafka, so brokers refuse new connections: {why}; trying again in {} s",
                wait.as_secs()
            ),
        }
        self.state.failed(why);
        wait
    }

    /// On another thread: a file system that hangs must not hold up a token.
    async fn look_at_files(&mut self) {
        let reading = self.reading.get_or_insert_with(|| {
            let kafka = self.kafka.clone();
            spawn_blocking(move || Read::of(&kafka))
        });
        let Ok(read) = timeout(READ_LIMIT, reading).await else {
            tracing::warn!(
                "the files with passwords, certificates or keys for Kafka cannot be read: no answer within {READ_LIMIT:?}; \
                 what was read last stays in use"
            );
            return;
        };
        self.reading = None;
        let heeded = read.is_ok_and(|read| catch_unwind(AssertUnwindSafe(|| self.heed(read))).is_ok());
        if !heeded {
            tracing::error!(
                "looking at the files for Kafka panicked; this is a bug in Pawl, please report it"
            );
        }
    }

    fn heed(&mut self, read: Read) {
        let in_use = self.state.password().ok();
        match read.password {
            Some(Ok(now)) => {
                if let Some(password) = self.passwords.look(in_use.as_ref(), now) {
                    tracing::info!("the password for Kafka has changed; it is used from now on");
                    self.state.renew_password(&self.kafka.sasl.username, password);
                }
            }
            Some(Err(why)) if in_use.is_some() => {
                tracing::warn!("{why}; the password that was read last stays in use");
            }
            Some(Err(_)) | None => {}
        }
        let in_use = self.state.pem().ok();
        match read.pem {
            Ok(now) => {
                if in_use.as_ref() == Some(&now) && self.state.withdraw() {
                    tracing::info!(
                        "the certificates and keys for Kafka are those in use again; no others are tried"
                    );
                }
                if let Some(pem) = self.certificates.look(in_use.as_ref(), now) {
                    tracing::info!("certificates or keys for Kafka have changed");
                    self.state.offer(pem);
                }
            }
            Err(why) => tracing::warn!("{why}; what was read last stays in use"),
        }
    }
}

/// Whether brokers could take a token, as far as that is seen here. Says nothing of what is in it.
fn check(token: &Token, now: SystemTime) -> Result<(), String> {
    if token.expires <= now {
        return Err("a token was given that has ended already; is this machine's clock right?".into());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let value = token.value.trim_end_matches('=');
    if value.is_empty() || !value.bytes().all(legal) {
        return Err(
            "what was given is no bearer token (RFC 6750, section 2.1), which is all that brokers take"
                .into(),
        );
    }
    Ok(())
}

/// At half of its life: there is as much time again for what can go wrong, and librdkafka authenticates anew
/// on an open connection at nine tenths.
fn until_next(expires: SystemTime, now: SystemTime) -> Duration {
    (expires.duration_since(now).unwrap_or_default() / 2).max(LEAST_LIFE)
}

/// Longer and longer, but not beyond half of what the token has left.
fn after_failure(failures: u32, left: Option<Duration>) -> Duration {
    let wait = FIRST_RETRY.saturating_mul(1 << failures.min(10)).min(LAST_RETRY);
    left.map_or(wait, |left| wait.min(left / 2)).max(FIRST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Tls;

    fn token(value: &str) -> Token {
        Token {
            value: value.into(),
            expires: SystemTime::now() + Duration::from_secs(60),
            principal: "p".into(),
            extensions: Vec::new(),
        }
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(work)
    }

    #[test]
    fn the_next_token_is_fetched_at_half_of_the_life_of_the_last_one() {
        let now = SystemTime::now();
        assert_eq!(until_next(now + Duration::from_secs(900), now), Duration::from_secs(450));
        assert_eq!(until_next(now - Duration::from_secs(5), now), LEAST_LIFE, "it has ended already");
    }

    #[test]
    fn failures_are_followed_by_longer_and_longer_waits_up_to_a_bound() {
        let waits: Vec<u64> = (0..8).map(|failures| after_failure(failures, None).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(after_failure(u32::MAX, None), LAST_RETRY);
        let left = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(after_failure(5, left(20)), Duration::from_secs(10), "while the token is good");
        assert_eq!(after_failure(5, left(0)), FIRST_RETRY);
    }

    #[test]
    fn a_token_that_cannot_be_fetched_leaves_the_one_that_is_there() {
        let state = State::new(Security::Oauth, "somebody".into());
        let token = token("t");
        state.renew(token.clone());
        state.failed("nobody there".into());
        assert_eq!(state.token(), Some(token));
        let status = state.status();
        assert_eq!((status.refreshes, status.failures, status.expired), (1, 1, false));
        assert_eq!(status.failure.as_deref(), Some("nobody there"));
        assert_eq!(state.wait_for_token(Duration::ZERO), Ok(()), "a client is given the old one");
    }

    #[test]
    fn a_token_is_due_by_whichever_clock_shows_it_first() {
        let begin = Clocks::now();
        let seconds = Duration::from_secs;
        let due = begin.after(seconds(450));
        let left = |running, wall| {
            Clocks { running: begin.running + seconds(running), wall: begin.wall + seconds(wall) }.until(due)
        };
        assert_eq!(left(100, 100), seconds(350));
        assert_eq!(left(100, 450), Duration::ZERO, "the machine was suspended, or its clock set forward");
        assert_eq!(left(100, 5_000), Duration::ZERO);
        let set_back = Clocks { running: due.running, wall: begin.wall - seconds(3_600) };
        assert_eq!(set_back.until(due), Duration::ZERO, "the clock was set back");
    }

    #[test]
    fn what_is_no_bearer_token_is_refused_without_being_told() {
        let check = |value| check(&token(value), SystemTime::now());
        for legal in ["e30.e30.x", "a-._~+/==", "Zm9v"] {
            assert_eq!(check(legal), Ok(()), "{legal}");
        }
        for illegal in ["", "==", "s3cret s3cret", "s3cret\0", "s3cret\n", "s3crét", "s3c=ret", "\"s3cret\""]
        {
            let error = check(illegal).expect_err(illegal);
            assert!(error.contains("no bearer token") && !error.contains("s3c"), "{error}");
        }
    }

    #[test]
    fn a_panic_while_a_token_is_fetched_is_told_and_the_next_attempt_follows() {
        let state = Arc::new(State::new(Security::Oauth, "somebody".into()));
        let mut work = Work::new(&Kafka::default(), &state, Some(Source::Made(|| panic!("a bug"))));
        assert_eq!(run(work.refresh()), FIRST_RETRY);
        let failure = state.status().failure.expect("told");
        assert!(failure.contains("a bug in Pawl"), "{failure}");
        work.source = Some(Source::Made(|| Ok(token("t"))));
        run(work.refresh());
        assert_eq!(state.token().map(|token| token.value).as_deref(), Some("t"));
    }

    #[test]
    fn new_certificates_that_are_taken_back_are_not_tried_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ca.crt");
        let tls = Tls { ca_file: Some(file.clone()), ..Tls::default() };
        let kafka = Kafka { security: Security::Tls, tls, ..Kafka::default() };
        let state = Arc::new(State::new(Security::Oauth, "somebody".into()));
        let mut work = Work::new(&kafka, &state, None);
        let mut look_twice_at = |text: &str| {
            std::fs::write(&file, text).expect("written");
            run(async {
                work.look_at_files().await;
                work.look_at_files().await;
            });
            let pending = state.status().pending.is_some();
            (state.candidate().and_then(|pem| pem.authorities), pending)
        };
        std::fs::write(&file, "old").expect("written");
        state.begin(None, super::super::files::pem(&kafka));
        let new = (Some("new".to_owned()), true);
        let changes = state.certificates.subscribe();
        assert_eq!(look_twice_at("new"), new);
        assert_eq!(look_twice_at("old"), (None, false));
        assert_eq!(*changes.borrow(), 2, "who waits to try them is told");
        assert_eq!(look_twice_at("new"), new, "they may come back");
    }
}

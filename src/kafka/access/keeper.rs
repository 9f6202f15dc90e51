//! Fetches the next token long before the last one ends, and looks at the files, on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::files::{self, Changes, Pem};
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
        }
    }

    async fn token(&mut self) -> Result<Token, String> {
        match self {
            Source::Oidc(tokens) => tokens.fetch().await,
            #[cfg(feature = "aws")]
            Source::MskIam(tokens) => tokens.sign().await,
        }
    }
}

struct Work {
    state: Arc<State>,
    kafka: Kafka,
    source: Option<Source>,
    passwords: Changes<String>,
    certificates: Changes<Pem>,
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
        let work = Work {
            state: state.clone(),
            kafka: kafka.clone(),
            source,
            passwords: Changes::default(),
            certificates: Changes::default(),
            failures: 0,
        };
        let (stop, stopped) = oneshot::channel();
        let every = kafka.reload_interval;
        let thread = std::thread::Builder::new().name("pawl-access".into());
        let running = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(work.keep(every, stopped)),
                Err(error) => work.state.failed(format!("no runtime could be started: {error}")),
            }
        });
        if let Err(error) = running {
            state.failed(format!("the thread that fetches tokens could not be started: {error}"));
        }
        Some(Keeper { _stop: stop })
    }
}

impl Work {
    async fn keep(mut self, every: Duration, stopped: oneshot::Receiver<()>) {
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now();
        tokio::pin!(stopped);
        loop {
            let is_due = tokio::select! {
                biased;
                _ = &mut stopped => return,
                () = sleep_until(due), if self.source.is_some() => true,
                _ = looks.tick() => false,
            };
            if !is_due {
                self.look_at_files();
                continue;
            }
            // Looks at the files wait for it, and do not cut it off.
            due = tokio::select! {
                biased;
                _ = &mut stopped => return,
                wait = self.refresh() => Instant::now() + wait,
            };
        }
    }

    /// Fetches a token. How long the next one can wait.
    async fn refresh(&mut self) -> Duration {
        let source = self.source.as_mut().expect("only called with one");
        let limit = source.timeout();
        let fetched = timeout(limit, source.token()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        let fetched = fetched.and_then(|token| match token.expires > SystemTime::now() {
            true => Ok(token),
            false => Err("a token was given that has ended already; is this machine's clock right?".into()),
        });
        match fetched {
            Ok(token) => {
                let wait = until_next(token.expires, SystemTime::now());
                if self.failures > 0 {
                    tracing::info!("a token for Kafka was fetched again, after {} failures", self.failures);
                }
                self.failures = 0;
                tracing::debug!(expires = ?token.expires, "fetched a token for Kafka");
                self.state.renew(token);
                wait
            }
            Err(why) => {
                let left =
                    self.state.token().and_then(|token| token.expires.duration_since(SystemTime::now()).ok());
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
        }
    }

    fn look_at_files(&mut self) {
        if self.kafka.security.has_password() && self.kafka.sasl.password_file.is_some() {
            let in_use = self.state.password().ok();
            match files::password(&self.kafka.sasl) {
                Ok(now) => {
                    if let Some(password) = self.passwords.look(in_use.as_ref(), now) {
                        tracing::info!("the password for Kafka has changed; it is used from now on");
                        self.state.renew_password(&self.kafka.sasl.username, password);
                    }
                }
                Err(why) if in_use.is_some() => {
                    tracing::warn!("{why}; the password that was read last stays in use");
                }
                Err(_) => {}
            }
        }
        let in_use = self.state.pem().ok();
        match files::pem(&self.kafka) {
            Ok(now) => {
                if let Some(pem) = self.certificates.look(in_use.as_ref(), now) {
                    tracing::info!("certificates or keys for Kafka have changed");
                    self.state.offer(pem);
                }
            }
            Err(why) => tracing::warn!("{why}; what was read last stays in use"),
        }
    }
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
        let state = State::new("somebody".into());
        let token = Token {
            value: "t".into(),
            expires: SystemTime::now() + Duration::from_secs(60),
            principal: "p".into(),
            extensions: Vec::new(),
        };
        state.renew(token.clone());
        state.failed("nobody there".into());
        assert_eq!(state.token(), Some(token));
        let status = state.status(Security::Oauth);
        assert_eq!((status.refreshes, status.failures, status.expired), (1, 1, false));
        assert_eq!(status.failure.as_deref(), Some("nobody there"));
        assert_eq!(state.wait_for_token(Duration::ZERO), Ok(()), "a client is given the old one");
    }
}

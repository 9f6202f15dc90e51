//! What is valid now: token, password, and what became of the last attempt to get the next one.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;

use super::files::Pem;
use super::live::Clients;
use crate::settings::Security;

/// What a broker is shown for SASL/OAUTHBEARER (RFC 7628).
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token itself.
    pub value: String,
    /// Until when it is valid.
    pub expires: SystemTime,
    /// As whom, as far as this side knows; the broker finds it out by itself.
    pub principal: String,
    /// SASL extensions.
    pub extensions: Vec<(String, String)>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).field("principal", &self.principal).finish()
    }
}

/// What there is to see of an access.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// How connections are secured, as in the settings.
    pub security: &'static str,
    /// As whom Pawl comes.
    pub principal: String,
    /// When the token ends, in seconds since 1970; `None`: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires: Option<u64>,
    /// Whether the token has ended.
    pub expired: bool,
    /// Tokens that were fetched.
    pub refreshes: u64,
    /// Attempts to fetch one that failed.
    pub failures: u64,
    /// Why the last attempt failed; `None`: it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Passwords, certificates and keys that were read anew.
    pub reloads: u64,
    /// Why new certificates or keys that were read are not in use; `None`: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
    /// What the last broker said that did not take what Pawl came with, and when, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<(u64, String)>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct State {
    security: Security,
    /// As far as the settings tell.
    principal: String,
    pub(super) clients: Clients,
    /// Counts the changes of certificates.
    pub(super) certificates: watch::Sender<u64>,
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    password: Option<Result<String, String>>,
    pem: Option<Result<Pem, String>>,
    /// Read and not in use.
    candidate: Option<Pem>,
    /// Why not.
    pending: Option<String>,
    refreshes: u64,
    failures: u64,
    failure: Option<String>,
    reloads: u64,
    refusal: Option<(u64, String)>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("token", &self.token)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(security: Security, principal: String) -> State {
        State {
            security,
            principal,
            clients: Clients::default(),
            certificates: watch::Sender::new(0),
            held: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// As whom Pawl comes, with the token's own word for it, such as an access key, or the certificate's subject.
    pub(super) fn principal(&self) -> String {
        let held = self.held();
        if let (Security::Tls, Some(Ok(pem))) = (self.security, &held.pem)
            && let Some(subject) = pem.subject()
        {
            return format!("{}, {subject}", self.principal);
        }
        match held.token.as_ref().map(|token| &token.principal) {
            Some(known) if !self.principal.contains(known.as_str()) => {
                format!("{}, with {known}", self.principal)
            }
            _ => self.principal.clone(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn token(&self) -> Option<Token> {
        self.held().token.clone()
    }

    /// The password that is valid now, or why there is none.
    pub(super) fn password(&self) -> Result<String, String> {
        self.held().password.clone().unwrap_or_else(|| Err("no password was read yet".into()))
    }

    /// Waits until there was a first token. Without it nothing could be told; later a client that finds none is like one
    /// that finds no broker: it is given the next one.
    pub(super) fn wait_for_token(&self, limit: Duration) -> Result<(), String> {
        let (held, _) = self
            .changed
            .wait_timeout_while(self.held(), limit, |held| held.token.is_none() && held.failure.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if held.token.is_some() {
            return Ok(());
        }
        Err(match &held.failure {
            Some(failure) => format!("there is no token to come to the brokers with: {failure}"),
            None => {
                format!("there is no token to come to the brokers with after {limit:?}: nobody answered yet")
            }
        })
    }

    /// Uses a token from now on.
    pub(super) fn renew(&self, token: Token) {
        {
            let mut held = self.held();
            held.token = Some(token.clone());
            held.refreshes += 1;
            held.failure = None;
        }
        self.changed.notify_all();
        self.clients.give_token(&token);
    }

    /// A token could not be fetched; the one that is there stays.
    pub(super) fn failed(&self, why: String) {
        let mut held = self.held();
        held.failures += 1;
        held.failure = Some(why);
        drop(held);
        self.changed.notify_all();
    }

    /// What there is at the start.
    pub(super) fn begin(&self, password: Option<Result<String, String>>, pem: Result<Pem, String>) {
        let mut held = self.held();
        held.password = password;
        held.pem = Some(pem);
    }

    /// Uses another password from now on.
    pub(super) fn renew_password(&self, username: &str, password: String) {
        {
            let mut held = self.held();
            held.password = Some(Ok(password.clone()));
            held.reloads += 1;
        }
        self.clients.give_password(username, &password);
    }

    /// The certificates and the key in use, or why there are none.
    pub(super) fn pem(&self) -> Result<Pem, String> {
        self.held().pem.clone().unwrap_or_else(|| Ok(Pem::default()))
    }

    /// Others than those in use, which wait to be tried.
    pub(super) fn candidate(&self) -> Option<Pem> {
        self.held().candidate.clone()
    }

    /// There are other certificates or another key.
    pub(super) fn offer(&self, pem: Pem) {
        {
            let mut held = self.held();
            held.candidate = Some(pem);
            held.pending = Some("they were not tried yet".into());
        }
        self.certificates.send_modify(|count| *count += 1);
    }

    /// There are no others any more than those in use.
    ///
    /// # Returns
    /// Whether there were.
    pub(super) fn withdraw(&self) -> bool {
        let withdrawn = {
            let mut held = self.held();
            held.pending = None;
            held.candidate.take().is_some()
        };
        if withdrawn {
            self.certificates.send_modify(|count| *count += 1);
        }
        withdrawn
    }

    /// Uses what was offered from now on, for clients that are opened.
    ///
    /// # Returns
    /// Whether it is: it may have been withdrawn, or others have come.
    pub(super) fn accept(&self, tried: &Pem) -> bool {
        let mut held = self.held();
        let offered = held.candidate.take_if(|candidate| candidate == tried);
        let Some(pem) = offered else { return false };
        held.pending = None;
        held.pem = Some(Ok(pem));
        held.reloads += 1;
        true
    }

    /// Keeps why what was offered is not used.
    pub(super) fn put_off(&self, tried: &Pem, why: String) {
        let mut held = self.held();
        if held.candidate.as_ref() == Some(tried) {
            held.pending = Some(why);
        }
    }

    pub(super) fn note_refusal(&self, text: &str) {
        self.held().refusal = Some((seconds(SystemTime::now()), text.to_owned()));
    }

    pub(super) fn status(&self) -> Status {
        let principal = self.principal();
        let held = self.held();
        Status {
            security: self.security.name(),
            principal,
            token_expires: held.token.as_ref().map(|token| seconds(token.expires)),
            expired: held.token.as_ref().is_some_and(|token| token.expires <= SystemTime::now()),
            refreshes: held.refreshes,
            failures: held.failures,
            failure: held.failure.clone(),
            reloads: held.reloads,
            pending: held.pending.clone(),
            refusal: held.refusal.clone(),
        }
    }
}

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

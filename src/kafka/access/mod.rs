//! How Pawl comes to the brokers: encrypted or not, as whom, and with what that is proved.
//!
//! All clients of a process that have the same settings share one [`Access`]: it holds the token or the
//! password that is valid now, and hands every client the next one. librdkafka would ask for a token by a
//! callback on whichever thread polls a client, which is none while that client waits for an answer; so
//! tokens are fetched ahead by a thread of their own and pushed into the clients.
//!
//! Deliberately absent: what a client is for (`client`, `runtime::clients`).

#[cfg(feature = "aws")]
mod aws_http;
mod certificate;
mod files;
mod keeper;
mod live;
#[cfg(feature = "aws")]
mod msk_iam;
mod oidc;
mod probe;
mod state;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use tokio::sync::watch;

pub use live::{Live, Native};
pub use probe::Verdict;
pub(super) use probe::is_refusal;
pub use state::{Status, Token};

use self::files::Pem;
use self::keeper::Keeper;
use self::live::Now;
use self::state::State;
use crate::settings::{Kafka, ScramMechanism, Security, Tls};

/// The accesses of this process. More than one only where a program runs Pawl for several clusters.
static HELD: Mutex<Vec<Weak<Access>>> = Mutex::new(Vec::new());

/// How long a broker may take to refuse.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long brokers may take to judge new certificates: nobody waits for that.
const TRIAL: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug)]
pub struct Access {
    kafka: Kafka,
    state: Arc<State>,
    /// Ends with this; `None`: nothing ends or changes.
    _keeper: Option<Keeper>,
}

/// Why a client could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// librdkafka does not take its settings, or cannot read a certificate.
    #[error("{0}")]
    Client(String),
    /// The password cannot be read.
    #[error("{0}")]
    Secret(String),
    /// There is no token yet: who gives them is away, or refuses.
    #[error("{0}")]
    Token(String),
}

impl From<AccessError> for KafkaError {
    fn from(error: AccessError) -> KafkaError {
        KafkaError::ClientCreation(error.to_string())
    }
}

impl Access {
    /// The access by these settings: the one that clients of this process have already, else a new one,
    /// which begins to fetch a token at once if it needs one.
    pub fn of(kafka: &Kafka) -> Arc<Access> {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|access| access.strong_count() > 0);
        if let Some(known) = held.iter().filter_map(Weak::upgrade).find(|access| access.kafka == *kafka) {
            return known;
        }
        let access = Arc::new(Access::new(kafka.clone()));
        held.push(Arc::downgrade(&access));
        access
    }

    fn new(kafka: Kafka) -> Access {
        let state = Arc::new(State::new(kafka.security, principal(&kafka)));
        state.begin(kafka.security.has_password().then(|| files::password(&kafka.sasl)), files::pem(&kafka));
        let keeper = Keeper::start(&kafka, &state);
        Access { kafka, state, _keeper: keeper }
    }

    /// Opens a client that comes by this access, with these certificates, for as long as it lives. Waits for the first
    /// token, for at most the time-out of a request.
    fn open<T, C>(
        self: &Arc<Self>,
        pem: &Pem,
        config: &ClientConfig,
        context: C,
    ) -> Result<Live<T>, AccessError>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C> + Native,
    {
        let mut config = config.clone();
        let parts = [
            ("ssl.ca.pem", &pem.authorities),
            ("ssl.certificate.pem", &pem.certificate),
            ("ssl.key.pem", &pem.key),
        ];
        for (name, part) in parts {
            if let Some(part) = part {
                config.set(name, part);
            }
        }
        if self.kafka.security.has_tokens() {
            self.state.wait_for_token(self.kafka.request_timeout).map_err(AccessError::Token)?;
        }
        if self.kafka.security.has_password() {
            let password = self.state.password().map_err(AccessError::Secret)?;
            config.set("sasl.username", &self.kafka.sasl.username).set("sasl.password", password);
        }
        let client = config.create_with_context(context).map_err(|error| match error {
            KafkaError::ClientCreation(text) => AccessError::Client(text),
            error => AccessError::Client(error.to_string()),
        })?;
        Ok(Live::new(client, self.clone()))
    }

    /// What a client that was just opened is given.
    fn now(&self) -> Now {
        let password = if self.kafka.security.has_password() { self.state.password().ok() } else { None };
        Now {
            token: self.state.token(),
            password: password.map(|password| (self.kafka.sasl.username.clone(), password)),
        }
    }

    /// As whom Pawl comes, for a person.
    pub fn principal(&self) -> String {
        self.state.principal()
    }

    /// What there is to see of it.
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// Tells when certificates or keys have changed: clients that are open keep to the old ones.
    pub fn certificates(&self) -> watch::Receiver<u64> {
        self.state.certificates.subscribe()
    }

    /// Why brokers do not take what Pawl comes with, asked by a client made for that; `None`: they take it, or
    /// none can be reached.
    ///
    /// # Errors
    /// There is nothing to come with.
    pub fn refusal(self: &Arc<Self>) -> Result<Option<String>, AccessError> {
        if self.kafka.security == Security::Plaintext {
            return Ok(None);
        }
        let pem = self.state.pem().map_err(AccessError::Secret)?;
        Ok(match probe::ask(self, &pem, PATIENCE, || false)? {
            Verdict::Refused(why) => Some(why),
            Verdict::Taken | Verdict::Unusable(_) | Verdict::Unknown(_) => None,
        })
    }

    /// Tries certificates and a key that are new at the brokers. If these take them, clients that are opened from now on
    /// come with them; else with the old ones. Blocks for some seconds, or until it is given up.
    ///
    /// # Returns
    /// What became of it; `None`: there are none, or no more those that were tried.
    pub fn try_new_certificates(self: &Arc<Self>, given_up: impl Fn() -> bool) -> Option<Verdict> {
        let candidate = self.state.candidate()?;
        let verdict = match probe::ask(self, &candidate, TRIAL, given_up) {
            Ok(verdict) => verdict,
            Err(AccessError::Client(why)) => Verdict::Unusable(why),
            Err(AccessError::Secret(why) | AccessError::Token(why)) => Verdict::Unknown(why),
        };
        match &verdict {
            Verdict::Taken => return self.state.accept(&candidate).then_some(verdict),
            Verdict::Refused(why) => self.state.put_off(&candidate, format!("brokers refuse them: {why}")),
            Verdict::Unusable(why) => self.state.put_off(&candidate, format!("they cannot be used: {why}")),
            Verdict::Unknown(why) => {
                self.state.put_off(&candidate, format!("they could not be tried: {why}"))
            }
        }
        Some(verdict)
    }
}

/// What there is to see of the accesses of this process, those that are more than a plain connection.
pub fn statuses() -> Vec<Status> {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let held = held.iter().filter_map(Weak::upgrade);
    held.filter(|access| access.kafka.security != Security::Plaintext).map(|access| access.status()).collect()
}

/// Says of a refused connection as whom it was tried, and keeps it for who looks at the process's state.
pub(super) fn note_refusal(text: &str) -> String {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut principals = Vec::new();
    for access in held.iter().filter_map(Weak::upgrade) {
        access.state.note_refusal(text);
        principals.push(access.state.principal());
    }
    format!("{text}; Pawl comes as {}", principals.join(" or "))
}

/// A client's properties and how it will come to the brokers.
#[derive(Clone, Debug)]
pub struct Plan {
    config: ClientConfig,
    access: Arc<Access>,
}

impl Plan {
    /// A client that comes by this access.
    pub fn new(access: Arc<Access>) -> Plan {
        let mut config = ClientConfig::new();
        secure(&mut config, &access.kafka);
        Plan { config, access }
    }

    /// Sets a property, by librdkafka's name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.config.set(name, value);
        self
    }

    /// The value of a property.
    #[cfg(test)]
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.config.get(name)
    }

    /// Sets from which level on librdkafka formats its lines.
    pub fn log_at(&mut self, level: RDKafkaLogLevel) {
        self.config.set_log_level(level);
    }

    /// Whether librdkafka knows all properties, with no client opened.
    ///
    /// # Errors
    /// The first that it does not take.
    #[cfg(test)]
    pub(super) fn check(&self) -> Result<(), KafkaError> {
        self.config.create_native_config().map(drop)
    }

    /// Opens the client. Blocks until there is a token, for at most the time-out of a request.
    ///
    /// # Errors
    /// librdkafka does not take the properties, or there is nothing to come with.
    pub fn open<T, C>(&self, context: C) -> Result<Live<T>, AccessError>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C> + Native,
    {
        let pem = self.access.state.pem().map_err(AccessError::Secret)?;
        self.open_with(&pem, context)
    }

    /// The same with other certificates.
    fn open_with<T, C>(&self, pem: &Pem, context: C) -> Result<Live<T>, AccessError>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C> + Native,
    {
        self.access.open(pem, &self.config, context)
    }
}

fn secure(config: &mut ClientConfig, kafka: &Kafka) {
    let encrypted = kafka.tls.enabled;
    let protocol = match (kafka.security, encrypted) {
        (Security::Plaintext, _) => "plaintext",
        (Security::Tls, _) => "ssl",
        (Security::MskIam, _) | (_, true) => "sasl_ssl",
        (_, false) => "sasl_plaintext",
    };
    config.set("security.protocol", protocol);
    let mechanism = match (kafka.security, kafka.sasl.mechanism) {
        (Security::Plaintext | Security::Tls, _) => None,
        (Security::Scram, ScramMechanism::ScramSha256) => Some("SCRAM-SHA-256"),
        (Security::Scram, ScramMechanism::ScramSha512) => Some("SCRAM-SHA-512"),
        (Security::Plain, _) => Some("PLAIN"),
        (Security::Oauth | Security::MskIam, _) => Some("OAUTHBEARER"),
    };
    if let Some(mechanism) = mechanism {
        config.set("sasl.mechanisms", mechanism);
    }
    if kafka.security.has_tokens() {
        // Requests for tokens go to a queue that nobody reads: they are pushed.
        config.set("enable_sasl_queue", "true");
    }
    if protocol.ends_with("ssl") {
        encrypt(config, &kafka.tls);
    }
}

fn encrypt(config: &mut ClientConfig, tls: &Tls) {
    let Tls { ca_file, key_password, verify_host, .. } = tls;
    if ca_file.is_none() {
        // A static OpenSSL knows no place of its own; "probe" looks where distributions have the bundle.
        config.set("ssl.ca.location", "probe");
    }
    if let Some(password) = key_password {
        config.set("ssl.key.password", password.reveal());
    }
    config.set("ssl.endpoint.identification.algorithm", if *verify_host { "https" } else { "none" });
}

/// As whom Pawl comes by these settings.
fn principal(kafka: &Kafka) -> String {
    match kafka.security {
        Security::Plaintext => "User:ANONYMOUS, over a plain connection".into(),
        Security::Tls => match &kafka.tls.certificate_file {
            Some(file) => format!("the subject of the certificate in {}", file.display()),
            None => "User:ANONYMOUS, over TLS without a certificate".into(),
        },
        Security::Scram | Security::Plain => {
            format!("User:{} (kafka.sasl.username, {})", kafka.sasl.username, kafka.security.name())
        }
        Security::Oauth => {
            format!("the client {:?} of {}", kafka.oauth.client_id, kafka.oauth.token_endpoint)
        }
        Security::MskIam => match &kafka.msk_iam.role_arn {
            Some(role) => format!("the role {role} (kafka.msk_iam.role_arn)"),
            None => "the AWS identity of this process".into(),
        },
    }
}

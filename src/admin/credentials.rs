//! What the endpoint knows people by: tokens and certificates, from the settings and from files, which are read
//! again when they change.
//!
//! Files are compared by what is in them: mounted secrets are exchanged by links, whose times say little.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, Digest, SHA256};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::access::{Role, Rules};
use super::tls;
use super::tokens::Tokens;
use crate::settings::{Admin, Secret, Token};
use crate::{bounded_file, tls as pem};

/// How often the files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest of these files that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// All that tells who somebody is.
pub struct Credentials {
    /// See [`Tokens`].
    pub tokens: Tokens,
    /// What a connection begins with, where TLS is set up.
    pub acceptor: Option<TlsAcceptor>,
    /// How people can be known.
    pub rules: Rules,
    operators: Vec<String>,
}

/// Why credentials cannot be used; names the setting, the file and what to do, and no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialsError(String);

/// The files of the settings as they were read.
struct Files {
    read_tokens: Option<Content>,
    operator_tokens: Option<Content>,
    certificate: Option<Content>,
    key: Option<Content>,
    client_ca: Option<Content>,
}

struct Content {
    setting: &'static str,
    path: PathBuf,
    bytes: Result<Vec<u8>, String>,
}

impl Credentials {
    /// Reads the files of the settings.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub fn read(settings: &Admin) -> Result<Credentials, CredentialsError> {
        Credentials::of(settings, &Files::read(settings))
    }

    fn of(settings: &Admin, files: &Files) -> Result<Credentials, CredentialsError> {
        let readers = texts(&settings.read_token, &files.read_tokens)?;
        let operators = texts(&settings.operator_token, &files.operator_tokens)?;
        let readers = lines("admin.read_token", &files.read_tokens, &readers)?;
        let operators = lines("admin.operator_token", &files.operator_tokens, &operators)?;
        let tokens = Tokens::of(&readers, &operators).map_err(|why| {
            CredentialsError(format!(
                "admin.read_token(_file) and admin.operator_token(_file): {why}; make another one"
            ))
        })?;
        let acceptor = acceptor(files)?;
        let operators = settings.tls.as_ref().map(|tls| tls.operators.clone()).unwrap_or_default();
        let rules = Rules {
            tokens: tokens.any(),
            certificates: files.client_ca.is_some(),
            operators: tokens.any_of(Role::Operator) || !operators.is_empty(),
        };
        Ok(Credentials { tokens, acceptor, rules, operators })
    }

    /// Whose certificate it is. It was checked when the connection began.
    pub fn of_certificate(&self, certificate: &CertificateDer<'_>) -> (Role, Arc<str>) {
        match tls::common_name(certificate) {
            Some(name) if self.operators.contains(&name) => (Role::Operator, name.into()),
            Some(name) => (Role::Read, name.into()),
            None => (Role::Read, "nameless".into()),
        }
    }
}

/// Credentials that follow their files.
pub struct Watched {
    settings: Admin,
    /// Of the files as they were last seen: what is in them does not stay in memory.
    fingerprint: Digest,
    now: watch::Sender<Arc<Credentials>>,
}

impl Watched {
    /// Reads the files of the settings for the first time.
    ///
    /// # Errors
    /// See [`Credentials::read`].
    pub fn read(settings: &Admin) -> Result<Watched, CredentialsError> {
        let files = Files::read(settings);
        let (now, _) = watch::channel(Arc::new(Credentials::of(settings, &files)?));
        Ok(Watched { settings: settings.clone(), fingerprint: files.fingerprint(), now })
    }

    /// The credentials as they are at any time.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.now.subscribe()
    }

    /// Follows the files until nobody needs the credentials any more.
    pub async fn follow(mut self) {
        loop {
            tokio::select! {
                () = self.now.closed() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            self = match looked.await {
                Ok(watched) => watched,
                Err(error) => {
                    tracing::error!(%error, "the admin endpoint's files are not followed any more");
                    return;
                }
            };
        }
    }

    /// What does not fit together is left as it was: certificate and key may be exchanged one after the other.
    fn look(&mut self) {
        let files = Files::read(&self.settings);
        let fingerprint = files.fingerprint();
        if fingerprint.as_ref() == self.fingerprint.as_ref() {
            return;
        }
        self.fingerprint = fingerprint;
        match Credentials::of(&self.settings, &files) {
            Ok(read) => {
                self.now.send_replace(Arc::new(read));
                tracing::info!("tokens and certificates of the admin endpoint were read again");
            }
            Err(error) => {
                tracing::warn!(%error, "tokens and certificates of the admin endpoint stay as they were");
            }
        }
    }
}

impl Files {
    fn read(settings: &Admin) -> Files {
        let tls = settings.tls.as_ref();
        let read = |path: &Path| bounded_file::read(path, MAX_FILE_BYTES).map_err(|error| error.to_string());
        let content = |setting, path: &Path| Content { setting, path: path.to_owned(), bytes: read(path) };
        let some = |setting, path: Option<&PathBuf>| path.map(|path| content(setting, path));
        Files {
            read_tokens: some("admin.read_token_file", settings.read_token_file.as_ref()),
            operator_tokens: some("admin.operator_token_file", settings.operator_token_file.as_ref()),
            certificate: some("admin.tls.certificate_file", tls.map(|tls| &tls.certificate_file)),
            key: some("admin.tls.key_file", tls.map(|tls| &tls.key_file)),
            client_ca: some("admin.tls.client_ca_file", tls.and_then(|tls| tls.client_ca_file.as_ref())),
        }
    }
}

impl Files {
    fn fingerprint(&self) -> Digest {
        let Files { read_tokens, operator_tokens, certificate, key, client_ca } = self;
        let mut all = Context::new(&SHA256);
        for file in [read_tokens, operator_tokens, certificate, key, client_ca].into_iter().flatten() {
            let (kind, bytes) = match &file.bytes {
                Ok(bytes) => (1, bytes.as_slice()),
                Err(why) => (0, why.as_bytes()),
            };
            all.update(&[kind]);
            all.update(&bytes.len().to_be_bytes());
            all.update(bytes);
        }
        all.finish()
    }
}

impl Content {
    fn parsed<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, CredentialsError> {
        let read = self.bytes.as_ref().map_err(String::clone).and_then(|bytes| parse(bytes));
        read.map_err(|why| {
            let (setting, path) = (self.setting, self.path.display());
            CredentialsError(format!(
                "{setting} ({path}): {why}; name a file that this process may read and that holds it"
            ))
        })
    }
}

fn texts(token: &Option<Secret>, file: &Option<Content>) -> Result<Option<String>, CredentialsError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "it is not UTF-8".to_owned());
    match (token, file) {
        (Some(token), _) => Ok(Some(token.reveal().to_owned())),
        (None, Some(file)) => file.parsed(text).map(Some),
        (None, None) => Ok(None),
    }
}

fn lines<'a>(
    setting: &str,
    file: &Option<Content>,
    text: &'a Option<String>,
) -> Result<Vec<Token<'a>>, CredentialsError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    match file {
        Some(file) => {
            let read = Token::read_lines(text);
            file.parsed(|_| read)
        }
        None => Token::read_lines(text)
            .map_err(|why| CredentialsError(format!("{setting}: {why}; correct the variable"))),
    }
}

fn acceptor(files: &Files) -> Result<Option<TlsAcceptor>, CredentialsError> {
    let (Some(certificate), Some(key)) = (&files.certificate, &files.key) else { return Ok(None) };
    let chain = certificate.parsed(pem::certificates)?;
    let secret = key.parsed(pem::private_key)?;
    let clients = files.client_ca.as_ref().map(|file| file.parsed(pem::authorities)).transpose()?;
    let config = tls::server(chain, secret, clients).map_err(|why| {
        let (certificate, key) = (certificate.path.display(), key.path.display());
        CredentialsError(format!(
            "admin.tls: {certificate} and {key} cannot be used: {why}; exchange the files"
        ))
    })?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

//! `[admin]`: the process's own HTTP endpoint, who may ask it, and what is kept of what was asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key_path::KeyPath;
use super::problem::{Complaint, Problem, SettingsError};
use super::secret::Secret;
use super::token::Token;
use super::{ByteSize, duration, listen, secret};

/// Operators' certificates that can be named.
const MAX_OPERATORS: usize = 100;
/// The longest common name, in characters (X.520's upper bound is 64).
const MAX_COMMON_NAME_CHARS: usize = 64;

/// The process's own HTTP endpoint: /live, /ready, /metrics, keys with their states, and commands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The IP address and port to listen on, or "off". Anything but a loopback address takes a token or
    /// client certificates ([admin.tls]), or Pawl does not start. Default: 127.0.0.1:9464.
    #[serde(with = "listen")]
    #[schemars(schema_with = "listen::schema")]
    pub listen: Option<SocketAddr>,
    /// After how long without progress a partition that has lag makes /ready answer no.
    /// Bounds: 5s to 1day. Default: 1m.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub stalled_after: Duration,
    /// A token of the read role, by the variable PAWL__ADMIN__READ_TOKEN only: a secret does not belong in
    /// this file. 16 to 512 letters, digits and -._~+/=, with "name:" before it where a name should
    /// show in the log. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret::schema")]
    pub read_token: Option<Secret>,
    /// A file with tokens of the read role, one a line, as read_token; lines that begin with # are passed
    /// over. Read again when it changes. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_token_file: Option<PathBuf>,
    /// A token of the operator role, by the variable PAWL__ADMIN__OPERATOR_TOKEN only. Whoever has it may
    /// change things: POST /handlers/{name}/commands. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret::schema")]
    pub operator_token: Option<Secret>,
    /// A file with tokens of the operator role, as read_token_file. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_token_file: Option<PathBuf>,
    /// TLS; without it the endpoint speaks plain HTTP. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AdminTls>,
    /// Requests a second of one address; /live and /ready are not counted. Bounds: 1 to 100000. Default: 100.
    pub requests_per_second: u32,
    /// Requests of one address at once, before requests_per_second counts. Bounds: 1 to 100000. Default: 500.
    pub burst: u32,
    /// The longest body of a request. Bounds: 1KiB to 1MiB. Default: 32KiB.
    pub max_body: ByteSize,
    /// A file that every line of the audit log is appended to as well, one JSON object a line.
    /// Default: none, the lines go to the log only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_file: Option<PathBuf>,
    /// The size at which the audit file is begun anew; the full one is kept as FILE.1, that one as FILE.2 and
    /// so on. Bounds: 64KiB to 16GiB. Default: 16MiB.
    pub audit_file_size: ByteSize,
    /// Full audit files that are kept; the oldest is removed. Bounds: 1 to 1000. Default: 9.
    pub audit_files_kept: u32,
}

/// TLS of the endpoint. All files are PEM, and are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminTls {
    /// The endpoint's certificate, then those that lead to its root. Must be set.
    pub certificate_file: PathBuf,
    /// The certificate's private key (PKCS#8, PKCS#1 or SEC1). Must be set.
    pub key_file: PathBuf,
    /// Authorities whose certificates clients may show: each has the read role. Clients that show none are
    /// known by their tokens. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// Common names of the certificates that have the operator role, 1 to 64 characters each, 100 at most.
    /// Default: none.
    pub operators: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464))),
            stalled_after: Duration::from_secs(60),
            read_token: None,
            read_token_file: None,
            operator_token: None,
            operator_token_file: None,
            tls: None,
            requests_per_second: 100,
            burst: 500,
            max_body: ByteSize::kib(32),
            audit_file: None,
            audit_file_size: ByteSize::mib(16),
            audit_files_kept: 9,
        }
    }
}

impl Admin {
    /// Whether others than this machine can reach the endpoint.
    pub fn is_exposed(&self) -> bool {
        self.listen.is_some_and(|listen| !listen.ip().to_canonical().is_loopback())
    }

    /// Whether there are tokens.
    pub fn has_tokens(&self) -> bool {
        self.read_token.is_some()
            || self.read_token_file.is_some()
            || self.operator_token.is_some()
            || self.operator_token_file.is_some()
    }

    /// Whether clients can show certificates.
    pub fn has_client_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some())
    }

    /// Whether the endpoint asks who somebody is.
    pub fn is_guarded(&self) -> bool {
        self.has_tokens() || self.has_client_certificates()
    }

    /// Checks that strangers cannot ask an endpoint that they can reach. Only who runs Pawl needs this: the
    /// commands that use the same file need no token.
    ///
    /// # Errors
    /// The address is open to others, and nobody would be asked who they are.
    pub fn check_exposure(&self) -> Result<(), SettingsError> {
        let Some(listen) = self.listen.filter(|_| self.is_exposed() && !self.is_guarded()) else {
            return Ok(());
        };
        let reason =
            "others can reach this address, and no token and no client certificate would be asked for";
        let remedy = "set the variable PAWL__ADMIN__READ_TOKEN to a token (openssl rand -hex 32 makes one), or name \
                      a file with it in admin.read_token_file, or authorities of client certificates in \
                      admin.tls.client_ca_file, or listen on 127.0.0.1:9464";
        let key = KeyPath::of(&["admin", "listen"]);
        let problem = Problem::with_value(&key, &format!("\"{listen}\""), Complaint::new(reason, remedy));
        Err(SettingsError { file: None, problems: vec![problem] })
    }
}

/// What is wrong with single settings of the table.
pub(super) fn problems(admin: &Admin) -> Vec<Problem> {
    let base = KeyPath::of(&["admin"]);
    let mut found = Vec::new();
    let tokens = [
        ("read_token", &admin.read_token, &admin.read_token_file),
        ("operator_token", &admin.operator_token, &admin.operator_token_file),
    ];
    for (name, token, file) in tokens {
        let key = base.name(name);
        if let Some(Err(why)) = token.as_ref().map(|token| Token::read(token.reveal())) {
            let remedy = "openssl rand -hex 32 makes a token";
            found.push(Problem::with_value(&key, "", Complaint::new(why, remedy)));
        }
        let file_key = base.name(&format!("{name}_file"));
        if token.is_some() && file.is_some() {
            let subject = format!("{key} and {file_key} are both set");
            found.push(Problem::new(
                &file_key,
                subject,
                "keep one of them; the file can hold several tokens",
            ));
        }
        found.extend(file.as_ref().and_then(|file| empty(&file_key, file)));
    }
    found.extend(admin.audit_file.as_ref().and_then(|file| empty(&base.name("audit_file"), file)));
    found.extend(admin.tls.iter().flat_map(|tls| of_tls(&base.name("tls"), tls)));
    found
}

fn of_tls(base: &KeyPath, tls: &AdminTls) -> Vec<Problem> {
    let mut found = Vec::new();
    for (name, file) in [("certificate_file", &tls.certificate_file), ("key_file", &tls.key_file)] {
        if file.as_os_str().is_empty() {
            let subject = format!("{} is missing", base.name(name));
            found.push(Problem::new(&base.name(name), subject, "name a file in PEM"));
        }
    }
    let ca = base.name("client_ca_file");
    found.extend(tls.client_ca_file.as_ref().and_then(|file| empty(&ca, file)));
    let operators = base.name("operators");
    if !tls.operators.is_empty() && tls.client_ca_file.is_none() {
        let remedy = format!("name the authorities of their certificates in {ca}");
        found.push(Problem::new(
            &operators,
            format!("{operators} names certificates that nobody checks"),
            remedy,
        ));
    }
    if tls.operators.len() > MAX_OPERATORS {
        let subject = format!("{operators} names more than {MAX_OPERATORS} certificates");
        found.push(Problem::new(&operators, subject, "give several people one certificate's name"));
    }
    for (index, name) in tls.operators.iter().enumerate() {
        let legal = (1..=MAX_COMMON_NAME_CHARS).contains(&name.chars().count());
        if !legal || name.chars().any(char::is_control) {
            let complaint = Complaint::new("not a common name", "write 1 to 64 printable characters");
            found.push(Problem::with_value(&operators.index(index), &format!("{name:?}"), complaint));
        }
    }
    found
}

fn empty(key: &KeyPath, file: &std::path::Path) -> Option<Problem> {
    let complaint = || Complaint::new("it is empty", "name a file, or leave the key out");
    file.as_os_str().is_empty().then(|| Problem::with_value(key, "\"\"", complaint()))
}
